"""Contradictions in a small corpus: who goes, and whom a dropped row names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.select.contradictions import Contradictions

LONG = "Read this passage and answer. " + " ".join(f"word{number}x" for number in range(60)) + " in the beautiful mountains. "


class Shards:
    """Inputs and engine: rows typed by hand, cut into shards."""

    def __init__(self, table: pa.Table, cut: int):
        self.by_name = {f"{start:02d}": table.slice(start, cut) for start in range(0, table.num_rows, cut)}
        self.shards = list(self.by_name)

    def table(self, shard: str) -> pa.Table:
        return self.by_name[shard]

    def tables(self) -> Any:
        return iter(self.by_name.items())

    def step(self, name: str, stage: Any, shared: bool = False) -> Shards:
        function = stage.load(Path())
        return Shards(pa.concat_tables([function(table) for table in self.by_name.values()]), self.by_name[self.shards[0]].num_rows)


def decide(folder: Path, *rows: tuple[Any, ...], cut: int = 3, **settings: Any) -> list[Any]:
    """Rows: prompt, response, maybe loss_original. Per row: None, or the number of the row it contradicts."""
    columns: dict[str, Any] = {
        "row_id": [f"{number:04d}" for number in range(len(rows))], "file": ["f"] * len(rows), "line": list(range(len(rows))),
        "prompt": pa.array([row[0] for row in rows], pa.string()), "response": pa.array([row[1] for row in rows], pa.string()),
        "position": [number % cut for number in range(len(rows))],
    }  # fmt: skip
    if any(len(row) > 2 for row in rows):
        columns["loss_original"] = pa.array([row[2] if len(row) > 2 else None for row in rows], pa.float64())
    inputs = Shards(pa.table(columns), cut)
    stage = Contradictions.model_validate(settings)
    stage.fit(inputs, inputs, folder)  # type: ignore[arg-type]
    load = stage.load(folder)
    found = [verdict for shard in inputs.shards for verdict in load(pa.table({"shard": [shard]}))["verdict"].to_pylist()]
    for verdict in found:
        if verdict:
            assert (verdict["decision"], verdict["rule"]) == ("drop", "contradicts") and verdict["similarity"] >= 0.8
            shard, _, position = verdict["twin_at"].rpartition(":")
            assert inputs.by_name[shard]["row_id"][int(position)].as_py() == verdict["twin"]
    return [verdict and int(verdict["twin"]) for verdict in found]


CAPITAL = "What is the capital of France?"


def test_the_minority_goes_over_all_shards(tmp_path):
    rows = [
        (CAPITAL, "Paris"),
        ("What is the capital of Peru?", "Lima"),
        (CAPITAL, "Lyon"),
        (None, "no prompt"),
        ("please, " + CAPITAL, "It is Paris."),
    ]
    assert decide(tmp_path, *rows) == [None, None, 0, None, None]
    assert decide(tmp_path, *rows, cut=1) == [None, None, 0, None, None]


def test_a_tie_is_settled_by_the_loss_or_takes_both(tmp_path):
    assert decide(tmp_path, (CAPITAL, "Paris"), (CAPITAL, "Lyon")) == [1, 0]
    assert decide(tmp_path, (CAPITAL, "Paris"), (CAPITAL, "Lyon"), ties="keep") == [None, None]
    assert decide(tmp_path, (CAPITAL, "Paris", 2.5), (CAPITAL, "Lyon", 7.0)) == [None, 0]
    assert decide(tmp_path, (CAPITAL, "Paris", 2.5), (CAPITAL, "Lyon", 7.0), ties="keep") == [None, 0]


def test_another_question_about_the_same_long_passage_is_no_contradiction(tmp_path):
    assert decide(tmp_path, (LONG + "Who came first?", "Ann"), (LONG + "Who came last?", "Bob")) == [None, None]
    asked = (LONG + "Who came first?", "Ann"), (LONG.replace("beautiful", "beautifull") + "Who came first?", "Bob")
    assert decide(tmp_path, *asked) == [1, 0]
    assert decide(tmp_path, *asked, threshold=1) == [None, None]


def test_an_empty_answer_contradicts_nothing(tmp_path):
    assert decide(tmp_path, (CAPITAL, "Paris"), (CAPITAL, ""), (CAPITAL, " ")) == [None, None, None]
    assert decide(tmp_path, ("", "x"), ("", "y")) == [None, None]


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"ties": "first"}, {"view": "text"}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError):
        Contradictions.model_validate(wrong)


PIPELINE = """
STEPS = {"ingest": "ingest.settings", "contradictions": "select.contradictions", "select": "select.budget", "publish": "publish.dataset"}

def flow(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    run.step("contradictions", recipe.contradictions, docs)
    run.step("select", recipe.select, run.everything(docs))
    run.publish(recipe.publish, docs)
"""


def test_in_a_run(project):
    (project.folder / "flow.py").write_text(PIPELINE)
    project.file("a.jsonl", {"instruction": CAPITAL, "output": "Paris"}, {"instruction": "Name a fruit.", "output": "plum"})
    project.file("b.jsonl", {"instruction": CAPITAL, "output": "Lyon"}, {"instruction": CAPITAL.upper(), "output": "paris"})
    project.recipe(pipeline="flow.py:flow", ingest={"kind": "instruction"})
    project.run()
    fates = list(project.fates().values())
    assert fates == ["kept", "kept", "contradicts", "kept"]
    assert project.column("contradictions.verdict")[2]["twin_at"] in ("00000-0000:0", "00001-0000:1")
