"""`explain` and `drops` on a ledger of a million rows: seconds of the whole command, start of Python included.

python benchmarks/ledger_scale.py --work W --out benchmarks/results/ledger_scale.md
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
PIPELINE = """
STEPS = {"ingest": "ingest.settings", "select": "select.budget", "publish": "publish.dataset"}


def short(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    scores = [run.step(name, stage, docs) for name, stage in recipe.scorers_of("text")]
    run.step("select", recipe.select, run.everything(docs), *scores)
    run.publish(recipe.publish, docs, *scores)
"""


def timed(work: Path, *arguments: str) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "curate.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - began, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    work, rng = args.work.absolute(), np.random.default_rng(0)
    shutil.rmtree(work, ignore_errors=True)
    (work / "source").mkdir(parents=True)
    words = np.array([f"word{number}" for number in range(5000)])
    for number, start in enumerate(range(0, args.rows, 100_000)):
        drawn = rng.choice(words, (min(100_000, args.rows - start), 12))
        pq.write_table(pa.table({"text": [" ".join(row) for row in drawn.tolist()]}), work / "source" / f"{number:03d}.parquet")
    (work / "short.py").write_text(PIPELINE)
    (work / "recipe.yaml").write_text(
        f"pipeline: {work}/short.py:short\nscorers: [length]\ningest: {{path: {work}/source, shard_rows: 20000}}\nselect: {{budget: 0.3, by: words}}\npublish: {{rejected: false}}\n"
    )
    build, _ = timed(work, "run", str(work / "recipe.yaml"), "--run-dir", "run", "--engine", "inline", "--json")
    row = json.loads(timed(work, "drops", "run", "--sample", "1", "--json")[1])["rows"][0]
    lines = []
    for name, arguments in (
        ("explain, by row_id", ("explain", "run", row["row_id"])), ("explain, by file and line", ("explain", "run", f"{row['file']}:{row['line']}")),
        ("drops, all rules", ("drops", "run")), ("drops, one rule", ("drops", "run", "--rule", "over_budget", "--sample", "20")), ("status", ("status", "run")),
        ("--help: the start of Python", ("--help",)),
    ):  # fmt: skip
        seconds = sorted(timed(work, *arguments)[0] for _ in range(5))
        lines.append(f"| {name} | {seconds[0]:.2f} | {seconds[2]:.2f} | {seconds[-1]:.2f} |")
    text = "\n".join([
        "# The ledger at scale", "", f"`python benchmarks/ledger_scale.py`: {args.rows:,} rows in {-(-args.rows // 20_000)} shards, 70 % of them dropped (the run itself: {build:.0f} s). Seconds of the whole command, five times.", "",
        "| command | least | median | most |", "|---|---:|---:|---:|", *lines,
    ])  # fmt: skip
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
