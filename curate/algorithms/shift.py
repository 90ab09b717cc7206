"""How far a number's distribution has moved: the population stability index, beside what chance alone gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 10


@dataclass(frozen=True)
class Shift:
    """index   sum over bins of (new share - old share) * ln(new share / old share); .1 is usually called small, above .25 large
    chance  nearly all indexes (`level`) of rows drawn from the old distribution itself stay below this
    old, new  medians
    """

    rows: int
    index: float
    chance: float
    old: float
    new: float


def stability_index(
    quantiles: np.ndarray, old_rows: int, new: np.ndarray, new_rows: int | None = None, level: float = 0.99
) -> Shift | None:
    """Of new values, float (n,), against stored quantiles of the old ones (evenly spaced from 0 to 1); None below 2 rows or without two distinct bins.

    new_rows   where `new` are quantiles too: of so many rows
    level      share of the indexes without drift that lie below `chance`

    Bins hold about a tenth of the old values each; equal quantiles (a value that many rows share) fall into one bin. Without any drift the index
    times 1 / (1/n + 1/m) follows a chi-square of bins - 1 degrees of freedom (Yurdakul 2018), from which `chance`.
    """
    from scipy.stats import chi2

    values = np.sort(np.asarray(new, np.float64)[np.isfinite(new)])
    rows = len(values) if new_rows is None else new_rows
    quantiles = np.asarray(quantiles, np.float64)
    edges = np.unique(np.interp(np.linspace(0, 1, BINS + 1)[1:-1], np.linspace(0, 1, len(quantiles)), quantiles))
    if rows < 2 or not len(values) or old_rows < 2 or not len(edges):
        return None
    # A bin holds what is at most its edge; the old shares are read off the quantiles by the same rule.
    old_share = np.diff([0.0, *(np.searchsorted(quantiles, edges, side="right") / len(quantiles)), 1.0])
    new_share = np.diff([0.0, *(np.searchsorted(values, edges, side="right") / len(values)), 1.0])
    # Half a row more in every bin: an empty one must not make the index infinite.
    bins = len(old_share)
    old_share = (old_share * old_rows + 0.5) / (old_rows + 0.5 * bins)
    new_share = (new_share * rows + 0.5) / (rows + 0.5 * bins)
    index = float(((new_share - old_share) * np.log(new_share / old_share)).sum())
    chance = float(chi2.ppf(level, bins - 1) * (1 / rows + 1 / old_rows))
    return Shift(rows, index, chance, float(np.interp(0.5, np.linspace(0, 1, len(quantiles)), quantiles)), float(np.median(values)))
