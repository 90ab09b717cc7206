"""A length-matched control: as many rows, the same lengths, none of the selection's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import UserMistake
from curate.select.matched import Matched


class Inputs:
    def __init__(self, table: pa.Table, cut: int):
        self.parts = {f"{start:05d}": table.slice(start, cut) for start in range(0, table.num_rows, cut)}

    def tables(self) -> Any:
        return iter(self.parts.items())


@pytest.fixture
def corpus() -> pa.Table:
    random = np.random.default_rng(0)
    prompt, response = random.integers(5, 100, 600), random.integers(1, 50, 600)
    columns = {"tokens": prompt + response, "response_tokens": response, "line": np.arange(600), "language": ["en", "de"] * 300}
    return pa.table({"row_id": [f"{row:032x}" for row in random.permutation(600)], "file": ["f"] * 600, **columns})


def kept(folder: Path, corpus: pa.Table, ids: list[str], cut: int = 250, **settings: Any) -> list[str]:
    """Ids of the rows kept; `ids` are the selection to match."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"row_id": ids}), folder / "data" / "train.parquet")
    stage = Matched.model_validate({"like": str(folder), **settings})
    inputs = Inputs(corpus, cut)
    stage.fit(inputs, None, folder)  # type: ignore[arg-type]
    found: list[str] = []
    for shard, table in inputs.tables():
        column = stage.load(folder)(pa.table({"shard": [shard]}))[stage.writes().names[0]].to_pylist()
        for row_id, said in zip(table["row_id"].to_pylist(), column, strict=True):
            assert settings.get("nominate") or said is None or said["rule"] in ("not_drawn", "other_language")
            if said is None or said is True:
                found.append(row_id)
    return found


def test_as_many_other_rows_of_the_same_lengths(tmp_path, corpus):
    short = corpus.filter(pa.array(np.asarray(corpus["tokens"]) < 60))["row_id"].to_pylist()[::2]
    drawn = kept(tmp_path, corpus, short)
    assert len(drawn) == len(short) and not set(drawn) & set(short)
    tokens = dict(zip(corpus["row_id"].to_pylist(), corpus["tokens"].to_pylist(), strict=True))
    mine, theirs = sum(tokens[row] for row in short), sum(tokens[row] for row in drawn)
    assert abs(mine - theirs) < 0.15 * mine < 0.5 * (np.mean(list(tokens.values())) * len(short) - mine)
    about = json.loads((tmp_path / "matched.json").read_text())
    assert about["total_prompt"] + about["total_response"] == theirs - mine and about["rows"] == len(short)


def test_neither_cut_nor_order_decides_and_the_seed_does(tmp_path, corpus):
    ids = corpus["row_id"].to_pylist()[:50]
    one = sorted(kept(tmp_path / "a", corpus, ids))
    assert one == sorted(kept(tmp_path / "b", corpus.take(pa.array(range(599, -1, -1))), ids, cut=70))
    assert one != sorted(kept(tmp_path / "c", corpus, ids, seed=1))
    assert one == sorted(kept(tmp_path / "d", corpus, ids, nominate=True))


def test_only_rows_within_the_bounds_are_drawn(tmp_path, corpus):
    drawn = kept(tmp_path, corpus, corpus["row_id"].to_pylist()[:50], where={"language": {"is": ["de"]}})
    language = dict(zip(corpus["row_id"].to_pylist(), corpus["language"].to_pylist(), strict=True))
    assert len(drawn) == 50 and {language[row] for row in drawn} == {"de"}


def test_rows_that_are_not_in_the_run_are_said(tmp_path, corpus):
    assert len(kept(tmp_path, corpus, [*corpus["row_id"].to_pylist()[:10], "elsewhere"])) == 10
    assert "1 of the rows" in json.loads((tmp_path / "info.json").read_text())["remarks"][0]


def test_what_cannot_be_matched_is_said_with_the_remedy(tmp_path, corpus):
    with pytest.raises(UserMistake, match="same corpus"):
        kept(tmp_path, corpus, ["elsewhere"])
    with pytest.raises(UserMistake, match="at most half"):
        kept(tmp_path, corpus, corpus["row_id"].to_pylist()[:400])
    with pytest.raises(UserMistake, match="no Parquet file"):
        Matched.model_validate({"like": str(tmp_path / "nowhere")}).identity()


def test_the_content_of_the_selection_is_its_identity_not_its_place(tmp_path, corpus):
    for name, ids in (("a", ["x"]), ("b", ["x"]), ("c", ["y"])):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"row_id": ids}), tmp_path / name / "rows.parquet")
    a, b, c = (Matched.model_validate({"like": str(tmp_path / name)}).identity() for name in "abc")
    assert a == b != c


def test_in_a_run_the_control_of_a_published_selection(project):
    random = np.random.default_rng(1)
    project.file(
        "a.jsonl", *({"instruction": f"question {n} " + "so " * int(random.integers(1, 9)), "output": f"answer {n}"} for n in range(60))
    )
    project.recipe(ingest={"kind": "instruction"}, select={"budget": 15})
    project.run("mine")
    project.recipe(ingest={"kind": "instruction"}, select={"method": "matched", "like": str(project.folder / "mine" / "dataset")})
    project.run("control")
    mine, control = ({row["row_id"] for row in project.published(name)} for name in ("mine", "control"))
    assert len(mine) == len(control) == 15 and not mine & control
    assert set(project.fates("control").values()) == {"kept", "not_drawn"}
