"""Diffusion maps on an exact kNN graph (Coifman and Lafon 2006), with self-tuning scales.

    K_ij = exp(-d_ij^2 / (s_i s_j)),  s_i = distance of i to its 7th neighbour     (Zelnik-Manor and Perona 2004)
    K^a  = K_ij / (q_i q_j)^alpha,    q = row sums of K                            alpha 1 takes the density out
    A    = D^-1/2 K^a D^-1/2,         D = row sums of K^a;   A v = l v,  psi = D^-1/2 v

The coordinates are l^t psi without the constant one. For at most some 50,000 rows; above that use landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_DENSE = 2000
_SCALE_FLOOR = 0.1  # of the median scale; see landmarks.py


@dataclass(frozen=True)
class Spectrum:
    """Top eigenpairs of A.

    values     (m,) float64 descending within each part: constant columns first, then the others
    vectors    (n, m) float64, unit columns of A, zero outside their component
    constant   (m,) bool    psi is constant on one component, zero elsewhere
    root       (n,) float64 D^1/2: psi = vectors / root
    component  (n,) int32   0 is the largest
    """

    values: np.ndarray
    vectors: np.ndarray
    constant: np.ndarray
    root: np.ndarray
    component: np.ndarray


def self_tuned_graph(distances: np.ndarray, indices: np.ndarray, scale_neighbour: int = 7) -> Any:
    """Symmetric csr_array (n, n) of K from each row's nearest others: distances, indices (n, k), nearest first.

    An edge is kept if either end names it. With fewer than `scale_neighbour` neighbours the last one counts.
    """
    from scipy.sparse import csr_array

    distances, indices = np.asarray(distances, np.float64), np.asarray(indices, np.int64)
    n, k = distances.shape
    scales = distances[:, min(scale_neighbour, k) - 1]
    scales = np.maximum(scales, _SCALE_FLOOR * float(np.median(scales)) or 1.0)
    weights = np.exp(-np.square(distances) / (scales[:, None] * scales[indices]))
    graph = csr_array((weights.ravel(), indices.ravel(), np.arange(n + 1) * k), shape=(n, n))
    return graph.maximum(graph.T).tocsr()


def components(graph: Any) -> np.ndarray:
    """Connected component of each row, int32 (n,): 0 is the largest, equals by first member."""
    from scipy.sparse.csgraph import connected_components

    _, found = connected_components(graph, directed=False)
    old, first, sizes = np.unique(found, return_index=True, return_counts=True)
    rank = np.empty(len(old), np.int32)
    rank[np.lexsort((first, -sizes))] = np.arange(len(old))
    return rank[found]


def spectrum(graph: Any, dims: int, alpha: float = 1.0, seed: int = 0) -> Spectrum:
    """The `dims` top eigenpairs of A, component by component (see landmarks.py), at least one of each.

    Dense below 2,000 rows, else ARPACK with a fixed start and tolerance 1e-8: with 1e-3 it silently lost
    copies of close eigenvalues (NMI .72 instead of 1.00 on 32 sheets). Residuals are checked.
    """
    from scipy.linalg import eigh
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import eigsh

    density = np.asarray(graph.sum(axis=1)).ravel() ** -alpha
    weighted = (diags_array(density) @ graph @ diags_array(density)).tocsr()
    root = np.sqrt(np.asarray(weighted.sum(axis=1)).ravel())
    operator = (diags_array(1.0 / root) @ weighted @ diags_array(1.0 / root)).tocsr()
    component = components(graph)
    columns: list[tuple[float, int, bool, np.ndarray, np.ndarray]] = []
    for number in range(int(component.max()) + 1):
        members = np.flatnonzero(component == number)
        block, size = operator[members][:, members], len(members)
        keep = min(dims, size)
        if size <= max(_DENSE, 3 * keep):
            values, vectors = eigh(block.toarray(), subset_by_index=[size - keep, size - 1])
        else:
            start = np.random.default_rng([seed, number]).standard_normal(size)
            values, vectors = eigsh(block, k=keep, which="LA", v0=start, tol=1e-8, ncv=min(size - 1, max(2 * keep + 1, 40)))
        residual = np.abs(block @ vectors - vectors * values).max()
        if residual > 1e-6 or abs(values[-1] - 1.0) > 1e-6:
            raise RuntimeError(f"eigenproblem of {size} rows not solved (residual {residual:.1e}): ask for fewer dims, or use landmarks")
        for place in range(keep - 1, -1, -1):
            vector = vectors[:, place]
            vector = vector * np.sign(vector[np.argmax(np.abs(vector))])
            columns.append((min(float(values[place]), 1.0), number, place == keep - 1, members, vector))
    columns.sort(key=lambda column: (not column[2], -column[0], column[1]))
    columns = columns[: max(dims, int(component.max()) + 1)]
    vectors = np.zeros((graph.shape[0], len(columns)))
    for place, (_, _, _, members, vector) in enumerate(columns):
        vectors[members, place] = vector
    return Spectrum(np.array([c[0] for c in columns]), vectors, np.array([c[2] for c in columns]), root, component)


def coordinates(spectrum: Spectrum, t: float = 1.0) -> np.ndarray:
    """l^t psi, float64 (n, m'): constant columns left out where there is one component only."""
    psi = np.clip(spectrum.values, 0.0, 1.0) ** t * spectrum.vectors / spectrum.root[:, None]
    return psi[:, ~spectrum.constant] if spectrum.constant.sum() == 1 else psi
