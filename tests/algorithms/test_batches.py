import numpy as np
import pytest

from curate.algorithms.batches import length_batches


def test_every_row_is_in_one_batch_and_no_batch_exceeds_the_budget():
    lengths = [3, 900, 5, 5, 100, 1, 0, 5, 1200]
    batches = length_batches(lengths, 1000)
    assert sorted(np.concatenate(batches)) == list(range(9))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 1000


def test_longest_first_and_equal_lengths_in_order():
    assert [batch.tolist() for batch in length_batches([2, 7, 2, 7, 2], 14)] == [[1, 3], [0, 2, 4]]


def test_a_row_above_the_budget_is_alone():
    assert [batch.tolist() for batch in length_batches([50, 3], 10)] == [[0], [1]]


def test_no_rows_no_batches():
    assert length_batches([], 10) == []
    with pytest.raises(ValueError, match="at least 1"):
        length_batches([1], 0)
