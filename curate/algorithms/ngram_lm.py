"""An n-gram language model of words: interpolated Kneser-Ney (Kneser, Ney 1995; Chen, Goodman 1999), counted and looked up by hash.

    p_n(w | context) = max(c(context w) - D_n, 0) / c(context .)  +  D_n N(context .) / c(context .) * p_{n-1}(w | the context without its first word)

c counts occurrences at the highest order and after the beginning of a text; elsewhere how many different words stand before the n-gram. N counts
the different words that follow. D_n = n1 / (n1 + 2 n2), of the n-grams counted once and twice. The last order falls back on 1 / words of the vocabulary.
A word outside the vocabulary is the unknown word, and then spelled, byte by byte given the byte before: strange words cost what they are worth.
N-grams are known by 64 bits: among ten million, some two share a hash once in three hundred thousand models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from curate.algorithms.hash_table import HashTable
from curate.algorithms.word_hashes import find_words, hash_words, longer

_BEGIN = np.uint64(0x2545F4914F6CDD1D)  # stands before the first word of a text
_UNKNOWN = np.uint64(0x5851F42D4C957F2D)  # stands for every word outside the vocabulary


class Counter:
    """Collects the words of a corpus, block by block: eight bytes a word."""

    def __init__(self) -> None:
        self._words = [np.zeros(0, np.uint64)]
        self._lengths = [np.zeros(0, np.int64)]
        self._letters = np.zeros((256, 256))

    @property
    def words(self) -> int:
        return sum(map(len, self._words))

    def add(self, raw: np.ndarray, ends: np.ndarray) -> None:
        """`raw` and `ends` as in `word_hashes`."""
        starts, lengths, begins = find_words(raw, ends)
        words = hash_words(raw, starts, lengths)
        self._words.append(words)
        self._lengths.append(np.diff(begins))
        # Each different word of a block once: what unknown words look like, not what "the" looks like.
        once = np.sort(np.unique(words, return_index=True)[1])
        before, byte, _ = _letter_pairs(raw, starts[once], lengths[once])
        self._letters += np.bincount(before * 256 + byte, minlength=256 * 256).reshape(256, 256)

    def model(self, order: int = 3, least: int = 2) -> NgramLM:
        """least  occurrences that a word needs to be in the vocabulary"""
        words = np.concatenate(self._words)
        begins = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))])
        vocabulary, counts = np.unique(words, return_counts=True)
        vocabulary = vocabulary[counts >= least]
        known = HashTable(vocabulary, np.ones(len(vocabulary), np.float32))
        tokens, place, _ = _with_beginnings(np.where(known.get(words, 0.0) > 0, words, _UNKNOWN), begins)
        ending = [tokens]  # hashes of the n-grams that end at each token
        for _ in range(1, order):
            ending.append(longer(ending[-1], tokens))
        grams, rests, floor = [], [], 1.0
        for n in range(1, order + 1):
            at = np.flatnonzero(place >= max(n - 1, 1))  # a beginning is never foretold
            found, first, count = np.unique(ending[n - 1][at], return_index=True, return_counts=True)
            first = at[first]
            if n < order:  # after a beginning nothing else can stand before: it keeps its occurrences
                count = np.where(place[first] == n - 1, count, _predecessors(found, ending[n - 1], ending[n], place, n))
            context = ending[n - 2][first - 1] if n > 1 else np.zeros(len(found), np.uint64)
            discount = _discount(count)
            contexts, of = np.unique(context, return_inverse=True)
            total = np.bincount(of, count)
            rest = discount * np.bincount(of, count > 0) / total
            grams.append(HashTable(found, (np.maximum(count - discount, 0) / total[of]).astype(np.float32)))
            if n > 1:
                rests.append(HashTable(contexts, rest.astype(np.float32)))
            else:
                floor = float(rest[0]) / len(found)
        letters = self._letters + 0.5
        spelling = -np.log(letters / letters.sum(axis=1, keepdims=True))
        return NgramLM(order, known, grams, rests, floor, spelling.astype(np.float32))


@dataclass
class NgramLM:
    """known    1 for each word of the vocabulary
    grams    by order: what an n-gram has of its own
    rests    by order, from the second on: what a context leaves to the shorter one
    floor    what the first order leaves for each word
    spelling float32 (256, 256): cost in nats of a byte given the one before; 0 before the first and after the last
    """

    order: int
    known: HashTable
    grams: list[HashTable]
    rests: list[HashTable]
    floor: float
    spelling: np.ndarray

    def losses(self, raw: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each text: cost of its words in nats, float64; its words; those outside the vocabulary. `raw` and `ends` as in `word_hashes`."""
        starts, lengths, begins = find_words(raw, ends)
        words = hash_words(raw, starts, lengths)
        unknown = np.flatnonzero(self.known.get(words, 0.0) == 0)
        words[unknown] = _UNKNOWN
        tokens, place, at = _with_beginnings(words, begins)
        probability = self.grams[0].get(tokens, 0.0).astype(np.float64) + self.floor
        ending = tokens
        for n in range(2, self.order + 1):
            context, ending = ending, longer(ending, tokens)
            full = np.flatnonzero(place >= n - 1)
            rest = self.rests[n - 2].get(context[full - 1], 1.0)
            probability[full] = self.grams[n - 1].get(ending[full], 0.0) + rest * probability[full]
        cost = -np.log(probability[at])
        before, byte, word = _letter_pairs(raw, starts[unknown], lengths[unknown])
        cost[unknown] += np.bincount(word, self.spelling[before, byte], minlength=len(unknown))
        text = np.repeat(np.arange(len(begins) - 1), np.diff(begins))
        texts = len(begins) - 1
        return np.bincount(text, cost, minlength=texts), np.diff(begins), np.bincount(text[unknown], minlength=texts)

    def losses_of(self, blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`losses` of one block after the other."""
        parts = [(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)), *(self.losses(*block) for block in blocks)]
        nats, words, unknown = (np.concatenate(part) for part in zip(*parts, strict=True))
        return nats, words, unknown


def _with_beginnings(words: np.ndarray, begins: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens with a beginning before each text; the place of each in its text, 0 for the beginning; where each word went)"""
    texts = len(begins) - 1
    at = np.arange(len(words)) + np.repeat(np.arange(1, texts + 1), np.diff(begins))
    tokens = np.full(len(words) + texts, _BEGIN)
    tokens[at] = words
    heads = begins[:-1] + np.arange(texts)
    return tokens, np.arange(len(tokens)) - np.repeat(heads, np.diff(begins) + 1), at


def _predecessors(found: np.ndarray, ending: np.ndarray, longer_ending: np.ndarray, place: np.ndarray, n: int) -> np.ndarray:
    """How many different words stand before each n-gram of `found`, int64; the beginning of a text counts as one."""
    at = np.flatnonzero(place >= n)
    once = at[np.unique(longer_ending[at], return_index=True)[1]]
    grams, count = np.unique(ending[once], return_counts=True)
    table = np.zeros(len(found), np.int64)
    table[np.searchsorted(found, grams)] = count
    return table


def _discount(counts: np.ndarray) -> float:
    ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
    return ones / (ones + 2 * twos) if ones and twos else 0.5


def _letter_pairs(raw: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(byte before, byte, word) of every byte of these words and of their ends; 0 stands before the first and after the last."""
    word = np.repeat(np.arange(len(starts)), lengths + 1)
    heads = np.cumsum(lengths + 1) - (lengths + 1)
    place = np.arange(len(word)) - heads[word]
    at = starts[word] + place
    byte = np.where(place < lengths[word], raw[np.minimum(at, len(raw) - 1)], 0) if len(raw) else np.zeros(0, np.int64)
    before = np.where(place > 0, raw[np.maximum(at - 1, 0)], 0) if len(raw) else np.zeros(0, np.int64)
    return before.astype(np.int64), byte.astype(np.int64), word
