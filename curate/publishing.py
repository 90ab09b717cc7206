"""The last step of a run: the rows that are kept as the next version of the dataset, with its story."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate import fingerprint, ledger, models
from curate.dataset import Dataset
from curate.refresh.compare import clusters_of
from curate.refresh.mode import inputs_of
from curate.refresh.telling import tell
from curate.stage import Stage
from curate.step import FitEngineOf, View
from curate.store import commit_folder, digest, disk_errors, same_files, write_json
from curate.versions import Versions

if TYPE_CHECKING:
    from curate.runs import Run


def publish(run: Run, stage: Stage, *inputs: Dataset) -> Path:
    """Write the next version beside the last one and move the pointer `dataset` to it, if anything changed."""
    started = time.perf_counter()
    joined = run.everything(inputs[0].beside(*inputs[1:]))
    run.counts = ledger.count(joined, run.decisions)
    stage = stage.but(decisions=tuple(run.decisions), available=tuple(joined.names()))
    facts = run.begin("publish", stage)
    facts.hidden = 0
    wanted = digest(
        [
            run.identity_of("publish", stage),
            [(shard.name, run.input_hashes(stage, shard, joined.kinds, stage.hidden_by)) for shard in joined.shards],
        ]
    )
    versions = Versions(run.folder)
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
        run.progress.note("publish", "writing")
        attempt = run.tmp / f"publish-{secrets.token_hex(6)}"
        attempt.mkdir()
        with disk_errors(attempt):
            # The story first: drift may end the refresh here, with version `base` still the published one.
            told = tell(run, joined, versions, number, base, attempt)
            described = stage.but(about=_about(run, number))
            described.fit(View(joined, stage), FitEngineOf(run, "publish", joined, stage), attempt)
        # What was not read whole is equal to no later scan: the next refresh looks again.
        made_of = "unread" if run.unread else inputs_of(run.scanned, run.recipe)
        last = {"fingerprint": wanted, "inputs": made_of, "budgets": run.budgets, **told}
        last |= {"after": run.refresh.state["base"] if run.refresh else None, "recipe": run.recipe.resolved}
        last |= {"clusters": clusters_of(run.folder)}
        last |= {"next": run.refresh.state["next"] if run.refresh else run.files}
        last["sources"] = [[*item.name, item.fingerprint, run.source_rows[item.name], item.about["content"]] for item in run.scanned]
        last["sources"] += run.refresh.state["staying_sources"] if run.refresh else []
        write_json(versions.folder / f"{number}.json", {**last, "files": commit_folder(attempt, versions.place(number))})
        facts.executed = 1
    if number not in versions.withdrawn():
        versions.point(number)
    facts.shards, facts.rows = len(joined.shards), joined.rows
    facts.seconds += time.perf_counter() - started
    run.progress.end("publish", facts)
    return versions.pointer


def _about(run: Run, version: int) -> dict[str, Any]:
    """What the card says about a version; no clock time."""
    counts, models_used = run.counts, sorted({model for facts in run.facts.values() for model in facts.models})
    return {
        "version": version,
        "rows_in": counts.rows_in,
        "kept": counts.kept,
        "dropped": counts.dropped,
        "generated": counts.generated,
        "kept_generated": counts.kept_generated,
        "quarantined": counts.quarantined,
        "tokens_kept": counts.tokens_kept,
        "token_unit": run.recipe.token_unit(),
        "pipeline": getattr(run.recipe.pipeline, "__name__", ""),
        "digest": digest(run.recipe.resolved),
        "sources": counts.sources,
        "models": {Path(model).name if Path(model).is_absolute() else model: models.identity(model) for model in models_used},
        "libraries": fingerprint.versions(),
    }
