"""How many dimensions a cloud of vectors really uses, and how evenly it uses those it has."""

from __future__ import annotations

import numpy as np


def two_nn(distances: np.ndarray, dropped: float = 0.1) -> float:
    """TwoNN intrinsic dimension (Facco et al. 2017, "Estimating the intrinsic dimension of datasets by a minimal
    neighborhood information").

    `distances` (n, 2): from each row to its nearest and second nearest other row. The ratios mu of the two follow
    1 - mu^-d; d is the slope, through the origin, of -ln(1 - F) over ln mu. The `dropped` share of largest ratios is left out.
    Rows with an exact copy (first distance 0) have no ratio and are left out too, but their copies should be removed
    before. NaN where fewer than 3 ratios are left, or all of them are 1.
    """
    distances = np.asarray(distances, np.float64)
    if distances.ndim != 2 or distances.shape[1] != 2:
        raise ValueError(f"distances must be (n, 2), got {distances.shape}: give the two nearest others of each row")
    first, second = distances[distances[:, 0] > 0].T
    n = len(first)
    x = np.log(np.sort(second / first))
    kept = min(n - 1, int(n * (1 - dropped)))  # the last point lies at infinity
    if kept < 3 or not x[kept - 1] > 0:
        return float("nan")
    x = x[:kept]
    y = -np.log1p(-np.arange(1, kept + 1) / n)
    return float((x * y).sum() / (x * x).sum())


def isoscore(covariance: np.ndarray) -> float:
    """IsoScore (Rudman et al. 2022, "IsoScore: Measuring the Uniformity of Embedding Space Utilization").

    `covariance` (d, d), d at least 2. 0: all variance along one axis; 1: the same along every axis; in between it is
    about the share of the d dimensions that are used evenly. NaN without any variance.
    """
    spread = np.clip(np.linalg.eigvalsh(np.asarray(covariance, np.float64)), 0, None)
    d, norm = len(spread), np.linalg.norm(spread)
    if d < 2:
        raise ValueError("IsoScore of one dimension says nothing: give at least 2")
    if norm == 0:
        return float("nan")
    root = np.sqrt(d)
    defect = np.linalg.norm(root * spread / norm - 1) / np.sqrt(2 * (d - root))
    used = (d - defect**2 * (d - root)) ** 2 / d**2
    return float((d * used - 1) / (d - 1))
