"""Turns of targets: no row twice, groups first, nobody waits for the greedy."""

import numpy as np
import pytest

from curate.algorithms.target_walk import target_walk

A, B, C = np.array([0, 1, 2, 3]), np.array([1, 0, 4]), np.array([5])


def test_each_target_takes_its_nearest_free_row_in_turn():
    rows, by = target_walk([A, B], ["x", "y"])
    assert sorted(rows.tolist()) == [0, 1, 2, 3, 4]
    turns = {target: [int(row) for row, who in zip(rows, by, strict=True) if who == target] for target in (0, 1)}
    assert turns == {0: [0, 2, 3], 1: [1, 4]}  # B finds row 0 taken, and goes on to 4
    assert by[0] != by[1] and by[2] != by[3]  # a turn each, while both have rows


def test_groups_take_turns_before_their_targets_do():
    many = [np.arange(10 * i, 10 * i + 10) for i in range(5)]
    _, by = target_walk([*many, np.arange(50, 60)], ["big"] * 5 + ["small"])
    assert (by[:20] == 5).sum() == 10  # one of six targets, and half of the rows as long as it has some
    assert np.bincount(by[:20][by[:20] != 5], minlength=5).tolist() == [2] * 5


@pytest.mark.parametrize("seed", range(5))
def test_the_seed_draws_the_order_and_only_that(seed):
    nearest = [np.random.default_rng(i).permutation(30) for i in range(4)]
    rows, by = target_walk(nearest, ["a", "a", "b", "c"], seed)
    again, _ = target_walk(nearest, ["a", "a", "b", "c"], seed)
    assert rows.tolist() == again.tolist() and sorted(rows.tolist()) == list(range(30))
    other, _ = target_walk(nearest, ["a", "a", "b", "c"], seed + 1)
    assert rows.tolist() != other.tolist()
    # Whoever takes a row takes the nearest of those that are free at that moment.
    for step, (row, who) in enumerate(zip(rows, by, strict=True)):
        free = [r for r in nearest[who] if r not in rows[:step]]
        assert free[0] == row


def test_targets_without_rows_and_no_targets():
    rows, by = target_walk([np.empty(0, np.int64), C], ["a", "a"])
    assert (rows.tolist(), by.tolist()) == ([5], [1])
    rows, by = target_walk([], [])
    assert len(rows) == len(by) == 0
