import numpy as np
import pytest
import torch

from curate.algorithms.block_influence import least_influential, turned


def test_unchanged_opposite_and_orthogonal_states():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert turned(x, 3 * x) == pytest.approx(0.0)
    assert turned(x, -x) == pytest.approx(4.0)
    assert turned(x, x.flip(1)) == pytest.approx(2.0)


def test_the_lowest_go_but_never_the_first_or_the_last():
    assert least_influential(np.array([0.0, 0.5, 0.1, 0.2, 0.0]), 2) == [2, 3]


def test_ties_go_to_the_later_layer():
    assert least_influential(np.array([1.0, 0.1, 0.1, 0.1, 1.0]), 1) == [3]


@pytest.mark.parametrize("layers", [0, 4])
def test_too_few_or_too_many_are_refused(layers):
    with pytest.raises(ValueError, match="give 1 to 3"):
        least_influential(np.ones(5), layers)
