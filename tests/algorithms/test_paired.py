import numpy as np
import pytest
from scipy import stats

from curate.algorithms import paired

GROUPS = np.repeat(np.arange(5), [10, 20, 30, 10, 10])


def simulated(generator: np.random.Generator, shift: float = 0.0, seeds: int = 6) -> np.ndarray:
    """Differences (seeds, items) with true macro mean `shift`: seeds, items and their interaction vary."""
    parts = [(0.04, (seeds, 1)), (0.4, (1, len(GROUPS))), (0.4, (seeds, len(GROUPS)))]
    return shift + sum(generator.normal(0, deviation, shape) for deviation, shape in parts)


def test_the_macro_mean_weighs_groups_alike_whatever_their_size():
    values = np.array([[1.0, 3.0, 10.0], [0.0, 0.0, 6.0]])
    assert paired.macro(values, np.array([7, 7, 2])).tolist() == [6.0, 3.0]


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for simulation in range(200):
        low, high = paired.interval(paired.hierarchical_bootstrap(simulated(generator, 0.1), GROUPS, 400, simulation))
        hits += low <= 0.1 <= high
    assert 0.90 <= hits / 200 <= 0.985  # binomial error of 200 simulations: .015


def test_few_seeds_make_the_interval_too_narrow_by_as_much_as_is_said():
    """Where seeds vary by .1: four in ten, one in eight, one in fifteen; binomial error of 150 simulations at most .04."""
    groups, generator = np.repeat(np.arange(11), 34), np.random.default_rng(7)

    def leaves_zero_out(seeds: int, simulation: int) -> bool:
        parts = [(0.1, (seeds, 1)), (0.55, (1, len(groups))), (0.67, (seeds, len(groups)))]
        difference = sum(generator.normal(0, deviation, shape) for deviation, shape in parts)
        low, high = paired.interval(paired.hierarchical_bootstrap(difference, groups, 300, simulation))
        return not low <= 0 <= high

    one, two, six = (np.mean([leaves_zero_out(seeds, simulation) for simulation in range(150)]) for seeds in (1, 2, 6))
    assert 0.3 <= one <= 0.54 and 0.05 <= two <= 0.22 and six <= 0.13
    assert one > two > six


def test_the_draws_have_the_variance_that_theory_gives():
    generator = np.random.default_rng(1)
    seeds = generator.normal(0, 1, (6, 1)) + np.zeros((6, len(GROUPS)))  # items agree: only seeds vary
    assert paired.hierarchical_bootstrap(seeds, GROUPS, 20_000).var() == pytest.approx(seeds[:, 0].var(ddof=1) / 6, rel=0.05)
    items = generator.normal(0, 1, (1, len(GROUPS))) + np.zeros((6, len(GROUPS)))  # seeds agree: only items vary
    members = [items[0, g == GROUPS] for g in range(5)]
    expected = np.mean([part.var(ddof=1) / len(part) for part in members]) / 5
    assert paired.hierarchical_bootstrap(items, GROUPS, 20_000).var() == pytest.approx(expected, rel=0.05)


def test_draws_follow_from_their_seed():
    difference = simulated(np.random.default_rng(2))
    first = paired.hierarchical_bootstrap(difference, GROUPS, 50, seed=3)
    np.testing.assert_array_equal(first, paired.hierarchical_bootstrap(difference, GROUPS, 50, seed=3))
    assert not np.array_equal(first, paired.hierarchical_bootstrap(difference, GROUPS, 50, seed=4))


def test_the_recovered_fraction_of_a_known_case():
    generator = np.random.default_rng(3)
    item = generator.normal(3.0, 1.0, len(GROUPS))
    pruned, ceiling = item[None] + 1.0, item + generator.normal(0, 0.02, (6, 1))
    found = paired.recovered_fraction(pruned, pruned - 0.6 + generator.normal(0, 0.02, (6, 1)), ceiling, GROUPS)
    assert found.value == pytest.approx(0.6, abs=0.03) and found.low < 0.6 < found.high and found.high - found.low < 0.1
    # Noise that arm and ceiling share cancels in part only if their seeds are drawn together: then this ratio is exact.
    shared = generator.normal(0, 0.2, (6, len(GROUPS)))
    exact = paired.recovered_fraction(pruned, pruned - 0.5 * (1.0 + shared), pruned - (1.0 + shared), GROUPS)
    assert exact.value == pytest.approx(0.5) and exact.low == pytest.approx(0.5) and exact.high == pytest.approx(0.5)


def test_a_ceiling_that_is_no_better_gives_no_bounded_interval():
    base = simulated(np.random.default_rng(4))
    found = paired.recovered_fraction(base[:1] * 0 + 0.01, base, base * 0.5, GROUPS)
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_sign_flips_against_a_count_by_hand():
    assert paired.sign_flip_p([1.0, 2.0, 3.0]) == 2 / 8  # only +++ and ---
    assert paired.sign_flip_p([1.0, 2.0, -3.0]) == 1.0
    assert paired.sign_flip_p([1.0, 2.0, 3.0, -1.0]) == 4 / 16 + 2 / 16  # sums of 5 or more: +++-, -+++, ++++ and their mirrors
    assert paired.sign_flip_p([0.1] * 6) == 2 / 64


def test_the_paired_t_is_scipys():
    differences = [-0.300, -0.321, -0.350, -0.386]
    found, theirs = paired.paired_t(differences), stats.ttest_1samp(differences, 0)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval()))
    assert paired.paired_t([0.25, 0.25]) == (0.25, 0.25, 0.25, 0.0)


def test_holm_on_a_textbook_case():
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.7, 0.9]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("seeds", "expected"), [(6, 1.44), (10, 1.00)])
def test_the_smallest_visible_effect_is_found_with_the_stated_power(seeds, expected):
    differences = stats.zscore(np.arange(seeds), ddof=1)
    effect = paired.smallest_visible_effect(differences)
    assert effect == pytest.approx(expected, abs=0.02)
    draws = np.random.default_rng(5).normal(effect, 1.0, (20_000, seeds))
    assert np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.01)
    assert paired.smallest_visible_effect(2 * differences) == pytest.approx(2 * effect)


def test_many_seeds_are_compared_without_their_flips():
    arm, control = simulated(np.random.default_rng(0), seeds=25), simulated(np.random.default_rng(1), seeds=25)
    found = paired.contrast(arm, control, GROUPS)
    assert found["sign_flip_p"] is None and 0 <= found["t_p"] <= 1 and len(found["by_seed"]) == 25


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="one group per item"):
        paired.macro(np.ones((2, 3)), np.zeros(4))
    with pytest.raises(ValueError, match="leave those items out"):
        paired.hierarchical_bootstrap(np.array([[1.0, np.nan]]), np.zeros(2))
    with pytest.raises(ValueError, match="twice the same"):
        paired.recovered_fraction(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3)), np.zeros(3))
    with pytest.raises(ValueError, match="2 or more"):
        paired.paired_t([1.0])
