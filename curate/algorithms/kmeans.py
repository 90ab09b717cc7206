"""Spherical k-means (Dhillon and Modha 2001): Lloyd's iterations under cosine, on unit rows.

Used three ways: to place landmarks, to label row-normalised spectral coordinates (which are unit rows
too), and as the baseline that every clustering is printed beside.
"""

from __future__ import annotations

import numpy as np

_BLOCK = 4096
# Rows that a start is drawn from, where there are more.
_START_ROWS = 50_000
# Iterations end when fewer labels than this share move: from there on the mean cosine gains about 1e-4 in all, for most of the time.
_SETTLED = 1e-4


def spherical_kmeans(
    unit: np.ndarray, k: int, seed: int, restarts: int = 1, iterations: int = 100, spread: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """(centers float32 (c, d), unit rows; labels int32 (n,)); c <= min(k, distinct rows).

    spread     start with k-means++ (good for few centers); otherwise with distinct rows drawn at random
    restarts   independent starts; the one with the highest mean cosine wins, the first on a tie

    Labels are ordered by size, largest first, then by first member. No label is empty: a
    center that the last pass leaves without rows is dropped (seen only with about as many centers as rows).
    """
    if k < 1 or len(unit) < 1:
        raise ValueError(f"{k} clusters of {len(unit)} rows: give k >= 1 and at least one row")
    unit = np.ascontiguousarray(unit, np.float32)
    distinct = _starting_rows(unit, max(_START_ROWS, 20 * k), seed)
    k = min(k, len(distinct))
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for restart in range(restarts):
        rng = np.random.default_rng([seed, restart])
        centers = _spread_start(unit[distinct], k, rng) if spread else unit[rng.choice(distinct, k, replace=False)]
        centers, labels, mean_cosine = _lloyd(unit, centers, iterations)
        if best is None or mean_cosine > best[0]:
            best = (mean_cosine, centers, labels)
    assert best is not None
    _, centers, labels = best
    order, labels = stable_order(labels)
    return centers[order], labels


def _starting_rows(unit: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Indices of distinct rows to draw starts from, of at most `most` rows.

    In the order of their cosine to the mean of all: so that with up to `most` rows neither the order of the rows nor a
    rotation of the space changes what is drawn.
    """
    some = np.arange(len(unit))
    if len(unit) > most:
        some = np.sort(np.random.default_rng(seed).permutation(len(unit))[:most])
    # Rounded, so that copies which differ in the last bit do not become centers of their own; + 0 turns -0 into 0.
    # Compared as bytes: np.unique(axis=0) compares field by field, many times slower.
    rounded = np.round(unit[some], 5) + np.float32(0)
    keys = rounded.view(np.dtype((np.void, rounded.dtype.itemsize * rounded.shape[1]))).ravel()
    distinct = some[np.sort(np.unique(keys, return_index=True)[1])]
    towards = (unit[distinct].astype(np.float64) * unit.mean(axis=0, dtype=np.float64)).sum(axis=1)
    return distinct[np.argsort(np.round(towards, 7), kind="stable")]


def stable_order(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(old labels in their new order, new labels int32): by size descending, then by first member."""
    old, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(old), np.int32)
    rank[order] = np.arange(len(old))
    return old[order], rank[np.searchsorted(old, labels)]


def _spread_start(rows: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ (Arthur and Vassilvitskii 2007): each next center drawn with probability ~ 1 - cosine to the nearest."""
    chosen = [int(rng.integers(len(rows)))]
    gap = np.full(len(rows), np.inf)
    while len(chosen) < k:
        gap = np.minimum(gap, np.clip(1.0 - (rows @ rows[chosen[-1]]).astype(np.float64), 0.0, None))
        gap[chosen] = 0.0
        mass = np.cumsum(gap)
        place = int(np.searchsorted(mass, rng.random() * mass[-1], side="right"))
        chosen.append(min(place, len(rows) - 1))
    return rows[chosen]


def _assign(unit: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, cosines = np.empty(len(unit), np.int32), np.empty(len(unit), np.float64)
    for start in range(0, len(unit), _BLOCK):
        similarity = unit[start : start + _BLOCK] @ centers.T
        nearest = similarity.argmax(axis=1)
        labels[start : start + _BLOCK] = nearest
        cosines[start : start + _BLOCK] = similarity[np.arange(len(nearest)), nearest]
    return labels, cosines


def _lloyd(unit: np.ndarray, centers: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray, float]:
    from scipy.sparse import csr_array

    k, n = len(centers), len(unit)
    labels, cosines = _assign(unit, centers)
    for _ in range(iterations):
        # An empty label takes the row that is worst served, among labels that can spare one.
        sizes = np.bincount(labels, minlength=k)
        for label in np.flatnonzero(sizes == 0):
            row = int(np.where(sizes[labels] > 1, cosines, np.inf).argmin())
            sizes[labels[row]] -= 1
            labels[row], cosines[row], sizes[label] = label, 1.0, 1
        sums = np.zeros((k, unit.shape[1]))
        for start in range(0, n, _BLOCK):
            # Summed in float32 inside a block, in float64 over blocks: six times as fast, relative error of a sum about 1e-7.
            rows = unit[start : start + _BLOCK]
            one = np.ones(len(rows), np.float32)
            sums += csr_array((one, (labels[start : start + _BLOCK], np.arange(len(rows)))), shape=(k, len(rows))) @ rows
        norms = np.sqrt(np.square(sums).sum(axis=1))
        # Opposite members may cancel: such a center stays where it was.
        moved = norms > 1e-9
        centers = centers.copy()
        centers[moved] = sums[moved] / norms[moved, None]
        before = labels
        labels, cosines = _assign(unit, centers)
        if (labels != before).sum() <= _SETTLED * n:
            break
    return centers, labels, float(cosines.mean())
