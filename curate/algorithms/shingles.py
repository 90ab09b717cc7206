"""Texts as sets: hashes of what occurs in them, many texts at a time, no loop over words.

    words       runs of words, what stands between them left out (`word_hashes` says what is one)
    tokens      runs of words and symbols
    characters  runs of characters

And of each text a guard, which differs where the numbers, negations or operators of two texts do: "never", "3" and "<" can turn a text's meaning
round and hardly move its similarity.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from curate.algorithms.normal_form import NEGATIONS
from curate.algorithms.set_join import Sets, of_hashes
from curate.algorithms.word_hashes import find_words, hash_words, mix, ngram_hashes, symbols

Unit = Literal["tokens", "words", "characters"]


class Shingled(NamedTuple):
    """sets: of shingles, one a text, empty for a text shorter than a shingle; words: int32 (n,), symbols not counted; guard: uint64 (n,)."""

    sets: Sets
    words: np.ndarray
    guard: np.ndarray


def shingled(raw: np.ndarray, ends: np.ndarray, unit: Unit = "words", size: int = 5) -> Shingled:
    """Shingles of `size` units in a row of some texts in normal form.

    raw, ends   the texts' UTF-8 bytes one after the other, uint8, and where each begins and the last ends, int64 (texts + 1,)
    """
    starts, lengths, begins = find_words(raw, ends)
    hashes = hash_words(raw, starts, lengths)
    worded = ~symbols(raw, starts)
    before = np.concatenate([[0], np.cumsum(worded)])
    words = np.diff(before[begins]).astype(np.int32)
    guard = _guards(raw, starts, lengths, begins, hashes)
    if unit == "characters":
        units, begins = _characters(raw, ends)
    elif unit == "words":
        units, begins = hashes[worded], before[begins]
    else:
        units = hashes
    return Shingled(of_hashes(*ngram_hashes(units, begins, size)), words, guard)


def numbers(raw: np.ndarray, ends: np.ndarray) -> Sets:
    """The words of each text that hold a digit."""
    starts, lengths, begins = find_words(raw, ends)
    digits = np.concatenate([[0], np.cumsum((raw >= ord("0")) & (raw <= ord("9")))])
    telling = digits[starts + lengths] > digits[starts]
    before = np.concatenate([[0], np.cumsum(telling)])
    return of_hashes(hash_words(raw, starts, lengths)[telling], before[begins])


def _characters(raw: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A hash of every character, uint64, and where each text's begin."""
    leads = (raw & 0xC0) != 0x80
    starts = np.flatnonzero(leads)
    before = np.concatenate([[0], np.cumsum(leads)])
    return hash_words(raw, starts, np.diff(starts, append=len(raw))), before[ends]


def _guards(raw: np.ndarray, starts: np.ndarray, lengths: np.ndarray, begins: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """uint64 (texts,): a sum over operators and the words that hold a digit or negate, "n't" among them; in any order, each as often as it occurs."""
    digits = np.concatenate([[0], np.cumsum((raw >= ord("0")) & (raw <= ord("9")))])
    telling = digits[starts + lengths] > digits[starts]
    telling |= np.isin(hashes, _NEGATIONS)
    telling |= _OPERATOR[raw[starts]]
    t = np.flatnonzero((lengths == 1) & (raw[starts] == ord("t"))) if len(starts) else np.empty(0, np.int64)
    t = t[t - 2 >= begins[np.maximum(np.searchsorted(begins, t, side="right") - 1, 0)]]  # all three of one text
    after_mark = np.isin(hashes[t - 1], _MARKS) & (starts[t - 1] + lengths[t - 1] == starts[t])
    ends_in_n = raw[np.maximum(starts[t - 2] + lengths[t - 2] - 1, 0)] == ord("n")
    telling[t[after_mark & ends_in_n & (starts[t - 2] + lengths[t - 2] == starts[t - 1])]] = True
    weight = np.where(telling, mix(hashes), np.uint64(0))
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(weight, dtype=np.uint64)])
    return total[begins[1:]] - total[begins[:-1]]


def _hashes(words: list[str]) -> np.ndarray:
    raw = [word.encode() for word in words]
    ends = np.cumsum([0, *map(len, raw)])
    return hash_words(np.frombuffer(b"".join(raw), np.uint8), ends[:-1], np.diff(ends))


_OPERATOR = np.isin(np.arange(256), list(b"+-*/=<>%^&|~"))
_NEGATIONS = _hashes(sorted(NEGATIONS))
_MARKS = _hashes(["'", "’"])
