"""Share a budget over clusters in proportion to weights, never beyond what a cluster holds.

PASER (arXiv 2502.12594, budget rule) promises cluster k the share B * w_k / sum(w), whatever the cluster
holds, so a small damaged cluster loses what it cannot use. Here the loss is poured back, the classical
water-filling: budget_k = min(cap_k, level * w_k), with the one level at which the budgets add up to B.
"""

from __future__ import annotations

import numpy as np

ALLOCATIONS = ("size", "uniform", "mean", "size_mean", "sqrt_size_mean")


def group_weights(allocation: str, held: np.ndarray, mean: np.ndarray | None = None, gain: np.ndarray | None = None) -> np.ndarray:
    """Weights, float64 (K,) >= 0, by which groups share a budget.

    held   (K,) what each group holds, in the unit of the budget
    mean   (K,) mean of a score over its rows; below 0 counts as 0
    gain   (K,) what a token spent there is worth (from pilots or gradients); below 0 counts as 0; None: the same everywhere

    size            held                    uniform         1: stratified
    mean            mean: PASER (eq. 6)     size_mean       held * mean: the sum of the score
    sqrt_size_mean  sqrt(held) * mean       each multiplied by the gain where there is one
    """
    held = np.asarray(held, np.float64)
    mean = np.zeros_like(held) if mean is None else np.maximum(np.asarray(mean, np.float64), 0.0)
    by = {"size": held, "uniform": np.ones_like(held), "mean": mean, "size_mean": held * mean, "sqrt_size_mean": np.sqrt(held) * mean}
    if allocation not in by:
        raise ValueError(f"allocation is {allocation!r}: give one of {', '.join(ALLOCATIONS)}")
    return by[allocation] if gain is None else by[allocation] * np.maximum(np.asarray(gain, np.float64), 0.0)


def water_fill(weights: np.ndarray, caps: np.ndarray, budget: float) -> np.ndarray:
    """Budgets, float64 (K,), in the unit of `caps` and `budget` (tokens, rows); sum = min(budget, sum(caps)).

    weights   (K,) >= 0, any scale
    caps      (K,) >= 0, what each cluster has
    budget    >= 0

    A cluster of weight 0 gets something only once every cluster with a weight is full; what is then
    left is shared in proportion to the caps.
    """
    weights, caps = np.asarray(weights, np.float64), np.asarray(caps, np.float64)
    if weights.ndim != 1 or weights.shape != caps.shape:
        raise ValueError(f"weights {weights.shape} and caps {caps.shape} must be two vectors of equal length: give one of each per cluster")
    for name, values in (("weights", weights), ("caps", caps), ("budget", np.asarray([budget], np.float64))):
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(wrong):
            raise ValueError(f"{name}[{wrong[0]}] is {values[wrong[0]]}: give finite numbers >= 0 (a cluster without a score: weight 0)")
    filled = np.zeros_like(caps)
    weighted = np.flatnonzero(weights > 0)
    filled[weighted] = _pour(weights[weighted], caps[weighted], float(budget))
    left = float(budget) - float(filled.sum())
    rest = np.flatnonzero(weights == 0)
    room = float(caps[rest].sum())
    if left > 0 and room > 0 and (filled[weighted] >= caps[weighted]).all():
        filled[rest] = caps[rest] * min(1.0, left / room)
    return filled


def _pour(weights: np.ndarray, caps: np.ndarray, budget: float) -> np.ndarray:
    """The level rises; clusters fill in the order of caps / weights."""
    if caps.sum() <= budget:
        return caps.copy()
    weights = np.maximum(weights / weights.max(), np.finfo(np.float64).tiny)  # none becomes 0 by the division
    with np.errstate(over="ignore"):
        order = np.argsort(caps / weights, kind="stable")
    filled = np.zeros_like(caps)
    # Weights still open, summed from the back: subtracting one by one would cancel and leave a wrong level.
    open_weight = np.cumsum(weights[order][::-1])[::-1]
    for place, cluster in enumerate(order):
        share = budget * (weights[cluster] / open_weight[place])
        if share < caps[cluster]:
            still_open = order[place:]
            filled[still_open] = np.minimum(caps[still_open], budget * (weights[still_open] / open_weight[place]))
            break
        filled[cluster] = caps[cluster]
        budget = max(budget - caps[cluster], 0.0)
    return filled
