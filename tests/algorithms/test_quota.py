"""A quota: the first rows of each group come back until it has its share, and none more."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.algorithms.quota import spare


def spared(rows: list[tuple[int, int, bool]], order: list[int], share: float) -> list[int]:
    """Numbers of the rows (group, mass, cut) that come back."""
    group, mass, cut = (np.array([row[i] for row in rows]) for i in range(3))
    found = spare(group.astype(int), mass.astype(float), cut.astype(bool), np.array(order, int), share)
    assert found.shape == (len(rows),)
    return np.flatnonzero(found).tolist()


def test_each_group_gets_back_what_it_lacks_in_the_given_order():
    """A quarter of 12, 12 and 8 is 3, 3 and 2: the first has 3 left and needs nothing, the second has 1 and needs 2, the third nothing and needs 2."""
    rows = [(0, 3, False), (0, 9, True), (1, 1, False), (1, 1, True), (1, 3, True), (1, 7, True), (2, 1, True), (2, 5, True), (2, 2, True)]
    assert spared(rows, [1, 6, 3, 4, 7, 5, 8], 0.25) == [3, 4, 6, 7]
    assert spared(rows, [8, 7, 6, 5, 4, 3, 1], 0.25) == [5, 8]


def test_a_group_at_its_share_gets_nothing_and_one_that_cannot_reach_it_everything():
    assert spared([(0, 2, False), (0, 1, True), (0, 1, True)], [1, 2], 0.5) == []
    assert spared([(0, 1, True), (0, 1, True), (1, 4, True)], [0, 1, 2], 1.0) == [0, 1, 2]
    assert spared([(1, 5, False)], [], 0.5) == [] == spared([], [], 0.5)


def test_a_row_larger_than_the_quota_is_given_back_whole():
    assert spared([(0, 95, False), (0, 60, True), (0, 1, True)], [1, 2], 0.7) == [1]


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans()), max_size=20)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(ROWS, st.randoms(use_true_random=False), st.sampled_from([0.05, 0.1, 1 / 3, 0.5, 1.0]))
def test_it_is_what_one_row_after_the_other_gives(rows, random, share):
    order = [number for number, (_, _, cut) in enumerate(rows) if cut]
    random.shuffle(order)
    has = [sum(mass for group, mass, cut in rows if group == k and not cut) for k in range(4)]
    quota = [share * sum(mass for group, mass, _ in rows if group == k) for k in range(4)]
    expected = []
    for number in order:
        group, mass, _ = rows[number]
        if has[group] < quota[group] - 1e-9:
            expected.append(number)
            has[group] += mass
    assert spared(rows, order, share) == sorted(expected)
