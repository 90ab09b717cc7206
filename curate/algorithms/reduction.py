"""Fewer dimensions: principal axes from second moments, or the first coordinates.

Sums are exact, so nothing depends on how the rows are cut: vectors and axes are rounded to multiples of a power
of two, small enough that every sum of their products is an integer below 2^53, which float64 holds in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Moments: coordinates in units of 2^-18 (a float32 coordinate of .05 is known to 2^-28), 4096 rows at once in float64,
# blocks added as int64: exact up to 2^27 rows. Projection: 2^-28 times 2^-24, since a row's sum is at most 1 (Cauchy-Schwarz).
_MOMENT_UNITS, _MOST_ROWS, _BLOCK = 2.0**18, 1 << 27, 4096
_ROW_UNITS, _AXIS_UNITS = 2.0**28, 2.0**24


@dataclass(frozen=True)
class Moments:
    """Of unit vectors: `rows`, `total` int64 (d,) in units of 2^-18, `products` int64 (d, d) in units of 2^-36."""

    rows: int
    total: np.ndarray
    products: np.ndarray

    def __add__(self, other: Moments) -> Moments:
        if self.rows + other.rows > _MOST_ROWS:
            raise ValueError(f"second moments are exact up to {_MOST_ROWS} rows: fit on a sample")
        return Moments(self.rows + other.rows, self.total + other.total, self.products + other.products)

    def second(self) -> np.ndarray:
        """float64 (d, d): the mean of x xᵀ."""
        return self.products / (_MOMENT_UNITS**2 * self.rows)

    def covariance(self) -> np.ndarray:
        """float64 (d, d), divided by the number of rows."""
        mean = self.total / (_MOMENT_UNITS * self.rows)
        return self.second() - np.outer(mean, mean)


def moments(unit: np.ndarray) -> Moments:
    """Of unit rows (n, d); n may be 0. Adding the moments of parts gives those of the whole, to the bit."""
    d = unit.shape[1]
    total, products = np.zeros(d, np.int64), np.zeros((d, d), np.int64)
    for start in range(0, len(unit), _BLOCK):
        rows = np.rint(unit[start : start + _BLOCK].astype(np.float64) * _MOMENT_UNITS)
        total += rows.sum(axis=0).astype(np.int64)
        products += (rows.T @ rows).astype(np.int64)
    return Moments(len(unit), total, products)


def principal_axes(found: Moments, dimensions: int) -> np.ndarray:
    """float64 (d, dimensions): the orthonormal axes that hold most of the sum of squares, the strongest first.

    Not centred: what is kept best is the cosine, and rows that are all alike keep a direction.
    Each axis has its largest entry positive.
    """
    d = len(found.total)
    if not 1 <= dimensions <= d:
        raise ValueError(f"{dimensions} dimensions asked of {d}: lower dimensions")
    axes = np.linalg.eigh(found.second())[1][:, ::-1][:, :dimensions]
    return axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(dimensions)])


def first_axes(d: int, dimensions: int) -> np.ndarray:
    """float64 (d, dimensions): the first coordinates, for encoders trained to be cut (Kusupati et al. 2022, Matryoshka)."""
    return np.eye(d, dimensions)


def project(unit: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(unit rows float32 (n, dimensions), positions int64 of rows that have no part along the axes; they come back as zeros).

    `unit` (n, d) unit rows, `axes` (d, dimensions) orthonormal. A row's result does not depend on the others.
    """
    scaled = np.rint(np.asarray(axes, np.float64) * _AXIS_UNITS)
    small = np.zeros((len(unit), axes.shape[1]), np.float32)
    lost = np.zeros(len(unit), bool)
    for start in range(0, len(unit), _BLOCK):
        block = slice(start, start + _BLOCK)
        flat = np.rint(unit[block].astype(np.float64) * _ROW_UNITS) @ scaled / (_ROW_UNITS * _AXIS_UNITS)
        norms = np.sqrt(np.square(flat).sum(axis=1))
        lost[block] = norms < 1e-7  # nothing but the rounding
        small[block] = np.where(lost[block, None], 0, flat / np.maximum(norms, 1e-7)[:, None])
    return small, np.flatnonzero(lost)


def variance_kept(found: Moments, axes: np.ndarray) -> float:
    """Share of the variance about the mean that lies along the axes; 1 where there is no variance."""
    covariance = found.covariance()
    whole = float(np.trace(covariance))
    return float(np.sum(axes * (covariance @ axes))) / whole if whole > 1e-9 else 1.0
