"""What a run or a refresh would cost, before it is begun: rows, tokens, seconds of every step, disk, tokens asked of an endpoint.

Some rows of the files that would be read go through the whole recipe in a folder of their own; what they cost is scaled up, with an interval from how much the
trial's shards differ. No row is generated: only what would be asked is counted. The run folder gets plan.json alone, against which the run is held afterwards.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curate.dataset import Dataset
from curate.errors import CurateError, UserMistake
from curate.store import Records, read_json, write_json

NAME = "plan.json"
SHARDS, SHARD_ROWS = 12, 50
CONFIDENCE = 0.90


@dataclass
class Trial:
    """How a `Run` reads few rows: `files` of many, some `shards` of each, `rows` a shard. `asked`: tokens of every generator's requests."""

    files: Sequence[Any]
    shards: int
    rows: int = SHARD_ROWS
    asked: dict[str, int] = field(default_factory=dict)

    def settings(self, ingest: Any) -> Any:
        return ingest.model_copy(update={"shard_rows": self.rows})

    def generator(self, name: str, stage: Any, inputs: Any) -> Dataset:
        """Nothing is generated; what would be asked, at most, is counted."""
        if hasattr(stage, "most_tokens"):
            self.asked[name] = stage.most_tokens(inputs)
        return Dataset(inputs.dataset.root, ())


def plan(recipe: Any, folder: Path, workers: int = 1) -> dict[str, Any]:
    """The whole estimate as one mapping; also written to folder/plan.json. Raises UserMistake where the trial itself cannot run."""
    from curate.engine import Inline
    from curate.ingest.files import find_files
    from curate.progress import Silent
    from curate.runs import Run
    from curate.sources import stat_of

    recipe.look_up()
    files = find_files(recipe.ingest, folder)
    records = Records(folder / "stages" / "ingest").by_shard if folder.is_dir() else {}
    known = {record["path"]: record for record in records.values()}
    there = [file for file in files if file.path in known and known[file.path]["stat"] == stat_of(file.path)]
    to_read = [file for file in files if file not in there]
    rows_there = sum(shard["rows"] for file in there for shard in known[file.path]["shards"])
    among = to_read or files
    chosen = among[:: max(1, len(among) // SHARDS)][:SHARDS]
    trial = Trial(chosen, -(-SHARDS // len(chosen)))
    with tempfile.TemporaryDirectory(prefix="curate-plan-") as place:
        engine = Inline(recipe.threads)
        run = Run(Path(place), recipe, engine, Silent(), trial=trial)
        stopped = ""
        try:
            recipe.pipeline(run, recipe)
        except UserMistake as error:
            stopped = str(error)  # a filter that too few rows have trusted texts for: later steps are not measured
            if not run.facts.get("ingest") or not run.facts["ingest"].rows:
                raise
        except CurateError:
            raise
        tried = run.facts["ingest"].rows
        rows = sum(_rows_in(file, tried, chosen) for file in to_read)
        total = rows + rows_there
        size = sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file())
        per_row, spread = _tokens(run)
        steps = [step for name in run.facts if (step := _step(run, name, tried, rows if to_read else 0, total, folder)) is not None]
    seconds = [sum(step["seconds"][side] / (workers if step["shards"] else 1) + step["fit"][side] for step in steps) for side in (0, 1)]
    found = {
        "files": {"to_read": len(to_read), "known": len(there)}, "rows": {"to_read": rows, "known": rows_there},
        "tokens": [round(rows * (per_row - spread)), round(rows * (per_row + spread))], "steps": steps, "workers": workers,
        "seconds": [round(value, 1) for value in seconds], "disk": round(size / max(tried, 1) * total), "trial_rows": tried,
        "asked": {name: round(tokens / max(tried, 1) * rows) for name, tokens in trial.asked.items()}, "stopped": stopped,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NAME, found, checked=False)
    return found


def _step(run: Any, name: str, tried: int, rows: int, total: int, known_in: Path) -> dict[str, Any] | None:
    """Seconds of one step: of its shards in proportion to the rows to read, of its fit in proportion to all rows; each as (low, high)."""
    facts = run.facts[name]
    if name == "publish":
        return {
            "name": name,
            "rows": total,
            "shards": 0,
            "seconds": [0.0, 0.0],
            "fit": [facts.seconds, facts.seconds * max(total / max(tried, 1), 1)],
            "start": 0.0,
        }
    records = list(run.records_of(name).by_shard.values())
    shard_rows = [sum(shard["rows"] for shard in record["shards"]) if "shards" in record else record["rows"] for record in records]
    times = np.array([record.get("seconds", 0.0) for record in records])
    fitting = max(0.0, facts.seconds - float(times.sum()))
    if not len(times):
        return None
    # The first shard also loads what the step needs.
    rest, of = (times[1:], np.array(shard_rows[1:])) if len(times) > 2 else (times, np.array(shard_rows))
    rates = rest / np.maximum(of, 1)
    start = max(0.0, float(times[0] - rates.mean() * shard_rows[0])) if len(times) > 2 else 0.0
    low, high = _interval(rates)
    factor = max(total / max(tried, 1), 1.0)
    # A refresh applies the models that the folder has.
    fitted = facts.fitted == "fitted" and not (facts.fit_makes == "model" and (known_in / "stages" / name / "artifact.json").exists())
    return {
        "name": name, "rows": rows, "shards": len(times), "start": round(start, 2),
        "seconds": [round(rows * low + (start if rows else 0.0), 2), round(rows * high + (start if rows else 0.0), 2)],
        # How a fit grows is its own matter: from not at all (a bounded sample) to in proportion to the rows.
        "fit": [round(fitting, 2), round(fitting * factor, 2)] if fitted else [0.0, 0.0],
    }  # fmt: skip


def _interval(rates: np.ndarray) -> tuple[float, float]:
    """Of the mean of seconds a row over shards, by Student's t."""
    from scipy.stats import t

    mean = float(rates.mean())
    if len(rates) < 3:
        return mean / 2, mean * 2
    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(rates) - 1) * rates.std(ddof=1) / math.sqrt(len(rates)))
    return max(0.0, mean - half), mean + half


def _tokens(run: Any) -> tuple[float, float]:
    """Tokens a row, and half of the interval around it."""
    from curate.versions import score_values

    shards = run.verdicts["ingest"].beside(*(run.made[name] for name in run.made if name == "tokens"))
    if "tokens" not in run.made:
        return 0.0, 0.0
    values = score_values(shards, "tokens")
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return 0.0, 0.0
    return float(values.mean()), float(1.645 * values.std(ddof=1) / math.sqrt(len(values)))


def _rows_in(file: Any, tried: int, chosen: Sequence[Any]) -> int:
    """Rows of a source file: exact for Parquet, lines of a text file, else by its size and the trial's rows a byte."""
    path = Path(file.path)
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        try:
            return pq.read_metadata(path).num_rows
        except (OSError, ValueError):
            return 0  # unreadable: the run sets it aside
    if path.suffix in (".jsonl", ".ndjson", ".csv", ".tsv", ".json"):
        with path.open("rb") as opened:
            return sum(block.count(b"\n") for block in iter(lambda: opened.read(1 << 20), b"")) or 1
    sizes = sum(Path(other.path).stat().st_size for other in chosen if Path(other.path).is_file())
    return round(path.stat().st_size / max(sizes, 1) * tried) if path.is_file() else tried


def held_against(folder: Path, steps: Sequence[Any], seconds: float) -> dict[str, Any] | None:
    """After a run: what was planned, beside what it took; None where nothing was planned, or nothing was done."""
    planned = read_json(folder / NAME)
    if planned is None or not any(step.executed for step in steps):
        return None
    took = {step.name: round(step.seconds, 2) for step in steps if step.executed}
    by_step = {
        step["name"]: [step["seconds"][side] / planned["workers"] + step["fit"][side] for side in (0, 1)] for step in planned["steps"]
    }
    (folder / NAME).unlink(missing_ok=True)
    return {
        "seconds": [*planned["seconds"], round(seconds, 1)], "rows": [planned["rows"]["to_read"] + planned["rows"]["known"], steps[0].rows],
        "steps": {name: [round(value, 2) for value in (*by_step[name], took[name])] for name in took if name in by_step},
    }  # fmt: skip


def text(found: Mapping[str, Any]) -> str:
    """For people."""
    low, high = found["seconds"]
    lines = [
        f"  {found['files']['to_read']:,} files to read, {found['files']['known']:,} known; {found['rows']['to_read']:,} rows to read, {found['rows']['known']:,} known",
        f"  {found['tokens'][0]:,} to {found['tokens'][1]:,} tokens in them; about {found['disk'] / 1e6:,.1f} MB on the disk", "",
        f"  {'step':<24} {'rows':>10} {'seconds':>16} {'of these a fit':>18}",
    ]  # fmt: skip
    for step in found["steps"]:
        seconds = f"{step['seconds'][0] + step['fit'][0]:,.1f} to {step['seconds'][1] + step['fit'][1]:,.1f}"
        fit = f"{step['fit'][0]:,.1f} to {step['fit'][1]:,.1f}" if step["fit"][1] else ""
        lines.append(f"  {step['name']:<24} {step['rows']:>10,} {seconds:>16} {fit:>18}")
    lines += [
        "",
        f"  {low:,.0f} to {high:,.0f} s with {found['workers']} worker{'s' if found['workers'] > 1 else ''}, from {found['trial_rows']:,} rows tried here",
    ]
    if not found["files"]["to_read"]:
        lines.append("  no file has changed: a refresh has nothing to do, unless the recipe, our code or a library has")
    lines += [f"  {name}: at most {tokens:,} tokens asked of the model" for name, tokens in found["asked"].items()]
    lines += [f"  later steps are not measured, the trial ended there: {found['stopped']}"] if found["stopped"] else []
    return "\n".join(lines)
