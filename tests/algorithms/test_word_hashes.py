import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.algorithms import presence, word_hashes
from curate.algorithms.line_shapes import line_shapes
from curate.algorithms.word_hashes import ngram_hashes

TEXTS = st.lists(st.text(alphabet="abcXYZ09_ \n\t.,;'“”…—é ß漢字ひ가ไทລາវ𠀀🙂\x00\u00a0¿", max_size=40), max_size=8)
WORD = re.compile(
    r"[\u0080-\u009f\u00a1-\u00bf\u0e00-\u0eff\u1780-\u17ff\u2000-\u207f\u3000-\udfff\U00020000-\U00033fff]"
    r"|[A-Za-z0-9_\u00c0-\u0dff\u0f00-\u177f\u1800-\u1fff\u2080-\u2fff\ue000-\U0001ffff\U00034000-\U0010ffff]+|([!-~])\1*"
)


def laid(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    data = [text.encode() for text in texts]
    return np.frombuffer(b"".join(data), np.uint8), np.cumsum([0, *map(len, data)])


def hashed(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    return word_hashes.word_hashes(*laid([text.lower() for text in texts]))


def spelled(text: str) -> list[str]:
    """The words of a text, read character by character: what `word_hashes` does by bytes."""
    return [found[0] for found in WORD.finditer(text.lower())]


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_words_are_those_that_a_reader_of_characters_finds(texts):
    hashes, begins = hashed(texts)
    words = [word for text in texts for word in spelled(text)]
    assert np.diff(begins).tolist() == [len(spelled(text)) for text in texts]
    # Equal words have equal hashes, and no others.
    assert len(set(zip(words, hashes.tolist(), strict=True))) == len(set(words)) == len(set(hashes.tolist()))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 17, 100])
def test_every_letter_of_a_word_counts_whatever_its_length(length):
    words = ["a" * length] + ["a" * i + "b" + "a" * (length - i - 1) for i in range(length)] + ["a" * (length + 1)]
    assert len(set(hashed(words)[0].tolist())) == length + 2


def test_ngrams_are_words_in_their_order_and_never_of_two_texts():
    hashes, begins = hashed(["a b c", "d", "", "b a", "a b"])
    pairs, at = ngram_hashes(hashes, begins, 2)
    assert np.diff(at).tolist() == [2, 0, 0, 1, 1]
    assert pairs[0] == pairs[3] and pairs[2] != pairs[0]
    assert np.diff(ngram_hashes(hashes, begins, 3)[1]).tolist() == [1, 0, 0, 0, 0]
    assert ngram_hashes(hashes[:0], np.zeros(3, int), 2)[1].tolist() == [0, 0, 0]


def test_the_hash_of_a_word_stays_what_it_is():
    """Stored filters hold weights by hash: another hash would make nonsense of them."""
    assert hashed(["word"])[0][0] == np.uint64(12402082536692102470)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(1, 3))
def test_a_text_is_the_set_of_its_ngrams(texts, order):
    buckets = 1 << 10
    weights = np.random.default_rng(0).normal(size=(2, buckets))
    model = np.arange(len(texts)) % 2
    matrix = presence.features([hashed(texts)], order, buckets)
    assert matrix.shape == (len(texts), buckets)
    for i, text in enumerate(texts):
        words, begins = hashed([text])
        found = {int(h) % buckets for n in range(1, order + 1) for h in ngram_hashes(words, begins, n)[0]}
        expected = np.zeros(buckets)
        expected[sorted(found)] = 1 / np.sqrt(len(found) or 1)
        np.testing.assert_allclose(matrix[[i]].toarray()[0], expected, rtol=1e-6)
    exact = np.einsum("tb,tb->t", matrix.toarray().astype(float), weights[model]) if texts else np.zeros(0)
    np.testing.assert_allclose(presence.products([hashed(texts)], order, weights, model), exact, rtol=1e-5, atol=1e-6)


def test_buckets_are_a_power_of_two():
    with pytest.raises(ValueError, match="power of two"):
        presence.features([hashed(["a"])], 1, 1000)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet=list("aB9. \n\t,)é”"), max_size=60), max_size=6))
def test_a_line_is_its_length_its_beginning_and_its_end(texts):
    def shape(line: str) -> tuple:
        words = line.split()
        kinds = {**dict.fromkeys("a", 2), "B": 1, "9": 3, "é": 4, "”": 4}
        ends = {".": 1, ",": 2, ")": 3, "9": 4, "é": 5, "”": 5}
        return int(np.searchsorted([2, 4, 8, 16, 32, 64], len(words), side="right")), kinds.get(words[0][0], 0), ends.get(words[-1][-1], 0)

    hashes, begins = line_shapes(*laid(texts))
    counts = np.diff(begins).tolist()
    lines = [[shape(line) for line in text.split("\n") if line.split()] for text in texts]
    assert counts == [len(found) for found in lines]
    shapes = [found for text in lines for found in text]
    assert len(set(zip(shapes, hashes.tolist(), strict=True))) == len(set(shapes)) == len(set(hashes.tolist()))
