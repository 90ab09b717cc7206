"""Soft clusters by symmetric NMF: the objective falls, halves are halves, new rows are placed by the rule of the fit."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from curate.algorithms import knn, landmarks, nmf
from curate.algorithms.kmeans import spherical_kmeans


def groups(seed=0, sizes=(90, 60, 50), d=16, noise=0.5):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    return knn.unit_rows(rng.normal(size=(len(sizes), d))[truth] + noise * rng.normal(size=(len(truth), d)))[0], truth


def landmark_ties(unit, p=40, r=4):
    points = spherical_kmeans(unit, p, 0, iterations=10, spread=False)[0]
    distances, indices = knn.search(unit, points, r)
    placed = landmarks.fit(distances, indices, len(points), 4, 0.0)
    weights = landmarks._ties(np.float64(distances), indices, placed.scales, placed.floor, placed.density)
    return csr_array((weights.ravel(), indices.ravel(), np.arange(len(unit) + 1) * r), shape=(len(unit), len(points)))


def dense_objective(affinity, factor):
    return np.square(affinity - factor @ factor.T).sum() - np.square(affinity).sum()


@pytest.mark.parametrize("signed", [False, True])
def test_the_objective_never_rises_and_is_that_of_the_dense_formula(signed):
    rng = np.random.default_rng(0)
    affinity = rng.normal(size=(80, 80)) if signed else rng.random((80, 80))
    affinity = affinity + affinity.T + 3 * np.kron(np.eye(4), np.ones((20, 20)))  # neither definite nor, if signed, >= 0
    start = nmf.start_from(rng.permutation(np.arange(80) % 4), 4)
    found = nmf.symmetric_nmf(lambda x: affinity @ x, start, 500, 1e-12)
    assert (np.diff(found.objective) <= 0).all() and found.objective[-1] < 0.9 * found.objective[0]
    assert found.objective[-1] == pytest.approx(dense_objective(affinity, found.factor), rel=1e-9)
    assert (found.factor >= 0).all() and found.gram == pytest.approx(found.factor.T @ found.factor)
    # Stationary: the slope is zero inside and points inwards at the border.
    slope = found.factor @ found.gram - affinity @ found.factor
    assert np.abs(np.minimum(slope, found.factor)).max() < 1e-3 * np.abs(affinity @ found.factor).max()


def test_a_factored_matrix_is_found_again():
    truth = np.zeros((60, 3))
    truth[np.arange(60), np.arange(60) % 3] = 1 + np.random.default_rng(0).random(60)
    truth[:6] = 0.5  # members of all three
    affinity = truth @ truth.T
    labels = np.arange(60) % 3
    found = nmf.symmetric_nmf(lambda x: affinity @ x, nmf.start_from(labels, 3), 2000, 1e-14)
    assert found.factor == pytest.approx(truth, abs=1e-4)


def test_clusters_apart_are_hard_and_their_sizes_do_not_matter():
    affinity = np.zeros((100, 100))
    for rows in (slice(0, 70), slice(70, 100)):  # rows sum to 1, as those of W
        affinity[rows, rows] = 1 / (rows.stop - rows.start)
    labels = np.repeat([0, 1], [70, 30])
    found = nmf.symmetric_nmf(lambda x: affinity @ x, nmf.start_from(labels, 2))
    shares = nmf.memberships(affinity @ found.factor, found.gram, found.mass)
    assert shares == pytest.approx(np.eye(2)[labels], abs=1e-6) and found.converged
    assert found.objective[-1] == pytest.approx(-np.square(affinity).sum())  # nothing is left of S


def test_a_row_half_in_each_cluster_has_two_halves():
    # Walk affinity of two clusters of 70 and 30 rows; the new row's ties go to both with the same mass.
    affinity = np.zeros((100, 100))
    affinity[:70, :70], affinity[70:, 70:] = 1 / 70, 1 / 30
    found = nmf.symmetric_nmf(lambda x: affinity @ x, nmf.start_from(np.repeat([0, 1], [70, 30]), 2))
    ties = np.concatenate([np.full(70, 0.5 / 70), np.full(30, 0.5 / 30)])
    quarter = np.concatenate([np.full(70, 0.25 / 70), np.full(30, 0.75 / 30)])
    shares = nmf.memberships(np.stack([ties, quarter, 0 * ties]) @ found.factor, found.gram, found.mass)
    assert shares == pytest.approx(np.array([[0.5, 0.5], [0.25, 0.75], [0.5, 0.5]]), abs=1e-9)
    assert nmf.entropy(shares)[0] == pytest.approx(np.log(2)) and nmf.entropy(np.eye(3)) == pytest.approx(0)


def test_a_row_of_the_fit_is_placed_where_the_fit_has_it_in_any_batch():
    unit, truth = groups(noise=0.8)
    ties = landmark_ties(unit)
    half = nmf.to_landmarks(ties)
    found = nmf.symmetric_nmf(lambda x: ties @ half(x), nmf.start_from(truth, 3), 3000, 1e-12)
    inside = found.factor * found.mass
    inside /= inside.sum(axis=1, keepdims=True)
    products = ties @ half(found.factor)
    placed = nmf.memberships(products, found.gram, found.mass)
    assert placed == pytest.approx(inside, abs=1e-3)
    assert placed.sum(axis=1) == pytest.approx(1) and (placed >= 0).all()
    parts = [nmf.memberships(part, found.gram, found.mass) for part in np.split(products, [1, 2, 77])]
    assert np.concatenate(parts).tobytes() == placed.tobytes()
    assert (placed.argmax(axis=1) == truth).mean() > 0.95


def test_landmark_products_are_those_of_the_dense_affinity():
    ties = landmark_ties(groups()[0])
    dense = ties.toarray()
    walk = (dense / dense.sum(axis=0)) @ dense.T
    x = np.random.default_rng(0).random((len(dense), 3))
    assert ties @ nmf.to_landmarks(ties)(x) == pytest.approx(walk @ x)


def test_a_poor_start_is_mended():
    unit, truth = groups(noise=0.4)
    ties = landmark_ties(unit)
    half = nmf.to_landmarks(ties)
    wrong = truth.copy()
    wrong[::6] = (wrong[::6] + 1) % 3
    found = nmf.symmetric_nmf(lambda x: ties @ half(x), nmf.start_from(wrong, 3))
    shares = nmf.memberships(ties @ half(found.factor), found.gram, found.mass)
    assert (shares.argmax(axis=1) == truth).all()


def test_graph_degrees_are_undone_by_root():
    # K joins a busy and a quiet cluster, and one row with the same weight to both: half and half whatever the degrees.
    kernel = np.zeros((21, 21))
    kernel[:10, :10], kernel[10:20, 10:20] = 9.0, 1.0
    kernel[20, :20] = kernel[:20, 20] = 1e-3
    kernel[20, 20] = 1e-9
    root = np.sqrt(kernel.sum(axis=1))
    affinity = kernel / np.outer(root, root)
    found = nmf.symmetric_nmf(lambda x: affinity @ x, nmf.start_from(np.repeat([0, 1], [10, 11]), 2), 5000, 1e-15, root)
    shares = nmf.memberships(kernel / root @ found.factor, found.gram, found.mass)
    assert shares[20] == pytest.approx([0.5, 0.5], abs=0.02)
    assert shares[:20] == pytest.approx(np.repeat(np.eye(2), 10, axis=0), abs=0.01)


def test_the_same_bytes_twice():
    unit, truth = groups()
    ties = landmark_ties(unit)
    half = nmf.to_landmarks(ties)
    one, two = (nmf.symmetric_nmf(lambda x: ties @ half(x), nmf.start_from(truth, 3)) for _ in range(2))
    assert one.factor.tobytes() == two.factor.tobytes()


def test_one_cluster_and_one_row():
    found = nmf.symmetric_nmf(lambda x: x, nmf.start_from(np.array([0]), 1))
    assert nmf.memberships(found.factor, found.gram, found.mass).tolist() == [[1.0]]


def test_mistakes_end_with_the_remedy():
    with pytest.raises(ValueError, match="without gaps"):
        nmf.start_from(np.array([0, 2]), 3)
    with pytest.raises(ValueError, match="start_from"):
        nmf.symmetric_nmf(lambda x: x, np.array([[1.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="S times its argument"):
        nmf.symmetric_nmf(lambda x: x[:1], np.eye(3))
    with pytest.raises(ValueError, match="check the affinity"):
        nmf.symmetric_nmf(lambda x: -x, np.eye(3))
    with pytest.raises(ValueError, match="leave them out"):
        nmf.to_landmarks(csr_array(np.array([[1.0, 0.0]])))
