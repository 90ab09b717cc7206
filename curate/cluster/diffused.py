"""Clusters by k-means on diffused vectors: every row first becomes what a short walk on the neighbour graph expects to meet.

The default. On four labelled sets it was the only method that found the known classes at least as well as k-means on the
plain vectors on each of them (benchmarks/results/cluster_quality.md); formulas in algorithms/smoothing.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from curate.algorithms import smoothing
from curate.cluster._clustering import Clustering, Space


class _Diffused:
    def __init__(self, anchors: smoothing.Anchors, asked: int, placed: np.ndarray | None = None):
        self.anchors, self.asked, self.placed = anchors, asked, placed

    def coordinates(self, unit: np.ndarray) -> np.ndarray:
        if self.placed is not None and unit is self.anchors.rows:
            return self.placed  # the fit has searched their neighbours already
        return smoothing.place(unit, self.anchors)

    def spots(self, coordinates: np.ndarray, k: int) -> np.ndarray:
        return coordinates

    def arrays(self) -> dict[str, np.ndarray]:
        return self.anchors.arrays()

    def about(self) -> dict[str, Any]:
        found = int(self.anchors.nearest)
        lowered = [f"nearest from {self.asked} to {found}: no more rows"] if found < self.asked else []
        return {"nearest": found, "lowered": lowered}


class Diffused(Clustering):
    """Groups rows into capabilities: k-means on vectors diffused over their neighbour graph, k-means on the plain vectors beside it.

    Columns as in `_clustering.COLUMNS`.

    column         unit or raw vectors, fixed_size_list<float32> or list<float32>
    k              clusters; null: the most stable number between k_min and k_max
    nearest        neighbours that a row is tied to
    steps          t, steps of the walk; more blur small groups
    restarts       starts of the k-means
    resamples      bootstrap resamples that stability is measured with; 0: not measured
    max_fit_rows   rows that make the graph, drawn by seed: exact, so its time grows with their square. Every row is then placed
    truth          column with known labels, to be held against
    """

    nearest: int = Field(default=30, ge=1)
    steps: int = Field(default=2, ge=1)
    max_fit_rows: int = Field(default=10_000, ge=1)

    def space(self, unit: np.ndarray, seed: int) -> Space:
        anchors, placed = smoothing.fit(unit, self.nearest, self.steps)
        return _Diffused(anchors, self.nearest, placed)

    def stored(self, arrays: Mapping[str, np.ndarray]) -> Space:
        return _Diffused(smoothing.Anchors.of_arrays(arrays), self.nearest)
