"""What a worker does with one shard, or with one source file: read, hide, call the stage, spread, write aside.

Pure functions of a job and a task; the run (`runs.py`) decides what to do, the engine where it happens.
"""

from __future__ import annotations

import errno
import gc
import importlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate import fingerprint
from curate.dataset import Shard, column_hash, read_columns, write_table
from curate.engine import limit_threads
from curate.errors import CurateError, InternalError, OutOfMemory, UnreadableFile, UserMistake
from curate.stage import VERDICT, Stage, TableFunction
from curate.store import attempt_name, digest, disk_errors, hashed

USER = "curate_user"  # prefix of the module names of users' files
# Above this many failing rows in one shard the stage is at fault, not the data.
MOST_POISON = 16
# Settings that say how much a stage holds at a time; where memory runs out, the shard is computed anew with a half of it, and so on.
BATCHES = ("batch_tokens", "batch_rows")
MOST_HALVINGS = 6


@dataclass(frozen=True)
class Job:
    """What a worker must know to compute any shard of a step; small, and picklable without the stage's class."""

    module: str
    file: str | None
    name: str
    settings: dict[str, Any]
    artifact: str
    root: str
    tmp: str
    threads: int
    kinds: dict[str, str]

    @cached_property
    def stage(self) -> Stage:
        module = fingerprint.load_module(USER, Path(self.file)) if self.file else importlib.import_module(self.module)
        return getattr(module, self.name).model_validate(self.settings)

    def halved(self, times: int) -> Job | None:
        """The same with batches halved so many times; None where the stage has none, or nothing is left to halve."""
        name = next((name for name in BATCHES if isinstance(self.settings.get(name), int)), None)
        if not times:
            return self
        if name is None or times > MOST_HALVINGS or self.settings[name] >> times < 1:
            return None
        return replace(self, settings={**self.settings, name: self.settings[name] >> times})


@dataclass(frozen=True)
class Task:
    """One shard. `span` narrows it to some of its visible rows (a probe, nothing is written); `poison` leaves rows out; `halvings`: of its batches."""

    shard: Shard
    fingerprint: str
    span: tuple[int, int] | None = None
    poison: tuple[int, ...] = ()
    why: str = ""
    halvings: int = 0

    @property
    def rows(self) -> int:
        return self.shard.rows

    def only(self, start: int, end: int) -> Task:
        return replace(self, span=(start, end))

    def without(self, positions: tuple[int, ...], why: str) -> Task:
        return replace(self, poison=(*self.poison, *positions), why=why)

    def smaller(self, job: Job) -> Task | None:
        """The same with smaller batches; None where there are none."""
        return replace(self, halvings=self.halvings + 1) if job.halved(self.halvings + 1) else None

    def __str__(self) -> str:
        return f"shard {self.shard.name}"


def hidden_rows(root: Path, shard: Shard, hidden_by: frozenset[str], kinds: Mapping[str, str]) -> pa.Array | None:
    """Boolean array of the rows that a stage must not see, or None where it sees all."""
    hidden: pa.Array | None = None
    for name in hiding_columns(shard, hidden_by, kinds):
        decision = pc.struct_field(read_columns(root, shard, [name]).column(0), [0])
        wanted = [word for word in ("drop", "quarantine") if hides(word, kinds.get(name.removesuffix(".verdict"), "other"), hidden_by)]
        mask = pc.is_in(decision, value_set=pa.array(wanted, pa.string())).combine_chunks()
        hidden = mask if hidden is None else pc.or_(hidden, mask)
    return hidden if hidden is not None and pc.any(hidden).as_py() else None


def hides(decision: str, kind: str, hidden_by: frozenset[str]) -> bool:
    return decision in hidden_by or (decision == "drop" and kind in hidden_by)


def hiding_columns(shard: Shard, hidden_by: frozenset[str], kinds: Mapping[str, str]) -> list[str]:
    """Verdict columns of a shard that can hide rows from a stage."""
    verdict_columns = sorted(name for name in shard.columns if name.endswith(".verdict"))
    return [
        name
        for name in verdict_columns
        if any(
            mask and hides(decision, kinds.get(name.removesuffix(".verdict"), "other"), hidden_by)
            for decision, mask in shard.columns[name].masks.items()
        )
    ]


_loaded: tuple[tuple[Any, ...], TableFunction] | None = None


def _load(job: Job) -> TableFunction:
    """The stage's function; this process keeps the last one, with its weights."""
    global _loaded
    key = (job.module, job.name, digest(job.settings), job.artifact)
    if _loaded is None or _loaded[0] != key:
        _loaded = None  # the old weights leave before the new ones come
        limit_threads(job.threads)
        _loaded = (key, job.stage.load(Path(job.artifact)))
        limit_threads(job.threads)
    return _loaded[1]


def compute(job: Job, task: Task) -> dict[str, Any]:
    """Run a stage over one shard and write its columns aside; what a worker does, on either engine.

    Where memory runs out the shard begins anew with smaller batches. How small is part of its record: recomputed, it begins there and has the same bytes.
    """
    while True:
        mine = job.halved(task.halvings)
        assert mine is not None
        try:
            return _compute(mine, task)
        except Exception as error:
            smaller = task.smaller(job) if out_of_memory(error) else None
            if smaller is None:
                if out_of_memory(error) and not isinstance(error, CurateError):
                    raise OutOfMemory(
                        f"{job.name} runs out of memory on {task}, with its smallest batches: give it fewer workers (--workers 1), shorter texts (max_tokens) or a larger machine"
                    ) from error
                raise
            task = smaller


def out_of_memory(error: Exception) -> bool:
    """Of Python, of torch on a device, of torch's allocator on a CPU (a plain RuntimeError)."""
    words = str(error).lower() if isinstance(error, RuntimeError) else ""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in words
        or "out of memory" in words
    )


def _compute(job: Job, task: Task) -> dict[str, Any]:
    started = time.perf_counter()
    root, stage = Path(job.root), job.stage
    names = [*stage.reads(), *(name for name in stage.reads_if_present() if name in task.shard.columns)]
    table = read_columns(root, task.shard, names)
    hidden = hidden_rows(root, task.shard, stage.hidden_by, job.kinds)
    visible = pa.array(range(task.rows), pa.int64()) if hidden is None else pc.indices_nonzero(pc.invert(hidden)).cast(pa.int64())
    seen = len(visible)
    poison = set(task.poison)
    if poison:
        visible = visible.filter(pc.invert(pc.is_in(visible, value_set=pa.array(sorted(poison), pa.int64()))))
    if task.span:  # a probe of the engine: which rows of the shard kill a worker
        visible = visible.filter(pc.and_(pc.greater_equal(visible, task.span[0]), pc.less(visible, task.span[1])))
    function = _load(job)
    result, failed = _apply(function, stage, table, visible)
    if task.span:
        return {}
    why = dict.fromkeys(sorted(poison), task.why) | failed
    if not stage.generates:
        result = _spread(
            result, stage, visible.filter(pc.invert(pc.is_in(visible, value_set=pa.array(sorted(failed), pa.int64())))), task.rows, why
        )
    attempt = attempt_name(Path(job.tmp), task.fingerprint)
    with disk_errors(attempt):
        write_table(result, attempt)
    return {
        **describe(result, attempt),
        "poison": {str(row): text for row, text in why.items()},
        "hidden": task.rows - seen,
        "halvings": task.halvings,
        "seconds": round(time.perf_counter() - started, 4),
    }


def _apply(function: TableFunction, stage: Stage, table: pa.Table, visible: pa.Array) -> tuple[pa.Table, dict[int, str]]:
    """Call the stage; where it raises, find the rows at fault by halving and call it again without them."""
    failed: dict[int, str] = {}

    def call(rows: pa.Array) -> pa.Table:
        if not len(rows):
            return stage.writes().empty_table()
        result = function(table.take(rows) if len(rows) < table.num_rows else table)
        wanted = stage.writes()
        if result.column_names != wanted.names:
            raise InternalError(
                f"{type(stage).__name__} returned columns {result.column_names}, it declares {wanted.names}: mend the stage"
            )
        if not stage.generates and result.num_rows != len(rows):
            raise InternalError(f"{type(stage).__name__} returned {result.num_rows} rows for {len(rows)}: mend the stage")
        return result.cast(wanted)

    def narrow(rows: pa.Array) -> None:
        try:
            call(rows)
        except Exception as error:
            if _not_a_rows_fault(error):
                raise
            if len(rows) == 1:
                failed[rows[0].as_py()] = type(error).__name__
                if len(failed) > MOST_POISON:
                    raise InternalError(
                        f"{type(stage).__name__} fails on more than {MOST_POISON} rows of one shard, last with {type(error).__name__}: {error}"
                    ) from error
                return
            middle = len(rows) // 2
            narrow(rows[:middle])
            narrow(rows[middle:])

    try:
        return call(visible), failed
    except Exception as error:
        if _not_a_rows_fault(error):
            raise
        narrow(visible)
        if len(failed) == len(visible) > 1:
            raise InternalError(f"{type(stage).__name__} fails on every row of a shard with {type(error).__name__}: {error}") from error
        if not failed:  # every half succeeds alone: not a row's fault
            raise InternalError(
                f"{type(stage).__name__} fails on a shard but on none of its rows: {type(error).__name__}: {error}"
            ) from error
        kept = visible.filter(pc.invert(pc.is_in(visible, value_set=pa.array(sorted(failed), pa.int64()))))
        return call(kept), failed


def _not_a_rows_fault(error: Exception) -> bool:
    """Errors that leaving out a row cannot mend: our own, no memory, a full or failing disk."""
    disk = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    return disk or out_of_memory(error) or isinstance(error, CurateError)


def _spread(result: pa.Table, stage: Stage, visible: pa.Array, rows: int, poison: Mapping[int, str]) -> pa.Table:
    """Back to the shard's own rows: null where a row was hidden, a quarantine verdict where it was poison."""
    if len(visible) < rows:
        place: list[int | None] = [None] * rows
        for index, row in enumerate(visible.to_pylist()):
            place[row] = index
        result = result.take(pa.array(place, pa.int64()))
    if poison:
        found = result.column("verdict").to_pylist() if "verdict" in result.column_names else [None] * rows
        for row, why in poison.items():
            found[row] = {"decision": "quarantine", "rule": f"stage_{why.lower()}"}
        column = pa.array(found, type=VERDICT)
        at = result.column_names.index("verdict") if "verdict" in result.column_names else -1
        result = result.set_column(at, "verdict", column) if at >= 0 else result.append_column("verdict", column)
    return result


def describe(table: pa.Table, attempt: Path) -> dict[str, Any]:
    """What a record says about a file: hashes of its bytes and of its columns' values, and what its verdicts hide."""
    columns: dict[str, dict[str, str]] = {}
    for name in table.column_names:
        columns[name] = {"hash": column_hash(table.column(name))}
        if name == "verdict":
            decision = pc.struct_field(table.column(name), [0])
            for word in ("drop", "quarantine"):
                mask = pc.fill_null(pc.equal(decision, word), False)
                columns[name][word] = column_hash(mask) if pc.any(mask).as_py() else ""
    sha256, blocks = hashed(attempt)
    return {
        "attempt": str(attempt),
        "sha256": sha256,
        "blocks": blocks,
        "bytes": attempt.stat().st_size,
        "rows": table.num_rows,
        "columns": columns,
    }


@dataclass(frozen=True)
class FileTask:
    """One source file to be cut into shards; it cannot be narrowed to rows, its reader quarantines them itself."""

    file: Any
    shard: str
    fingerprint: str
    rows: int = 0

    def only(self, start: int, end: int) -> FileTask:
        raise NotImplementedError

    def without(self, positions: tuple[int, ...], why: str) -> FileTask:
        raise NotImplementedError

    def smaller(self, job: Any) -> None:
        return None

    def __str__(self) -> str:
        return self.file.name


@dataclass(frozen=True)
class FileJob:
    settings: Any
    tmp: str
    most: int | None = None  # shards of a file that are read (a trial); None: all


def ingest_file(job: FileJob, task: FileTask) -> dict[str, Any]:
    """Cut one source file into shards, each written aside. A file that cannot be read whole gives no shard at all."""
    enabled = gc.isenabled()
    gc.disable()  # rows are many small objects without cycles, and no more of them than a shard: walking them is lost time
    try:
        return _ingest_file(job, task)
    finally:
        if enabled:
            gc.enable()


def _ingest_file(job: FileJob, task: FileTask) -> dict[str, Any]:
    from curate.ingest.files import read_shards

    started = time.perf_counter()
    shards: list[dict[str, Any]] = []
    problem: dict[str, Any] = {}
    mended: Counter[str] = Counter()  # what the reader replaced inside rows, by kind
    try:
        for table in itertools.islice(read_shards(job.settings, task.file), job.most):
            attempt = attempt_name(Path(job.tmp), task.fingerprint)
            with disk_errors(attempt):
                write_table(table, attempt)
            shards.append(describe(table, attempt))
            mended.update(json.loads((table.schema.metadata or {}).get(b"counts", b"{}")))
    except (UnreadableFile, UserMistake) as error:
        for shard in shards:
            Path(shard["attempt"]).unlink()
        shards = []
        problem = {"problem": str(error), "mistake": str(int(isinstance(error, UserMistake)))}
        if isinstance(error, UnreadableFile) and error.passing:
            problem["passing"] = True  # the next run tries again
    return {"shards": shards, **problem, "mended": dict(sorted(mended.items())), "seconds": round(time.perf_counter() - started, 4)}
