"""Clusters by spherical k-means on the vectors (Dhillon and Modha 2001): the plain method, and the baseline beside every other one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from curate.cluster._clustering import Clustering, Space


class _Vectors:
    """The vectors themselves."""

    def coordinates(self, unit: np.ndarray) -> np.ndarray:
        return unit

    def spots(self, coordinates: np.ndarray, k: int) -> np.ndarray:
        return coordinates

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def about(self) -> dict[str, Any]:
        return {}


class KMeans(Clustering):
    """Groups rows by k-means on their vectors.

    Columns as in `_clustering.COLUMNS`; `kmeans_cluster` is close to `cluster` (other starts).

    column         unit or raw vectors, fixed_size_list<float32> or list<float32>
    k              clusters; null: the most stable number between k_min and k_max. Lowered where there are fewer distinct rows
    restarts       starts of the k-means
    resamples      bootstrap resamples that stability is measured with; 0: not measured
    max_fit_rows   rows that the fit sees, drawn by seed; every row is then placed
    truth          column with known labels, to be held against
    """

    restarts: int = 3

    def space(self, unit: np.ndarray, seed: int) -> Space:
        return _Vectors()

    def stored(self, arrays: Mapping[str, np.ndarray]) -> Space:
        return _Vectors()

    def held_against_kmeans(self, *rows: Any) -> dict[str, Any]:
        """The figures; no sentence, which would advise the same method."""
        return {name: value for name, value in super().held_against_kmeans(*rows).items() if name != "verdict"}
