"""The map of clusters: near centers lie near, rows lie between the centers they are near, alone as in a batch."""

import numpy as np
import pytest

from curate.algorithms import cluster_map, knn


def test_near_centers_lie_near_and_rows_by_their_center():
    centers = knn.unit_rows(np.array([[1, 0, 0, 0], [1, 0.3, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))[0]
    layout = cluster_map.layout(centers)
    gaps = np.linalg.norm(layout[:4, None] - layout[:4], axis=2)
    assert gaps[0, 1] < 0.5 * min(gaps[0, 2], gaps[0, 3], gaps[2, 3])
    middle = knn.unit_rows(centers[2:3] + centers[3:4].astype(np.float64))[0]
    placed = cluster_map.place(np.concatenate([centers, middle]), centers, layout)
    nearest = np.linalg.norm(placed[:4, None] - layout[:4], axis=2).argmin(axis=1)
    assert set(nearest[:2]) <= {0, 1} and nearest[2:].tolist() == [2, 3]
    assert np.linalg.norm(placed[4] - layout[2]) == pytest.approx(np.linalg.norm(placed[4] - layout[3]), abs=0.05)


def test_a_row_is_placed_alone_as_in_a_batch_and_twice_alike():
    rows = knn.unit_rows(np.random.default_rng(0).normal(size=(300, 16)))[0]
    layout = cluster_map.layout(rows[:20])
    assert (layout == cluster_map.layout(rows[:20])).all()
    whole = cluster_map.place(rows, rows[:20], layout)
    assert (cluster_map.place(rows[123:124], rows[:20], layout)[0] == whole[123]).all()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_few_centers(k):
    centers = np.eye(4, dtype=np.float32)[:k]
    placed = cluster_map.place(np.eye(4, dtype=np.float32), centers, cluster_map.layout(centers))
    assert placed.shape == (4, 2) and np.isfinite(placed).all()
    assert np.isfinite(cluster_map.layout(np.ones((3, 4), np.float32) / 2)).all()
