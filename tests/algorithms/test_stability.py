"""Stability under resampling: certain clusters score 1, arbitrary ones do not, and k is the k that was drawn."""

import numpy as np
import pytest

from curate.algorithms import knn
from curate.algorithms.kmeans import spherical_kmeans
from curate.algorithms.stability import k_by_stability, resample_stability, without_clusters


def blobs(k, n=900, d=12, noise=0.25, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    centers = np.linalg.qr(rng.normal(size=(d, d)))[0][:k]
    return knn.unit_rows(centers[truth] + noise * rng.normal(size=(n, d)) / np.sqrt(d) * 2)[0], truth


def by_kmeans(*ks, restarts=3):
    def cluster(sample, every, seed):
        return [(every @ spherical_kmeans(sample, k, seed, restarts)[0].T).argmax(axis=1) for k in ks]

    return cluster


def test_clear_clusters_are_stable_and_too_many_are_not():
    unit, _ = blobs(5)
    found = resample_stability(by_kmeans(5, 9), unit, 0)
    assert found.mean[0] > 0.99 and found.low[0] > 0.98
    assert found.mean[1] < 0.9 and found.low[1] < found.mean[1] < found.high[1] <= 1


def test_mean_and_interval_by_hand():
    # Four resamples: three agree wholly, the fourth differs.
    answers = iter([[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]])
    found = resample_stability(lambda sample, every, seed: np.array(next(answers)), np.eye(4, dtype=np.float32), 0, 4)
    odd = found.pairs[0, 0, 3]
    assert odd == pytest.approx(-0.5) and found.pairs[0, 0, 1] == 1
    assert found.mean == pytest.approx([(3 * 1 + 3 * odd) / 6])
    without = np.array([(1 + 2 * odd) / 3] * 3 + [1.0])
    error = np.sqrt(3 / 4 * np.square(without - without.mean()).sum())
    assert found.low == pytest.approx(found.mean - 3.182446 * error, abs=1e-5)
    assert found.high == pytest.approx([1.0])


def test_draws_are_distinct_rows_two_thirds_of_all_and_another_seed_each():
    unit, _ = blobs(3, n=500)
    seen = []

    def cluster(sample, every, seed):
        seen.append((len(sample), len(np.unique(sample, axis=0)), len(every), seed))
        return np.zeros(len(every), int)

    resample_stability(cluster, unit, 10, 4)
    assert [entry[3] for entry in seen] == [10, 11, 12, 13]
    assert all(rows == distinct and 280 < rows < 350 and every == 500 for rows, distinct, every, _ in seen)


@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_k_of_blobs(k):
    unit, _ = blobs(k)
    found = k_by_stability(by_kmeans(2, 3, 4, 5, 6, 8, 10, 12, restarts=10), unit, [2, 3, 4, 5, 6, 8, 10, 12], 0)
    assert found.k == k


def test_a_long_axis_is_no_cluster():
    # Stable in two halves, and yet a cloud without clusters is as stable: no score, though the stability is near 1.
    rng = np.random.default_rng(0)
    unit = knn.unit_rows(rng.normal(size=(900, 8)) * np.array([3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]) + np.array([0, 4, 0, 0, 0, 0, 0, 0]))[
        0
    ]
    found = k_by_stability(by_kmeans(2, 3), unit, [2, 3], 0)
    assert found.stability.mean[0] > 0.9 and found.null.mean[0] > 0.9 and found.score[0] == 0


def test_the_cloud_has_the_mean_and_covariance_and_no_clusters():
    # Far from the origin, so that putting the rows on the sphere changes little.
    rng = np.random.default_rng(0)
    unit = knn.unit_rows(
        np.array([10.0, 0, 0, 0]) + rng.choice([-1, 1], size=(4000, 1)) * np.array([0, 1.0, 0, 0]) + 0.1 * rng.normal(size=(4000, 4))
    )[0]
    cloud = without_clusters(unit, 0)
    assert cloud.mean(axis=0) == pytest.approx(unit.mean(axis=0), abs=0.01)
    assert np.cov(cloud.T) == pytest.approx(np.cov(unit.T), abs=1e-3)
    assert (np.abs(unit[:, 1]) < 0.03).mean() < 0.01 < 0.1 < (np.abs(cloud[:, 1]) < 0.03).mean()


def test_a_sample_of_many_rows_and_the_same_answer_twice():
    unit, _ = blobs(3, n=3000)
    one, two = (k_by_stability(by_kmeans(2, 3, 4), unit, [2, 3, 4], 0, resamples=3, most=400) for _ in range(2))
    assert one.k == 3 and one.score.tobytes() == two.score.tobytes()


def test_identical_rows_are_stable_and_tell_nothing():
    unit = np.repeat(blobs(2, n=2)[0][:1], 50, axis=0)
    found = k_by_stability(by_kmeans(1, 2), unit, [1, 2], 0, resamples=3)
    assert found.k == 1 and found.score.tolist() == [0.0, 0.0]


def test_mistakes_end_with_the_remedy():
    unit, _ = blobs(2, n=50)
    with pytest.raises(ValueError, match="at least 3"):
        resample_stability(by_kmeans(2), unit, 0, 2)
    with pytest.raises(ValueError, match="label every row"):
        resample_stability(lambda sample, every, seed: np.zeros(len(sample), int), unit, 0)
    with pytest.raises(ValueError, match="one for each"):
        k_by_stability(by_kmeans(2), unit, [2, 3], 0, 3)
