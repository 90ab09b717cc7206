r"""What does the kNN graph cost, and how many true neighbours does the inverted file find? CPU seconds and recall.

    OMP_NUM_THREADS=1 python benchmarks/knn_graph.py --vectors vectors.npy --out benchmarks/results/knn_graph.md

`--vectors`: real vectors, float32 (n, d). Repeats are removed; more rows than there are come from interpolation
between a row and one of its ten nearest others. Recall is on 1,000 rows of the table, against an exact search. Peers
in the same run: scikit-learn's brute force, FAISS flat, and FAISS HNSW (16 links, 80 candidates at building, 64 at
searching; distances not re-computed in either).
Each method runs in its own process, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from curate.algorithms import knn

NEIGHBOURS = 15
CHECKED = 1000


def extended(vectors: np.ndarray, n: int) -> np.ndarray:
    """n unit rows: a seeded choice of the distinct real ones, or all of them and points between real neighbours."""
    unit, bad = knn.unit_rows(vectors)
    unit = np.delete(unit, bad, axis=0)
    unit = unit[np.sort(np.unique(np.round(unit, 4), axis=0, return_index=True)[1])]
    rng = np.random.default_rng(0)
    if n <= len(unit):
        return unit[np.sort(rng.permutation(len(unit))[:n])]
    one = rng.integers(len(unit), size=n - len(unit))
    other = knn.nearest_others(unit, 10)[1][one, rng.integers(10, size=len(one))]
    share = rng.uniform(0.2, 0.8, size=(len(one), 1)).astype(np.float32)
    return np.concatenate([unit, knn.unit_rows(unit[one] * share + unit[other] * (1 - share))[0]])


def exact(unit: np.ndarray) -> np.ndarray:
    return knn.nearest_others(unit, NEIGHBOURS, exact_below=len(unit) + 1)[1]


def inverted_file(unit: np.ndarray) -> np.ndarray:
    return knn.nearest_others(unit, NEIGHBOURS, exact_below=0)[1]


def scikit_learn(unit: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute", n_jobs=1).fit(unit).kneighbors(return_distance=False)


def flat(unit: np.ndarray) -> np.ndarray:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    return without_itself(index.search(unit, NEIGHBOURS + 1)[1], np.arange(len(unit)))


def without_itself(found: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.take_along_axis(found, np.argsort(found == rows[:, None], axis=1, kind="stable")[:, :NEIGHBOURS], 1)


def hnsw(unit: np.ndarray) -> np.ndarray:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(unit.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = 80, 64
    index.add(unit)
    return without_itself(index.search(unit, NEIGHBOURS + 1)[1], np.arange(len(unit)))


METHODS = {
    "curate, exact (below 50,000 rows)": exact,
    "curate, inverted file (from 50,000 rows)": inverted_file,
    "FAISS flat": flat,
    "FAISS HNSW 16/80/64": hnsw,
    "scikit-learn, brute force": scikit_learn,
}


def peak() -> float:
    """Highest resident memory of this process so far, MiB (ru_maxrss would carry over the parent's)."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def measured(path: str, method: str, rows: np.ndarray, queue: Any) -> None:
    unit = np.load(path)
    before = peak()
    begin = time.process_time()
    found = METHODS[method](unit)
    seconds = time.process_time() - begin
    queue.put((seconds, peak() - before, found[rows]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--scratch", type=Path, default=Path("/tmp"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cells: dict[str, list[str]] = {method: [] for method in METHODS}
    context = multiprocessing.get_context("spawn")
    for n in arguments.sizes:
        unit = extended(np.load(arguments.vectors), n)
        path = str(arguments.scratch / f"knn_graph_{os.getpid()}_{n}.npy")
        np.save(path, unit)
        rows = np.sort(np.random.default_rng(1).permutation(n)[:CHECKED])
        true = without_itself(knn.search(unit[rows], unit, NEIGHBOURS + 1)[1], rows)
        for method in METHODS:
            queue = context.Queue()
            process = context.Process(target=measured, args=(path, method, rows, queue))
            process.start()
            seconds, memory, found = queue.get()
            process.join()
            recall = (found[:, :, None] == true[:, None, :]).any(axis=1).mean()
            cells[method].append(f"{seconds:.1f} | {recall:.3f} | {memory:,.0f}")
            print(n, method, cells[method][-1], flush=True)
        Path(path).unlink()
    sizes = [f"{n:,} rows" for n in arguments.sizes]
    libraries = ", ".join(f"{name} {version(name)}" for name in ("faiss-cpu", "scikit-learn", "numpy"))
    lines = [
        "# The kNN graph",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/knn_graph.py --vectors FILE --out FILE`",
        "",
        f"{NEIGHBOURS} nearest others, {np.load(arguments.vectors, mmap_mode='r').shape[1]} numbers a row, one thread. Recall on {CHECKED:,} rows. "
        "Memory beyond the vectors, own process. Rows above the number of real ones are interpolated between real neighbours.",
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {libraries}.",
        "",
        "| method | " + " | ".join(f"{size}: CPU-s | recall | MiB" for size in sizes) + " |",
        "|---|" + "---:|" * 3 * len(sizes),
        *(f"| {method} | " + " | ".join(row) + " |" for method, row in cells.items()),
    ]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
