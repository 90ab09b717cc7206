"""Texts as sets of hashed n-grams: what a fast linear filter reads.

Which n-grams a text has counts, not how often: on the project's web documents, held out by source, a classifier of presences tells prose from
raw pages better than one of counts (docs/log.md). An n-gram is a bucket; a text's vector is 1 / sqrt(buckets it has) in each of
them, a unit vector (feature hashing without signs, Weinberger et al. 2009).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from curate.algorithms.word_hashes import Hashes, ngram_hashes


def features(parts: Iterable[Hashes], order: int, buckets: int) -> Any:
    """Unit rows, scipy CSR float32 (texts, buckets); a text without words is a row of zeros."""
    from scipy.sparse import csr_array

    counts, columns = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)]
    for found, begins in _present(parts, order, buckets):
        columns.append(found.astype(np.int32))
        counts.append(np.diff(begins))
    begins = np.cumsum(np.concatenate(counts))
    sizes = np.diff(begins)
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes).astype(np.float32)
    return csr_array((values, np.concatenate(columns), begins), shape=(len(sizes), buckets))


def products(parts: Iterable[Hashes], order: int, weights: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Each text's row of `features` times `weights[model]`, float64 (texts,), a block at a time and without the matrix.

    weights (models, buckets); model int (texts,). A text's product is summed in the order of its buckets: it depends on no other text.
    """
    buckets = weights.shape[1]
    flat = weights.astype(np.float64).ravel()
    found, done = [np.zeros(0)], 0
    for columns, begins in _present(parts, order, buckets):
        sizes = np.diff(begins)
        mine = model[done : done + len(sizes)]
        done += len(sizes)
        sums = _sums(flat[columns + np.repeat(mine * buckets, sizes)], begins)
        found.append(sums / np.sqrt(np.maximum(sizes, 1)))
    return np.concatenate(found)


def _sums(values: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Sum of each segment, float64; an empty one is 0 (add.reduceat would give the next one's first value)."""
    some = np.flatnonzero(np.diff(begins))
    sums = np.zeros(len(begins) - 1)
    if len(some):
        sums[some] = np.add.reduceat(values, begins[some])
    return sums


def _present(parts: Iterable[Hashes], order: int, buckets: int) -> Iterator[Hashes]:
    """The distinct buckets of each text, ascending, int64, and where each text's begin."""
    if buckets & (buckets - 1):
        raise ValueError(f"buckets is {buckets}: give a power of two")
    for words, begins in parts:
        texts = len(begins) - 1
        keys = [
            (np.repeat(np.arange(texts, dtype=np.uint64) * np.uint64(buckets), np.diff(at))) + (grams & np.uint64(buckets - 1))
            for grams, at in (ngram_hashes(words, begins, n) for n in range(1, order + 1))
        ]
        key = np.sort(np.concatenate(keys)).astype(np.int64)
        if len(key):
            key = key[np.concatenate([[True], key[1:] != key[:-1]])]
        yield key & (buckets - 1), np.searchsorted(key, np.arange(texts + 1) * buckets)
