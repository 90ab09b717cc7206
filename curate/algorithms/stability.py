"""Would other rows of the same kind give the same clusters? And how many clusters are there, by that measure.

The rows are resampled, each resample is clustered, its clusters label every row (those left out through the
method's out-of-sample rule), and the labelings are compared in pairs by the adjusted Rand index (Ben-Hur, Elisseeff
and Guyon 2002; Lange et al. 2004). ARI is corrected for labels drawn at random, but not for shape: one long axis is
cut in two at the same place every time, clusters or not. So k is chosen against a cloud of the same mean and
covariance without clusters, as the gap statistic does (Tibshirani, Walther and Hastie 2001).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from curate.algorithms.knn import unit_rows

# Differences of the score that mean nothing (its standard error is two to five times as large with 6 resamples).
_NEAR = 0.01
# Beside a cloud that is this nearly stable, a difference of nothing would be a large part of the room (.62 for .99 against .97).
_ROOM = 0.05

# cluster(sample (m, d), every (n, d), seed) -> labels of `every`: (n,), or (c, n) for c settings fitted together.
# A method that shares its graph among all c numbers of clusters makes a choice of k hardly dearer than one clustering.
Cluster = Callable[[np.ndarray, np.ndarray, int], "np.ndarray | Sequence[np.ndarray]"]


@dataclass(frozen=True)
class Stability:
    """For each of c settings, float64 (c,): mean ARI over all pairs of resamples, and its 95 % interval.

    The interval is the jackknife's over resamples (pairs share them, so pairs are no sample of their own):
    what other draws from these rows would give. It says nothing of other data.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    pairs: np.ndarray  # (c, resamples, resamples) ARI, 1 on the diagonal


@dataclass(frozen=True)
class ChosenK:
    """k, and for each candidate: stability, that of the cloud without clusters, and the score that decided."""

    k: int
    candidates: tuple[int, ...]
    stability: Stability
    null: Stability
    score: np.ndarray


def resample_stability(cluster: Cluster, unit: np.ndarray, seed: int, resamples: int = 10) -> Stability:
    """Mean ARI between clusterings of `resamples` bootstrap draws of `unit` (n, d), all n rows labelled by each.

    A draw is n rows with replacement, each row once: 63.2 % of the rows. The repeats are left out because a copy
    is its row's nearest neighbour, and neighbour graphs of copies fall into islands (what the pipeline removes
    near duplicates for). Two draws share 63.2 % of their rows, of 80 % subsamples it would be 80 %: a harder test.
    The method is given another seed each time, so that its own luck counts as instability.
    Cost: `resamples` fits of .632 n rows and as many labelings of n, and resamples^2 / 2 comparisons, linear in n.
    """
    from scipy.stats import t as student
    from sklearn.metrics import adjusted_rand_score

    if resamples < 3:
        raise ValueError(f"{resamples} resamples have no interval: give at least 3")
    labelings = []
    for draw in range(resamples):
        rows = np.unique(np.random.default_rng([seed, draw]).integers(len(unit), size=len(unit)))
        labelings.append(np.atleast_2d(np.asarray(cluster(unit[rows], unit, seed + draw))))
        if labelings[-1].shape != (len(labelings[0]), len(unit)):
            raise ValueError(f"labels {labelings[-1].shape} for {len(unit)} rows: `cluster` must label every row of its second argument")
    pairs = np.ones((len(labelings[0]), resamples, resamples))
    for one in range(resamples):
        for two in range(one):
            for setting in range(len(pairs)):
                agreement = adjusted_rand_score(labelings[one][setting], labelings[two][setting])
                pairs[setting, one, two] = pairs[setting, two, one] = agreement
    sums = pairs.sum(axis=2) - 1  # of each resample with the others
    total = sums.sum(axis=1)
    mean = total / (resamples * (resamples - 1))
    without = (total[:, None] - 2 * sums) / ((resamples - 1) * (resamples - 2))
    error = np.sqrt((resamples - 1) / resamples * np.square(without - without.mean(axis=1, keepdims=True)).sum(axis=1))
    reach = float(student.ppf(0.975, resamples - 1)) * error
    return Stability(mean, mean - reach, np.minimum(mean + reach, 1.0), pairs)


def k_by_stability(
    cluster: Cluster, unit: np.ndarray, candidates: Sequence[int], seed: int, resamples: int = 6, most: int = 5000
) -> ChosenK:
    """The k among `candidates` whose clusters are most stable beyond those of a cloud without clusters.

    cluster   labels (len(candidates), n), one row of labels for each candidate, in their order
    most      rows that are looked at, drawn by seed

    score = (s - s0) / (1 - s0), s0 the stability of the cloud: the part of the possible improvement that was reached.
    1 for perfect stability; 0 where the cloud leaves no room, so for k = 1 and for one long axis cut in two. Within .01
    of the best the largest k counts, which tells most (clear groups merge in the same pairs every time, so fewer may be
    as stable); the smallest where no k beats the cloud.
    Cost: 2 x `resamples` calls of `cluster` on at most `most` rows.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(unit))[:most])
    some = np.asarray(unit)[rows]
    found = resample_stability(cluster, some, seed, resamples)
    if len(found.mean) != len(candidates):
        raise ValueError(f"{len(found.mean)} labelings for {len(candidates)} candidates: `cluster` must return one for each")
    null = resample_stability(cluster, without_clusters(some, seed), seed, resamples)
    room = 1.0 - null.mean
    score = np.where(room > _ROOM, (found.mean - null.mean) / np.maximum(room, _ROOM), 0.0)
    tried = tuple(int(k) for k in candidates)
    near = [k for k, reached in zip(tried, score, strict=True) if reached >= score.max() - _NEAR]
    return ChosenK(max(near) if score.max() > _NEAR else min(near), tried, found, null, score)


def without_clusters(unit: np.ndarray, seed: int) -> np.ndarray:
    """A normal cloud of as many rows with the mean and covariance of `unit`, put on the sphere: unit float32 (n, d)."""
    mean = unit.mean(axis=0, dtype=np.float64)
    centred = unit.astype(np.float64) - mean
    values, axes = np.linalg.eigh(centred.T @ centred / len(unit))
    root = (axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T  # the symmetric root: the signs of the axes cancel
    return unit_rows(mean + np.random.default_rng(seed).standard_normal(unit.shape) @ root)[0]
