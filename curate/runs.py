"""A run: a folder, and the one method through which every stage goes.

    run.step(name, settings, *inputs) -> Dataset      fit once if it must, then every shard that changed
                                                      fingerprint -> reuse or compute -> commit -> record

Whatever cuts across stages (what to skip, resuming, hiding rows, poison rows, timing) is here and nowhere
else. The first input says which shards; the others bring columns for them.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from curate import fingerprint, ledger, models
from curate.dataset import CANONICAL, LINEAGE, Dataset, Shard, column_types, columns_of, read_columns
from curate.engine import limit_threads
from curate.errors import InternalError, UserMistake
from curate.refresh import anchors
from curate.refresh.before import Before
from curate.refresh.compare import clusters_of
from curate.refresh.mode import BEFORE, Refreshing, Scanned, inputs_of
from curate.refresh.telling import tell
from curate.stage import Resources, Stage
from curate.stopping import check_stop
from curate.store import (
    Records,
    SharedStore,
    attempt_name,
    commit,
    commit_folder,
    digest,
    disk_errors,
    intact,
    read_json,
    same_files,
    sha256_file,
    write_json,
)
from curate.versions import Versions
from curate.work import FileJob, FileTask, Job, Task, compute, hidden_rows, hides, hiding_columns, ingest_file

if TYPE_CHECKING:
    from curate.ingest.find import SourceFile
    from curate.plan import Trial


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
    fitted: str = ""  # "", "fitted", "reused", or "frozen": kept by a refresh although rows have changed
    fit_makes: str = "model"
    generates: bool = False
    models: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # what a fit has to say to the user: `remarks` of its info.json
    alarm: bool = False  # whether one of them is a reason to end with exit code 3


@dataclass(frozen=True)
class Artifact:
    """What a fit has made: its folder, the hash of all of it, and its record's `files`."""

    folder: Path
    hash: str = ""
    files: Mapping[str, list[Any]] = field(default_factory=dict)


class View:
    """What `fit` sees of a dataset: some columns, hidden rows left out. See `stage.Inputs`.

    hiding  whose verdicts hide rows (None: the dataset's own). It knows of the stage no more than that, so that it can be sent to a worker that cannot import a user's class.
    """

    def __init__(self, dataset: Dataset, stage: Stage, names: tuple[str, ...] | None = None, hiding: Dataset | None = None):
        self.dataset, self.names = dataset, names
        self._reads, self._if_present, self._hidden_by = stage.reads(), stage.reads_if_present(), stage.hidden_by | stage.fit_hidden_by
        self._by_name = {shard.name: shard for shard in dataset.shards}
        self._hiding = self._by_name if hiding is None else {shard.name: shard for shard in hiding.shards}

    @property
    def shards(self) -> list[str]:
        return list(self._by_name)

    @property
    def rows(self) -> int:
        return self.dataset.rows

    def table(self, shard: str) -> pa.Table:
        found = self._by_name[shard]
        table = read_columns(self.dataset.root, found, self._names(found))
        hidden = hidden_rows(self.dataset.root, self._hiding[shard], self._hidden_by, self.dataset.kinds)
        return table if hidden is None else table.filter(pc.invert(hidden))

    def types(self) -> Iterator[dict[str, pa.DataType]]:
        """Per shard, the types of the columns that `table` would give; no data is read."""
        for shard in self._by_name.values():
            yield column_types(self.dataset.root, shard, [name for name in self._names(shard) if name in shard.columns])

    def _names(self, shard: Shard) -> list[str]:
        names = self.names or (*self._reads, *(name for name in self._if_present if name in shard.columns))
        return list(dict.fromkeys((*names, "position")))

    def tables(self) -> Iterator[tuple[str, pa.Table]]:
        for shard in self._by_name:
            check_stop()
            yield shard, self.table(shard)


class FitEngineOf:
    """The engine as `fit` sees it: further stages over the same shards, under the step's own folder."""

    def __init__(self, run: Run, name: str, inputs: Dataset, stage: Stage):
        self.run, self.name, self.inputs, self.stage = run, name, inputs, stage

    def step(self, name: str, stage: Stage, shared: bool = False) -> View:
        result = self.run.step(name if shared else f"{self.name}/{name}", stage, self.inputs)
        # Row by row beside the fit's inputs: one that the step has set aside is there, with nulls.
        return View(self.inputs.beside(result), self.stage, ("shard", *stage.writes().names), self.inputs)

    def map(self, function: Callable[[Any, Any], Any], job: Any, tasks: Sequence[Any], memory: int) -> Iterator[tuple[Any, Any]]:
        yield from self.run.engine.map(function, job, tasks, Resources(memory=memory))

    @property
    def room(self) -> Path:
        return self.run.tmp


class Run:
    """A run folder that is being written, under its lock. `recipe` is the checked recipe; `refresh` what a refresh knows beside it; `trial` makes it read few rows."""

    def __init__(
        self, folder: Path, recipe: Any, engine: Any, progress: Any, refresh: Refreshing | None = None, trial: Trial | None = None
    ):
        self.refresh, self.trial = refresh, trial
        self.made: dict[str, Dataset] = {}  # by every step
        self.folder, self.recipe, self.engine, self.progress = folder.absolute(), recipe, engine, progress
        self.tmp = self.folder / "tmp"
        self.store = SharedStore(Path(recipe.store)) if recipe.store else None
        self.facts: dict[str, StepFacts] = {}
        self.touched: dict[str, set[str]] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.lineage: dict[str, str] = {}  # of every column: by which steps it was made, whatever the rows
        self.budgets: dict[str, dict[str, Any]] = {}  # of a step whose budget is a share: what that came to
        self.scanned: list[Scanned] = []
        self.source_rows: dict[tuple[str, str], int] = {}
        self.looked_up: dict[tuple[str, ...], Dataset] = {}
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
        stage = self._fill(name, stage)
        joined = self._with_before(name, stage, inputs[0].beside(*inputs[1:]))
        self._check_columns(name, stage, joined)
        facts = self._begin(name, stage)
        if self.trial and stage.generates:
            return self.trial.generator(name, stage, View(joined, stage))
        described = self._identity(name, stage)
        artifact = self._fit(name, stage, joined, facts, described) if stage.fits() else Artifact(self._folder(name) / "artifact")
        identity = digest({**described, "artifact": artifact.hash})
        records = self._records(name)
        known = {record["fingerprint"]: record for record in records.by_shard.values()}
        tasks: list[Task] = []
        found: list[tuple[Task, Path, dict[str, Any]]] = []
        again = 0  # shards that have not changed themselves
        for shard in joined.shards:
            task = Task(shard, self._fingerprint(identity, stage, artifact, shard, joined.kinds))
            self.touched[name].add(shard.name)
            record = records.by_shard.get(shard.name)
            if record and record["fingerprint"] == task.fingerprint:
                task = replace(task, halvings=record.get("halvings", 0))
            if record and record["fingerprint"] == task.fingerprint and intact(self._file(name, stage, shard.name), record):
                continue
            if (copy := self._copy(name, stage, task, known)) is not None:
                found.append((task, *copy))
            else:
                tasks.append(task)
                again += record is not None and record.get("identity") != identity
        if self.refresh and again and (stage.fit_makes == "model" or stage.generates) and not isinstance(stage, Before):
            self._cross_test(name, stage, joined, artifact, records, identity)
            self._ask_before_running_again(name, again, records, {**described, "artifact": artifact.hash})
        lineage = self._note_lineage(name, stage, described, artifact, records)
        # Only now: a copy committed earlier could lie over the file that the next shard is to be copied from.
        for task, attempt, entry in found:
            self._commit(name, stage, task, {**entry, "attempt": str(attempt), "identity": identity}, records)
        if tasks:
            self.progress.begin(name, len(joined.shards), sum(task.rows for task in tasks), len(joined.shards) - len(tasks))
            for task, result in self.engine.map(compute, self._job(stage, artifact.folder, joined.kinds), tasks, stage.resources()):
                self._commit(name, stage, task, {**result, "identity": identity}, records)
                facts.executed += 1
                self.progress.advance(task.rows)
        dataset = self.made[name] = self._result(name, stage, joined, records)
        facts.shards, facts.rows, facts.reused = len(joined.shards), joined.rows, len(joined.shards) - facts.executed
        facts.generated = dataset.rows if stage.generates else 0
        facts.seconds += time.perf_counter() - started
        records.merge(
            step=name,
            stage=facts.stage,
            generates=stage.generates,
            identity=_plain({**described, "artifact": artifact.hash}),
            lineage=lineage,
        )
        self._check_rows(name, joined, dataset, stage)
        self.progress.end(name, facts)
        return dataset

    def fit(self, name: str, stage: Stage, *inputs: Dataset) -> Path:
        """Only fit: the folder of what a stage made from the whole corpus (a pruned model, for one)."""
        stage = self._fill(name, stage)
        joined = inputs[0].beside(*inputs[1:])
        self._check_columns(name, stage, joined)
        started = time.perf_counter()
        facts = self._begin(name, stage)
        artifact = self._fit(name, stage, joined, facts, self._identity(name, stage))
        facts.seconds += time.perf_counter() - started
        self.progress.end(name, facts)
        return artifact.folder

    def _fill(self, name: str, stage: Stage) -> Stage:
        """Settings that the run knows: where generated responses are kept; at a refresh what a budget was at first."""
        if "cache" in type(stage).model_fields and getattr(stage, "cache", "") is None:
            stage = stage.but(cache=str(self.folder / "responses"))
        budget = getattr(stage, "budget", None)
        if isinstance(budget, float) and budget <= 1 and stage.fit_makes == "decision" and hasattr(stage, "unit"):
            self.budgets[name] = {"asked": budget, "unit": stage.unit}
            stage = self.refresh.filled(name, stage) if self.refresh else stage
        return stage

    def _with_before(self, name: str, stage: Stage, joined: Dataset) -> Dataset:
        """At a refresh, what the version before says about rows, for the stages that ask."""
        if self.refresh is None or isinstance(stage, Before) or not BEFORE & set(stage.reads_if_present()):
            return joined
        before = self.refresh.before()
        if before is None:
            return joined
        shards = tuple(shard.name for shard in joined.shards)
        if shards not in self.looked_up:
            self.looked_up[shards] = self.step("before", before, joined)
        return joined.beside(self.looked_up[shards])

    def _note_lineage(self, name: str, stage: Stage, described: Mapping[str, Any], artifact: Artifact, records: Records) -> dict[str, str]:
        """By what the columns of a step were made. What a decision says of rows changes with the rows, not with what made it.

        `of`: how they are made now; `as`: whose place that takes, another where an encoder passed the cross-test: models may go on with it.
        """
        made = digest([self._basis(stage, described), artifact.hash if stage.fit_makes == "model" else ""])
        lineage, known = {"of": made, "as": made}, records.facts.get("lineage")
        if self.refresh and known and (known["of"] == made or (self.refresh.encoder(name) or {}).get("compatible")):
            lineage["as"] = known["as"]
        if not stage.generates:
            self.lineage |= {f"{name}.verdict" if column == "verdict" else column: lineage["as"] for column in stage.writes().names}
        return lineage

    def _cross_test(self, name: str, stage: Stage, joined: Dataset, artifact: Artifact, records: Records, identity: str) -> None:
        """Before stored vectors are made anew by a changed encoder: does it put texts where the old one did?"""
        assert self.refresh is not None
        if anchors.vector_column(stage) and self.refresh.encoder(name) is None:
            self.progress.note(name, "cross-test of the changed encoder")
            limit_threads(self.recipe.threads)
            if found := anchors.cross_test(self.folder, name, stage, artifact.folder, joined.shards, records.by_shard, identity):
                self.refresh.note_encoder(name, found)

    def _basis(self, stage: Stage, described: Mapping[str, Any]) -> str:
        """What a model is made by, apart from the rows it was fitted on: its settings and code, and how the columns it reads were made."""
        names = [name for name in (*stage.reads(), *stage.reads_if_present()) if name in self.lineage and not name.endswith(".verdict")]
        return digest([described, {name: self.lineage[name] for name in names}])

    def _fingerprint(self, identity: str, stage: Stage, artifact: Artifact, shard: Shard, kinds: Mapping[str, str]) -> str:
        hashes = self._input_hashes(stage, shard, kinds, stage.hidden_by)
        decided = artifact.files.get(f"{shard.name}.decision") if stage.fit_makes == "decision" else None
        if decided:  # the columns are what the fit has decided about this shard; what it decided of others changes nothing here
            return digest([type(stage).__name__, decided[:2], hashes["rows"], hashes["hidden"]])
        return digest([identity, hashes])

    def _ask_before_running_again(self, name: str, again: int, records: Records, described: Mapping[str, Any]) -> None:
        assert self.refresh is not None
        known = records.facts.get("identity") or {}
        words = {"code": "our code", "artifact": "the model that was fitted for it", "libraries": "a library", "python": "Python"}
        changed = [words.get(part, part) for part in described if known.get(part) != _plain(described[part])]
        why = f"{', '.join(changed)} changed" if known and changed else "it is not known what changed"
        if found := self.refresh.encoder(name):
            why = f"{why}. {anchors.said(found)}"
        self.refresh.ask_before_running_again(name, again, len(records.by_shard), why)

    def _begin(self, name: str, stage: Stage) -> StepFacts:
        if name not in self.facts:
            about = (type(stage).__doc__ or "").strip().split("\n")[0]
            self.facts[name] = StepFacts(name, type(stage).__name__, stage.verdict_kind, about, generates=stage.generates)
            self.touched[name] = set()
        facts = self.facts[name]
        facts.models, facts.fit_makes = list(stage.models()), stage.fit_makes
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

    def _input_hashes(self, stage: Stage, shard: Shard, kinds: Mapping[str, str], hidden_by: frozenset[str]) -> dict[str, Any]:
        """What of a shard this stage depends on: values of the columns it reads, and which rows are hidden from it."""
        names = [*stage.reads(), *(name for name in stage.reads_if_present() if name in shard.columns)]
        hashes: dict[str, Any] = {name: shard.columns[name].hash for name in names if name in shard.columns}
        if "shard" in names:
            hashes["shard"] = shard.name
        masks = []
        for name in hiding_columns(shard, hidden_by, kinds):
            kind = kinds.get(name.removesuffix(".verdict"), "other")
            masks += [
                mask
                for word in ("drop", "quarantine")
                if hides(word, kind, hidden_by) and (mask := shard.columns[name].masks.get(word, ""))
            ]
        return {"rows": shard.rows, "columns": hashes, "hidden": masks}

    # -- fitting -------------------------------------------------------------------------------------------------

    def _fit(self, name: str, stage: Stage, joined: Dataset, facts: StepFacts, described: Mapping[str, Any]) -> Artifact:
        """What a stage has fitted. A step called again in the same run applies what its first call fitted."""
        if name in self.artifacts:
            return self.artifacts[name]
        hidden_by = stage.hidden_by | stage.fit_hidden_by
        seen = {shard.name: self._input_hashes(stage, shard, joined.kinds, hidden_by) for shard in joined.shards}
        wanted, basis = digest([described, seen]), self._basis(stage, described)
        folder = self._folder(name)
        record = read_json(folder / "artifact.json")
        target = folder / f"artifact-{record['fingerprint'][:12] if record else ''}"
        whole = bool(record) and target.is_dir() and same_files(target, record["files"])
        frozen = whole and self.refresh and self.refresh.frozen and stage.fit_makes == "model" and record.get("basis") == basis
        if whole and (record["fingerprint"] == wanted or frozen):
            facts.fitted = facts.fitted or ("reused" if record["fingerprint"] == wanted else "frozen")
            if record["fingerprint"] == wanted and record.get("basis") != basis:  # made otherwise, of the same values
                write_json(folder / "artifact.json", {**record, "basis": basis})
        else:
            if (
                self.refresh
                and stage.fit_makes == "model"
                and not (record and record["fingerprint"] == wanted)
                and (known := len(self._records(name).by_shard))
            ):
                self._ask_before_running_again(name, known, self._records(name), {**described, "artifact": ""})
            self.progress.note(name, "fitting")
            attempt = self.tmp / f"fit-{secrets.token_hex(6)}"
            attempt.mkdir()
            limit_threads(self.recipe.threads)
            with disk_errors(attempt):
                stage.fit(View(joined, stage), FitEngineOf(self, name, joined, stage), attempt)
            target = folder / f"artifact-{wanted[:12]}"
            record = {"fingerprint": wanted, "basis": basis, "files": commit_folder(attempt, target)}
            write_json(folder / "artifact.json", record)
            facts.fitted = "fitted"
        info = read_json(target / "info.json") or {}
        facts.remarks, facts.alarm = info.get("remarks", []), info.get("alarm", False)
        if name in self.budgets:
            self.budgets[name]["amount"] = (read_json(target / "budget.json") or {}).get("budget")
        for old in folder.glob("artifact-*"):
            if old != target:
                shutil.rmtree(old)
        # The fit's own fingerprint is left out: the same artifact from other inputs changes nothing downstream.
        self.artifacts[name] = Artifact(target, digest({path: about[:2] for path, about in record["files"].items()}), record["files"])
        return self.artifacts[name]

    # -- committing ----------------------------------------------------------------------------------------------

    def _file(self, name: str, stage: Stage, shard: str) -> Path:
        return self.folder / "corpus" / f"{shard}-{name}.parquet" if stage.generates else self._folder(name) / f"{shard}.parquet"

    def _copy(self, name: str, stage: Stage, task: Task, known: Mapping[str, dict[str, Any]]) -> tuple[Path, dict[str, Any]] | None:
        """A copy of the same columns, committed under another shard's name or in the store; and its record."""
        attempt = attempt_name(self.tmp, task.fingerprint)
        other = known.get(task.fingerprint)
        if other and not stage.generates and intact(place := self._file(name, stage, other["shard"]), other):
            shutil.copyfile(place, attempt)
            return attempt, {**other, "source": "renamed"}
        if self.store and (entry := self.store.get(task.fingerprint, attempt)):
            return attempt, {**entry, "source": "store"}
        return None

    def _commit(self, name: str, stage: Stage, task: Task, result: dict[str, Any], records: Records) -> None:
        final = self._file(name, stage, task.shard.name)
        attempt = Path(result.pop("attempt"))
        if not stage.generates and result["rows"] != task.rows:
            raise InternalError(f"step '{name}' wrote {result['rows']} rows for {task.rows} of shard {task.shard.name}: please report this")
        commit(attempt, final, result["sha256"])
        place = {"shard": task.shard.name, "fingerprint": task.fingerprint, "mtime": final.stat().st_mtime_ns}
        record = {"source": "executed", **result, **place}
        records.add(record)
        if self.store and record["source"] == "executed":
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
        # What a step inside of a fit has set aside is the fit's to judge: where the fit is reused, the step is not called, and its verdicts must not be missed.
        if "/" not in name and any(f"{name}.verdict" in shard.columns for shard in shards):
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
        by_fingerprint = {record["fingerprint"]: record for record in records.by_shard.values()}
        kept = {**settings.model_dump(mode="json", exclude={"path", "sources", "quarantine_max"}), **settings.identity()}
        self.lineage |= dict.fromkeys((*CANONICAL.names, *LINEAGE.names, *settings.keep), digest([FORMAT_VERSION, kept]))
        self.scanned = self._scan(self.trial.files if self.trial else find_files(settings), kept, records)
        self.files = len(self.scanned)
        keys = [f"{index:05d}" for index in range(self.files)]
        staying: list[str] = []
        if self.refresh:
            keys, staying = self.refresh.names(self.scanned, records.by_shard)
            self.refresh.check_vanished()
            lost = [key for key in staying if key not in records.by_shard or not self._still_there(records.by_shard[key])]
            self.refresh.check_staying(lost)
            staying = [key for key in staying if key not in lost]
        self.touched[name].update(keys, staying)
        tasks: list[tuple[FileTask, Mapping[str, Any]]] = []
        moved: list[tuple[FileTask, Mapping[str, Any], dict[str, Any]]] = []
        for key, item in zip(keys, self.scanned, strict=True):
            task = FileTask(item.file, key, item.fingerprint)
            record = by_fingerprint.get(task.fingerprint)
            if record and self._still_there(record):
                facts.reused += 1
                if record["shard"] != key:  # the file's place in the order changed: same shards under new names
                    moved.append((task, item.about, self._copied(record)))
                elif any(record[field] != value for field, value in item.about.items()):
                    records.add({**record, **item.about})
            else:
                tasks.append((task, item.about))
        for task, about, result in moved:
            self._commit_file(task, result, about, records)
        if tasks:
            self.progress.begin(name, self.files, 0, facts.reused)
            abouts = {task.shard: about for task, about in tasks}
            job = FileJob(settings, str(self.tmp))
            if self.trial:
                job = FileJob(self.trial.settings(settings), str(self.tmp), self.trial.shards)
            for task, result in self.engine.map(ingest_file, job, [task for task, _ in tasks], Resources(memory=2 << 30)):
                self._commit_file(task, result, abouts[task.shard], records)
                facts.executed += 1
                self.progress.advance(sum(shard["rows"] for shard in result["shards"]))
        self.source_rows = {
            item.name: sum(shard["rows"] for shard in records.by_shard[key]["shards"]) for key, item in zip(keys, self.scanned, strict=True)
        }
        if self.refresh:
            self.refresh.check_emptied(self.source_rows)
        shards = []
        for key in sorted([*keys, *staying]):
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
        if mistakes and len(mistakes) == self.files:
            raise UserMistake("\n".join(problem["reason"] for problem in mistakes))
        return dataset

    def _scan(self, files: Sequence[SourceFile], settings: Mapping[str, Any], records: Records) -> list[Scanned]:
        """What every source file holds now; a file whose size, time and inode are those of its record is not read for that."""
        from curate.ingest.files import FORMAT_VERSION

        stats = {record["path"]: record for record in records.by_shard.values()}
        found = []
        for file in files:
            stat = stat_of(file.path)
            known = stats.get(file.path)
            content = known["content"] if known and known["stat"] == stat and stat else _content(file.path)
            about = {
                "path": file.path,
                "stat": stat,
                "content": content,
                "name": file.name,
                "source": file.source,
                "priority": file.priority,
            }
            found.append(Scanned(file, about, digest([FORMAT_VERSION, settings, file.source, file.name, content])))
        return found

    def _corpus_files(self, record: Mapping[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
        return [(self.folder / f"corpus/{record['shard']}-{part:04d}.parquet", shard) for part, shard in enumerate(record["shards"])]

    def _still_there(self, record: Mapping[str, Any]) -> bool:
        return all(intact(place, shard) for place, shard in self._corpus_files(record))

    def _copied(self, record: dict[str, Any]) -> dict[str, Any]:
        """Copies of a file's shards in tmp/, to be committed under other names."""
        copies = []
        for place, shard in self._corpus_files(record):
            attempt = attempt_name(self.tmp, record["fingerprint"])
            shutil.copyfile(place, attempt)
            copies.append({**shard, "attempt": str(attempt)})
        return {**record, "shards": copies}

    def _commit_file(self, task: FileTask, result: dict[str, Any], about: Mapping[str, Any], records: Records) -> None:
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
            [
                self._identity("publish", stage),
                [(shard.name, self._input_hashes(stage, shard, joined.kinds, stage.hidden_by)) for shard in joined.shards],
            ]
        )
        versions = Versions(self.folder)
        versions.folder.mkdir(exist_ok=True)
        numbers = versions.numbers()
        number = numbers[-1] if numbers else 0
        last = versions.record(number)
        if last and last["fingerprint"] == wanted and (number in versions.withdrawn() or same_files(versions.place(number), last["files"])):
            facts.reused = 1
        else:
            if not last or last["fingerprint"] != wanted:  # else its files are damaged, and written again
                number += 1
            base = versions.current() if versions.current() != number else max((known for known in numbers if known < number), default=None)
            self.progress.note("publish", "writing")
            attempt = self.tmp / f"publish-{secrets.token_hex(6)}"
            attempt.mkdir()
            with disk_errors(attempt):
                # The story first: drift may end the refresh here, with version `base` still the published one.
                told = tell(self, joined, versions, number, base, attempt)
                described = stage.but(about=self._about(number))
                described.fit(View(joined, stage), FitEngineOf(self, "publish", joined, stage), attempt)
            last = {"fingerprint": wanted, "inputs": inputs_of(self.scanned, self.recipe), "budgets": self.budgets, **told}
            last |= {"after": self.refresh.state["base"] if self.refresh else None, "recipe": self.recipe.resolved}
            last |= {"clusters": clusters_of(self.folder)}
            last |= {"next": self.refresh.state["next"] if self.refresh else self.files}
            last["sources"] = [[*item.name, item.fingerprint, self.source_rows[item.name], item.about["content"]] for item in self.scanned]
            last["sources"] += self.refresh.state["staying_sources"] if self.refresh else []
            write_json(versions.folder / f"{number}.json", {**last, "files": commit_folder(attempt, versions.place(number))})
            facts.executed = 1
        if number not in versions.withdrawn():
            versions.point(number)
        facts.shards, facts.rows = len(joined.shards), joined.rows
        facts.seconds += time.perf_counter() - started
        self.progress.end("publish", facts)
        return versions.pointer

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
            "digest": digest(self.recipe.resolved),
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
        # Steps that this run did not need: those inside of a fit that was reused, and those that the recipe has no more.
        for place, _, files in os.walk(self.folder / "stages"):
            name = Path(place).relative_to(self.folder / "stages").as_posix()
            if "manifest.jsonl" in files and name not in self.records:
                records = Records(Path(place))
                makes = records.facts.get("generates", False)  # a generator that the recipe has no more: its rows are gone from corpus/
                for shard in [shard for shard in records.by_shard if makes or f"{shard}.parquet" not in corpus]:
                    records.forget(shard)
                    Path(place, f"{shard}.parquet").unlink(missing_ok=True)
                records.merge()
        self._clear_tmp()


def _plain(value: Any) -> Any:
    """As it comes back from a JSON file."""
    return json.loads(json.dumps(value, default=str))


def stat_of(path: str) -> list[int] | None:
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
