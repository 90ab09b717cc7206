"""What a reader of the published folder finds: every kept row once, the others with their reasons, nothing that is ours alone."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq
import pytest

ROWS = [
    {"id": "1", "text": "a first text of some length"},
    {"id": "2", "text": "A first text  of some length"},
    {"id": "3", "text": "another text that nothing is wrong with"},
    {"id": "4", "text": ""},
    {"id": "5", "text": "a third text about rivers and the sea"},
    {"id": "6", "text": "a text with # # # # # # # #"},
    {"id": "7", "text": "sixth of those which may be published"},
    {"id": "8", "text": "x"},
    {"id": "9", "text": "an eighth text about birds"},
    {"id": "10", "text": "the last text of all"},
]


@pytest.fixture
def published(project: Any) -> Any:
    """The published folder of ten rows in two files; settings of `publish` as given."""

    def run(**publish: Any) -> Any:
        project.file("a.jsonl", *ROWS[:6])
        project.file("b.jsonl", *ROWS[6:])
        heuristics = {"min_word_count": 2, "max_hash_words": 0.5}
        project.recipe(
            scorers=["length", "heuristics"], heuristics=heuristics, embed={"method": "hashed", "dimensions": 8}, publish=publish
        )
        project.facts = project.run()
        return project.folder / "run" / "dataset"

    return run


def rows(folder: Any, part: str) -> list[dict[str, Any]]:
    return [row for file in sorted((folder / part).glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_every_row_is_in_one_of_the_two_tables(published, project):
    folder = published()
    kept, rejected = rows(folder, "data"), rows(folder, "rejected")
    assert [row["source_id"] for row in kept] == ["2", "3", "5", "7", "9", "10"]  # in the order they were read
    assert [(row["file"], row["line"], row["fate"], row["step"], row["rule"]) for row in rejected] == [
        ("a.jsonl", 1, "dropped", "near_dedup", "exact_duplicate"),
        ("a.jsonl", 4, "quarantined", "ingest", "blank_text"),
        ("a.jsonl", 6, "dropped", "heuristics", "hash_words_high"),
        ("b.jsonl", 2, "dropped", "heuristics", "word_count_low"),
    ]
    assert (project.facts["kept"], project.facts["rows_in"]) == (6, 10)
    assert rejected[0]["twin"] == kept[0]["row_id"]
    assert (rejected[3]["value"], rejected[3]["threshold"]) == (1.0, 2.0)


def test_scores_come_along_and_what_serves_the_run_stays_there(published):
    names = pq.read_schema(next((published() / "data").glob("*.parquet"))).names
    assert {"row_id", "source", "source_id", "text", "tokens", "words", "mean_word_length"} <= set(names)
    assert [name for name in names if name in ("vector", "position", "nominated") or "verdict" in name] == []
    assert names[0] == "row_id"
    assert len(set(names)) == len(names)


def test_a_column_is_left_out_when_asked(published):
    assert "words" not in pq.read_schema(next((published(leave_out=["words"]) / "data").glob("*.parquet"))).names


def test_files_hold_as_many_rows_as_asked_and_say_how_many_there_are(published):
    folder = published(rows_per_file=4)
    files = sorted((folder / "data").iterdir())
    assert [(file.name, pq.read_metadata(file).num_rows) for file in files] == [
        ("train-00000-of-00002.parquet", 4),
        ("train-00001-of-00002.parquet", 2),
    ]
    assert [row["source_id"] for row in rows(folder, "data")] == ["2", "3", "5", "7", "9", "10"]


def test_the_rejected_rows_may_be_left_out(published):
    folder = published(rejected=False)
    assert list(folder.rglob("rejected*.parquet")) == []
    assert "rejected" not in (folder / "README.md").read_text().split("---")[1]


def test_all_files_have_one_schema_also_where_a_shard_lacks_a_column(project):
    project.file("a.jsonl", *ROWS[:3])
    project.file("b.jsonl", {"instruction": "Name a river.", "output": "The Nile."})
    project.recipe(publish={"rows_per_file": 1})
    project.run()
    schemas = {pq.read_schema(file).to_string() for file in (project.folder / "run" / "dataset" / "data").iterdir()}
    assert len(schemas) == 1
    assert {row["prompt"] for row in project.published()} == {None, "Name a river."}


def test_the_card_carries_no_time_so_equal_runs_have_equal_cards(published, project):
    folder = published()
    first = {name: (folder / name).read_bytes() for name in ("README.md", "croissant.json")}
    project.run("elsewhere")
    assert {name: (project.folder / "elsewhere" / "dataset" / name).read_bytes() for name in first} == first
    assert str(project.folder).encode() not in first["README.md"] + first["croissant.json"]
