"""Comparable rows of a table: which, how near, and what lies between two."""

import numpy as np
import pytest

from curate.algorithms.comparable import between, comparable, deviations

NUMBERS = np.array([[0.0, 0.0], [1.0, np.nan]])
CODES = np.array([[0, 0, 0], [1, 1, 1]])


def test_bounds_on_categories_and_on_each_number():
    others = np.array([[0.4, 0.0], [0.0, 0.6], [0.1, 0.1], [0.2, 0.0], [1.0, np.nan]])
    codes = np.array([[0, 0, 0], [0, 0, 0], [9, 9, 0], [9, 9, 9], [1, 1, 9]])
    found, distance = comparable(NUMBERS, CODES, others, codes, most_codes=2, most=0.5, k=3)
    assert found.tolist() == [[0, 2, -1], [4, -1, -1]]  # .6 is too far, three categories are too many, no number is like no number
    assert distance[0, :2] == pytest.approx([0.2, 2.1]) and np.isinf(distance[0, 2])


def test_as_a_plain_loop_has_it():
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(40, 3)), generator.normal(size=(60, 3))
    a, b = generator.integers(3, size=(40, 4)), generator.integers(3, size=(60, 4))
    found, _ = comparable(left, a, right, b, most_codes=3, most=1.5, k=4)
    for i in range(40):
        gap = np.abs(left[i] - right)
        cost = (a[i] != b).sum(1) + gap.mean(1)
        allowed = [j for j in np.argsort(cost, kind="stable") if (a[i] != b[j]).sum() <= 3 and gap[j].max() <= 1.5]
        assert [j for j in found[i] if j >= 0] == allowed[:4]


def test_no_other_rows_and_constant_columns():
    found, _ = comparable(NUMBERS, CODES, np.zeros((0, 2)), np.zeros((0, 3), int), 2, 0.5, 2)
    assert (found == -1).all()
    assert deviations(np.array([[1.0, 2.0], [1.0, 4.0]])).tolist() == [1.0, 1.0]


def test_between_two_rows_whole_numbers_stay_whole():
    mixed = between(np.array([[20.0, 1.0]]), np.array([[25.0, 2.0]]), np.array([0.5]), np.array([True, False]))
    assert mixed.tolist() == [[22.0, 1.5]]
