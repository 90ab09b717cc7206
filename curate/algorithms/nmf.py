"""Soft clusters: symmetric non-negative factors of an affinity, S ~ H H^T, H >= 0 (Kuang, Ding and Park, SDM 2012).

PASER (arXiv 2502.12594) clusters by NMF of a dense n x n affinity from a random start. Here S is only ever
multiplied by a thin matrix, so a sparse graph or landmark ties W = Z L^-1 Z^T serve as they are, O(nnz k) a
step, and the start is a clustering already found, so nothing is random.

Minimised is ||S - H H^T||^2 by projected gradients with spectral steps (Birgin, Martinez and Raydan 2000) and an
exact line search: along a line the objective is a polynomial of degree four, so it never rises, and S need be
neither positive definite nor non-negative. Multiplicative updates (Ding, He and Simon, SDM 2005) keep a zero at
zero for ever and were still above this objective after 200 steps on three of our four sets.

Memberships read H as a mixture (He et al., IEEE TNN 2011): S_ij ~ sum_k p(k) p(i|k) p(j|k) makes H_ik =
p(i|k) sqrt(p(k)), so p(k|i) ~ H_ik mass_k with mass = column sums of H: a row tied half and half to two clusters of
any size is a half member of each. A row's factor solves its own least squares, h = argmin ||s - H h||, h >= 0: at
a stationary H those are the equations of the rows of the fit, so a row outside the fit is placed by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_BLOCK = 1024


@dataclass(frozen=True)
class Factors:
    """What places a row, `memberships(products, gram, mass)`, and how the fit went.

    factor      (n, k) float64 H, scaled as the affinity is
    gram        (k, k) float64 H^T H
    mass        (k,) float64   column sums of H, weighted by `root`
    objective   (steps + 1,) float64   ||S - H H^T||^2 - ||S||^2 at the start and after every step, never rising
    converged   the last step gained less than the tolerance
    """

    factor: np.ndarray
    gram: np.ndarray
    mass: np.ndarray
    objective: np.ndarray
    converged: bool


def start_from(labels: np.ndarray, k: int) -> np.ndarray:
    """The factor of a hard clustering, float64 (n, k): columns are indicators of length 1. Every label has rows."""
    sizes = np.bincount(labels, minlength=k)
    if len(sizes) > k or not sizes.all():
        raise ValueError(f"labels fill {int((sizes > 0).sum())} clusters up to {len(sizes) - 1}, not 0..{k - 1}: number them without gaps")
    start = np.zeros((len(labels), k))
    start[np.arange(len(labels)), labels] = 1.0 / np.sqrt(sizes[labels])
    return start


def to_landmarks(ties: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The right half of W = Z L^-1 Z^T: H (n, k) -> L^-1 Z^T H (p, k), from the ties Z, csr (n, p).

    `ties @ half(H)` multiplies by W; the products of a row outside the fit are `its ties @ half(factor)`.
    """
    mass = np.asarray(ties.sum(axis=0)).ravel()
    if not (mass > 0).all():
        raise ValueError(f"{int((mass <= 0).sum())} landmarks are tied to no row: leave them out")
    turned = ties.T.tocsr().multiply(1.0 / mass[:, None]).tocsr()
    return lambda factor: turned @ factor


def symmetric_nmf(
    multiply: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    iterations: int = 300,
    tolerance: float = 1e-6,
    root: np.ndarray | None = None,
) -> Factors:
    """H >= 0 that minimises ||S - H H^T||^2 near `start`.

    multiply    X (n, k) -> S X, for a symmetric S (n, n); called once a step
    start       (n, k), non-negative, no column all zero; its scale does not matter
    tolerance   stop when a step lowers the objective by less than this share of it
    root        (n,) D^1/2 where S = D^-1/2 K D^-1/2: the mixture is one of K. None where the rows of S sum to 1
    """
    factor = np.array(start, np.float64)
    if factor.ndim != 2 or not np.isfinite(factor).all() or (factor < 0).any() or not factor.any(axis=0).all():
        raise ValueError("the start must be (n, k), finite, non-negative, with no empty column: see `start_from`")
    products = np.asarray(multiply(factor), np.float64)
    if products.shape != factor.shape:
        raise ValueError(f"multiply made {products.shape} of {factor.shape}: it must return S times its argument")
    gram = factor.T @ factor
    # The best multiple of the start: a gradient step would take long to find the scale.
    scale = float(np.vdot(factor, products) / np.vdot(gram, gram))
    if not scale > 0:
        raise ValueError("S has no mass inside the clusters of the start: check the affinity")
    factor, products, gram = factor * np.sqrt(scale), products * np.sqrt(scale), gram * scale

    objective = [float(np.vdot(gram, gram) - 2 * np.vdot(factor, products))]
    slope = factor @ gram - products  # a quarter of the gradient
    safe = 1.0 / float(np.linalg.norm(gram, 2))
    step, converged = safe, False
    for _ in range(iterations):
        move = np.maximum(factor - step * slope, 0.0) - factor
        moved = multiply(move)
        cross = factor.T @ move
        cross, square = cross + cross.T, move.T @ move
        # Objective at factor + t move, less that at t = 0: t (c1 + t (c2 + t (c3 + t c4)))
        c1 = 4 * np.vdot(slope, move)
        c2 = np.vdot(cross, cross) + 2 * np.vdot(gram, square) - 2 * np.vdot(move, moved)
        c3, c4 = 2 * np.vdot(cross, square), np.vdot(square, square)
        t, gain = _lowest(float(c1), float(c2), float(c3), float(c4))
        if gain <= 0:
            converged = True
            break
        factor, products = factor + t * move, products + t * moved
        gram = gram + t * cross + t * t * square
        before, slope = slope, factor @ gram - products
        objective.append(objective[-1] - gain)
        if gain < tolerance * abs(objective[-1]):
            converged = True
            break
        curvature = float(np.vdot(move, slope - before)) / t
        length = float(np.trace(square))
        step = min(max(length / curvature, 1e-3 * safe), 1e3 * safe) if curvature > 0 else 1e3 * safe
    np.maximum(factor, 0.0, out=factor)  # factor + (0 - factor) is zero but for rounding
    mass = factor.sum(axis=0) if root is None else root @ factor
    return Factors(factor, gram, mass, np.array(objective), converged)


def _lowest(c1: float, c2: float, c3: float, c4: float) -> tuple[float, float]:
    """(t in (0, 1], how far t (c1 + t (c2 + t (c3 + t c4))) lies below 0 there)."""
    roots = np.roots([4 * c4, 3 * c3, 2 * c2, c1])
    tries = [1.0, *(float(root.real) for root in roots if abs(root.imag) <= 1e-9 * abs(root) and 0 < root.real < 1)]
    gains = [-t * (c1 + t * (c2 + t * (c3 + t * c4))) for t in tries]
    best = int(np.argmax(gains))
    return tries[best], gains[best]


def memberships(products: np.ndarray, gram: np.ndarray, mass: np.ndarray, sweeps: int = 200, tolerance: float = 1e-8) -> np.ndarray:
    """p(k | row), float64 (m, k), rows summing to 1, from products = (a row's affinities to the rows of the fit) H, (m, k).

    Landmarks: `ties @ half(factor)`, see `to_landmarks`. Graph: sum over tied rows j of K_xj H_jk / root_j. The scale of a
    row does not matter. Non-negative least squares by coordinate descent, a row stopping when it moves less than
    `tolerance` of its largest entry: what a row gets depends on no other row. A row tied to nothing is everything equally.
    """
    products = np.asarray(products, np.float64)
    m, k = products.shape
    found = np.empty((m, k))
    used = np.flatnonzero(np.diag(gram) > 0)
    for start in range(0, m, _BLOCK):
        left = products[start : start + _BLOCK].copy()  # products - h gram
        h = np.zeros(left.shape)
        active = np.arange(len(h))
        for _ in range(sweeps):
            residual, part = left[active], h[active]
            change = np.zeros(len(active))
            for column in used:
                value = np.maximum(part[:, column] + residual[:, column] / gram[column, column], 0.0)
                delta = value - part[:, column]
                residual -= delta[:, None] * gram[column]
                part[:, column] = value
                change = np.maximum(change, np.abs(delta))
            left[active], h[active] = residual, part
            active = active[change > tolerance * part.max(axis=1)]
            if not len(active):
                break
        share = h * mass
        total = share.sum(axis=1, keepdims=True)
        found[start : start + _BLOCK] = np.where(total > 0, share / np.where(total > 0, total, 1.0), 1.0 / k)
    return found


def entropy(shares: np.ndarray) -> np.ndarray:
    """Entropy of each row's memberships in nats, float64 (m,): 0 in one cluster, ln 2 half and half, at most ln k."""
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)
