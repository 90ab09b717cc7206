"""What goes with a new version: its rows and their fates, the changes since the version before, CHANGES.md; at a refresh, whether new rows have drifted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Dataset, write_table
from curate.ledger import Ledger
from curate.refresh.changes import Files, Moved, Story, compared, moved, written
from curate.refresh.compare import clusters_of
from curate.refresh.settings import Thresholds
from curate.store import attempt_name, commit, digest, noted, sha256_file
from curate.versions import Versions, described, rows_of, score_values, write_rows

NAME = "CHANGES.md"


class Drifted(Exception):
    """The recipe wants models fitted anew: the refresh begins again."""


def tell(run: Any, joined: Dataset, versions: Versions, number: int, base: int | None, folder: Path) -> dict[str, Any]:
    """Write version `number`'s rows and changes beside it and CHANGES.md into `folder`; what its record says of them.

    Raises Drifted where the recipe wants models fitted anew, NeedsDecision where it wants to be asked.
    """
    rows_path, changes_path = (attempt_name(run.tmp, digest([number, kind])) for kind in ("rows", "changes"))
    rows = write_rows(rows_of(joined, run.decisions), rows_path)
    now = described(joined, rows)
    record = versions.record(base) or {}
    story, new = Story(number, None, None, None, now), None
    if base is not None and "like" in record and versions.beside(base):
        before = versions.rows(base)
        files = run.refresh.files if run.refresh else Files()
        unreadable = tuple(problem["file"].split(": ")[-1] for problem in run.problems)
        files = replace(files, unreadable=unreadable)
        changes = compared(before, rows, files)
        new = _new_values(joined, rows, before, now)
        same = record.get("clusters") == clusters_of(run.folder)
        found = moved(record["like"] if same else {**record["like"], "clusters": {}}, now, new)
        remarks = _drifted(run, joined, found) if run.refresh else []
        models = {
            name: facts.fitted for name, facts in run.facts.items() if facts.fitted and facts.fit_makes == "model" and "/" not in name
        }
        story = Story(number, base, changes, record["like"], now, files, found, models, tuple(remarks), run.recipe.token_unit())
        write_table(changes, changes_path)
        commit(changes_path, versions.changes_file(number), sha256_file(changes_path))
    older = (versions.place(base) / NAME).read_text(encoding="utf-8") if base is not None and (versions.place(base) / NAME).exists() else ""
    (folder / NAME).write_text(written(story, older), encoding="utf-8")
    commit(rows_path, versions.rows_file(number), sha256_file(rows_path))
    beside = [path for path in (versions.rows_file(number), versions.changes_file(number) if story.changes is not None else None) if path]
    return {"like": now, "base": base, "beside": {path.name: noted(path) for path in beside}}


def _new_values(joined: Dataset, rows: pa.Table, before: pa.Table, now: dict[str, Any]) -> dict[str, np.ndarray]:
    """Of every score its values over the raw rows that the version before had not read."""
    raw = rows.filter(rows["origin"].is_null())
    new = ~np.asarray(pc.is_in(raw["row_id"], value_set=before["row_id"].combine_chunks()))
    return {name: score_values(joined, name)[new] for name in now["scores"]} if new.any() else {}


def _drifted(run: Any, joined: Dataset, found: Moved) -> list[str]:
    """What is to be said of drift, in sentences; acts as `refresh.drift` asks."""
    if run.refresh.state["base"] is None or not run.refresh.frozen:
        return []
    said = alarms(Ledger(run.folder, {}, joined, run.decisions), found, run.refresh.settings.drift_from)
    if said and run.refresh.settings.drift == "refit":
        raise Drifted("; ".join(said))
    if said and run.refresh.settings.drift == "stop":
        run.refresh.ask_about_drift(said)
    return [f"drift: {sentence}" for sentence in said]


def alarms(ledger: Ledger, found: Moved, thresholds: Thresholds) -> list[str]:
    """Which figures lie both beyond chance and above the recipe's thresholds."""
    from curate.report.geometry import drifts

    said = []
    for drift in drifts(ledger):
        if drift.alarm and not drift.name.startswith("generated"):
            for measure in drift.measures:
                limit = getattr(thresholds, measure.name)
                if measure.value > max(limit, measure.baseline or 0.0):
                    said.append(
                        f"{measure.name} {measure.value:.3f} of {drift.rows:,} rows {drift.name} (threshold {limit:g}, by chance {measure.baseline:.3f})"
                    )
    for name, shift in found.scores.items():
        if shift.index > max(thresholds.score, shift.chance):
            said.append(
                f"{name}: index {shift.index:.3f} over {shift.rows:,} new rows (threshold {thresholds.score:g}, by chance {shift.chance:.3f})"
            )
    return said
