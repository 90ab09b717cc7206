"""Diffusion maps on an exact kNN graph (Coifman and Lafon 2006), with self-tuning scales.

    K_ij = exp(-d_ij^2 / (s_i s_j)),  s_i = distance of i to its 7th neighbour     (Zelnik-Manor and Perona 2004)
    K^a  = K_ij / (q_i q_j)^alpha,    q = row sums of K       alpha 0 keeps the density, 1/2 halves it, 1 takes it out
    A    = D^-1/2 K^a D^-1/2,         D = row sums of K^a;   A v = l v,  psi = D^-1/2 v

The coordinates are l^t psi without the constant one. A row outside the fit is placed by the Nystrom formula

    psi(x) = 1/l sum_j p(x, x_j) psi(x_j),   p(x, x_j) ~ K(x, x_j) / q_j^alpha, summing to 1

with the scales and densities of the fit (the factor q(x)^alpha cancels in p). For at most some 50,000 rows;
above that use landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_DENSE = 500
_SCALE_FLOOR = 0.1  # of the median scale; see landmarks.py
# An edge weighs at least exp(-7), a thousandth. Only clumps of copies get there (their scales are tiny): with weights of
# 1e-6 between 400 of them the eigenvalues crowd within 1e-6 of 1, and no solver ended in ten minutes at 10,000 rows.
_LARGEST_EXPONENT = 7.0
# Below this eigenvalue 1/l in the Nystrom formula mostly amplifies noise.
_SMALLEST_VALUE = 0.1
# Close to rounding, so that the order of the rows shows in no digit that matters; 0 never ends on close eigenvalues.
_TOLERANCE = 1e-12
# Rows closer than this are one row: float32 vectors of one text, from batches of other shapes.
_SAME = 1e-4
# Numbers in the eigenvectors, 8 bytes each: some 4 GB.
_MOST_NUMBERS = 5 * 10**8


@dataclass(frozen=True)
class Spectrum:
    """Top eigenpairs of A.

    values     (m,) float64 descending within each part: constant columns first, then the others
    vectors    (n, m) float64, unit columns of A, zero outside their component
    constant   (m,) bool    psi is constant on one component, zero elsewhere
    root       (n,) float64 D^1/2: psi = vectors / root
    component  (n,) int32   0 is the largest
    density    (n,) float64 q^alpha
    """

    values: np.ndarray
    vectors: np.ndarray
    constant: np.ndarray
    root: np.ndarray
    component: np.ndarray
    density: np.ndarray


def scales(distances: np.ndarray, scale_neighbour: int = 7) -> np.ndarray:
    """s of each row, float64 (n,), from the distances (n, k) to its nearest others; the last one counts if k is less.

    At least a tenth of the median (of those above 0): a clump of near copies would be cut off from everything else.
    """
    n, k = distances.shape
    if k == 0:
        return np.ones(n)
    found = distances[:, min(scale_neighbour, k) - 1].astype(np.float64)
    return np.maximum(found, _SCALE_FLOOR * float(np.median(found[found > 0])) if (found > 0).any() else 1.0)


def kernel(distances: np.ndarray, own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """K from distances and the two ends' scales (broadcast); in [exp(-7), 1]."""
    return np.exp(-np.minimum(np.square(np.asarray(distances, np.float64)) / (own * others), _LARGEST_EXPONENT))


def self_tuned_graph(distances: np.ndarray, indices: np.ndarray, scale_neighbour: int = 7) -> Any:
    """Symmetric csr_array (n, n) of K from each row's nearest others: distances, indices (n, k), nearest first.

    An edge is kept if either end names it; K_ii is 1. One row alone has k 0.
    """
    from scipy.sparse import csr_array, eye_array

    distances, indices = np.asarray(distances, np.float64), np.asarray(indices, np.int64)
    n, k = distances.shape
    scale = scales(distances, scale_neighbour)
    weights = kernel(distances, scale[:, None], scale[indices])
    graph = csr_array((weights.ravel(), indices.ravel(), np.arange(n + 1) * k), shape=(n, n))
    return (graph.maximum(graph.T) + eye_array(n)).tocsr()


def components(graph: Any) -> np.ndarray:
    """Connected component of each row, int32 (n,): 0 is the largest, equals by first member."""
    from scipy.sparse.csgraph import connected_components

    _, found = connected_components(graph, directed=False)
    old, first, sizes = np.unique(found, return_index=True, return_counts=True)
    rank = np.empty(len(old), np.int32)
    rank[np.lexsort((first, -sizes))] = np.arange(len(old))
    return rank[found]


def spectrum(graph: Any, dims: int, alpha: float = 1.0, seed: int = 0) -> Spectrum:
    """The `dims` top eigenpairs of A, and at least the constant one of every component.

    Components are solved apart: eigenvalue 1 is as many-fold as there are components, and a solver given all at
    once returns mixtures or loses some. In each the constant vector is known, D^1/2, and taken out beforehand.
    """
    from scipy.sparse import diags_array

    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha {alpha}: give 0 (density kept), 0.5 or 1 (density removed)")
    density = np.asarray(graph.sum(axis=1)).ravel() ** alpha
    weighted = (diags_array(1.0 / density) @ graph @ diags_array(1.0 / density)).tocsr()
    root = np.sqrt(np.asarray(weighted.sum(axis=1)).ravel())
    operator = (diags_array(1.0 / root) @ weighted @ diags_array(1.0 / root)).tocsr()
    component = components(graph)
    sizes = np.bincount(component)
    if max(dims, len(sizes)) * len(root) > _MOST_NUMBERS:
        raise ValueError(
            f"{len(sizes)} components of {len(root)} rows: join them with bridges.bridge first, or give each row more neighbours"
        )
    order = np.argsort(component, kind="stable")
    operator = operator[order][:, order].tocsr()
    ends = np.cumsum(sizes)
    columns: list[tuple[float, int, bool, np.ndarray, np.ndarray]] = []
    for number, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        members = order[end - size : end]
        constant = root[members] / np.linalg.norm(root[members])
        columns.append((1.0, number, True, members, constant))
        if min(dims, size) > 1:
            block = operator[end - size : end, end - size : end].tocsr()
            values, vectors = _top(block, constant, min(dims, size) - 1, np.random.default_rng([seed, number]))
            columns += [(float(value), number, False, members, _signed(v)) for value, v in zip(values, vectors.T, strict=True)]
    at_one = sum(value > 1.0 - 1e-12 for value, *_ in columns)
    if at_one != len(sizes):
        raise RuntimeError(f"{at_one} eigenvalues are 1 and {len(sizes)} components were found: give each row more neighbours")
    columns.sort(key=lambda column: (not column[2], -column[0], column[1]))
    columns = columns[: max(dims, len(sizes))]
    vectors = np.zeros((len(root), len(columns)))
    for place, (_, _, _, members, vector) in enumerate(columns):
        vectors[members, place] = vector
    values, constants = np.array([column[0] for column in columns]), np.array([column[2] for column in columns])
    return Spectrum(values, vectors, constants, root, component, density)


def _signed(vector: np.ndarray) -> np.ndarray:
    """With positive skew, which does not depend on the order of the rows; a symmetric vector by its first large entry."""
    skew, size = float((vector**3).sum()), np.abs(vector)
    if abs(skew) <= 1e-6 * float((size**3).sum()):
        skew = float(vector[np.argmax(size > 0.999 * size.max())])
    return vector * np.sign(skew)


def _top(block: Any, constant: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest eigenpairs of `block` orthogonal to `constant`, descending; every pair checked.

    ARPACK from a fixed start to rounding: it needs a third to a tenth of the CPU time of LOBPCG at equal residuals
    (measured at 5k-44k rows), but a Lanczos method may lose a copy of a repeated eigenvalue. So a second short run
    looks for a larger one in the space left over; where there is one, LOBPCG (a block method) takes over.
    """
    from scipy.linalg import eigh
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh, lobpcg

    size = len(constant)
    if size <= max(_DENSE, 3 * count):
        dense = block.toarray() - 2.0 * np.outer(constant, constant)  # its eigenvalue becomes -1, where nothing is looked for
        return _checked(block, *eigh(dense, subset_by_index=[size - count, size - 1]))

    def without(known: np.ndarray) -> Any:
        # Known vectors are moved to eigenvalue -1, where nothing is looked for.
        def product(x: np.ndarray) -> np.ndarray:
            x = np.asarray(x).ravel()
            inside = known @ (known.T @ x)
            rest = x - inside
            image = block @ rest
            return image - known @ (known.T @ image) - inside

        return LinearOperator((size, size), matvec=product, dtype=np.float64)

    known = constant[:, None]
    start = rng.standard_normal((size, count + 8))
    try:
        ncv = min(size - 1, max(2 * count + 1, 80))
        values, vectors = eigsh(without(known), k=count, which="LA", v0=start[:, 0], tol=_TOLERANCE, ncv=ncv, maxiter=2000)
        left = without(np.concatenate([known, vectors], axis=1))
        missed, extra = eigsh(left, k=1, which="LA", v0=start[:, 1], tol=1e-4, ncv=min(size - 1, 20))
        if missed[0] <= values.min() + 1e-8:
            return _checked(block, values, vectors)
        start[:, : count + 1] = np.concatenate([vectors, extra], axis=1)
    except ArpackNoConvergence:
        pass
    values, vectors = lobpcg(block, start, Y=known, largest=True, tol=1e-8, maxiter=300)
    best = np.argsort(-values)[:count]
    return _checked(block, values[best], vectors[:, best])


def _checked(block: Any, values: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    residual = float(np.abs(block @ vectors - vectors * values).max())
    if not residual < 1e-6:
        raise RuntimeError(
            f"eigenproblem of {len(vectors)} rows not solved (residual {residual:.1e}): ask for fewer dims, or use landmarks"
        )
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[:, order]


def coordinates(spectrum: Spectrum, t: float = 1.0) -> np.ndarray:
    """l^t psi, float64 (n, m'): constant columns left out where there is one component only."""
    psi = np.clip(spectrum.values, 0.0, 1.0) ** t * spectrum.vectors / spectrum.root[:, None]
    return psi[:, ~spectrum.constant] if spectrum.constant.sum() == 1 else psi


def von_neumann_time(values: np.ndarray, t_max: int = 100) -> int:
    """The t at which diffusion has taken out the noise: the knee of the entropy of P^t over t = 1..t_max.

    values   eigenvalues of A, the top ones suffice (small ones vanish first); negative ones count as 0

    Entropy H(t) = -sum p log p with p = l^t / sum l^t. The knee splits H into two straight lines with the least sum
    of squared errors: the rule of PHATE (Moon et al. 2019), from its formula.
    """
    values = np.clip(np.asarray(values, np.float64), 0.0, 1.0)
    if t_max < 3 or not values.any():
        return 1
    powers = values[None, :] ** np.arange(1, t_max + 1)[:, None]
    share = powers / powers.sum(axis=1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)

    def error(h: np.ndarray) -> float:
        x = np.arange(len(h)) - (len(h) - 1) / 2
        return float(np.square(h - h.mean() - x * (x @ h) / max(x @ x, 1.0)).sum())

    # Both lines own the knee. Rounding must not choose among equals, so the first wins.
    errors = [error(entropy[: knee + 1]) + error(entropy[knee:]) for knee in range(1, t_max - 1)]
    return 2 + int(np.argmax(np.array(errors) <= min(errors) + 1e-12))


@dataclass(frozen=True)
class Extension:
    """What places rows outside the fit; all of it from the fit.

    psi              (n, m) float64  eigenvectors of the walk: constant only where there are several components,
                                     eigenvalues below 0.1 left out
    values           (m,) float64    their eigenvalues
    scales           (n,) float64    s
    density          (n,) float64    q^alpha
    reach            (n,) float64    distance to the last neighbour: a row nearer than that would have been one
    neighbours       k of the graph
    scale_neighbour  which neighbour's distance is s
    floor            lower limit of s
    """

    psi: np.ndarray
    values: np.ndarray
    scales: np.ndarray
    density: np.ndarray
    reach: np.ndarray
    neighbours: int
    scale_neighbour: int
    floor: float


def extension(found: Spectrum, distances: np.ndarray, scale_neighbour: int = 7) -> Extension:
    """The extension of a spectrum; `distances` (n, k) are those that the graph was made from."""
    n, k = distances.shape
    kept = found.values >= _SMALLEST_VALUE
    if found.constant.sum() == 1:
        kept &= ~found.constant
    scale = scales(distances, scale_neighbour)
    reach = distances[:, -1].astype(np.float64) if k else np.zeros(n)
    psi = found.vectors[:, kept] / found.root[:, None]
    return Extension(psi, found.values[kept], scale, found.density, reach, k, scale_neighbour, float(scale.min()))


def extend(distances: np.ndarray, indices: np.ndarray, extension: Extension, t: float = 1.0) -> np.ndarray:
    """Coordinates of rows from their nearest fitted rows, float64 (m, m'): the first m' columns of `coordinates`.

    distances, indices   (m, c) nearest first, c at least the k of the graph, better 4 k. A row is tied to its k nearest
                         and, as in the symmetric graph, to those further ones of the c that it would be a neighbour of

    A fitted row, and any copy of one to rounding, gets that row's own coordinates. The formula alone misses the edges
    that c did not reach: with c = 4 k on real vectors, fitted rows come back with a median error of 0-1 % of their
    distance from the origin, 90 % of them within 12 % (c = k: median 10 %). No row depends on another of the batch.
    """
    distances, indices = np.asarray(distances, np.float64), np.asarray(indices, np.int64)
    k = extension.neighbours
    if distances.shape[1] < max(k, 1):
        raise ValueError(f"{distances.shape[1]} neighbours given, the graph has {k}: search at least {max(k, 1)}, better {4 * k}")
    own = np.maximum(distances[:, min(extension.scale_neighbour, max(k, 1)) - 1], extension.floor)
    tied = (np.arange(distances.shape[1]) < max(k, 1)) | (distances <= extension.reach[indices])
    weights = np.where(tied, kernel(distances, own[:, None], extension.scales[indices]), 0.0) / extension.density[indices]
    # One order of summation, whatever the batch.
    mass, placed = np.zeros(len(weights)), np.zeros((len(weights), len(extension.values)))
    for nearest in range(weights.shape[1]):
        mass += weights[:, nearest]
        placed += weights[:, nearest, None] * extension.psi[indices[:, nearest]]
    placed *= extension.values ** (t - 1.0) / mass[:, None]
    same = distances[:, 0] <= _SAME
    placed[same] = extension.psi[indices[same, 0]] * extension.values**t
    return placed


def place(weights: Any, extension: Extension, t: float = 1.0) -> np.ndarray:
    """`extend` for rows whose K to all fitted rows is known, a csr_array (m, n). Rows of the graph itself: exact to 1e-9."""
    from scipy.sparse import diags_array

    walk = weights @ diags_array(1.0 / extension.density)
    return (walk @ extension.psi) / (walk @ np.ones(len(extension.density)))[:, None] * extension.values ** (t - 1.0)
