"""Does a selection take wrong answers? Share of planted ones in what each arm of the proof picks.

    python benchmarks/recovery/planted.py --work runs/recovery-proof --out benchmarks/results/recovery_planted.md

Of the proof's pool 100 rows of each capability; in 5 % of them the answer is another row's of the same capability. A
score that likes surprise may like them, one that likes what the original model supports may not. Chance takes 5 %.
What the conflict checks themselves find: benchmarks/conflicts.py.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import proof
from data import FIELDS, POOL, drawn, write

import curate
from curate.engine import set_threads

PER_CAPABILITY, SHARE, BUDGET = 100, 0.05, 0.2
SEEDS = 5  # of arms that draw


def prepare(work: Path, out: Path) -> None:
    """A smaller pool with wrong answers; `wrong` in labels.jsonl says which."""
    out.mkdir(parents=True, exist_ok=True)
    labels = {row["id"]: row for row in proof.lines(work / "labels.jsonl")}
    given = proof.lines(work / "pool.jsonl")
    random, rows = np.random.default_rng(0), []
    for capability in POOL:
        mine = drawn([row for row in given if labels[row["id"]]["capability"] == capability], PER_CAPABILITY, "planted")
        wrong = set(random.choice(len(mine), round(SHARE * len(mine)), replace=False).tolist())
        for number, row in enumerate(mine):
            others = [other["output"] for other in mine if other["output"].strip().lower() != row["output"].strip().lower()]
            rows.append({**row, **({"output": others[random.integers(len(others))]} if number in wrong else {}), "wrong": number in wrong})
    rows.sort(key=lambda row: row["id"])
    write(out / "pool.jsonl", rows, FIELDS)
    write(out / "labels.jsonl", [{**labels[row["id"]], "wrong": row["wrong"]} for row in rows], ("id", "capability", "wrong"))
    shutil.copyfile(work / "dev.jsonl", out / "dev.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/recovery-proof"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    set_threads(1)
    here = args.work / "planted"
    prepare(args.work, here)
    curate.run(proof.recipe(here, "depth6"), here / "depth6", engine="inline")
    wrong = {row["id"] for row in proof.lines(here / "labels.jsonl") if row["wrong"]}
    rows = len(proof.lines(here / "pool.jsonl"))
    text = [
        f"Planted: {len(wrong)} wrong answers in {rows:,} rows ({len(wrong) / rows:.1%}); each arm picks a fifth of the tokens.", "",
        "| arm | rows picked | wrong among them | share |", "|---|---|---|---|",
    ]  # fmt: skip
    for arm, select in (proof.ARMS | proof.ABLATION).items():
        if arm in proof.RECIPE or "budget" in select:  # its answers are new; it is another arm, or all of the pool
            continue
        picks = []
        for seed in range(SEEDS if arm in proof.DRAWN else 1):
            picks.append(proof.pick(here, "depth6", {"budget": BUDGET, "unit": "tokens", "seed": seed, **select}, seed))
        counts = [len(found) for found in picks]
        bad = [sum(row["source_id"] in wrong for row in found) for found in picks]
        text.append(f"| {arm} | {np.mean(counts):.0f} | {np.mean(bad):.1f} | {sum(bad) / sum(counts):.1%} |")
    print("\n".join(text))
    if args.out:
        args.out.write_text("# Planted wrong answers in what is picked\n\n" + "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
