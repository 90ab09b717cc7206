"""A length-matched draw: other rows, same lengths, none twice."""

import numpy as np
import pytest

from curate.algorithms.matching import deviation, length_matched


def pool(rows=2000, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(5, 400, rows), random.geometric(0.03, rows)


def test_every_chosen_row_gets_another_row_of_nearly_its_length():
    prompt, response = pool()
    chosen = np.argsort(prompt + response)[:400:2]  # short ones
    drawn = length_matched(prompt, response, chosen, np.arange(2000), seed=0)
    assert drawn.dtype == np.int64 and len(set(drawn)) == 200 and not set(drawn) & set(chosen)
    random = np.random.default_rng(1).choice(2000, 200, replace=False)
    assert deviation(prompt, response, chosen, random)["tokens"] > 2
    assert abs(deviation(prompt, response, chosen, drawn)["tokens"]) < 0.2


def test_where_there_are_enough_rows_of_each_length_the_lengths_agree():
    prompt, response = pool(20_000)
    chosen = np.flatnonzero((prompt < 100) & (response < 30))[:200]
    drawn = length_matched(prompt, response, chosen, np.arange(20_000), seed=0)
    off = deviation(prompt, response, chosen, drawn)
    assert off["mean_prompt"] < 3 and off["mean_response"] < 2 and abs(off["tokens"]) < 0.01 and abs(off["response_tokens"]) < 0.02
    assert off["total_prompt"] == (prompt[drawn] - prompt[chosen]).sum()


def test_equal_rows_are_drawn_alike_often():
    """100 rows of one length, one of them chosen: over many seeds every other one is drawn."""
    same = np.full(100, 7)
    drawn = np.array([length_matched(same, same, np.array([0]), np.arange(100), seed)[0] for seed in range(1500)])
    counts = np.bincount(drawn, minlength=100)
    assert counts[0] == 0 and counts[1:].min() > 0 and counts.max() < 45


def test_the_seed_decides_and_nothing_else():
    prompt, response = pool()
    chosen = np.arange(100)
    one = length_matched(prompt, response, chosen, np.arange(2000), seed=3)
    assert np.array_equal(one, length_matched(prompt, response, chosen, np.arange(2000)[::-1], seed=3))
    assert (one != length_matched(prompt, response, chosen, np.arange(2000), seed=4)).mean() > 0.5


def test_only_eligible_rows_and_all_of_them_if_need_be():
    prompt, response = pool(300)
    drawn = length_matched(prompt, response, np.arange(100), np.arange(50, 200), seed=0)
    assert sorted(drawn) == list(range(100, 200))
    assert len(length_matched(prompt, response, np.empty(0, np.int64), np.arange(300), 0)) == 0


@pytest.mark.parametrize(
    ("chosen", "eligible", "says"),
    [([0, 1, 2], [3, 4], "2 to draw from"), ([1, 1], [2, 3, 4], "twice"), ([True, False, False], [0, 1], "row numbers")],
)
def test_what_cannot_be_matched_is_refused(chosen, eligible, says):
    with pytest.raises(ValueError, match=says):
        length_matched(np.arange(5), np.arange(5), np.array(chosen), np.array(eligible), 0)
