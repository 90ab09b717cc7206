"""Clusters by spherical k-means on the vectors: the plain method, and the baseline inside every other one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.algorithms import knn, spectral
from curate.algorithms.kmeans import spherical_kmeans
from curate.errors import UserMistake
from curate.stage import FitEngine, Inputs, Stage, TableFunction

COLUMNS = pa.schema(
    [
        ("cluster", pa.int32()),  # 0 is the largest at the fit; null: the vector has no direction
        ("cluster_similarity", pa.float32()),  # cosine of the vector to the mean vector of its cluster
        ("kmeans_cluster", pa.int32()),  # the baseline's label for the same row
        ("map_x", pa.float32()),  # first two principal components of the unit vectors: for pictures only
        ("map_y", pa.float32()),
    ]
)

# Restarts of the baseline: enough that it is an honest rival, few enough to cost less than the method beside it.
_RESTARTS = 3


class KMeans(Stage):
    """Groups rows by k-means on their vectors.

    Columns `cluster`, `cluster_similarity`, `kmeans_cluster` (the same as `cluster`), `map_x`, `map_y`.

    column         unit or raw vectors, fixed_size_list<float32> or list<float32>
    k              clusters; lowered where there are fewer distinct rows, and `info.json` says so
    max_fit_rows   rows that the centers are fitted on, drawn by seed; every row is then assigned
    """

    column: str = "vector"
    k: int = Field(default=20, ge=1)
    restarts: int = Field(default=_RESTARTS, ge=1)
    max_fit_rows: int = Field(default=200_000, ge=1)
    seed: int = 0

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy", "scikit-learn", "faiss-cpu", "faiss-gpu")

    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    def writes(self) -> pa.Schema:
        return COLUMNS

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        unit, rows = fit_rows(inputs, self.column, self.max_fit_rows, self.seed)
        centers, labels = spherical_kmeans(unit, self.k, self.seed, self.restarts)
        lowered = [f"k from {self.k} to {len(centers)}: no more distinct rows"] if len(centers) < self.k else []
        means = spectral.cluster_means(unit, labels)
        np.savez(folder / "clusters.npz", baseline=centers, means=means, plane=principal_plane(unit))
        write_info(folder, {"method": "kmeans", **rows, "k": len(centers), "lowered": lowered, "sizes": np.bincount(labels).tolist()})

    def load(self, folder: Path) -> TableFunction:
        return table_function(self.column, np.load(folder / "clusters.npz", allow_pickle=False))


def fit_rows(inputs: Inputs, column: str, most: int, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """(unit rows float32 (n, d), what was read); at most `most` rows, drawn by seed whatever the sharding."""
    chosen = None
    if inputs.rows > most:  # an upper bound: count what is visible
        visible = sum(len(table) for _, table in inputs.tables())
        if visible > most:
            chosen = np.sort(np.random.default_rng(seed).permutation(visible)[:most])
    parts: list[np.ndarray] = []
    unusable: list[str] = []
    start = 0
    for shard, table in inputs.tables():
        unit, bad = knn.unit_rows(vector_rows(table.column(column), column))
        places = table.column("position").to_numpy() if "position" in table.column_names else np.arange(len(table))
        unusable += [f"{shard}:{place}" for place in places[bad]]
        wanted = np.ones(len(table), bool)
        if chosen is not None:
            wanted = np.isin(np.arange(start, start + len(table)), chosen, assume_unique=True)
        wanted[bad] = False
        parts.append(unit[wanted])
        start += len(table)
    widths = {part.shape[1] for part in parts if len(part)}
    if not widths:
        raise UserMistake(f"no row to cluster has a vector in '{column}': check what hides the rows (`curate status`), and the embed step")
    if len(widths) > 1:
        raise UserMistake(f"vectors of widths {sorted(widths)} in '{column}': embed all rows with one model")
    unit = np.concatenate([part for part in parts if len(part)])
    return unit, {"rows": start, "fitted_on": len(unit), "unusable": len(unusable), "unusable_at": unusable[:100]}


def vector_rows(column: pa.ChunkedArray | pa.Array, name: str, width: int | None = None) -> np.ndarray:
    """(n, d) float32 from a list column; a null row becomes NaN. `width`: the d that is expected."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not isinstance(array, pa.FixedSizeListArray | pa.ListArray | pa.LargeListArray):
        raise UserMistake(f"'{name}' holds {array.type}, not vectors: name a column of lists of float32 under `column`")
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    # drop_null first: a null list of fixed size still has values under it
    lengths = set(array.value_lengths().drop_null().to_pylist()) | ({width} if width else set())
    if len(lengths) > 1:
        raise UserMistake(f"vectors of widths {sorted(lengths)} in '{name}': embed all rows with one model")
    d = lengths.pop() if lengths else 0
    rows = np.full((len(array), d), np.nan, np.float32)
    rows[valid] = array.drop_null().flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, d) if d else 0
    return rows


def principal_plane(unit: np.ndarray) -> np.ndarray:
    """float64 (3, d): the mean and the two main axes, each axis with its largest entry positive."""
    mean = unit.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((unit.shape[1], unit.shape[1]))
    for start in range(0, len(unit), 4096):
        rows = unit[start : start + 4096] - mean
        scatter += rows.T @ rows
    axes = np.linalg.eigh(scatter)[1][:, ::-1][:, :2].T
    if len(axes) < 2:
        axes = np.concatenate([axes, np.zeros_like(axes)])
    signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])
    return np.stack([mean, axes[0] * signs[0], axes[1] * signs[1]])


def table_function(column: str, model: Any, label: Any = None) -> TableFunction:
    """The columns of a clustering from its arrays: `baseline`, `means`, `plane`. `label`: unit rows -> labels."""
    baseline, means, plane = model["baseline"], model["means"], model["plane"]

    def assign(table: pa.Table) -> pa.Table:
        unit, bad = knn.unit_rows(vector_rows(table.column(column), column, means.shape[1]))
        nearest = nearest_center(unit, baseline)
        labels = nearest if label is None else label(unit)
        similarity = spectral.similarity_to_own(unit, labels, means)
        flat = np.empty((2, len(unit)), np.float32)
        for start in range(0, len(unit), 4096):
            centred = unit[start : start + 4096] - plane[0]
            for axis in (0, 1):  # not a matrix product, whose last bits follow the size of the batch
                flat[axis, start : start + 4096] = (centred * plane[axis + 1]).sum(axis=1)
        none = np.zeros(len(unit), bool)
        none[bad] = True
        values = (labels, similarity, nearest, flat[0], flat[1])
        arrays = [pa.array(column, field.type, mask=none) for column, field in zip(values, COLUMNS, strict=True)]
        return pa.Table.from_arrays(arrays, schema=COLUMNS)

    return assign


def nearest_center(unit: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """int32 (n,). The lower label wins a tie."""
    return knn.search(unit, centers, 1)[1][:, 0].astype(np.int32)


def write_info(folder: Path, info: dict[str, Any]) -> None:
    (folder / "info.json").write_text(json.dumps(info, indent=1, sort_keys=True) + "\n", encoding="utf-8")
