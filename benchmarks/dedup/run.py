"""Duplicates and contamination: speed and recall beside other tools, exact truth, scale, meaning, benchmarks' items.

    python benchmarks/dedup/run.py tools truth scale semantic contamination --out benchmarks/results/dedup.md

tools          planted copies in real rows (planted.py), each tool in a process and an environment of its own, at thresholds .6, .7 and .8; give the
               environments with --peer NAME=PYTHON (rensa, datasketch, text-dedup, datatrove); one that is not given is shown as absent
truth          neardup_docs: exact Jaccard of all pairs is known (neardup_pairs)
scale          `near_dedup` of a run over 50k to 1M rows of about 500 characters: seconds, memory, exponent
semantic       MRPC and STS: similarity with and without the second opinion by letters, precision at equal recall, numbers and negations; --peer semhash=PYTHON
contamination  items of recovery_eval planted as they are, changed, and inside longer rows; false alarms on rows without any

Needs ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from curate.dedup.copies import SHORT, marks

sys.path.insert(0, str(Path(__file__).parent))
import itertools

from contamination import of_contamination
from meaning import of_semantic
from planted import LEVELS, planted
from scale import of_scale
from truth import of_truth

TOOLS = ("curate", "rensa", "datasketch", "text-dedup", "datatrove")
BINS = (
    (0.0, 0.4),
    (0.4, 0.5),
    (0.5, 0.6),
    (0.6, 0.65),
    (0.65, 0.7),
    (0.7, 0.75),
    (0.75, 0.8),
    (0.8, 0.85),
    (0.85, 0.9),
    (0.9, 1.0),
    (1.0, 1.01),
)


def of_tools(args: argparse.Namespace) -> list[str]:
    lines: list[str] = []
    for rows in args.rows:
        file, pairs = planted(rows, args.work)
        barred = _barred(file, pairs)
        lines += [
            f"### {rows:,} rows", "",
            f"{len(pairs):,} planted copies, {barred.sum()} of them barred here (under 50 words, another number, negation or operator) and left out of recall, which is the share of pairs at the threshold or above of which one side goes; `false` counts removed rows that are in no planted pair, `below`",
            "the share of pairs under the threshold that are joined all the same. Rows a CPU-second, reading and imports included; `ratio`: ours to theirs.", "",
            "| tool | threshold | rows/CPU-s | ratio | peak MiB | recall at J >= threshold | below | false | recall verbatim / 2 / 5 / 10 / 20 % edited |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---|",
        ]  # fmt: skip
        curves: dict[str, np.ndarray] = {}
        for threshold in args.thresholds:
            ours = None
            for tool in TOOLS:
                python = sys.executable if tool == "curate" else args.peers.get(tool)
                if python is None:
                    lines.append(f"| {tool} | {threshold} | absent | | | | | | |")
                    continue
                kept = args.work / f"kept-{tool}-{rows}-{threshold}.npy"
                print(f"  {tool} at {threshold} over {rows:,} rows", file=sys.stderr, flush=True)
                done = subprocess.run(
                    [python, str(Path(__file__).parent / "tool.py"), tool, str(file), str(threshold), str(kept)],
                    capture_output=True,
                    text=True,
                )
                if done.returncode:
                    lines.append(f"| {tool} | {threshold} | failed: {done.stderr.strip().splitlines()[-1][:120]} | | | | | | |")
                    continue
                facts, keep = json.loads(done.stdout.strip().splitlines()[-1]), np.load(kept)
                left, right = pairs[:, 0].astype(int), pairs[:, 1].astype(int)
                hit = ~keep[left] | ~keep[right]
                planted_rows = np.zeros(len(keep), bool)
                planted_rows[left] = planted_rows[right] = True
                speed = rows / facts["cpu"]
                ours = ours or speed
                above = (pairs[:, 3] >= threshold - 1e-9) & ~barred
                levels = " / ".join(f"{hit[pairs[:, 2] == level].mean():.3f}" for level in LEVELS)
                lines.append(
                    f"| {tool} | {threshold} | {speed:,.0f} | {ours / speed:.1f} | {facts['mib']:,.0f} | {hit[above].mean():.4f} | {hit[pairs[:, 3] < threshold - 1e-9].mean():.4f} "
                    f"| {int((~keep & ~planted_rows).sum())} | {levels} |"
                )
                if threshold == 0.7:
                    curves[tool] = hit
        lines.append("")
        if curves and 0.7 in args.thresholds:
            lines += _curve(curves, pairs)
            if args.out:
                picture = args.out.with_name(f"{args.out.stem}_curve_{rows}.svg")
                picture.write_text(_drawn(curves, pairs))
                lines += [f"![share of pairs joined by their Jaccard]({picture.name})", ""]
    return lines


def _barred(file: Path, pairs: np.ndarray) -> np.ndarray:
    texts = pq.read_table(file, columns=["text"]).column(0).to_pylist()
    left, right = (marks([texts[int(row)] for row in side]) for side in pairs[:, :2].T)
    return (np.minimum(left.words, right.words) < SHORT) & (left.guard != right.guard)


def _curve(curves: dict[str, np.ndarray], pairs: np.ndarray) -> list[str]:
    """Share of pairs joined by their exact Jaccard at threshold .7, beside what banding promises."""
    lines = [
        "Share of pairs joined, by their exact Jaccard, threshold .7; `14 bands of 8` and `25 of 5`: 1 - (1 - J^r)^b in the middle of the bin.",
        "",
    ]
    lines += ["| Jaccard | pairs | " + " | ".join(curves) + " | 14 bands of 8 | 25 of 5 |", "|---|---:|" + "---:|" * (len(curves) + 2)]
    for low, high in BINS:
        here = (pairs[:, 3] >= low) & (pairs[:, 3] < high)
        if here.any():
            mid = pairs[here, 3].mean()
            lines.append(
                f"| {low:g} to {min(high, 1):g} | {here.sum()} | " + " | ".join(f"{hit[here].mean():.2f}" for hit in curves.values())
                + f" | {1 - (1 - mid**8) ** 14:.2f} | {1 - (1 - mid**5) ** 25:.2f} |"
            )  # fmt: skip
    return [*lines, ""]


COLOURS = {"curate": "#0b6", "rensa": "#d60", "datasketch": "#06c", "text-dedup": "#a3a", "datatrove": "#840"}


def _drawn(curves: dict[str, np.ndarray], pairs: np.ndarray, threshold: float = 0.7) -> str:
    """The same as a picture: one line a tool, the probability that banding promises dashed."""
    edges = np.arange(0.4, 1.0001, 0.05)
    across, up = (lambda jaccard: 50 + 500 * (jaccard - 0.4) / 0.6), (lambda share: 280 - 250 * share)
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 320" font-family="sans-serif" font-size="12"><rect width="700" height="320" fill="#fff"/>',
        f'<path d="M50 30V280H550" fill="none" stroke="#888"/><path d="M{across(threshold):.0f} 30V280" stroke="#bbb"/>',
        *(f'<text x="{across(x):.0f}" y="298" text-anchor="middle">{x:.1f}</text>' for x in np.arange(0.4, 1.01, 0.1)),
        *(f'<text x="44" y="{up(y) + 4:.0f}" text-anchor="end">{y:.1f}</text>' for y in (0, 0.5, 1)),
        '<text x="300" y="315" text-anchor="middle">exact Jaccard of word 5-grams</text><text x="56" y="22">share of pairs joined, threshold .7</text>',
    ]  # fmt: skip
    row = 0
    for name, hit in curves.items():
        points = []
        for low, high in itertools.pairwise(edges):
            here = (pairs[:, 3] >= low) & (pairs[:, 3] < high + (high > 0.999))
            if here.sum() >= 5:
                points.append(f"{across(pairs[here, 3].mean()):.1f},{up(hit[here].mean()):.1f}")
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        parts.append(f'<text x="565" y="{50 + 20 * row}" fill="{COLOURS[name]}">{name}</text>')
        row += 1
    for bands, rows in ((14, 8), (25, 5)):
        points = [f"{across(x):.1f},{up(1 - (1 - x**rows) ** bands):.1f}" for x in np.linspace(0.4, 1, 61)]
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="#999" stroke-dasharray="4 3"/>')
        parts.append(f'<text x="565" y="{50 + 20 * row}" fill="#666">{bands} bands of {rows}</text>')
        row += 1
    return "\n".join([*parts, "</svg>", ""])


PARTS: dict[str, Callable[[argparse.Namespace], list[str]]] = {
    "tools": of_tools,
    "truth": lambda args: of_truth(),
    "scale": lambda args: of_scale(args.work, args.scales),
    "semantic": lambda args: of_semantic(args.work, args.peers.get("semhash")),
    "contamination": lambda args: of_contamination(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PYTHON", help="the interpreter of an environment that has the tool"
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[20_000, 200_000])
    parser.add_argument("--thresholds", type=float, nargs="*", default=[0.6, 0.7, 0.8])
    parser.add_argument("--scales", type=int, nargs="*", default=[50_000, 200_000, 1_000_000])
    parser.add_argument("--work", type=Path, default=Path("runs/bench-dedup"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.peers = dict(peer.split("=", 1) for peer in args.peer)
    args.work.mkdir(parents=True, exist_ok=True)
    lines = ["# Duplicates and contamination", ""]
    for part in args.parts:
        started = time.process_time()
        lines += [f"## {part}", "", *PARTS[part](args), "", f"{time.process_time() - started:.0f} CPU-s of this process.", ""]
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
