"""neardup_docs: real documents whose pairs were all compared exactly."""

from __future__ import annotations

import time

import numpy as np
import pyarrow.parquet as pq
from planted import DATA

from curate.dedup import near
from curate.dedup.copies import SHORT, marks

THRESHOLDS = (0.6, 0.8, 0.9)


def of_truth() -> list[str]:
    docs = pq.read_table(DATA / "neardup_docs.parquet", columns=["id", "text"]).to_pylist()
    pairs = pq.read_table(DATA / "neardup_pairs.parquet").to_pylist()
    place = {doc["id"]: row for row, doc in enumerate(docs)}
    left, right = (np.array([place[pair[name]] for pair in pairs]) for name in ("id_a", "id_b"))
    known, equal = np.array([pair["jaccard5"] for pair in pairs]), np.array([pair["exact_text"] for pair in pairs])
    texts = [doc["text"] for doc in docs]
    found = marks(texts)
    barred = (np.minimum(found.words[left], found.words[right]) < SHORT) & (found.guard[left] != found.guard[right])
    lines = [
        f"{len(docs):,} documents, {len(pairs):,} pairs of .3 and more, {equal.sum()} with equal text. `barred`: pairs under {SHORT} words that differ in a number, negation or operator.",
        "Precision: dropped rows that have a partner at the threshold or above (a tolerance of .005: what a word is differs a little).", "",
        "| threshold | pairs at it or above | barred | recall of the others | equal texts found | rows dropped | precision | CPU-s |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for threshold in THRESHOLDS:
        started = time.process_time()
        result = near(texts, threshold)
        seconds = time.process_time() - started
        top = np.arange(len(texts))
        for row in result.dropped:
            top[row.row] = row.twin
        joined = top[left] == top[right]
        above = known >= threshold
        partner = np.zeros(len(texts), bool)
        for side in (left, right):
            partner[side[known >= threshold - 0.005]] = True
        dropped = np.array([row.row for row in result.dropped])
        lines.append(
            f"| {threshold} | {above.sum():,} | {(above & barred).sum()} | {joined[above & ~barred].mean():.4f} | {joined[equal].sum()} of {equal.sum()} | {len(dropped):,} "
            f"| {partner[dropped].mean():.4f} | {seconds:.1f} |"
        )
    return lines
