"""Rules of thumb for text: what is plainly not prose, or no answer at all.

Rules and thresholds are those of Gopher (Rae et al. 2021, arXiv 2112.11446, section A.1), C4 (Raffel et al. 2020) and FineWeb (Penedo et al. 2024,
arXiv 2406.17557); what each measures: `algorithms/text_measures.py`. Every measure is stored, whether or not a rule uses it. A changed threshold measures
the texts again: that needs no model and takes seconds.

Of text that a classifier calls good, such rules drop a fifth (Nemotron-CC, arXiv 2412.02595, where they are applied to low-quality text alone): see `when`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.algorithms import text_measures
from curate.byte_blocks import byte_blocks
from curate.select._bounds import Bound, bound_verdicts, bounded_columns
from curate.stage import VERDICT, Stage, TableFunction, verdict_column

# Phrases of pages, not of texts. C4 drops the lines that hold one.
BOILERPLATE = (
    "lorem ipsum",
    "javascript is disabled",
    "enable javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
MEASURES = (*text_measures.NAMES, "boilerplate_phrases")

# Published thresholds, by setting.
SETS: dict[str, dict[str, float]] = {
    "gopher": {
        "min_word_count": 50, "max_word_count": 100_000, "min_mean_word_length": 3, "max_mean_word_length": 10, "max_hash_words": 0.1,
        "max_ellipsis_words": 0.1, "max_bullet_lines": 0.9, "max_ellipsis_lines": 0.3, "min_alpha_words": 0.8, "min_stop_words": 2,
    },
    "gopher_repetition": {
        "max_duplicate_lines": 0.3, "max_duplicate_paragraphs": 0.3, "max_duplicate_line_chars": 0.2, "max_duplicate_paragraph_chars": 0.2,
        "max_top_2gram": 0.2, "max_top_3gram": 0.18, "max_top_4gram": 0.16, "max_duplicate_5gram": 0.15, "max_duplicate_6gram": 0.14,
        "max_duplicate_7gram": 0.13, "max_duplicate_8gram": 0.12, "max_duplicate_9gram": 0.11, "max_duplicate_10gram": 0.1,
    },
    "c4": {"max_curly_brackets": 0, "max_boilerplate_phrases": 0},
    "fineweb": {"max_unfinished_lines": 0.88, "max_short_lines": 0.67, "max_duplicate_line_chars": 0.01, "max_line_breaks": 0.3},
}  # fmt: skip


class Heuristics(Stage):
    """Drops what breaks a rule of thumb. A rule without a threshold is off; a rule's name says which side was broken: word_count_low.

    rules  sets of published thresholds, the first one that names a rule decides; a threshold of the recipe's own goes before them
    when   column: bound. Rows that break a bound are measured and not judged: {filter_bin: {max: 9}} judges only rows that a filter finds bad
    """

    empty_response: bool = Field(True, description="drop instruction rows whose response is blank")
    rules: tuple[Literal["gopher", "gopher_repetition", "c4", "fineweb"], ...] = ()
    when: dict[str, Bound] = Field({}, description="column -> bound: rows within it are judged")
    min_word_count: float | None = Field(None, description="words that are no punctuation marks")
    max_word_count: float | None = None
    min_mean_word_length: float | None = None
    max_mean_word_length: float | None = None
    max_hash_words: float | None = Field(None, description="'#' per word")
    max_ellipsis_words: float | None = Field(None, description="ellipses per word")
    min_alpha_words: float | None = Field(None, description="share of words with a letter in them")
    min_stop_words: float | None = Field(None, description="how many of eight English stop words occur")
    max_bullet_lines: float | None = Field(None, description="share of lines that begin with a bullet")
    max_ellipsis_lines: float | None = Field(None, description="share of lines that end in an ellipsis")
    max_unfinished_lines: float | None = Field(None, description="share of lines that do not end like a sentence")
    max_short_lines: float | None = Field(None, description="share of lines of at most 30 characters")
    max_line_breaks: float | None = Field(None, description="line breaks per word")
    max_duplicate_lines: float | None = Field(None, description="share of lines that stand earlier in the text")
    max_duplicate_line_chars: float | None = Field(None, description="share of the text in such lines")
    max_duplicate_paragraphs: float | None = None
    max_duplicate_paragraph_chars: float | None = None
    max_top_2gram: float | None = Field(None, description="share of the text in the commonest two words in a row")
    max_top_3gram: float | None = None
    max_top_4gram: float | None = None
    max_duplicate_5gram: float | None = Field(None, description="share of the text in five words in a row that stand earlier")
    max_duplicate_6gram: float | None = None
    max_duplicate_7gram: float | None = None
    max_duplicate_8gram: float | None = None
    max_duplicate_9gram: float | None = None
    max_duplicate_10gram: float | None = None
    max_digits: float | None = Field(None, description="share of characters that are digits")
    max_capitals: float | None = Field(None, description="share of letters that are capitals")
    max_curly_brackets: float | None = None
    max_boilerplate_phrases: float | None = Field(None, description="'lorem ipsum', 'enable javascript', 'cookie policy' and the like")

    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("text", "prompt", "response", *bounded_columns(self.when))))

    def writes(self) -> pa.Schema:
        return pa.schema([*((name, pa.float32()) for name in MEASURES), ("verdict", VERDICT)])

    def limits(self) -> list[tuple[str, str, float]]:
        """(side, measure, threshold) of every rule that is on, in the order of the settings."""
        asked = {name: value for name, value in self.model_dump().items() if name[:4] in ("min_", "max_") and value is not None}
        for name in self.rules:
            asked = {**SETS[name], **asked}
        order = [name for name in type(self).model_fields if name in asked]
        return [(name[:3], name[4:], float(asked[name])) for name in order]

    def load(self, folder: Path) -> TableFunction:
        limits = self.limits()

        def judge(table: pa.Table) -> pa.Table:
            found = measures(table.column("text"))
            rows = table.num_rows
            rule, value, threshold = np.full(rows, "", object), np.full(rows, np.nan), np.full(rows, np.nan)
            judged = np.asarray(bound_verdicts(self.when, table).is_null()) if self.when else np.ones(rows, bool)

            def say(broken: np.ndarray, name: str, seen: np.ndarray, limit: float) -> None:
                now = broken & (rule == "")
                rule[now], value[now], threshold[now] = name, seen[now], limit

            if self.empty_response:
                blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(table.column("response"), "")), "")
                empty = pc.and_(pc.is_valid(table.column("prompt")), blank).to_numpy(zero_copy_only=False)
                say(empty, "empty_response", np.zeros(rows), 1.0)
            for side, name, limit in limits:
                seen = np.round(found[name], 4)
                say(judged & (seen < limit if side == "min" else seen > limit), f"{name}_{'low' if side == 'min' else 'high'}", seen, limit)
            off = rule == ""
            verdict = verdict_column(
                pa.array(rule, pa.string(), mask=off), pa.array(value, mask=off), pa.array(threshold, mask=off)
            )  # fmt: skip
            return pa.table({**{name: pa.array(values.astype(np.float32)) for name, values in found.items()}, "verdict": verdict})

        return judge


def measures(texts: pa.Array | pa.ChunkedArray) -> dict[str, np.ndarray]:
    """{name: float64 (rows,)}, in the order of MEASURES."""
    parts = [text_measures.measure(*block) for block in byte_blocks(texts, fold=False)]
    found = {name: np.concatenate([np.zeros(0), *(part[name] for part in parts)]) for name in text_measures.NAMES}
    lower = pc.fill_null(pc.utf8_lower(texts), "")
    phrases = sum(pc.match_substring(lower, phrase).to_numpy(zero_copy_only=False).astype(np.float64) for phrase in BOILERPLATE)
    return {**found, "boilerplate_phrases": np.asarray(phrases)}
