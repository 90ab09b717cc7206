"""A batch is judged beside its sources, and dropped only where the recipe says so."""

import json
import random

import pyarrow as pa
from given import Shards

from curate.generate.batch_gate import BatchGate, _new_and_old

RANDOM = random.Random(1)
WORDS = [f"w{number}" for number in range(4000)]
SOURCES = [" ".join(RANDOM.choices(WORDS, k=50)) for _ in range(100)]


def shard(texts, sources=SOURCES, generator="paraphrase m stop", prompt=None, origin="rewrite"):
    n = len(texts)
    return pa.table(
        {
            "row_id": [f"r{number}" for number in range(n)],
            "prompt": pa.array([prompt] * n, pa.string()),
            "response": pa.nulls(n, pa.string()),
            "text": texts,
            "origin": [origin] * n,
            "parents": [[f"p{number}"] for number in range(n)],
            "parent_text": sources[:n],
            "generator": [generator] * n,
        }
    )


def changed(text):
    return " ".join(RANDOM.choice(WORDS) if RANDOM.random() < 0.3 else word for word in text.split())


def judged(tmp_path, *tables, **settings):
    gate = BatchGate(**settings)
    gate.fit(Shards(*tables), None, tmp_path)
    function = gate.load(tmp_path)
    return [function(table).to_pylist() for table in tables], json.loads((tmp_path / "batches.json").read_text())


def test_a_good_batch_raises_no_alarm_and_a_template_does(tmp_path):
    good = shard([changed(text) for text in SOURCES])
    bad = shard(["In this article, we will explore the topic. " + changed(text) for text in SOURCES], generator="distil m stop")
    (kept, told), batches = judged(tmp_path, good, bad)
    assert {row["batch_alarms"] == [] and row["verdict"] is None for row in kept} == {True}
    assert all("opening" in row["batch_alarms"] and row["verdict"] is None for row in told)
    assert next((batch["batch"], batch["rows"], batch["said"]) for batch in batches) == ("distil m", 100, "in this article we will")


def test_an_alarm_that_blocks_drops_the_batch_and_no_other_row(tmp_path):
    good, bad = shard([changed(text) for text in SOURCES]), shard([changed(SOURCES[0])] * 100, generator="distil m stop")
    antidotes = shard(["same words here"] * 100, origin="antidote", generator="swap gender:female>male stop")
    raw = good.select(["row_id", "prompt", "response", "text"])
    (kept, dropped, other, read), _ = judged(tmp_path, good, bad, antidotes, raw, blocks=("spread",))
    assert {row["verdict"]["rule"] for row in dropped} == {"batch_spread"}
    assert not any(row["verdict"] for row in (*kept, *other, *read)) and other[0]["batch_alarms"] is None


def test_a_small_batch_is_not_judged(tmp_path):
    (rows,), batches = judged(tmp_path, shard(["the same words in every row of it"] * 49), blocks=("opening",))
    assert rows[0] == {"batch_alarms": [], "verdict": None} and batches[0]["judged"] is False


def test_the_answer_alone_is_compared_where_the_prompt_stayed(tmp_path):
    answers = pa.table(
        {
            "row_id": ["a"], "prompt": ["Why?"], "response": ["Because of it."], "text": ["Why?\n\nBecause of it."], "origin": ["rewrite"],
            "parents": [["p"]], "parent_text": ["Why?\n\nSo."], "generator": ["self_answer m stop"],
        }
    )  # fmt: skip
    _, batches = judged(tmp_path, answers)
    assert batches[0]["said"] == "because of it"


def test_an_answer_that_equals_the_given_one_is_still_what_was_made():
    row = {
        "prompt": "Is it good or bad?",
        "response": "Good.",
        "text": "Is it good or bad?\n\nGood.",
        "parent_text": "Is it good or bad?\n\nGood.",
    }
    assert _new_and_old(row) == ("Good.", "Good.")
    assert _new_and_old(row | {"prompt": "Good or bad?", "text": "Good or bad?\n\nGood."}) == ("Good or bad?", "Is it good or bad?")
