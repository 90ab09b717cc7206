"""`curate verify`: every lost bit and every cut in what a run has committed is found and named; what can be made again is."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from curate.bad_byte import first_bad_byte
from curate.store import Records, hashed
from curate.verify import Fault, remove, verify

FLIPS, CUTS = int(os.environ.get("CURATE_FLIPS", 400)), int(os.environ.get("CURATE_CUTS", 100))
TEXTS = [f"row {row} says {' '.join(f'w{(row * 13 + word) % 61}' for word in range(20))}" for row in range(40)]


@pytest.fixture
def done(project):
    """A run of two versions: shards, artifacts, records, a retired file, published data."""
    project.file("a.jsonl", *TEXTS[:20])
    project.file("b.jsonl", *TEXTS[20:], TEXTS[3])
    project.recipe(ingest={"shard_rows": 10}, scorers=["length"], select={"budget": 25, "by": "words"})
    project.run()
    project.file("c.jsonl", *TEXTS[:5], " ".join(f"something new {word}" for word in range(20)))
    project.run(refresh=True)
    return project


def committed(run: Path) -> list[Path]:
    """Everything that a record vouches for, and the records."""
    tops = ("corpus", "stages", "versions")
    return sorted(path for top in tops for path in (run / top).rglob("*") if path.is_file() and path.stat().st_size)


def keeping_time(path: Path, content: bytes) -> None:
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_run_as_it_was_left_has_no_fault(done):
    assert list(verify(done.folder / "run")) == []


def faults(run: Path) -> list[Fault]:
    return list(verify(run))


def test_every_lost_bit_is_found_and_the_byte_named(done):
    run, draw = done.folder / "run", random.Random(0)
    files = committed(run)
    kinds = set()
    for turn in range(FLIPS):
        path = files[turn % len(files)]
        content = path.read_bytes()
        place = draw.randrange(len(content))
        harmed = bytearray(content)
        harmed[place] ^= 1 << draw.randrange(8)
        keeping_time(path, bytes(harmed))
        found = faults(run)
        at = path.relative_to(run).as_posix()
        assert [fault.at for fault in found] == [at], (at, place, found)
        if path.suffix not in (".jsonl", ".json") or "artifact-" in at:
            assert f"byte {place:,}" in found[0].what, (at, place, found)
        kinds.add(path.suffix)
        keeping_time(path, content)
    assert {".parquet", ".decision", ".json", ".jsonl", ".md"} <= kinds
    assert faults(run) == []


def test_every_cut_is_found(done):
    run, draw = done.folder / "run", random.Random(1)
    files = committed(run)
    for turn in range(CUTS):
        path = files[turn % len(files)]
        content = path.read_bytes()
        keeping_time(path, content[: draw.randrange(len(content))])
        assert path.relative_to(run).as_posix() in {fault.at for fault in faults(run)}, path
        keeping_time(path, content)


@pytest.mark.parametrize(
    "missing", ["corpus/00000-0001.parquet", "stages/length/00001-0000.parquet", "stages/select/artifact.json", "versions/2/README.md"]
)
def test_what_is_missing_is_named(done, missing):
    (done.folder / "run" / missing).unlink()
    found = faults(done.folder / "run")
    assert missing in {fault.at for fault in found} or missing == "stages/select/artifact.json"


def test_what_was_harmed_is_made_again_and_nothing_else(done):
    """One harmed file after the other: `verify --remove`, then the refresh; the touched shard and what hangs on it run, and the bytes are back."""
    run = done.folder / "run"
    before = done.tree()
    shards = len(Records(run / "stages" / "tokens").by_shard)
    for path in committed(run):
        at = path.relative_to(run).as_posix()
        if at.startswith("versions/1") or at.endswith((".rows.parquet", ".changes.parquet")):
            continue  # of an earlier version; see the next test
        content = path.read_bytes()
        harmed = bytearray(content)
        harmed[len(harmed) // 2] ^= 16
        keeping_time(path, bytes(harmed))
        remove(run, faults(run))
        done.run(refresh=True)
        ran = done.executed()
        within_a_fit = at.startswith("stages/shingles")  # made when it is needed
        assert {name: content for name, content in before.items() if not within_a_fit or name != at} == done.tree(), at
        assert all(count <= 2 for step, count in ran.items()) or "artifact" in at, (at, ran, shards)
        assert faults(run) == [], at
        if within_a_fit:
            path.write_bytes(content)


def test_what_cannot_be_made_again_is_left_and_said(done):
    run = done.folder / "run"
    path = run / "versions/1.rows.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    told = done.curate("verify", "run", "--remove", "--json")
    (fault,) = json.loads(told.stdout.splitlines()[-1])["faults"]
    assert told.returncode == 1 and (fault["at"], fault["remove"]) == ("versions/1.rows.parquet", False) and path.exists()


def test_removing_all_that_was_harmed_is_a_success_that_a_run_may_follow(done):
    path = next(path for path in committed(done.folder / "run") if path.parent.name == "length" or "/stages/tokens/" in str(path))
    path.write_bytes(path.read_bytes()[:-1])
    assert done.curate("verify", "run", "--json").returncode == 1 and path.exists()
    told = done.curate("verify", "run", "--remove", "--json")
    assert told.returncode == 0 and json.loads(told.stdout.splitlines()[-1])["exit_code"] == 0 and not path.exists()


def test_what_the_next_run_mends_as_it_is_stops_no_run(done):
    path = done.folder / "run" / "stages" / "tokens" / "manifest.jsonl"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    assert done.curate("verify", "run").returncode == 1
    assert done.curate("verify", "run", "--remove").returncode == 0
    done.run(refresh=True)
    assert faults(done.folder / "run") == []


def test_a_ledger_that_does_not_add_up_is_told(done):
    from curate.store import read_json, write_json

    facts = read_json(done.folder / "run/run.json")
    facts["counts"]["kept"] += 1
    write_json(done.folder / "run/run.json", facts)
    (fault,) = faults(done.folder / "run")
    assert "kept 26" in fault.what and "25" in fault.what


def test_published_rows_that_are_not_the_kept_ones_are_told(done):
    """Both files whole, but not of one state: a copy of another version under this version's name."""
    run = done.folder / "run"
    from curate.store import read_json, write_json

    shutil.rmtree(run / "versions/2/data")
    shutil.copytree(run / "versions/1/data", run / "versions/2/data")
    record = read_json(run / "versions/2.json")
    one = read_json(run / "versions/1.json")
    record["files"] |= {name: about for name, about in one["files"].items() if name.startswith("data/")}
    write_json(run / "versions/2.json", record)
    found = faults(run)
    assert any("not the rows that the verdicts keep" in fault.what for fault in found)


def test_rows_of_a_generator_that_the_recipe_has_no_more_are_no_fault(project):
    """They were published in version 1; version 2 has none, and neither the records nor the ledger miss them."""
    project.file("a.jsonl", *TEXTS[:10], *(f"She said to her brother that row {row} was hers" for row in range(5)))
    pipeline = project.folder / "generating.py"
    pipeline.write_text(
        """
from curate.dataset import union

STEPS = {"ingest": "ingest.settings", "antidote": "generate.antidote?", "select": "select.budget", "publish": "publish.dataset"}


def generating(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    rows = union(docs, *([run.step("antidote", recipe.antidote, docs)] if recipe.has("antidote") else []))
    scores = [run.step(name, stage, rows) for name, stage in recipe.scorers_of("text")]
    run.step("select", recipe.select, run.everything(rows), *scores)
    run.publish(recipe.publish, rows, *scores)
"""
    )
    recipe = {"pipeline": f"{pipeline}:generating", "scorers": ["length"], "select": {"budget": 1.0, "unit": "rows"}}
    project.recipe(**recipe, antidote={"when": {}})
    assert project.run()["generated"] == 5 and faults(project.folder / "run") == []
    project.recipe(**recipe)
    assert project.run(refresh=True)["generated"] == 0
    assert faults(project.folder / "run") == []
    assert not list((project.folder / "run/corpus").glob("*antidote*"))


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 262_144, 1_000_003])
def test_a_harmed_byte_is_found_by_its_block(tmp_path, size):
    path, draw = tmp_path / "file", random.Random(size)
    content = draw.randbytes(size)
    path.write_bytes(content)
    _, blocks = hashed(path)
    assert len(blocks) <= 64 * 8 and first_bad_byte(path, size, blocks) == "no byte"
    for place in {0, size - 1, draw.randrange(size)}:
        harmed = bytearray(content)
        harmed[place] ^= draw.randrange(1, 256)
        path.write_bytes(bytes(harmed))
        assert first_bad_byte(path, size, blocks) == f"byte {place:,}"
    path.write_bytes(content[: size // 2])
    assert f"byte {size // 2:,} is missing" in first_bad_byte(path, size, blocks)
    path.write_bytes(content + b"x")
    assert f"byte {size:,} on is too much" in first_bad_byte(path, size, blocks)
