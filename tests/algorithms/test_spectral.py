"""How many clusters, and what is told about them."""

import numpy as np
import pytest

from curate.algorithms.spectral import cluster_means, compare, eigengap, row_normalised, similarity_to_own


def test_the_gap_decides():
    values = [1.0, 0.98, 0.95, 0.5, 0.45, 0.1]
    assert eigengap(values, 2, 5)[0] == 3
    assert eigengap(values, 4, 5)[0] == 5
    assert eigengap(values, 2, 5)[1] == pytest.approx([0.02, 0.03, 0.45, 0.05, 0.35])


def test_never_fewer_than_the_components_nor_more_than_k_max():
    assert eigengap([1, 1, 1, 0.9, 0.1], 2, 5, components=3)[0] == 4
    assert eigengap([1, 1, 1, 1, 1, 0.2], 2, 3, components=5)[0] == 3


def test_fewer_eigenvalues_than_k_min():
    assert eigengap([1.0], 4, 20)[0] == 1
    assert eigengap([1.0, 0.5], 4, 20)[0] == 2


def test_rows_get_length_one_and_a_row_of_zeros_no_nan():
    assert row_normalised(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[np.float32(0.6), np.float32(0.8)], [0, 0]]


def test_similarity_to_the_own_mean():
    unit = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    labels = np.array([0, 0, 1])
    means = cluster_means(unit, labels)
    assert means[0] == pytest.approx([2**-0.5, 2**-0.5])
    assert similarity_to_own(unit, labels, means) == pytest.approx([2**-0.5, 2**-0.5, 1])


def test_comparison_of_equal_and_of_unrelated_labelings():
    rng = np.random.default_rng(0)
    unit = np.eye(4, dtype=np.float32)[np.arange(400) % 4]
    truth = np.arange(400) % 4
    same = compare(unit, truth, (truth + 1) % 4, seed=0)
    assert same["nmi"] == pytest.approx(1) and same["ari"] == pytest.approx(1) and same["own_within"] == pytest.approx(1)
    other = compare(unit, rng.integers(4, size=400), truth, seed=0)
    assert other["ari"] < 0.05 and other["own_silhouette"] < 0.1 < other["kmeans_silhouette"]
    assert compare(unit, np.zeros(400, int), truth, seed=0)["own_silhouette"] == 0
