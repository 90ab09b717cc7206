"""The card and its Croissant twin: strangers' tools can read the folder, and no text from a source bends the card."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curate.publish.card import Config, Published, PublishedFile, SourceNote, card, features
from curate.publish.croissant import croissant

ROWS = pa.table(
    {
        "row_id": pa.array(["a1", "b2", "c3"]),
        "prompt": pa.array(["1+1?", "Hi", "no"], pa.large_string()),
        "damage": pa.array([0.5, 0.25, None], pa.float32()),
        "parents": pa.array([None, ["a1"], []], pa.list_(pa.string())),
        "messages": pa.array(
            [[{"role": "user", "content": "1+1?"}], None, []], pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))
        ),
        "vector": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2)),
        "no": pa.array([True, False, None]),
    }
)


def write(folder: Path, path: str, table: pa.Table) -> PublishedFile:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / path)
    content = (folder / path).read_bytes()
    return PublishedFile(path, hashlib.sha256(content).hexdigest(), len(content), table.num_rows)


def published(folder: Path, shards: int = 2) -> Published:
    pieces = [ROWS] if shards == 1 else [ROWS.slice(0, 2), ROWS.slice(2)]
    files = tuple(write(folder, f"data/train-{i:05d}-of-{shards:05d}.parquet", piece) for i, piece in enumerate(pieces))
    rejected = pa.table({"row_id": ["d4"], "rule": ["too_short"], "value": [3.0]})
    other = Config(
        "rejected", (write(folder, "rejected/train-00000-of-00001.parquet", rejected),), rejected.schema, "Rows left out, and why."
    )
    return Published(
        "little",
        3,
        (Config("default", files, ROWS.schema, "The rows to train on."), other),
        4,
        3,
        {"too_short": 1},
        sources=(SourceNote("alpaca", 3, 2, "cc-by-nc-4.0", "https://example.org/alpaca"), SourceNote("mine", 1, 1)),
        kept_generated=1,
        generated=0,
        pipeline="recovery",
        digest="sha256:12ab",
        models={"org/model": "commit 77"},
        libraries={"torch": "2.13"},
        meanings={"damage": "divergence, nats per token"},
    )


def header(text: str) -> dict:
    _, block, _ = text.split("---\n", 2)
    return yaml.safe_load(block)


def test_the_folder_loads_by_its_card(tmp_path):
    import datasets

    facts = published(tmp_path / "little")
    (tmp_path / "little/README.md").write_text(card(facts), encoding="utf-8")
    (tmp_path / "little/croissant.json").write_text(json.dumps(croissant(facts)), encoding="utf-8")
    loaded = datasets.load_dataset(str(tmp_path / "little"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"] and loaded["train"]["row_id"][:] == ["a1", "b2", "c3"]
    assert loaded["train"]["messages"][0] == [{"role": "user", "content": "1+1?"}]
    rejected = datasets.load_dataset(str(tmp_path / "little"), "rejected", split="train", cache_dir=str(tmp_path / "cache"))
    assert rejected.to_list() == [{"row_id": "d4", "rule": "too_short", "value": 3.0}]


def test_features_are_spelled_as_datasets_spells_them():
    import datasets

    assert features(ROWS.schema) == datasets.Features.from_arrow_schema(ROWS.schema)._to_yaml_list()


def test_header_lists_counts_and_files_of_both_configs(tmp_path):
    head = header(card(published(tmp_path)))
    assert [(c["config_name"], c["data_files"][0]["path"]) for c in head["configs"]] == [
        ("default", "data/train-*.parquet"),
        ("rejected", "rejected/train-*.parquet"),
    ]
    split = head["dataset_info"][0]["splits"][0]
    assert (split["name"], split["num_examples"]) == ("train", 3) and split["num_bytes"] > 0, "without all three `datasets` warns"
    assert head["tags"] == ["curate", "synthetic"] and head["size_categories"] == ["n<1K"]
    assert head["dataset_info"][0]["features"][-1] == {"name": "no", "dtype": "bool"}, "a column named `no` stays a name"


def test_the_card_tells_columns_sources_and_what_is_not_known(tmp_path):
    text = card(published(tmp_path))
    assert "| damage | float | divergence, nats per token |" in text
    assert "| mine | 1 | 1 | not stated | not stated |" in text
    assert "1 of 3 kept rows (33.3 %) were written by a model" in text
    assert "recipe digest `sha256:12ab`" in text and "| model | org/model | commit 77 |" in text
    assert "license" not in header(text), "two sources do not state one licence"


def test_one_licence_stated_by_all_sources_is_the_licence(tmp_path):
    facts = replace(published(tmp_path), sources=(SourceNote("a", 3, 2, "apache-2.0"), SourceNote("b", 1, 1, "apache-2.0")))
    assert header(card(facts))["license"] == "apache-2.0" == croissant(facts)["license"]


@pytest.mark.parametrize(
    "name", ["x | y |\n---\nconfigs: []", "<script>alert(1)</script>", "[a](javascript:alert(1))", "\x1b[31m \u202e", "`a`\n# b", "\ud800"]
)
def test_a_hostile_name_stays_a_name(tmp_path, name):
    facts = replace(
        published(tmp_path), name=name, sources=(SourceNote(name, 4, 3, name, name),), meanings={"damage": name}, models={name: name}
    )
    text, plain = (
        card(facts),
        card(replace(published(tmp_path), sources=(SourceNote("x", 4, 3, "x", "x"),), meanings={"damage": "x"}, models={"x": "x"})),
    )
    text.encode()
    body, plain_body = text.split("\n---\n", 1)[1], plain.split("\n---\n", 1)[1]
    assert header(text)["configs"] == header(plain)["configs"]
    assert body.count("\n") == plain_body.count("\n") and "<script" not in body and "](" not in body.replace("\\](", "")
    assert "\x1b" not in text and "\u202e" not in text
    json.dumps(croissant(facts), ensure_ascii=False).encode()


@pytest.mark.parametrize("shards", [1, 2])
def test_croissant_is_valid_and_its_records_can_be_read(tmp_path, shards):
    import mlcroissant

    facts = published(tmp_path, shards)
    (tmp_path / "croissant.json").write_text(json.dumps(croissant(facts)), encoding="utf-8")
    dataset = mlcroissant.Dataset(jsonld=tmp_path / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    records = list(dataset.records("default"))
    assert [record["default/row_id"] for record in records] == [b"a1", b"b2", b"c3"]
    assert records[0]["default/messages"] == [{"default/messages/role": b"user", "default/messages/content": b"1+1?"}]
    assert [record["rejected/value"] for record in dataset.records("rejected")] == [3.0]


def test_croissant_digests_are_those_of_the_files(tmp_path):
    files = [part for part in croissant(published(tmp_path))["distribution"] if part["@type"] == "cr:FileObject"]
    assert len(files) == 3
    for file in files:
        assert file["sha256"] == hashlib.sha256((tmp_path / file["contentUrl"]).read_bytes()).hexdigest()


def test_same_facts_give_the_same_bytes(tmp_path):
    facts = published(tmp_path)
    assert card(facts) == card(facts) and json.dumps(croissant(facts)) == json.dumps(croissant(facts))


def test_files_that_hold_other_counts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="publish again"):
        replace(published(tmp_path), kept=4)
