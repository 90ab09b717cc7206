"""Semantic duplicates: rows that say the same in other words, by embeddings with a second opinion by letters.

    alike = .65 cosine of the embeddings + .35 cosine of hashed character n-grams  (algorithms/semantic_pairs.py)

A row falls to the surviving row that is most like it, from `threshold` on, if the second opinion alone reaches `agreement`; never where the words that the two
differ in hold a number, a negation or an operator. There are no chains. The threshold belongs to an encoder: `calibrations.yaml` holds those that were
measured on labelled pairs (`curate calibrate-dedup`), another encoder needs one in the recipe.

On organic web text semantic removal is neutral to harmful (DCLM, arXiv 2406.11794: below its baseline); it is for instructions and for generated rows.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import models
from curate.algorithms.hashed_ngrams import hashed_ngrams
from curate.algorithms.semantic_pairs import leaders, near_by_cosine
from curate.dedup.copies import Decided, Rows
from curate.dedup.deciding import Corpus, Deciding
from curate.embed.hashed import unit_vectors
from curate.errors import UserMistake
from curate.stage import Inputs

WEIGHT = 0.35  # of the second opinion
DIMENSIONS = 1024  # of hashed n-grams


class Meaning(Deciding):
    """Drops rows that say what another row says; each names the one that stays."""

    threshold: float | None = Field(
        None, gt=0, le=1, description="similarity from which two rows say the same; null: the one measured for the encoder"
    )
    agreement: float = Field(0.4, ge=0, le=1, description="least cosine of hashed character n-grams")
    column: str = "vector"
    within: str | None = Field(
        None, description="a column of groups, `cluster` for one: pairs are looked for inside them; null: among all rows"
    )
    encoder: str | None = Field(None, description="reference of the encoder that made the vectors; filled from embed")

    libraries = ("numpy", "scipy", "scikit-learn", "faiss-cpu")
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate", "drop"})

    def reads(self) -> tuple[str, ...]:
        return (*super().reads(), self.column, *([self.within] if self.within else []))

    def identity(self) -> dict[str, Any]:
        return {"threshold": self.least()}

    def least(self) -> float:
        if self.threshold is not None:
            return self.threshold
        known = calibrations().get(models.identity(self.encoder) if self.encoder else "")
        if known is None:
            raise UserMistake(
                f"semantic_dedup: no threshold was measured for the encoder {self.encoder or '(none named)'}: measure one with `curate calibrate-dedup`, or give semantic_dedup.threshold"
            )
        return float(known["threshold"])

    def found(self, corpus: Corpus, inputs: Inputs) -> Decided:
        parts: list[np.ndarray] = []
        lost: list[np.ndarray] = []
        groups: list[np.ndarray] = []
        start = 0
        for _, table in inputs.tables():
            unit, bad = unit_vectors(table[self.column])
            parts.append(unit)
            lost.append(bad + start)
            if self.within:
                groups.append(table[self.within].combine_chunks().fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64))
            start += table.num_rows
        width = max((part.shape[1] for part in parts), default=1)
        unit = np.concatenate(
            [
                np.zeros((0, width), np.float32),
                *(part if part.shape[1] == width else np.zeros((len(part), width), np.float32) for part in parts),
            ]
        )
        nowhere = np.concatenate([np.zeros(0, np.int64), *lost])

        def texts(wanted: np.ndarray) -> list[str]:
            found: list[str] = []
            start = 0
            for _, table in inputs.tables():
                here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + table.num_rows)]
                found += [text or "" for text in table[self.view].take(pa.array(here - start)).to_pylist()]
                start += table.num_rows
            return found

        return same_meaning(corpus.rows, unit, nowhere, texts, self.least(), self.agreement, np.concatenate(groups) if groups else None)

    def rules(self, found: Decided, own: int, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
        return ["semantic_duplicate"] * len(rows), np.full(len(rows), self.least())


def same_meaning(
    rows: Rows, unit: np.ndarray, nowhere: np.ndarray, texts: Any, least: float, agreement: float, groups: np.ndarray | None = None
) -> Decided:
    """Which rows say what another one says.

    unit, nowhere   unit vectors float32 (n, d), and the rows that have none
    texts           function: rows, ascending -> their texts; None: the embeddings decide alone
    """
    weight = 0.0 if texts is None else WEIGHT
    pairs, cosine = near_by_cosine(unit, (least - weight) / (1 - weight), groups)
    good = ~np.isin(pairs, nowhere).any(axis=1) & ~barred(rows, pairs)
    pairs, alike = pairs[good], cosine[good]
    if texts is not None:
        wanted = np.unique(pairs)
        second = hashed_ngrams(texts(wanted), DIMENSIONS) if len(wanted) else np.zeros((0, 1), np.float32)
        at = np.searchsorted(wanted, pairs)
        letters = np.einsum("md,md->m", second[at[:, 0]].astype(np.float64), second[at[:, 1]])
        alike = (1 - weight) * alike + weight * letters
        alike[letters < agreement] = -1.0
    same = alike >= least - 1e-9
    pairs, alike = pairs[same], alike[same]
    survivor, similarity = leaders(pairs, alike, rows.rank)
    return Decided(survivor, np.zeros(len(rows), bool), similarity, similarity, pairs, alike)


def barred(rows: Rows, pairs: np.ndarray) -> np.ndarray:
    """Pairs that differ in a number, a negation or an operator, whatever their length; a generated row and its family."""
    from curate.dedup.copies import same_family

    return (rows.guard[pairs[:, 0]] != rows.guard[pairs[:, 1]]) | same_family(rows, pairs)


@cache
def calibrations() -> dict[str, dict[str, Any]]:
    """Identity of an encoder -> what was measured for it."""
    import yaml

    return yaml.safe_load((Path(__file__).parent / "calibrations.yaml").read_text(encoding="utf-8")) or {}
