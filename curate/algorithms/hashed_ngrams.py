"""Hashed character n-grams: a text encoder without a model.

Signed feature hashing (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning") over
the character 3- to 5-grams of each word, word boundaries included (as in fastText, Bojanowski et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# n-grams are counted in this many buckets, then folded to `dimensions`: so that the logarithm of a count
# is that of one n-gram, not of all the n-grams that share a short vector's coordinate.
BUCKETS = 1 << 20


def hashed_ngrams(texts: Sequence[str], dimensions: int = 384, lowest: int = 3, highest: int = 5) -> np.ndarray:
    """Unit vectors, float32, shape (len(texts), dimensions).

    Case is folded and white space collapsed. An n-gram that occurs c times in a text weighs 1 + ln(c), with a
    sign given by its hash. A text without any n-gram (blank), or one whose weights cancel exactly, gets the
    vector of the empty n-gram, the first axis: a unit vector too, shared by all such texts and no one else's.
    A row's vector depends on its own text alone.
    """
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import HashingVectorizer

    if dimensions < 2:
        raise ValueError(f"dimensions is {dimensions}: give at least 2")
    counter = HashingVectorizer(analyzer="char_wb", ngram_range=(lowest, highest), n_features=BUCKETS, norm=None, dtype=np.float64)
    counts = counter.transform(texts)
    weights = np.sign(counts.data) * (1.0 + np.log(np.maximum(np.abs(counts.data), 1.0)))
    # The first axis is kept for texts without n-grams, so that no text can resemble them by accident.
    axes = 1 + counts.indices % (dimensions - 1)
    vectors = csr_array((weights, axes, counts.indptr), shape=(len(texts), dimensions)).toarray()
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    empty = norms < 1e-9
    vectors[empty, 0] = norms[empty] = 1.0
    return (vectors / norms[:, None]).astype(np.float32)
