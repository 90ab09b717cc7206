"""Two dimensions to look at: clusters are laid out by the distances of their centers, rows between the centers they are near.

Centers: metric multidimensional scaling from the classical solution (Torgerson 1952; SMACOF, de Leeuw 1977). Rows: the mean of
the places of their nearest centers, weighted by exp(-(d^2 - d_1^2) / 2 s^2), d_1 the distance to the nearest. A linear
plane put half of 23 clusters of a real instruction pool on one heap. For pictures only.
"""

from __future__ import annotations

import numpy as np

from curate.algorithms import knn

_CENTERS = 8  # that a row is held between
_REACH = 0.4  # s, times the median distance of two centers


def layout(centers: np.ndarray) -> np.ndarray:
    """Places float64 (k, 2) of unit centers (k, m), and under them, as a last row, (s, s)."""
    k = len(centers)
    rows = centers.astype(np.float64)
    distances = np.sqrt(np.maximum(np.square(rows[:, None] - rows).sum(axis=2), 0.0))
    apart = distances[np.triu_indices(k, 1)]
    reach = _REACH * float(np.median(apart)) if (apart > 0).any() else 1.0
    places = np.zeros((k, 2))
    places[:, 0] = distances[0]
    if k > 2 and (apart > 0).any():
        from sklearn.manifold import MDS

        scaling = MDS(2, metric="precomputed", init="classical_mds", n_init=1, normalized_stress=False)
        places = scaling.fit_transform(np.round(distances, 9))
    return np.concatenate([places, [[reach, reach]]])


def place(spots: np.ndarray, centers: np.ndarray, layout: np.ndarray) -> np.ndarray:
    """float32 (n, 2) of unit rows (n, m). A row's place depends on no other row."""
    places, reach = layout[:-1], layout[-1, 0]
    distances, indices = knn.search(spots, centers, min(_CENTERS, len(centers)))
    squared = np.square(distances.astype(np.float64))
    weights = np.exp(-(squared - squared[:, :1]) / (2 * reach**2))
    placed = np.zeros((len(spots), 2))
    for nearest in range(weights.shape[1]):  # one order of summation, whatever the batch
        placed += weights[:, nearest, None] * places[indices[:, nearest]]
    return (placed / weights.sum(axis=1, keepdims=True)).astype(np.float32)
