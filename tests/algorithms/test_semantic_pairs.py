import numpy as np

from curate.algorithms.knn import unit_rows
from curate.algorithms.semantic_pairs import leaders, near_by_cosine


def test_a_row_falls_to_a_survivor_only():
    """0 like 1, 1 like 2: 2 is like a row that is gone, and stays."""
    survivor, alike = leaders(np.array([[0, 1], [1, 2]]), np.array([0.9, 0.95]), np.arange(3))
    assert survivor.tolist() == [0, 0, 2] and alike[1] == 0.9 and np.isnan(alike[2])


def test_of_two_survivors_the_more_similar_one_is_named():
    assert leaders(np.array([[0, 2], [1, 2]]), np.array([0.9, 0.95]), np.array([0, 1, 2]))[0].tolist() == [0, 1, 1]
    assert leaders(np.array([[0, 2], [1, 2]]), np.array([0.9, 0.9]), np.array([1, 0, 2]))[0].tolist() == [0, 1, 1]


def test_pairs_are_those_at_the_bound_inside_groups():
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(60, 8))
    vectors[30:] = vectors[:30] + 0.2 * chance.normal(size=(30, 8))
    unit, _ = unit_rows(vectors)
    cosine = unit.astype(float) @ unit.T.astype(float)
    for groups in (None, np.arange(60) % 2):
        pairs, alike = near_by_cosine(unit, 0.8, groups)
        wanted = [(i, j) for i in range(60) for j in range(i + 1, 60) if cosine[i, j] >= 0.8 and (groups is None or groups[i] == groups[j])]
        assert pairs.tolist() == [list(pair) for pair in wanted] and len(wanted) > 10
        assert np.allclose(alike, [cosine[pair] for pair in wanted], atol=1e-6)
