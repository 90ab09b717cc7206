"""Landmark spectral coordinates: a bipartite graph of rows and landmarks, solved as one small problem.

LSC (Chen and Cai, AAAI 2011): every row is tied to its r nearest landmarks, Z (n, p) holds the ties,
each row of Z sums to 1, and the graph between rows is W = Z L^-1 Z^T with L = diag(column sums of Z). W is
symmetric and its rows sum to 1. Its eigenvectors follow from the p x p matrix M = L^-1/2 Z^T Z L^-1/2 = V S V^T:

    U = Z L^-1/2 V S^-1/2          eigenvalues S in [0, 1]

The right side needs nothing of a row but its own ties. So a row outside the fit is placed by the same
formula as one inside, exactly, and no row's place depends on the batch it comes in.

Ties are self-tuning (Zelnik-Manor and Perona 2004): exp(-d^2 / (s_row s_landmark)). The density correction
of diffusion maps (Coifman and Lafon 2006), K_ij / (q_i q_j)^alpha, becomes a division by q_landmark^alpha:
the part q_row^alpha cancels when the row is scaled to sum 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# An eigenvalue below this has no direction left: 1 / sqrt(S) would blow up rounding.
_SMALLEST = 1e-6
# A scale below this share of the median one would cut a clump of near copies off from everything else.
_SCALE_FLOOR = 0.1


@dataclass(frozen=True)
class LandmarkMap:
    """What places a row: `coordinates(distances, indices, map)`.

    scales      (p,) float64    s of each landmark: median distance of the rows tied to it
    floor       float           lower limit of every s
    density     (p,) float64    q^alpha of each landmark
    component   (p,) int32      connected component of each landmark, 0 is the one with the most rows
    values      (m,) float64    eigenvalues, descending
    basis       (p, m) float64  L^-1/2 V S^-1/2; a column is zero outside its component
    constant    (m,) bool       the column is constant on one component, zero elsewhere (eigenvalue 1)
    """

    scales: np.ndarray
    floor: float
    density: np.ndarray
    component: np.ndarray
    values: np.ndarray
    basis: np.ndarray
    constant: np.ndarray


def fit(distances: np.ndarray, indices: np.ndarray, p: int, dims: int, alpha: float = 1.0) -> LandmarkMap:
    """The map from the rows' r nearest of p landmarks: distances (n, r) and indices (n, r), nearest first.

    Every landmark must be the tie of at least one row. Components are solved apart: eigenvalue 1 is as
    many-fold as there are components, and a solver given all at once returns mixtures. At least the
    constant column of every component is kept, more than `dims` if need be.
    """
    from scipy.linalg import eigh
    from scipy.sparse.csgraph import connected_components

    distances, indices = np.asarray(distances, np.float64), np.asarray(indices, np.int64)
    used = np.bincount(indices.ravel(), minlength=p)
    if len(used) > p or not used.all():
        raise ValueError(f"{int((used == 0).sum())} of {p} landmarks are tied to no row: leave them out and search again")
    # Median per landmark: sort by (landmark, distance), take the middle of each run.
    order = np.lexsort((distances.ravel(), indices.ravel()))
    ends = np.cumsum(used)
    scales = distances.ravel()[order][ends - used + (used - 1) // 2]
    floor = _SCALE_FLOOR * float(np.median(np.concatenate([scales, distances[:, -1]]))) or 1.0
    scales = np.maximum(scales, floor)

    ones = np.ones(p)
    ties = sparse(_ties(distances, indices, scales, floor, ones), indices, p)
    density = np.asarray(ties.sum(axis=0)).ravel() ** alpha
    ties = sparse(_ties(distances, indices, scales, floor, density), indices, p)
    mass = np.asarray(ties.sum(axis=0)).ravel()
    scaled = ties.multiply(1.0 / np.sqrt(mass)).tocsr()
    square = (scaled.T @ scaled).tocsr()

    count, found = connected_components(square, directed=False)
    rows_in = np.bincount(found[indices[:, 0]], minlength=count)
    rank = np.empty(count, np.int32)
    rank[np.lexsort((np.arange(count), -rows_in))] = np.arange(count)
    component = rank[found]

    columns: list[tuple[float, int, bool, np.ndarray, np.ndarray]] = []
    for number in range(count):
        members = np.flatnonzero(component == number)
        block = square[members][:, members].toarray()
        keep = min(dims, len(members))
        values, vectors = eigh(block, subset_by_index=[len(members) - keep, len(members) - 1])
        residual = np.abs(block @ vectors - vectors * values).max()
        if residual > 1e-8 or abs(values[-1] - 1.0) > 1e-8:
            raise RuntimeError(f"eigenproblem of {len(members)} landmarks not solved (residual {residual:.1e}): lower `landmarks`")
        for place in range(keep - 1, -1, -1):
            if values[place] > _SMALLEST:
                vector = vectors[:, place]
                vector = vector * np.sign(vector[np.argmax(np.abs(vector))])
                constant = place == keep - 1  # its eigenvalue is 1 but for rounding, which must not order the components
                columns.append((1.0 if constant else min(float(values[place]), 1.0), number, constant, members, vector))
    # Constant columns first, in the order of components; then by eigenvalue, by component.
    columns.sort(key=lambda column: (not column[2], -column[0], column[1]))
    columns = columns[: max(dims, count)]
    basis = np.zeros((p, len(columns)))
    for place, (value, _, _, members, vector) in enumerate(columns):
        basis[members, place] = vector / np.sqrt(mass[members] * value)
    return LandmarkMap(
        scales=scales,
        floor=floor,
        density=density,
        component=component,
        values=np.array([column[0] for column in columns]),
        basis=basis,
        constant=np.array([column[2] for column in columns]),
    )


def coordinates(distances: np.ndarray, indices: np.ndarray, landmark_map: LandmarkMap, columns: np.ndarray | None = None) -> np.ndarray:
    """U of each row, float64 (n, m), from its r nearest landmarks (same r as at the fit); only some columns, if named.

    Rows of the fit get the rows of U (orthogonal, columns of norm 1); checked to 1e-9.
    """
    ties = weights(distances, indices, landmark_map)
    basis = landmark_map.basis if columns is None else np.ascontiguousarray(landmark_map.basis[:, columns])
    placed = np.zeros((len(ties), basis.shape[1]))
    for nearest in range(ties.shape[1]):  # one order of summation, whatever the batch
        placed += ties[:, nearest, None] * basis[indices[:, nearest]]
    return placed


def weights(distances: np.ndarray, indices: np.ndarray, landmark_map: LandmarkMap) -> np.ndarray:
    """Z of each row at its own r landmarks, float64 (n, r), rows summing to 1."""
    distances, indices = np.asarray(distances, np.float64), np.asarray(indices, np.int64)
    return _ties(distances, indices, landmark_map.scales, landmark_map.floor, landmark_map.density)


def _ties(distances: np.ndarray, indices: np.ndarray, scales: np.ndarray, floor: float, density: np.ndarray) -> np.ndarray:
    """Z of each row at its own landmarks, (n, r), rows summing to 1."""
    own = np.maximum(distances[:, -1:], floor)
    exponent = -np.square(distances) / (own * scales[indices]) - np.log(density[indices])
    ties = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return ties / ties.sum(axis=1, keepdims=True)


def sparse(ties: np.ndarray, indices: np.ndarray, p: int) -> Any:
    """Z as csr_array (n, p), from the ties of each row at its own landmarks (n, r)."""
    from scipy.sparse import csr_array

    rows, nearest = indices.shape
    return csr_array((ties.ravel(), indices.ravel(), np.arange(rows + 1) * nearest), shape=(rows, p))
