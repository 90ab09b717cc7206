"""Vectors carried along a neighbour graph: each row becomes what a short random walk from it expects to meet.

    P = D^-1 K,   K the self-tuned kNN graph of diffusion maps (see diffusion.py), K_ii = 1
    y = P^t x     in the terms of diffusion maps: sum over eigenpairs of l^t psi (psi^T D x)

So directions that vary fast along the graph are damped by l^t and those that vary slowly are kept, as in diffusion
maps, but the result stays in the space of the vectors: parts that the graph tears apart keep their distances.
That is where spectral coordinates fail (islands of near copies, small components) and this does not.
Sources: Coifman and Lafon 2006 for the walk; Zhang et al. 2019 (IJCAI, adaptive graph convolution) and Wu et al. 2019
(simple graph convolution, arXiv 1902.07153) for clustering what it filters; van Dijk et al. 2018 (Cell) for t on a kNN graph.

The last step is taken the same way for rows of the fit and for others, from the row's nearest anchors (the rows of the
fit): y(x) = (x + sum_j K(x, x_j) y_j) / (1 + sum_j K(x, x_j)), y_j the anchors after t - 1 steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from curate.algorithms import diffusion, knn

# An anchor this close is the row itself: float32 vectors of one text, from batches of other shapes.
_SAME = 1e-4
_PREFIX = "anchor_"
_BLOCK = 512  # rows whose sums stay in the cache


@dataclass(frozen=True)
class Anchors:
    """What places a row: `place(unit, anchors)`.

    rows     (m, d) float32   unit vectors of the fit
    carried  (m, d) float32   the same after t - 1 steps, not scaled to length 1
    scales   (m,) float64     distance to the 7th neighbour, see diffusion.scales
    nearest  () int64         neighbours of a row
    """

    rows: np.ndarray
    carried: np.ndarray
    scales: np.ndarray
    nearest: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """For np.savez, beside other arrays: names begin with anchor_."""
        return {f"{_PREFIX}{part.name}": getattr(self, part.name) for part in fields(self)}

    @classmethod
    def of_arrays(cls, stored: Mapping[str, np.ndarray]) -> Anchors:
        return cls(**{part.name: stored[f"{_PREFIX}{part.name}"] for part in fields(cls)})


def fit(unit: np.ndarray, nearest: int, steps: int) -> tuple[Anchors, np.ndarray]:
    """(anchors, places of the same rows) from unit rows float32 (m, d).

    The places are those of `place`, without its search. With fewer than `nearest` other rows, all of them are neighbours.
    """
    from scipy.sparse import diags_array

    nearest = min(nearest, len(unit) - 1)
    if nearest < 1:
        return Anchors(unit, unit, np.ones(len(unit)), np.array(0)), unit
    distances, indices = knn.nearest_others(unit, nearest)
    graph = diffusion.self_tuned_graph(distances, indices)
    walk = (diags_array(1.0 / np.asarray(graph.sum(axis=1)).ravel()) @ graph).tocsr()
    carried = unit.astype(np.float64)
    for _ in range(steps - 1):
        carried = walk @ carried
    anchors = Anchors(unit, carried.astype(np.float32), diffusion.scales(distances), np.array(nearest))
    return anchors, _last_step(unit, distances, indices, anchors)


def place(unit: np.ndarray, anchors: Anchors) -> np.ndarray:
    """Unit rows float32 (n, d) after all t steps. A row's place depends on no other row of `unit`."""
    nearest = int(anchors.nearest)
    if nearest == 0:
        return unit
    distances, indices = knn.search(unit, anchors.rows, min(nearest + 1, len(anchors.rows)))
    # Behind the others: the anchors that are the row itself (they count as the row), else the one too many.
    order = np.argsort(distances <= _SAME, axis=1, kind="stable")[:, :nearest]
    return _last_step(unit, np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1), anchors)


def _last_step(unit: np.ndarray, distances: np.ndarray, indices: np.ndarray, anchors: Anchors) -> np.ndarray:
    distances = distances.astype(np.float64)
    same = distances <= _SAME
    # The seventh of the neighbours that are not the row itself; the last one where there are fewer.
    seventh = np.sort(np.where(same, np.inf, distances), axis=1)[:, min(7, distances.shape[1]) - 1]
    own = np.where(np.isfinite(seventh), seventh, distances.max(axis=1))
    own = np.maximum(own, float(anchors.scales.min()))
    weights = np.where(same, 0.0, diffusion.kernel(distances, own[:, None], anchors.scales[indices]))
    placed = np.empty(unit.shape, np.float32)
    for start in range(0, len(unit), _BLOCK):
        block = slice(start, start + _BLOCK)
        total = unit[block].astype(np.float64)
        for neighbour in range(weights.shape[1]):  # one order of summation, whatever the batch
            total += weights[block, neighbour, None] * anchors.carried[indices[block, neighbour]]
        lengths = np.sqrt(np.square(total).sum(axis=1, keepdims=True))
        # Opposite rows may cancel: such a row stays where it was.
        placed[block] = np.where(lengths > 1e-9, total / np.where(lengths > 1e-9, lengths, 1.0), unit[block])
    return placed
