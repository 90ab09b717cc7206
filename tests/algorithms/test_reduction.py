import numpy as np
import pytest

from curate.algorithms.reduction import first_axes, moments, principal_axes, project, variance_kept


@pytest.fixture
def unit() -> np.ndarray:
    """5,000 unit rows of width 24 whose axes fade: each has .8 of the one before."""
    rows = np.random.default_rng(0).standard_normal((5000, 24)) * 0.8 ** np.arange(24) + 0.3
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_moments_are_the_same_to_the_bit_however_the_rows_are_cut_and_ordered(unit):
    whole = moments(unit)
    parts = moments(unit[4000:]) + moments(unit[:1]) + moments(unit[1:1]) + moments(unit[1:4000])
    mixed = moments(unit[np.random.default_rng(1).permutation(len(unit))])
    for other in (parts, mixed):
        assert other.rows == whole.rows
        assert np.array_equal(other.total, whole.total) and np.array_equal(other.products, whole.products)


def test_moments_are_right(unit):
    np.testing.assert_allclose(moments(unit).covariance(), np.cov(unit.T.astype(float), bias=True), atol=1e-6)


def test_axes_are_those_of_the_singular_value_decomposition_with_fixed_signs(unit):
    axes = principal_axes(moments(unit), 5)
    expected = np.linalg.svd(unit.astype(float), full_matrices=False)[2][:5].T
    np.testing.assert_allclose(np.abs((axes * expected).sum(axis=0)), 1, atol=1e-6)
    assert (axes[np.abs(axes).argmax(axis=0), np.arange(5)] > 0).all()


def test_a_row_is_projected_alike_alone_and_among_others(unit):
    axes = principal_axes(moments(unit), 7)
    whole, lost = project(unit, axes)
    assert len(lost) == 0
    alone = np.concatenate([project(unit[i : i + 1], axes)[0] for i in range(50)])
    assert np.array_equal(alone, whole[:50]) and np.array_equal(project(unit[7:500], axes)[0], whole[7:500])
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)


def test_all_axes_keep_every_cosine_and_all_variance(unit):
    found = moments(unit)
    axes = principal_axes(found, 24)
    whole = project(unit, axes)[0]
    np.testing.assert_allclose(whole[:99] @ whole[:99].T, unit[:99] @ unit[:99].T, atol=1e-6)
    assert variance_kept(found, axes) == pytest.approx(1)


def test_principal_axes_keep_more_than_the_first_coordinates_of_turned_rows(unit):
    turned = (unit @ np.linalg.qr(np.random.default_rng(2).standard_normal((24, 24)))[0]).astype(np.float32)
    found = moments(turned)
    assert variance_kept(found, principal_axes(found, 6)) > variance_kept(found, first_axes(24, 6)) + 0.3


def test_rows_that_are_all_alike_keep_their_direction_and_rows_across_the_axes_are_named():
    same = np.tile(np.eye(1, 8, dtype=np.float32), (5, 1))
    found = moments(same)
    assert np.array_equal(project(same, principal_axes(found, 2))[0], np.tile([[1.0, 0.0]], (5, 1)))
    assert variance_kept(found, principal_axes(found, 2)) == 1.0
    small, lost = project(np.eye(8, dtype=np.float32), first_axes(8, 2))
    assert lost.tolist() == [2, 3, 4, 5, 6, 7] and not small[2:].any()


def test_more_dimensions_than_there_are_is_refused():
    with pytest.raises(ValueError, match="lower dimensions"):
        principal_axes(moments(np.eye(3, dtype=np.float32)), 4)
