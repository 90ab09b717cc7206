"""Who survives among raw, generated and known rows, decided on sets typed by hand."""

import numpy as np
import pytest

from curate.algorithms.set_join import count, counters, of_hashes, prefixes
from curate.dedup.buckets import Buckets
from curate.dedup.copies import Rows, decide

BASE = list(range(1, 21))


def decided(*rows, known=0, raw=None, family=(), threshold=0.7, rank=None, guard=None, new=None, fell=None, **options):
    sets = of_hashes(
        np.array([one for row in rows for one in row], np.uint64) * np.uint64(0x9E3779B97F4A7C15), np.cumsum([0, *map(len, rows)])
    )
    n = len(rows)
    key = np.array([[hash(tuple(row)) & 0xFFFF, len(row)] for row in rows], np.uint64)
    given = Rows(
        key, np.full(n, 60, np.int32), np.zeros(n, np.uint64) if guard is None else np.array(guard, np.uint64), sets.sizes,
        np.arange(n) if rank is None else np.array(rank), known, None if raw is None else np.array(raw), np.array(family) if len(family) else None,
        None if new is None else np.array(new), None if fell is None else np.array(fell),
    )  # fmt: skip
    return decide(given, lambda: [sets], threshold, **options)


def test_a_chain_of_raw_rows_has_one_survivor():
    found = decided(BASE, [*BASE[3:], 30, 31, 32], [*BASE[6:], 30, 31, 32, 33, 34, 35])
    assert found.survivor.tolist() == [0, 0, 0]
    assert found.closest[2] > 0.7 > found.similarity[2]  # joined through the second row


def test_a_generated_row_never_takes_a_raw_one_and_spares_its_family():
    rows = (BASE, [*BASE[:-1], 40], [*BASE[:-2], 50, 51])
    raw, rank = (True, False, False), (2, 0, 1)
    assert decided(*rows, raw=raw, rank=rank, family=("a", "b", "c")).survivor.tolist() == [0, 0, 0]
    assert decided(*rows, raw=raw, rank=rank, family=("a", "a", "b")).survivor.tolist() == [0, 1, 0]
    assert decided(*rows, raw=raw, rank=rank, family=("a", "a", "a")).survivor.tolist() == [0, 1, 2]


def test_a_generated_row_ties_no_two_raw_rows_together():
    left, right = [*BASE[:14], 60, 61, 62], [*BASE[6:], 70, 71, 72]
    middle = [*BASE[2:18], 61, 71]
    found = decided(left, right, middle, raw=(True, True, False), family=("a", "b", "c"), threshold=0.5)
    assert found.survivor.tolist() == [0, 1, 0] or found.survivor.tolist() == [0, 1, 1]


def test_duplicates_of_before_hang_on_one_another_and_tie_no_survivors_together():
    at = lambda start: list(range(start, start + 20))  # noqa: E731
    left, between, chained, right, alone = at(0), at(2), at(4), at(-40), at(100)
    left, between, chained, right, alone = ([one + 50 for one in row] for row in (left, between, chained, right, alone))
    found = decided(left, between, chained, alone, right, new=[False, True, True, True, False], fell=[False, True, True, True, False])
    assert found.survivor.tolist() == [0, 0, 0, 3, 4]  # `alone` hangs on nothing any more
    assert found.closest[2] > 0.7 > found.similarity[2]
    # a new row that is like a duplicate alone is none
    assert decided(left, between, chained, new=[False, True, True], fell=[False, True, False]).survivor.tolist() == [0, 0, 2]
    # a duplicate that is like two survivors falls to the one that it is more like, and what hangs on it to the first of those of its chain
    other = [one + 50 for one in range(5, 25)]
    found = decided(left, other, between, chained, threshold=0.65, new=[False, False, True, True], fell=[False, False, True, True])
    assert found.survivor.tolist()[:2] == [0, 1] and found.survivor[2] in (0, 1) and found.survivor[3] in (0, 1)


@pytest.mark.parametrize("seed", range(100))
def test_a_night_later_the_rows_that_were_there_fall_and_stay_as_before(seed):
    """Chains of windows over numbers, some of them copies; then new windows come, which may be like any of them."""
    chance = np.random.default_rng(seed)
    n, extra, known, threshold = (
        int(chance.integers(4, 30)),
        int(chance.integers(5)),
        int(chance.integers(3)),
        chance.choice([0.5, 0.6, 0.7, 0.8]),
    )
    starts = 1000 * chance.integers(0, 4, n) + np.cumsum(chance.integers(0, 6, n)) + 1
    rows = [list(range(start, start + 20)) for start in starts.tolist()]
    own, theirs = n - known, np.arange(known) - known
    stays = decided(*rows, threshold=threshold, rank=np.concatenate([chance.permutation(own), theirs]), known=known).survivor == np.arange(
        n
    )
    late = [list(range(start, start + 20)) for start in (1000 * chance.integers(0, 4, extra) + chance.integers(0, 100, extra) + 1).tolist()]
    lives = {tuple(row): any(stays[at] for at in range(own) if rows[at] == row) for row in rows[:own]}
    # as `before` says it: 2 it stayed, 1 a row of its content did, 0 none did, -1 it is new
    before = np.array(
        [2 if stays[at] else int(lives[tuple(rows[at])]) for at in range(own)] + [int(lives.get(tuple(row), -1)) for row in late]
    )
    rank = np.empty(own + extra, int)
    rank[np.lexsort((chance.permutation(own + extra), -before))] = np.arange(own + extra)
    none = np.zeros(known, bool)
    found = decided(
        *rows[:own], *late, *rows[own:], threshold=threshold, rank=np.concatenate([rank, theirs]), known=known,
        new=np.concatenate([before < 1, none]), fell=np.concatenate([before == 0, none]),
    )  # fmt: skip
    assert (found.survivor[:own] == np.arange(own)).tolist() == stays[:own].tolist()
    assert (found.survivor[found.survivor] == found.survivor).all()


def test_known_rows_stay_and_are_not_compared_with_each_other():
    found = decided([*BASE[:-1], 80], [90, 91, 92], BASE, [*BASE[:-1], 81], BASE, known=3, rank=(0, 1, -3, -2, -1))
    assert found.survivor.tolist()[1:4] == [1, 2, 3] and found.survivor[0] in (2, 3, 4)
    assert (found.pairs[:, 0] < 2).all()


def test_a_function_can_forbid_pairs():
    rows = (BASE, [*BASE[:-1], 40], [*BASE[:-1], 41])
    assert decided(*rows).survivor.tolist() == [0, 0, 0]
    assert decided(*rows, agree=lambda pairs: ~(pairs == 2).any(axis=1)).survivor.tolist() == [0, 0, 2]


def test_many_keys_are_looked_up_range_by_range(monkeypatch):
    chance = np.random.default_rng(0)
    rows = [chance.integers(1, 400, 30).tolist() for _ in range(200)]
    rows += [[*row[1:], 500 + number] for number, row in enumerate(rows[::3])]
    whole = decided(*rows)
    monkeypatch.setattr("curate.dedup.buckets.MOST_ENTRIES", 50)
    parts = decided(*rows)
    assert parts.survivor.tolist() == whole.survivor.tolist() and (whole.survivor != np.arange(len(rows))).sum() > 50


def test_entries_come_back_from_the_disk_as_they_were(monkeypatch, tmp_path):
    monkeypatch.setattr("curate.dedup.buckets.MOST_ENTRIES", 40)
    chance = np.random.default_rng(0)
    sets = of_hashes(chance.integers(0, 90, 600).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), np.arange(0, 601, 20))
    counts = counters(600)
    count(counts, sets.values)
    some = prefixes(sets, counts, 0.5)
    found = {}
    for name, room in (("memory", None), ("disk", tmp_path / "room")):
        with Buckets(len(some.key), room) as buckets:
            for part in (slice(0, 70), slice(70, None)):
                buckets.add(some.where(np.arange(len(some.key))[part]))
            assert (len(buckets.files) > 3) == (name == "disk")
            found[name] = list(buckets)
    assert not list((tmp_path / "room").iterdir())
    assert sum(len(each.key) for each in found["disk"]) == len(some.key)
    for mine, theirs in zip(found["memory"], found["disk"], strict=True):
        for column in ("key", "row", "size", "place", "short"):
            assert np.array_equal(getattr(mine, column), getattr(theirs, column))
    keys = [set(each.key.tolist()) for each in found["disk"]]
    assert len(set.union(*keys)) == sum(map(len, keys))  # a key is in one range


@pytest.mark.parametrize("known", [0, 3, 20])
def test_of_very_many_pairs_as_many_are_looked_at_as_tie_the_same_rows_together(monkeypatch, known):
    """Families of which all rows are alike: blocks of 20 pairs find the same survivors and similarities as all pairs at once."""
    chance = np.random.default_rng(0)
    families = [chance.integers(1, 10_000, 40).tolist() for _ in range(4)]
    rows = [[*family[: 36 + int(chance.integers(4))], 20_000 + int(chance.integers(3))] for family in families for _ in range(40)]
    rows = [rows[row] for row in chance.permutation(len(rows)).tolist()]
    options = {
        "raw": chance.random(len(rows)) < 0.8,
        "family": [f"f{row}" for row in range(len(rows))],
        "rank": chance.permutation(len(rows)),
        "known": known,
        "threshold": 0.95 if known == 3 else 0.8,
    }
    whole = decided(*rows, **options)
    monkeypatch.setattr("curate.algorithms.set_join._MOST_PAIRS", 20)
    blocks = decided(*rows, **options)
    assert blocks.survivor.tolist() == whole.survivor.tolist() and (whole.survivor != np.arange(len(rows))).sum() > 80
    assert np.array_equal(blocks.similarity, whole.similarity, equal_nan=True)
    if not known:
        assert len(blocks.pairs) < len(whole.pairs) and len(decided(*rows, threshold=0.8).pairs) < len(rows) * 10


def test_what_a_known_row_takes_ties_no_others_together_in_any_block(monkeypatch):
    """Rows 0 to 5 are alike; 2 and 3 go to a known row. The others are one set, whichever pairs come first."""
    common = list(range(1, 91))
    rows = [[*common, *range(1000 + 10 * row, 1010 + 10 * row)] for row in range(6)]
    theirs = [*common[:87], *range(1020, 1025), *range(1030, 1035), 5000, 5001, 5002]
    for most in (1 << 21, 1):
        monkeypatch.setattr("curate.algorithms.set_join._MOST_PAIRS", most)
        found = decided(*rows, theirs, known=1, threshold=0.81)
        assert found.survivor.tolist() == [0, 0, 6, 6, 0, 0, 6], most


def test_a_family_of_three_thousand_takes_no_quadratic_memory():
    import tracemalloc

    base = list(range(1, 31))
    rows = [[*base, 100 + number] for number in range(3_000)]
    tracemalloc.start()
    found = decided(*rows, threshold=0.8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.survivor == 0).all()
    assert peak < 400 << 20  # all 4.5 million pairs, each found through a dozen elements, would be 800 MB
