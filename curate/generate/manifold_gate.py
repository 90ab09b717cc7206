"""Judge of generated rows by their vectors: does a new row lie where real rows lie?

A conformal test on the local kNN ratio s(x) = r_k(x) / mean of r_k over the neighbours (k = 10). The bound is the
quantile of s over a reference sample of raw rows, each scored against the others, so that of real rows about a share
`alpha` would be refused (recovery notes 2b, step 4i; the test is ours, the idea that antidotes have to stay on the
manifold is Li, Xia and Liu's, ICML 2023). A generated row lies close to its parent by construction: its parent is left
out of its neighbours, as a row is left out of its own.

Where rows have a label that a made row takes from its parent (`label`), a second test of the same kind asks whether it has
moved among rows of another label (`algorithms/intrusion.py`).

Measured elsewhere (recovery notes 2c): the test cuts a tail; ranking by s did not help. So it refuses, it never ranks.
Rewrites are measured and, unless `refuses` names them, not refused: a cleaner text than any in a pool of raw pages
lies off their manifold, too.
"""

from __future__ import annotations

import heapq
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.embed.hashed import unit_vectors
from curate.errors import UserMistake
from curate.generate.rows import draw
from curate.stage import VERDICT, FitEngine, Inputs, Stage, TableFunction, verdict_column


class ManifoldGate(Stage):
    """Refuses generated rows whose vectors lie where no real row lies.

    Settings.

    refuses         origins whose rows are refused; all generated rows get their ratio
    column          of unit vectors (list or fixed-size list of float32)
    k               neighbours; lowered where the reference has fewer rows than k + 2
    alpha           share of real rows that the bound would refuse
    label           column of a label; a row of `refuses` that lies among rows of another one, further than a share `alpha` of the real rows of its
                    own do, is refused (`in_another_label`). Null: not asked
    max_reference   rows of the reference, the lowest by a hash of (seed, row_id); equal rows count once
    """

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("faiss-cpu", "numpy")

    refuses: tuple[str, ...] = ("antidote",)
    column: str = "vector"
    k: int = Field(10, ge=1)
    alpha: float = Field(0.05, gt=0, lt=1)
    label: str | None = None
    max_reference: int = Field(20_000, ge=3)
    seed: int = 0

    def reads(self) -> tuple[str, ...]:
        return ("row_id", self.column)

    def reads_if_present(self) -> tuple[str, ...]:
        return ("origin", "parents", *([self.label] if self.label else []))

    def writes(self) -> pa.Schema:
        ratios = ["manifold_ratio", *(["label_ratio"] if self.label else [])]
        return pa.schema([*((name, pa.float32()) for name in ratios), ("verdict", VERDICT)])

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        from curate.algorithms.intrusion import own_to_other
        from curate.algorithms.knn import nearest_others
        from curate.algorithms.typicality import conformal_quantile, local_ratio

        row_ids, labels, reference = self._reference(inputs)
        n = len(row_ids)
        if n < 3:
            raise UserMistake(f"the manifold gate needs 3 different raw rows with a vector, there are {n}: give more rows")
        k = min(self.k, n - 2)
        distances, neighbours = nearest_others(reference, k)
        scores = local_ratio(distances, neighbours, distances[:, k - 1], k)
        bound = conformal_quantile(scores, self.alpha)
        bounds = {}
        if self.label:
            ratios = own_to_other(reference, labels, reference, labels, np.arange(n))
            for label in sorted({label for label in labels if label is not None}):
                known = ratios[(np.array(labels, object) == label) & ~np.isnan(ratios)]
                bounds[label] = conformal_quantile(known, self.alpha) if len(known) else np.inf
            if not bounds:
                raise UserMistake(
                    f"manifold_gate: no raw row has a value in label '{self.label}': check the name, and that ingest.keep lists it"
                )
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "reference.npy", reference)
        np.save(folder / "radii.npy", distances[:, k - 1])
        np.save(folder / "row_ids.npy", np.array(row_ids, dtype="S"))
        # null: too few rows for a promise at this alpha, every row passes
        info: dict[str, Any] = {"rows": n, "k": k, "alpha": self.alpha, "bound": _stored(bound)}
        if self.label:
            info["label_bounds"] = {label: _stored(value) for label, value in bounds.items()}
            (folder / "labels.json").write_text(json.dumps(labels, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "info.json").write_text(json.dumps(info, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def _labels(self, table: pa.Table) -> list[str | None]:
        if self.label is None or self.label not in table.column_names:
            return [None] * table.num_rows
        if pa.types.is_nested(kind := table.schema.field(self.label).type):
            raise UserMistake(f"manifold_gate: label '{self.label}' is {kind}: name a column of words or numbers")
        return table.column(self.label).cast(pa.string()).to_pylist()

    def _reference(self, inputs: Inputs) -> tuple[list[str], list[str | None], np.ndarray]:
        """(row_id, label, vector) of a sample of raw rows in the order of their draws; memory is bounded by `max_reference` rows."""
        heap: list[tuple[float, str, np.ndarray]] = []
        held: dict[str, str | None] = {}  # row_id -> label; equal rows of different labels have none
        for _, table in inputs.tables():
            origins = table.column("origin").to_pylist() if "origin" in table.column_names else [None] * table.num_rows
            unit, bad = unit_vectors(table.column(self.column))
            unusable, labels = set(bad.tolist()), self._labels(table)
            for row, row_id in enumerate(table.column("row_id").to_pylist()):
                if origins[row] is not None or row in unusable:
                    continue
                if row_id in held:
                    held[row_id] = held[row_id] if held[row_id] == labels[row] else None
                    continue
                entry = (-draw(self.seed, "manifold_gate", row_id), row_id, unit[row].copy())
                if len(heap) < self.max_reference:
                    heapq.heappush(heap, entry)
                    held[row_id] = labels[row]
                elif entry[:2] > heap[0][:2]:
                    del held[heapq.heapreplace(heap, entry)[1]]
                    held[row_id] = labels[row]
        chosen = sorted(heap, key=lambda entry: (-entry[0], entry[1]))
        return [entry[1] for entry in chosen], [held[entry[1]] for entry in chosen], np.array([entry[2] for entry in chosen], np.float32)

    def load(self, folder: Path) -> TableFunction:
        from curate.algorithms.intrusion import own_to_other
        from curate.algorithms.knn import search
        from curate.algorithms.typicality import local_ratio

        info: dict[str, Any] = json.loads((folder / "info.json").read_text(encoding="utf-8"))
        reference, radii = np.load(folder / "reference.npy"), np.load(folder / "radii.npy")
        place = {row_id.decode(): row for row, row_id in enumerate(np.load(folder / "row_ids.npy"))}
        known = json.loads((folder / "labels.json").read_text(encoding="utf-8")) if self.label else []
        k, bound, label_bounds = info["k"], info["bound"], info.get("label_bounds", {})

        def manifold_gate(table: pa.Table) -> pa.Table:
            rows = table.num_rows
            ratios: list[float | None] = [None] * rows
            intrusions: list[float | None] = [None] * rows
            labels = self._labels(table)
            origins: list[str | None] = [None] * rows
            if "origin" in table.column_names:
                origins = table.column("origin").to_pylist()
                mine = [row for row, origin in enumerate(origins) if origin is not None]
                if mine:
                    parents = table.column("parents").to_pylist()
                    unit, bad = unit_vectors(table.column(self.column).take(pa.array(mine, pa.int64())))
                    source = np.array([next((place[one] for one in parents[row] or () if one in place), -1) for row in mine], np.int64)
                    distances, neighbours = search(unit, reference, k + 1)
                    scores = local_ratio(distances, neighbours, radii, k, left_out=source)
                    scores[bad] = np.inf  # a text without a direction lies nowhere
                    for row, score in zip(mine, scores.tolist(), strict=True):
                        ratios[row] = round(score, 5)
                    if self.label:
                        if self.label not in table.column_names and any(origins[row] == "antidote" for row in mine):
                            raise UserMistake(
                                f"manifold_gate: antidotes have no column '{self.label}' to be judged by: add `keep: [{self.label}]` to the antidote section"
                            )
                        beside = own_to_other(unit, [labels[row] for row in mine], reference, known, source)
                        for row, score in zip(mine, beside.tolist(), strict=True):
                            intrusions[row] = None if np.isnan(score) else round(score, 5)
            rules: list[str | None] = [None] * rows
            values, limits = list(ratios), [bound] * rows
            for row, origin in enumerate(origins):
                intrusion, limit = intrusions[row], label_bounds.get(labels[row])
                if origin not in self.refuses or ratios[row] is None:
                    continue
                if bound is not None and ratios[row] > bound:
                    rules[row] = "off_manifold"
                elif intrusion is not None and limit is not None and intrusion > limit:
                    rules[row], values[row], limits[row] = "in_another_label", intrusion, limit
            verdict = verdict_column(
                rules,
                [value if rule else None for rule, value in zip(rules, values, strict=True)],
                [limit if rule else None for rule, limit in zip(rules, limits, strict=True)],
            )
            columns = [pa.array(ratios, pa.float32()), *([pa.array(intrusions, pa.float32())] if self.label else []), verdict]
            return pa.table(columns, schema=self.writes())

        return manifold_gate


def _stored(bound: float) -> float | None:
    return round(float(bound), 5) if np.isfinite(bound) else None
