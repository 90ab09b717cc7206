import numpy as np
import pytest

from curate.algorithms.hashed_ngrams import hashed_ngrams


def test_rows_are_unit_float32_whatever_the_text():
    vectors = hashed_ngrams(["Translate to French.", "", "  \n", "!!!", "a", "é🙂 字"])
    assert vectors.shape == (6, 384) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_blank_texts_share_a_vector_that_no_other_text_resembles():
    vectors = hashed_ngrams(["", " \t", "!!!", "blank", "0"], dimensions=16)
    assert np.array_equal(vectors[0], vectors[1])
    assert np.all(vectors[2:] @ vectors[0] == 0.0)


def test_near_copies_are_closer_than_strangers():
    a, b, c = hashed_ngrams(["Write a short poem about the sea.", "write a short poem about the seas", "Compute the integral of x."])
    assert a @ b > 0.8 > 0.4 > a @ c


def test_a_repeated_word_weighs_by_its_logarithm():
    once, often, other = hashed_ngrams(["cat dog", "cat dog dog dog dog dog dog dog dog", "dog"], dimensions=4096)
    assert once @ other < often @ other < 0.96  # 8 raw counts would give 0.99


def test_a_row_does_not_depend_on_its_neighbours():
    texts = [f"row number {n} says {n * n}" for n in range(50)]
    whole = hashed_ngrams(texts)
    assert np.array_equal(whole[17:20], hashed_ngrams(texts[17:20]))
    assert np.array_equal(whole[::-1], hashed_ngrams(texts[::-1]))


def test_one_dimension_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        hashed_ngrams(["x"], dimensions=1)
