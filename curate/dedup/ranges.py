"""Ranges of keys, each looked at as a task of its own: in this process one after the other, on Ray by all workers.

What a task needs lies in files: the entries of its range, what is known of every row (mapped into memory, not copied), the shingles that the run has
stored anyway. What it finds is a file as well. Pairs alone come together again; sets of rows are made of them in one place.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.algorithms.set_join import Measure, Sets, joined
from curate.dedup.buckets import read_entries
from curate.dedup.copies import Look, Rows, near_pairs
from curate.stage import FitEngine, Inputs

if TYPE_CHECKING:
    from curate.dedup.deciding import Corpus

MEMORY = 2 << 30  # bytes that a task needs: 1.7 GiB were measured for a whole range of a million rows


@dataclass(frozen=True)
class RangeTask:
    """One file of entries. It cannot be narrowed to rows: a pair may lie in any two of them."""

    file: str
    rows: int = 0
    patient = True  # a limit of time for shards is none for ranges

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
    """inputs, signed (its shingles): as the fit has them;  folder: what is known of the rows, and the sets and responses of known rows;  agree: whether responses are compared."""

    inputs: Inputs
    signed: Inputs
    folder: str
    least: float
    measure: Measure
    agree: bool


class OverWorkers:
    """The way in which a fit has its ranges looked at. See `copies.Spread`."""

    def __init__(self, corpus: Corpus, inputs: Inputs, engine: FitEngine, least: float, measure: Measure, agree: bool):
        self.corpus, self.inputs, self.engine = corpus, inputs, engine
        self.least, self.measure, self.agree = least, measure, agree

    @property
    def room(self) -> Path:
        return self.engine.room

    def __call__(self, files: Sequence[Path], rows: Rows, look: Look) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        folder = Path(tempfile.mkdtemp(prefix="looking-", dir=self.room))
        _store(rows, folder, "rows")
        _store(look, folder, "look")
        if rows.known and look.level is None:  # no other look meets a known row
            _store(joined([part.sets for part in self.corpus.marked]), folder, "sets")
        if rows.known and look.level is None and self.agree:
            pq.write_table(pa.table({"response": pa.array(self.corpus.responses(), pa.large_string())}), folder / "responses.parquet")
        job = RangeJob(self.inputs, self.corpus.signed, str(folder), self.least, self.measure, self.agree)
        tasks = [RangeTask(str(file)) for file in files]
        found = {task.file: result for task, result in self.engine.map(look_at, job, tasks, MEMORY)}
        for task in tasks:
            with np.load(found[task.file]) as pairs:
                yield pairs["pairs"], pairs["alike"]
        shutil.rmtree(folder)  # else the run does it, when it ends or is begun again


def look_at(job: RangeJob, task: RangeTask) -> str:
    """The near pairs of one range; the file that holds them."""
    from curate.dedup.deciding import responses_agree

    folder = Path(job.folder)
    rows, look = Rows(**_stored(folder, "rows")), Look(**({"level": None} | _stored(folder, "look")))
    own = len(rows) - rows.known
    theirs = _stored(folder, "sets")

    def read() -> Iterable[Sets]:
        yield from stored_sets(job.signed)
        if theirs:
            yield Sets(**theirs)

    def agree(pairs: np.ndarray) -> np.ndarray:
        return responses_agree(
            pairs, own, lambda: pq.read_table(folder / "responses.parquet")["response"].to_pylist(), job.inputs, job.least
        )

    entries = read_entries(Path(task.file))
    pairs, alike = near_pairs(entries, rows, read, job.least, job.measure, agree if job.agree else None, look)
    out = folder / f"{Path(task.file).stem}.npz"
    np.savez(out, pairs=pairs, alike=alike)
    return str(out)


def stored_sets(signed: Inputs) -> Iterator[Sets]:
    """The shingles of every shard, as its step has stored them; none of a row that the step has set aside."""
    for _, table in signed.tables():
        column = table["shingle_hashes"].combine_chunks()
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        yield Sets(np.asarray(column.flatten(), np.uint64), np.concatenate([[0], np.cumsum(lengths)]))


def _store(what: Rows | Look | Sets, folder: Path, name: str) -> None:
    """Arrays and numbers of a dataclass as files; what is None has none."""
    for field in fields(what):
        if (value := getattr(what, field.name)) is not None:
            np.save(folder / f"{name}.{field.name}.npy", value)


def _stored(folder: Path, name: str) -> dict[str, Any]:
    """The fields that `_store` wrote; arrays are mapped into memory."""
    found: dict[str, Any] = {}
    for file in folder.glob(f"{name}.*.npy"):
        value = np.load(file, mmap_mode="r" if file.stat().st_size > 1 << 16 else None)  # what is empty cannot be mapped
        found[file.name.split(".")[1]] = int(value) if value.ndim == 0 else value
    return found
