import numpy as np
import pytest

from curate.algorithms.intrinsic import isoscore, two_nn


def neighbours(rows: np.ndarray, k: int) -> np.ndarray:
    distances = np.sqrt(np.maximum(((rows[:, None] - rows[None]) ** 2).sum(-1), 0))
    return np.sort(distances, axis=1)[:, 1 : k + 1]


def sheet(d: int, wide: int = 12, n: int = 1500) -> np.ndarray:
    """n rows on a flat d-dimensional sheet in `wide` dimensions."""
    random = np.random.default_rng(d)
    turn = np.linalg.qr(random.standard_normal((wide, wide)))[0]
    return random.random((n, d)) @ turn[:d]


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_sheet_has_the_dimension_it_was_made_with_whatever_space_it_lies_in(d):
    found = neighbours(sheet(d), 20)
    assert two_nn(found[:, :2]) == pytest.approx(d, rel=0.15)


def test_copies_do_not_break_the_estimate():
    rows = sheet(2)
    found = neighbours(np.concatenate([rows, rows[:300]]), 2)
    assert two_nn(found) == pytest.approx(2, rel=0.25)


@pytest.mark.parametrize("distances", [np.zeros((50, 2)), np.ones((50, 2)), np.ones((2, 2)), np.empty((0, 2))])
def test_where_distances_say_nothing_the_dimension_is_nan(distances):
    assert np.isnan(two_nn(distances))


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(n, 2\)"):
        two_nn(np.ones((5, 3)))


def test_isoscore_is_one_for_a_ball_zero_for_a_line_and_about_the_share_of_axes_in_use():
    assert isoscore(np.eye(10)) == pytest.approx(1)
    assert isoscore(np.diag([1.0] + [0.0] * 9)) == pytest.approx(0)
    assert isoscore(np.diag([1.0] * 50 + [0.0] * 50)) == pytest.approx(0.5, abs=0.01)
    assert np.isnan(isoscore(np.zeros((4, 4))))


def test_isoscore_does_not_see_scale_or_rotation():
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.standard_normal((6, 6)))[0]
    covariance = np.diag([5.0, 3, 1, 1, 0.1, 0])
    assert isoscore(turn @ covariance @ turn.T * 1e-6) == pytest.approx(isoscore(covariance))
