"""Spherical k-means: finds directions, keeps labels in a stable order, leaves none empty."""

import numpy as np
import pytest

from curate.algorithms.kmeans import spherical_kmeans, stable_order
from curate.algorithms.knn import unit_rows


def bundles(sizes, d=20, noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    return unit_rows(np.eye(d)[truth] + noise * rng.normal(size=(len(truth), d)))[0], truth


def test_bundles_are_found_and_the_largest_is_label_0():
    rows, truth = bundles([5, 30, 12])
    centers, labels = spherical_kmeans(rows, 3, seed=0, restarts=3)
    assert labels.tolist() == np.array([2, 0, 1])[truth].tolist()
    assert centers.argmax(axis=1).tolist() == [1, 2, 0]
    assert np.linalg.norm(centers, axis=1) == pytest.approx([1, 1, 1], abs=1e-6)


def test_equal_sizes_go_by_first_member():
    assert stable_order(np.array([7, 3, 7, 3, 9, 9, 9]))[1].tolist() == [1, 2, 1, 2, 0, 0, 0]


def test_fewer_distinct_rows_than_clusters():
    rows = np.repeat(bundles([1, 1])[0], 10, axis=0)
    for spread in (True, False):
        centers, labels = spherical_kmeans(rows, 5, seed=0, spread=spread)
        assert len(centers) == 2 and np.bincount(labels).tolist() == [10, 10]


def test_identical_rows_are_one_cluster_without_nan():
    centers, labels = spherical_kmeans(np.repeat(bundles([1])[0], 9, axis=0), 4, seed=0)
    assert len(centers) == 1 and np.isfinite(centers).all() and not labels.any()


def test_no_label_is_empty_with_many_centers():
    rows, _ = bundles([50, 50], noise=0.5)
    for seed in range(5):
        centers, labels = spherical_kmeans(rows, 60, seed, iterations=1, spread=False)
        assert 50 < len(centers) <= 60
        assert (np.bincount(labels, minlength=len(centers)) > 0).all() and labels.max() == len(centers) - 1


def test_same_seed_same_bytes():
    rows, _ = bundles([50, 50], noise=0.5)
    one, two = spherical_kmeans(rows, 7, 3), spherical_kmeans(rows, 7, 3)
    assert one[0].tobytes() == two[0].tobytes() and one[1].tobytes() == two[1].tobytes()
