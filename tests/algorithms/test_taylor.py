import numpy as np
import pytest
import torch

from curate.algorithms.taylor import most_important, neuron_importance


def test_importance_is_the_sum_over_gate_row_up_row_and_down_column():
    gate = torch.tensor([[1.0, -2.0], [0.0, 0.0], [3.0, 0.0]])
    up = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    down = torch.tensor([[1.0, 0.0, -5.0], [1.0, 7.0, 0.0]])
    ones = (torch.ones(3, 2), -torch.ones(3, 2), torch.full((2, 3), 2.0))
    found = neuron_importance((gate, ones[0]), (up, ones[1]), (down, ones[2]))
    assert found.tolist() == [3 + 2 + 4, 0 + 1 + 14, 3 + 0 + 10]


def test_the_highest_stay_in_their_order_and_ties_go_to_the_earlier():
    assert most_important(np.array([1.0, 5.0, 1.0, 9.0]), 3).tolist() == [0, 1, 3]
    with pytest.raises(ValueError, match="give 1 to 2"):
        most_important(np.ones(2), 3)
