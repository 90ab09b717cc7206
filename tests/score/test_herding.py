"""The order of herding as a column: by group, whatever the shards, and for rows that come later."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.algorithms.herding import herding_order
from curate.errors import UserMistake
from curate.score.herding import Herding


class Shards:
    def __init__(self, *tables):
        self.given = {f"{i:05d}": t.append_column("shard", pa.array([f"{i:05d}"] * len(t))) for i, t in enumerate(tables)}

    def tables(self):
        return iter(self.given.items())

    def types(self):
        return (dict(zip(t.column_names, t.schema.types, strict=True)) for t in self.given.values())


def table(rows=60, groups=True, seed=0):
    random = np.random.default_rng(seed)
    vectors = [None if i % 20 == 19 else vector.tolist() for i, vector in enumerate(random.normal(size=(rows, 8)) + 1)]
    columns = {"vector": pa.array(vectors, pa.list_(pa.float32()))}
    return pa.table(columns | ({"cluster": pa.array([None if i == 3 else i % 3 for i in range(rows)], pa.int32())} if groups else {}))


def scored(folder: Path, *tables, later=None, **settings):
    stage, inputs = Herding(**settings), Shards(*tables)
    folder.mkdir()
    stage.fit(inputs, None, folder)
    function = stage.load(folder)
    found = [function(given) for _, given in inputs.tables()]
    assert all(one.schema == stage.writes() for one in found)
    if later is not None:
        return function(later.append_column("shard", pa.array(["99999"] * len(later))))["herding"].to_pylist()
    return pa.concat_tables(found)["herding"].to_pylist() if found else []


def test_each_group_has_an_order_of_its_own(tmp_path):
    given = table()
    found = scored(tmp_path / "a", given)
    assert [i for i, value in enumerate(found) if value is None] == [19, 39, 59]
    mine = [i for i in range(60) if i % 3 == 1 and found[i] is not None]
    vectors = np.array([given["vector"][i].as_py() for i in mine])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = [mine[place] for place in herding_order(vectors, vectors.mean(0))]
    assert sorted(mine, key=lambda i: -found[i]) == order
    assert found[order[0]] == 1 and found[order[-1]] == pytest.approx(1 / len(mine))
    assert found[3] == 1  # no cluster: a group too, here of one


def test_the_order_does_not_depend_on_shards(tmp_path):
    given = table()
    whole = scored(tmp_path / "a", given)
    assert scored(tmp_path / "b", given.slice(0, 7), given.slice(7, 1), given.slice(8)) == whole


def test_a_large_group_is_ordered_in_parts_of_about_equal_size(tmp_path):
    found = [value for value in scored(tmp_path / "a", table(groups=False), block=20) if value is not None]
    assert sorted(found) == pytest.approx(sorted([*np.arange(1, 20) / 19] * 3))  # 57 vectors: three parts of 19
    said = json.loads((tmp_path / "a" / "info.json").read_text())
    assert said["rows"] == {"": 57} and "no column 'cluster'" in said["remarks"][0]


def test_rows_that_come_later_are_ordered_towards_the_same_mean(tmp_path):
    given, new = table(), table(30, seed=1)
    found = scored(tmp_path / "a", given, later=new)
    means = np.load(tmp_path / "a" / "means.npz")
    mean = means["means"][means["names"].tolist().index("2")]
    mine = [i for i in range(30) if i % 3 == 2 and found[i] is not None]
    vectors = np.array([new["vector"][i].as_py() for i in mine])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert sorted(mine, key=lambda i: -found[i]) == [mine[place] for place in herding_order(vectors, mean)]


def test_a_pool_without_vectors_gets_no_order(tmp_path):
    zero = pa.table({"vector": pa.array([[0.0, 0.0], [1.0, 0.0], [float("nan"), 1.0]], pa.list_(pa.float32())), "cluster": [0, 0, 0]})
    assert scored(tmp_path / "c", zero) == [None, 1, None]
    nothing = pa.table({"vector": pa.nulls(3, pa.list_(pa.float32())), "cluster": [0, 0, 0]})
    assert scored(tmp_path / "a", nothing) == [None] * 3
    assert scored(tmp_path / "b") == []


def test_a_column_of_numbers_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(UserMistake, match=r"'vector' holds double, not vectors: name a column of lists"):
        scored(tmp_path / "a", pa.table({"vector": [1.0, 2.0]}))
