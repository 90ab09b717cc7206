"""Does the selection of a run repair the pruned model better than chance? `curate recover RUN` answers by doing it.

The pruned model is fine-tuned on the selection and, in the same way, on random rows that cost the same (tokens as they are
trained on: with the chat template, long rows cut): stratified over the clusters, and length-matched (as many rows, of the same lengths). The last one is the control that matters: a selection
that only prefers short rows gets more rows and more steps out of its tokens, and random rows of the same lengths get
them too. The ceiling is the *original* model tuned on random rows of the same cost: tuning alone lowers the loss on rows
of this kind, so the untouched original would be the wrong mark.

    recovered fraction = (loss of the pruned model - loss of the arm) / (loss of the pruned model - loss of the ceiling)

on the mean over groups (capabilities) of the mean loss of held-out responses, nats per token.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from curate import encoding, models
from curate.algorithms.matching import deviation, length_matched
from curate.errors import UserMistake
from curate.jobs import Results
from curate.ledger import Ledger, fates
from curate.progress import duration
from curate.recover.arms import random_rows
from curate.recover.exam import own_answers, read_rows, trained_tokens
from curate.recover.outcome import published_version, summarise
from curate.recover.trials import Exam, Trial, run_trials
from curate.select.sample import draws
from curate.store import read_json
from curate.training import Tuning

OWN_PER_GROUP, OWN_TOKENS = 4, 40  # prompts that the original answers, and the length of its answers


@dataclass(frozen=True)
class Pool:
    """Rows of a run that an arm may train on. `chosen`, `raw` and `test`: row numbers, int64; `groups`: int64 (n,).

    `tokens`, `response_tokens`: what a training reads of each row, int64 (n,).
    """

    rows: list[dict[str, Any]]
    chosen: np.ndarray
    raw: np.ndarray
    test: np.ndarray
    groups: np.ndarray
    tokens: np.ndarray
    response_tokens: np.ndarray
    barred: int = 0  # rows in no arm: they ask what a test row asks, or were made from one


def read_pool(
    ledger: Ledger, tokenizer: Any, tuning: Tuning, test_rows: int, seed: int = 0, questions: frozenset[str] = frozenset()
) -> Pool:
    """The rows that the last selection decided on. `test_rows` of them, the same number of every cluster, are held out.

    What was generated from a held-out row is in no arm either: it repeats its question or its answer. Nor is a row that
    asks what a test row asks, one of the run or of `questions` (see `question`). Rows without a usable answer are left out.
    """
    rows: list[dict[str, Any]] = []
    places: list[str] = []
    chosen: list[bool] = []
    last = ledger.decisions[-1]
    for shard in ledger.dataset.shards:
        names = [*encoding.ROW, "row_id", *(name for name in ("cluster", "origin", "parent_at") if name in shard.columns)]
        fate = fates(ledger.folder, shard, ledger.decisions, ())
        table = ledger.dataset.read(shard, names)
        judged = zip(table.to_pylist(), fate["fate"].to_pylist(), fate["step"].to_pylist(), strict=True)
        for position, (row, what, step) in enumerate(judged):
            if what == "kept" or (what == "dropped" and step == last):
                rows.append(row)
                places.append(f"{shard.name}:{position}")
                chosen.append(what == "kept")
    cost = trained_tokens(tokenizer, rows, tuning.template, tuning.max_tokens)
    usable = cost[:, 1] > 0
    rows, places, chosen = list(compress(rows, usable)), list(compress(places, usable)), list(compress(chosen, usable))
    cost = cost[usable]
    if not any(chosen):
        raise UserMistake(f"{ledger.folder} kept no row with a response: there is nothing to recover with; raise select.budget")
    raw = np.array([row.get("origin") is None for row in rows])
    if not raw.any():
        raise UserMistake(f"{ledger.folder}: every row with a response was generated: there are no others to hold them against")
    groups = np.unique([str(row.get("cluster")) for row in rows], return_inverse=True)[1]
    test = _held_out(np.array(draws([row["row_id"] for row in rows], seed, "test")), groups, raw, test_rows)
    held_out = {places[i] for i in test}
    asked = questions | {question(rows[i]) for i in test}
    barred = [i for i, row in enumerate(rows) if row.get("parent_at") in held_out or question(row) in asked]
    rest = np.setdiff1d(np.arange(len(rows)), [*test, *barred])
    mine = rest[np.array(chosen)[rest]]
    if not len(mine):
        raise UserMistake(
            f"every row that {ledger.folder} kept is a test row or asks what one asks: "
            "give a --test FILE that asks something else, or raise select.budget"
        )
    return Pool(rows, mine, rest[raw[rest]], test, groups, cost[:, 0], cost[:, 1], len(np.setdiff1d(barred, test)))


def question(row: Mapping[str, Any]) -> str:
    """What a test must not share with training: the prompt; of a row without one, the whole text."""
    return row["prompt"] or row["text"] or ""


def _held_out(number: np.ndarray, groups: np.ndarray, raw: np.ndarray, count: int) -> np.ndarray:
    """At most `count` raw rows, ascending, as many of each group as can be, never more than a third of a group."""
    if not count:
        return np.empty(0, np.int64)
    names = np.unique(groups[raw])
    each = max(2, count // len(names))
    found, turn = [], []
    for name in names:
        mine = np.flatnonzero(raw & (groups == name))
        found.append(mine[np.argsort(number[mine], kind="stable")][: min(each, len(mine) // 3)])
        turn.append(np.arange(len(found[-1])))
    rows = np.concatenate(found)
    return np.sort(rows[np.lexsort([number[rows], np.concatenate(turn)])[:count]])


def plan(pool: Pool, original: str, pruned: str, seeds: int, unit: str) -> tuple[list[Trial], list[str]]:
    """The trials of every arm and seed, and remarks. `unit`: what arms have in common, tokens or response_tokens, as trained on."""
    cost = (pool.tokens if unit == "tokens" else pool.response_tokens).astype(np.float64)
    budget = float(cost[pool.chosen].sum())
    other, uncontrolled = (pool.response_tokens, "response tokens") if unit == "tokens" else (pool.tokens, "tokens")
    remarks: list[str] = []
    strata: list[float] = []  # of the other unit, as a share of what the selection has
    short: dict[str, float] = {}  # of the budget, by arms that could not spend it

    def trial(arm: str, seed: int, model: str, picked: np.ndarray) -> Trial:
        return Trial(arm, seed, model, tuple({name: pool.rows[i][name] for name in encoding.ROW} for i in picked))

    if len(pool.raw) and not pool.groups[pool.raw].any():
        remarks.append("there is one cluster or none: stratified rows are plain random ones")
    nothing = np.empty(0, np.int64)
    trials = [trial("none", 0, pruned, nothing), trial("original", 0, original, nothing)]
    for seed in range(seeds):
        trials.append(trial("selection", seed, pruned, pool.chosen))
        if len(np.setdiff1d(pool.raw, pool.chosen)) >= len(pool.chosen):
            prompt = pool.tokens - pool.response_tokens
            twins = length_matched(prompt, pool.response_tokens, pool.chosen, pool.raw, seed)
            off = deviation(prompt, pool.response_tokens, pool.chosen, twins)
            remarks.append(
                f"length-matched rows of seed {seed}: {off['tokens']:+.1%} tokens, {off['response_tokens']:+.1%} response tokens"
            )
            trials.append(trial("length_matched", seed, pruned, np.sort(twins)))
        else:
            remarks.append("no length-matched control: more rows were chosen than left; choose at most half of the pool")
        picked = random_rows(cost, pool.raw, budget, seed, pool.groups)
        trials.append(trial("stratified", seed, pruned, picked))
        strata.append(float(other[picked].sum() / other[pool.chosen].sum()))
        ceiling = random_rows(cost, pool.raw, budget, seed)
        trials.append(trial("ceiling", seed, original, ceiling))
        for arm, rows in (("stratified", picked), ("ceiling", ceiling)):
            if (spent := float(cost[rows].sum()) / budget) < 0.9:
                short[arm] = min(spent, short.get(arm, 1.0))
    if strata and not 0.8 < (share := float(np.mean(strata))) < 1.25:
        remarks.append(
            f"stratified rows have {share:.1f} times the {uncontrolled} of the selection: only {unit.replace('_', ' ')} are made equal; "
            f"--unit {uncontrolled.replace(' ', '_')} makes those equal"
        )
    remarks += [f"{arm} rows have as little as {spent:.0%} of the selection's {unit.replace('_', ' ')}" for arm, spent in short.items()]
    return trials, list(dict.fromkeys(remarks))


def models_of(ledger: Ledger) -> tuple[str, str]:
    """The original and the pruned model of the run: those it compared, or the one it pruned and the copy."""
    by_stage = {step["stage"]: step["models"] for step in ledger.facts["steps"]}
    by_name = {step["name"]: step["models"] for step in ledger.facts["steps"]}
    if "Degradation" in by_stage:
        return by_stage["Degradation"][0], by_stage["Degradation"][1]
    made = ledger.folder / "stages" / "pruned"
    if "pruned" in by_name and (record := read_json(made / "artifact.json")):
        return by_name["pruned"][0], str(made / f"artifact-{record['fingerprint'][:12]}" / "model")
    raise UserMistake(f"{ledger.folder} compared no two models and pruned none: give --model and --pruned")


def recover(
    ledger: Ledger, original: str, pruned: str, *, test: Path | None = None, by: str | None = None, test_rows: int = 120, seeds: int = 3,
    unit: str = "tokens", tuning: Tuning | None = None, workers: int = 1, say: Callable[[str], None] = print,
) -> dict[str, Any]:  # fmt: skip
    """Run the experiment, or what is missing of it, and write RUN/recovery/trials.jsonl and summary.json; the summary."""
    tuning = tuning or Tuning()
    if ledger.facts["state"] != "done":
        raise UserMistake(
            f"{ledger.folder} is no finished run (its state: {ledger.facts['state']}): `curate run` or `curate refresh` it first"
        )
    folder = ledger.folder / "recovery"
    tokenizer = models.load_tokenizer(original)
    if tokenizer.get_vocab() != models.load_tokenizer(pruned).get_vocab():
        raise UserMistake(f"'{original}' and '{pruned}' have different vocabularies: give a pruned copy of the same model")
    if test:
        rows = read_rows(test, (by,) if by else ())
        rows = list(compress(rows, trained_tokens(tokenizer, rows, tuning.template, tuning.max_tokens)[:, 1] > 0))
        if unnamed := sum(row[by] is None for row in rows) if by else 0:
            raise UserMistake(
                f"--by {by}: {unnamed} of {len(rows)} rows of {test} have no such value: name one of its columns, and fill it"
            )
        pool = read_pool(ledger, tokenizer, tuning, 0, questions=frozenset(map(question, rows)))
        names = [str(row[by]) if by else "all" for row in rows]
    else:
        pool = read_pool(ledger, tokenizer, tuning, test_rows)
        rows = [pool.rows[i] for i in pool.test]
        names = [f"cluster {row['cluster']}" if row.get("cluster") is not None else "all" for row in rows]
    if not rows:
        raise UserMistake("there is no row left to test on (a cluster lends a third of its rows, at most): give --test FILE")
    asked: dict[str, int] = defaultdict(int)
    ask = []
    for row, name in zip(rows, names, strict=True):
        asked[name] += 1
        if asked[name] <= OWN_PER_GROUP and row["prompt"] and not row["messages"] and tuning.template == "chat":
            ask.append(row)
    say(f"{len(rows)} test rows in {len(set(names))} groups; the original answers {len(ask)} prompts itself")
    exam = Exam(
        _plain(rows), _plain(own_answers(original, ask, OWN_TOKENS, folder / "answers") if ask else ()), tuning.max_tokens, tuning.template
    )
    trials, remarks = plan(pool, original, pruned, seeds, unit)
    if pool.barred:
        remarks.append(f"rows in no arm, because they ask what a test row asks or were made from one: {pool.barred:,}")
    records, new, began = [], 0, time.monotonic()
    for record in run_trials(trials, original, tuning, exam, Results(folder / "trials.jsonl"), workers):
        records.append(record)
        new += not record.get("reused")
        left = (time.monotonic() - began) / new * (len(trials) - len(records)) if new else None
        say(progress(record, len(records), len(trials)) + (f"  about {duration(left)} left" if left else ""))
    summary = summarise(records, names) | {"dataset": published_version(ledger.folder)} | {
        "unit": unit, "test": str(test) if test else None, "tuning": tuning.model_dump(), "original": original, "pruned": pruned, "remarks": remarks,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def progress(record: Mapping[str, Any], done: int, of: int) -> str:
    loss = np.mean(record["losses"])
    tokens = f"{record['rows']:,} rows, {record['tokens']:,} tokens" if record["rows"] else "not tuned"
    took = "done before" if record.get("reused") else f"{sum(record['cpu_seconds']):.0f} CPU-s"
    return f"{done:>3}/{of}  {record['arm']:<15} seed {record['seed']}  {tokens:<28} loss {loss:.3f}  {took}"


def _plain(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple({name: row[name] for name in encoding.ROW} for row in rows)
