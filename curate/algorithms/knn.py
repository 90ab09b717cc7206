"""Exact nearest neighbours of unit vectors, by FAISS (Johnson et al., arXiv 1702.08734; flat inner product).

Distances are Euclidean on the unit sphere, sqrt(2 - 2 cos), in [0, 2]. FAISS proposes candidates in float32;
the distances given back are computed from the differences in float64, because 2 - 2 cos loses all digits
for near copies. Order: distance, then index. So a row's answer does not depend on the batch it is asked in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Candidates beyond k: float32 rounding may swap neighbours at the border, not further than this.
_SLACK = 8
_BLOCK = 512


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
    try:
        import faiss
    except ImportError:
        raise ImportError(
            "nearest neighbours need FAISS: pip install 'curate[cpu]' (with a CUDA device: pip install 'curate[gpu]')"
        ) from None
    if not gpu:
        return faiss.IndexFlatIP(d)
    if not hasattr(faiss, "StandardGpuResources"):
        raise RuntimeError("this FAISS has no GPU support: pip uninstall faiss-cpu, then pip install 'curate[gpu]'")
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, faiss.IndexFlatIP(d))


def search(queries: np.ndarray, reference: np.ndarray, k: int, gpu: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of `reference` (n, d) for each of `queries` (m, d); both unit float32.

    Returns distances float32 (m, k) and indices int64 (m, k), nearest first; k may not exceed n.
    """
    queries, reference = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(reference, np.float32)
    n = len(reference)
    if not 1 <= k <= n:
        raise ValueError(f"{k} neighbours asked among {n} reference rows: lower k or give more rows")
    index = faiss_index(reference.shape[1], gpu)
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        index.add(reference)
        candidates = index.search(queries, min(k + _SLACK, n))[1] if len(queries) else np.empty((0, k), np.int64)
    finally:
        faiss.omp_set_num_threads(threads)
    distances = np.empty((len(queries), k), np.float32)
    indices = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, start + _BLOCK)
        ids = np.sort(candidates[block], axis=1)
        difference = reference[ids].astype(np.float64)
        difference -= queries[block, None, :]
        # Not einsum, whose order of summation may follow the shape of the batch.
        squared = np.square(difference, out=difference).sum(axis=2)
        order = np.argsort(squared, axis=1, kind="stable")[:, :k]  # ids ascend, so ties go by index
        indices[block] = np.take_along_axis(ids, order, 1)
        distances[block] = np.sqrt(np.take_along_axis(squared, order, 1))
    return distances, indices


def nearest_others(vectors: np.ndarray, k: int, gpu: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """`search` of every row among the other rows: the row itself is left out, its exact copies are not."""
    n = len(vectors)
    if not 1 <= k < n:
        raise ValueError(f"{k} neighbours asked for {n} rows: lower k below {n} or give more rows")
    distances, indices = search(vectors, vectors, k + 1, gpu)
    # A stable sort moves the row itself to the end. Among more than k copies it may be missing: the last goes.
    order = np.argsort(indices == np.arange(n)[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1)
