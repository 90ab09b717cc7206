r"""How do memory and time of selection grow with the pool? Peak memory and CPU seconds from stored scores.

    OMP_NUM_THREADS=1 python benchmarks/selection_memory.py --run RUN --out benchmarks/results/selection_memory.md

RUN is a finished recovery run over ../shared/data/instruct_pool_*.parquet (54,839 rows): row ids, places, token counts
and clusters are its own, scores are drawn from those it holds. More rows than it has are its rows drawn again, under
new ids. Every measurement is one process that reads Parquet shards of 5,000 rows and writes the decisions.

The reference's figure is quoted, not measured here: the published program holds several dense N x N matrices while it
clusters, about 52 bytes per N^2 above 0.77 GiB (measured by us at N = 500 to 4,000; larger N extrapolated).
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.select.budget import Budget

SHARD = 5_000
SIZES = (10_000, 40_000, 55_000, 1_000_000)
COMMON = {"budget": 0.2, "unit": "response_tokens", "groups": "cluster", "by": "recoverable"}
WAYS = {
    "PASER's allocation": {**COMMON, "allocation": "mean", "share_by": "jsd"},
    "sqrt(size) x mean": {**COMMON, "allocation": "sqrt_size_mean", "share_by": "jsd"},
    "stratified random": {**COMMON, "allocation": "uniform", "by": None},
}


class OnDisk:
    """What `fit` sees: shards read one at a time."""

    def __init__(self, folder: Path, columns: list[str]):
        self.files, self.columns = sorted(folder.glob("*.parquet")), columns

    def tables(self) -> Iterator[tuple[str, pa.Table]]:
        for file in self.files:
            yield file.stem, pq.read_table(file, columns=self.columns, use_threads=False, memory_map=False)


def pool(run: Path) -> pa.Table:
    parts = []
    for corpus in sorted((run / "corpus").glob("?????-????.parquet")):
        columns = {name: pq.read_table(corpus, columns=[name])[name] for name in ("row_id", "file", "line")}
        for step, names in {"tokens": ["tokens", "response_tokens"], "cluster": ["cluster"], "degradation": ["jsd", "recoverable"]}.items():
            stored = pq.read_table(run / "stages" / step / corpus.name, columns=names)
            columns |= {name: stored[name] for name in names}
        parts.append(pa.table(columns))
    return pa.concat_tables(parts).combine_chunks()


def write(rows: pa.Table, n: int, folder: Path) -> None:
    random = np.random.default_rng(0)
    drawn = np.arange(n) if n <= len(rows) else np.concatenate([np.arange(len(rows)), random.integers(len(rows), size=n - len(rows))])
    scores = {name: rows[name].drop_null().to_numpy() for name in ("jsd", "recoverable")}
    for shard, start in enumerate(range(0, n, SHARD)):
        here = rows.take(pa.array(drawn[start : start + SHARD]))
        ids = [f"{row:032x}" for row in random.integers(0, 2**62, len(here))] if start >= len(rows) else here["row_id"]
        columns = {name: here[name] for name in here.column_names} | {"row_id": pa.array(ids) if isinstance(ids, list) else ids}
        columns |= {name: pa.array(random.choice(values, len(here))) for name, values in scores.items()}
        columns["position"] = pa.array(np.arange(len(here)), pa.int32())
        pq.write_table(pa.table(columns), folder / f"{shard:05d}.parquet")


def measure(folder: Path, way: str) -> None:
    """In a process of its own: CPU seconds, peak MB above what stood before, and whether the budget was spent."""
    stage = Budget.model_validate(WAYS[way])
    inputs = OnDisk(folder, [name for name in stage.reads() if name != "shard"] + ["position"])
    with tempfile.TemporaryDirectory() as warm:  # imports and Arrow's pools are not the selection's
        small = OnDisk(folder, inputs.columns)
        small.files = small.files[:1]
        stage.fit(small, None, Path(warm))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as out:
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        stage.fit(inputs, None, Path(out))  # type: ignore[arg-type]
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report = json.loads((Path(out) / "budget.json").read_text())
    print(json.dumps({"seconds": seconds, "base": before / 1024, "peak": peak / 1024, "left": report["budget"] - report["spent"]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "WAY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        measure(Path(given.one[0]), given.one[1])
        return
    rows, lines = pool(given.run), []
    for n in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            write(rows, n, Path(folder))
            for way in WAYS:
                done = subprocess.run([sys.executable, __file__, "--one", folder, way], check=True, capture_output=True, text=True)
                got = json.loads(done.stdout)
                above = got["peak"] - got["base"]
                reference = 0.77 + 52 * n**2 / 2**30
                lines.append(
                    f"| {n:,} | {way} | {got['seconds']:.2f} | {1e6 * got['seconds'] / n:.1f} | {got['peak']:.0f} | {above:.0f} "
                    f"| {above * 2**20 / n:.0f} | {got['left']:.1f} | {reference:,.0f} GiB |"
                )
                print(lines[-1], flush=True)
    text = "\n".join([
        "# Selection from stored scores", "",
        f"`OMP_NUM_THREADS=1 python benchmarks/selection_memory.py --run RUN --out FILE`, {platform.processor() or platform.machine()}, Python "
        f"{platform.python_version()}, numpy {version('numpy')}, pyarrow {version('pyarrow')}, one thread.", "",
        "Reading the shards, choosing a fifth of the response tokens, writing the decisions. Peak: of the process; above: what the fit adds to the peak of a "
        "process that has selected from one shard (below 55,000 rows: nothing that shows). Left: response tokens of the budget that no whole row filled. Up to 54,839 rows are real ones. "
        "Reference: quoted from our measurements of the published program at N <= 4,000 (0.77 GiB + 52 bytes per N^2, in its clustering step), "
        "extrapolated, not run.", "",
        "| rows | selection | CPU s | µs a row | peak MB | above, MB | bytes a row | left | reference |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|", *lines, "",
    ])  # fmt: skip
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
