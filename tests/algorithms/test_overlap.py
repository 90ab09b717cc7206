"""Near repeats between two sets of texts, held against sets of words in plain Python."""

import numpy as np
import pyarrow as pa
import pytest

from curate.algorithms.overlap import near_repeats
from curate.algorithms.word_hashes import word_hashes
from curate.byte_blocks import byte_blocks


def words(*texts: str, block: int = 1 << 20):
    return [word_hashes(*part) for part in byte_blocks(pa.array(texts, pa.large_string()), block=block)]


def plain(a: str, b: str, order: int = 5) -> float:
    def grams(text: str) -> set[tuple[str, ...]]:
        cut = text.lower().split()
        return {tuple(cut[i : i + order]) for i in range(len(cut) - order + 1)} or {tuple(cut)}

    left, right = grams(a), grams(b)
    return len(left & right) / len(left | right)


def test_pairs_and_similarities_are_those_of_sets():
    random = np.random.default_rng(0)
    base = [" ".join(random.choice(list("abcdefghij"), 40)) for _ in range(12)]
    changed = [text.replace("a", "z", 1) if i % 3 else text for i, text in enumerate(base)]
    pairs, found = near_repeats(words(*base, block=100), words(*changed[::-1]), least=0.3)
    expected = {(i, j): plain(a, b) for i, a in enumerate(base) for j, b in enumerate(changed[::-1])}
    expected = {pair: value for pair, value in expected.items() if value >= 0.3}
    assert {tuple(pair): value for pair, value in zip(pairs.tolist(), found, strict=True)} == pytest.approx(expected)
    assert len(expected) >= 12 and pairs.tolist() == sorted(pairs.tolist())


def test_short_texts_are_compared_whole_and_blank_ones_never():
    pairs, found = near_repeats(words("yes sir", "no", ""), words("yes sir", "", "no way"), least=0.1)
    assert pairs.tolist() == [[0, 0]] and found.tolist() == [1.0]


def test_nothing_to_compare():
    pairs, found = near_repeats(words(), words("a b c d e f"), least=0.5)
    assert pairs.shape == (0, 2) and len(found) == 0


def test_a_text_may_be_contained_in_a_longer_one():
    text = "one two three four five six seven"
    longer = f"menu home about {text} copyright all rights reserved " + "more " * 40
    assert near_repeats(words(text), words(longer), least=0.5)[0].tolist() == []
    pairs, found = near_repeats(words(text), words("other", longer), least=0.5, contained=True)
    assert pairs.tolist() == [[0, 1]] and found.tolist() == [1.0]
    assert near_repeats(words(longer), words(text), least=0.5, contained=True)[0].tolist() == []  # not the other way round
