"""An order whose beginnings are like the whole."""

import numpy as np

from curate.algorithms.herding import herding_order


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def heap(n=300, width=20, seed=0):
    """Rows of three kinds, 70 %, 20 % and 10 %; and the kinds."""
    random = np.random.default_rng(seed)
    kinds = np.repeat([0, 1, 2], [int(0.7 * n), int(0.2 * n), n - int(0.7 * n) - int(0.2 * n)])
    return unit(random.normal(size=(3, width))[kinds] * 2 + random.normal(size=(n, width))), kinds


def test_every_row_comes_once():
    rows, _ = heap()
    assert sorted(herding_order(rows, rows.mean(0))) == list(range(300))
    assert herding_order(rows[:1], rows[0]).tolist() == [0]
    assert herding_order(rows[:0], rows.mean(0)).tolist() == []


def test_a_beginning_is_nearer_to_the_mean_than_random_rows_and_than_the_rows_nearest_to_it():
    rows, _ = heap()
    mean = rows.mean(0)

    def off(picked):
        return np.linalg.norm(rows[picked].mean(0) - mean)

    order, nearest = herding_order(rows, mean), np.argsort(-(rows @ mean))
    drawn = [np.random.default_rng(seed).permutation(300) for seed in range(50)]
    for count in (10, 30, 100):
        assert off(order[:count]) < min(off(some[:count]) for some in drawn)
        assert off(order[:count]) < off(nearest[:count]) / 2


def test_kinds_come_in_proportion():
    rows, kinds = heap()
    for count in (20, 60):
        share = np.bincount(kinds[herding_order(rows, rows.mean(0))[:count]], minlength=3) / count
        assert np.abs(share - [0.7, 0.2, 0.1]).max() < 0.12
    nearest = kinds[np.argsort(-(rows @ rows.mean(0)))[:20]]
    assert (nearest == 0).all()  # what a ranking would have taken


def test_of_equal_rows_the_first_comes_first():
    row = unit(np.ones((1, 4)))
    assert herding_order(np.repeat(row, 5, 0), row[0]).tolist() == [0, 1, 2, 3, 4]


def test_a_row_far_from_the_wanted_mean_comes_last():
    rows = unit(np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0], [1.0, 0.0]]))
    assert herding_order(rows, np.array([1.0, 0.0]))[-1] == 2
