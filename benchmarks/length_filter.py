"""What does the ledger cost? A length filter over 22,000 rows, JSONL in, shards out, beside a plain pyarrow loop.

    python benchmarks/length_filter.py [--data ../shared/data/instruct_pool_other.parquet] [--runs 7] [--out FILE]

Each measurement is a whole process, from starting Python to the last byte: `curate run --engine inline` with ingest,
length, select, publish, ledger and report (length_only.py), then plain_length_filter.py, then an unchanged second
`curate run`, in turn. Both keep the same rows, or the benchmark fails. CPU seconds and the peak of resident memory
are the operating system's (wait4). Without --data the rows are the quick start's pool, repeated to 22,000.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
ROWS, SHARD_ROWS, LEAST, MOST = 22_000, 2750, 300, 1000  # 8 shards; about four fifths of the rows are within the bounds
RECIPE = """\
pipeline: {here}/length_only.py:length_only
ingest: {{path: {rows}, shard_rows: {shard_rows}}}
select: {{where: {{chars: {{min: {least}, max: {most}}}}}}}
"""


@dataclass
class Cost:
    """Of one process: wall seconds, CPU seconds (user and system), peak resident MiB, its last line of output."""

    wall: float
    cpu: float
    memory: float
    said: dict


def measure(command: list[str], folder: Path) -> Cost:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    out = folder / "stdout"
    with out.open("w") as stdout, (folder / "stderr").open("w") as stderr:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=folder, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{(folder / 'stderr').read_text()[-2000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, json.loads(out.read_text().splitlines()[-1]))


def write_rows(path: Path, data: Path | None) -> None:
    if data is not None:
        columns = ("id", "instruction", "input", "output")
        found = pq.read_table(data, columns=list(columns)).slice(0, ROWS).to_pylist()
    else:
        sys.path.insert(0, str(HERE.parent))
        from pipelines.quickstart_corpus import build

        folder = HERE.parent / "runs" / "quickstart-corpus"
        build(folder)
        found = [json.loads(line) for line in (folder / "pool.jsonl").read_text().splitlines()]
        found = (found * (ROWS // len(found) + 1))[:ROWS]
    if len(found) != ROWS:
        sys.exit(f"{data} has {len(found):,} rows, {ROWS:,} are needed: give another file with --data")
    with path.open("w") as file:
        for row in found:
            text = "\n\n".join(part for part in (row["instruction"], row["input"], row["output"]) if part)
            file.write(json.dumps({"id": row["id"], "text": text}, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    shared = HERE.parent.parent / "shared" / "data" / "instruct_pool_other.parquet"
    parser.add_argument("--data", type=Path, default=shared if shared.is_file() else None)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "length_filter.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, recipe = folder / "rows.jsonl", folder / "recipe.yaml"
        write_rows(rows, given.data)
        recipe.write_text(RECIPE.format(here=HERE, rows=rows, shard_rows=SHARD_ROWS, least=LEAST, most=MOST))
        costs: dict[str, list[Cost]] = {"plain pyarrow loop": [], "curate, first run": [], "curate, unchanged": []}
        for turn in range(-1, given.runs):  # one to warm the disk cache and Python's bytecode, thrown away
            run = [
                sys.executable,
                "-m",
                "curate.cli",
                "run",
                str(recipe),
                "--engine",
                "inline",
                "--run-dir",
                str(folder / f"run{turn}"),
                "--json",
            ]
            first = measure(run, folder)
            limits = map(str, (SHARD_ROWS, LEAST, MOST))
            plain = measure(
                [sys.executable, str(HERE / "plain_length_filter.py"), str(rows), str(folder / f"plain{turn}"), *limits], folder
            )
            second = measure(run, folder)
            shards = len(list((folder / f"run{turn}" / "stages" / "length").glob("*.parquet")))
            if (first.said["kept"], shards) != (plain.said["kept"], plain.said["shards"]):
                sys.exit(f"not the same work: curate kept {first.said['kept']} rows in {shards} shards, the loop {plain.said}")
            if first.said["executed"] == 0 or second.said["executed"] != 0:
                sys.exit(f"executed {first.said['executed']} shards, then {second.said['executed']}; the second must be 0")
            if turn >= 0:
                for kind, cost in zip(costs, (plain, first, second), strict=True):
                    costs[kind].append(cost)
        table = report(costs, rows.stat().st_size, plain.said["kept"], shards, given.data)
    print(table)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(table)


def report(costs: dict[str, list[Cost]], size: int, kept: int, shards: int, data: Path | None) -> str:
    base = costs["plain pyarrow loop"]

    def middle(kind: str, what: str) -> float:
        return statistics.median(getattr(cost, what) for cost in costs[kind])

    lines = [
        "# A length filter over 22,000 rows, beside a plain pyarrow loop",
        "",
        f"`python benchmarks/length_filter.py --runs {len(base)}`: {data.name if data else 'the pool of the quick start'}, {size / 1e6:.1f} MB of JSONL, "
        f"{kept:,} rows kept, {shards} shards. Whole processes in turn, median (min-max); the ratio is of medians.",
        "",
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f} at the end{' (NOISY: other work was running)' if os.getloadavg()[0] > 1.5 else ''}, {time.strftime('%d %b %Y')}.",
        "",
        "| | wall s | ratio | CPU s | ratio | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for kind, found in costs.items():
        wall, cpu = [cost.wall for cost in found], [cost.cpu for cost in found]
        lines.append(
            f"| {kind} | {statistics.median(wall):.2f} ({min(wall):.2f}-{max(wall):.2f}) | {middle(kind, 'wall') / middle('plain pyarrow loop', 'wall'):.2f} "
            f"| {statistics.median(cpu):.2f} ({min(cpu):.2f}-{max(cpu):.2f}) | {middle(kind, 'cpu') / middle('plain pyarrow loop', 'cpu'):.2f} "
            f"| {statistics.median(cost.memory for cost in found):.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
