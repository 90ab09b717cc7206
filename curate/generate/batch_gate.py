"""Judge of a whole batch of rewrites: have they collapsed into a template, or onto few of their sources?

Rows that pass one by one can be worthless together. A batch is all rows that one task made with one model and that no
step has dropped so far; every measure of `algorithms/collapse.py` is set beside the same of the texts that were shown to
the model, and an alarm is a difference from these, not a level: sources that are alike give texts that are.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.generate.rows import draw
from curate.stage import VERDICT, FitEngine, Inputs, Stage, TableFunction, verdict_column

ALARMS = ("opening", "distinct", "compressed", "spread", "separable")


class BatchGate(Stage):
    """Raises an alarm where a batch of rewrites is a template, and drops the batch where the recipe says so.

    Settings.

    blocks           alarms that drop every row of their batch, by the rule batch_ALARM; the others are told in the report
    opening_max      how many times more texts than sources may begin with the same five words; counted from `opening_from` on,
                     by the lower end of a 95 % interval
    distinct_min     least ratio of distinct 3-grams, texts to sources;  compressed_min: of bytes after zlib
    spread_min       least ratio of the effective number of nearest sources per text to that of nearest other sources per source
    separable_max    highest AUC with which words tell texts from sources
    least            smaller batches are not judged
    most             rows of a batch that are looked at, the lowest by a hash of (seed, row_id)

    Defaults: benchmarks/results/rewriting.md holds them against real texts and planted collapse.
    """

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "drop"})
    fit_makes: ClassVar[str] = "decision"
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "scipy", "numpy")

    blocks: tuple[Literal["opening", "distinct", "compressed", "spread", "separable"], ...] = ()
    opening_from: float = Field(0.05, gt=0, le=1)
    opening_max: float = Field(3.0, ge=1)
    distinct_min: float = Field(0.75, ge=0, le=1)
    compressed_min: float = Field(0.75, ge=0, le=1)
    spread_min: float = Field(0.75, ge=0, le=1)
    separable_max: float = Field(0.995, gt=0.5, le=1)
    least: int = Field(50, ge=10)
    most: int = Field(1000, ge=10)
    seed: int = 0

    def reads(self) -> tuple[str, ...]:
        return ("row_id", "prompt", "response", "text")

    def reads_if_present(self) -> tuple[str, ...]:
        return ("origin", "parents", "parent_text", "generator")

    def writes(self) -> pa.Schema:
        return pa.schema([("batch_alarms", pa.list_(pa.string())), ("verdict", VERDICT)])

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        drawn: dict[str, list[tuple[float, str, str, str]]] = defaultdict(list)
        sizes: dict[str, int] = defaultdict(int)
        for _, table in inputs.tables():
            if "origin" not in table.column_names:
                continue
            for row in table.to_pylist():
                if row["origin"] == "rewrite":
                    batch = _batch(row["generator"])
                    sizes[batch] += 1
                    new, old = _new_and_old(row)
                    drawn[batch].append((draw(self.seed, "batch_gate", row["row_id"]), row["parents"][0], new, old))
                    if len(drawn[batch]) > 2 * self.most:
                        drawn[batch] = sorted(drawn[batch])[: self.most]
        found = []
        for batch in sorted(drawn):
            rows = sorted(drawn[batch])[: self.most]
            measured = self.measure([new for *_, new, _ in rows], [old for *_, old in rows], [parent for _, parent, *_ in rows])
            found.append({"batch": batch, "rows": sizes[batch], "judged": len(rows) >= self.least, **measured})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "batches.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def measure(self, texts: list[str], sources: list[str], parents: list[str]) -> dict[str, Any]:
        """{measure: [of the texts, of the sources or None], ..., alarms: [...], said: the commonest opening}."""
        from curate.algorithms import collapse

        words = min(collapse.word_count(texts), collapse.word_count(sources))
        (share, said), (usual, _) = collapse.opening(texts), collapse.opening(sources)
        distinct = [collapse.distinct(side, words) for side in (texts, sources)]
        compressed = [collapse.compressed(side, words) for side in (texts, sources)]
        ours, theirs = collapse.features(texts), collapse.features(sources)
        groups = np.unique(parents, return_inverse=True)[1]
        spread, separable = [collapse.spread(ours, theirs), collapse.spread(theirs)], collapse.separable(ours, theirs, groups)
        alarms = {
            "opening": _lower(share, len(texts)) > max(self.opening_from, self.opening_max * usual),
            "distinct": distinct[0] < self.distinct_min * distinct[1],
            "compressed": compressed[0] < self.compressed_min * compressed[1],
            "spread": spread[0] < self.spread_min * spread[1],
            "separable": separable > self.separable_max,
        }
        return {
            "opening": [round(share, 4), round(usual, 4)],
            "distinct": [round(value, 4) for value in distinct],
            "compressed": [round(value, 4) for value in compressed],
            "spread": [round(value, 4) for value in spread],
            "separable": [round(separable, 4), None],
            "said": said,
            "alarms": [name for name in ALARMS if alarms[name]] if len(texts) >= self.least else [],
        }

    def load(self, folder: Path) -> TableFunction:
        alarms = {batch["batch"]: batch["alarms"] for batch in json.loads((folder / "batches.json").read_text(encoding="utf-8"))}

        def batch_gate(table: pa.Table) -> pa.Table:
            found: list[list[str] | None] = [None] * table.num_rows
            if "origin" in table.column_names:
                pairs = zip(table.column("origin").to_pylist(), table.column("generator").to_pylist(), strict=True)
                found = [alarms.get(_batch(generator), []) if origin == "rewrite" else None for origin, generator in pairs]
            blocking = [next((alarm for alarm in row or () if alarm in self.blocks), None) for row in found]
            verdict = verdict_column([f"batch_{alarm}" if alarm else None for alarm in blocking])
            return pa.table([pa.array(found, pa.list_(pa.string())), verdict], schema=self.writes())

        return batch_gate


def _batch(generator: str) -> str:
    """Task and model of a row's generator, without how the model stopped."""
    return generator.rpartition(" ")[0]


def _new_and_old(row: dict[str, Any]) -> tuple[str, str]:
    """What was generated, and what it stands for; see the conventions of `rows.py`."""
    parent, response = row["parent_text"] or "", row["response"] or ""
    if row["prompt"] is None:
        return row["text"], parent
    stayed = parent.startswith(row["text"][: len(row["text"]) - len(response)].rstrip())
    if response and parent.endswith(response) and not stayed:  # another prompt with the old answer
        return row["prompt"], parent[: len(parent) - len(response)].rstrip()
    return response, parent[len(row["text"]) - len(response) :]


def _lower(share: float, n: int, z: float = 1.96) -> float:
    """Lower end of Wilson's 95 % interval of a share."""
    middle, half = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return float((middle - half) / (1 + z * z / n))
