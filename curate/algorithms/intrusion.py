"""Has a made row moved into the region of another label? Its nearest row of its own label against its nearest of any other.

    d(x) = distance to the nearest reference row of x's label / distance to the nearest one of another label

A conformal bound per label (Vovk et al. 2005: "Mondrian" classes), from real rows that leave themselves out, refuses a real row with probability at
most alpha, however the labels overlap. Where one label is rare most of its rows lie nearer to the others: that is why the bound is its own, and not 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curate.algorithms.knn import search


def own_to_other(
    vectors: np.ndarray, labels: Sequence[str | None], reference: np.ndarray, known: Sequence[str | None], left_out: np.ndarray
) -> np.ndarray:
    """d of every vector, float64 (m,); NaN where it has no label, or the reference has none of its own or no other.

    vectors (m, d), reference (n, d)   unit float32
    left_out (m,)                      reference row that a vector may not lean on (itself, its source), or -1
    """
    found = np.full(len(vectors), np.nan)
    mine, theirs = np.array(labels, object), np.array(known, object)
    labelled = np.array([label is not None for label in known], bool)
    for label in sorted({label for label in labels if label is not None}):
        rows, own, other = np.flatnonzero(mine == label), np.flatnonzero(theirs == label), np.flatnonzero(labelled & (theirs != label))
        if not len(own) or not len(other):
            continue
        distances, places = search(vectors[rows], reference[own], min(2, len(own)))
        far, _ = search(vectors[rows], reference[other], 1)
        leans = own[places] == np.asarray(left_out)[rows][:, None]
        nearest = np.where(leans, np.inf, distances.astype(np.float64)).min(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = nearest / far[:, 0].astype(np.float64)
        ratio[np.isnan(ratio)] = 1.0  # copies of both
        found[rows] = np.where(np.isinf(nearest), np.nan, ratio)
    return found
