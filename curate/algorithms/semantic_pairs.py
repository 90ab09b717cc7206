"""Rows that say the same: pairs by cosine and by words, and who stands for whom.

    alike = (1 - w) cosine of the embeddings + w cosine of hashed character n-grams

SemDeDup (Abbas et al. 2023, arXiv 2303.09540) takes the embeddings alone, inside k-means clusters. An embedding can call two texts equal that differ in the one
word that matters, and hashed n-grams are a second opinion that costs nothing (Weller et al. 2025, arXiv 2508.21038). Measured on labelled pairs:
benchmarks/results/dedup.md.
"""

from __future__ import annotations

import numpy as np

from curate.algorithms.knn import nearest_others

NEAREST = 32  # others of a row that it is compared with


def near_by_cosine(unit: np.ndarray, least: float, groups: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(pairs int64 (m, 2), first < second, ascending; cosines float64 (m,)): each row with its nearest others of its group, from `least` on.

    unit    float32 (n, d), unit rows
    groups  int (n,): pairs are looked for inside each; None: among all rows
    """
    found, alike = [np.empty((0, 2), np.int64)], [np.empty(0)]
    every = np.zeros(len(unit), np.int64) if groups is None else groups
    for group in np.unique(every).tolist():
        rows = np.flatnonzero(every == group)
        if len(rows) < 2:
            continue
        distances, others = nearest_others(unit[rows], min(NEAREST, len(rows) - 1))
        cosine = 1 - np.square(distances.astype(np.float64)) / 2
        row, at = np.nonzero((cosine >= least) & (others >= 0))
        found.append(np.sort(np.stack([rows[row], rows[others[row, at]]], axis=1), axis=1))
        alike.append(cosine[row, at])
    pairs, first = np.unique(np.concatenate(found), axis=0, return_index=True)
    return pairs, np.concatenate(alike)[first]


def leaders(pairs: np.ndarray, alike: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(survivor int64 (n,), similarity to it float64 (n,), NaN where the row stays), n = len(rank).

    By rank, a row falls to the surviving row that is most like it, if there is one. No chains: A like B and B like C says nothing of A and C.
    """
    n = len(rank)
    survivor, similarity = np.arange(n), np.full(n, np.nan)
    if not len(pairs):
        return survivor, similarity
    later = np.where(rank[pairs[:, 0]] > rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    earlier = pairs.sum(axis=1) - later
    order = np.lexsort((rank[earlier], -alike, rank[later]))
    for place in order.tolist():
        row, other = later[place], earlier[place]
        if survivor[row] == row and survivor[other] == other:
            survivor[row], similarity[row] = other, alike[place]
    return survivor, similarity
