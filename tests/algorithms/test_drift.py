"""Drift: silent on more of the same, loud on a new topic, which it finds; by hand where the answer is known."""

import numpy as np
import pytest

from curate.algorithms import drift as module
from curate.algorithms import knn
from curate.algorithms.drift import Reference, drift, fit_reference, outside
from curate.algorithms.kmeans import spherical_kmeans


def rows(seed, topics, each=120, d=24):
    """Rows of the topics named: (unit rows, topic of each)."""
    centers = np.random.default_rng(0).standard_normal((12, d))
    found = np.concatenate([centers[topic] + 0.8 * np.random.default_rng([seed, topic]).standard_normal((each, d)) for topic in topics])
    return knn.unit_rows(found.astype(np.float32))[0], np.repeat(topics, each)


def fitted(seed=0):
    """A clustering of ten topics, and the function that gives new rows its labels."""
    unit, _ = rows(seed + 100, range(10))
    centers, labels = spherical_kmeans(unit, 10, seed)
    return fit_reference(unit, labels, seed, keep=800), lambda new: knn.search(new, centers, 1)[1][:, 0].astype(np.int32)


def test_more_of_the_same_raises_no_alarm_in_95_of_100_seeds():
    alarms = 0
    for seed in range(40):
        reference, label = fitted(seed)
        new, _ = rows(seed + 500, range(10), each=40)
        alarms += drift(reference, new, label(new)).alarm
    assert alarms <= 4  # 3 % are meant: more than four of forty happen once in a hundred times


def test_a_new_topic_of_a_tenth_is_found_and_named():
    named = 0
    for seed in range(10):
        reference, label = fitted(seed)
        known, _ = rows(seed + 500, range(10), each=45)
        topic, _ = rows(seed + 900, [11], each=50)
        new = np.concatenate([known, topic])
        found = drift(reference, new, label(new))
        assert found.alarm
        named += found.changes[0].cluster == np.bincount(label(topic)).argmax()
    assert named >= 9


def test_a_topic_that_went_away_is_found_too():
    reference, label = fitted()
    new, _ = rows(7, range(1, 10), each=120)
    gone = label(rows(8, [0])[0])
    found = drift(reference, new, label(new))
    assert found.alarm and found.p_shift <= 0.01
    assert found.changes[0].cluster == np.bincount(gone).argmax() and found.changes[0].now < found.changes[0].before


def test_one_row_in_a_hundred_is_expected_outside():
    reference, label = fitted()
    new, _ = rows(5, range(10), each=500)
    share = outside(reference, new, label(new)).mean()
    found = drift(reference, new, label(new))
    assert found.outside == share and found.outside_expected == pytest.approx(0.01, abs=0.005)
    assert share == pytest.approx(0.01, abs=0.01)


def test_energy_distance_by_hand():
    # Two stored rows at right angles, two new copies of the first: 2 E|X-Y| = sqrt 2, E|X-X'| = sqrt 2, E|Y-Y'| = 0.
    stored, new = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[[0, 0]]
    energy, _, pull = module._energy(stored, new, np.random.default_rng(0))
    assert energy == pytest.approx(0.0, abs=1e-6)
    assert pull[2:].mean() - pull[:2].mean() == pytest.approx(energy, abs=1e-6)
    # Orthogonal points: 2 sqrt 2 between, 0 within.
    assert module._energy(stored[[0, 0]], stored[[1, 1]], np.random.default_rng(0))[0] == pytest.approx(2 * np.sqrt(2))


def test_parts_of_the_clusters_sum_to_the_energy_distance():
    reference, label = fitted()
    new, _ = rows(3, [0, 1, 11])
    found = drift(reference, new, label(new), most_changes=10)
    assert sum(change.energy for change in found.changes) == pytest.approx(found.energy, rel=1e-4)


def test_a_row_outside_does_not_depend_on_its_batch():
    reference, label = fitted()
    new, _ = rows(5, range(12))
    whole = outside(reference, new, label(new))
    assert whole.any() and (whole == np.concatenate([outside(reference, part, label(part)) for part in np.array_split(new, 7)])).all()


def test_the_reference_comes_back_from_the_artifact(tmp_path):
    reference, label = fitted()
    np.savez(tmp_path / "clusters.npz", means=np.zeros(3), **reference.arrays())
    with np.load(tmp_path / "clusters.npz", allow_pickle=False) as stored:
        assert all(name == "means" or name.startswith("drift_") for name in stored)
        again = Reference.of_arrays(stored)
    new, _ = rows(5, range(10))
    assert again is not None and drift(again, new, label(new)) == drift(reference, new, label(new))
    assert Reference.of_arrays({"means": np.zeros(3)}) is None


def test_single_rows_and_one_cluster_are_defined():
    unit, _ = rows(0, range(3), each=1)
    reference = fit_reference(unit, np.arange(3))
    assert drift(reference, unit[:1], np.array([0])).rows == 1
    one = fit_reference(np.repeat(unit[:1], 30, axis=0), np.zeros(30, int))
    found = drift(one, np.repeat(unit[:1], 10, axis=0), np.zeros(10, int))
    assert (found.alarm, found.outside, found.energy, found.shift) == (False, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="no rows"):
        drift(one, unit[:0], np.array([], int))
