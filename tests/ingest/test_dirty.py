"""Every file of shared/data/dirty ends as tests/dirty_expected.yaml says, twice the same, and is not touched."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from curate.dataset import CANONICAL
from curate.errors import CurateError, UnreadableFile, UserMistake
from curate.ingest.files import Ingest, find_files, read_shards

ROOT = Path(__file__).resolve().parents[2]
DIRTY = ROOT.parent / "shared" / "data" / "dirty"
EXPECTED = YAML(typ="safe").load((ROOT / "tests" / "dirty_expected.yaml").read_text())
needs_dirty = pytest.mark.skipif(not DIRTY.is_dir(), reason="shared/data/dirty is not beside the checkout")


def outcome(path: Path) -> tuple[dict, list[str]]:
    """Counts as a run makes them (each file stands or falls whole), and the messages."""
    settings = Ingest(path=str(path))
    rows, rules, errors = 0, Counter[str](), []
    try:
        files = find_files(settings)
    except CurateError as error:
        files, errors = [], [error]
    for file in files:
        try:
            shards = list(read_shards(settings, file))
        except CurateError as error:
            errors.append(error)
            continue
        for shard in shards:
            rows += shard.num_rows
            rules.update(verdict["rule"] for verdict in shard.column("verdict").to_pylist() if verdict)
    mistake = len(errors) >= len(files) and any(type(error) is UserMistake for error in errors)
    counts = {
        "exit": 2 if mistake else 3 if errors or (rows >= 100 and sum(rules.values()) > settings.quarantine_max * rows) else 0,
        "rows_in": rows,
        "quarantined": dict(rules),
        "files_quarantined": 0 if mistake else len(errors),
    }
    return counts, [str(error) for error in errors]


def wanted(name: str, *path: str) -> dict:
    entry = EXPECTED[name]
    for key in path:
        entry = entry[key]
    return {key: entry[key] for key in ("exit", "rows_in", "quarantined", "files_quarantined")}


@needs_dirty
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_outcome_is_the_expected_one_both_times(name):
    counts, messages = outcome(DIRTY / name)
    assert counts == wanted(name)
    assert EXPECTED[name].get("message", "") in "".join(messages)
    assert (counts, messages) == outcome(DIRTY / name)
    assert bool(messages) == ("message" in EXPECTED[name])


@needs_dirty
def test_every_file_has_an_expectation_and_keeps_its_bytes():
    def digests():
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(DIRTY.rglob("*")) if path.is_file()}

    before = digests()
    assert {path.name for path in DIRTY.iterdir()} - {"README.md"} == set(EXPECTED)
    for name in EXPECTED:
        outcome(DIRTY / name)
    assert digests() == before


@needs_dirty
def test_good_rows_survive_and_bad_ones_do_not(read):
    for name in ("bad_lines", "invalid_utf8", "nul_bytes", "lone_surrogates", "bom_crlf", "line_separators"):
        path = DIRTY / f"{name}.jsonl"
        good = [row["source_id"] for row in read(path).good]
        ids = {row for row in good if row}
        assert all(found[0] in "ge" for found in ids), name
        assert len(good) == len(ids)
    assert [row["source_id"] for row in read(DIRTY / "bad_lines.jsonl").good] == ["g1", "g2", "g3", "g4"]
    assert read(DIRTY / "ragged.csv").bad == [(3, "ragged_row"), (4, "ragged_row"), (5, "unclosed_quote")]
    assert [row["source_id"] for row in read(DIRTY / "ragged.csv").good] == ["1", "5"]


@needs_dirty
def test_texts_are_kept_character_by_character(read):
    rows = {row["source_id"]: row["text"] for row in read(DIRTY / "scripts_and_marks.jsonl").good}
    assert (rows["nfc"], rows["nfd"]) == ("caf\u00e9 \u00c5 \ufb01", "cafe\u0301 A\u030a fi")
    assert read(DIRTY / "bom_crlf.jsonl").texts()[1] == "inner\r\nbreak kept"
    assert read(DIRTY / "nul_bytes.jsonl").texts()[1] == "escaped \x00 NUL"
    assert read(DIRTY / "null_text.parquet").texts() == ["NaN", "None", "a real sentence"]
    assert read(DIRTY / "embedded.csv").texts()[:2] == [
        'a value with\na line break, a comma and a "quote"',
        "second\r\n\r\nwith an empty line",
    ]


@needs_dirty
def test_kept_numbers_are_exact_and_ids_whole(read):
    kept = {
        row["source_id"]: row for row in read(DIRTY / "extreme_numbers.parquet", keep=("count", "score", "money", "when", "small")).rows
    }
    assert kept["n2"]["count"] == "9223372036854775807"
    assert kept["n0"]["score"] == "NaN"
    assert kept["n0"]["money"] == "99999999999999999999999999999999999.99"
    assert kept["n2"]["when"].startswith("9999-12-31 23:59:59")
    assert len({row["source_id"] for row in read(DIRTY / "long_ids.parquet").rows}) == 5
    nested = read(DIRTY / "nested_columns.parquet", keep=("meta", "deep")).rows
    assert (nested[4]["meta"], nested[3]["deep"]) == ('[["k","1"],["k","2"]]', "[[null]]")


@needs_dirty
def test_a_folder_unites_what_fits_whatever_the_names_of_its_files(tmp_path, read):
    for i, path in enumerate(sorted((DIRTY / "mixed_schema").iterdir(), reverse=True)):
        (tmp_path / f"{i}.parquet").write_bytes(path.read_bytes())
    counts, messages = outcome(tmp_path)
    assert counts == wanted("mixed_schema")
    assert messages[0].startswith("1.parquet: has no column")


@needs_dirty
def test_replacing_is_counted(read):
    found = read(DIRTY / "invalid_utf8.jsonl", invalid_utf8="replace")
    assert found.bad == []
    assert found.texts()[1] == "latin-1 caf\ufffd"
    assert json.loads(found.shards[0].schema.metadata[b"counts"]) == {"replaced_utf8": 4}


@pytest.mark.parametrize("text", ["word " * 1_000_000, "x" * 5_000_000], ids=["words", "one_word"])
def test_long_line(tmp_path, text):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"id": "long", "text": text}) + "\n" + json.dumps({"id": "after", "text": "the row after it"}) + "\n")
    assert outcome(path) == (wanted("long_line.HOWTO.txt", "made"), [])


def test_columns_of_a_shard(read_bytes):
    found = read_bytes("a.jsonl", '{"id": 9007199254740993, "text": "one", "n": 2.5}\n{\n', keep=("n", "absent"))
    (shard,) = found.shards
    assert shard.schema.names == [*CANONICAL.names, "n", "absent", "verdict"]
    assert shard.select(CANONICAL.names).schema.equals(CANONICAL)
    assert [row["source_id"] for row in found.rows] == ["9007199254740993", None]
    assert [(row["n"], row["absent"]) for row in found.rows] == [("2.5", None), (None, None)]
    assert found.rows[1]["row_id"] and found.rows[1]["text"] is None


def test_exit_codes_of_the_errors():
    assert (UserMistake.exit_code, UnreadableFile.exit_code) == (2, 3)
