"""Exact and near duplicates: every pair that reaches the threshold, exactly; every dropped row with its twin.

Texts equal after normalisation are exact duplicates. For the rest: shingles, an exact set join (`algorithms/set_join.py`), and sets of rows over
the pairs at or above the threshold. Where there are many rows, ranges of the hashes are tasks of their own (`ranges.py`). Who survives: `deciding.py`. Texts shorter than a shingle are compared by exact match only. Under 50 words a pair is
never joined when the words it differs in hold a number or a negation, and rows with a response only where the responses agree: most pairs of instruction
rows that are alike as texts ask different questions about one long passage. Rows of `against` stay in any case and are not copied into the run.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from curate.algorithms.set_join import Measure
from curate.dedup.copies import Decided, decide
from curate.dedup.deciding import Corpus, Deciding, Shingles, responses_agree
from curate.dedup.known import Known
from curate.dedup.ranges import OverWorkers
from curate.stage import FitEngine, Inputs


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

    def found(self, corpus: Corpus, inputs: Inputs, engine: FitEngine) -> Decided:
        asks, least = self._asks_answers(), self.threshold
        agree = (lambda pairs: responses_agree(pairs, corpus.own, corpus.responses, inputs, least)) if asks else None
        spread = OverWorkers(corpus, inputs, engine, least, self.measure, asks)
        return decide(corpus.rows, corpus.sets, least, self.measure, self.exact_only, agree, spread)

    def rules(self, found: Decided, own: int, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
        exact, known = found.exact[rows], found.survivor[rows] >= own
        names = [
            f"{'exact' if same else 'near'}_duplicate{'_of_known' if theirs else ''}"
            for same, theirs in zip(exact.tolist(), known.tolist(), strict=True)
        ]
        return names, np.where(exact, 1.0, self.threshold)
