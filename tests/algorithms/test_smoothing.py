"""Diffused vectors: the walk by hand, rows in and out of the fit alike, invariances, degenerate inputs."""

import numpy as np
import pytest

from curate.algorithms import diffusion, knn, smoothing


def cloud(n=400, d=16, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(4, size=n)
    return knn.unit_rows(2 * np.eye(d)[truth] + 0.4 * rng.normal(size=(n, d)))[0], truth


def test_a_row_of_the_fit_is_what_the_walk_makes_of_it():
    unit, _ = cloud(60)
    anchors, _ = smoothing.fit(unit, 5, steps=2)
    distances, indices = knn.nearest_others(unit, 5)
    scale = diffusion.scales(distances)
    kernel = np.eye(60)
    for row in range(60):
        for distance, other in zip(distances[row], indices[row], strict=True):
            kernel[row, other] = kernel[other, row] = np.exp(-(float(distance) ** 2) / (scale[row] * scale[other]))
    carried = kernel @ unit / kernel.sum(axis=1, keepdims=True)
    assert anchors.carried == pytest.approx(carried, abs=1e-6)
    # The last step sees the five neighbours that the row itself names.
    named = np.zeros((60, 60), bool)
    named[np.arange(60)[:, None], indices] = True
    total = unit + np.where(named, kernel, 0) @ carried
    assert smoothing.place(unit, anchors) == pytest.approx(total / np.linalg.norm(total, axis=1, keepdims=True), abs=1e-5)


def test_a_row_is_placed_alike_alone_in_any_batch_and_as_a_copy_of_a_row_of_the_fit():
    unit, _ = cloud()
    anchors, places = smoothing.fit(unit[:300], 15, steps=2)
    whole = smoothing.place(unit, anchors)
    assert (places == whole[:300]).all()  # the fit places its rows without a search, to the same bytes
    assert all((smoothing.place(unit[row : row + 1], anchors)[0] == whole[row]).all() for row in (0, 5, 299, 300, 399))
    copies = knn.unit_rows(unit[:50].astype(np.float64) * 7)[0]
    assert smoothing.place(copies, anchors) == pytest.approx(whole[:50], abs=1e-5)


def test_groups_draw_together_and_stay_apart():
    unit, truth = cloud()
    placed = smoothing.fit(unit, 15, 2)[1]

    def within_and_between(rows):
        cosines = rows @ rows.T
        same = truth[:, None] == truth
        return cosines[same].mean(), cosines[~same].mean()

    (within, between), (placed_within, placed_between) = within_and_between(unit), within_and_between(placed)
    assert placed_within > within + 0.1
    assert placed_within - placed_between > within - between


def test_rotation_turns_and_permutation_permutes_the_places():
    unit, _ = cloud()
    placed = smoothing.fit(unit, 15, 3)[1]
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0]
    turned = knn.unit_rows(unit @ turn)[0]
    assert smoothing.fit(turned, 15, 3)[1] == pytest.approx(placed @ turn, abs=1e-5)
    order = np.random.default_rng(2).permutation(len(unit))
    assert smoothing.fit(unit[order], 15, 3)[1] == pytest.approx(placed[order], abs=1e-6)


def test_parts_that_the_graph_tears_apart_keep_their_distance():
    """Two islands of near copies: no edge joins them, and they are still as near to each other as they were."""
    one, two = knn.unit_rows(np.array([[1.0, 0.2, 0], [1.0, -0.2, 0]]))[0]
    noise = 0.01 * np.random.default_rng(0).normal(size=(80, 3))
    unit = knn.unit_rows(np.repeat([one, two], 40, axis=0) + noise)[0]
    placed = smoothing.fit(unit, 10, 4)[1]
    assert placed[:40].mean(axis=0) @ placed[40:].mean(axis=0) == pytest.approx(one @ two, abs=0.01)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_and_copies_only(rows):
    unit = np.eye(4, dtype=np.float32)[:rows]
    assert np.linalg.norm(smoothing.fit(unit, 15, 2)[1], axis=1) == pytest.approx(1)
    copies = np.repeat(unit[:1], 30, axis=0)
    assert smoothing.fit(copies, 15, 2)[1] == pytest.approx(copies)


def test_opposite_rows_that_cancel_stay_where_they_were():
    unit = np.array([[1, 0], [-1, 0]], np.float32)
    placed = smoothing.fit(unit, 1, 1)[1]
    assert np.isfinite(placed).all() and np.linalg.norm(placed, axis=1) == pytest.approx(1)
