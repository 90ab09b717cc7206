"""Are new rows still like the rows that a clustering was fitted on? Three figures, each beside what chance alone gives.

    outside   share of rows farther from their cluster's mean than 99 % of the rows of the fit were
    energy    energy distance (Szekely and Rizzo 2013) to a stored sample of the fit: 0 only for the same distribution
    shift     total variation between the cluster shares now and at the fit, in [0, 1]

Distances are Euclidean between unit rows and unit means, in [0, 2].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from curate.algorithms.spectral import cluster_means, similarity_to_own

_INSIDE = 0.99  # of a cluster's rows lie within its radius
_ASKED = 1000  # new rows that the energy distance looks at: it is quadratic
_PERMUTATIONS = 499
# Each of the three may cry wolf once in a hundred times.
ALARM = 0.01
# A shift of the shares below this is not worth a word, however many rows prove it.
_SMALLEST_SHIFT = 0.02
_PREFIX = "drift_"


@dataclass(frozen=True)
class Reference:
    """What is stored of the rows of a fit.

    sample  (m, d) float32   unit rows, drawn by seed
    labels  (m,) int32       their clusters
    means   (k, d) float32   unit mean of each cluster
    radius  (k,) float64     distance to the mean that 99 % of the cluster's rows keep within
    beyond  (k,) float64     chance of a row like those of the fit to lie outside: 1 %, more in clusters under 100 rows
    counts  (k,) int64       rows of the fit
    seed    () int64
    """

    sample: np.ndarray
    labels: np.ndarray
    means: np.ndarray
    radius: np.ndarray
    beyond: np.ndarray
    counts: np.ndarray
    seed: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """For np.savez, beside other arrays: names begin with drift_."""
        return {f"{_PREFIX}{part.name}": getattr(self, part.name) for part in fields(self)}

    @classmethod
    def of_arrays(cls, stored: Mapping[str, np.ndarray]) -> Reference | None:
        """Back from `arrays`; None where nothing of the kind was stored."""
        names = [part.name for part in fields(cls)]
        return cls(**{name: stored[f"{_PREFIX}{name}"] for name in names}) if f"{_PREFIX}sample" in stored else None


@dataclass(frozen=True)
class Change:
    """One cluster: its share at the fit and now, the share of its new rows outside its radius, and its part of the energy distance."""

    cluster: int
    before: float
    now: float
    outside: float
    energy: float


@dataclass(frozen=True)
class Drift:
    """p_*: chance of a figure this large without drift; `alarm`: one of them is below 1 % (a shift counts from 0.02 on).

    outside_expected   what rows like those of the fit would give
    energy_chance      99th percentile of the energy distance over random divisions of the stored sample and the new rows
    shift_chance       99th percentile of the shift over random draws of as many rows
    changes            clusters by their part of the energy distance, the largest first: what came or went there
    """

    rows: int
    outside: float
    outside_expected: float
    p_outside: float
    energy: float
    energy_chance: float
    p_energy: float
    shift: float
    shift_chance: float
    p_shift: float
    changes: tuple[Change, ...]

    @property
    def alarm(self) -> bool:
        return min(self.p_outside, self.p_energy) <= ALARM or (self.p_shift <= ALARM and self.shift >= _SMALLEST_SHIFT)


def fit_reference(unit: np.ndarray, labels: np.ndarray, seed: int = 0, keep: int = 2000) -> Reference:
    """From the unit rows float32 (n, d) of a fit and their labels (n,), 0 to k - 1, none empty."""
    means = cluster_means(unit, labels)
    k = len(means)
    counts = np.bincount(labels, minlength=k)
    distances = _distance_to_the_others(unit, labels, k)
    radius, beyond = np.zeros(k), np.ones(k)
    order = np.lexsort((distances, labels))
    starts = np.concatenate([[0], np.cumsum(counts)])
    for label in range(k):
        mine = distances[order[starts[label] : starts[label + 1]]]
        # The smallest of the fit's distances that a further row of the same kind exceeds with a chance of at most 1 %.
        place = min(int(np.ceil(_INSIDE * (len(mine) + 1))), len(mine))
        radius[label], beyond[label] = mine[place - 1], 1.0 - place / (len(mine) + 1)
    drawn = np.sort(np.random.default_rng([seed, 0]).permutation(len(unit))[:keep])
    return Reference(
        sample=unit[drawn].astype(np.float32),
        labels=labels[drawn].astype(np.int32),
        means=means,
        radius=radius,
        beyond=beyond,
        counts=counts.astype(np.int64),
        seed=np.array(seed, np.int64),
    )


def _distance_to_the_others(unit: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """float64 (n,): of each row to the mean of the other rows of its cluster; with itself in the mean, a small cluster looks tighter
    than a new row would find it. A cluster of one row: 0.
    """
    sums = np.zeros((k, unit.shape[1]))
    for label in range(k):
        sums[label] = unit[labels == label].sum(axis=0, dtype=np.float64)
    squared, distances = np.square(sums).sum(axis=1), np.zeros(len(unit))
    for start in range(0, len(unit), 4096):
        mine = labels[start : start + 4096]
        along = (unit[start : start + 4096] * sums[mine]).sum(axis=1)
        others = np.sqrt(np.clip(squared[mine] - 2.0 * along + 1.0, 0.0, None))
        cosine = np.divide(along - 1.0, others, out=np.ones(len(mine)), where=others > 1e-6)
        distances[start : start + 4096] = np.sqrt(np.clip(2.0 - 2.0 * cosine, 0.0, None))
    return distances


def outside(reference: Reference, unit: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool (n,): which rows lie outside the radius of the cluster they were given. Independent of the batch."""
    distances = np.sqrt(np.clip(2.0 - 2.0 * similarity_to_own(unit, labels, reference.means).astype(np.float64), 0.0, None))
    # The similarity is float32, the radius is not: a row of the fit must not fall out of its own radius.
    return distances > reference.radius[labels] + 1e-4


def drift(reference: Reference, unit: np.ndarray, labels: np.ndarray, most_changes: int = 5) -> Drift:
    """Of new unit rows (n, d) and the labels (n,) that the frozen clustering gave them, n >= 1."""
    from scipy.special import ndtr

    rows, k = len(unit), len(reference.counts)
    if rows < 1:
        raise ValueError("no rows to hold against the fit: ask only for shards that have rows with a vector")
    rng = np.random.default_rng([int(reference.seed), 1])
    now, before = np.bincount(labels, minlength=k), reference.counts
    out_of = np.bincount(labels[outside(reference, unit, labels)], minlength=k)

    # What lies outside: the chance is known per cluster, up to the noise of the fit's own quantile.
    chance = reference.beyond * now
    variance = (reference.beyond * (1 - reference.beyond) * now * (1 + now / (before + 2.0))).sum()
    z = (out_of.sum() - 0.5 - chance.sum()) / max(np.sqrt(variance), 1e-9)

    asked = np.sort(rng.permutation(rows)[:_ASKED])
    energy, energies, pull = _energy(reference.sample, unit[asked], rng)
    # The energy distance is the mean pull of the new rows less that of the stored ones: so it falls into one part per cluster.
    pull -= pull[: len(reference.sample)].mean()
    parts_old = np.bincount(reference.labels, pull[: len(reference.sample)], k) / len(reference.sample)
    part = np.bincount(labels[asked], pull[len(reference.sample) :], k) / len(asked) - parts_old

    shares, old = now / rows, before / before.sum()
    shift = 0.5 * float(np.abs(shares - old).sum())
    mixed = rng.multivariate_hypergeometric(before + now, rows, size=_PERMUTATIONS)
    shifts = 0.5 * np.abs(mixed / rows - (before + now - mixed) / before.sum()).sum(axis=1)

    changes = [
        Change(int(label), float(old[label]), float(shares[label]), float(out_of[label] / max(now[label], 1)), float(part[label]))
        for label in np.argsort(-part, kind="stable")[:most_changes]
    ]
    return Drift(
        rows,
        outside=float(out_of.sum() / rows),
        outside_expected=float(chance.sum() / rows),
        p_outside=float(ndtr(-z)),
        energy=energy,
        energy_chance=float(np.quantile(energies, 1 - ALARM)),
        p_energy=_p_value(energy, energies),
        shift=shift,
        shift_chance=float(np.quantile(shifts, 1 - ALARM)),
        p_shift=_p_value(shift, shifts),
        changes=tuple(changes),
    )


def _p_value(found: float, by_chance: np.ndarray) -> float:
    """Of a permutation test; the found division is one of them (Phipson and Smyth 2010)."""
    return float((1 + (by_chance >= found - 1e-12).sum()) / (1 + len(by_chance)))


def _energy(stored: np.ndarray, new: np.ndarray, rng: np.random.Generator) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy distance 2 E|X-Y| - E|X-X'| - E|Y-Y'|; the same over random divisions of all rows into parts of these sizes; and each
    row's pull, E|x-X| - E|x-Y| for stored X and new Y, stored rows first: positive where new rows are the nearer ones.
    """
    both = np.concatenate([stored, new]).astype(np.float64)
    gram = both @ both.T
    lengths = gram.diagonal()
    distances = np.sqrt(np.clip(lengths[:, None] + lengths - 2.0 * gram, 0.0, None))
    np.fill_diagonal(distances, 0.0)
    m, n = len(stored), len(new)
    # One column per division, 1 where a row is counted as new. The found division comes first.
    part = np.zeros((m + n, 1 + _PERMUTATIONS), np.float32)
    part[m:, 0] = 1
    for column in range(1, 1 + _PERMUTATIONS):
        part[rng.permutation(m + n)[:n], column] = 1
    reached = (distances.astype(np.float32) @ part).astype(np.float64)
    within_new = (part * reached).sum(axis=0)
    across = reached.sum(axis=0) - within_new
    within_old = distances.sum() - 2.0 * across - within_new
    # A row is no pair with itself: so the estimates are unbiased, and the distance of equal distributions is 0 in the mean.
    pairs_old, pairs_new = max(m * (m - 1), 1), max(n * (n - 1), 1)
    energies = 2.0 * across / (m * n) - within_new / pairs_new - within_old / pairs_old
    to_new, to_all = reached[:, 0], distances.sum(axis=1)
    is_new = np.arange(m + n) >= m
    pull = (to_all - to_new) / np.maximum(m - ~is_new, 1) - to_new / np.maximum(n - is_new, 1)
    return float(energies[0]), energies[1:], pull
