"""Diffusion maps on a kNN graph: against dense algebra, on known shapes, with nothing to cluster, outside the fit."""

import numpy as np
import pytest

from curate.algorithms import bridges, diffusion, knn, spectral
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
    # Two rows 1 apart, each the other's only neighbour: scales 1 and 1, weight exp(-1), and 1 to itself.
    graph = diffusion.self_tuned_graph(np.ones((2, 1)), np.array([[1], [0]]))
    assert graph.toarray() == pytest.approx(np.array([[1, np.exp(-1)], [np.exp(-1), 1]]))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
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


def test_a_copy_of_an_eigenvalue_that_lanczos_lost_is_found(monkeypatch):
    """An even circle has every eigenvalue twice. A stand-in for ARPACK loses one of them, as Lanczos methods may."""
    from scipy.sparse import linalg

    graph = diffusion.self_tuned_graph(*knn.nearest_others(circle(400)[0], 10))
    whole = diffusion.spectrum(graph, 7)
    monkeypatch.setattr(diffusion, "_DENSE", 10)
    honest, asked = linalg.eigsh, []

    def forgetful(operator, k, **settings):
        asked.append(k)
        if len(asked) > 1:
            return honest(operator, k=k, **settings)
        values, vectors = honest(operator, k=k + 1, **settings)
        order = np.argsort(-values)
        return np.delete(values[order], 1), np.delete(vectors[:, order], 1, axis=1)

    monkeypatch.setattr(linalg, "eigsh", forgetful)
    found = diffusion.spectrum(graph, 7)
    assert asked == [6, 1]
    assert found.values == pytest.approx(whole.values, abs=1e-9)


def test_an_eigenproblem_that_is_not_solved_is_an_error(monkeypatch):
    from scipy.sparse import linalg

    graph = diffusion.self_tuned_graph(*knn.nearest_others(circle(400)[0], 10))
    monkeypatch.setattr(diffusion, "_DENSE", 10)
    monkeypatch.setattr(linalg, "eigsh", lambda operator, k, **settings: (np.full(k, 2.0), np.eye(operator.shape[0], k)))
    with pytest.raises(RuntimeError, match="ask for fewer dims, or use landmarks"):
        diffusion.spectrum(graph, 7)


def test_copies_do_not_give_nan():
    rows = np.repeat(circle(6)[0], 20, axis=0)
    found = diffusion.spectrum(diffusion.self_tuned_graph(*knn.nearest_others(rows, 10)), 8)
    assert np.isfinite(found.vectors).all() and np.isfinite(diffusion.coordinates(found)).all()


# Shapes


def labels_of(rows, k, neighbours=10):
    graph = diffusion.self_tuned_graph(*knn.nearest_others(rows, neighbours))
    found = diffusion.spectrum(graph, k)
    return spherical_kmeans(spectral.row_normalised(found.vectors), k, 0, restarts=5)[1]


def partition(labels):
    """The groups, whatever they are called and in whatever order."""
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}


def sheets(seed=0, each=600):
    """Two half cylinders, one inside the other, thickened a little, on the sphere."""
    rng = np.random.default_rng(seed)
    angle, height = rng.uniform(0, np.pi, 2 * each), rng.uniform(-0.5, 0.5, 2 * each)
    radius = np.repeat([0.5, 1.0], each) + rng.normal(scale=0.01, size=2 * each)
    rows = np.stack([radius * np.cos(angle), radius * np.sin(angle), height, np.ones(2 * each)], axis=1)
    return knn.unit_rows(rows)[0], np.repeat([0, 1], each)


def test_curved_sheets_are_told_apart_where_k_means_cuts_across():
    rows, truth = sheets()
    assert partition(labels_of(rows, 2)) == partition(truth)
    assert partition(spherical_kmeans(rows, 2, 0, restarts=5)[1]) != partition(truth)


def test_nested_circles_are_told_apart_also_where_the_graph_joins_them():
    angles = np.random.default_rng(1).uniform(0, 2 * np.pi, 600)
    radius = np.repeat([0.3, 1.0], 300)
    rows = knn.unit_rows(np.stack([radius * np.cos(angles), radius * np.sin(angles), np.ones(600)], axis=1))[0]
    truth = np.repeat([0, 1], 300)
    distances, indices = knn.nearest_others(rows, 10)
    graph = diffusion.self_tuned_graph(distances, indices)
    assert diffusion.components(graph).max() == 1
    joined = bridges.bridge(graph, rows, diffusion.scales(distances))
    for one in (graph, joined):
        found = diffusion.spectrum(one, 2)
        assert partition(spherical_kmeans(spectral.row_normalised(found.vectors), 2, 0, restarts=5)[1]) == partition(truth)


def test_a_rotation_changes_no_label_and_coordinates_by_rounding_only():
    rows, _ = sheets(2, 200)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    turned = knn.unit_rows(rows @ turn)[0]
    assert partition(labels_of(rows, 4)) == partition(labels_of(turned, 4))
    first, second = (diffusion.spectrum(diffusion.self_tuned_graph(*knn.nearest_others(r, 10)), 4) for r in (rows, turned))
    assert np.abs(first.vectors - second.vectors).max() < 1e-4  # the rows are float32


@pytest.mark.parametrize("dense", [10, 5000])
def test_the_order_of_the_rows_changes_only_the_order_of_the_coordinates(monkeypatch, dense):
    monkeypatch.setattr(diffusion, "_DENSE", dense)
    rows = knn.unit_rows(np.random.default_rng(3).normal(size=(900, 6)))[0]
    order = np.random.default_rng(4).permutation(len(rows))
    first, second = (diffusion.spectrum(diffusion.self_tuned_graph(*knn.nearest_others(r, 10)), 8) for r in (rows, rows[order]))
    assert np.diff(first.values).max() < -1e-4  # no two are equal, so each vector is determined
    assert np.abs(first.values - second.values).max() < 1e-12
    assert np.abs(first.vectors[order] - second.vectors).max() < 1e-8
    assert np.abs(diffusion.coordinates(first, 3)[order] - diffusion.coordinates(second, 3)).max() < 1e-8


# Nothing to cluster


def test_all_rows_alike_have_one_place():
    rows = np.repeat(circle(1)[0], 60, axis=0)
    for neighbours in (7, 59):
        found = diffusion.spectrum(diffusion.self_tuned_graph(*knn.nearest_others(rows, neighbours)), 4)
        assert found.constant.sum() == 1 and np.isfinite(diffusion.coordinates(found)).all()
        assert (spherical_kmeans(rows, 4, 0)[1] == 0).all()


def test_one_row_is_its_own_component():
    found = diffusion.spectrum(diffusion.self_tuned_graph(np.empty((1, 0)), np.empty((1, 0), np.int64)), 5)
    assert found.values.tolist() == [1.0] and found.constant.tolist() == [True] and found.component.tolist() == [0]
    assert diffusion.coordinates(found).shape == (1, 0)
    placed = diffusion.extend(np.zeros((2, 1)), np.zeros((2, 1), np.int64), diffusion.extension(found, np.empty((1, 0))))
    assert placed.shape == (2, 0)


def test_fewer_rows_than_neighbours_and_than_dimensions():
    rows = circle(5)[0]
    with pytest.raises(ValueError, match="lower k below 5"):
        knn.nearest_others(rows, 7)
    found = diffusion.spectrum(diffusion.self_tuned_graph(*knn.nearest_others(rows, 4)), 20)
    assert found.vectors.shape == (5, 5) and np.abs(found.vectors.T @ found.vectors - np.eye(5)).max() < 1e-9


def test_rows_without_direction_are_reported_before_they_reach_the_graph():
    rows = circle(40)[0].copy()
    rows[3], rows[7, 0] = 0, np.nan
    unit, bad = knn.unit_rows(rows)
    assert bad.tolist() == [3, 7]
    assert np.isfinite(diffusion.spectrum(diffusion.self_tuned_graph(*knn.nearest_others(np.delete(unit, bad, 0), 5)), 3).vectors).all()


def test_more_components_than_fit_in_memory_say_what_to_do(monkeypatch):
    monkeypatch.setattr(diffusion, "_MOST_NUMBERS", 1000)
    rows = np.repeat(circle(20)[0], 10, axis=0)
    with pytest.raises(ValueError, match=r"20 components of 200 rows: join them with bridges\.bridge"):
        diffusion.spectrum(diffusion.self_tuned_graph(*knn.nearest_others(rows, 3)), 2)


def test_alpha_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="alpha 2"):
        diffusion.spectrum(diffusion.self_tuned_graph(np.ones((2, 1)), np.array([[1], [0]])), 1, alpha=2)


# Time


def test_entropy_knee_by_hand():
    # 40 small eigenvalues are gone after a few steps, 3 large ones stay: the knee is where the small ones are gone.
    values = np.r_[1.0, 0.999, 0.998, np.full(40, 0.5)]
    assert 5 <= diffusion.von_neumann_time(values) <= 12
    assert diffusion.von_neumann_time(np.r_[1.0, 0.999, 0.998, np.full(40, 0.9)]) > 20


def test_the_knee_is_where_two_straight_lines_fit_the_entropy_best():
    values = np.random.default_rng(0).uniform(size=50) ** 0.2
    t = np.arange(1, 101)
    share = values ** t[:, None] / (values ** t[:, None]).sum(1, keepdims=True)
    entropy = -(share * np.log(share)).sum(1)
    error = {}
    for knee in range(2, 100):
        parts = [(t <= knee), (t >= knee)]
        error[knee] = sum(np.square(np.polyval(np.polyfit(t[p], entropy[p], 1), t[p]) - entropy[p]).sum() for p in parts)
    assert diffusion.von_neumann_time(values) == min(error, key=error.get)


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0], [1.0, 0.0, -0.3], []])
def test_entropy_without_a_knee_gives_a_time_all_the_same(values):
    assert 1 <= diffusion.von_neumann_time(np.array(values)) <= 100


# Rows outside the fit


def fitted(seed=5, n=900, alpha=1.0, neighbours=15):
    rows = knn.unit_rows(np.random.default_rng(seed).normal(size=(n, 5)))[0]
    distances, indices = knn.nearest_others(rows, neighbours)
    graph = diffusion.self_tuned_graph(distances, indices)
    found = diffusion.spectrum(graph, 8, alpha)
    return rows, graph, found, diffusion.extension(found, distances)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_row_of_the_graph_is_placed_where_it_is(alpha):
    _, graph, found, kept = fitted(alpha=alpha)
    for t in (0, 1, 5):
        own = diffusion.coordinates(found, t)[:, : len(kept.values)]
        assert np.abs(diffusion.place(graph, kept, t) - own).max() < 1e-9 * np.abs(own).max()


def test_a_fitted_row_that_is_searched_gets_its_own_coordinates():
    rows, _, found, kept = fitted()
    placed = diffusion.extend(*knn.search(rows, rows, 15), kept, t=2)
    assert np.abs(placed - diffusion.coordinates(found, 2)[:, : len(kept.values)]).max() < 1e-9


def test_the_formula_alone_comes_close_the_closer_the_deeper_the_list():
    """Rows a thousandth off a fitted row: the formula places them, with the edges that the list reaches."""
    rows, _, found, kept = fitted()
    own = diffusion.coordinates(found)[:, : len(kept.values)]
    moved = knn.unit_rows(rows + 1e-3 * np.random.default_rng(0).normal(size=rows.shape))[0]
    error = [
        np.median(np.linalg.norm(diffusion.extend(*knn.search(moved, rows, depth), kept) - own, axis=1) / np.linalg.norm(own, axis=1))
        for depth in (15, 60)
    ]
    assert error[0] < 0.1 and error[1] < 0.6 * error[0]


def test_a_new_row_has_the_same_place_in_any_batch():
    rows, _, _, kept = fitted()
    new = knn.unit_rows(np.random.default_rng(6).normal(size=(200, 5)))[0]
    whole = diffusion.extend(*knn.search(new, rows, 30), kept)
    for cuts in ([1, 2, 3], [57, 190]):
        parts = [diffusion.extend(*knn.search(part, rows, 30), kept) for part in np.split(new, cuts)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_new_rows_land_on_the_circle_between_their_neighbours():
    rows, angles = circle(200)
    distances, indices = knn.nearest_others(rows, 10)
    found = diffusion.spectrum(diffusion.self_tuned_graph(distances, indices), 3)
    new = angles + (angles[1] - angles[0]) / 2
    placed = diffusion.extend(
        *knn.search(np.stack([np.cos(new), np.sin(new)], 1).astype(np.float32), rows, 20), diffusion.extension(found, distances)
    )
    fit = diffusion.coordinates(found)
    assert np.abs(placed - (fit + np.roll(fit, -1, axis=0)) / 2).max() < 0.01 * np.abs(fit).max()


def test_components_of_small_eigenvalue_are_left_out():
    rows = circle(30)[0]
    distances, indices = knn.nearest_others(rows, 20)
    found = diffusion.spectrum(diffusion.self_tuned_graph(distances, indices), 12)
    kept = diffusion.extension(found, distances)
    assert found.values.min() < 0.1 < kept.values.min() and len(kept.values) == (found.values > 0.1).sum() - 1


def test_too_few_neighbours_for_the_extension_are_refused():
    rows, _, _, kept = fitted()
    with pytest.raises(ValueError, match="search at least 15, better 60"):
        diffusion.extend(*knn.search(rows[:3], rows, 10), kept)
