import pytest
import torch

from curate.algorithms.wanda import zeroed

WEIGHT = torch.tensor([[1.0, -2.0, 3.0, -4.0], [1.0, 1.0, 1.0, 1.0]])


def test_magnitude_times_input_norm_decides_row_by_row():
    norms = torch.tensor([10.0, 1.0, 1.0, 0.1])
    assert zeroed(WEIGHT, norms, 2, 4).tolist() == [[False, True, False, True], [False, True, False, True]]  # ties: the earlier goes


def test_a_group_loses_its_own_lowest():
    assert zeroed(WEIGHT, torch.ones(4), 1, 2).tolist() == [[True, False, True, False]] * 2
    assert not zeroed(WEIGHT, torch.ones(4), 0, 4).any()


@pytest.mark.parametrize(("zeros", "group"), [(5, 4), (1, 3)])
def test_groups_that_do_not_fit_are_refused(zeros, group):
    with pytest.raises(ValueError, match="give a group"):
        zeroed(WEIGHT, torch.ones(4), zeros, group)
