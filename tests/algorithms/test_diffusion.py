"""Diffusion maps on a kNN graph: against dense algebra, with separate components, with copies."""

import numpy as np
import pytest

from curate.algorithms import diffusion, knn, spectral
from curate.algorithms.kmeans import spherical_kmeans


def circle(n=200):
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), angles


def rings(seed=0, each=200):
    """Three thin circles side by side on the sphere: k-means cuts across them, a graph does not."""
    angles = np.random.default_rng(seed).uniform(0, 2 * np.pi, size=3 * each)
    radius = np.repeat([0.2, 0.6, 1.0], each)
    return knn.unit_rows(np.stack([radius * np.cos(angles), radius * np.sin(angles), np.ones(3 * each)], axis=1))[0], np.repeat(
        [0, 1, 2], each
    )


def test_kernel_by_hand():
    # Two rows 1 apart, each the other's only neighbour: scales 1 and 1, weight exp(-1).
    graph = diffusion.self_tuned_graph(np.ones((2, 1)), np.array([[1], [0]]))
    assert graph.toarray() == pytest.approx(np.array([[0, np.exp(-1)], [np.exp(-1), 0]]))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_coordinates_are_eigenvectors_of_the_random_walk(alpha):
    rows, _ = rings()
    graph = diffusion.self_tuned_graph(*knn.nearest_others(rows, 15))
    found = diffusion.spectrum(graph, 6, alpha)
    kernel = graph.toarray()
    assert np.abs(kernel - kernel.T).max() == 0
    kernel = kernel / np.outer(kernel.sum(1), kernel.sum(1)) ** alpha
    walk = kernel / kernel.sum(axis=1, keepdims=True)
    psi = found.vectors / found.root[:, None]
    assert np.abs(walk @ psi - psi * found.values).max() < 1e-6 * np.abs(psi).max()


def test_a_circle_comes_back_as_a_circle():
    rows, angles = circle()
    found = diffusion.coordinates(diffusion.spectrum(diffusion.self_tuned_graph(*knn.nearest_others(rows, 10)), 3))
    turned = np.unwrap(np.arctan2(found[:, 1], found[:, 0]))
    assert abs(abs(turned[-1] - turned[0]) - angles[-1]) < 0.01
    assert np.ptp(np.hypot(found[:, 0], found[:, 1])) < 1e-6


def test_components_before_eigenvectors():
    rows, truth = rings()
    graph = diffusion.self_tuned_graph(*knn.nearest_others(rows, 6))
    found = diffusion.spectrum(graph, 3)
    assert found.constant.sum() == diffusion.components(graph).max() + 1 == 3
    _, labels = spherical_kmeans(spectral.row_normalised(found.vectors), 3, 0)
    assert all(len(set(labels[truth == ring])) == 1 for ring in range(3)) and len(set(labels)) == 3
    _, plain = spherical_kmeans(rows, 3, 0)
    assert any(len(set(plain[truth == ring])) > 1 for ring in range(3))


def test_sparse_and_dense_solvers_agree(monkeypatch):
    rows = knn.unit_rows(np.random.default_rng(0).normal(size=(400, 5)))[0]
    graph = diffusion.self_tuned_graph(*knn.nearest_others(rows, 15))
    dense = diffusion.spectrum(graph, 5)
    monkeypatch.setattr(diffusion, "_DENSE", 10)
    sparse = diffusion.spectrum(graph, 5)
    assert np.abs(dense.values - sparse.values).max() < 1e-8
    assert np.abs(dense.vectors - sparse.vectors).max() < 1e-5


def test_copies_do_not_give_nan():
    rows = np.repeat(circle(6)[0], 20, axis=0)
    found = diffusion.spectrum(diffusion.self_tuned_graph(*knn.nearest_others(rows, 10)), 8)
    assert np.isfinite(found.vectors).all() and np.isfinite(diffusion.coordinates(found)).all()
