"""Judge of what a language model generated (`origin` rewrite): every check is a column, each failure a verdict.

In the order in which the first failure becomes the verdict:

    generated_refused    the model or its server refused the row
    generated_empty      nothing, or white space
    generated_truncated  it stopped at its length limit (Nemotron-CC, Su et al. 2024, arXiv 2412.02595, drops these too)
    fence_leak           it carries a fence of the prompt, or a model's control marker that the source does not carry
    prompt_leak          it repeats ten words in a row of the prompt file
    meta_phrase          it speaks of itself or of the task: "As an AI", "Here is the rewritten text"
    language_changed     source and output are each surely of a language, and not of the same one
    length_ratio         characters of output per character of source outside the band (RePro holds this to 1.25)
    too_similar          share of its word 5-grams that stand in the source above the ceiling: a copy
    not_similar          cosine of the sets of character 5-grams to the source below the floor: about something else
    disagrees_with_answer  a new response that does not agree with the old one (`agreement`; without it nothing is dropped)

A new text is compared with its source. A new response is compared with the old response in language and length, and
with prompt and old response in similarity; it may quote its prompt, so it is never a copy. A phrase or a marker that
the source itself carries proves nothing and is let pass. Nothing here checks facts, except that a self-distilled answer
(Yang et al. 2024, arXiv 2402.13669) can be held to the given one; a source whose new answer is dropped stays as it is.

Antidote rows change a word or two of their source by design: of them only emptiness is judged here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.generate.prompt import FENCE, MARKERS, PACKAGED, read_prompt
from curate.score.language import identifier
from curate.stage import VERDICT, Stage, TableFunction, verdict_column

_LEAK_WORDS = 10
_COPY_WORDS = 5
# Openings are looked for in the first 200 characters of a new text ("Here is the corrected version" is a good answer to
# a question about a bug); the others anywhere.
_NEW = r"(?:\w+ ){0,4}?(?:rewrit\w+|revis\w+|improved|edited|polished|version|text|draft|passage)"
_OPENINGS = re.compile(
    rf"\b(?:here(?:'s| is| are|’s) (?:the|a|an|my|your) {_NEW}|(?:below|this) is (?:the|a|an|my|your) {_NEW}"
    r"|(?:sure|certainly|of course|absolutely)\s*[!,.:]\s*(?:here|i|below|let|the)\b"
    r"|i(?:'ve| have|’ve) (?:rewritten|revised|edited|improved)"
    r"|(?:rewritten|revised|improved) (?:text|version|draft|passage)\s*:|as requested\b)",
    re.IGNORECASE,
)
_MODEL = r"(?:ai(?: (?:language )?(?:model|assistant|system))?|artificial intelligence|(?:large )?language model)"
_PHRASES = re.compile(
    rf"\b(?:as an? {_MODEL}(?=[,.;]| i )|i(?:'m| am|’m) (?:just |only )?an? {_MODEL}(?=[,.;]| and | that | designed| trained| created)"
    r"|i(?:'m| am|’m) (?:sorry|afraid),? (?:but )?(?:that )?i (?:can(?:no|')?t|can’t|am unable|do not|don't)"
    r"|i (?:cannot|can't|can’t|am unable to|won't|will not) (?:assist|help|fulfil+|comply|rewrite|answer) (?:with|this|that|your|you)"
    r"|my (?:knowledge cutoff|training data)|the (?:draft|text) (?:you (?:provided|shared)|between the (?:fences|markers|lines))"
    r"|system prompt|ignor(?:e|ing) (?:all |the )?(?:above|previous) (?:instructions?|prompt|rubric))",
    re.IGNORECASE,
)

# What a given answer marks as its result, and what is no part of an answer's content.
_NUMBER = re.compile(r"(?<!\w)-?\d[\d,]*(?:\.\d+)?")
_RESULT = re.compile(rf"(?:####|\\boxed\{{|\banswer(?: is|:))\s*\$?\s*({_NUMBER.pattern})", re.IGNORECASE)
_COMMAS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_ARTICLES = {"a", "an", "the"}
_SHORT_ANSWER = 5


class Gate(Stage):
    """Refuses generated rows that are empty, cut off, copied, off the subject or about the task itself.

    Settings: bands and thresholds.

    Defaults for texts: of 3,900 human paraphrases (MRPC) 99 % have similarity >= 0.37, copy <= 0.87 and a length ratio of
    0.65 to 1.53; of unrelated pairs 99 % have similarity <= 0.15 (sentences) and <= 0.25 (halves of pages). For
    responses: of 1,212 pairs of answers by the better models to one prompt 98 % lie within a ratio of 0.13 to 7.8 and 99 %
    have similarity >= 0.03 to the prompt with the other's answer.

    length_ratio            of new texts (methods: 0.3 to 1.5)
    answer_length_ratio     of new responses; judged where both have `answer_length_from` characters
    copy_max                5-gram containment of a new text
    similarity_min          of a new text to its source
    answer_similarity_min   of a new response to prompt and old response; judged from `answer_length_from` characters on
    agreement               least agreement of a new response with the old one (below: `agreement`); None: not asked for.
                            1 keeps only equal answers, of long ones as well; 0.3 asks of them for common ground
    language_words          fewer words are not judged; `language_sure`: probability that both need
    prompts                 folder of the prompt files, for `prompt_leak` (default: the shipped ones)
    """

    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "py3langid", "numpy")
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"prompts"})

    length_ratio: tuple[float, float] = (0.3, 1.5)
    answer_length_ratio: tuple[float, float] = (0.05, 20.0)
    answer_length_from: int = Field(40, ge=1)
    copy_max: float = Field(0.85, gt=0, le=1)
    similarity_min: float = Field(0.25, ge=0, lt=1)
    answer_similarity_min: float = Field(0.02, ge=0, lt=1)
    agreement: float | None = Field(None, gt=0, le=1)
    language_words: int = Field(8, ge=1)
    language_sure: float = Field(0.9, gt=0, lt=1)
    prompts: str | None = None

    def reads(self) -> tuple[str, ...]:
        return ("prompt", "response", "text", "parent_text", "origin", "generator")

    def writes(self) -> pa.Schema:
        return pa.schema(
            [
                ("gate_length_ratio", pa.float32()),
                ("gate_similarity", pa.float32()),
                ("gate_copy", pa.float32()),
                ("gate_language", pa.string()),
                ("gate_agreement", pa.float32()),
                ("verdict", VERDICT),
            ]
        )

    def identity(self) -> dict[str, Any]:
        return {"prompts": [prompt.digest for prompt in _prompt_files(self.prompts)]}

    def load(self, folder: Path) -> TableFunction:
        leaked = {words for prompt in _prompt_files(self.prompts) for words in _runs(prompt.template, _LEAK_WORDS)}
        identify = identifier()

        def language(text: str) -> str | None:
            """Code of the language; None where the text has too few words or is not surely of one."""
            code, sure = identify(text) if len(_words(text)) >= self.language_words else ("", 0.0)
            return code if sure >= self.language_sure else None

        def gate(table: pa.Table) -> pa.Table:
            rows = table.select(self.reads()).to_pylist()
            pairs = [_compared(row) for row in rows]
            similarities = similarity([new for new, _, _ in pairs], [about for _, _, about in pairs])
            checks = [
                self._check(row, *pair, near, leaked, language) for row, pair, near in zip(rows, pairs, similarities.tolist(), strict=True)
            ]
            columns = [pa.array([check[field.name] for check in checks], field.type) for field in list(self.writes())[:-1]]
            failed = [check["failed"] or (None, None, None) for check in checks]
            verdict = verdict_column([f[0] for f in failed], [f[1] for f in failed], [f[2] for f in failed])
            return pa.table([*columns, verdict], schema=self.writes())

        return gate

    def _check(
        self, row: dict[str, Any], new: str, old: str, about: str, near: float, leaked: set[str], language: Callable[[str], str | None]
    ) -> dict[str, Any]:
        """The columns of one row, and its first failure as (rule, value, threshold)."""
        names = ("gate_length_ratio", "gate_similarity", "gate_copy", "gate_language", "gate_agreement", "failed")
        found: dict[str, Any] = dict.fromkeys(names)
        finish = (row["generator"] or "").rpartition(" ")[2]
        if row["origin"] == "rewrite" and finish.startswith("refused_"):
            return {**found, "failed": ("generated_refused", None, None)}
        if not new.strip():
            return {**found, "failed": ("generated_empty", 0.0, None)}
        if row["origin"] != "rewrite":
            return found
        is_answer = row["prompt"] is not None
        band = self.answer_length_ratio if is_answer else self.length_ratio
        floor = self.answer_similarity_min if is_answer else self.similarity_min
        ratio = round(len(new) / len(old), 4) if old.strip() else 1.0
        near, copied = round(near, 4), round(containment(new, about), 4)
        lang, was = language(new), language(old) or language(about)
        agreed = round(agreement(new, old), 4) if is_answer and old.strip() else None
        found.update(zip(names, (ratio if old.strip() else None, near, copied, lang, agreed), strict=False))
        long_enough = not is_answer or len(new) >= self.answer_length_from
        judge_length = old.strip() and (not is_answer or min(len(new), len(old)) >= self.answer_length_from)
        if finish == "length":
            found["failed"] = ("generated_truncated", float(len(new)), None)
        elif set(FENCE.findall(new)) - set(FENCE.findall(about)) or set(MARKERS.findall(new)) - set(MARKERS.findall(about)):
            found["failed"] = ("fence_leak", None, None)
        elif _runs(new, _LEAK_WORDS) & leaked - _runs(about, _LEAK_WORDS):
            found["failed"] = ("prompt_leak", None, None)
        elif _speaks_of_itself(new, about, is_answer):
            found["failed"] = ("meta_phrase", None, None)
        elif lang is not None and was is not None and lang != was:
            found["failed"] = ("language_changed", None, None)
        elif judge_length and not band[0] <= ratio <= band[1]:
            found["failed"] = ("length_ratio", ratio, band[0] if ratio < band[0] else band[1])
        elif not is_answer and copied > self.copy_max:
            found["failed"] = ("too_similar", copied, self.copy_max)
        elif long_enough and near < floor:
            found["failed"] = ("not_similar", near, floor)
        elif self.agreement is not None and agreed is not None and agreed < self.agreement:
            found["failed"] = ("disagrees_with_answer", agreed, self.agreement)
        return found


def _compared(row: dict[str, Any]) -> tuple[str, str, str]:
    """(what was generated, what it stands for, what it has to be about); see the conventions of `rows.py`."""
    parent = row["parent_text"] or ""
    if row["prompt"] is None:
        return row["text"] or "", parent, parent
    new = row["response"] or ""
    return new, parent[len(row["text"] or "") - len(new) :], parent


def _prompt_files(folder: str | None) -> list[Any]:
    home = Path(folder).expanduser() if folder is not None else PACKAGED
    return [read_prompt(path.stem, home) for path in sorted(home.glob("*.txt"))]


def similarity(left: list[str], right: list[str]) -> np.ndarray:
    """Cosine of the sets of character 5-grams (inside words, lower case, hashed), row by row: float64 in [0, 1]; 0 if empty.

    Sets, not counts: with counts of 3-5-grams unrelated long texts reach 0.67, because they share their small words.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    # no signs: with 2^18 slots collisions hardly matter, and the cosine is never negative
    hashed = HashingVectorizer(analyzer="char_wb", ngram_range=(5, 5), n_features=1 << 18, binary=True, alternate_sign=False, norm="l2")
    return np.asarray(hashed.transform(left).multiply(hashed.transform(right)).sum(axis=1)).ravel()


def containment(new: str, source: str, words: int = _COPY_WORDS) -> float:
    """Share of the distinct word n-grams of `new` that stand in `source`; a text of fewer words is one n-gram."""
    mine = _runs(new, min(words, max(len(_words(new)), 1)))
    return len(mine & _runs(source, min(words, max(len(_words(new)), 1)))) / len(mine) if mine else 0.0


def agreement(new: str, given: str) -> float:
    """How far a new answer agrees with a given one, in [0, 1].

    A given answer that marks its result ("#### 18", "\\boxed{18}", "the answer is 18"): 1 where the last number of the new
    one is that number, else 0. One of up to five words: 1 where it stands in the new one (case, punctuation, articles and
    thousands commas aside), else 0. Any other: ROUGE-L F1 (Lin 2004), on words.
    """
    if results := _RESULT.findall(given):
        numbers = _NUMBER.findall(new)
        return float(bool(numbers) and _value(numbers[-1]) == _value(results[-1]))
    mine, theirs = ([word for word in _words(_COMMAS.sub("", text)) if word not in _ARTICLES] for text in (new, given))
    if not theirs:  # symbols, or an article alone
        return float(given.strip().lower() in new.lower())
    if len(theirs) <= _SHORT_ANSWER:
        return float(f" {' '.join(theirs)} " in f" {' '.join(mine)} ")
    return 2 * common_subsequence(mine, theirs) / (len(mine) + len(theirs))


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def common_subsequence(left: list[str], right: list[str]) -> int:
    """Length of the longest common subsequence, by Hyyrö's bit vectors (2004): a step per word of `right`."""
    places: dict[str, int] = {}
    for place, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << place
    row = mask = (1 << len(left)) - 1
    for word in right:
        hits = row & places.get(word, 0)
        row = (row + hits | row - hits) & mask
    return len(left) - row.bit_count()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _runs(text: str, length: int) -> set[str]:
    words = _words(text)
    return {" ".join(words[start : start + length]) for start in range(len(words) - length + 1)}


def _speaks_of_itself(new: str, source: str, is_answer: bool) -> bool:
    lowered = source.lower()
    found = [*(_OPENINGS.findall(new[:200]) if not is_answer else []), *_PHRASES.findall(new)]
    return any(phrase.lower() not in lowered for phrase in found)
