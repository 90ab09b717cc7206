"""A run: a folder, and the one method through which every stage goes.

    run.step(name, settings, *inputs) -> Dataset      fit once if it must, then every shard that changed
                                                      fingerprint -> reuse or compute -> commit -> record

Whatever cuts across stages (what to skip, resuming, hiding rows, poison rows, timing) is here and nowhere
else. The first input says which shards; the others bring columns for them.
"""

from __future__ import annotations

import importlib
import json
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate import fingerprint, ledger, models
from curate.dataset import Dataset, Shard, column_hash, columns_of, read_columns, union, write_table
from curate.engine import check_stop, limit_threads
from curate.errors import CurateError, InternalError, UnreadableFile, UserMistake
from curate.stage import VERDICT, Stage, TableFunction
from curate.store import Records, SharedStore, attempt_name, commit, digest, disk_errors, read_json, sha256_file, sync, write_json

# Above this many failing rows in one shard the stage is at fault, not the data.
MOST_POISON = 16


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
        module = fingerprint.load_module(self.module, Path(self.file)) if self.file else importlib.import_module(self.module)
        return getattr(module, self.name).model_validate(self.settings)


@dataclass(frozen=True)
class Task:
    """One shard. `span` narrows it to some of its visible rows (a probe, nothing is written); `poison` leaves rows out."""

    shard: Shard
    fingerprint: str
    span: tuple[int, int] | None = None
    poison: tuple[int, ...] = ()
    why: str = ""

    @property
    def rows(self) -> int:
        return self.shard.rows

    def only(self, start: int, end: int) -> Task:
        return replace(self, span=(start, end))

    def without(self, positions: tuple[int, ...], why: str) -> Task:
        return replace(self, poison=(*self.poison, *positions), why=why)

    def __str__(self) -> str:
        return f"shard {self.shard.name}"


def hidden_rows(root: Path, shard: Shard, hidden_by: frozenset[str], kinds: Mapping[str, str]) -> pa.Array | None:
    """Boolean array of the rows that a stage must not see, or None where it sees all."""
    hidden: pa.Array | None = None
    for name in hiding_columns(shard, hidden_by, kinds):
        decision = pc.struct_field(read_columns(root, shard, [name]).column(0), [0])
        wanted = [word for word in ("drop", "quarantine") if _hides(word, kinds.get(name.removesuffix(".verdict"), "other"), hidden_by)]
        mask = pc.is_in(decision, value_set=pa.array(wanted, pa.string())).combine_chunks()
        hidden = mask if hidden is None else pc.or_(hidden, mask)
    return hidden if hidden is not None and pc.any(hidden).as_py() else None


def _hides(decision: str, kind: str, hidden_by: frozenset[str]) -> bool:
    return decision in hidden_by or (decision == "drop" and kind in hidden_by)


def hiding_columns(shard: Shard, hidden_by: frozenset[str], kinds: Mapping[str, str]) -> list[str]:
    """Verdict columns of a shard that can hide rows from a stage."""
    verdict_columns = sorted(name for name in shard.columns if name.endswith(".verdict"))
    return [
        name
        for name in verdict_columns
        if any(_hides(decision, kinds.get(name.removesuffix(".verdict"), "other"), hidden_by) for decision in ("drop", "quarantine"))
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
    """Run a stage over one shard and write its columns aside; what a worker does, on either engine."""
    started = time.perf_counter()
    root, stage = Path(job.root), job.stage
    names = [*stage.reads(), *(name for name in stage.reads_if_present() if name in task.shard.columns)]
    table = read_columns(root, task.shard, names)
    hidden = hidden_rows(root, task.shard, stage.hidden_by, job.kinds)
    visible = pa.array(range(task.rows), pa.int64()) if hidden is None else pc.indices_nonzero(pc.invert(hidden)).cast(pa.int64())
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
        except (CurateError, MemoryError, OSError):
            raise
        except Exception as error:
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
    except (CurateError, MemoryError, OSError):
        raise
    except Exception as error:
        narrow(visible)
        if not failed:  # every half succeeds alone: not a row's fault
            raise InternalError(
                f"{type(stage).__name__} fails on a shard but on none of its rows: {type(error).__name__}: {error}"
            ) from error
        kept = visible.filter(pc.invert(pc.is_in(visible, value_set=pa.array(sorted(failed), pa.int64()))))
        return call(kept), failed


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
    return {
        "attempt": str(attempt),
        "sha256": sha256_file(attempt),
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

    def __str__(self) -> str:
        return self.file.name


@dataclass(frozen=True)
class FileJob:
    settings: Any
    tmp: str


def ingest_file(job: FileJob, task: FileTask) -> dict[str, Any]:
    """Cut one source file into shards, each written aside. A file that cannot be read whole gives no shard at all."""
    from curate.ingest.files import read_shards

    started = time.perf_counter()
    shards: list[dict[str, Any]] = []
    problem: dict[str, str] = {}
    mended: Counter[str] = Counter()  # what the reader replaced inside rows, by kind
    try:
        for table in read_shards(job.settings, task.file):
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
    return {"shards": shards, **problem, "mended": dict(sorted(mended.items())), "seconds": round(time.perf_counter() - started, 4)}


@dataclass
class StepFacts:
    """What a step did in this run; shown by `status` and the report."""

    name: str
    stage: str
    kind: str
    about: str = ""
    shards: int = 0
    rows: int = 0
    executed: int = 0
    reused: int = 0
    generated: int = 0
    seconds: float = 0.0
    fitted: str = ""  # "", "fitted" or "reused"
    generates: bool = False
    models: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)


class View:
    """What `fit` sees of a dataset: some columns, hidden rows left out. See `stage.Inputs`."""

    def __init__(self, dataset: Dataset, stage: Stage, names: tuple[str, ...] | None = None):
        self.dataset, self.stage, self.names = dataset, stage, names
        self._by_name = {shard.name: shard for shard in dataset.shards}

    @property
    def shards(self) -> list[str]:
        return list(self._by_name)

    @property
    def rows(self) -> int:
        return self.dataset.rows

    def table(self, shard: str) -> pa.Table:
        found = self._by_name[shard]
        names = self.names or (*self.stage.reads(), *(name for name in self.stage.reads_if_present() if name in found.columns))
        table = read_columns(self.dataset.root, found, list(dict.fromkeys((*names, "position"))))
        hidden = hidden_rows(self.dataset.root, found, self.stage.hidden_by, self.dataset.kinds)
        return table if hidden is None else table.filter(pc.invert(hidden))

    def tables(self) -> Iterator[tuple[str, pa.Table]]:
        for shard in self._by_name:
            check_stop()
            yield shard, self.table(shard)


class FitEngineOf:
    """The engine as `fit` sees it: further stages over the same shards, under the step's own folder."""

    def __init__(self, run: Run, name: str, inputs: Dataset, stage: Stage):
        self.run, self.name, self.inputs, self.stage = run, name, inputs, stage

    def step(self, name: str, stage: Stage) -> View:
        result = self.run.step(f"{self.name}/{name}", stage, self.inputs)
        return View(self.inputs.beside(result), self.stage, ("shard", *stage.writes().names))


class Run:
    """A run folder that is being written, under its lock. `recipe` is the checked recipe."""

    def __init__(self, folder: Path, recipe: Any, engine: Any, progress: Any):
        self.folder, self.recipe, self.engine, self.progress = folder.absolute(), recipe, engine, progress
        self.tmp = self.folder / "tmp"
        self.store = SharedStore(Path(recipe.store)) if recipe.store else None
        self.facts: dict[str, StepFacts] = {}
        self.touched: dict[str, set[str]] = {}
        self.artifacts: dict[str, tuple[Path, str]] = {}
        self.records: dict[str, Records] = {}
        self.decisions: list[str] = []  # steps with verdicts, in the pipeline's order
        self.verdicts: dict[str, Dataset] = {}
        self.problems: list[dict[str, str]] = []
        self.mended: Counter[str] = Counter()
        self.files = 0
        self.counts = ledger.Counts()
        self._clear_tmp()

    def _clear_tmp(self) -> None:
        shutil.rmtree(self.tmp, ignore_errors=True)
        self.tmp.mkdir(parents=True)

    # -- steps ---------------------------------------------------------------------------------------------------

    def step(self, name: str, stage: Stage, *inputs: Dataset) -> Dataset:
        """Bring a step up to date over the shards of the first input; its columns (or its new rows)."""
        if not inputs:
            return self._ingest(name, stage)
        started = time.perf_counter()
        stage = self._fill(stage)
        joined = inputs[0].beside(*inputs[1:])
        self._check_columns(name, stage, joined)
        facts = self._begin(name, stage)
        artifact, artifact_hash = self._fit(name, stage, joined, facts) if stage.fits() else (self._folder(name) / "artifact", "")
        identity = digest({**self._identity(name, stage), "artifact": artifact_hash})
        records = self._records(name)
        tasks: list[Task] = []
        for shard in joined.shards:
            task = Task(shard, digest([identity, self._input_hashes(stage, shard, joined.kinds)]))
            self.touched[name].add(shard.name)
            if not self._reuse(name, stage, task, records):
                tasks.append(task)
        if tasks:
            self.progress.begin(name, len(joined.shards), sum(task.rows for task in tasks), len(joined.shards) - len(tasks))
            for task, result in self.engine.map(compute, self._job(stage, artifact, joined.kinds), tasks, stage.resources()):
                self._commit(name, stage, task, result, records)
                facts.executed += 1
                self.progress.advance(task.rows)
        dataset = self._result(name, stage, joined, records)
        facts.shards, facts.rows, facts.reused = len(joined.shards), joined.rows, len(joined.shards) - facts.executed
        facts.generated = dataset.rows if stage.generates else 0
        facts.seconds += time.perf_counter() - started
        records.merge(step=name, stage=facts.stage)
        self._check_rows(name, joined, dataset, stage)
        self.progress.end(name, facts)
        return dataset

    def fit(self, name: str, stage: Stage, *inputs: Dataset) -> Path:
        """Only fit: the folder of what a stage made from the whole corpus (a pruned model, for one)."""
        stage = self._fill(stage)
        joined = inputs[0].beside(*inputs[1:])
        self._check_columns(name, stage, joined)
        started = time.perf_counter()
        facts = self._begin(name, stage)
        folder, _ = self._fit(name, stage, joined, facts)
        facts.seconds += time.perf_counter() - started
        self.progress.end(name, facts)
        return folder

    def _fill(self, stage: Stage) -> Stage:
        """Settings that the run knows: where generated responses are kept."""
        if "cache" in type(stage).model_fields and getattr(stage, "cache", "") is None:
            return stage.but(cache=str(self.folder / "responses"))
        return stage

    def _begin(self, name: str, stage: Stage) -> StepFacts:
        if name not in self.facts:
            about = (type(stage).__doc__ or "").strip().split("\n")[0]
            self.facts[name] = StepFacts(name, type(stage).__name__, stage.verdict_kind, about, generates=stage.generates)
            self.touched[name] = set()
        facts = self.facts[name]
        facts.models = list(stage.models())
        facts.columns = [] if stage.generates else stage.writes().names
        return facts

    def _folder(self, name: str) -> Path:
        return self.folder / "stages" / name

    def _records(self, name: str) -> Records:
        if name not in self.records:
            self.records[name] = Records(self._folder(name))
        return self.records[name]

    def _identity(self, name: str, stage: Stage) -> dict[str, Any]:
        return fingerprint.of_stage(stage, self.recipe.threads)

    def _job(self, stage: Stage, artifact: Path, kinds: Mapping[str, str]) -> Job:
        module = importlib.import_module(type(stage).__module__)
        file = module.__file__ if not type(stage).__module__.startswith("curate.") else None
        settings = stage.model_dump(mode="python")
        return Job(
            type(stage).__module__,
            file,
            type(stage).__name__,
            settings,
            str(artifact),
            str(self.folder),
            str(self.tmp),
            self.recipe.threads,
            dict(kinds),
        )

    def _check_columns(self, name: str, stage: Stage, joined: Dataset) -> None:
        for shard in joined.shards:
            missing = [column for column in stage.reads() if column not in ("shard", "position") and column not in shard.columns]
            if missing:
                raise UserMistake(
                    f"step '{name}' reads column {missing[0]!r}, which no step before it writes for shard {shard.name}; "
                    f"there are: {', '.join(sorted(shard.columns))}. Add the step or scorer that makes it, or name another column"
                )

    def _input_hashes(self, stage: Stage, shard: Shard, kinds: Mapping[str, str]) -> dict[str, Any]:
        """What of a shard this stage depends on: values of the columns it reads, and which rows are hidden from it."""
        names = [*stage.reads(), *(name for name in stage.reads_if_present() if name in shard.columns)]
        hashes: dict[str, Any] = {name: shard.columns[name].hash for name in names if name in shard.columns}
        if "shard" in names:
            hashes["shard"] = shard.name
        masks = []
        for name in hiding_columns(shard, stage.hidden_by, kinds):
            kind = kinds.get(name.removesuffix(".verdict"), "other")
            masks += [
                mask
                for word in ("drop", "quarantine")
                if _hides(word, kind, stage.hidden_by) and (mask := shard.columns[name].masks.get(word, ""))
            ]
        return {"rows": shard.rows, "columns": hashes, "hidden": masks}

    # -- fitting -------------------------------------------------------------------------------------------------

    def _fit(self, name: str, stage: Stage, joined: Dataset, facts: StepFacts) -> tuple[Path, str]:
        """The artifact's folder and hash. A step called again in the same run applies what its first call fitted."""
        if name in self.artifacts:
            return self.artifacts[name]
        seen = {shard.name: self._input_hashes(stage, shard, joined.kinds) for shard in joined.shards}
        wanted = digest([self._identity(name, stage), seen])
        folder = self._folder(name)
        record = read_json(folder / "artifact.json")
        target = folder / f"artifact-{wanted[:12]}"
        if record and record["fingerprint"] == wanted and target.is_dir() and _same_files(target, record["files"]):
            facts.fitted = facts.fitted or "reused"
        else:
            self.progress.note(name, "fitting")
            attempt = self.tmp / f"fit-{secrets.token_hex(6)}"
            attempt.mkdir()
            limit_threads(self.recipe.threads)
            with disk_errors(attempt):
                stage.fit(View(joined, stage), FitEngineOf(self, name, joined, stage), attempt)
            files = {}
            for path in sorted(attempt.rglob("*")):
                if path.is_file():
                    sync(path)
                    files[path.relative_to(attempt).as_posix()] = [sha256_file(path), path.stat().st_size]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            attempt.replace(target)
            sync(folder)
            record = {"fingerprint": wanted, "files": files}
            write_json(folder / "artifact.json", record)
            facts.fitted = "fitted"
        for old in folder.glob("artifact-*"):
            if old != target:
                shutil.rmtree(old)
        # The fit's own fingerprint is left out: the same artifact from other inputs changes nothing downstream.
        self.artifacts[name] = (target, digest(record["files"]))
        return self.artifacts[name]

    # -- committing ----------------------------------------------------------------------------------------------

    def _file(self, name: str, stage: Stage, shard: str) -> Path:
        return self.folder / "corpus" / f"{shard}-{name}.parquet" if stage.generates else self._folder(name) / f"{shard}.parquet"

    def _reuse(self, name: str, stage: Stage, task: Task, records: Records) -> bool:
        """True where the committed columns still hold, here, under another shard's name, or in the store."""
        final = self._file(name, stage, task.shard.name)
        record = records.by_shard.get(task.shard.name)
        if record and record["fingerprint"] == task.fingerprint and _intact(final, record):
            return True
        attempt = attempt_name(self.tmp, task.fingerprint)
        for other in records.by_shard.values():
            place = self._file(name, stage, other["shard"])
            if not stage.generates and other["fingerprint"] == task.fingerprint and _intact(place, other):
                shutil.copyfile(place, attempt)
                commit(attempt, final, other["sha256"])
                records.add({**other, "shard": task.shard.name, "mtime": final.stat().st_mtime_ns, "source": "renamed"})
                return True
        if self.store and (entry := self.store.get(task.fingerprint, attempt)):
            commit(attempt, final, entry["sha256"])
            records.add({**entry, "shard": task.shard.name, "mtime": final.stat().st_mtime_ns, "source": "store"})
            return True
        return False

    def _commit(self, name: str, stage: Stage, task: Task, result: dict[str, Any], records: Records) -> None:
        final = self._file(name, stage, task.shard.name)
        attempt = Path(result.pop("attempt"))
        if not stage.generates and result["rows"] != task.rows:
            raise InternalError(f"step '{name}' wrote {result['rows']} rows for {task.rows} of shard {task.shard.name}: please report this")
        commit(attempt, final, result["sha256"])
        record = {
            **result,
            "shard": task.shard.name,
            "fingerprint": task.fingerprint,
            "mtime": final.stat().st_mtime_ns,
            "source": "executed",
        }
        records.add(record)
        if self.store:
            self.store.put(task.fingerprint, final, record)

    def _result(self, name: str, stage: Stage, joined: Dataset, records: Records) -> Dataset:
        shards = []
        for shard in joined.shards:
            record = records.by_shard[shard.name]
            file = self._file(name, stage, shard.name).relative_to(self.folder).as_posix()
            columns = columns_of(name, file, record["columns"])
            if not stage.generates:
                shards.append(Shard(shard.name, shard.rows, columns))
            elif record["rows"]:
                shards.append(Shard(f"{shard.name}-{name}", record["rows"], columns))
        if any(f"{name}.verdict" in shard.columns for shard in shards):
            if name not in self.decisions:
                self.decisions.append(name)
            self.verdicts[name] = Dataset(self.folder, tuple(shards), {name: stage.verdict_kind})
        return Dataset(self.folder, tuple(shards), {name: stage.verdict_kind})

    def _check_rows(self, name: str, joined: Dataset, dataset: Dataset, stage: Stage) -> None:
        if not stage.generates and dataset.rows != joined.rows:
            raise InternalError(f"step '{name}' has columns for {dataset.rows} of {joined.rows} rows: please report this")

    # -- ingest --------------------------------------------------------------------------------------------------

    def _ingest(self, name: str, settings: Any) -> Dataset:
        """Source files to shards. A shard is named by its file's place in the order and its part in the file."""
        from curate.ingest.files import FORMAT_VERSION, find_files

        started = time.perf_counter()
        facts = StepFacts(name, "Ingest", "other", "Reads the source files and cuts them into shards.")
        self.facts[name], self.touched[name] = facts, set()
        records = self._records(name)
        stats = {record["path"]: record for record in records.by_shard.values()}
        by_fingerprint = {record["fingerprint"]: record for record in records.by_shard.values()}
        kept = settings.model_dump(mode="json", exclude={"path", "sources", "quarantine_max"})
        tasks, order = [], []
        files = find_files(settings)
        self.files = len(files)
        for index, file in enumerate(files):
            key = f"{index:05d}"
            stat = _stat(file.path)
            known = stats.get(file.path)
            content = known["content"] if known and known["stat"] == stat and stat else _content(file.path)
            task = FileTask(file, key, digest([FORMAT_VERSION, kept, file.source, file.name, content]))
            order.append(key)
            self.touched[name].add(key)
            record = by_fingerprint.get(task.fingerprint)
            about = {
                "path": file.path,
                "stat": stat,
                "content": content,
                "name": file.name,
                "source": file.source,
                "priority": file.priority,
            }
            if record and self._reuse_file(key, record, about, records):
                facts.reused += 1
            else:
                tasks.append((task, about))
        if tasks:
            self.progress.begin(name, len(files), 0, facts.reused)
            abouts = {task.shard: about for task, about in tasks}
            from curate.stage import Resources

            job = FileJob(settings, str(self.tmp))
            for task, result in self.engine.map(ingest_file, job, [task for task, _ in tasks], Resources(memory=2 << 30)):
                self._commit_file(task, result, abouts[task.shard], records)
                facts.executed += 1
                self.progress.advance(sum(shard["rows"] for shard in result["shards"]))
        shards = []
        for key in order:
            record = records.by_shard[key]
            self.mended.update(record["mended"])
            if "problem" in record:
                self.problems.append({"file": record["name"], "reason": record["problem"], "mistake": record["mistake"]})
            for part, shard in enumerate(record["shards"]):
                columns = columns_of(name, f"corpus/{key}-{part:04d}.parquet", shard["columns"])
                shards.append(Shard(f"{key}-{part:04d}", shard["rows"], columns))
        dataset = Dataset(self.folder, tuple(shards), {name: "other"})
        facts.shards, facts.rows, facts.seconds = len(shards), dataset.rows, time.perf_counter() - started
        self.decisions.append(name)
        self.verdicts[name] = dataset
        records.merge(step=name, stage="Ingest")
        self.progress.end(name, facts)
        mistakes = [problem for problem in self.problems if problem["mistake"] == "1"]
        if mistakes and len(mistakes) == len(files):
            raise UserMistake("\n".join(problem["reason"] for problem in mistakes))
        return dataset

    def _reuse_file(self, key: str, record: dict[str, Any], about: dict[str, Any], records: Records) -> bool:
        places = [self.folder / f"corpus/{record['shard']}-{part:04d}.parquet" for part in range(len(record["shards"]))]
        if not all(_intact(place, shard) for place, shard in zip(places, record["shards"], strict=True)):
            return False
        if record["shard"] != key:  # the file's place in the order changed: same shards under new names
            moved = []
            for place, shard in zip(places, record["shards"], strict=True):
                attempt = attempt_name(self.tmp, record["fingerprint"])
                shutil.copyfile(place, attempt)
                moved.append({**shard, "attempt": str(attempt)})
            task = FileTask(None, key, record["fingerprint"])
            self._commit_file(task, {**record, "shards": moved}, about, records)
        elif any(record[name] != value for name, value in about.items()):
            records.add({**record, **about})
        return True

    def _commit_file(self, task: FileTask, result: dict[str, Any], about: dict[str, Any], records: Records) -> None:
        shards = []
        for part, shard in enumerate(result["shards"]):
            final = self.folder / f"corpus/{task.shard}-{part:04d}.parquet"
            commit(Path(shard.pop("attempt")), final, shard["sha256"])
            shards.append({**shard, "mtime": final.stat().st_mtime_ns})
        records.add(
            {**result, **about, "shards": shards, "shard": task.shard, "fingerprint": task.fingerprint, "source_of_columns": "executed"}
        )

    # -- publishing ----------------------------------------------------------------------------------------------

    def publish(self, stage: Stage, *inputs: Dataset) -> Path:
        """Write the next version beside the last one and move the pointer `dataset` to it, if anything changed."""
        started = time.perf_counter()
        joined = self.everything(inputs[0].beside(*inputs[1:]))
        self.counts = ledger.count(joined, self.decisions)
        stage = stage.but(decisions=tuple(self.decisions), available=tuple(joined.names()))
        facts = self._begin("publish", stage)
        wanted = digest(
            [self._identity("publish", stage), [(shard.name, self._input_hashes(stage, shard, joined.kinds)) for shard in joined.shards]]
        )
        versions = self.folder / "versions"
        versions.mkdir(exist_ok=True)
        numbers = sorted(int(path.stem) for path in versions.glob("*.json"))
        last = read_json(versions / f"{numbers[-1]}.json") if numbers else None
        if last and last["fingerprint"] == wanted and _same_files(versions / str(numbers[-1]), last["files"]):
            number, facts.reused = numbers[-1], 1
        else:
            number, facts.executed = (numbers[-1] if numbers else 0) + 1, 1
            self.progress.note("publish", "writing")
            attempt = self.tmp / f"publish-{secrets.token_hex(6)}"
            attempt.mkdir()
            with disk_errors(attempt):
                described = stage.but(about=self._about(number))
                described.fit(View(joined, stage), FitEngineOf(self, "publish", joined, stage), attempt)
            files = {}
            for path in sorted(attempt.rglob("*")):
                if path.is_file():
                    sync(path)
                    files[path.relative_to(attempt).as_posix()] = [sha256_file(path), path.stat().st_size]
            target = versions / str(number)
            shutil.rmtree(target, ignore_errors=True)  # left by a kill between the rename and the record
            attempt.replace(target)
            write_json(versions / f"{number}.json", {"fingerprint": wanted, "files": files})
        pointer = self.folder / "dataset"
        if not pointer.is_symlink() or pointer.readlink() != Path(f"versions/{number}"):
            aside = self.folder / f".dataset.{secrets.token_hex(4)}"
            aside.symlink_to(f"versions/{number}")
            aside.replace(pointer)
            sync(self.folder)
        facts.shards, facts.rows = len(joined.shards), joined.rows
        facts.seconds += time.perf_counter() - started
        self.progress.end("publish", facts)
        return pointer

    def _about(self, version: int) -> dict[str, Any]:
        """What the card says about a version; no clock time."""
        counts, models_used = self.counts, sorted({model for facts in self.facts.values() for model in facts.models})
        return {
            "version": version,
            "rows_in": counts.rows_in,
            "kept": counts.kept,
            "dropped": counts.dropped,
            "generated": counts.generated,
            "kept_generated": counts.kept_generated,
            "quarantined": counts.quarantined,
            "tokens_kept": counts.tokens_kept,
            "token_unit": self.recipe.token_unit(),
            "pipeline": getattr(self.recipe.pipeline, "__name__", ""),
            "digest": digest(self.recipe.resolved()),
            "sources": counts.sources,
            "models": {Path(model).name if Path(model).is_absolute() else model: models.identity(model) for model in models_used},
            "libraries": fingerprint.versions(),
        }

    def everything(self, docs: Dataset) -> Dataset:
        """These shards with the verdicts of every step so far."""
        return docs.beside(*(self.verdicts[name] for name in self.decisions))

    def sweep(self) -> None:
        """Remove what belongs to shards that are gone, and what attempts left behind."""
        corpus: set[str] = set()
        for name, records in self.records.items():
            for shard in [shard for shard in records.by_shard if shard not in self.touched.get(name, ())]:
                records.forget(shard)
                (self._folder(name) / f"{shard}.parquet").unlink(missing_ok=True)
            records.merge(step=name)
            for record in records.by_shard.values():
                corpus |= {f"{record['shard']}-{part:04d}.parquet" for part in range(len(record.get("shards", ())))}
                corpus.add(f"{record['shard']}-{name}.parquet")
        for path in (self.folder / "corpus").glob("*.parquet"):
            if path.name not in corpus:
                path.unlink()
        self._clear_tmp()


def _intact(path: Path, record: Mapping[str, Any]) -> bool:
    """The committed bytes are still there; they are hashed again only where size or time say they were touched."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    if stat.st_size != record["bytes"]:
        return False
    return stat.st_mtime_ns == record.get("mtime") or sha256_file(path) == record["sha256"]


def _same_files(folder: Path, files: Mapping[str, list[Any]]) -> bool:
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, (_, size) in files.items())


def _stat(path: str) -> list[int] | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino] if Path(path).is_file() else None


def _content(path: str) -> str:
    """SHA-256 of a file or of everything in a folder; a hub reference stands for itself."""
    place = Path(path)
    try:
        if place.is_file():
            return sha256_file(place)
        if place.is_dir():
            return digest(
                [[found.relative_to(place).as_posix(), sha256_file(found)] for found in sorted(place.rglob("*")) if found.is_file()]
            )
    except OSError as error:
        return f"unreadable:{error.errno}"
    return path


__all__ = ["Job", "Run", "StepFacts", "Task", "View", "compute", "hidden_rows", "ingest_file", "union"]
