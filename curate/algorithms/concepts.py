"""Concept graphs: rows that join what the rows accepted so far, or the rest of the pool, keep apart.

The concept consistency graph of PASER (arXiv 2502.12594): nodes are the key phrases of the accepted rows, an edge says
that two of them stood in one row. A row is accepted if all of its phrases that are nodes already are joined already;
then its phrases become one clique. Phrases as in RAKE (Rose et al. 2010): runs of words between stop words and
punctuation. RAKE's scores only rank them, and all of them are used, so none are computed here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]+")
_SURPRISING = 3.0  # rows in which chance alone would join two concepts: by chance it would join them nowhere in 5 % of cases (Poisson)


def phrases(text: str) -> list[str]:
    """Distinct key phrases of a text, lower case, in order of first appearance; stop words are scikit-learn's (English)."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    found: dict[str, None] = {}
    run: list[str] = []
    for match in _WORD.finditer(text.lower()):
        word = match.group()
        if word in ENGLISH_STOP_WORDS or not word[0].isalnum():
            if run:
                found[" ".join(run)] = None
            run = []
        else:
            run.append(word)
    if run:
        found[" ".join(run)] = None
    return list(found)


def hashed(texts: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """(number of concepts int64 (n,), their 64-bit hashes one row after the other uint64): the phrases of each text."""
    rows = [phrases(text or "") for text in texts]
    digests = b"".join(hashlib.blake2b(phrase.encode("utf-8", "surrogatepass"), digest_size=8).digest() for row in rows for phrase in row)
    return np.array([len(row) for row in rows], np.int64), np.frombuffer(digests, "<u8")


class Graph:
    """The concept consistency graph. Row r holds concepts[starts[r]:starts[r + 1]].

    What the rule does: it never compares answers, so two equal questions with opposite answers pass. It refuses new
    combinations of known phrases, the more of them the more it has accepted, so its result depends on the order. Of 54,993
    real instruction rows in random order it accepted 3 %; wrong answers planted among them were refused as often as right ones.

    An edge is made only when the younger of its two concepts first appears: later rows that would add one are the
    very rows that are refused. So the row in which a concept first appeared says all about its older neighbours, and
    no edges are stored. That row is also the one to name: it holds the younger concept without the older one.
    """

    def __init__(self, starts: np.ndarray, concepts: np.ndarray):
        self.starts, self.concepts = starts, concepts
        self.births: dict[int, int] = {}  # concept -> number of the accepted row in which it first appeared
        self.accepted: list[int] = []

    def of(self, row: int) -> list[int]:
        return self.concepts[self.starts[row] : self.starts[row + 1]].tolist()

    def against(self, row: int) -> int:
        """The earliest accepted row that holds one of two known concepts of `row` and that never met the other; -1: none."""
        known = sorted((self.births[concept], concept) for concept in self.of(row) if concept in self.births)
        seen = 0  # known concepts that are older than the birth looked at
        for place, (birth, _) in enumerate(known):
            if place and birth != known[place - 1][0]:
                seen = place
                there = set(self.of(self.accepted[birth]))
                if any(concept not in there for _, concept in known[:seen]):
                    return self.accepted[birth]
        return -1

    def accept(self, row: int) -> None:
        for concept in self.of(row):
            self.births.setdefault(concept, len(self.accepted))
        self.accepted.append(int(row))


def unexpected(starts: np.ndarray, concepts: np.ndarray, order: np.ndarray) -> np.ndarray:
    """For every row, int64 (n,), a row that it conflicts with, or -1: the variant that no order of the rows can change.

    starts, concepts   as in `Graph`, concepts uint64
    order              int (n,): a permutation that names one row among several (by row_id), used for nothing else

    Two concepts of n_a and n_b rows out of n would meet in n_a n_b / n rows by chance. A row conflicts where it joins two
    that should meet in three or more, and that no other row of the whole pool joins. Named is the first other row, in
    `order`, with the rarer of the two most surprising ones. Memory: 16 bytes per such pair of a row.
    """
    n = len(starts) - 1
    twin = np.full(n, -1, np.int64)
    if not len(concepts):
        return twin
    row_of = np.repeat(np.arange(n), np.diff(starts))
    distinct, concept, count = np.unique(concepts, return_inverse=True, return_counts=True)
    able = count[concept] * count.max() >= _SURPRISING * n  # whoever is rarer meets nobody often enough
    row_of, concept = row_of[able], concept[able]
    ends = np.cumsum(np.bincount(row_of, minlength=n))
    keys, rows = [], []
    for place in range(n):
        mine = np.sort(concept[ends[place - 1] if place else 0 : ends[place]])
        one, other = np.triu_indices(len(mine), 1)
        one, other = mine[one], mine[other]
        often = count[one].astype(np.float64) * count[other] >= _SURPRISING * n
        keys.append(one[often] * len(distinct) + other[often])
        rows.append(np.full(len(keys[-1]), place))
    key, first, times = np.unique(np.concatenate(keys), return_index=True, return_counts=True)
    lone = times == 1
    key, row = key[lone], np.concatenate(rows)[first[lone]]
    one, other = key // len(distinct), key % len(distinct)
    surprise = np.lexsort((key, -(count[one] * count[other]), row))
    row, worst = np.unique(row[surprise], return_index=True)
    one, other = one[surprise][worst], other[surprise][worst]
    rarer = np.where(count[one] <= count[other], one, other)
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    holders = np.lexsort((rank[row_of], concept))
    at = np.searchsorted(concept[holders], rarer)
    here = row_of[holders]
    twin[row] = np.where(here[at] != row, here[at], here[at + 1])  # three rows at least hold it
    return twin
