"""Landmark coordinates: the eigenvectors of W = Z L^-1 Z^T, exact out of sample, the same in any batch."""

import numpy as np
import pytest

from curate.algorithms import knn, landmarks
from curate.algorithms.kmeans import spherical_kmeans


def cloud(seed=0, n=600, d=24, groups=5, noise=0.15):
    rng = np.random.default_rng(seed)
    truth = rng.integers(groups, size=n)
    directions = rng.normal(size=(groups, d)) / np.sqrt(d)
    return knn.unit_rows(directions[truth] + noise * rng.normal(size=(n, d)) / np.sqrt(d) * 3)[0], truth


def fitted(unit, p=60, r=5, dims=12, alpha=0.0):
    points, _ = spherical_kmeans(unit, p, 0, iterations=10, spread=False)
    distances, indices = knn.search(unit, points, r)
    return points, distances, indices, landmarks.fit(distances, indices, len(points), dims, alpha)


def dense_walk(distances, indices, placed, p):
    ties = landmarks._ties(np.float64(distances), indices, placed.scales, placed.floor, placed.density)
    z = np.zeros((len(ties), p))
    np.put_along_axis(z, indices, ties, axis=1)
    return (z / z.sum(axis=0)) @ z.T


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_coordinates_are_eigenvectors_of_the_row_graph(alpha):
    unit, _ = cloud()
    points, distances, indices, placed = fitted(unit, alpha=alpha)
    walk = dense_walk(distances, indices, placed, len(points))
    assert np.abs(walk - walk.T).max() < 1e-12 and np.abs(walk.sum(axis=1) - 1).max() < 1e-12
    u = landmarks.coordinates(distances, indices, placed)
    assert np.abs(walk @ u - u * placed.values).max() < 1e-9
    assert np.abs(u.T @ u - np.eye(u.shape[1])).max() < 1e-9
    brute = np.linalg.eigvalsh(walk)[::-1][: len(placed.values)]
    assert np.abs(brute - placed.values).max() < 1e-9


def test_a_row_of_the_fit_given_again_gets_its_own_coordinates_in_any_batch():
    unit, _ = cloud(d=384)
    points, distances, indices, placed = fitted(unit)
    whole = landmarks.coordinates(distances, indices, placed)
    parts = [landmarks.coordinates(*knn.search(part, points, 5), placed) for part in np.split(unit, [1, 2, 9, 300])]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_separate_components_are_solved_apart():
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], [300, 200, 100])
    spread = np.zeros((600, 30))
    spread[np.arange(600), truth * 10] = 1
    for group in range(3):  # each group in its own ten dimensions: no landmark is near two of them
        spread[truth == group, group * 10 : group * 10 + 10] += 0.2 * rng.normal(size=((truth == group).sum(), 10))
    unit = knn.unit_rows(spread)[0]
    _, distances, indices, placed = fitted(unit, p=60, r=3, dims=2)
    assert placed.constant.tolist() == [True, True, True] and placed.values[:3] == pytest.approx([1, 1, 1])
    u = landmarks.coordinates(distances, indices, placed)
    assert ((np.abs(u) > 1e-9).argmax(axis=1) == truth).all()  # component 0 is the largest
    assert ((np.abs(u) > 1e-9).sum(axis=1) == 1).all()


def test_identical_rows_give_one_constant_coordinate():
    unit = np.repeat(cloud()[0][:1], 20, axis=0)
    _, distances, indices, placed = fitted(unit, p=5, r=1)
    u = landmarks.coordinates(distances, indices, placed)
    assert u.shape == (20, 1) and np.isfinite(u).all() and np.ptp(u) == 0


def test_signs_and_bytes_are_fixed():
    unit, _ = cloud()
    one, two = fitted(unit)[3], fitted(unit)[3]
    assert one.basis.tobytes() == two.basis.tobytes()


def test_an_unused_landmark_is_refused():
    with pytest.raises(ValueError, match="leave them out"):
        landmarks.fit(np.ones((4, 1)), np.zeros((4, 1), int), 2, 2)
