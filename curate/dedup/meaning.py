"""Semantic duplicates: rows that say the same in other words, by embeddings with a second opinion by letters.

    alike = .65 cosine of the embeddings + .35 cosine of hashed character n-grams  (algorithms/semantic_pairs.py)

A row falls to the surviving row that is most like it, from `threshold` on, if the second opinion alone reaches `agreement`; never where the words that the two
differ in hold a number, a negation or an operator, nor where both have a response and the responses differ. There are no chains. The threshold belongs to an encoder: `calibrations.yaml` holds those that were
measured on labelled pairs (`curate calibrate-dedup`), another encoder needs one in the recipe.

On organic web text semantic removal is neutral to harmful (DCLM, arXiv 2406.11794: below its baseline); it is for instructions and for generated rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import models
from curate.algorithms.hashed_ngrams import hashed_ngrams
from curate.algorithms.semantic_pairs import leaders, near_by_cosine
from curate.dedup.copies import Decided, Rows
from curate.dedup.deciding import Corpus, Deciding, responses_agree, texts_of
from curate.embed.hashed import unit_vectors
from curate.errors import UserMistake
from curate.stage import FitEngine, Inputs

WEIGHT = 0.35  # of the second opinion
DIMENSIONS = 1024  # of hashed n-grams
ANSWERS = 0.5  # Jaccard of the words of two responses that agree


class Meaning(Deciding):
    """Drops rows that say what another row says; each names the one that stays."""

    threshold: float | None = Field(
        None, gt=0, le=1, description="similarity from which two rows say the same; null: the one measured for the encoder"
    )
    agreement: float = Field(0.4, ge=0, le=1, description="least cosine of hashed character n-grams")
    answers: Literal["agree", "ignored"] = Field(
        "agree",
        description="rows with a response say the same only where half of the words of their responses are the same; ignored: whatever they are",
    )
    column: str = "vector"
    within: str | None = Field(
        None, description="a column of groups, `cluster` for one: pairs are looked for inside them; null: among all rows"
    )
    encoder: str | None = Field(None, description="reference of the encoder that made the vectors; filled from embed")

    libraries = ("numpy", "scipy", "scikit-learn", "faiss-cpu")
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate", "drop"})

    def reads_if_present(self) -> tuple[str, ...]:
        return (*super().reads_if_present(), *(["response"] if self.answers == "agree" else []))

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

    def found(self, corpus: Corpus, inputs: Inputs, engine: FitEngine) -> Decided:
        parts: list[np.ndarray] = []
        lost: list[np.ndarray] = []
        groups: list[str] = []
        start = 0
        for _, table in inputs.tables():
            if not pa.types.is_list(kind := table.schema.field(self.column).type) and not pa.types.is_fixed_size_list(kind):
                raise UserMistake(f"semantic_dedup: column '{self.column}' is {kind}: name a column of vectors, as `vector`")
            unit, bad = unit_vectors(table[self.column])
            parts.append(unit)
            lost.append(bad + start)
            if self.within:
                groups += [str(group) for group in table[self.within].to_pylist()]
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
                found += [text or "" for text in texts_of(table.take(pa.array(here - start)), self.view)]
                start += table.num_rows
            return found

        within = np.unique(groups, return_inverse=True)[1] if self.within else None
        asks = self.answers == "agree"
        agree = (lambda pairs: responses_agree(pairs, corpus.own, corpus.responses, inputs, ANSWERS)) if asks else None
        return same_meaning(corpus.rows, unit, nowhere, texts, self.least(), self.agreement, within, agree)

    def rules(self, found: Decided, own: int, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
        return ["semantic_duplicate"] * len(rows), np.full(len(rows), self.least())


def same_meaning(
    rows: Rows,
    unit: np.ndarray,
    nowhere: np.ndarray,
    texts: Callable[[np.ndarray], list[str]] | None,
    least: float,
    agreement: float,
    groups: np.ndarray | None = None,
    agree: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Decided:
    """Which rows say what another one says.

    unit, nowhere   unit vectors float32 (n, d), and the rows that have none
    texts           function: rows, ascending -> their texts; None: the embeddings decide alone
    agree           function: pairs (m, 2) -> bool (m,), which pairs may be joined

    Rows are compared with their nearest others, and what is left again, until nothing falls: of a thousand rows that say the same one stays.
    """
    weight = 0.0 if texts is None else WEIGHT

    def alike(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(similarity, the letters' part) of pairs, float64 both."""
        cosine = np.einsum("md,md->m", unit[pairs[:, 0]].astype(np.float64), unit[pairs[:, 1]])
        if texts is None:
            return cosine, np.ones(len(pairs))
        wanted = np.unique(pairs)
        second = hashed_ngrams(texts(wanted), DIMENSIONS) if len(wanted) else np.zeros((0, 1), np.float32)
        at = np.searchsorted(wanted, pairs)
        letters = np.einsum("md,md->m", second[at[:, 0]].astype(np.float64), second[at[:, 1]])
        return (1 - weight) * cosine + weight * letters, letters

    survivor = np.arange(len(rows))
    found, similarities = [np.empty((0, 2), np.int64)], [np.empty(0)]
    left = np.argsort(rows.rank, kind="stable")
    left = left[~np.isin(left, nowhere)]
    while True:
        local, _ = near_by_cosine(unit[left], (least - weight) / (1 - weight) - 1e-6, None if groups is None else groups[left])
        good = ~barred(rows, left[local])
        local = local[good]
        value, letters = alike(left[local])
        good = (value >= least - 1e-9) & (letters >= agreement)
        if agree is not None and good.any():
            good[good] = agree(left[local[good]])
        local, value = local[good], value[good]
        found.append(np.sort(left[local], axis=1))
        similarities.append(value)
        top, _ = leaders(local, value, np.arange(len(left)))
        falls = top != np.arange(len(left))
        survivor[left[falls]] = left[top[falls]]
        if not falls.any():
            break
        left = left[~falls]
    while (survivor[survivor] != survivor).any():  # who fell in an earlier round to a row that fell since
        survivor = survivor[survivor]
    similarity = np.full(len(rows), np.nan)
    gone = np.flatnonzero(survivor != np.arange(len(rows)))
    if len(gone):
        similarity[gone] = alike(np.stack([gone, survivor[gone]], axis=1))[0]
    return Decided(survivor, np.zeros(len(rows), bool), similarity, similarity, np.concatenate(found), np.concatenate(similarities))


def barred(rows: Rows, pairs: np.ndarray) -> np.ndarray:
    """Pairs that differ in a number, a negation or an operator, whatever their length; a generated row and its family."""
    from curate.dedup.copies import same_family

    return (rows.guard[pairs[:, 0]] != rows.guard[pairs[:, 1]]) | same_family(rows, pairs)


@cache
def calibrations() -> dict[str, dict[str, Any]]:
    """Identity of an encoder -> what was measured for it."""
    import yaml

    return yaml.safe_load((Path(__file__).parent / "calibrations.yaml").read_text(encoding="utf-8")) or {}
