"""Reading an input file as canonical shards. Inputs are only ever read."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from curate.dataset import CANONICAL
from curate.errors import CurateError, UnreadableFile, UserMistake
from curate.ingest import arrow, csv, hub, jsonl, parquet, streams
from curate.ingest.canonical import BUILDERS, BadRow, Row, as_text, encode, hash_id
from curate.ingest.find import SourceFile, find_files, suffix_of
from curate.ingest.personal_data import mask_row
from curate.ingest.record import Record
from curate.ingest.repair import repair_row, repairer
from curate.ingest.settings import Fields, Ingest, Source
from curate.stage import VERDICT, verdict_column

__all__ = ["FORMAT_VERSION", "Fields", "Ingest", "Source", "SourceFile", "find_files", "read_beside", "read_shards"]

# Raise it whenever the same file would give other shards: it is part of ingest's fingerprint.
FORMAT_VERSION = 1

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_beside(path: Path | str, keep: tuple[str, ...], what: str, fields: Mapping[str, Any] | None = None) -> list[pa.Table]:
    """The rows of a file or folder beside the corpus (test rows, a target), as `read_shards` gives them; every row must be readable.

    `what` names the file in the message where one is not;  fields  as `ingest.fields`
    """
    try:
        reader = Ingest.model_validate({"path": str(path), "keep": keep, "fields": fields or {}})
    except ValidationError as invalid:
        raise UserMistake(f"{what} {path}: {invalid.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    tables = [table for file in find_files(reader) for table in read_shards(reader, file)]
    if bad := sum(len(table) - table.column("verdict").null_count for table in tables):
        raise UserMistake(f"{bad} rows of {what} {path} cannot be read as rows: mend or remove them")
    return tables


def read_shards(settings: Ingest, file: SourceFile) -> Iterator[pa.Table]:
    """The file's rows as whole shards: CANONICAL columns, the kept ones, `verdict`.

    At most `shard_rows` rows and about `shard_bytes` of text each; a file without rows yields nothing. A bad row is
    a row too: its text columns are null and its verdict is "quarantine". Schema metadata `counts` (JSON) tells how
    often something was mended: `replaced_utf8` rows, `mended_text`, `masked_email` and so on.

    Raises UnreadableFile or UserMistake as soon as it is known that the file cannot be used; what was yielded before
    must then be thrown away.
    """
    try:
        yield from _shards(settings, file, _records(settings, file))
    except UnreadableFile as error:
        raise UnreadableFile(f"{file.name}: {error}", error.passing) from error.__cause__
    except CurateError as error:
        raise type(error)(f"{file.name}: {error}") from error.__cause__
    except (FileNotFoundError, PermissionError) as error:
        raise UnreadableFile(f"{file.name}: cannot be opened ({error.strerror}); check that it exists and may be read", True) from error
    except (OSError, EOFError, MemoryError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        passing = isinstance(error, MemoryError) or bool(getattr(error, "errno", None))  # what a decoder raises has no number
        said = f"{file.name}: cannot be read whole, it is cut or damaged ({reason}); write or download it again"
        raise UnreadableFile(said, passing) from error


def _records(settings: Ingest, file: SourceFile) -> Iterator[Record]:
    if file.path.startswith(hub.PREFIX):
        return hub.read(settings, file.path)
    path, suffix = Path(file.path), suffix_of(file.path) or ""
    if suffix == ".parquet":
        return parquet.read(settings, path)
    if suffix == ".arrow":
        return arrow.read(settings, path)
    form = "." + suffix.split(".")[1]
    lines = streams.lines(streams.chunks(path, settings.max_unpack_ratio, settings.max_file_bytes), settings.max_row_bytes)
    return csv.read(settings, lines, DELIMITERS[form]) if form in DELIMITERS else jsonl.read(settings, lines, form)


NO_CONTENT = (None, None, None, None)


def _shards(settings: Ingest, file: SourceFile, records: Iterator[Record]) -> Iterator[pa.Table]:
    fields, keep, mask = settings.fields, settings.keep, settings.personal_data == "mask"
    mend = repairer() if settings.damaged_text == "mend" else None
    limit = math.inf
    if not file.path.startswith(hub.PREFIX) and suffix_of(file.path) in (".parquet", ".arrow"):  # others are counted as they unpack
        limit = streams.unpacked_limit(Path(file.path).stat().st_size, settings.max_unpack_ratio, settings.max_file_bytes)
    kind: str | None = None
    rows: list[tuple] = []
    counts: Counter[str] = Counter()
    size = total = 0
    for line, values, rule, raw, repaired in records:
        row: Row | tuple[None, None, None, None] = NO_CONTENT
        extras: tuple[str | None, ...] = (None, *(None for _ in keep))
        if values is not None:
            kind = kind or settings.kind_of(values)
            try:
                extras = tuple([_extra(values.get(name)) for name in (fields.id, *keep)])
                if kind is None:
                    raise BadRow("missing_text")
                row = BUILDERS[kind](values, fields)
                if mend:
                    row = repair_row(row, mend, counts)
                if mask:
                    row = mask_row(row, counts)
                content = encode(*row)
                if raw is None and len(row.text.encode()) > settings.max_row_bytes:
                    raise BadRow("row_too_large")
            except BadRow as bad:
                rule = bad.rule
            except UnicodeEncodeError:
                rule = "lone_surrogate"
        if rule is not None:
            row, content = NO_CONTENT, b"bad row:" + (raw if raw is not None else repr(values).encode(errors="backslashreplace"))
        elif repaired:
            counts["replaced_utf8"] += 1
        rows.append((hash_id(content), line, rule, *row, *extras))
        size += len(content)
        if keep:
            size += sum([len(value) for value in extras if value is not None])
        if total + size > limit:
            raise streams.refuse_bomb(int(limit))
        if len(rows) == settings.shard_rows or size >= settings.shard_bytes:
            yield _table(rows, file, keep, counts)
            total += size
            rows, size, counts = [], 0, Counter()
    if rows:
        yield _table(rows, file, keep, counts)


def _extra(value: Any) -> str | None:
    """An id or a kept value as text; a lone surrogate in it raises UnicodeEncodeError."""
    if type(value) is bytes:
        raise BadRow("invalid_utf8")
    text = as_text(value)
    if text is not None and not text.isascii():
        text.encode()
    return text


def _table(rows: list[tuple], file: SourceFile, keep: tuple[str, ...], counts: Counter[str]) -> pa.Table:
    ids, lines, rules, messages, prompt, response, text, source_ids, *kept = zip(*rows, strict=True)
    source, name = pa.repeat(file.source, len(rows)), pa.repeat(file.name, len(rows))
    canonical = (ids, source, source_ids, name, lines, messages, prompt, response, text)
    arrays = [pa.array(column, field.type) for column, field in zip(canonical, CANONICAL, strict=True)]
    arrays += [pa.array(column, pa.large_string()) for column in kept]
    arrays.append(verdict_column(rules, decision="quarantine") if any(rules) else pa.nulls(len(rows), VERDICT))
    schema = pa.schema([*CANONICAL, *((name, pa.large_string()) for name in keep), ("verdict", VERDICT)])
    return pa.Table.from_arrays(arrays, schema=schema.with_metadata({"counts": json.dumps(dict(sorted(counts.items())))}))
