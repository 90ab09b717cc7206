"""Signs that a batch of generated texts has collapsed, each beside the same measure of what the texts were made from.

    opening         share of texts that begin with the most common five words (one model: 115 of 1,000 against 3 of 1,000 of
                    another; it trained worse, FinePhrase 2026)
    distinct        distinct word 3-grams per 3-gram (Li et al. 2016, arXiv 1510.03055)
    compressed      bytes after zlib per byte (Shaib et al. 2024, arXiv 2403.00553)
    spread          effective number of different sources that are some text's nearest one, per text: exp of the entropy of
                    the neighbours (mode collapse: many texts beside few sources); beside it, of sources among themselves
    separable       AUC of a linear classifier, cross-validated, that tells texts from their sources by their words; 0.5: not
                    at all (Lopez-Paz and Oquab 2017, arXiv 1610.06545)

Sources and texts are cut to the same number of words first: shares of distinct n-grams and of zlib fall with length.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

_OPENING_WORDS = 5
_LABEL = re.compile(r"^\s*(?:[-*•#>]+\s*|(?:question|q|answer|a)\s*\d*\s*:\s*)+", re.IGNORECASE)
_WORD = re.compile(r"\w+")


def opening(texts: Sequence[str]) -> tuple[float, str]:
    """Share of the texts that begin with the most common five words, and these words; labels like "Question:" aside."""
    heads = Counter(" ".join(_WORD.findall(_LABEL.sub("", text[:400]).lower())[:_OPENING_WORDS]) for text in texts)
    heads.pop("", None)
    if not heads:
        return 0.0, ""
    words, count = min(heads.items(), key=lambda item: (-item[1], item[0]))
    return count / len(texts), words


def distinct(texts: Sequence[str], words: int) -> float:
    """Distinct 3-grams per 3-gram in the first `words` words of the texts, none across two texts."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for run in _first_words(texts, words):
        total += max(len(run) - 2, 0)
        seen.update(zip(run, run[1:], run[2:], strict=False))
    return len(seen) / total if total else 1.0


def compressed(texts: Sequence[str], words: int) -> float:
    """Bytes after zlib per byte of the first `words` words."""
    whole = "\n".join(" ".join(run) for run in _first_words(texts, words)).encode()
    return len(zlib.compress(whole, 9)) / len(whole) if whole else 1.0


def word_count(texts: Sequence[str]) -> int:
    return sum(len(_WORD.findall(text)) for text in texts)


def _first_words(texts: Sequence[str], words: int) -> list[list[str]]:
    runs: list[list[str]] = []
    for text in texts:
        if words <= 0:
            break
        runs.append(_WORD.findall(text.lower())[:words])
        words -= len(runs[-1])
    return runs


def features(texts: Sequence[str]) -> Any:
    """Sparse unit rows of hashed words and pairs of words (n, 65536); the same for a text in any company."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(ngram_range=(1, 2), n_features=1 << 16, binary=True, alternate_sign=False, norm="l2").transform(texts)


def spread(texts: Any, sources: Any = None) -> float:
    """Effective number of different nearest sources per text: 1 where each has its own, 1/n where all share one.

    texts, sources   rows of `features`; without sources: the nearest other text of each
    """
    near = (texts @ (texts if sources is None else sources).T).tolil()
    if sources is None:
        near.setdiag(0)
    shares = np.unique(np.asarray(near.tocsr().argmax(axis=1)).ravel(), return_counts=True)[1] / texts.shape[0]
    return float(np.exp(-(shares * np.log(shares)).sum()) / texts.shape[0])


def separable(texts: Any, sources: Any, groups: np.ndarray, folds: int = 5, ridge: float = 0.1) -> float:
    """AUC with which texts are told from sources they were not made from, by kernel ridge regression.

    texts, sources   rows of `features`, one source for each text;  groups   int (n,): texts of one source
    """
    from scipy.sparse import vstack

    from curate.algorithms.roc import auc

    both = vstack([texts, sources])
    kernel = np.asarray((both @ both.T).todense())
    labels = np.repeat([1.0, 0.0], texts.shape[0])
    fold = np.tile(groups % folds, 2)  # a text and its source are never parted, nor two texts of one source
    scores = np.zeros(len(labels))
    for one in range(folds):
        test = fold == one
        if not test.any() or test.all():
            continue
        known = kernel[np.ix_(~test, ~test)]
        weight = np.linalg.solve(known + ridge * np.eye(len(known)), labels[~test] - 0.5)
        scores[test] = kernel[np.ix_(test, ~test)] @ weight
    return auc(scores, labels == 1)
