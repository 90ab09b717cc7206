"""Precision, recall, density and coverage of single rows against a frozen reference (Naeem et al. 2020, arXiv 2002.09797).

Around every reference row r lies a ball that just reaches its k-th nearest other row, NND_k(r; R). A query is judged by these balls:

    precision   1 if any ball holds it, else 0
    recall      of the k reference rows nearest to it, the share whose ball holds it
    density     balls that hold it, over k
    coverage    radius of the nearest reference row / (that radius + distance to it): from 1/2 on, its ball holds the query
    distance    to the k-th nearest reference row, NND_k(q; R)
    around      mean radius of the k nearest reference rows: how sparse the reference is there

The four are meant for sets. Forte (Ganguly et al. 2024, arXiv 2410.11149) takes them row by row, but with radii NND_k(q; Q) inside the
batch of queries, so that a row's value depends on what else is in its shard. Here the radius of a query is NND_k(q; R), and two of the
four then need another form. Recall, the share of the reference inside the query's ball, would be k / |R| for every row: what is counted
instead is how many of those k count the query among their own. Coverage, whether the query's ball reaches a reference row, would be 1:
what is measured instead is how deep the query is in the nearest row's ball.

Balls are closed (the paper's are open): where a row has more than k copies its ball is a point, and one more copy is in it.
Every value depends on its row and the reference alone, to the last bit: products in float32 decide what they can, the rest is computed in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from curate.algorithms import knn

_PRODUCTS = 1 << 22  # float32 products held at a time, 16 MB
_PAIRS = 2048  # pairs near a border whose differences are held at a time


class Prdc(NamedTuple):
    """Of each query, float64 (m,). distance and around are Euclidean on the unit sphere, in [0, 2]."""

    precision: np.ndarray
    recall: np.ndarray
    density: np.ndarray
    coverage: np.ndarray
    distance: np.ndarray
    around: np.ndarray


def radii(reference: np.ndarray, k: int) -> np.ndarray:
    """float32 (n,): distance of each unit row (n, d) to its k-th nearest other row, exact. ValueError unless 1 <= k < n."""
    return knn.nearest_others(reference, k, exact_below=len(reference) + 1)[0][:, k - 1]


def prdc(queries: np.ndarray, reference: np.ndarray, radii: np.ndarray, k: int) -> Prdc:
    """The measures of `queries` (m, d) against `reference` (n, d), unit float32, whose rows have `radii` (n,). ValueError unless 1 <= k <= n."""
    queries, reference = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(reference, np.float32)
    radii = np.asarray(radii, np.float32)
    if radii.shape != (len(reference),):
        raise ValueError(f"prdc needs one radius for each of {len(reference)} reference rows, got {radii.shape}: use radii(reference, k)")
    distances, nearest = knn.search(queries, reference, k)
    theirs = radii[nearest]
    counts = covering(queries, reference, radii)
    first, own = distances[:, 0].astype(np.float64), theirs[:, 0].astype(np.float64)
    return Prdc(
        precision=(counts > 0).astype(np.float64),
        recall=(distances <= theirs).mean(axis=1),
        density=counts / k,
        coverage=np.where(first > 0, own / np.where(first > 0, own + first, 1.0), 1.0),
        distance=distances[:, k - 1].astype(np.float64),
        around=theirs.astype(np.float64).mean(axis=1),
    )


def covering(queries: np.ndarray, reference: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """How many reference rows lie no farther from each query than their radius, int64 (m,)."""
    counts = np.zeros(len(queries), np.int64)
    least = 1 - np.square(radii.astype(np.float64)) / 2  # the cosine at the border
    # What float32 can be wrong by in a product of unit rows, and in their lengths.
    slack = (reference.shape[1] + 8) * 2.0**-23
    surely, perhaps = (least + slack).astype(np.float32), (least - slack).astype(np.float32)
    rows = max(16, _PRODUCTS // max(1, len(reference)))
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows]
        cosines = block @ reference.T
        inside = cosines >= surely
        counts[start : start + rows] = inside.sum(axis=1)
        query, row = np.nonzero((cosines >= perhaps) & ~inside)
        for pair in range(0, len(query), _PAIRS):
            q, r = query[pair : pair + _PAIRS], row[pair : pair + _PAIRS]
            difference = reference[r].astype(np.float64)
            difference -= block[q]
            # Rounded as the radii are: a row on the border is inside.
            close = np.sqrt(np.square(difference).sum(axis=1)).astype(np.float32) <= radii[r]
            counts[start : start + rows] += np.bincount(q[close], minlength=len(block))
    return counts
