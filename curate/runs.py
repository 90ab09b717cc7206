"""A run: a folder, and the one method through which every stage goes.

    run.step(name, settings, *inputs) -> Dataset      fit once if it must, then every shard that changed
                                                      fingerprint -> reuse or compute -> commit -> record

Whatever cuts across stages (what to skip, resuming, timing) is here; what a fit may see is in `step.py`. The first step, which has
source files and no shards yet, is `sources.py`, the last one `publishing.py`. The first input says which shards; the others bring columns for them.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate import fingerprint, ledger
from curate.dataset import Dataset, Shard, columns_of
from curate.engine import limit_threads
from curate.errors import InternalError, UserMistake
from curate.publishing import publish
from curate.refresh import anchors
from curate.refresh.before import Before
from curate.refresh.mode import BEFORE, Refreshing, Scanned
from curate.sources import ingest
from curate.stage import Stage
from curate.step import Artifact, FitEngineOf, StepFacts, View
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
    write_json,
)
from curate.work import Job, Task, compute, hides, hiding_columns

if TYPE_CHECKING:
    from curate.plan import Trial


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
        self.unread = False  # whether a file could not be read for a passing reason, or was another while it was read
        self.counts = ledger.Counts()
        self._clear_tmp()

    def _clear_tmp(self) -> None:
        shutil.rmtree(self.tmp, ignore_errors=True)
        self.tmp.mkdir(parents=True)

    # -- steps ---------------------------------------------------------------------------------------------------

    def step(self, name: str, stage: Stage, *inputs: Dataset) -> Dataset:
        """Bring a step up to date over the shards of the first input; its columns (or its new rows)."""
        if not inputs:
            return ingest(self, name, stage)
        started = time.perf_counter()
        stage = self._fill(name, stage)
        joined = self._with_before(name, stage, inputs[0].beside(*inputs[1:]))
        self._check_columns(name, stage, joined)
        facts = self.begin(name, stage)
        if self.trial and stage.generates:
            return self.trial.generator(name, stage, View(joined, stage))
        described = self.identity_of(name, stage)
        artifact = self._fit(name, stage, joined, facts, described) if stage.fits() else Artifact(self._folder(name) / "artifact")
        identity = digest({**described, "artifact": artifact.hash})
        records = self.records_of(name)
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
        noted = [records.by_shard[shard.name].get("hidden", -1) for shard in joined.shards]
        facts.hidden = sum(noted) if min(noted, default=0) >= 0 else None
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
        facts = self.begin(name, stage)
        artifact = self._fit(name, stage, joined, facts, self.identity_of(name, stage))
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
        hashes = self.input_hashes(stage, shard, kinds, stage.hidden_by)
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

    def begin(self, name: str, stage: Stage) -> StepFacts:
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

    def records_of(self, name: str) -> Records:
        if name not in self.records:
            self.records[name] = Records(self._folder(name))
        return self.records[name]

    def identity_of(self, name: str, stage: Stage) -> dict[str, Any]:
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

    def input_hashes(self, stage: Stage, shard: Shard, kinds: Mapping[str, str], hidden_by: frozenset[str]) -> dict[str, Any]:
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
        seen = {shard.name: self.input_hashes(stage, shard, joined.kinds, hidden_by) for shard in joined.shards}
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
                and (known := len(self.records_of(name).by_shard))
            ):
                self._ask_before_running_again(name, known, self.records_of(name), {**described, "artifact": ""})
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

    # -- the end of a run ------------------------------------------------------------------------------------------

    def publish(self, stage: Stage, *inputs: Dataset) -> Path:
        """The next version of the dataset, from the rows that every step has kept; where the pointer to it is."""
        return publish(self, stage, *inputs)

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
