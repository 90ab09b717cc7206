"""Bridges and spanning trees: against the exact tree of all pairs."""

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree

from curate.algorithms import bridges, diffusion
from curate.algorithms.knn import nearest_others, unit_rows


def clumps(seed, count, each, noise=0.1, d=16):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(count), each)
    return unit_rows(unit_rows(rng.normal(size=(count, d)))[0][truth] + noise * rng.normal(size=(len(truth), d)) / np.sqrt(d))[0], truth


def exact_tree(rows):
    gaps = np.sqrt(np.square(rows[:, None].astype(float) - rows[None]).sum(2))
    return np.sort(minimum_spanning_tree(gaps).data)


def test_bridges_are_the_shortest_edges_that_join_all_parts():
    rows, truth = clumps(0, 12, 20)
    a, b, lengths = bridges.bridges(truth, rows)
    assert len(a) == 11 and np.allclose(np.linalg.norm(rows[a].astype(float) - rows[b], axis=1), lengths)
    # The tree of all pairs crosses between clumps exactly there.
    assert np.sort(lengths) == pytest.approx(exact_tree(rows)[-11:], abs=1e-9)


def test_a_disconnected_graph_becomes_connected_and_keeps_its_weights():
    rows, _ = clumps(1, 5, 30)
    distances, indices = nearest_others(rows, 7)
    graph = diffusion.self_tuned_graph(distances, indices)
    assert diffusion.components(graph).max() == 4
    joined = bridges.bridge(graph, rows, diffusion.scales(distances))
    assert diffusion.components(joined).max() == 0 and abs(joined - joined.T).max() == 0
    assert joined.nnz == graph.nnz + 2 * 4
    assert diffusion.spectrum(joined, 6).constant.sum() == 1
    # The parts are still the clusters: five eigenvalues near 1, a gap, the rest.
    values = diffusion.spectrum(joined, 7).values
    assert values[4] > 0.97 and values[5] < 0.93


def test_a_connected_graph_is_left_as_it_is():
    rows, _ = clumps(1, 1, 60)
    distances, indices = nearest_others(rows, 10)
    graph = diffusion.self_tuned_graph(distances, indices)
    assert bridges.bridge(graph, rows, diffusion.scales(distances)) is graph


def test_many_parts_and_large_parts_are_joined_approximately(monkeypatch):
    rows, truth = clumps(4, 60, 10)
    exact = bridges.bridges(truth, rows)[2].sum()
    for limit, value in (("_MOST_COMPONENTS", 20), ("_MOST_PRODUCTS", 60_000)):
        with monkeypatch.context() as patch:
            patch.setattr(bridges, limit, value)
            a, b, lengths = bridges.bridges(truth, rows)
        whole = np.zeros((60, 60))
        whole[truth[a], truth[b]] = 1
        assert len(lengths) == 59 and len(set(diffusion.components(whole + whole.T))) == 1
        assert exact - 1e-9 <= lengths.sum() < 1.05 * exact


def test_the_order_of_the_rows_changes_no_bridge():
    rows, truth = clumps(5, 12, 20)
    a, b, lengths = bridges.bridges(truth, rows)
    order = np.random.default_rng(0).permutation(len(rows))
    c, d, others = bridges.bridges(truth[order], rows[order])
    pairs = {frozenset(pair) for pair in zip(a.tolist(), b.tolist(), strict=True)}
    assert pairs == {frozenset(pair) for pair in zip(order[c].tolist(), order[d].tolist(), strict=True)}
    assert np.sort(others) == pytest.approx(np.sort(lengths), abs=1e-12)
