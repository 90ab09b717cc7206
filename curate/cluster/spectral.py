"""Clusters by diffusion maps on the exact neighbour graph (Ng, Jordan, Weiss 2001; Coifman and Lafon 2006), for at most some 50,000 rows.

unit rows -> near copies as one point -> self-tuned kNN graph -> parts joined by the shortest edges -> eigenvectors ->
k-means of the coordinates. A row outside the fit is placed by the Nystrom formula with the densities of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

import numpy as np
from pydantic import Field

from curate.algorithms import bridges, diffusion, knn, near_copies
from curate.algorithms.spectral import row_normalised
from curate.cluster._clustering import Clustering, Space
from curate.cluster.landmarks import k_of_eigengap

_PREFIX = "graph_"
# Neighbours searched to place a row, times those of the graph: see diffusion.extend.
_SEARCHED = 4
# Neighbours among which copies are looked for.
_COPIES = 32


class _Graph:
    """Nystrom extension of the eigenvectors; `rows` are the unit float32 (n, d) points of the graph."""

    def __init__(self, rows: np.ndarray, placed: diffusion.Extension, settings: Spectral, about: dict[str, Any]):
        self.rows, self.placed, self.settings, self._about = rows, placed, settings, about
        # Unit rows of the eigenvectors themselves need no t: it scales columns, and the first ones would count for all.
        self.t = 0.0 if settings.scaling == "rows" else float(settings.t or diffusion.von_neumann_time(placed.values))

    def coordinates(self, unit: np.ndarray) -> np.ndarray:
        searched = min(max(_SEARCHED * self.placed.neighbours, 1), len(self.rows))
        found = diffusion.extend(*knn.search(unit, self.rows, searched), self.placed, self.t).astype(np.float32)
        return found if found.shape[1] else np.ones((len(unit), 1), np.float32)  # one point: no coordinate besides the constant one

    def spots(self, coordinates: np.ndarray, k: int) -> np.ndarray:
        coordinates = coordinates[:, : self.settings.dims or k]
        if self.settings.scaling == "diffusion":
            # So that cosines order rows nearly as distances do: one more axis, as long as the farthest row of the fit.
            fitted = self.placed.psi[:, : coordinates.shape[1]] * self.placed.values[: coordinates.shape[1]] ** self.t
            far = float(np.sqrt(np.square(fitted).sum(axis=1)).max(initial=1e-9))
            coordinates = np.concatenate([coordinates, np.full((len(coordinates), 1), far)], axis=1)
        return row_normalised(coordinates)

    def arrays(self) -> dict[str, np.ndarray]:
        stored = {f"{_PREFIX}{part.name}": np.asarray(getattr(self.placed, part.name)) for part in fields(self.placed)}
        return {f"{_PREFIX}rows": self.rows, **stored}

    def about(self) -> dict[str, Any]:
        return self._about


class Spectral(Clustering):
    """Groups rows by diffusion maps on their exact neighbour graph, k-means on the same vectors beside it.

    Columns as in `_clustering.COLUMNS`.

    column         unit or raw vectors, fixed_size_list<float32> or list<float32>
    k              clusters; null: by the largest eigengap between k_min and k_max
    nearest        neighbours that a row is tied to
    alpha          density correction: 0 none, 0.5 half, 1 full
    copies         rows within this distance (0 to 2 between unit vectors) are one point of the graph; 0: only exact copies.
                   0.55 helps where templates make islands and does no harm elsewhere (algorithms/near_copies.py)
    scaling        rows: coordinates of each row scaled to length 1; diffusion: eigenvalue^t, the map of Coifman and Lafon
    t              steps of the diffusion; null: by the knee of the von Neumann entropy. Only with scaling: diffusion
    dims           coordinates that are clustered; null: k
    restarts       starts of the k-means on the coordinates
    resamples      bootstrap resamples that stability is measured with; 0: not measured
    max_fit_rows   rows that the fit sees, drawn by seed; every row is then placed
    truth          column with known labels, to be held against
    """

    nearest: int = Field(default=15, ge=1)
    alpha: float = Field(default=0.0, ge=0, le=1)
    copies: float = Field(default=0.55, ge=0, le=2)
    scaling: Literal["rows", "diffusion"] = "rows"
    t: int | None = Field(default=None, ge=1)
    dims: int | None = Field(default=None, ge=1)
    max_fit_rows: int = Field(default=50_000, ge=1)

    def space(self, unit: np.ndarray, seed: int) -> _Graph:
        behind, distances, indices = near_copies.with_neighbours(unit, self.copies, max(self.nearest, _COPIES))
        rows = unit[np.unique(behind)]
        nearest = min(self.nearest, len(rows) - 1)
        lowered = [f"nearest from {self.nearest} to {nearest}: {len(rows)} rows"] if nearest < self.nearest else []
        distances, indices = distances[:, :nearest], indices[:, :nearest]
        graph = diffusion.self_tuned_graph(distances, indices)
        parts = int(diffusion.components(graph).max()) + 1
        if parts > 1:
            graph = bridges.bridge(graph, rows, diffusion.scales(distances))
        found = diffusion.spectrum(graph, min(max(self.k or self.k_max, self.dims or 0) + 1, len(rows)), self.alpha, seed)
        about = {
            "nearest": nearest,
            "collapsed": len(unit) - len(rows),
            "components": 1,
            "components_bridged": parts,
            "eigenvalues": found.values.tolist(),
            "von_neumann_t": diffusion.von_neumann_time(found.values),
            "lowered": lowered,
        }
        return _Graph(rows, diffusion.extension(found, distances), self, about)

    def stored(self, arrays: Mapping[str, np.ndarray]) -> _Graph:
        parts: dict[str, Any] = {part.name: arrays[f"{_PREFIX}{part.name}"] for part in fields(diffusion.Extension)}
        parts |= {name: parts[name].item() for name in ("neighbours", "scale_neighbour", "floor")}
        return _Graph(arrays[f"{_PREFIX}rows"], diffusion.Extension(**parts), self, {})

    def choose_k(self, unit: np.ndarray, space: Space) -> tuple[int, dict[str, Any]]:
        return k_of_eigengap(space.about(), self.k_min, self.k_max)
