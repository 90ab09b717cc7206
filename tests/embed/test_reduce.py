import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from curate.embed.reduce import Reduce
from curate.errors import UserMistake


class Rows:
    """Inputs of a fit: the given tables as shards."""

    def __init__(self, *tables: pa.Table):
        self.given = {str(i): table for i, table in enumerate(tables)}
        self.shards, self.rows = list(self.given), sum(map(len, tables))

    def tables(self):
        return iter(self.given.items())


def table(vectors, name: str = "vector") -> pa.Table:
    return pa.table({name: pa.array(list(vectors), pa.list_(pa.float32()))})


@pytest.fixture
def vectors() -> np.ndarray:
    """600 rows of width 16 whose variance lies in the last coordinates: the worst case for truncation."""
    return (np.random.default_rng(0).standard_normal((600, 16)) * 1.5 ** np.arange(16)).astype(np.float32)


def fitted(stage: Reduce, folder: Path, *tables: pa.Table):
    folder.mkdir(exist_ok=True)
    stage.fit(Rows(*tables), None, folder)
    return stage.load(folder), json.loads((folder / "info.json").read_text())


def test_the_artifact_says_what_is_lost_and_what_truncation_would_lose(tmp_path, vectors):
    reduce, info = fitted(Reduce(dimensions=8), tmp_path, table(vectors))
    small = reduce(table(vectors))
    assert small.schema == Reduce(dimensions=8).writes()
    np.testing.assert_allclose(np.linalg.norm(np.stack(small.column(0).to_pylist()), axis=1), 1, atol=1e-6)
    assert (info["from"], info["to"], info["rows"], info["sample"]) == (16, 8, 600, 600)
    assert info["pca"]["variance_kept"] > 0.9 > 0.1 > info["truncate"]["variance_kept"]
    assert info["pca"]["neighbours_kept"] > 0.8 > 0.2 > info["truncate"]["neighbours_kept"]
    assert info["before"]["two_nn"] > info["pca"]["two_nn"] > 3
    assert info["before"]["isoscore"] < info["pca"]["isoscore"] <= 1


def test_shards_change_nothing_to_the_byte(tmp_path, vectors):
    stage = Reduce(dimensions=5, sample=200)
    whole, info = fitted(stage, tmp_path / "whole", table(vectors))
    cut, cut_info = fitted(stage, tmp_path / "cut", table(vectors[:7]), table(vectors[7:7]), table(vectors[7:]))
    assert info == cut_info
    assert (tmp_path / "whole" / "axes.npz").read_bytes() == (tmp_path / "cut" / "axes.npz").read_bytes()
    assert pa.concat_tables([cut(table(vectors[:1])), cut(table(vectors[1:]))]).equals(whole(table(vectors)))


def test_truncation_keeps_the_first_coordinates(tmp_path, vectors):
    reduce, _ = fitted(Reduce(how="truncate", dimensions=3, to="short"), tmp_path, table(vectors))
    expected = vectors[:, :3] / np.linalg.norm(vectors[:, :3], axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack(reduce(table(vectors)).column("short").to_pylist()), expected, atol=1e-5)


def test_rows_without_a_direction_have_no_short_vector(tmp_path, vectors):
    rows = [*vectors[:50], None, np.zeros(16), np.full(16, np.nan), np.eye(16)[9]]
    reduce, info = fitted(Reduce(how="truncate", dimensions=4), tmp_path, table(rows))
    assert info["rows"] == 51
    assert [i for i, row in enumerate(reduce(table(rows)).column(0).to_pylist()) if row is None] == [50, 51, 52, 53]


@pytest.mark.parametrize("count", [1, 60])
def test_one_row_and_rows_that_are_all_alike_keep_their_vector(tmp_path, count):
    same = table([[3.0, 0, 4.0]] * count)
    reduce, info = fitted(Reduce(dimensions=2), tmp_path, same)
    assert info["pca"]["variance_kept"] == 1.0 and info["before"]["two_nn"] is None
    assert np.abs(reduce(same).column(0).to_pylist()).tolist() == [[1.0, 0.0]] * count


def test_what_cannot_be_reduced_is_named(tmp_path, vectors):
    with pytest.raises(UserMistake, match="set at most 16"):
        fitted(Reduce(dimensions=17), tmp_path, table(vectors))
    with pytest.raises(UserMistake, match="widths 16 and 15"):
        fitted(Reduce(dimensions=4), tmp_path, table(vectors), table(vectors[:, 1:]))
    with pytest.raises(UserMistake, match="no row has a vector"):
        fitted(Reduce(dimensions=4), tmp_path, table([None, None]))
    with pytest.raises(UserMistake, match="not vectors"):
        fitted(Reduce(dimensions=4), tmp_path, pa.table({"vector": ["a"]}))
    with pytest.raises(ValidationError, match="another name"):
        Reduce(to="vector")
