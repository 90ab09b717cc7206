"""Antidotes of a table: comparable people, possible ones, and the road from a file to a dataset."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest
from doubles import table

from curate.audit.corpus import Tables
from curate.errors import UserMistake
from curate.generate.rows import GENERATED
from curate.generate.table_antidote import TableAntidote


def people() -> list[dict]:
    """Husbands and wives, older ones richer; a woman alone to whom nobody is comparable."""
    rows = [{"age": 30 + i, "home": "husband", "sex": "m", "rich": i >= 5} for i in range(10)]
    rows += [{"age": 30 + i, "home": "wife", "sex": "f", "rich": i >= 7} for i in range(10)]
    return [*rows, {"age": 90, "home": "alone", "sex": "f", "rich": True}]


def made(tmp_path, rows=None, **settings):
    stage = TableAntidote(**{"sensitive": ("sex",), "label": "rich", "most_codes": 1, "most": 0.5, **settings})
    given = table(*({"text": json.dumps(row)} for row in rows or people()))
    stage.fit(Tables(given), None, tmp_path)
    return stage.load(tmp_path)(given), given


def test_an_antidote_is_a_possible_person_of_the_other_group_with_the_label_of_its_source(tmp_path):
    found, given = made(tmp_path)
    assert found.schema.equals(GENERATED)
    assert found.num_rows == 20
    texts = dict(zip(given.column("row_id").to_pylist(), given.column("text").to_pylist(), strict=True))
    for row in found.to_pylist():
        person, source = json.loads(row["text"]), json.loads(texts[row["parents"][0]])
        assert {person["sex"], source["sex"]} == {"m", "f"}
        assert person["home"] == {"m": "husband", "f": "wife"}[person["sex"]]
        assert person["rich"] == source["rich"] and list(person) == list(source)
        assert abs(person["age"] - source["age"]) <= 9 and isinstance(person["age"], int)
        assert (row["origin"], row["depth"]) == ("antidote", 1) and row["generator"].startswith("comparable sex:")
    assert json.loads(found.schema.metadata[b"counts"]) == {"sex:m:no_comparable_row": 1}


def test_a_flip_changes_the_group_alone(tmp_path):
    found, _ = made(tmp_path, method="flip")
    persons = Counter((json.loads(text)["sex"], json.loads(text)["home"]) for text in found.column("text").to_pylist())
    assert persons == {("f", "husband"): 10, ("m", "wife"): 10, ("m", "alone"): 1}


def test_comparable_rows_of_the_same_label_are_asked_for(tmp_path):
    """A rich husband of 35: the wife nearest to him is poor, the nearest rich one is 37."""
    for same, oldest in ((True, 37), (False, 35)):
        found, given = made(tmp_path / str(same), same_label=same, most=9.0, k=1)
        source = given.column("row_id").to_pylist()[5]
        (age,) = [json.loads(row["text"])["age"] for row in found.to_pylist() if row["parents"] == [source]]
        assert 35 <= age <= oldest
        assert same == (age > 35)


def test_variants_and_the_seed(tmp_path):
    first, second = made(tmp_path / "a", variants=3)[0], made(tmp_path / "b", variants=3)[0]
    assert first.equals(second) and first.num_rows == 60
    assert not made(tmp_path / "c", variants=3, seed=1)[0].equals(first)


def test_any_cut_of_the_rows_gives_the_same_antidotes(tmp_path):
    whole, given = made(tmp_path)
    load = TableAntidote(sensitive=("sex",), label="rich", most_codes=1).load(tmp_path)
    parts = [row for start in range(0, given.num_rows, 5) for row in load(given.slice(start, 5)).column("text").to_pylist()]
    assert parts == whole.column("text").to_pylist()


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"sensitive": ("gender",)}, "no column 'gender'"), ({"sensitive": ("home",), "label": "wealth"}, "no column 'wealth'")],
)
def test_a_column_that_is_not_there(tmp_path, settings, said):
    with pytest.raises(UserMistake, match=said):
        made(tmp_path, **settings)


def test_one_group_alone_and_rows_that_are_no_table(tmp_path):
    with pytest.raises(UserMistake, match="one value in the whole table"):
        made(tmp_path, rows=people()[:10])
    stage = TableAntidote(sensitive=("sex",))
    with pytest.raises(UserMistake, match="kind: table"):
        stage.fit(Tables(table({"text": "A sentence."})), None, tmp_path)


def test_the_road_from_a_csv_to_a_dataset(project):
    lines = ["age,home,sex,rich", *(",".join(map(str, row.values())) for row in people())]
    (project.data / "people.csv").write_text("\n".join(lines) + "\n")
    columns = ["age", "home", "sex", "rich"]
    project.recipe(
        pipeline="table", ingest={"kind": "table", "fields": {"columns": columns}, "shard_rows": 8},
        antidote={"sensitive": ["sex"], "label": "rich", "most_codes": 1}, select={"generated_max_share": 0.6},
    )  # fmt: skip
    facts = project.run()
    assert (facts["rows_in"], facts["generated"], facts["kept"]) == (21, 20, 41)
    found = pq.read_table(project.folder / "run" / "dataset" / "data").to_pylist()
    assert all(list(json.loads(row["text"])) == columns for row in found)
    assert Counter(row["origin"] for row in found) == {None: 21, "antidote": 20}
    ages = [json.loads(row["text"])["age"] for row in found]
    assert all(isinstance(age, str) and age.isdigit() for age in ages)  # a CSV's cells are strings, and stay so


def test_a_table_without_columns_or_with_an_empty_row(project):
    (project.data / "people.csv").write_text("age,sex,rich\n1,m,no\n2,f,yes\n,,\n")
    project.recipe(pipeline="table", ingest={"kind": "table", "quarantine_max": 1.0}, antidote={"sensitive": ["sex"]})
    with pytest.raises(UserMistake, match="needs the columns of a row"):
        project.run()
    fields = {"columns": ["age", "sex", "rich"]}
    project.recipe(pipeline="table", ingest={"kind": "table", "fields": fields, "quarantine_max": 1.0}, antidote={"sensitive": ["sex"]})
    facts = project.run()
    assert (facts["rows_in"], facts["quarantined"], facts["quarantine_rules"]) == (3, 1, {"blank_row": 1})


def test_cells_keep_their_kind_and_a_hole_in_a_csv_is_no_group(tmp_path, project):
    rows = [{"age": 30.0 + i, "tiny": (i + 1) * 1e-9, "sex": "mf"[i % 2]} for i in range(12)]
    found, _ = made(tmp_path, rows=rows, label=None, most=9.0)
    for row in map(json.loads, found.column("text").to_pylist()):
        assert isinstance(row["age"], float) and row["age"] == int(row["age"]) and 0 < row["tiny"] < 2e-8
    lines = [*(f"{20 + i},{'mf'[i % 2]}" for i in range(12)), ",m", "30,"]
    (project.data / "people.csv").write_text("\n".join(["age,sex", *lines]) + "\n")
    project.recipe(
        pipeline="table", ingest={"kind": "table", "fields": {"columns": ["age", "sex"]}}, antidote={"sensitive": ["sex"], "most": 9.0},
        select={"generated_max_share": 0.6},
    )  # fmt: skip
    project.run()
    antidotes = [json.loads(row["text"]) for row in project.published() if row["origin"] == "antidote"]
    assert {row["sex"] for row in antidotes} == {"m", "f"} and len(antidotes) == 12
    assert len({row["age"] for row in antidotes}) > 2


def test_a_flip_between_cells_of_two_kinds_and_a_number_beyond_all(tmp_path):
    rows = [{"sex": 1, "n": 10**400}, {"sex": "f", "n": 5}]
    found, _ = made(tmp_path, rows=rows, label=None, method="flip")
    assert sorted(str(json.loads(text)["sex"]) for text in found.column("text").to_pylist()) == ["1", "f"]
