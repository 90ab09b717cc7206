"""Water-filling: the budget is spent in proportion, within the caps, to the last token there is."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curate.algorithms.water_filling import water_fill


def test_without_tight_caps_shares_are_proportional():
    assert water_fill([1, 2, 5], [1e9, 1e9, 1e9], 80).tolist() == pytest.approx([10, 20, 50])


def test_what_a_full_cluster_cannot_use_goes_to_the_others_in_proportion():
    # 5/8 of 80 would be 50, the third has only 20: 60 are left for weights 1 and 2.
    assert water_fill([1, 2, 5], [1e9, 1e9, 20], 80).tolist() == pytest.approx([20, 40, 20])


def test_a_cluster_filled_by_the_second_pouring_is_capped_too():
    assert water_fill([1, 2, 5], [1e9, 30, 20], 80).tolist() == pytest.approx([30, 30, 20])


def test_a_budget_beyond_everything_takes_everything():
    assert water_fill([1, 0, 5], [3, 4, 5], 1e6).tolist() == [3, 4, 5]


def test_weight_zero_waits_until_the_others_are_full():
    assert water_fill([1, 0, 0], [10, 20, 60], 10).tolist() == [10, 0, 0]
    assert water_fill([1, 0, 0], [10, 20, 60], 50).tolist() == pytest.approx([10, 10, 30])
    assert water_fill([0, 0], [10, 30], 20).tolist() == pytest.approx([5, 15])


def test_no_clusters_no_budgets():
    assert water_fill([], [], 5).shape == (0,)


@pytest.mark.parametrize("weights, caps, budget", [([1, np.nan], [1, 1], 1), ([1, -1], [1, 1], 1), ([1], [np.inf], 1), ([1], [1], -1)])
def test_a_number_that_is_none_is_refused(weights, caps, budget):
    with pytest.raises(ValueError, match="finite"):
        water_fill(weights, caps, budget)


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="equal length"):
        water_fill([1, 2], [1], 1)


amounts = st.floats(0, 1e9) | st.integers(0, 3).map(float)


@given(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=40), amounts)
@example([(2.0, 0.0), (5e-324, 1.0)], 0.0)
def test_sum_caps_and_level(pairs, budget):
    weights, caps = np.array(pairs).T
    filled = water_fill(weights, caps, budget)
    assert (filled >= 0).all() and (filled <= caps).all()
    assert filled.sum() == pytest.approx(min(budget, caps.sum()), rel=1e-9, abs=1e-9)
    # One level for all: whoever is not full gets the same per weight, and nobody full gets more per weight.
    open_ones = (filled < caps * (1 - 1e-9)) & (weights > 1e-6)
    if open_ones.any():
        level = filled[open_ones] / weights[open_ones]
        assert np.allclose(level, level[0], rtol=1e-6, atol=1e-6)
        full = ~open_ones & (weights > 1e-6)
        assert (filled[full] <= weights[full] * level[0] * (1 + 1e-6) + 1e-6).all()
