"""Separate parts of a kNN graph joined by the shortest edges between them.

The kNN graph need not be connected, and a minimum spanning tree (Kruskal 1956) of it then is a forest. The edges
that are missing are those of the spanning tree of the components, under the distance of their closest rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from curate.algorithms import diffusion, knn

_BLOCK = 2048
# Products of rows that are compared outright; above, each component shows at most some of its rows.
_MOST_PRODUCTS = 10**9
_SHOWN = 64
# Components whose distances to each other fit in memory (c x c); more are first joined through their own kNN graph.
_MOST_COMPONENTS = 2000


def bridges(component: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows int64, columns int64, lengths float64), c - 1 edges that join c components with the least total length.

    component   (n,) labels 0..c-1;  vectors (n, d) unit float32

    Exact while rows outside the largest component times all rows is below 1e9 and c is at most 2,000. Above, between
    at most 64 rows of each component, the nearest to its mean and then always the one farthest from those taken.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    sizes = np.bincount(component)
    count, n = len(sizes), len(component)
    if count < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    order = np.argsort(component, kind="stable")
    shown = np.split(order, np.cumsum(sizes)[:-1])
    if (n - int(sizes.max())) * n > _MOST_PRODUCTS:
        most = max(1, min(_SHOWN, int(np.sqrt(_MOST_PRODUCTS)) // count))
        shown = [_spread(rows, vectors, most) for rows in shown]
    if count > _MOST_COMPONENTS:
        return _two_steps(component, vectors, shown)
    parts = np.repeat(np.arange(count), [len(rows) for rows in shown])
    starts = np.searchsorted(parts, np.arange(count))
    everything = np.ascontiguousarray(vectors[np.concatenate(shown)])
    closest = np.full((count, count), -np.inf, np.float32)
    searching = np.flatnonzero(parts != int(sizes.argmax()))  # the largest component is found by the others
    for begin in range(0, len(searching), _BLOCK):
        some = searching[begin : begin + _BLOCK]
        np.maximum.at(closest, parts[some], np.maximum.reduceat(everything[some] @ everything.T, starts, axis=1))
    # Rounded: float32 products differ in the last bits with the order of the rows. + 1: a sparse array takes 0 for no edge.
    cosines = np.round(np.maximum(closest, closest.T).astype(np.float64), 5)
    lengths = np.sqrt(np.clip(2.0 - 2.0 * cosines, 0.0, 4.0)) + 1.0
    np.fill_diagonal(lengths, 0.0)
    pairs = minimum_spanning_tree(csr_array(lengths)).tocoo().coords
    return _columns([_closest_pair(shown[a], shown[b], vectors) for a, b in zip(*pairs, strict=True)])


def bridge(graph: Any, vectors: np.ndarray, scales: np.ndarray) -> Any:
    """The graph of `diffusion.self_tuned_graph` with its components joined: csr_array (n, n), connected.

    scales   (n,) `diffusion.scales`. A bridge takes the median bridge's length where a row's own scale is less: with the
             scales of a clump of copies it would weigh nothing, and 400 clumps would have 400 eigenvalues within 1e-9
             of 1 (measured: eigsh at tolerance 1e-8 then lost most of them, with residuals of 3e-10)
    """
    from scipy.sparse import coo_array

    rows, columns, lengths = bridges(diffusion.components(graph), vectors)
    if not len(rows):
        return graph
    wide = np.maximum(scales, np.median(lengths))
    weights = diffusion.kernel(lengths, wide[rows], wide[columns])
    added = coo_array((np.r_[weights, weights], (np.r_[rows, columns], np.r_[columns, rows])), shape=graph.shape)
    return graph.maximum(added.tocsr()).tocsr()


def _distance_graph(distances: np.ndarray, indices: np.ndarray) -> Any:
    """csr_array (n, n) of 1 + d, as named by the rows: components and trees take either direction."""
    from scipy.sparse import csr_array

    n, k = distances.shape
    return csr_array((distances.astype(np.float64).ravel() + 1.0, indices.ravel(), np.arange(n + 1) * k), shape=(n, n))


def _forest(distances: np.ndarray, indices: np.ndarray) -> Any:
    from scipy.sparse.csgraph import minimum_spanning_tree

    return minimum_spanning_tree(_distance_graph(distances, indices)).tocoo()


def _closest_pair(some: np.ndarray, others: np.ndarray, vectors: np.ndarray) -> tuple[int, int, float]:
    best = (0, 0, np.inf)
    for begin in range(0, len(some), _BLOCK):
        rows = some[begin : begin + _BLOCK]
        products = vectors[rows] @ vectors[others].T
        # float32 proposes one pair a row, float64 decides
        columns = others[products.argmax(axis=1)]
        gaps = np.sqrt(np.square(vectors[rows].astype(np.float64) - vectors[columns]).sum(axis=1))
        least = int(gaps.argmin())
        if gaps[least] < best[2]:
            best = (int(rows[least]), int(columns[least]), float(gaps[least]))
    return best


def _spread(members: np.ndarray, vectors: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the members: the one nearest their mean, then farthest first (Gonzalez 1985)."""
    if len(members) <= most:
        return members
    rows = vectors[members]
    taken = [int(np.argmax(rows @ rows.mean(axis=0)))]
    nearest = rows @ rows[taken[0]]
    while len(taken) < most:
        taken.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, rows @ rows[taken[-1]])
    return members[np.array(taken)]


def _two_steps(component: np.ndarray, vectors: np.ndarray, shown: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bridges of many components: the spanning forest of the kNN graph of their means, then bridges of what is left."""
    means = knn.unit_rows(np.stack([vectors[rows].mean(axis=0, dtype=np.float64) for rows in shown]))[0]
    distances, indices = knn.nearest_others(means, 10)
    edges = [_closest_pair(shown[a], shown[b], vectors) for a, b in zip(*_forest(distances, indices).coords, strict=True)]
    joined = diffusion.components(_distance_graph(distances, indices))[component]
    rest = bridges(joined, vectors)
    return tuple(np.concatenate(pair) for pair in zip(_columns(edges), rest, strict=True))  # type: ignore[return-value]


def _columns(edges: list[tuple[int, int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, columns, lengths = zip(*edges, strict=True)
    return np.array(rows, np.int64), np.array(columns, np.int64), np.array(lengths, np.float64)
