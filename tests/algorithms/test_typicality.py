"""Typicality: one score scale at every density, and a refusal rate of real rows that keeps its word."""

import math

import numpy as np
import pytest

from curate.algorithms import knn
from curate.algorithms.typicality import conformal_quantile, local_ratio


def on_circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def scores_of(points, reference, k, left_out=None):
    radii = knn.nearest_others(reference, k)[0][:, k - 1]
    distances, indices = knn.search(points, reference, k + 1)
    return local_ratio(distances, indices, radii, k, left_out)


def test_score_by_hand():
    # distances to 2 neighbours .3 and .6; their radii .5 and .7: s = .6 / .6
    assert local_ratio([[0.3, 0.6]], [[1, 0]], [0.7, 0.5], k=2).tolist() == pytest.approx([1.0])


def test_dense_and_sparse_regions_score_alike_and_a_stranger_scores_high():
    dense, sparse = np.linspace(0, 0.1, 200), np.linspace(1.0, 2.0, 200)
    reference = on_circle(np.concatenate([dense, sparse]))
    inside = scores_of(on_circle(np.array([0.0501, 1.501])), reference, 5)
    assert inside == pytest.approx([1, 1], abs=0.25)
    assert scores_of(on_circle(np.array([4.0])), reference, 5)[0] > 20


def test_the_source_row_does_not_vouch_for_its_copy():
    reference = on_circle(np.array([0.0, 0.01, 0.02, 0.03, 0.04, 3.0]))
    copy_of_the_loner = reference[5:]
    # For the loner its own entry counts as first neighbour, unless left out.
    leaning = scores_of(copy_of_the_loner, reference, 1)[0]
    alone = scores_of(copy_of_the_loner, reference, 1, left_out=np.array([5]))[0]
    assert leaning == 0 and alone > 100
    assert scores_of(copy_of_the_loner, reference, 1, left_out=np.array([-1]))[0] == leaning


def test_among_exact_copies():
    reference = np.repeat(on_circle(np.array([0.0])), 8, axis=0)
    assert scores_of(reference[:1], reference, 3).tolist() == [1.0]
    assert scores_of(on_circle(np.array([0.5])), reference, 3).tolist() == [math.inf]


def test_a_score_is_the_same_in_any_batch():
    rng = np.random.default_rng(0)
    reference = knn.unit_rows(rng.normal(size=(500, 32)))[0]
    queries = knn.unit_rows(rng.normal(size=(60, 32)))[0]
    whole = scores_of(queries, reference, 10)
    parts = np.concatenate([scores_of(part, reference, 10) for part in np.split(queries, [1, 7, 33])])
    assert whole.tobytes() == parts.tobytes()


def test_too_few_neighbours_are_refused():
    with pytest.raises(ValueError, match="c >= 3"):
        local_ratio(np.ones((1, 2)), np.ones((1, 2), int), np.ones(5), k=2, left_out=np.array([1]))


def test_quantile_by_hand():
    # n = 19, alpha .05: the ceil(20 * .95) = 19th, the largest; with 18 rows no finite bound can promise it.
    assert conformal_quantile(np.arange(19), 0.05) == 18
    assert conformal_quantile(np.arange(18), 0.05) == math.inf
    assert conformal_quantile(np.arange(9), 0.5) == 4


def test_refusal_rate_of_new_rows_is_at_most_alpha():
    rng = np.random.default_rng(1)
    refused = [np.mean(rng.exponential(size=50) > conformal_quantile(rng.exponential(size=60), 0.1)) for _ in range(2000)]
    # The exact rate is 1 - 55/61 = .0984; without the (n + 1) correction it would be about .115.
    assert 0.09 < np.mean(refused) < 0.104


def test_nan_and_wrong_alpha_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        conformal_quantile([1.0, np.nan], 0.1)
    with pytest.raises(ValueError, match="alpha"):
        conformal_quantile([1.0], 1.0)
