"""Do two encoders put the same texts in the same places? A cross-test on anchors: texts whose old vectors are stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAREST = 10
# Models that were fitted on old vectors may go on with new ones from here on: other last bits, or another library version, stay far above.
LEAST_COSINE = 0.999
LEAST_NEIGHBOURS = 0.95


@dataclass(frozen=True)
class Agreement:
    """cosine      median between the old and the new vector of a text; None where their widths differ
    neighbours  mean share of the nearest texts (10, or fewer among few) that are the same by both; by chance `chance`
    """

    anchors: int
    cosine: float | None
    neighbours: float
    chance: float

    @property
    def compatible(self) -> bool:
        return self.cosine is not None and self.cosine >= LEAST_COSINE and self.neighbours >= LEAST_NEIGHBOURS


def agreement(old: np.ndarray, new: np.ndarray) -> Agreement:
    """Of unit rows float (n, d) and (n, e) of the same n texts, n >= 3."""
    if len(old) != len(new) or len(old) < 3:
        raise ValueError(f"{len(old)} old and {len(new)} new vectors: give those of the same three texts or more")
    nearest = min(NEAREST, len(old) - 2)
    cosine = float(np.median((old * new).sum(axis=1))) if old.shape[1] == new.shape[1] else None
    theirs = []
    for unit in (old.astype(np.float64), new.astype(np.float64)):
        near = unit @ unit.T
        np.fill_diagonal(near, -np.inf)
        theirs.append(np.argsort(-near, axis=1, kind="stable")[:, :nearest])
    same = np.mean([len(np.intersect1d(a, b)) / nearest for a, b in zip(*theirs, strict=True)])
    return Agreement(len(old), cosine, float(same), nearest / (len(old) - 1))
