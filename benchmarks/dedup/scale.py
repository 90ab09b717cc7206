"""`near_dedup` as a run does it, from 50,000 to a million rows: seconds, peak memory, and how they grow."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from planted import real_texts

CHARACTERS = 500
COPIES = 0.1  # of the rows
SHARD = 10_000


def of_scale(work: Path, scales: list[int]) -> list[str]:
    lines = [
        f"Rows of about {CHARACTERS} characters: words of real rows drawn with their neighbours in runs of 12; {COPIES:.0%} are copies of another row with 2 % of its words redrawn.",
        "A run with near_dedup alone (threshold .8), in one process on one core; seconds of the step and of its shingles, CPU seconds and peak memory of the whole run, ingest, publishing and report included.", "",
        "| rows | wall s | of it shingles | of it the decision | CPU-s | rows/CPU-s | peak MiB | dropped | exponent of the CPU-s |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    before: tuple[int, float] | None = None
    for rows in scales:
        folder = _rows(rows, work)
        recipe = work / f"scale-{rows}.yaml"
        recipe.write_text(
            f"pipeline: ingest\nscorers: []\ningest: {{path: {folder}, kind: text, shard_rows: {SHARD}}}\nnear_dedup: {{threshold: 0.8}}\n"
        )
        print(f"  scale: {rows:,} rows", file=sys.stderr, flush=True)
        started = time.time()
        run = work / f"scale-run-{rows}"
        command = [sys.executable, "-c", _MEASURED, str(recipe), str(run)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
        if done.returncode:
            lines.append(f"| {rows:,} | failed: {done.stderr.strip().splitlines()[-1][:200]} | | | | | | | |")
            continue
        usage = json.loads(done.stdout.strip().splitlines()[-1])
        facts = json.loads((run / "run.json").read_text())
        seconds = {step["name"]: step["seconds"] for step in facts["steps"]}
        shingles = next(value for name, value in seconds.items() if name.startswith("shingles/"))
        decision = seconds["near_dedup"] - shingles
        exponent = f"{np.log(usage['cpu'] / before[1]) / np.log(rows / before[0]):.2f}" if before else ""
        before = before or (rows, usage["cpu"])
        dropped = sum(facts["counts"]["dropped"].values())
        lines.append(
            f"| {rows:,} | {time.time() - started:.0f} | {shingles:.0f} | {decision:.1f} | {usage['cpu']:.0f} | {rows / usage['cpu']:,.0f} | {usage['mib']:,.0f} | {dropped:,} | {exponent} |"
        )
    return lines


# The whole run in one process, so that its memory is all there is.
_MEASURED = """
import json, resource, sys
from pathlib import Path
from curate.pipeline import execute
execute(Path(sys.argv[1]), Path(sys.argv[2]), "inline")
use = resource.getrusage(resource.RUSAGE_SELF)
peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"cpu": use.ru_utime + use.ru_stime, "mib": peak / 1024}))
"""


def _rows(rows: int, work: Path) -> Path:
    folder = work / f"scale-rows-{rows}"
    if folder.is_dir():
        return folder
    chance = random.Random(rows)
    words = [word for text in chance.sample(real_texts(), 20_000) for word in text.split()]
    made: list[str] = []
    folder.mkdir(parents=True)
    for start in range(0, rows, 50_000):
        part: list[str] = []
        for _ in range(min(50_000, rows - start)):
            if made and chance.random() < COPIES:
                found = chance.choice(made).split(" ")
                for place in chance.sample(range(len(found)), max(1, len(found) // 50)):
                    found[place] = chance.choice(words)
                text = " ".join(found)
            else:
                runs: list[str] = []
                while sum(map(len, runs)) < CHARACTERS - 40:
                    at = chance.randrange(len(words) - 12)
                    runs.append(" ".join(words[at : at + 12]))
                text = " ".join(runs)
            part.append(text)
            if len(made) < 200_000:
                made.append(text)
        pq.write_table(pa.table({"text": part}), folder / f"{start:08d}.parquet")
    return folder
