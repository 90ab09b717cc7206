"""Columns of shards, read back."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curate.dataset import Shard, columns_of, read_rows, write_table
from curate.errors import Damaged


@pytest.fixture
def shard(tmp_path) -> Shard:
    """20,000 rows, which are three row groups, in two files."""
    numbers = list(range(20_000))
    write_table(pa.table({"a": numbers, "b": [str(number) for number in numbers]}), tmp_path / "one.parquet")
    write_table(pa.table({"c": [number % 7 for number in numbers]}), tmp_path / "two.parquet")
    one = columns_of("one", "one.parquet", {name: {"hash": ""} for name in ("a", "b")})
    return Shard("0", 20_000, {**one, **columns_of("two", "two.parquet", {"c": {"hash": ""}})})


@pytest.mark.parametrize("rows", [[0], [19_999], [8191, 8192], [19_999, 5, 8192, 5], []])
def test_some_rows_are_read_in_the_order_in_which_they_are_asked_for(tmp_path, shard, rows):
    found = read_rows(tmp_path, shard, ["c", "b", "a"], rows)
    assert found.column_names == ["c", "b", "a"]
    assert found.to_pylist() == [{"c": row % 7, "b": str(row), "a": row} for row in rows]


def test_rows_of_a_damaged_file_are_not_read(tmp_path, shard):
    path = tmp_path / "one.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1  # in the first row group
    path.write_bytes(content)
    assert read_rows(tmp_path, shard, ["c"], [3])["c"].to_pylist() == [3]
    with pytest.raises(Damaged):
        read_rows(tmp_path, shard, ["a", "b"], [3])


def test_a_file_of_another_length_is_damaged(tmp_path, shard):
    write_table(pa.table({"c": [1, 2, 3]}), tmp_path / "two.parquet")
    with pytest.raises(Damaged):
        read_rows(tmp_path, shard, ["c"], [1])
