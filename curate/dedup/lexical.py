"""Exact and near duplicates: every pair that reaches the threshold, exactly; every dropped row with its twin.

Texts equal after normalisation are exact duplicates. For the rest: shingles, an exact set join (`algorithms/set_join.py`), and sets of rows over
the pairs at or above the threshold. Who survives: `deciding.py`. Texts shorter than a shingle are compared by exact match only. Under 50 words a pair is
never joined when the words it differs in hold a number or a negation, and rows with a response only where the responses agree: most pairs of instruction
rows that are alike as texts ask different questions about one long passage. Rows of `against` stay in any case and are not copied into the run.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.algorithms.set_join import Measure, similarity
from curate.dedup.copies import SHORT, Decided, decide, marks
from curate.dedup.deciding import Corpus, Deciding, Shingles
from curate.dedup.known import Known
from curate.stage import Inputs


class Lexical(Deciding):
    """Drops exact and near duplicates; one row of each set survives, the others name it."""

    threshold: float = Field(0.8, gt=0, le=1, description="similarity of shingle sets from which two rows are duplicates")
    of: Literal["words", "tokens", "characters", "lines", "paragraphs"] = Field(
        "words", description="what a shingle is made of; tokens are words and symbols, lines and paragraphs are taken one at a time"
    )
    shingle: int = Field(5, ge=1, description="words, tokens or characters in a row")
    measure: Measure = Field("jaccard", description="jaccard, or containment: the share of the smaller row that is in the other")
    exact_only: bool = False
    answers: Literal["agree", "ignored"] = Field(
        "agree",
        description="rows with a response are near duplicates only where the responses hold the same words, as far as threshold asks; ignored: whatever they are",
    )
    against: tuple[str, ...] = Field((), description="datasets or runs whose rows stay: what is in them is a duplicate")

    libraries = ("numpy", "scipy")
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "drop"})

    def reads_if_present(self) -> tuple[str, ...]:
        return (*super().reads_if_present(), *(["response"] if self._asks_answers() else []))

    def _asks_answers(self) -> bool:
        return self.answers == "agree" and self.view == "text"

    def shingles(self) -> Shingles:
        return Shingles(view=self.view, of=self.of, shingle=self.shingle)

    def known(self) -> list[Known]:
        return [Known(place, self.view) for place in self.against]

    def identity(self) -> dict[str, Any]:
        return {"against": [known.digest() for known in self.known()]} if self.against else {}

    def found(self, corpus: Corpus, inputs: Inputs) -> Decided:
        agree = (lambda pairs: self._agree(pairs, inputs)) if self._asks_answers() else None
        return decide(corpus.rows, corpus.sets, self.threshold, self.measure, self.exact_only, agree)

    def _agree(self, pairs: np.ndarray, inputs: Inputs) -> np.ndarray:
        """Which pairs do not have two different responses, bool (m,)."""
        wanted = np.unique(pairs)
        responses: list[str | None] = []
        start = 0
        for _, table in inputs.tables():
            here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + table.num_rows)] - start
            responses += table["response"].take(pa.array(here)).to_pylist() if "response" in table.column_names else [None] * len(here)
            start += table.num_rows
        responses += [None] * (len(wanted) - len(responses))  # of another dataset
        there = np.array([response is not None for response in responses], bool)
        found = marks(responses, "words", 1)
        left, right = np.searchsorted(wanted, pairs).T
        sizes = found.sets.sizes
        alike = similarity(found.sets.shared(np.stack([left, right], axis=1)), sizes[left], sizes[right]) >= self.threshold - 1e-9
        alike &= (np.minimum(found.words[left], found.words[right]) >= SHORT) | (found.guard[left] == found.guard[right])
        same = (found.key[left] == found.key[right]).all(axis=1)
        return ~there[left] | ~there[right] | same | alike

    def rules(self, found: Decided, own: int, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
        exact, known = found.exact[rows], found.survivor[rows] >= own
        names = [
            f"{'exact' if same else 'near'}_duplicate{'_of_known' if theirs else ''}"
            for same, theirs in zip(exact.tolist(), known.tolist(), strict=True)
        ]
        return names, np.where(exact, 1.0, self.threshold)
