"""Which files a recipe's paths stand for, and in which order."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import UnreadableFile, UserMistake
from curate.ingest.files import Ingest, find_files, read_shards


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jsonl", "a/z.csv", "a/y.parquet", "a/note.txt", ".hidden/x.jsonl", "a/.x.jsonl", "c.JSONL.GZ", "_SUCCESS"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "data"


def names(**settings):
    return [file.name for file in find_files(Ingest(**settings))]


def test_folder_file_and_wildcard(folder, monkeypatch):
    assert names(path=str(folder)) == ["a/y.parquet", "a/z.csv", "b.jsonl", "c.JSONL.GZ"]
    assert names(path=str(folder / "b.jsonl")) == ["b.jsonl"]
    assert names(path=str(folder / "**" / "*.csv")) == ["a/z.csv"]
    assert names(path=[str(folder / "b.jsonl"), str(folder / "a"), str(folder)]) == ["a/y.parquet", "a/z.csv", "b.jsonl", "c.JSONL.GZ"]
    monkeypatch.setenv("HOME", str(folder))
    assert names(path="~/a") == ["y.parquet", "z.csv"]


def test_order_is_priority_then_source_then_name(folder):
    sources = [
        {"name": "late", "path": str(folder / "a"), "priority": 1},
        {"name": "first", "path": str(folder / "c.JSONL.GZ")},
        {"name": "second", "path": str(folder / "b.jsonl")},
    ]
    found = find_files(Ingest(sources=sources))
    assert [(file.source, file.priority, file.name) for file in found] == [
        ("first", 0, "c.JSONL.GZ"),
        ("second", 0, "b.jsonl"),
        ("late", 1, "y.parquet"),
        ("late", 1, "z.csv"),
    ]
    assert all(Path(file.path).is_absolute() for file in found)


@pytest.mark.parametrize("path", ["nowhere", "a/note.txt", "*.parquet", ".hidden/none*", "x\0y"])
def test_nothing_to_read_is_the_users_mistake(folder, path):
    with pytest.raises(UserMistake) as error:
        names(path=str(folder / path))
    assert str(folder / path) in str(error.value)


def test_a_link_that_leads_nowhere_is_named(folder):
    (folder / "gone.jsonl").symlink_to(folder / "no_such_file.jsonl")
    settings = Ingest(path=str(folder))
    (file,) = [file for file in find_files(settings) if file.name == "gone.jsonl"]
    with pytest.raises(UnreadableFile, match=r"gone\.jsonl: cannot be opened"):
        list(read_shards(settings, file))


def test_a_name_that_is_not_utf8_can_be_shown_and_read(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9\n.jsonl")).write_text('{"text": "a"}')
    with pa.OSFile(os.fsencode(tmp_path) + b"/caf\xe9.parquet", "wb") as sink:
        pq.write_table(pa.table({"text": ["a"]}), sink)
    settings = Ingest(path=str(tmp_path))
    found = find_files(settings)
    assert [file.name for file in found] == ["caf\\xe9\n.jsonl", "caf\\xe9.parquet"]
    assert [next(read_shards(settings, file)).column("file").to_pylist() for file in found] == [[file.name] for file in found]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"path": "x", "sources": [{"name": "a", "path": "y"}]},
        {"sources": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]},
        {"path": "x", "shard_bytes": "64 parsecs"},
        {"path": "x", "keep": ["row_id"]},
        {"path": "x", "keep": ["a", "a"]},
        {"path": "x", "field": {}},
    ],
)
def test_settings_that_are_refused(settings):
    with pytest.raises(ValueError):
        Ingest(**settings)


def test_sizes():
    assert Ingest(path="x", shard_bytes="64MB").shard_bytes == 64_000_000
    assert Ingest(path="x", shard_bytes="1.5 MiB").shard_bytes == 3 << 19
