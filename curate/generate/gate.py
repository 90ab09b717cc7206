"""Judge of what a language model generated (`origin` rewrite): every check is a column, each failure a verdict.

In the order in which the first failure becomes the verdict:

    generated_refused    the model or its server refused the row
    generated_empty      nothing, or white space
    generated_truncated  it stopped at its length limit (Nemotron-CC, Su et al. 2024, arXiv 2412.02595, drops these too)
    fence_leak           it carries a fence of the prompt, or a model's control marker that the source does not carry
    prompt_leak          it repeats ten words in a row of the prompt file
    meta_phrase          it speaks of itself or of the task: "As an AI", "Here is the rewritten text"
    injection            it says what only an order to the model in the source says (`injection.py`)
    unquoted             it says as its own what the source only quotes
    not_parsed           it has not the form that the task asks for (`forms.py`)
    language_changed     source and output are each surely of a language, and not of the same one
    length_ratio         characters of output per character of source outside the band (RePro holds this to 1.25)
    too_similar          share of its word 5-grams that stand in the source above the ceiling: a copy
    not_similar          cosine of the sets of character 5-grams to the source below the floor: about something else
    new_link, new_number, new_name    it states one that the source does not (`algorithms/stated_facts.py`)
    lost_number, lost_name            it leaves one out that the source states in a sentence (tasks that keep all facts)
    quality_not_gained   its score is not better than its source's by `quality_gain` (without that nothing is dropped)
    disagrees_with_answer  a new response that does not agree with the old one (`agreement`; without it nothing is dropped)

A new text is compared with its source. A new response is compared with the old response in language and length, and
with prompt and old response in similarity; it may quote its prompt, so it is never a copy. A phrase that the source itself carries
proves nothing and is let pass, and so is a marker that it quotes. Of facts, names and numbers are checked, and a self-distilled
answer (Yang et al. 2024, arXiv 2402.13669) can be held to the given one: an invented claim without a name passes. A source
whose new row is dropped stays as it is.

Antidote rows change a word or two of their source by design: of them only emptiness is judged here.
"""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate.algorithms import stated_facts
from curate.errors import UserMistake
from curate.generate.forms import parsed
from curate.generate.injection import has_orders, said_as_own, seen_as, without_orders
from curate.generate.lexicon import read_lexicons
from curate.generate.prompt import FENCE, MARKERS, Prompt, prompts_folder, read_prompt
from curate.generate.rows import draw
from curate.score.language import identifier
from curate.stage import VERDICT, FitEngine, Inputs, Stage, TableFunction, verdict_column

_LEAK_WORDS = 10
_FEW_ROWS = 1000  # of fewer rows a word seen in one counts as well
_FEW_WORDS = 2000  # fewer known words tell nothing about an unknown one
_COPY_WORDS = 5
_CAPITAL_NOUNS = ("de", "lb")
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
    r"|same as the (?:original|given|input) text|this (?:text|message) is not to be (?:edited|rewritten|changed)"
    r"|my (?:knowledge cutoff|training data)|the (?:draft|text) (?:you (?:provided|shared)|between the (?:fences|markers|lines))"
    r"|system prompt|ignor(?:e|ing) (?:all |the )?(?:above|previous) (?:instructions?|prompt|rubric))",
    re.IGNORECASE,
)

_LINK = re.compile(
    r"\b(?:https?://|www\.)[^\s\"'<>)\]]+|\b[\w.+-]+@[\w-]+\.[\w.-]+|\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|io|info|biz|co|ru|cn|example|test)\b(?:/\S*)?",
    re.IGNORECASE,
)

# What a given answer marks as its result, and what is no part of an answer's content.
_NUMBER = re.compile(r"(?<!\w)-?\d[\d,]*(?:\.\d+)?")
_RESULT = re.compile(rf"(?:####|\\boxed\{{|\banswer(?: is|:))\s*\$?\s*({_NUMBER.pattern})", re.IGNORECASE)
_COMMAS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_ARTICLES = {"a", "an", "the"}
_SHORT_ANSWER = 5


class Gate(Stage):
    """Refuses generated rows that are empty, cut off, copied, off the subject, about the task itself, or that state other facts.

    Settings: bands and thresholds. What is None is as the task's prompt file says, else as given here in brackets.

    Defaults for texts: of 3,900 human paraphrases (MRPC) 99 % have similarity >= 0.37, copy <= 0.87 and a length ratio of
    0.65 to 1.53; of unrelated pairs 99 % have similarity <= 0.15 (sentences) and <= 0.25 (halves of pages). For
    responses: of 1,212 pairs of answers by the better models to one prompt 98 % lie within a ratio of 0.13 to 7.8 and 99 %
    have similarity >= 0.03 to the prompt with the other's answer.

    length_ratio            of new texts and prompts [0.3 to 1.5]
    answer_length_ratio     of new responses; judged where both have `answer_length_from` characters
    copy_max                5-gram containment of a new text [0.85]
    similarity_min          of a new text to its source [0.25]
    answer_similarity_min   of a new response to prompt and old response; judged from `answer_length_from` characters on
    facts                   all: none new, none lost; subset: none new; free [new text: subset, response: free, prompt: all]
    agreement               least agreement of a new response with the old one (below: `agreement`); None: not asked for.
                            1 keeps only equal answers, of long ones as well; 0.3 asks of them for common ground
    language_words          fewer words are not judged; `language_sure`: probability that both need
    prompts                 folder of the prompt files (default: the shipped ones)
    quality, quality_gain   score column, higher is better, and the least change of it from source to output; None: not asked for
                            (for synthetic text the change foretells a model's gain better than the score: FinePhrase 2026)
    truecase_rows           raw rows, the lowest by a hash of (seed, row_id), that tell which words are written small
    """

    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "py3langid", "numpy")
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"prompts"})

    length_ratio: tuple[float, float] | None = None
    answer_length_ratio: tuple[float, float] = (0.05, 20.0)
    answer_length_from: int = Field(40, ge=1)
    copy_max: float | None = Field(None, gt=0, le=1)
    similarity_min: float | None = Field(None, ge=0, lt=1)
    answer_similarity_min: float = Field(0.02, ge=0, lt=1)
    facts: Literal["all", "subset", "free"] | None = None
    agreement: float | None = Field(None, gt=0, le=1)
    language_words: int = Field(8, ge=1)
    language_sure: float = Field(0.9, gt=0, lt=1)
    quality: str | None = None
    quality_gain: float | None = None
    prompts: str | None = None
    truecase_rows: int = Field(20_000, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _gain_of_something(self) -> Gate:
        if self.quality_gain is not None and self.quality is None:
            raise ValueError("quality_gain is the least change of a score: name its column, for example `quality: filter_score`")
        return self

    def reads(self) -> tuple[str, ...]:
        return ("row_id", "prompt", "response", "text", *(("shard", "position", self.quality) if self.quality else ()))

    def reads_if_present(self) -> tuple[str, ...]:
        return ("parent_text", "parent_at", "origin", "generator")

    def writes(self) -> pa.Schema:
        return pa.schema(
            [
                ("gate_length_ratio", pa.float32()),
                ("gate_similarity", pa.float32()),
                ("gate_copy", pa.float32()),
                ("gate_language", pa.string()),
                ("gate_agreement", pa.float32()),
                ("gate_new_facts", pa.list_(pa.string())),
                ("gate_lost_facts", pa.list_(pa.string())),
                ("gate_quality_change", pa.float32()),
                ("verdict", VERDICT),
            ]
        )

    def identity(self) -> dict[str, Any]:
        return {"prompts": [[prompt.name, prompt.digest, prompt.rules.model_dump()] for prompt in _prompt_files(self.prompts)]}

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """The words that raw rows write in small letters: a sentence that begins with another word begins with a name."""
        lowest: list[float] = []
        for _, table in inputs.tables():
            for row in _raw(table):
                place = -draw(self.seed, "truecase", row["row_id"])
                if len(lowest) < self.truecase_rows:
                    heapq.heappush(lowest, place)
                elif lowest:
                    heapq.heappushpop(lowest, place)
        bound, words = (-lowest[0] if lowest else -1.0), Counter[str]()
        for _, table in inputs.tables():
            for row in _raw(table):
                if draw(self.seed, "truecase", row["row_id"]) <= bound:
                    words.update(set(stated_facts.small_words(row["text"])))
        folder.mkdir(parents=True, exist_ok=True)
        common = sorted(word for word, rows in words.items() if rows > 1 or len(lowest) < _FEW_ROWS)
        (folder / "small_words.txt").write_text("\n".join(common), encoding="utf-8")
        (folder / "parents.json").write_text(json.dumps(self._scores_of_parents(inputs), sort_keys=True), encoding="utf-8")

    def _scores_of_parents(self, inputs: Inputs) -> dict[str, float]:
        """{"shard:position": score} of every source of a generated row that has one."""
        if self.quality is None:
            return {}
        wanted: dict[str, set[int]] = {}
        for _, table in inputs.tables():
            for place in table.column("parent_at").to_pylist() if "parent_at" in table.column_names else ():
                if place is not None:
                    shard, _, position = place.rpartition(":")
                    wanted.setdefault(shard, set()).add(int(position))
        found: dict[str, float] = {}
        for shard in sorted(wanted.keys() & set(inputs.shards)):
            table = inputs.table(shard)
            scores = table.column(self.quality).to_pylist()
            for position, score in zip(table.column("position").to_pylist(), scores, strict=True):
                if position in wanted[shard] and score is not None:
                    found[f"{shard}:{position}"] = score
        return found

    def load(self, folder: Path) -> TableFunction:
        words = (folder / "small_words.txt").read_text(encoding="utf-8").split("\n")
        judge = Judge(self, frozenset(words), json.loads((folder / "parents.json").read_text(encoding="utf-8")))

        def gate(table: pa.Table) -> pa.Table:
            columns = [name for name in (*self.reads(), *self.reads_if_present()) if name in table.column_names]
            rows = table.select(columns).to_pylist()
            if "origin" not in table.column_names:
                return pa.table([pa.nulls(len(rows), field.type) for field in self.writes()], schema=self.writes())
            checks = judge(rows)
            made = [pa.array([check[field.name] for check in checks], field.type) for field in list(self.writes())[:-1]]
            failed = [check["failed"] or (None, None, None) for check in checks]
            verdict = verdict_column([f[0] for f in failed], [f[1] for f in failed], [f[2] for f in failed])
            return pa.table([*made, verdict], schema=self.writes())

        return gate


class Judge:
    """The checks, with what they hold a row against."""

    def __init__(self, gate: Gate, small_words: frozenset[str], parents: dict[str, float]):
        self.parents = parents
        self.gate, self.small = gate, small_words if len(small_words) >= _FEW_WORDS else None
        self.tasks = {prompt.name: prompt for prompt in _prompt_files(gate.prompts)}
        self.leaks = {words for prompt in self.tasks.values() for words in _runs(f"{prompt.system} {prompt.template}", _LEAK_WORDS)}
        self.first_names = read_lexicons(("gender",), None)[0].names
        self.identify = identifier()

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Of each row its columns, and under `failed` its first failure as (rule, value, threshold) or None."""
        tasks = [self._task(row) for row in rows]
        pairs = [_compared(row, task) for row, task in zip(rows, tasks, strict=True)]
        near = similarity([new for new, _, _ in pairs], [about for _, _, about in pairs])
        return [self._check(*given) for given in zip(rows, tasks, pairs, near.tolist(), strict=True)]

    def _task(self, row: dict[str, Any]) -> Prompt | None:
        """The prompt file that a rewritten row was made by."""
        if row["origin"] != "rewrite":
            return None
        name = (row["generator"] or "").split(" ")[0]
        if name not in self.tasks:
            raise UserMistake(
                f"the gate does not know the task '{name}': there is no {name}.txt in {prompts_folder(self.gate.prompts)}; set gate.prompts to the folder that rewrite.prompts names"
            )
        return self.tasks[name]

    def language(self, text: str) -> str | None:
        """Code of the language; None where the text has too few words or is not surely of one."""
        code, sure = self.identify(text) if len(_words(text)) >= self.gate.language_words else ("", 0.0)
        return code if sure >= self.gate.language_sure else None

    def _check(self, row: dict[str, Any], task: Prompt | None, pair: tuple[str, str, str], near: float) -> dict[str, Any]:
        gate, (new, old, about) = self.gate, pair
        found: dict[str, Any] = dict.fromkeys((*gate.writes().names[:-1], "failed"))
        finish = (row["generator"] or "").rpartition(" ")[2]
        if row["origin"] is None:
            return found
        if task is not None and finish.startswith("refused_"):
            return {**found, "failed": ("generated_refused", None, None)}
        if not new.strip():
            return {**found, "failed": ("generated_empty", 0.0, None)}
        if task is None:
            return found
        is_answer, rules = task.makes == "response", task.rules
        band = gate.answer_length_ratio if is_answer else gate.length_ratio or rules.length_ratio or (0.3, 1.5)
        floor = gate.answer_similarity_min if is_answer else _first(gate.similarity_min, rules.similarity_min, 0.25)
        copies = _first(gate.copy_max, rules.copy_max, 0.85)
        kept = gate.facts or rules.facts or {"text": "subset", "response": "free", "prompt": "all"}[task.makes]
        ratio = round(len(new) / len(old), 4) if old.strip() else 1.0
        near, copied = round(near, 4), round(containment(new, about), 4)
        lang, was = self.language(new), self.language(old) or self.language(about)
        agreed = round(agreement(new, old), 4) if is_answer and old.strip() else None
        honest = without_orders(about) if has_orders(about) else about
        was_worth, is_worth = self.parents.get(row.get("parent_at") or ""), row[gate.quality] if gate.quality else None
        gained = round(is_worth - was_worth, 5) if is_worth is not None and was_worth is not None else None
        change = self._change(honest, new, kept, lang or was) if kept != "free" else None
        said = honest.lower()
        links = tuple(link for link in dict.fromkeys(_LINK.findall(new)) if kept != "free" and link.rstrip(".,").lower() not in said)
        found.update(
            gate_length_ratio=ratio if old.strip() else None,
            gate_similarity=near,
            gate_copy=copied,
            gate_language=lang,
            gate_agreement=agreed,
            gate_new_facts=[*links, *change.new_numbers, *change.new_names] if change else None,
            gate_quality_change=gained,
            gate_lost_facts=[*change.lost_numbers, *change.lost_names] if change and kept == "all" else None,
        )
        long_enough = not is_answer or len(new) >= gate.answer_length_from
        judge_length = old.strip() and (not is_answer or min(len(new), len(old)) >= gate.answer_length_from)
        if finish == "length":
            found["failed"] = ("generated_truncated", float(len(new)), None)
        elif set(FENCE.findall(new)) - set(FENCE.findall(about)) or set(MARKERS.findall(new)) - set(MARKERS.findall(about)):
            found["failed"] = ("fence_leak", None, None)
        elif _runs(new, _LEAK_WORDS) & self.leaks - _runs(about, _LEAK_WORDS):
            found["failed"] = ("prompt_leak", None, None)
        elif _speaks_of_itself(new, about, is_answer):
            found["failed"] = ("meta_phrase", None, None)
        elif not is_answer and _obeys(new, about, honest):
            found["failed"] = ("injection", None, None)
        elif not is_answer and said_as_own(new, about):
            found["failed"] = ("unquoted", None, None)
        elif parsed(new, rules.form) is None:
            found["failed"] = ("not_parsed", None, None)
        elif lang is not None and was is not None and lang != was:
            found["failed"] = ("language_changed", None, None)
        elif judge_length and not band[0] <= ratio <= band[1]:
            found["failed"] = ("length_ratio", ratio, band[0] if ratio < band[0] else band[1])
        elif not is_answer and copied > copies:
            found["failed"] = ("too_similar", copied, copies)
        elif long_enough and near < floor:
            found["failed"] = ("not_similar", near, floor)
        elif change and (links or change.new_numbers or change.new_names):
            rule = "new_link" if links else "new_number" if change.new_numbers else "new_name"
            found["failed"] = (rule, float(len(found["gate_new_facts"])), 0.0)
        elif change and kept == "all" and (change.lost_numbers or change.lost_names):
            found["failed"] = ("lost_number" if change.lost_numbers else "lost_name", float(len(found["gate_lost_facts"])), 0.0)
        elif gate.quality_gain is not None and gained is not None and gained < gate.quality_gain:
            found["failed"] = ("quality_not_gained", gained, gate.quality_gain)
        elif gate.agreement is not None and agreed is not None and agreed < gate.agreement:
            found["failed"] = ("disagrees_with_answer", agreed, gate.agreement)
        return found

    def _change(self, honest: str, new: str, kept: str, language: str | None) -> stated_facts.Change:
        """What orders in the source say is neither vouched for nor missed; what stands in no sentence may be left out."""

        def facts(text: str) -> stated_facts.Facts:
            return stated_facts.facts(text, self.small, self.first_names, language not in _CAPITAL_NOUNS)

        return stated_facts.compare(facts(honest), facts(new), facts(stated_facts.prose(honest)) if kept == "all" else None)


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _raw(table: pa.Table) -> list[dict[str, Any]]:
    """row_id and text of raw rows."""
    if "origin" in table.column_names:
        table = table.filter(table.column("origin").is_null())
    return table.select(["row_id", "text"]).to_pylist()


def _obeys(new: str, source: str, honest: str) -> bool:
    """Whether the output says words that stand in the source within orders alone, or orders about as the source does."""
    if honest == source:
        return False
    ordered = set(_words(seen_as(source))) - set(_words(seen_as(honest)))
    return bool(ordered & set(_words(seen_as(new)))) or has_orders(new)


def _compared(row: dict[str, Any], task: Prompt | None) -> tuple[str, str, str]:
    """(what was generated, what it stands for, what it has to be about); see the conventions of `rows.py`."""
    parent = row.get("parent_text") or ""
    if row["prompt"] is None or row["origin"] is None:
        return row["text"] or "", parent, parent
    if task is not None and task.makes == "prompt":
        old = parent[: len(parent) - len(row["response"] or "")].rstrip()
        return row["prompt"], old, old
    new = row["response"] or ""
    return new, parent[len(row["text"] or "") - len(new) :], parent


def _prompt_files(folder: str | None) -> list[Prompt]:
    home = prompts_folder(folder)
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
