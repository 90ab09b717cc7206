"""The set join against a comparison of all with all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.algorithms.set_join import candidate_pairs, connected, count, counters, joined, of_hashes, prefixes, similar_pairs, together

SPREAD = np.random.default_rng(0).integers(1, 2**63, 64, dtype=np.uint64) * np.uint64(2)
# Small alphabets, so that sets share much; copies with one element more or less, so that many pairs lie at a bound.
LISTS = st.lists(st.lists(st.integers(0, 63), max_size=14), min_size=1, max_size=14)


def sets_of(lists):
    hashes = SPREAD[np.array([one for row in lists for one in row], np.int64)]
    return of_hashes(hashes, np.cumsum([0, *map(len, lists)]))


def all_with_all(lists, least, measure):
    rows = [set(row) for row in lists]
    found = {}
    for i, left in enumerate(rows):
        for j in range(i + 1, len(rows)):
            if left and rows[j]:
                whole = len(left | rows[j]) if measure == "jaccard" else min(len(left), len(rows[j]))
                if len(left & rows[j]) >= least * whole - 1e-9:
                    found[i, j] = len(left & rows[j]) / whole
    return found


@pytest.mark.parametrize("measure", ["jaccard", "containment"])
@settings(max_examples=150, deadline=None)
@given(LISTS, st.data())
def test_every_pair_at_the_bound_is_found_and_no_other(measure, lists, data):
    for at in data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=6)):
        lists = [*lists, [*lists[at][1:], data.draw(st.integers(0, 63))]]
    for least in (0.2, 0.5, 2 / 3, 0.8, 1.0):
        pairs, alike = similar_pairs(sets_of(lists), least, measure)
        found = {(i, j): value for (i, j), value in zip(pairs.tolist(), alike.tolist(), strict=True)}
        assert found == pytest.approx(all_with_all(lists, least, measure))
        assert pairs.tolist() == sorted(pairs.tolist())


@settings(max_examples=50, deadline=None)
@given(LISTS, st.integers(1, 13), st.integers(1, 5))
def test_shards_and_parts_of_the_keys_change_nothing(lists, cut, parts):
    whole = sets_of(lists)
    shards = [sets_of(lists[start : start + cut]) for start in range(0, len(lists), cut)]
    assert joined(shards).values.tolist() == whole.values.tolist()
    counts = counters(len(whole.values))
    for shard in shards:
        count(counts, shard.values)
    entries = together([prefixes(shard, counts, 0.5, first_row=number * cut) for number, shard in enumerate(shards)])
    found = [candidate_pairs(entries.where(entries.key % np.uint64(parts) == part), 0.5) for part in range(parts)]
    candidates = {tuple(pair) for part in found for pair in part.tolist()}
    assert set(all_with_all(lists, 0.5, "jaccard")) <= candidates


def test_common_elements_cost_little():
    """5,000 sets share half of their elements: rare ones are looked up first, so that hardly a pair is a candidate."""
    chance = np.random.default_rng(0)
    common, own = chance.integers(0, 2**64, 20, dtype=np.uint64), chance.integers(0, 2**64, (5000, 20), dtype=np.uint64)
    own[1] = own[0]
    sets = of_hashes(np.hstack([np.tile(common, (5000, 1)), own]).ravel(), np.arange(5001) * 40)
    counts = counters(len(sets.values))
    count(counts, sets.values)
    assert len(candidate_pairs(prefixes(sets, counts, 0.8), 0.8)) < 100
    assert similar_pairs(sets, 0.8)[0].tolist() == [[0, 1]]


def test_connected_rows_have_the_one_of_lowest_rank():
    assert connected(np.array([[0, 1], [1, 2], [4, 3]]), np.array([2, 1, 0, 5, 9, 3])).tolist() == [2, 2, 2, 3, 3, 5]
    assert connected(np.empty((0, 2), np.int64), np.arange(2)).tolist() == [0, 1]
