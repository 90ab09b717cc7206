"""JSON lines: one object a line, strict JSON, UTF-8.

Two liberties: NaN and infinities are read (Python writes them) and matter only in a column that is used: they are
a wrong type in a text column and the words `NaN`, `Infinity` in a kept one. An escaped NUL is a character of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from curate.errors import UnreadableFile
from curate.ingest.record import Record, no_column
from curate.ingest.settings import Ingest

# Far above any real record and far below the interpreter's own limit, which depends on who calls.
MAX_DEPTH = 200
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
NOT_LINES = "is one JSON document, not JSON lines; convert it: jq -c '.[]' FILE > NEW.jsonl"


class _DuplicateKey(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateKey
    return found


_decode = json.JSONDecoder(object_pairs_hook=_unique).decode


def read(settings: Ingest, lines: Iterator[tuple[int, bytes, str | None]], suffix: str) -> Iterator[Record]:
    """Records of the numbered lines; blank lines are none. UserMistake at the end if no row had the columns."""
    replace = settings.invalid_utf8 == "replace"
    objects = 0
    wanted: set[str] | None = None  # required columns not met yet
    seen: dict[str, None] = {}
    first = True
    for number, raw, rule in lines:
        if rule is None and not raw.strip():
            continue
        record = Record(number, None, rule, raw) if rule else parse(number, raw, replace)
        if first and _is_document(record, suffix):
            raise UnreadableFile(NOT_LINES)
        first = False
        values = record.values
        if values is not None:
            objects += 1
            if wanted is None and (kind := settings.kind_of(values)):
                wanted = set(settings.required(kind))
            if wanted:
                wanted.difference_update(values)
            if wanted is None or wanted:
                seen.update(dict.fromkeys(list(values)[:100]))
        yield record
    if objects and wanted is None:
        fields = settings.fields
        raise no_column(list(seen)[:100], f"'{fields.instruction}', '{fields.messages}' or '{fields.text}' in any row")
    if objects and wanted:
        raise no_column(list(seen)[:100], " and ".join(f"'{name}'" for name in sorted(wanted)) + " in any row")


def parse(number: int, raw: bytes, replace: bool) -> Record:
    """One line as a record; what is wrong with it becomes the record's rule."""
    repaired = False
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        if not replace:
            return Record(number, None, "invalid_utf8", raw)
        text, repaired = raw.decode(errors="replace"), True
    if b"\x00" in raw:
        return Record(number, None, "nul_byte", raw)
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        return Record(number, None, "nesting_too_deep", raw)
    try:
        values = _decode(text)
    except json.JSONDecodeError:
        return Record(number, None, "bad_json", raw)
    except _DuplicateKey:
        return Record(number, None, "duplicate_key", raw)
    except ValueError:  # Python's limit of 4,300 digits
        return Record(number, None, "number_too_long", raw)
    if type(values) is not dict:
        return Record(number, None, "not_an_object", raw)
    return Record(number, values, None, raw, repaired)


def _is_document(first: Record, suffix: str) -> bool:
    """Whether the first line shows that the file is one JSON value over many lines, or a single array in a .json file."""
    line = (first.raw or b"").strip()
    if first.rule == "row_too_large":
        return suffix == ".json"
    return line in (b"[", b"{") or (line.startswith(b"[") and (suffix == ".json" or first.rule == "bad_json"))


def _depth(raw: bytes) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
