"""Random picks that a selection is held against: rows of equal cost, drawn blindly, by groups, or by length."""

from __future__ import annotations

import numpy as np

from curate.algorithms.spending import spend
from curate.algorithms.water_filling import water_fill


def random_rows(cost: np.ndarray, eligible: np.ndarray, budget: float, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Row numbers, int64, ascending: random eligible rows that together cost at most `budget`, to within one row.

    cost      float (n,) of every row;  eligible: int (m,) row numbers
    groups    int (n,), 0..K-1: each group gets the same share, as far as it can fill it (stratified); None: no groups
    """
    order = np.random.default_rng(seed).permutation(np.asarray(eligible, np.int64))
    codes = np.zeros(len(order), np.int64) if groups is None else np.unique(np.asarray(groups)[order], return_inverse=True)[1]
    price = np.asarray(cost, np.float64)[order]
    held = np.bincount(codes, price) if len(order) else np.zeros(0)
    shares = water_fill(np.ones(len(held)), held, min(budget, float(price.sum())))
    return np.sort(order[spend(np.arange(len(order)), codes, price, shares, budget).chosen])
