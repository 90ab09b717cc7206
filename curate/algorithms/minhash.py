"""Shingles, MinHash banding and exact Jaccard: texts and arrays in, arrays out.

Broder 1997 (resemblance of documents); banding as in Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", ch. 3. Signatures come from rensa (Rust).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator

import numpy as np

# A word; or one character of a script that writes without spaces; or one symbol, so that code is kept apart.
TOKEN = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]|\w+|[^\w\s]")
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
NEGATIONS = frozenset(
    [
        "no",
        "not",
        "never",
        "none",
        "neither",
        "nor",
        "without",
        "cannot",
        "nothing",
        "nobody",
        "nicht",
        "kein",
        "keine",
        "nie",
        "pas",
        "jamais",
        "sans",
        "ne",
        "nunca",
        "ningún",
        "sin",
        "не",
        "нет",
    ]
)


def normalise(text: str) -> str:
    """The declared normal form for comparing: NFKC, case folded, invisible marks out, runs of space as one."""
    text = unicodedata.normalize("NFKC", text).casefold() if not text.isascii() else text.lower()
    if not text.isascii():
        text = INVISIBLE.sub("", text)
    return " ".join(text.split())


def exact_key(normal: str) -> bytes:
    """16 bytes that equal texts (after `normalise`) share. A final full stop does not tell texts apart."""
    return hashlib.blake2b(normal.rstrip(" .").encode("utf-8", "surrogatepass"), digest_size=16).digest()


def shingles(normal: str, size: int) -> tuple[list[str], list[str]]:
    """Tokens of a normalised text, and its shingles: `size` tokens in a row (none if the text is shorter)."""
    tokens = TOKEN.findall(normal)
    if len(tokens) < size:
        return tokens, []
    return tokens, [" ".join(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


def guard(tokens: list[str]) -> int:
    """Signed 64-bit hash of the numbers and negations of a text, in order of value: texts that differ in one differ here."""
    telling = sorted(
        token for token in tokens if token in NEGATIONS or token[0].isdigit() or (len(token) > 1 and any(map(str.isdigit, token)))
    )
    contracted = sum(
        1 for left, mark, right in zip(tokens, tokens[1:], tokens[2:], strict=False) if mark in "'’" and right == "t" and left.endswith("n")
    )
    return int.from_bytes(hashlib.blake2b(repr((telling, contracted)).encode(), digest_size=8).digest(), "little", signed=True)


def band_plan(threshold: float, permutations: int, recall: float = 0.995) -> tuple[int, int]:
    """(bands, rows): the longest rows whose bands catch a pair at `threshold` with at least `recall`.

    P(candidate) = 1 - (1 - s^rows)^bands. False candidates only cost time, they are verified.
    """
    for rows in range(permutations, 0, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= recall:
            return bands, rows
    return permutations, 1


def candidate_pairs(signatures: np.ndarray, bands: int, rows: int, least: float, block: int = 1024) -> np.ndarray:
    """Pairs that share a band and whose signatures agree on at least `least` of their places.

    signatures: (n, permutations) uint32. Returns (m, 2) int64, first < second, sorted, each pair once.
    Time grows with the pairs inside buckets; memory with the pairs found.
    """
    mixers = np.random.default_rng(0).integers(1, 2**63, size=rows, dtype=np.uint64) | np.uint64(1)
    found: list[np.ndarray] = []
    for band in range(bands):
        part = signatures[:, band * rows : (band + 1) * rows].astype(np.uint64)
        key = np.zeros(len(part), np.uint64)
        for column in range(rows):
            key = (key ^ part[:, column]) * mixers[column]
            key ^= key >> np.uint64(29)
        order = np.argsort(key, kind="stable")
        for members in _runs(key[order], order):
            members = np.sort(members)
            for start in range(0, len(members), block):
                left = members[start : start + block]
                agree = _agreement(signatures[left], signatures[members[start:]])
                i, j = np.nonzero(agree >= least)
                first, second = left[i], members[start:][j]
                ahead = first < second
                if ahead.any():
                    found.append(np.stack([first[ahead], second[ahead]], axis=1))
    if not found:
        return np.empty((0, 2), np.int64)
    return np.unique(np.concatenate(found), axis=0)


def _runs(keys: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    edges = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    starts = np.concatenate([[0], edges])
    ends = np.concatenate([edges, [len(keys)]])
    for run in np.flatnonzero(ends - starts > 1):
        yield order[starts[run] : ends[run]]


def _agreement(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(a, b) share of equal places of every left with every right signature."""
    agree = np.zeros((len(left), len(right)), np.uint16)
    for column in range(left.shape[1]):
        agree += left[:, column, None] == right[None, :, column]
    return agree / left.shape[1]


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """Exact Jaccard similarity of two sorted arrays of distinct shingle hashes."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common) if common else 0.0


class UnionFind:
    """Disjoint sets over 0..n-1; the root of a set is its smallest member."""

    def __init__(self, n: int):
        self.parent = list(range(n))

    def find(self, x: int) -> int:
        while self.parent[x] != x:
            self.parent[x] = self.parent[self.parent[x]]
            x = self.parent[x]
        return x

    def union(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        if a != b:
            self.parent[max(a, b)] = min(a, b)
