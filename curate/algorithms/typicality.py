"""Is a vector where real vectors are? The local kNN ratio, and the conformal bound to hold it against.

    s(x) = r_k(x) / mean over the k nearest reference rows j of r_k(j)

r_k is the distance to the k-th nearest reference row, the row itself left out. s is about 1 inside the
reference at any density, and grows off it. A bound from real rows by split conformal prediction (Vovk et
al. 2005; Lei et al. 2018) refuses a new real row with probability at most alpha, whatever the distribution.

Use, with unit rows (see `knn.unit_rows`); `source` names for each candidate the reference row it was made from:

    distances, neighbours = knn.nearest_others(reference, k)
    radii = distances[:, k - 1]
    bound = conformal_quantile(local_ratio(distances, neighbours, radii, k), alpha=0.05)
    distances, neighbours = knn.search(candidates, reference, k + 1)
    scores = local_ratio(distances, neighbours, radii, k, left_out=source)
    typical = scores <= bound
"""

from __future__ import annotations

import math

import numpy as np


def local_ratio(distances: np.ndarray, neighbours: np.ndarray, radii: np.ndarray, k: int, left_out: np.ndarray | None = None) -> np.ndarray:
    """s(x) of every query, float64 (m,). It depends on no other query.

    distances, neighbours   (m, c) nearest reference rows, nearest first; c >= k, and c > k with `left_out`
    radii                   (n,) distance of each reference row to its k-th nearest other row
    left_out                (m,) reference index that a query may not lean on (its source), or -1

    Where the neighbours are exact copies of each other (mean radius 0): 1 if the query is one more of
    them, else infinity.
    """
    distances, neighbours = np.asarray(distances, np.float64), np.asarray(neighbours, np.int64)
    needed = k if left_out is None else k + 1
    if k < 1 or distances.shape != neighbours.shape or distances.ndim != 2 or distances.shape[1] < needed:
        raise ValueError(
            f"local_ratio needs two (m, c) arrays with c >= {needed}, got {distances.shape} and {neighbours.shape}: "
            "search for more neighbours, or lower k"
        )
    if left_out is None:
        distances, neighbours = distances[:, :k], neighbours[:, :k]
    else:
        allowed = neighbours != np.asarray(left_out, np.int64)[:, None]
        # A stable sort moves the source row behind the others and keeps their order.
        kept = np.argsort(~allowed, axis=1, kind="stable")[:, :k]
        distances, neighbours = np.take_along_axis(distances, kept, 1), np.take_along_axis(neighbours, kept, 1)
    own = distances[:, -1]
    around = np.asarray(radii, np.float64)[neighbours].mean(axis=1)
    flat = np.where(own > 0, np.inf, 1.0)
    return np.where(around > 0, own / np.where(around > 0, around, 1.0), flat)


def conformal_quantile(scores: np.ndarray, alpha: float) -> float:
    """q such that a further exchangeable score exceeds it with probability <= alpha.

    The ceil((n + 1)(1 - alpha))-th smallest of the n calibration scores; infinity (accept all) where n is
    too small for such a promise, that is n < 1 / alpha - 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}: give the share of real rows that may be refused, between 0 and 1")
    scores = np.sort(np.asarray(scores, np.float64).ravel())
    if np.isnan(scores).any():
        raise ValueError("calibration scores hold NaN: leave rows without a score out")
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)  # 1e-9: 20 * 0.95 is 19.000000000000004 in binary
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf
