import numpy as np
import pyarrow as pa
import pytest

from curate.algorithms.word_hashes import word_hashes
from curate.byte_blocks import byte_blocks
from curate.score._members import Member


def words(column, **settings):
    parts = [word_hashes(*block) for block in byte_blocks(column, **settings)]
    return np.concatenate([found for found, _ in parts]), [int(n) for _, begins in parts for n in np.diff(begins)]


def test_blocks_do_not_change_what_is_read():
    texts = ["one two", "", "x" * 50 + " end", None, "y z " * 40, "One TWO"]
    column = pa.chunked_array([pa.array(texts[:2], pa.large_string()), pa.array(texts[2:], pa.large_string())])
    assert sum(1 for _ in byte_blocks(column, block=30)) > 3
    found, counts = words(column, block=30)
    assert counts == [2, 0, 2, 0, 80, 2]
    np.testing.assert_array_equal(found, words(column)[0])
    np.testing.assert_array_equal(found[:2], found[-2:])
    np.testing.assert_array_equal(words(column.slice(1, 3))[0], found[2:4])
    assert not np.array_equal(words(column, fold=False)[0][-2:], found[-2:])


def test_characters_not_bytes_are_cut():
    np.testing.assert_array_equal(words(pa.array(["äöü abc def"]), characters=7)[0], words(pa.array(["äöü abc"]))[0])


@pytest.mark.parametrize("name", ["words", "lines", "embedding", "scores"])
def test_products_are_those_of_the_features(name):
    texts = ["One, two.\n- three", "", "four five six\nseven", "two, one."]
    generator = np.random.default_rng(0)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(generator.normal(size=16).astype(np.float32)), 4)
    table = pa.table({"text": pa.array(texts, pa.large_string()), "vector": vectors})
    table = table.set_column(1, "vector", pa.array([*vectors.to_pylist()[:3], None], pa.list_(pa.float32(), 4)))
    table = table.append_column("a", pa.array([1.5, None, float("inf"), -2.0])).append_column("b", pa.array([1, 2, 3, 4]))
    member = Member(name, 64, 100, "vector", ("a", "b"))
    features = member.features(table)
    dense = (features if name in ("embedding", "scores") else features.toarray()).astype(np.float64)
    weights, model = generator.normal(size=(2, dense.shape[1])), np.array([0, 1, 1, 0])
    np.testing.assert_allclose(member.products(table, weights, model), (dense * weights[model]).sum(axis=1), rtol=1e-5, atol=1e-7)
    if name == "embedding":
        assert not dense[3].any()
    if name == "scores":  # a number, and whether there is one
        assert dense.tolist() == [[1.5, 1, 1, 1], [0, 0, 2, 1], [0, 0, 3, 1], [-2, 1, 4, 1]]
