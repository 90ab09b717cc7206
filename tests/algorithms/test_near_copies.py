"""Near copies: who stands for whom, without chains, in any order of the rows."""

import numpy as np

from curate.algorithms import near_copies
from curate.algorithms.diffusion import components, self_tuned_graph
from curate.algorithms.knn import nearest_others, unit_rows


def on_arc(*degrees):
    angles = np.radians(degrees)
    return unit_rows(np.stack([np.cos(angles), np.sin(angles)], axis=1))[0]


def noisy_copies(seed, sources, copies, noise, d=32):
    rng = np.random.default_rng(seed)
    rows = np.repeat(unit_rows(rng.normal(size=(sources, d)))[0], copies, axis=0)
    return unit_rows(rows + noise * rng.normal(size=rows.shape) / np.sqrt(d))[0], np.repeat(np.arange(sources), copies)


def test_rows_within_the_radius_stand_behind_the_one_in_their_middle():
    rows = on_arc(0, 2, 4, 40, 80)
    found = near_copies.collapse(*nearest_others(rows, 2), radius=np.radians(2.5))
    assert found.tolist() == [1, 1, 1, 3, 4]


def test_a_chain_of_small_steps_is_not_one_point():
    rows = on_arc(*range(0, 60, 2))  # every step is within the radius, the ends are a radian apart
    radius = np.radians(2.5)
    for found in (near_copies.collapse(*nearest_others(rows, 5), radius), near_copies.representatives(rows, radius)):
        assert np.linalg.norm(rows - rows[found], axis=1).max() <= radius
        assert len(set(found)) >= 10


def test_more_copies_than_neighbours_become_one_point():
    rows = np.repeat(on_arc(0, 90), 50, axis=0)
    found = near_copies.representatives(rows, 0.01, k=5)
    assert len(set(found)) == 2 and len(set(found[:50])) == 1


def test_groups_wider_than_the_neighbour_list_are_merged_in_rounds():
    rows, source = noisy_copies(0, 20, 30, 0.05)
    found = near_copies.representatives(rows, 0.15, k=8)
    assert len(set(found)) < 2 * 20 and (source[found] == source).all()
    once = near_copies.collapse(*nearest_others(rows, 8), 0.15)
    assert len(set(found)) <= len(set(once))


def test_a_representative_stands_behind_itself_and_is_near_its_rows():
    rows, _ = noisy_copies(1, 40, 10, 0.3)
    found = near_copies.representatives(rows, 0.4, k=6)
    assert (found[found] == found).all()
    assert np.linalg.norm(rows - rows[found], axis=1).max() <= 0.4 + 1e-5


def test_the_order_of_the_rows_changes_no_group():
    rows, _ = noisy_copies(2, 40, 10, 0.3)
    found = near_copies.representatives(rows, 0.4, k=6)
    order = np.random.default_rng(0).permutation(len(rows))
    again = near_copies.representatives(rows[order], 0.4, k=6)
    assert (order[again] == found[order]).all()


def test_rows_apart_stay_apart_and_one_row_is_one_point():
    rows = on_arc(0, 60, 120)
    assert near_copies.representatives(rows, 0.5).tolist() == [0, 1, 2]
    found, distances, indices = near_copies.with_neighbours(rows[:1], 0.5)
    assert found.tolist() == [0] and distances.shape == indices.shape == (1, 0)


def test_the_neighbours_given_back_are_those_of_the_representatives():
    rows, _ = noisy_copies(3, 40, 10, 0.3)
    found, distances, indices = near_copies.with_neighbours(rows, 0.4, k=6)
    again = nearest_others(rows[np.unique(found)], 6)
    assert (distances == again[0]).all() and (indices == again[1]).all()


def test_islands_of_copies_hide_the_classes_and_collapsing_shows_them():
    """Twenty rows in each of three classes, 25 noisy copies of every row: the graph's parts are rows, then classes."""
    rng = np.random.default_rng(4)
    sources = unit_rows(np.repeat(rng.normal(size=(3, 32)), 20, axis=0) + 0.6 * rng.normal(size=(60, 32)))[0]
    source = np.repeat(np.arange(60), 25)
    rows = unit_rows(sources[source] + 0.1 * rng.normal(size=(1500, 32)) / np.sqrt(32))[0]
    assert components(self_tuned_graph(*nearest_others(rows, 10))).max() == 59
    found, distances, indices = near_copies.with_neighbours(rows, 0.25)
    assert len(np.unique(found)) == 60
    parts = components(self_tuned_graph(distances[:, :10], indices[:, :10]))
    truth = source[np.unique(found)] // 20
    assert len(np.unique(np.stack([parts, truth]), axis=1).T) == 3
