"""Individual unfairness: how far a score moves between rows that should be treated alike.

"Similar individuals are treated similarly" (Dwork et al. 2012), measured over comparable pairs as in Li, Xia and Liu, "Learning Antidote Data to
Individual Unfairness" (ICML 2023, arXiv 2211.15897): mean and third quartile of |f(x) - f(x')|. The 95th percentile and the share of decisions that
flip are added: a mean can be small because most pairs do not move at all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Unfairness(NamedTuple):
    """Over pairs: mean, third quartile and 95th percentile of the gap, in the unit of the score; share of pairs that lie on both sides of the cut."""

    mean: float
    q75: float
    q95: float
    flips: float


def unfairness(scores: np.ndarray, others: np.ndarray, cut: float) -> Unfairness:
    """Of pairs of scores, float (pairs,) each; a decision is `score >= cut`. Raises ValueError where there is no pair."""
    scores, others = np.asarray(scores, np.float64), np.asarray(others, np.float64)
    if scores.shape != others.shape or scores.ndim != 1 or not len(scores):
        raise ValueError(f"scores {scores.shape} and others {others.shape}: give one score of each for one or more pairs")
    gap = np.abs(scores - others)
    flips = (scores >= cut) != (others >= cut)
    return Unfairness(float(gap.mean()), float(np.quantile(gap, 0.75)), float(np.quantile(gap, 0.95)), float(flips.mean()))
