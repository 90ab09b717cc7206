"""Rules of thumb for text: what is plainly not prose, or no answer at all.

Rules and their usual thresholds follow Gopher (Rae et al. 2021, arXiv 2112.11446, section A.1), C4
(Raffel et al. 2020) and FineWeb (Penedo et al. 2024). Every measure is stored, whether or not a rule uses it. A changed
threshold measures the texts again: that needs no model and takes seconds.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
from pydantic import Field

from curate.stage import Stage, TableFunction, verdict_column

WORD = re.compile(r"\w+")
STOP_WORDS = frozenset(
    ["the", "be", "to", "of", "and", "that", "have", "with", "in", "is", "a", "for", "on", "it"]
)  # Gopher's eight, and six as common
BOILERPLATE = (
    "lorem ipsum",
    "javascript is disabled",
    "enable javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
)
BULLETS = ("-", "*", "•", "‣", "●", "◦", "·")
ENDINGS = (".", "!", "?", '"', "'", "”", "’", ":", ";", ")")

MEASURES = (
    "word_count", "mean_word_length", "symbol_word_ratio", "bullet_lines", "ellipsis_lines", "alpha_words", "stop_words",
    "duplicate_lines", "top_trigram", "digit_share", "upper_share", "unfinished_lines", "boilerplate_phrases",
)  # fmt: skip


class Heuristics(Stage):
    """Drops what breaks a rule of thumb. A rule without a threshold is off."""

    empty_response: bool = Field(True, description="drop instruction rows whose response is blank")
    min_words: int | None = None
    max_words: int | None = None
    min_mean_word_length: float | None = None
    max_mean_word_length: float | None = None
    max_symbol_word_ratio: float | None = Field(None, description="'#' and ellipses per word")
    max_bullet_lines: float | None = Field(None, description="share of lines that begin with a bullet")
    max_ellipsis_lines: float | None = Field(None, description="share of lines that end in an ellipsis")
    min_alpha_words: float | None = Field(None, description="share of words with a letter in them")
    min_stop_words: int | None = Field(None, description="how many of 14 English stop words occur")
    max_duplicate_lines: float | None = Field(None, description="share of lines that stand earlier in the text")
    max_top_trigram: float | None = Field(None, description="share of the words covered by the commonest three words in a row")
    max_digit_share: float | None = Field(None, description="share of characters that are digits")
    max_upper_share: float | None = Field(None, description="share of letters that are capitals")
    max_unfinished_lines: float | None = Field(None, description="share of lines that do not end like a sentence (FineWeb)")
    max_boilerplate_phrases: int | None = Field(None, description="'lorem ipsum', 'enable javascript', 'cookie policy' and the like")

    def reads(self) -> tuple[str, ...]:
        return ("text", "prompt", "response")

    def writes(self) -> pa.Schema:
        from curate.stage import VERDICT

        return pa.schema([*((name, pa.float32()) for name in MEASURES), ("verdict", VERDICT)])

    def load(self, folder: Path) -> TableFunction:
        limits = []
        for name, limit in self.model_dump(exclude={"empty_response"}).items():
            side, _, of = name.partition("_")
            if limit is not None:
                limits.append((name, side == "min", MEASURES.index("word_count" if of == "words" else of), float(limit)))
        # "too_few_words", "mean_word_length_low": the rule says which side was broken
        rule_names = {name: f"{MEASURES[index]}_{'low' if low else 'high'}" for name, low, index, _ in limits}

        def apply(table: pa.Table) -> pa.Table:
            rows = [measure(text) for text in table["text"].to_pylist()]
            rules: list[str | None] = []
            values: list[float | None] = []
            thresholds: list[float | None] = []
            prompts, responses = table["prompt"].to_pylist(), table["response"].to_pylist()
            for prompt, response, row in zip(prompts, responses, rows, strict=True):
                found: tuple[str | None, float | None, float | None] = (None, None, None)
                if self.empty_response and prompt is not None and not (response or "").strip():
                    found = ("empty_response", 0.0, 1.0)
                else:
                    for name, low, index, limit in limits:
                        if (row[index] < limit) if low else (row[index] > limit):
                            found = (rule_names[name], round(row[index], 4), limit)
                            break
                rules.append(found[0])
                values.append(found[1])
                thresholds.append(found[2])
            columns = {name: pa.array([row[index] for row in rows], pa.float32()) for index, name in enumerate(MEASURES)}
            return pa.table({**columns, "verdict": verdict_column(rules, values, thresholds)})

        return apply


def measure(text: str) -> tuple[float, ...]:
    """The measures of one text, in the order of MEASURES; shares are in [0, 1], 0 where there is nothing to share."""
    words = WORD.findall(text)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    lower = text.lower()
    tokens = lower.split()
    letters = sum(map(str.isalpha, text))
    trigrams = Counter(zip(tokens, tokens[1:], tokens[2:], strict=False))
    top = max(trigrams.values()) if trigrams else 0
    return (
        float(len(words)),
        sum(map(len, words)) / max(len(words), 1),
        (text.count("#") + text.count("...") + text.count("…")) / max(len(words), 1),
        sum(line.startswith(BULLETS) for line in lines) / max(len(lines), 1),
        sum(line.endswith(("...", "…")) for line in lines) / max(len(lines), 1),
        sum(any(map(str.isalpha, word)) for word in words) / max(len(words), 1),
        float(len(STOP_WORDS.intersection(tokens))),
        (len(lines) - len(set(lines))) / max(len(lines), 1),
        3 * top / max(len(tokens), 1) if top > 1 else 0.0,
        sum(map(str.isdigit, text)) / max(len(text), 1),
        sum(map(str.isupper, text)) / max(letters, 1),
        sum(not line.endswith(ENDINGS) for line in lines) / max(len(lines), 1),
        float(sum(phrase in lower for phrase in BOILERPLATE)),
    )
