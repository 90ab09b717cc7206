"""Nearest neighbours of unit vectors: exact from products of blocks, for many rows by FAISS (Johnson et al., arXiv 1702.08734).

Distances are Euclidean on the unit sphere, sqrt(2 - 2 cos), in [0, 2]. Products in float32 propose candidates;
the distances given back are computed from the differences in float64, because 2 - 2 cos loses all digits
for near copies. Order: distance, then index. So a row's answer does not depend on the batch it is asked in.

Exact search on the CPU multiplies with numpy: FAISS's flat index gives the same answers for two to four times the CPU
time here (its wheel brings a BLAS of its own). On a GPU both searches are FAISS's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

# Candidates beyond k: float32 rounding may swap neighbours at the border, not further than this.
_SLACK = 8
_BLOCK = 512
# Float32 products held at a time, 64 MB; and rows whose differences stay in the cache while they are summed.
_PRODUCTS = 1 << 24
_CACHED = 16
# The inverted file of `nearest_others`, chosen on 43k and 100k real rows (benchmarks/results/knn_graph.md). HNSW takes
# less time at the same recall there, but among copies it left single rows without one right neighbour. Lists per
# root of the rows, lists that are searched, training rows to each list, passes of its k-means.
_LISTS = 2
_PROBES = 24
_TRAINING = 64
_PASSES = 10


def unit_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(unit float32 (n, d), positions int64 of rows that have no direction: zero, NaN or infinite).

    Such rows come back as zeros. Norms are taken in float64, row by row.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2:
        raise ValueError(f"vectors must be (n, d), got {vectors.shape}")
    unit = np.zeros(vectors.shape, np.float32)
    usable = np.zeros(len(vectors), bool)
    for start in range(0, len(vectors), _BLOCK):
        rows = np.ascontiguousarray(vectors[start : start + _BLOCK], np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.sqrt(np.square(rows).sum(axis=1))
        good = np.isfinite(norms) & (norms > 0)
        usable[start : start + _BLOCK] = good
        unit[start + np.flatnonzero(good)] = rows[good] / norms[good, None]
    return unit, np.flatnonzero(~usable)


def faiss_index(d: int, gpu: bool = False) -> Any:
    """An empty exact inner-product index for vectors of width d, on the CPU or on GPU 0."""
    faiss = _faiss()
    return _on_gpu(faiss.IndexFlatIP(d)) if gpu else faiss.IndexFlatIP(d)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ImportError("nearest neighbours need FAISS: pip install faiss-cpu (with a CUDA device: faiss-gpu)") from None
    return faiss


def _on_gpu(index: Any) -> Any:
    faiss = _faiss()
    if not hasattr(faiss, "StandardGpuResources"):
        raise RuntimeError("this FAISS has no GPU support: pip uninstall faiss-cpu, then pip install faiss-gpu")
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


@contextmanager
def _one_thread() -> Iterator[None]:
    faiss = _faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def search(queries: np.ndarray, reference: np.ndarray, k: int, gpu: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of `reference` (n, d) for each of `queries` (m, d); both unit float32.

    Returns distances float32 (m, k) and indices int64 (m, k), nearest first; k may not exceed n.
    """
    queries, reference = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(reference, np.float32)
    n = len(reference)
    if not 1 <= k <= n:
        raise ValueError(f"{k} neighbours asked among {n} reference rows: lower k or give more rows")
    c = min(k + _SLACK, n)
    if gpu:
        index = faiss_index(reference.shape[1], gpu)
        index.add(reference)
        candidates = index.search(queries, c)[1] if len(queries) else np.empty((0, c), np.int64)
    else:
        candidates = np.empty((len(queries), c), np.int64)
        rows = max(16, _PRODUCTS // n)
        for start in range(0, len(queries), rows):
            candidates[start : start + rows] = _largest(queries[start : start + rows] @ reference.T, c)
    return _nearest(queries, reference, candidates, k)


def _largest(products: np.ndarray, c: int) -> np.ndarray:
    """Columns of the c largest of each row (b, n), int64 (b, c), in any order; among equals at the border the lower columns.

    The columns are dealt into groups; the c groups with the largest members hold the c largest, so only those are looked at.
    """
    b, n = products.shape
    if c == n:
        return np.tile(np.arange(n), (b, 1))
    width = max(1, int(np.sqrt(n / c)))
    groups = n // width
    best = products[:, : groups * width].reshape(b, width, groups).max(axis=1)
    kept = np.argpartition(best, groups - min(c, groups), axis=1)[:, groups - min(c, groups) :]
    members = (kept[:, None, :] + groups * np.arange(width)[:, None]).reshape(b, -1)
    members = np.concatenate([members, np.tile(np.arange(groups * width, n), (b, 1))], axis=1)
    values = np.take_along_axis(products, members, 1)
    place = np.argpartition(values, values.shape[1] - c, axis=1)[:, values.shape[1] - c :]
    found, least = np.take_along_axis(members, place, 1), np.take_along_axis(values, place, 1).min(axis=1, keepdims=True)
    for row in np.flatnonzero((products >= least).sum(axis=1) > c):
        above, equal = np.flatnonzero(products[row] > least[row]), np.flatnonzero(products[row] == least[row])
        found[row] = np.concatenate([above, equal])[:c]
    return found


def _nearest(queries: np.ndarray, reference: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of the candidates int64 (m, c), by distances in float64."""
    distances = np.empty((len(queries), k), np.float32)
    indices = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), _CACHED):
        block = slice(start, start + _CACHED)
        ids = np.sort(candidates[block], axis=1)
        difference = reference[ids].astype(np.float64)
        difference -= queries[block, None, :]
        # Not einsum, whose order of summation may follow the shape of the batch.
        squared = np.square(difference, out=difference).sum(axis=2)
        order = np.argsort(squared, axis=1, kind="stable")[:, :k]  # ids ascend, so ties go by index
        indices[block] = np.take_along_axis(ids, order, 1)
        distances[block] = np.sqrt(np.take_along_axis(squared, order, 1))
    return distances, indices


def nearest_others(vectors: np.ndarray, k: int, gpu: bool = False, exact_below: int = 50_000) -> tuple[np.ndarray, np.ndarray]:
    """`search` of every row among the other rows: the row itself is left out, its exact copies are not.

    From `exact_below` rows on the candidates come from an inverted file, and some neighbours are missed: recall .98
    to .99 on real vectors (benchmarks/results/knn_graph.md). Which ones follows from the rows and their order.
    Memory: the vectors, another quarter of them for the index, and O(n k).
    """
    n = len(vectors)
    if not 1 <= k < n:
        raise ValueError(f"{k} neighbours asked for {n} rows: lower k below {n} or give more rows")
    if n < exact_below:
        distances, indices = search(vectors, vectors, k + 1, gpu)
    else:
        vectors = np.ascontiguousarray(vectors, np.float32)
        distances, indices = _nearest(vectors, vectors, _candidates(vectors, min(k + 1 + _SLACK, n), gpu), k + 1)
    # A stable sort moves the row itself to the end. Among more than k copies it may be missing: the last goes.
    order = np.argsort(indices == np.arange(n)[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1)


def _candidates(vectors: np.ndarray, c: int, gpu: bool) -> np.ndarray:
    """int64 (n, c): most of the c nearest rows of each, itself among them.

    Rows are grouped by k-means on a fixed sample and held in 8 bits a number; a row looks into its nearest groups.
    """
    faiss = _faiss()
    n, d = vectors.shape
    lists = max(1, int(_LISTS * np.sqrt(n)))
    index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(d), d, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = _PASSES, 0, _TRAINING, 1
    index.nprobe = min(_PROBES, lists)
    with _one_thread():
        sample = np.sort(np.random.default_rng(0).permutation(n)[: _TRAINING * lists])
        index.train(vectors[sample])
        if gpu:
            index = _on_gpu(index)
        index.add(vectors)
        found = index.search(vectors, c)[1]
        # Small lists may hold fewer than c rows: such rows are compared with all.
        short = np.flatnonzero((found < 0).any(axis=1))
        if len(short):
            flat = faiss_index(d, gpu)
            flat.add(vectors)
            found[short] = flat.search(np.ascontiguousarray(vectors[short]), c)[1]
    return found
