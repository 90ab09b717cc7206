"""The report card on clouds whose answer is known: each measure by itself, and a narrow subset caught by all of them."""

import numpy as np
import pytest

from curate.algorithms import knn, report_card
from curate.algorithms.kmeans import spherical_kmeans
from curate.algorithms.report_card import diffusion_entropy, moments, rank_me, tree_edges, vendi


def topics(seed=0, k=20, each=100, d=32, spread=0.25):
    """k clouds around random directions: (unit rows, labels)."""
    rng = np.random.default_rng(seed)
    centers = np.repeat(rng.standard_normal((k, d)), each, axis=0) / np.sqrt(d)
    rows = centers + spread * rng.standard_normal((k * each, d)) / np.sqrt(d)
    return knn.unit_rows(rows.astype(np.float32))[0], np.repeat(np.arange(k), each)


def distances_of(rows):
    return np.sqrt(np.square(rows[:, None].astype(float) - rows[None]).sum(axis=2))


def card(unit, kept, labels, seed=0, **more):
    return {measure.name: measure for measure in report_card.report_card(unit, kept, labels, seed, **more)}


@pytest.mark.parametrize("m", [1, 4, 10])
def test_equal_groups_at_right_angles_count_as_themselves(m):
    groups = np.repeat(np.eye(16, dtype=np.float32)[:m], 30, axis=0)
    assert vendi(moments(groups).eigenvalues()) == pytest.approx(m)
    assert rank_me(moments(groups).eigenvalues()) == pytest.approx(m)


def test_vendi_is_the_entropy_of_the_kernel():
    unit, _ = topics(k=3, each=20)
    eigenvalues = np.linalg.eigvalsh(unit.astype(float) @ unit.T.astype(float) / len(unit))
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    assert vendi(moments(unit).eigenvalues()) == pytest.approx(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()), rel=1e-5)


def test_moments_of_shards_add_up():
    unit, _ = topics()
    added = moments(unit[:700]) + moments(unit[700:])
    assert (added.rows, vendi(added.eigenvalues())) == (len(unit), pytest.approx(vendi(moments(unit).eigenvalues()), rel=1e-12))


def test_diffusion_entropy_of_groups_of_copies_in_closed_form():
    # m groups of s copies at distance sqrt(2): eigenvalues 1 once and (1 - c) / (1 + (m - 1) c) otherwise, c = exp(-2 / scale^2).
    m, scale = 5, 0.8
    c = np.exp(-2 / scale**2)
    values = np.array([1.0] + [(1 - c) / (1 + (m - 1) * c)] * (m - 1))
    shares = values / values.sum()
    rows = np.repeat(np.eye(m), 12, axis=0)
    assert diffusion_entropy(distances_of(rows), scale) == pytest.approx(-(shares * np.log2(shares)).sum())
    # The released scale sees one point.
    assert diffusion_entropy(distances_of(rows), 10.0) < 0.7 < np.log2(m) - 0.1 < diffusion_entropy(distances_of(rows), 0.3)


def test_tree_is_the_shortest():
    from scipy.sparse.csgraph import minimum_spanning_tree

    distances = distances_of(topics(k=2, each=40)[0])
    assert sorted(tree_edges(distances)) == pytest.approx(sorted(minimum_spanning_tree(distances).data))


@pytest.mark.parametrize("d", [2, 5])
def test_dimension_of_a_ball_is_its_own(d):
    rng = np.random.default_rng(d)
    ball = rng.standard_normal((1500, d))
    ball *= (rng.random((1500, 1)) ** (1 / d)) / np.linalg.norm(ball, axis=1, keepdims=True)
    # Laid flat in 20 dimensions and lifted to the sphere, far enough that it stays flat; every third row twice.
    rows = np.concatenate([np.full((1500, 1), 8.0), ball, np.zeros((1500, 20 - d))], axis=1)
    unit = knn.unit_rows(np.concatenate([rows, rows[::3]]).astype(np.float32))[0]
    found = card(unit, np.arange(len(unit)) % 2 == 0, None)["dimension"]
    assert found.whole == pytest.approx(d, rel=0.2)


def test_a_subset_of_one_topic_is_narrow_by_every_measure():
    unit, labels = topics()
    found = card(unit, labels == 3, labels)
    narrow = {
        "vendi": "below",
        "rank_me": "below",
        "diffusion_entropy": "below",
        "tree_length": "below",
        "clusters_kept": "below",
        "cluster_shift": "above",
        "coverage_radius": "above",
    }
    assert {name: found[name].verdict for name in narrow} == narrow
    assert (found["clusters_kept"].subset, found["cluster_shift"].subset) == (1 / 20, pytest.approx(np.log2(20)))


def test_rows_spread_on_purpose_are_wider_than_chance():
    unit, labels = topics()
    chosen = [0]
    nearest = unit @ unit[0]
    while len(chosen) < 150:  # the row farthest from all chosen ones
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, unit @ unit[chosen[-1]])
    found = card(unit, np.isin(np.arange(len(unit)), chosen), labels)
    assert (found["diffusion_entropy"].verdict, found["tree_length"].verdict) == ("above", "above")


def test_the_rows_nearest_to_many_centers_reach_further_than_chance():
    # Of a disc, where rows crowd in the middle, the rows nearest to evenly laid points.
    rng = np.random.default_rng(0)
    unit = knn.unit_rows(np.concatenate([rng.standard_normal((2000, 2)), np.full((2000, 1), 3.0)], axis=1).astype(np.float32))[0]
    middle = np.unique((unit @ spherical_kmeans(unit, 100, 0)[0].T).argmax(axis=0))
    assert card(unit, np.isin(np.arange(len(unit)), middle), None)["coverage_radius"].verdict == "below"


def test_separate_clumps_are_told_from_one_cloud():
    unit, _ = topics(k=2, each=300, spread=0.05)
    cloud, _ = topics(k=1, each=600, spread=1.0)
    both = np.concatenate([unit, cloud])
    found = card(both, np.arange(len(both)) < len(unit), None)["separability"]
    assert found.subset > 0.8
    assert card(cloud, np.arange(len(cloud)) < 300, None)["separability"].subset < 0.5


def test_random_subsets_are_rarely_called_outside():
    unit, labels = topics(each=60)
    draws = [np.isin(np.arange(len(unit)), np.random.default_rng([7, seed]).permutation(len(unit))[:120]) for seed in range(10)]
    verdicts = [measure.verdict for seed, kept in enumerate(draws) for measure in card(unit, kept, labels, seed).values()]
    assert len(verdicts) == 90 and sum(verdict != "within" for verdict in verdicts) <= 4  # 1 % is meant


def test_everything_kept_is_the_whole():
    unit, labels = topics(k=5, each=60)
    found = card(unit, np.ones(len(unit), bool), labels)
    assert {measure.verdict for measure in found.values()} == {"within"}
    assert found["coverage_radius"].subset == 0 and found["clusters_kept"].subset == 1 and found["cluster_shift"].subset == 0
    assert found["vendi"].subset == pytest.approx(found["vendi"].whole)


def test_same_rows_same_card_and_rotation_changes_nothing():
    unit, labels = topics(k=4, each=50)
    kept = labels < 2
    turned = (unit @ np.linalg.qr(np.random.default_rng(1).standard_normal((32, 32)))[0]).astype(np.float32)
    first, again, other = card(unit, kept, labels), card(unit, kept, labels), card(turned, kept, labels)
    assert first == again
    for name, measure in first.items():
        assert other[name].subset == pytest.approx(measure.subset, rel=1e-3, abs=1e-6)


def test_copies_of_one_row_have_a_defined_outcome():
    unit = np.repeat(topics(k=1, each=1)[0], 60, axis=0)
    found = card(unit, np.arange(60) < 30, np.zeros(60, int))
    assert found["vendi"].subset == pytest.approx(1) and found["tree_length"].subset < 1e-6 and np.isnan(found["dimension"].subset)
    assert {measure.verdict for measure in found.values()} == {"within"}


def test_a_thinly_sampled_whole_stands_for_all_of_it():
    unit, labels = topics()
    whole = np.arange(len(unit)) % 4 == 0
    kept = labels == 3
    counts = (np.bincount(labels[kept], minlength=20), np.bincount(labels, minlength=20))
    found = card(unit, kept, None, whole=whole, counts=counts, whole_moments=moments(unit))
    full = card(unit, kept, labels)
    assert found["clusters_kept"].subset == full["clusters_kept"].subset and found["vendi"].whole == full["vendi"].whole
    assert (found["vendi"].verdict, found["coverage_radius"].verdict) == ("below", "above")


def test_too_few_rows_are_refused():
    unit, labels = topics(k=1, each=30)
    with pytest.raises(ValueError, match="takes 20"):
        card(unit, np.arange(30) < 5, labels)
