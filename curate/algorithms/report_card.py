"""How much of a set of vectors a subset still covers: each measure beside the same measure of random subsets.

    value on the subset      with the spread that its own halves show
    value on random subsets  of as many rows, drawn from the whole: the only fair comparison, since most measures grow with size
    value on the whole       for orientation

A subset is called outside (`Measure.verdict`) only where its value lies beyond every random subset and beyond their 99 % prediction
interval. Measures:

    vendi              effective number of directions, exp of the entropy of the second moment's eigenvalues (Friedman and Dieng, 2210.02410)
    rank_me            the same of the singular values, which weighs faint directions more (Garrido et al., 2210.02885)
    diffusion_entropy  bits of the spectrum of a diffusion operator (Liao et al., 2312.04823), its scale tuned to the whole
    dimension          TwoNN intrinsic dimension (Facco et al. 2017), copies left out; NaN with next to no distinct rows
    tree_length        mean edge of the minimum spanning tree: how far apart neighbouring rows lie
    separability       1 - mean / longest edge of that tree, which are the merge heights of 0-dimensional persistence: 0 one even cloud
    clusters_kept      share of the whole's clusters with at least one row
    cluster_shift      Kullback-Leibler divergence of the cluster shares from the whole's, in bits
    coverage_radius    95th percentile of the distance from any row of the whole to the nearest row of the subset, in [0, 2]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from curate.algorithms import knn
from curate.algorithms.intrinsic import two_nn

FEWEST = 20  # rows of a subset; below that every interval says everything
_DRAWS = 24  # random subsets, and halves of the subset
_GRAPH_ROWS = 500  # rows of the measures that are cubic in rows; twice as many for the whole
_ROWS = 4000  # rows of the other measures
_ASKED = 1000  # rows of the whole whose distance to the subset is measured
_SCALE_NEIGHBOUR = 7
_COPY = 1e-3  # rows nearer than this are copies
_HIGHEST = {"separability": 1.0, "clusters_kept": 1.0, "coverage_radius": 2.0}  # no measure is negative


@dataclass(frozen=True)
class Measure:
    """One measure of a subset. Intervals are (low, high).

    interval         95 %, from the spread over random halves of the subset (the delete-half jackknife, Shao and Wu 1989). Not from
                     draws with replacement, whose copies would be taken for structure by every measure of distances.
    random           mean over the random subsets; random_interval: all of them and their 99 % prediction interval
    rows             of the subset and of each random subset; whole_rows: of the whole
    """

    name: str
    subset: float
    interval: tuple[float, float]
    random: float
    random_interval: tuple[float, float]
    whole: float
    rows: int
    whole_rows: int

    @property
    def verdict(self) -> str:
        """ "below", "within" or "above" what random subsets of this size give; "within" where the measure has no value (NaN)."""
        low, high = self.random_interval
        slack = 1e-9 * max(1.0, abs(self.random))
        return "below" if self.subset < low - slack else "above" if self.subset > high + slack else "within"


@dataclass(frozen=True)
class Moments:
    """Rows and their summed outer products, float64 (d, d); `a + b` are the moments of both sets of rows."""

    rows: int
    second: np.ndarray

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.rows + other.rows, self.second + other.second)

    def eigenvalues(self) -> np.ndarray:
        """float64 (d,), ascending, not negative; the squared singular values of the rows' matrix."""
        return np.clip(np.linalg.eigvalsh(self.second), 0.0, None)


def moments(unit: np.ndarray) -> Moments:
    """Of unit rows (n, d). Summed in float64, block by block, so that shards may be added up."""
    second = np.zeros((unit.shape[1], unit.shape[1]))
    for start in range(0, len(unit), 4096):
        rows = unit[start : start + 4096].astype(np.float64)
        second += rows.T @ rows
    return Moments(len(unit), second)


def vendi(eigenvalues: np.ndarray) -> float:
    """Vendi score under the cosine, in [1, min(n, d)], from `Moments.eigenvalues`: m equal groups at right angles give m."""
    return float(np.exp(_entropy(eigenvalues)))


def rank_me(eigenvalues: np.ndarray) -> float:
    """Effective rank of the rows' matrix, in [1, min(n, d)], from `Moments.eigenvalues`."""
    return float(np.exp(_entropy(np.sqrt(eigenvalues))))


def _entropy(weights: np.ndarray) -> float:
    """Nats. Weights below 1e-12 of the largest are rounding."""
    weights = weights[weights > 1e-12 * weights.max()]
    shares = weights / weights.sum()
    return float(-(shares * np.log(shares)).sum())


def diffusion_entropy(distances: np.ndarray, scale: float) -> float:
    """Bits, in [0, log2 n], from all distances (n, n): entropy of the eigenvalues of D^-1/2 K D^-1/2, K_ij = exp(-(d_ij / scale)^2).

    Not the released scale of 10: on unit vectors every entry is then 1.
    """
    kernel = np.exp(-np.square(distances / scale))
    root = 1.0 / np.sqrt(kernel.sum(axis=1))
    return _entropy(np.abs(np.linalg.eigvalsh(kernel * np.outer(root, root)))) / float(np.log(2.0))


def tree_edges(distances: np.ndarray) -> np.ndarray:
    """Lengths of the edges of the minimum spanning tree, float64 (n - 1,), from all distances (n, n); Prim's algorithm."""
    reach = distances[0].copy()
    outside = np.ones(len(distances), bool)
    outside[0] = False
    edges = np.empty(len(distances) - 1)
    for place in range(len(edges)):
        row = int(np.where(outside, reach, np.inf).argmin())
        edges[place] = reach[row]
        outside[row] = False
        np.minimum(reach, distances[row], out=reach)
    return edges


def cluster_shift(part: np.ndarray, whole: np.ndarray) -> float:
    """Bits by which the shares of `part` (k,) counts diverge from those of `whole`; a cluster that only the part has counts as one row."""
    p, q = part / part.sum(), np.maximum(whole, part > 0)
    q = q / q.sum()
    held = p > 0
    return max(0.0, float((p[held] * np.log2(p[held] / q[held])).sum()))


def report_card(
    unit: np.ndarray,
    kept: np.ndarray,
    labels: np.ndarray | None = None,
    seed: int = 0,
    whole: np.ndarray | None = None,
    counts: tuple[np.ndarray, np.ndarray] | None = None,
    whole_moments: Moments | None = None,
) -> tuple[Measure, ...]:
    """Every measure of the rows `kept` of `unit`.

    unit           unit rows float32 (n, d), all with a direction
    kept           bool (n,): the subset
    labels         int (n,), negative: none; without any the two cluster measures are left out
    whole          bool (n,): rows that stand for the whole, if not all do: where a large whole is sampled more thinly than the subset
    counts         rows per cluster of (subset, whole), where exact ones are known; otherwise counted from the labels
    whole_moments  of the whole, where they are known; otherwise of the rows given

    Measures of second moments and the radius see at most 4,000 rows of the subset, those of a tree or kernel 500, drawn by `seed`;
    random subsets have the same number of rows.
    """
    everything = np.flatnonzero(whole if whole is not None else np.ones(len(unit), bool))
    mine = np.flatnonzero(kept)
    if min(len(mine), len(everything)) < FEWEST:
        raise ValueError(f"{len(mine)} rows of {len(everything)}: a report card takes {FEWEST} and more in the subset and in the whole")
    if counts is None and labels is not None:
        size = int(labels.max()) + 1
        counts = tuple(np.bincount(some[some >= 0], minlength=size) for some in (labels[mine], labels[everything]))  # type: ignore[assignment]
    whole_moments = whole_moments or moments(unit[everything])

    def some(rows: np.ndarray, most: int, stream: int) -> np.ndarray:
        return np.sort(np.random.default_rng([seed, stream]).permutation(rows)[:most])

    def compare(names: tuple[str, ...], of: Callable[[np.ndarray], list[float]], most: int, whole: list[float], size: int) -> list[Measure]:
        rows = some(mine, min(most, len(everything)), 3)
        rng = np.random.default_rng([seed, 4])
        random = [of(np.sort(rng.choice(everything, len(rows), replace=False))) for _ in range(_DRAWS)]
        halves = [of(np.sort(rng.choice(rows, len(rows) // 2, replace=False))) for _ in range(_DRAWS)]
        return _measures(names, of(rows), halves, random, whole, (len(rows), size))

    def directions(found: Moments) -> list[float]:
        values = found.eigenvalues()
        return [vendi(values), rank_me(values)]

    of_moments = compare(
        ("vendi", "rank_me"), lambda rows: directions(moments(unit[rows])), _ROWS, directions(whole_moments), whole_moments.rows
    )
    graph, more = _graph_measures(unit, some(everything, _GRAPH_ROWS, 0)), some(everything, 2 * _GRAPH_ROWS, 1)
    of_graph = compare(("diffusion_entropy", "dimension", "tree_length", "separability"), graph, _GRAPH_ROWS, graph(more), len(more))
    of_clusters = _cluster_measures(*counts, seed) if counts is not None and min(counts[0].sum(), counts[1].sum()) > 1 else []
    radius = _radius(unit, some(everything, _ASKED, 2))
    return (*of_moments, *of_graph, *of_clusters, *compare(("coverage_radius",), radius, _ROWS, [0.0], len(everything)))


def _measures(
    names: tuple[str, ...],
    subset: list[float],
    halves: list[list[float]],
    random: list[list[float]],
    whole: list[float],
    rows: tuple[int, int],
) -> list[Measure]:
    """From the values of each (subset, whole: one per name; halves, random: one list of such per draw)."""
    from scipy.special import stdtrit

    drawn, degrees = np.array(random), len(random) - 1
    mean = drawn.mean(axis=0)
    # A new draw, not the mean, is what the subset is held against: hence 1 + 1/m. All draws count too: shares of clusters are discrete.
    reach = stdtrit(degrees, 0.995) * drawn.std(axis=0, ddof=1) * np.sqrt(1 + 1 / len(random))
    lows, highs = np.minimum(mean - reach, drawn.min(axis=0)), np.maximum(mean + reach, drawn.max(axis=0))
    spreads = stdtrit(degrees, 0.975) * np.array(halves).std(axis=0, ddof=1)
    found = []
    for place, name in enumerate(names):

        def inside(low: float, high: float, name: str = name) -> tuple[float, float]:
            return max(0.0, float(low)), min(_HIGHEST.get(name, np.inf), float(high))

        value, spread = subset[place], spreads[place]
        chance = inside(lows[place], highs[place])
        found.append(
            Measure(name, float(value), inside(value - spread, value + spread), float(mean[place]), chance, float(whole[place]), *rows)
        )
    return found


def _graph_measures(unit: np.ndarray, reference: np.ndarray) -> Callable[[np.ndarray], list[float]]:
    """Values of the four measures of distances, for some rows.

    The scale is the median distance to the 7th neighbour among `reference`, rows of the whole. Tuned to each subset, the kernel would
    take a narrow one for a wide one; tuned to each row, it took rows spread as far as possible for a narrow set.
    """
    k = min(_SCALE_NEIGHBOUR, len(reference) - 1)
    scale = float(np.median(knn.nearest_others(unit[reference], k)[0][:, -1])) or 1.0

    def of(rows: np.ndarray) -> list[float]:
        some = unit[rows].astype(np.float64)
        gram = some @ some.T
        lengths = gram.diagonal()
        distances = np.sqrt(np.clip(lengths[:, None] + lengths - 2.0 * gram, 0.0, None))
        np.fill_diagonal(distances, 0.0)
        edges = tree_edges(distances)
        copy = np.tril(distances < _COPY, -1).any(axis=1)
        distinct = distances[~copy][:, ~copy]
        nearest = np.sort(np.partition(distinct, 2, axis=1)[:, :3], axis=1)[:, 1:] if len(distinct) > 2 else np.empty((0, 2))
        return [
            diffusion_entropy(distances, scale),
            two_nn(nearest),
            float(edges.mean()),
            float(1.0 - edges.mean() / edges.max()) if edges.max() > 0 else 0.0,
        ]

    return of


def _cluster_measures(part: np.ndarray, whole: np.ndarray, seed: int) -> list[Measure]:
    """Exact on all rows: only counts are needed."""
    rng, present, size = np.random.default_rng([seed, 5]), whole > 0, int(part.sum())

    def of(counts: np.ndarray) -> list[float]:
        return [float((counts[present] > 0).sum() / present.sum()), cluster_shift(counts, whole)]

    random = [of(rng.multivariate_hypergeometric(whole, min(size, int(whole.sum())))) for _ in range(_DRAWS)]
    halves = [of(rng.multivariate_hypergeometric(part, size // 2)) for _ in range(_DRAWS)]
    return _measures(("clusters_kept", "cluster_shift"), of(part), halves, random, [1.0, 0.0], (size, int(whole.sum())))


def _radius(unit: np.ndarray, asked: np.ndarray) -> Callable[[np.ndarray], list[float]]:
    cosines = unit[asked] @ unit.T  # (1000, n) float32, once for all draws

    def of(rows: np.ndarray) -> list[float]:
        squared = 2.0 - 2.0 * cosines[:, rows].max(axis=1).astype(np.float64)
        # float32 cannot tell copies from equal rows
        return [float(np.quantile(np.sqrt(np.where(squared < _COPY**2, 0.0, squared)), 0.95))]

    return of
