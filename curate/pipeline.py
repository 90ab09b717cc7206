"""From a recipe to a finished run: lock, engine, pipeline, ledger, exit code. What `curate run` and `curate.run` share."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate import progress as shown
from curate import recipe as recipes
from curate.errors import Damaged, NeedsDecision, Stopped, UserMistake
from curate.store import ASIDE, CHECK, RunLock, disk_errors, read_json, remove_asides, write_json, write_text

FORMAT = 1  # of a run folder


def execute(
    recipe_path: Path,
    run_dir: Path | None = None,
    engine: str = "ray",
    changes: Sequence[str] = (),
    *,
    workers: int | None = None,
    address: str | None = None,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    shard_timeout: float | None = None,
    stall_timeout: float | None = None,
    progress: bool = False,
    refresh: bool = False,
    accept: bool = False,
    refit: bool = False,
) -> dict[str, Any]:
    """Run a recipe file in its folder; the facts of the run, with `exit_code`. Raises CurateError.

    refresh        follow the version that the folder has: models stay as they are, survivors and published rows come first
    accept, refit  of a refresh: do what it would ask about; fit the models anew
    """
    started = time.perf_counter()
    recipe = recipes.load(Path(recipe_path), changes)
    folder = run_folder_of(recipe_path, run_dir)
    for name, stage in recipe.sections.items():
        for place in getattr(stage, "against", ()):
            there = Path(place).expanduser().resolve()
            if folder.resolve() in (there, *there.parents):
                raise UserMistake(
                    f"{name}.against names this run's own folder, {place}: every row would be a duplicate of itself; give another --run-dir"
                )
    recipe.look_up()
    from curate.engine import Inline, OnRay

    if engine == "inline":
        computer: Any = Inline(recipe.threads, stall_timeout)
    elif engine == "ray":
        computer = OnRay(recipe.threads, workers, address, num_cpus, num_gpus, shard_timeout, stall_timeout)
    else:
        raise UserMistake(f"engine '{engine}' is not known; use ray or inline")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserMistake(f"cannot make the run folder {folder}: {error.strerror}; give another with --run-dir") from None
    _refuse_foreign(folder)
    with disk_errors(folder), RunLock(folder) as lock:
        from curate.refresh.mode import STATE, Refreshing
        from curate.refresh.telling import Drifted
        from curate.runs import Run

        gc.freeze()  # what is imported stays
        gc.enable()

        if lock.unclean or any(ASIDE.fullmatch(path.name) for path in folder.glob(".*")):
            remove_asides(folder)
        facts = read_json(folder / "run.json", checked=False) or {}
        if facts.get("format", FORMAT) > FORMAT:
            raise UserMistake(
                f"{folder} was written by a newer version of curate (format {facts['format']}): upgrade curate, or give another --run-dir"
            )
        watcher = shown.best() if progress else shown.Silent()
        followed = Refreshing(folder, recipe, accept, refit) if refresh else None
        if not refresh:
            (folder / STATE).unlink(missing_ok=True)  # a run fits and decides by itself; the next refresh follows it
        run = Run(folder, recipe, computer, watcher, followed)
        if not facts:  # so that `status` knows the folder even if the run is killed before its first end
            _write_facts(run, "running", 0.0, None)
        elif facts.get("state") == "done":  # counts and steps of the last end stay until there are new ones
            write_json(folder / "run.json", {**{name: value for name, value in facts.items() if name != CHECK}, "state": "running"})
        write_text(folder / "recipe.yaml", recipe.resolved)
        try:
            try:
                recipe.pipeline(run, recipe)
            except Drifted as drifted:
                assert followed is not None
                watcher.note("refresh", f"drift: {drifted}; models are fitted anew")
                followed.refit()
                run = Run(folder, recipe, computer, watcher, followed)
                recipe.pipeline(run, recipe)
            return finish(run, time.perf_counter() - started)
        except Exception as error:
            if isinstance(error, Damaged):
                Path(error.args[0]).unlink(missing_ok=True)  # what is missing is computed again
            states: dict[type[Exception], str] = {Stopped: "stopped", NeedsDecision: "waits for a decision"}
            _write_facts(run, states.get(type(error), "failed"), time.perf_counter() - started, None)
            raise
        finally:
            watcher.close()
            computer.close()


def run_folder_of(recipe: Path, run_dir: Path | None) -> Path:
    """Where a recipe's run lives if nothing else is said."""
    folder = Path(run_dir).expanduser() if run_dir else Path("runs") / Path(recipe).stem
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:  # pyarrow and JSON take Unicode alone
        raise UserMistake(f"{folder.absolute()}: the name is not Unicode: give another with --run-dir") from None
    return folder


def _refuse_foreign(folder: Path) -> None:
    """A run clears and writes in its folder: one that holds other files is left alone.

    A run is known by its run.json; where that is lost, by what ingest has committed; before there is either, by the lock's holder.
    """
    facts = read_json(folder / "run.json", checked=False)
    ours = isinstance(facts, dict) and "state" in facts
    if ours or (folder / "stages" / "ingest").is_dir() or read_json(folder / ".lock.json"):
        return
    from curate.plan import NAME as PLAN

    others = [path.name for path in folder.iterdir() if not _harmless(path, PLAN, facts is None)]
    if others:
        raise UserMistake(
            f"{folder} is no run folder and holds other files ({min(others)}): give another with --run-dir, a new or an empty one"
        )


def _harmless(path: Path, plan: str, torn: bool) -> bool:
    """What a run, killed before its first record, or a file system leaves; hidden files, which a run does not touch. `torn`: run.json cannot be read."""
    if path.name in ("tmp", "lost+found"):
        return path.is_dir() and not any(path.iterdir())
    if ASIDE.fullmatch(path.name):
        return path.name[1:].rpartition(".")[0] in ("run.json", ".lock.json", plan)
    return path.name == plan or path.name.startswith(".") or (torn and path.name == "run.json")


def finish(run: Any, seconds: float) -> dict[str, Any]:
    """Count the fates, check the balance, write run.json and the report."""
    from curate.ledger import open_run
    from curate.plan import held_against
    from curate.report.facts import write_report

    counts = run.counts
    facts: dict[str, Any] = {
        "rows_in": counts.rows_in,
        "generated": counts.generated,
        "kept": counts.kept,
        "kept_generated": counts.kept_generated,
        "dropped": counts.dropped,
        "quarantined": counts.quarantined,
        "quarantine_rules": counts.quarantine_rules,
        "files_quarantined": len(run.problems),
        "tokens_in": counts.tokens_in,
        "tokens_kept": counts.tokens_kept,
        "by_step": counts.by_step,
    }
    limit = run.recipe.ingest.quarantine_max
    above = counts.rows_in >= 100 and counts.quarantined > limit * counts.rows_in
    exit_code = 3 if above or run.problems or any(step.alarm for step in run.facts.values()) else 0
    _write_facts(run, "done", seconds, facts)
    planned = held_against(run.folder, list(run.facts.values()), seconds)
    run.sweep()
    report = write_report(open_run(run.folder))
    return {
        **facts,
        "dataset": str(run.folder / "dataset"),
        "report": str(report),
        "run": str(run.folder),
        "problems": run.problems,
        "remarks": [f"{step.name}: {remark}" for step in run.facts.values() for remark in step.remarks],
        "executed": sum(step.executed for step in run.facts.values()),
        "seconds": round(seconds, 3),
        "exit_code": exit_code,
        **({"planned": planned} if planned else {}),
        **({"refresh": _of_refresh(run)} if run.refresh else {}),
    }


def _of_refresh(run: Any) -> dict[str, Any]:
    """What a refresh has come to: the version that is published now, which files and rows made it."""
    from curate.refresh.changes import counted
    from curate.versions import Versions

    versions = Versions(run.folder)
    number = versions.current()
    made = bool(run.facts["publish"].executed)
    record = versions.record(number) or {}
    changes = versions.changes(number) if number and made and versions.changes_file(number).exists() else None
    files = run.refresh.state["files"] if made else {}
    latest = versions.numbers()[-1]
    said = (
        "published"
        if made
        else "nothing has changed"
        if number == latest
        else f"version {latest} was withdrawn, and nothing has changed since"
    )
    return {
        "version": number, "after": record.get("base"), "changed": made, "said": said, "files": {kind: names for kind, names in files.items() if names},
        "entered": counted(changes, "entered") if changes is not None else {}, "left": counted(changes, "left") if changes is not None else {},
        "changes": str(versions.pointer / "CHANGES.md"), "models": {name: facts.fitted for name, facts in run.facts.items() if facts.fitted and facts.fit_makes == "model"},
        "removed_versions": versions.keep_last(run.refresh.settings.keep_versions),
    }  # fmt: skip


def _write_facts(run: Any, state: str, seconds: float, counts: dict[str, Any] | None) -> None:
    from curate import fingerprint

    steps = [
        {
            "name": step.name, "stage": step.stage, "kind": step.kind, "about": step.about, "shards": step.shards, "rows": step.rows, "hidden": step.hidden,
            "executed": step.executed, "reused": step.reused, "generated": step.generated, "generates": bool(step.generated) or step.generates,
            "seconds": round(step.seconds, 3), "fitted": step.fitted, "models": step.models, "columns": step.columns, "remarks": step.remarks,
        }
        for step in run.facts.values()
    ]  # fmt: skip
    write_json(
        run.folder / "run.json",
        {
            "format": FORMAT, "state": state, "engine": run.engine.name, "seed": run.recipe.seed, "threads": run.recipe.threads,
            "versions": fingerprint.versions(), "steps": steps, "decisions": run.decisions, "counts": counts, "problems": run.problems, "mended": dict(run.mended),
            "seconds": round(seconds, 3), "pipeline": getattr(run.recipe.pipeline, "__name__", ""), "token_unit": run.recipe.token_unit(),
        },
    )  # fmt: skip
