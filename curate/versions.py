"""Versions of a run's dataset: what was published, what had become of every row then, and which one is current.

versions/4/                 the dataset as `load_dataset` reads it, with its card and CHANGES.md
versions/4.json             its record: fingerprint, files, the version it followed, what its scores and clusters were like
versions/4.rows.parquet     every row of that state and its fate (ROWS)
versions/4.changes.parquet  the rows that entered and left since the version before (refresh/changes.py)
dataset                     a link to the current one, swapped in one step
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.dataset import Dataset, Shard, column_types, read_columns, write_table
from curate.errors import Damaged, UserMistake
from curate.ledger import NO_SCORES, fates, is_generated
from curate.store import aside_of, disk_errors, read_json, same_files, sync, write_json

WITHDRAWN = "withdrawn.json"
QUANTILES = 101  # of a score, stored with a version

ROWS = pa.schema(
    [
        ("row_id", pa.string()),
        ("source", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("place", pa.uint64()),  # hash of the four above: the row in its place
        ("fate", pa.string()),
        ("step", pa.string()),
        ("rule", pa.string()),
        ("duplicate", pa.bool_()),  # some step calls it a duplicate, whatever its fate
        ("origin", pa.string()),
        ("depth", pa.int32()),
        ("cluster", pa.int32()),
        ("tokens", pa.int64()),
    ]
)


class Versions:
    """The published versions of one run folder."""

    def __init__(self, run: Path):
        self.run, self.folder, self.pointer = run, run / "versions", run / "dataset"

    def numbers(self) -> list[int]:
        """Every version that was ever finished, oldest first; the rows of old ones may be gone."""
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdigit())

    def on_disk(self) -> list[int]:
        """Those whose rows are there."""
        return [number for number in self.numbers() if self.place(number).exists()]

    def current(self) -> int | None:
        """The version that readers see, or None before the first."""
        name = self.pointer.readlink().name if self.pointer.is_symlink() else ""
        return int(name) if name.isdigit() else None

    def record(self, number: int | None) -> dict[str, Any] | None:
        found = None if number is None else read_json(self.folder / f"{number}.json")
        return found if found and {"fingerprint", "files"} <= found.keys() else None

    def place(self, number: int) -> Path:
        return self.folder / str(number)

    def rows_file(self, number: int) -> Path:
        return self.folder / f"{number}.rows.parquet"

    def changes_file(self, number: int) -> Path:
        return self.folder / f"{number}.changes.parquet"

    def rows(self, number: int) -> pa.Table:
        """Every row of a version, columns as ROWS."""
        return _read(
            self.rows_file(number), f"version {number} of {self.run} is not kept any more, or was published before there were rows files"
        )

    def changes(self, number: int) -> pa.Table:
        return _read(self.changes_file(number), f"version {number} of {self.run} has no list of changes")

    def point(self, number: int) -> None:
        """Make a version the current one: readers see the old one or the new one, never a mixture."""
        if self.current() != number:
            with disk_errors(self.pointer), aside_of(self.pointer) as aside:
                aside.symlink_to(f"versions/{number}")
                aside.replace(self.pointer)
                sync(self.run)

    def beside(self, number: int) -> bool:
        """Whether the rows of a version are there as they were written."""
        about = (self.record(number) or {}).get("beside", {}).get(self.rows_file(number).name)
        return bool(about) and same_files(self.folder, {self.rows_file(number).name: about})

    def roll_back(self, to: int | None = None) -> tuple[int, int]:
        """(the version that was current, the one that is now): the last one before it that is whole, or `to`. Later ones are withdrawn."""
        now = self.current()
        if now is None:
            raise UserMistake(f"{self.run} has no published version: `curate run` or `curate refresh` makes one")
        there = self.on_disk()
        if to is None:
            to = max((number for number in there if number < now and number not in self.withdrawn()), default=None)
            if to is None:
                raise UserMistake(
                    f"{self.run}: there is no version before {now} on the disk to go back to; refresh.keep_versions says how many stay"
                )
        if to not in there:
            raise UserMistake(f"{self.run}: version {to} is not on the disk; there are {', '.join(map(str, there))}")
        if not same_files(self.place(to), (self.record(to) or {}).get("files", {"": ["", 0, 0]})):
            raise UserMistake(
                f"{self.place(to)} is not as it was published: `curate verify {self.run}` says what is wrong; name another version with --to"
            )
        marks = {number for number in self.withdrawn() if number != to} | {
            number for number in self.numbers() if to < number <= max(now, to)
        }
        write_json(self.folder / WITHDRAWN, sorted(marks))
        self.point(to)
        return now, to

    def withdrawn(self) -> set[int]:
        """Versions that were rolled back: a later run that comes to the same rows does not make them current again."""
        return set(read_json(self.folder / WITHDRAWN) or ())

    def keep_last(self, most: int) -> list[int]:
        """Remove the rows of all but the last `most` versions, and of no version that is current; their records and changes stay.

        What became of every row in the version that the current one followed stays too: the same refresh, called again, looks it up.
        """
        gone, followed = [], (self.record(self.current()) or {}).get("after")
        counted = [number for number in self.numbers() if number not in self.withdrawn()]
        old = set(counted[:-most]) | {number for number in self.withdrawn() if number < min(counted[-most:], default=0)}
        for number in sorted(old):
            if number != self.current() and self.place(number).exists():
                shutil.rmtree(self.place(number))
                gone.append(number)
            if number not in (self.current(), followed):
                self.rows_file(number).unlink(missing_ok=True)
        return gone


def _read(path: Path, otherwise: str) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(use_threads=False)
    except FileNotFoundError:
        raise UserMistake(f"{otherwise}: there is no {path}; name a version that is there, `ls {path.parent}` lists them") from None
    except (OSError, pa.ArrowException) as error:
        raise Damaged(str(path)) from error


def places(row_ids: Sequence[str], sources: Sequence[str], files: Sequence[str], lines: Sequence[int]) -> np.ndarray:
    """One hash per row, uint64 (n,): the same text in the same place of the same source."""
    joined = [f"{a}\x1f{b}\x1f{c}\x1f{d}".encode() for a, b, c, d in zip(row_ids, sources, files, lines, strict=True)]
    return np.frombuffer(b"".join([hashlib.blake2b(item, digest_size=8).digest() for item in joined]), np.uint64)


def rows_of(dataset: Dataset, decisions: Sequence[str]) -> Iterator[pa.Table]:
    """Shard by shard, columns as ROWS. `dataset` has the columns of every step."""
    duplicates = [name for name in decisions if dataset.kinds.get(name) == "duplicate"]
    for shard in dataset.shards:
        names = [name for name in ("row_id", "source", "file", "line", "origin", "depth", "cluster", "tokens") if name in shard.columns]
        table = read_columns(dataset.root, shard, names)
        fate = fates(dataset.root, shard, decisions, ("rule",))
        names = [
            name for name in names if name not in ("cluster", "depth", "tokens") or pa.types.is_integer(table.schema.field(name).type)
        ]  # a user's own may be words
        columns = {name: fate[name] for name in ("fate", "step", "rule")} | {name: table[name] for name in names}
        columns["place"] = pa.array(places(*(table[name].to_pylist() for name in ("row_id", "source", "file", "line"))))
        twin = pa.array(np.zeros(shard.rows, bool))
        for name in [f"{step}.verdict" for step in duplicates if f"{step}.verdict" in shard.columns]:
            decision = pc.struct_field(read_columns(dataset.root, shard, [name]).column(0).combine_chunks(), [0])
            twin = pc.or_(twin, pc.fill_null(pc.equal(decision, "drop"), False))
        columns["duplicate"] = twin
        yield pa.table([columns[field.name].cast(field.type) if field.name in columns else pa.nulls(shard.rows, field.type) for field in ROWS], schema=ROWS)  # fmt: skip


def write_rows(tables: Iterator[pa.Table], path: Path) -> pa.Table:
    whole = pa.concat_tables([ROWS.empty_table(), *tables])
    write_table(whole, path)
    return whole


def score_columns(dataset: Dataset) -> list[str]:
    """Names of the columns of numbers that steps have written beside raw rows."""
    found: dict[str, bool] = {}
    for shard in dataset.shards:
        if not is_generated(shard):
            wanted = [name for name in shard.columns if name not in NO_SCORES and not name.endswith(".verdict") and name not in found]
            for name, kind in column_types(dataset.root, shard, wanted).items():
                found[name] = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    return sorted(name for name, is_score in found.items() if is_score)


def score_values(dataset: Dataset, name: str, shards: Sequence[Shard] | None = None) -> np.ndarray:
    """A score of all raw rows in shard order, float64 (n,); NaN where there is none."""
    parts = [np.empty(0)]
    for shard in dataset.shards if shards is None else shards:
        if not is_generated(shard):
            if name in shard.columns:
                column = read_columns(dataset.root, shard, [name]).column(0)
                parts.append(np.asarray(pc.cast(column, pa.float64()).fill_null(np.nan)))
            else:
                parts.append(np.full(shard.rows, np.nan))
    return np.concatenate(parts)


def described(dataset: Dataset, rows: pa.Table) -> dict[str, Any]:
    """What a version was like: quantiles of every score over raw rows, rows by cluster, synthetic share and depth of the kept."""
    scores = {}
    for name in score_columns(dataset):
        values = score_values(dataset, name)
        values = values[np.isfinite(values)]
        if len(values):
            scores[name] = {"rows": len(values), "quantiles": np.quantile(values, np.linspace(0, 1, QUANTILES)).round(9).tolist()}
    kept = rows.filter(pc.equal(rows["fate"], "kept"))
    made = kept.filter(kept["origin"].is_valid())
    return {
        "scores": scores,
        "clusters": _counted(rows["cluster"]),
        "clusters_kept": _counted(kept["cluster"]),
        "read": int(pc.sum(rows["origin"].is_null()).as_py() or 0),
        "kept": kept.num_rows,
        "kept_generated": made.num_rows,
        "depth": _counted(made["depth"]),
        "tokens_kept": int(pc.sum(kept["tokens"]).as_py() or 0),
    }


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    counts = Counter({str(item["values"]): item["counts"] for item in pc.value_counts(column.drop_null()).to_pylist()})
    return dict(sorted(counts.items(), key=lambda item: (len(item[0]), item[0])))
