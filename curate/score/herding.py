"""Where a row comes in an order whose every beginning stands for its group (kernel herding, `algorithms/herding.py`).

Made for `select`: `by: herding` with `groups: cluster` spends a budget on rows that together are like their cluster,
instead of on the rows that are highest in some score and therefore alike. On gradients it is the idea of CRAIG
(Mirzasoleiman et al. 2020, arXiv 1906.01827).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.algorithms.herding import herding_order
from curate.algorithms.knn import unit_rows
from curate.cluster._clustering import vector_rows
from curate.score.perplexity import nullable
from curate.stage import FitEngine, Inputs, Resources, Stage, TableFunction, read_decision, write_decision


class Herding(Stage):
    """Orders the rows of each group so that the first ones, however many, have nearly the mean vector of the group.

    herding   share of the rows of the group, or of its part, that do not come before a row: 1 for the first; null without a vector

    column   vectors, lists of numbers: `vector` of the embedding, or `gradient_features` of `gradient` with `keep_features`
    groups   column whose values are the groups; without it all rows are one
    block    a larger group is ordered in parts of at most so many rows, each towards the mean of the whole group. Time grows with
             rows x block x width, memory with groups x block x width
    """

    column: str = "vector"
    groups: str = "cluster"
    block: int = Field(2048, ge=2)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "drop"})
    fit_makes: ClassVar[str] = "decision"
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def reads(self) -> tuple[str, ...]:
        return ("shard", self.column)

    def reads_if_present(self) -> tuple[str, ...]:
        return (self.groups,)

    def writes(self) -> pa.Schema:
        return pa.schema([("herding", pa.float32())])

    def resources(self) -> Resources:
        return Resources(memory=512 << 20)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Writes means.npz (group names; means, float64 (groups, width)) and the decisions."""
        sums: dict[str, np.ndarray] = {}
        rows: dict[str, int] = {}
        for _, table in inputs.tables():
            unit, there, groups = self._read(table)
            for group in sorted(set(groups)):
                mine = unit[groups == group]
                sums[group] = sums.get(group, 0.0) + mine.sum(0, dtype=np.float64)
                rows[group] = rows.get(group, 0) + len(mine)
        names = sorted(sums)
        means = {name: sums[name] / rows[name] for name in names}
        np.savez(
            folder / "means.npz", names=np.array(names), means=np.stack([means[name] for name in names]) if names else np.empty((0, 0))
        )
        sizes = {name: -(-rows[name] // -(-rows[name] // self.block)) for name in names}  # of the blocks of a group, about equal
        found = {shard: np.full(len(table), np.nan) for shard, table in inputs.tables()}
        waiting: dict[str, list[tuple[str, int, np.ndarray]]] = {name: [] for name in names}

        def place(name: str) -> None:
            block, waiting[name] = waiting[name], []
            for (shard, row, _), share in zip(block, shares(np.stack([vector for *_, vector in block]), means[name]), strict=True):
                found[shard][row] = share

        for shard, table in inputs.tables():
            unit, there, groups = self._read(table)
            for vector, row, group in zip(unit, there.tolist(), groups.tolist(), strict=True):
                waiting[group].append((shard, row, vector))
                if len(waiting[group]) == sizes[group]:
                    place(group)
        for name in names:
            if waiting[name]:
                place(name)
        for shard, values in found.items():
            write_decision(folder, shard, pa.table({"herding": nullable(values)}, schema=self.writes()))
        remarks = []
        if names == [""] and rows and not any(self.groups in types for types in inputs.types()):
            remarks.append(f"there is no column '{self.groups}': the whole pool was put in one order; name a column of groups")
        (folder / "info.json").write_text(json.dumps({"rows": rows, "remarks": remarks}, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> TableFunction:
        decided = read_decision(folder)
        with np.load(folder / "means.npz", allow_pickle=False) as artifact:
            means = dict(zip(artifact["names"].tolist(), artifact["means"], strict=True))

        def score(table: pa.Table) -> pa.Table:
            if (folder / f"{table.column('shard')[0].as_py()}.decision").is_file():
                return decided(table)
            values = np.full(len(table), np.nan)  # rows that the fit has not seen: in an order of their own, towards the same mean
            unit, there, groups = self._read(table)
            for group in sorted(set(groups)):
                mine = groups == group
                values[there[mine]] = shares(unit[mine], means.get(group, unit[mine].mean(0)))
            return pa.table({"herding": nullable(values)}, schema=self.writes())

        return score

    def _read(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(unit rows float32 (m, width), their positions int64 (m,), their groups as text (m,)); rows without a direction left out."""
        unit, bad = unit_rows(vector_rows(table.column(self.column), self.column))
        there = np.setdiff1d(np.arange(len(unit)), bad)
        names: list[Any] = table.column(self.groups).to_pylist() if self.groups in table.column_names else [""] * len(table)
        return unit[there], there, np.array(["" if names[row] is None else str(names[row]) for row in there], dtype=str)


def shares(unit: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """For each row, float64 (n,): share of the rows that do not come before it in the order of herding."""
    found = np.empty(len(unit))
    found[herding_order(unit, mean)] = 1 - np.arange(len(unit)) / max(len(unit), 1)
    return found
