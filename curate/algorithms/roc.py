"""How well scores tell two kinds of rows apart, and how many of one kind hide among rows without labels."""

from __future__ import annotations

import math

import numpy as np


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order; ties count half."""
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def auc_interval(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """95 % interval of `auc` by the variance of its placements (DeLong et al. 1988), cut to [0, 1]."""
    from scipy.stats import rankdata

    n, m = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores)
    # The share of the other kind that a row is on the right side of.
    right = (ranks[positive] - rankdata(scores[positive])) / m
    left = 1 - (ranks[~positive] - rankdata(scores[~positive])) / n
    spread = 1.96 * math.sqrt((right.var(ddof=1) if n > 1 else 0) / n + (left.var(ddof=1) if m > 1 else 0) / m)
    return max(0.0, float(right.mean()) - spread), min(1.0, float(right.mean()) + spread)


def hidden_share(scores: np.ndarray, positive: np.ndarray, delta: float = 0.1, gamma: float = 0.01) -> float:
    """Share of the rows without labels (`~positive`) that are like the positive ones, by the best bin of their scores.

    Above a threshold c lie q_u(c) of the one and q_p(c) of the other; q_u / q_p bounds the share from above. It is read off at the c where the ratio with a
    confidence term is smallest (Garg et al. 2021, arXiv 2111.00980, eq. 3). Scores must be of rows that no model was trained on.
    """
    p, u = np.sort(scores[positive]), np.sort(scores[~positive])
    cuts = np.concatenate([[-np.inf], p])
    above_p = 1 - np.searchsorted(p, cuts, side="left") / len(p)
    above_u = 1 - np.searchsorted(u, cuts, side="left") / len(u)
    some = above_p > 0
    above_p, above_u = above_p[some], above_u[some]
    slack = (1 + gamma) * (math.sqrt(math.log(4 / delta) / (2 * len(u))) + math.sqrt(math.log(4 / delta) / (2 * len(p))))
    best = int(np.argmin((above_u + slack) / above_p))
    return float(min(1.0, above_u[best] / above_p[best]))
