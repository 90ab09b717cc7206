"""Clusters by landmark spectral clustering (LSC, Chen and Cai 2011): a million rows, in time and memory linear in them.

unit rows -> landmarks (k-means centers) -> ties -> spectral coordinates, rows scaled to length 1 -> k clusters. A row outside the
fit is placed by its own ties, by the same formula as a row inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from curate.algorithms import knn, landmarks, spectral
from curate.algorithms.kmeans import spherical_kmeans
from curate.cluster._clustering import Clustering, Space

# Passes of k-means that place the landmarks, and rows to each: they have to lie among the rows, not to be optimal.
_PLACING = 10
_PLACING_ROWS = 50
_ROWS = 65_536  # rows whose coordinates are held in float64 at a time
_PARTS = ("scales", "floor", "density", "component", "values", "basis", "constant")


class LandmarkSpace:
    """Spectral coordinates from the ties to landmarks: `points` unit float32 (p, d), `placed` the map of their ties."""

    def __init__(self, points: np.ndarray, placed: landmarks.LandmarkMap, nearest: int, dims: int | None, about: dict[str, Any]):
        self.points, self.placed, self.nearest, self.dims, self._about = points, placed, nearest, dims, about

    def ties(self, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return knn.search(unit, self.points, self.nearest)

    def coordinates(self, unit: np.ndarray) -> np.ndarray:
        found = np.empty((len(unit), len(self.placed.values)), np.float32)
        for start in range(0, len(unit), _ROWS):
            block = slice(start, start + _ROWS)
            found[block] = landmarks.coordinates(*self.ties(unit[block]), self.placed)
        return found

    def spots(self, coordinates: np.ndarray, k: int) -> np.ndarray:
        return spectral.row_normalised(coordinates[:, kept_columns(self.placed.constant, self.dims or k)])

    def arrays(self) -> dict[str, np.ndarray]:
        return {"points": self.points, "nearest": np.array(self.nearest), **{part: getattr(self.placed, part) for part in _PARTS}}

    def about(self) -> dict[str, Any]:
        return self._about


class Landmarks(Clustering):
    """Groups rows into capabilities: spectral clusters of a landmark graph, k-means on the same vectors beside them.

    Columns as in `_clustering.COLUMNS`.

    column         unit or raw vectors, fixed_size_list<float32> or list<float32>
    k              clusters; null: by the largest eigengap between k_min and k_max
    landmarks      at most; fewer where that would leave less than four rows to each
    nearest        landmarks that a row is tied to
    alpha          density correction: 0 none, 1 full. 0 found known classes better (benchmarks/results/cluster_quality.md)
    dims           spectral coordinates that are clustered; null: k
    restarts       starts of the k-means on the coordinates
    resamples      bootstrap resamples that stability is measured with; 0: not measured
    max_fit_rows   rows that the fit sees, drawn by seed; every row is then placed
    truth          column with known labels, to be held against
    """

    landmarks: int = Field(default=1000, ge=1)
    nearest: int = Field(default=5, ge=1)
    alpha: float = Field(default=0.0, ge=0, le=1)
    dims: int | None = Field(default=None, ge=1)

    def space(self, unit: np.ndarray, seed: int) -> LandmarkSpace:
        most_k = self.k or self.k_max
        lowered = []
        p = min(self.landmarks, max(len(unit) // 4, 4 * most_k))
        if p < self.landmarks:
            lowered.append(f"landmarks from {self.landmarks} to {p}: {len(unit)} rows")
        some = np.sort(np.random.default_rng(seed).permutation(len(unit))[: _PLACING_ROWS * p])
        points, _ = spherical_kmeans(unit[some], p, seed, iterations=_PLACING, spread=False)
        if len(points) < p:
            lowered.append(f"landmarks from {p} to {len(points)}: no more distinct rows")
        r = min(self.nearest, len(points))
        if r < self.nearest:
            lowered.append(f"nearest from {self.nearest} to {r}: no more landmarks")
        distances, indices = knn.search(unit, points, r)
        placed = landmarks.fit(distances, indices, len(points), max(most_k, self.dims or 0) + 1, self.alpha)
        components = int(placed.constant.sum())
        if components > most_k:
            lowered.append(f"{components} separate components in at most {most_k} clusters: raise k or nearest")
        about = {
            "landmarks": len(points),
            "nearest": r,
            "eigenvalues": placed.values.tolist(),
            "components": components,
            "component_rows": np.bincount(placed.component[indices[:, 0]]).tolist(),
            "lowered": lowered,
        }
        return LandmarkSpace(points, placed, r, self.dims, about)

    def stored(self, arrays: Mapping[str, np.ndarray]) -> LandmarkSpace:
        placed = landmarks.LandmarkMap(**{part: arrays[part] for part in _PARTS})  # type: ignore[arg-type]
        return LandmarkSpace(arrays["points"], placed, int(arrays["nearest"]), self.dims, {})

    def choose_k(self, unit: np.ndarray, space: Space) -> tuple[int, dict[str, Any]]:
        return k_of_eigengap(space.about(), self.k_min, self.k_max)


def k_of_eigengap(about: dict[str, Any], k_min: int, k_max: int) -> tuple[int, dict[str, Any]]:
    k, gaps = spectral.eigengap(np.array(about["eigenvalues"]), k_min, k_max, about["components"])
    return k, {"k_by": "eigengap", "eigengap": float(gaps[k - 1]) if k <= len(gaps) else None}


def kept_columns(constant: np.ndarray, dims: int) -> np.ndarray:
    """Which coordinates are clustered: the top `dims`; a constant column only where it tells components apart.

    With c > 1 components all their columns count, whatever `dims` says.
    """
    count = int(constant.sum())
    first = 1 if count == 1 and len(constant) > 1 else 0
    return np.arange(first, min(first + max(dims, count), len(constant)))
