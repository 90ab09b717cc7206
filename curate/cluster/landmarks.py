"""Clusters by landmark spectral clustering (LSC, Chen and Cai 2011), with the k-means baseline beside.

fit     unit rows -> landmarks (k-means centers) -> ties -> spectral coordinates -> k clusters
load    a row's ties -> its coordinates -> the nearest cluster: the same formula for rows the fit never saw
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate.algorithms import knn, landmarks, spectral
from curate.algorithms.kmeans import spherical_kmeans
from curate.cluster.kmeans import COLUMNS, fit_rows, nearest_center, principal_plane, table_function, write_info
from curate.stage import FitEngine, Inputs, Stage, TableFunction

# Passes of k-means that place the landmarks, and rows to each: they have to lie among the rows, not to be optimal.
_PLACING = 10
_PLACING_ROWS = 50


class Landmarks(Stage):
    """Groups rows into capabilities: spectral clusters of a landmark graph, k-means on the same vectors beside them.

    Columns `cluster`, `cluster_similarity`, `kmeans_cluster`, `map_x`, `map_y` (see `kmeans.COLUMNS`).

    column         unit or raw vectors, fixed_size_list<float32> or list<float32>
    k              clusters; null: by the largest eigengap between k_min and k_max
    landmarks      at most; fewer where that would leave less than four rows to each
    nearest        landmarks that a row is tied to
    alpha          density correction: 0 none, 1 full. 0 found known classes better (benchmarks/results/cluster_first.md)
    dims           spectral coordinates that are clustered; null: k
    restarts       starts of the k-means on the coordinates
    max_fit_rows   rows that the fit sees, drawn by seed; every row is then placed
    """

    column: str = "vector"
    k: int | None = Field(default=None, ge=1)
    k_min: int = Field(default=4, ge=1)
    k_max: int = Field(default=64, ge=1)
    landmarks: int = Field(default=1000, ge=1)
    nearest: int = Field(default=5, ge=1)
    alpha: float = Field(default=0.0, ge=0, le=1)
    dims: int | None = Field(default=None, ge=1)
    restarts: int = Field(default=10, ge=1)
    max_fit_rows: int = Field(default=200_000, ge=1)
    seed: int = 0

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy", "scikit-learn", "faiss-cpu", "faiss-gpu")

    @model_validator(mode="after")
    def _range(self) -> Landmarks:
        if self.k_min > self.k_max:
            raise ValueError(f"k_min {self.k_min} is above k_max {self.k_max}: lower k_min, or set k")
        return self

    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    def writes(self) -> pa.Schema:
        return COLUMNS

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        unit, rows = fit_rows(inputs, self.column, self.max_fit_rows, self.seed)
        most_k = self.k or self.k_max
        lowered = []
        p = min(self.landmarks, max(len(unit) // 4, 4 * most_k))
        if p < self.landmarks:
            lowered.append(f"landmarks from {self.landmarks} to {p}: {len(unit)} rows")
        some = np.sort(np.random.default_rng(self.seed).permutation(len(unit))[: _PLACING_ROWS * p])
        points, _ = spherical_kmeans(unit[some], p, self.seed, iterations=_PLACING, spread=False)
        if len(points) < p:
            lowered.append(f"landmarks from {p} to {len(points)}: no more distinct rows")
        r = min(self.nearest, len(points))
        if r < self.nearest:
            lowered.append(f"nearest from {self.nearest} to {r}: no more landmarks")
        distances, indices = knn.search(unit, points, r)

        placed = landmarks.fit(distances, indices, len(points), max(most_k, self.dims or 0) + 1, self.alpha)
        components = int(placed.constant.sum())
        found, gaps = spectral.eigengap(placed.values, self.k_min, self.k_max, components)
        k = self.k or found
        columns = kept_columns(placed.constant, self.dims or k)
        spots = spectral.row_normalised(landmarks.coordinates(distances, indices, placed)[:, columns])
        centers, labels = spherical_kmeans(spots, k, self.seed, self.restarts)
        if len(centers) < k:
            lowered.append(f"k from {k} to {len(centers)}: no more distinct places")
        if components > len(centers):
            lowered.append(f"{components} separate components in {len(centers)} clusters: raise k or nearest")

        baseline, plain = spherical_kmeans(unit, len(centers), self.seed, restarts=3)
        np.savez(
            folder / "clusters.npz",
            points=points,
            scales=placed.scales,
            floor=np.float64(placed.floor),
            density=placed.density,
            component=placed.component,
            values=placed.values[columns],
            basis=placed.basis[:, columns],
            constant=placed.constant[columns],
            nearest=np.int64(r),
            centers=centers,
            baseline=baseline,
            means=spectral.cluster_means(unit, labels),
            plane=principal_plane(unit),
        )
        info = {
            "method": "landmarks",
            **rows,
            "landmarks": len(points),
            "nearest": r,
            "dims": len(columns),
            "k": len(centers),
            "k_by": "recipe" if self.k else "eigengap",
            "k_of_eigengap": found,
            "eigenvalues": placed.values.tolist(),
            "eigengap": float(gaps[len(centers) - 1]) if len(centers) <= len(gaps) else None,
            "components": components,
            "component_rows": np.bincount(placed.component[indices[:, 0]]).tolist(),
            "lowered": lowered,
            "sizes": np.bincount(labels).tolist(),
            "baseline": spectral.compare(unit, labels, plain, self.seed),
        }
        write_info(folder, info)

    def load(self, folder: Path) -> TableFunction:
        model = np.load(folder / "clusters.npz", allow_pickle=False)
        parts = ("scales", "floor", "density", "component", "values", "basis", "constant")
        placed = landmarks.LandmarkMap(**{name: model[name] for name in parts})
        points, nearest, centers = model["points"], int(model["nearest"]), model["centers"]

        def label(unit: np.ndarray) -> np.ndarray:
            spots = spectral.row_normalised(landmarks.coordinates(*knn.search(unit, points, nearest), placed))
            return nearest_center(spots, centers)

        return table_function(self.column, model, label)


def kept_columns(constant: np.ndarray, dims: int) -> np.ndarray:
    """Which coordinates are clustered: the top `dims`; a constant column only where it tells components apart.

    With c > 1 components all their columns count, whatever `dims` says.
    """
    count = int(constant.sum())
    first = 1 if count == 1 and len(constant) > 1 else 0
    return np.arange(first, min(first + max(dims, count), len(constant)))
