"""Rows held against the balls of a reference: by hand, among copies, and alone as in any batch."""

import numpy as np
import pytest

from curate.algorithms import knn
from curate.algorithms.prdc import covering, prdc, radii


def on_circle(degrees) -> np.ndarray:
    angles = np.deg2rad(np.asarray(degrees, float))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def chord(degrees) -> np.ndarray:
    return 2 * np.sin(np.deg2rad(np.asarray(degrees, float)) / 2)


def unit(seed: int, n: int, d: int = 32) -> np.ndarray:
    return knn.unit_rows(np.random.default_rng(seed).normal(size=(n, d)))[0]


# Rows at 0, 1, 3, 10 and 50 degrees. To the second nearest other row: 3, 2, 3, 9 and 47 degrees.
REFERENCE = on_circle([0, 1, 3, 10, 50])


def test_radii_by_hand():
    assert radii(REFERENCE, 2) == pytest.approx(chord([3, 2, 3, 9, 47]), abs=1e-6)


def test_measures_by_hand():
    found = prdc(on_circle([2, 30, 150]), REFERENCE, radii(REFERENCE, 2), 2)
    # 2 degrees: inside the balls of 0, 1, 3 and 10, not of 50 (48 away, reach 47). Nearest are 1 (radius 2) and 3 (radius 3), both at 1.
    # 30 degrees: inside that of 50 (20 away) alone. Nearest are 10 and 50, both at 20.
    # 150 degrees: 100 from the nearest, 50.
    assert found.precision.tolist() == [1, 1, 0]
    assert found.density.tolist() == [2, 0.5, 0]
    assert found.recall.tolist() == [1, 0.5, 0]
    assert found.distance == pytest.approx(chord([1, 20, 140]), abs=1e-6)
    assert found.around == pytest.approx([chord([2, 3]).mean(), chord([9, 47]).mean(), chord([47, 9]).mean()], abs=1e-6)
    assert found.coverage[2] == pytest.approx(chord(47) / (chord(47) + chord(100)), abs=1e-6)
    assert found.coverage[0] > 0.5 > found.coverage[2]


def test_a_row_on_the_border_is_inside():
    # The k-th neighbour of a row lies on the border of its ball.
    assert covering(on_circle([3]), REFERENCE[:1], radii(REFERENCE, 2)[:1]).tolist() == [1]
    assert covering(on_circle([3.001]), REFERENCE[:1], radii(REFERENCE, 2)[:1]).tolist() == [0]


def test_counts_are_those_of_brute_force_in_float64():
    rows, queries = unit(0, 300), unit(1, 80)
    # Each query's distance to row 7 as that row's radius, in turn: borders that float32 products do not see.
    exact = np.sqrt(((queries[:, None].astype(float) - rows[None]) ** 2).sum(2)).astype(np.float32)
    size = radii(rows, 5)
    for i in range(0, 80, 9):
        size[7] = exact[i, 7]
        assert covering(queries, rows, size).tolist() == (exact <= size).sum(1).tolist()


def test_a_value_depends_on_its_row_and_the_reference_alone():
    rows, queries = unit(2, 700, 384), unit(3, 60, 384)
    queries[:20] = rows[:20]
    size = radii(rows, 5)
    whole = prdc(queries, rows, size, 5)
    order = np.random.default_rng(4).permutation(60)
    shuffled = prdc(queries[order], rows, size, 5)
    alone = [prdc(queries[i : i + 1], rows, size, 5) for i in range(60)]
    for name in whole._fields:
        assert (getattr(shuffled, name) == getattr(whole, name)[order]).all(), name
        assert np.concatenate([getattr(one, name) for one in alone]).tolist() == getattr(whole, name).tolist(), name


def test_blocks_change_nothing(monkeypatch):
    rows, queries = unit(5, 400), unit(6, 90)
    size = radii(rows, 3)
    whole = prdc(queries, rows, size, 3)
    monkeypatch.setattr("curate.algorithms.prdc._PRODUCTS", 1)
    monkeypatch.setattr("curate.algorithms.prdc._PAIRS", 1)
    for one, other in zip(whole, prdc(queries, rows, size, 3), strict=True):
        assert (one == other).all()


def test_among_copies_a_further_copy_is_inside_and_a_near_row_is_not():
    rows = np.concatenate([np.repeat(unit(7, 1), 8, axis=0), unit(8, 20)])
    size = radii(rows, 5)
    assert (size[:8] == 0).all()
    near, _ = knn.unit_rows(rows[:1] + 1e-3 * unit(9, 1))
    found = prdc(np.concatenate([rows[:1], near]), rows, size, 5)
    assert found.density[0] >= 8 / 5 and found.recall.tolist() == [1, 0]
    assert found.distance[0] == 0 and found.coverage.tolist() == [1, 0]
    assert found.precision[0] == 1


def test_no_queries_is_no_rows():
    assert [len(values) for values in prdc(unit(0, 0), unit(1, 9), radii(unit(1, 9), 2), 2)] == [0] * 6


def test_more_neighbours_than_reference_rows_are_refused():
    with pytest.raises(ValueError, match="lower k below 5"):
        radii(REFERENCE, 5)
    with pytest.raises(ValueError, match="lower k"):
        prdc(REFERENCE, REFERENCE, np.ones(5), 6)
    with pytest.raises(ValueError, match=r"use radii\(reference, k\)"):
        prdc(REFERENCE, REFERENCE, np.ones(4), 2)
