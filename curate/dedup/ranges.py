"""Ranges of keys, each looked at as a task of its own: in this process one after the other, on Ray by all workers.

What a task needs lies in files: the entries of its range, what is known of every row (mapped into memory, not copied), the shingles that the run has
stored anyway. What it finds is a file as well. Pairs alone come together again; sets of rows are made of them in one place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.algorithms.set_join import Sets
from curate.dedup.buckets import read_entries
from curate.dedup.copies import Look, Rows, near_pairs
from curate.stage import FitEngine, Inputs

if TYPE_CHECKING:
    from curate.dedup.lexical import Lexical


@dataclass(frozen=True)
class RangeTask:
    """One file of entries. It cannot be narrowed to rows: a pair may lie in any two of them."""

    file: str
    rows: int = 0

    def only(self, start: int, end: int) -> RangeTask:
        raise NotImplementedError

    def without(self, positions: tuple[int, ...], why: str) -> RangeTask:
        raise NotImplementedError

    def smaller(self, job: Any) -> None:
        return None

    def __str__(self) -> str:
        return f"range {Path(self.file).stem} of near duplicates"


@dataclass(frozen=True)
class RangeJob:
    """stage, inputs, signed (its shingles): as its fit has them;  folder: where `_store` put what is known of the rows."""

    stage: Lexical
    inputs: Inputs
    signed: Inputs
    folder: str


class OverWorkers:
    """The way in which a fit has its ranges looked at. See `copies.Spread`."""

    def __init__(self, stage: Lexical, inputs: Inputs, signed: Inputs, engine: FitEngine, room: Path):
        self.stage, self.inputs, self.signed, self.engine, self.room = stage, inputs, signed, engine, room

    def __call__(self, files: Sequence[Path], rows: Rows, look: Look) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        with tempfile.TemporaryDirectory(prefix="looking-", dir=self.room) as place:
            _store(rows, Path(place), "rows")
            _store(look, Path(place), "look")
            job = RangeJob(self.stage, self.inputs, self.signed, place)
            tasks = [RangeTask(str(file)) for file in files]
            found = {task.file: result for task, result in self.engine.map(look_at, job, tasks)}
            for task in tasks:
                with np.load(found[task.file]) as pairs:
                    yield pairs["pairs"], pairs["alike"]


def look_at(job: RangeJob, task: RangeTask) -> str:
    """The near pairs of one range; the file that holds them."""
    stage, folder = job.stage, Path(job.folder)
    rows, look = Rows(**_stored(folder, "rows")), Look(**_stored(folder, "look"))
    known, shingles = stage.known(), stage.shingles()
    theirs = [part.sets for one in known for part in one.marks(shingles.of, shingles.shingle)]

    def read() -> Iterable[Sets]:
        yield from stored_sets(job.signed)
        yield from theirs

    agree = stage.agreeing(len(rows) - rows.known, known, job.inputs)
    pairs, alike = near_pairs(read_entries(Path(task.file)), rows, read, stage.threshold, stage.measure, agree, look)
    out = folder / f"{Path(task.file).stem}.npz"
    np.savez(out, pairs=pairs, alike=alike)
    return str(out)


def stored_sets(signed: Inputs) -> Iterator[Sets]:
    """The shingles of every shard, as its step has stored them."""
    import pyarrow.compute as pc

    for _, table in signed.tables():
        column = table["shingle_hashes"].combine_chunks()
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
        yield Sets(np.asarray(column.flatten(), np.uint64), np.concatenate([[0], np.cumsum(lengths)]))


def _store(what: Rows | Look, folder: Path, name: str) -> None:
    """Arrays and numbers of a dataclass as files; what is None has none."""
    for field in fields(what):
        if (value := getattr(what, field.name)) is not None:
            np.save(folder / f"{name}.{field.name}.npy", value)


def _stored(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {} if name == "rows" else {"level": None}
    for file in folder.glob(f"{name}.*.npy"):
        value = np.load(file, mmap_mode="r")
        found[file.name.split(".")[1]] = int(value) if value.ndim == 0 else value
    return found
