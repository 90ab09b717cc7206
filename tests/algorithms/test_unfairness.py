"""The measure of individual unfairness, against numbers done by hand."""

import numpy as np
import pytest

from curate.algorithms.unfairness import unfairness


def test_gaps_and_flips_of_pairs():
    found = unfairness(np.array([0.1, 0.4, 0.6, 0.9]), np.array([0.2, 0.6, 0.6, 0.5]), cut=0.5)
    assert found.mean == pytest.approx((0.1 + 0.2 + 0.0 + 0.4) / 4)
    assert found.q75 == pytest.approx(0.25) and found.q95 == pytest.approx(0.37)
    assert found.flips == 0.25  # .4 and .6 only: .5 is a yes, as .9 is


def test_pairs_are_needed():
    for left, right in ((np.zeros(0), np.zeros(0)), (np.zeros(2), np.zeros(3))):
        with pytest.raises(ValueError, match="one score of each"):
            unfairness(left, right, 0.5)
