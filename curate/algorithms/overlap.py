"""Which texts of one set nearly repeat a text of another: exact Jaccard (or containment) of hashed word n-grams, by one sparse product.

For sets that fit in memory beside each other (thousands of texts); `set_join` is for whole corpora.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from curate.algorithms.word_hashes import Hashes, ngram_hashes


def near_repeats(
    left: Iterable[Hashes], right: Iterable[Hashes], least: float, order: int = 5, block: int = 512, contained: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """(pairs int64 (m, 2): row of `left`, row of `right`; their Jaccard float64 (m,)) where it is `least` or more, in ascending order.

    left, right  words of texts, as `word_hashes` gives them;  order  words of an n-gram: a text with fewer is compared by all of them as one
    contained    not Jaccard, but the share of the left text's n-grams that the right one has
    """
    from scipy.sparse import csr_array

    (a, a_at), (b, b_at) = _sets(left, order), _sets(right, order)
    names, columns = np.unique(np.concatenate([a, b]), return_inverse=True)
    ones = np.ones(len(columns), np.int32)
    first: Any = csr_array((ones[: len(a)], columns[: len(a)], a_at), shape=(len(a_at) - 1, len(names)))
    second: Any = csr_array((ones[len(a) :], columns[len(a) :], b_at), shape=(len(b_at) - 1, len(names))).T.tocsr()
    sizes, others = np.diff(a_at), np.diff(b_at)
    pairs, found = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for at in range(0, len(sizes), block):
        shared = (first[at : at + block] @ second).tocoo()
        row, column = shared.row + at, shared.col
        whole = sizes[row] if contained else sizes[row] + others[column] - shared.data
        alike = shared.data / whole
        near = alike >= least
        order_of = np.lexsort((column[near], row[near]))
        pairs.append(np.stack([row[near], column[near]], axis=1)[order_of].astype(np.int64))
        found.append(alike[near][order_of])
    return np.concatenate(pairs), np.concatenate(found)


def _sets(parts: Iterable[Hashes], order: int) -> tuple[np.ndarray, np.ndarray]:
    """(distinct n-grams of each text one after the other, uint64; where each begins and the last ends, int64)."""
    sets = []
    for words, begins in parts:
        grams, at = ngram_hashes(words, begins, order)
        for i in range(len(begins) - 1):
            mine = grams[at[i] : at[i + 1]]
            if not len(mine) and begins[i + 1] > begins[i]:
                short, _ = ngram_hashes(
                    words[begins[i] : begins[i + 1]], np.array([0, begins[i + 1] - begins[i]]), int(begins[i + 1] - begins[i])
                )
                mine = short
            sets.append(np.unique(mine))
    ends = np.cumsum([0, *map(len, sets)])
    return np.concatenate([np.empty(0, np.uint64), *sets]), ends
