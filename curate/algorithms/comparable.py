"""Comparable rows of a table, and antidotes between them: arrays in, arrays out.

Two people are comparable where they differ in few categories and little in each number (Li, Xia and Liu, "Learning Antidote Data to Individual
Unfairness", ICML 2023, arXiv 2211.15897: at most T_d discrete features, at most T_c of each continuous one). The paper trains a GAN on such pairs. Here
an antidote is made from one pair: the categories of a comparable row of the other group, which real rows have together, and numbers on the line between
the two rows (as SMOTE does within a class: Chawla et al. 2002). So it lies where rows of the other group lie, and near its source.
"""

from __future__ import annotations

import numpy as np

_BLOCK = 1 << 24  # cells of a block of distances


def deviations(numbers: np.ndarray) -> np.ndarray:
    """Unit of each numeric column, float64 (columns,): its standard deviation, 1 where it is constant; NaN is left out."""
    found = np.nanstd(numbers, axis=0) if len(numbers) else np.ones(numbers.shape[1])
    return np.where(np.isfinite(found) & (found > 0), found, 1.0)


def comparable(
    numbers: np.ndarray, codes: np.ndarray, others: np.ndarray, other_codes: np.ndarray, most_codes: int, most: float, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of each row the at most k nearest comparable ones among `others`: indices int64 (n, k), -1 where there is none, and distances float64 (n, k).

    numbers, others      float64 (n, c), (m, c) in units of `deviations`; NaN is comparable with NaN alone
    codes, other_codes   int (n, d), (m, d)
    most_codes, most     categories that may differ, and units that each number may

    The distance is the categories that differ plus the mean absolute difference of the numbers; ties go by index. Time O(n m (c + d)), memory one block.
    """
    n, m = len(numbers), len(others)
    indices, distances = np.full((n, k), -1, np.int64), np.full((n, k), np.inf)
    if not m:
        return indices, distances
    step = max(1, _BLOCK // m)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        differing = np.zeros((len(numbers[rows]), m), np.int16)
        for column in range(codes.shape[1]):
            differing += codes[rows, column, None] != other_codes[None, :, column]
        allowed = differing <= most_codes
        distance = differing.astype(np.float64)
        for column in range(numbers.shape[1]):
            gap = np.abs(numbers[rows, column, None] - others[None, :, column])
            both = np.isnan(numbers[rows, column, None]) & np.isnan(others[None, :, column])
            gap = np.where(both, 0.0, np.where(np.isnan(gap), np.inf, gap))
            allowed &= gap <= most
            distance += np.where(np.isfinite(gap), gap, 0.0) / numbers.shape[1]
        distance[~allowed] = np.inf
        order = np.argsort(distance, axis=1, kind="stable")[:, :k]
        near = np.take_along_axis(distance, order, 1)
        width = order.shape[1]
        indices[rows, :width] = np.where(np.isfinite(near), order, -1)
        distances[rows, :width] = near
    return indices, distances


def between(numbers: np.ndarray, others: np.ndarray, share: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """numbers + share * (others - numbers), float64 (n, c); columns of whole numbers (bool (c,)) are rounded. share float (n,) in [0, 1]."""
    mixed = numbers + share[:, None] * (others - numbers)
    return np.where(whole[None, :], np.round(mixed), mixed)
