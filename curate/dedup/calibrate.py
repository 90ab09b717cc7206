"""From which similarity on two texts say the same: measured on labelled pairs, for one encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from curate import models
from curate.algorithms import roc
from curate.algorithms.hashed_ngrams import hashed_ngrams
from curate.dedup.copies import marks
from curate.dedup.meaning import DIMENSIONS, WEIGHT
from curate.embed.transformer import Transformer
from curate.errors import UserMistake

LEAST_PAIRS = 30  # above a threshold, for its precision to mean anything
BLOCK = 500


class Measured(NamedTuple):
    """Of each pair: same, cosine, letters, whether numbers or negations differ, and from which file it is."""

    same: np.ndarray
    cosine: np.ndarray
    letters: np.ndarray
    guarded: np.ndarray

    @property
    def alike(self) -> np.ndarray:
        return (1 - WEIGHT) * self.cosine + WEIGHT * self.letters


def measure(encoder: Transformer, files: list[Path], positive: float) -> Measured:
    """`files` have columns text_a and text_b, and `label` (0 or 1, true or false) or `score` (from `positive` on the same)."""
    parts = []
    encode = encoder.load(Path())
    column = next(iter(encoder.columns()))
    for file in files:
        table = _read(file)
        texts = [table[name].cast(pa.large_string()).to_pylist() for name in ("text_a", "text_b")]
        if "label" in table.column_names:
            same = table["label"].cast(pa.float64()).to_numpy() >= 0.5
        else:
            same = table["score"].cast(pa.float64()).to_numpy() >= positive
        vectors = [
            np.concatenate([_vectors(encode, side[start : start + BLOCK], column) for start in range(0, len(side), BLOCK)])
            for side in texts
        ]
        letters = [hashed_ngrams(side, DIMENSIONS).astype(np.float64) for side in texts]
        guards = [marks(side, "words", 1).guard for side in texts]
        cosine, second = (np.einsum("nd,nd->n", *two) for two in (vectors, letters))
        parts.append(Measured(same, cosine, second, guards[0] != guards[1]))
    return Measured(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def calibrate(found: Measured, precision: float, agreement: float) -> dict[str, Any]:
    """The least threshold from which at least `precision` of the pairs that are called the same are; UserMistake where there is none."""
    if found.same.all() or not found.same.any():
        raise UserMistake("all of these pairs have one label: give pairs that are the same and pairs that are not")
    judged = ~found.guarded & (found.letters >= agreement)
    grid = np.minimum(np.floor(found.alike * 1000 + 1e-9), 1000)  # thresholds have three digits; a pair is at or above what is printed
    order = np.argsort(-grid[judged], kind="stable")
    alike, same = grid[judged][order], found.same[judged][order]
    right = np.cumsum(same) / np.arange(1, len(same) + 1)
    ends = np.append(alike[1:] != alike[:-1], True)  # pairs of one similarity are called the same together
    good = np.flatnonzero(ends & (right >= precision) & (np.arange(1, len(same) + 1) >= LEAST_PAIRS))
    if not len(good):
        raise UserMistake(
            f"from no similarity on are {precision:.0%} of these pairs the same: give pairs of the kind that is to be found, or a lower --precision"
        )
    last = int(good[-1])
    return {
        "threshold": round(float(alike[last]) / 1000, 3), "precision": round(float(right[last]), 4),
        "recall": round(float(same[: last + 1].sum() / max(found.same.sum(), 1)), 4), "pairs": len(found.same), "same": int(found.same.sum()),
        "auc": round(roc.auc(found.alike, found.same), 4), "auc_of_cosine": round(roc.auc(found.cosine, found.same), 4),
    }  # fmt: skip


def entry(encoder: Transformer, measured: dict[str, Any]) -> dict[str, Any]:
    """What `calibrations.yaml` says of the encoder."""
    return {models.identity(encoder.model): {"encoder": encoder.model, **measured}}


def _vectors(encode: Any, texts: list[str], column: str) -> np.ndarray:
    vectors = encode(pa.table({"text": pa.array(texts, pa.large_string()), "prompt": pa.nulls(len(texts), pa.large_string())})).column(
        column
    )
    return np.asarray(vectors.combine_chunks().flatten(), np.float64).reshape(len(texts), -1)


def _read(file: Path) -> pa.Table:
    try:
        table = pq.read_table(file) if file.suffix == ".parquet" else pyarrow.json.read_json(file)
    except (pa.ArrowException, OSError) as error:
        raise UserMistake(f"{file} cannot be read ({error}): give .parquet or .jsonl files of pairs") from None
    missing = {"text_a", "text_b"} - set(table.column_names) or (
        {"label or score"} if not {"label", "score"} & set(table.column_names) else set()
    )
    if not missing and any(table[name].null_count for name in table.column_names if name in ("text_a", "text_b", "label", "score")):
        raise UserMistake(f"{file} has pairs without a text or a label: leave them out")
    if not missing and not table.num_rows:
        raise UserMistake(f"{file} holds no pairs: name a file that does")
    if missing:
        raise UserMistake(f"{file} has no column {' and '.join(sorted(missing))}: pairs have text_a, text_b, and label (0 or 1) or score")
    return table
