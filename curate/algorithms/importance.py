"""Importance weights of texts by bags of hashed words and word pairs (Xie et al. 2023, DSIR, arXiv 2302.03169).

Two bag models, the pool's and the target's, are shares of each bucket's count; a text's log weight is the sum over its
words and pairs of log(target share / pool share). The formula, the words (runs of letters and digits, runs of signs,
lower case) and the small terms are those of the authors' `data-selection`; only the hash differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BUCKETS = 10_000
WORDS = r"\w+|[^\w\s]+"
# Added to each share, so that an empty bucket weighs at most 18 nats.
_EMPTY = 1e-8


def bags(texts: Sequence[str], buckets: int = BUCKETS) -> Any:
    """Counts of words and of pairs of neighbouring words, hashed: scipy sparse float64, (texts, buckets)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    counter = HashingVectorizer(
        ngram_range=(1, 2), n_features=buckets, token_pattern=WORDS, alternate_sign=False, norm=None, dtype=np.float64
    )
    return counter.transform(texts)


def log_ratio(target: np.ndarray, pool: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """log(target share / pool share) of each bucket, float64 (buckets,), from two arrays of counts.

    `smoothing` is added to each of the target's counts (Laplace): what a small target lacks by chance then weighs less.
    """
    if not pool.any() or not target.any():
        raise ValueError("a bag without any word has no shares: give texts with words on both sides")
    smoothed = target + smoothing
    return np.log(smoothed / smoothed.sum() + _EMPTY) - np.log(pool / pool.sum() + _EMPTY)


def gumbel(uniform: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise from numbers in [0, 1]. Added to log weights, the k highest are a draw of k by weight without
    replacement (Kool et al. 2019, arXiv 1903.06059)."""
    inside = np.clip(uniform, 2.0**-64, 1.0 - 2.0**-53)  # a double next to 1 may have been rounded up to it
    return -np.log(-np.log(inside))
