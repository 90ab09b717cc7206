import numpy as np
import pytest

from curate.algorithms import roc


def test_auc_is_the_share_of_pairs_in_order():
    assert roc.auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True])) == pytest.approx(3.5 / 4)


def test_the_interval_holds_the_truth_nineteen_times_in_twenty():
    """Two normal distributions one standard deviation apart: the area is the normal distribution's at 1 / sqrt(2), .7602."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        positive = np.arange(150) < 60
        low, high = roc.auc_interval(generator.normal(size=150) + positive, positive)
        held += low <= 0.7602 <= high
    assert 0.92 < held / 400 < 0.98


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6])
def test_the_share_of_hidden_positives_is_found(share):
    generator = np.random.default_rng(1)
    hidden = generator.random(6000) < share
    scores = np.concatenate([generator.normal(3, 1, 3000), generator.normal(0, 1, 6000) + 3 * hidden])
    assert roc.hidden_share(scores, np.arange(9000) < 3000) == pytest.approx(share, abs=0.04)
