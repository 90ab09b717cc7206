"""The same bytes from both engines and for any number of workers, on real instruction rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from curate.store import Records

pytestmark = pytest.mark.slow

FILES = ("instruct_pool_t0.parquet", "instruct_pool_other.parquet")


@pytest.fixture(scope="module")
def pool(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe over both pools: eight shards of up to 7,700 rows from two sources."""
    folder = tmp_path_factory.mktemp("bytes")
    missing = [name for name in FILES if not (shared / "data" / name).exists()]
    if missing:
        pytest.skip(f"../shared/data has no {missing[0]}")
    (folder / "recipe.yaml").write_text(
        f"""pipeline: ingest
scorers: [length, heuristics]
ingest:
  sources:
    - {{name: t0, path: {shared / "data" / FILES[0]}, priority: 1}}
    - {{name: other, path: {shared / "data" / FILES[1]}, priority: 0}}
  shard_rows: 7700
embed: {{method: hashed, dimensions: 64}}
heuristics: {{max_hash_words: 0.5, max_duplicate_lines: 0.6}}
select: {{budget: 0.2, unit: tokens, by: words, groups: source}}
"""
    )
    return folder


def run(folder: Path, name: str, engine: str, workers: int | None = None) -> dict[str, Any]:
    """Run in a folder of its own; every step's shards must have been executed there, none taken from elsewhere."""
    from curate.pipeline import execute

    facts = execute(folder / "recipe.yaml", folder / name, engine, workers=workers)
    steps = json.loads((folder / name / "run.json").read_text())["steps"]
    assert {step["name"]: step["reused"] for step in steps if step["reused"]} == {}
    places = [path.parent for path in (folder / name / "stages").rglob("manifest.jsonl")]
    sources = {record.get("source", "executed") for place in places for record in Records(place).by_shard.values()}
    assert sources - {"other", "t0"} == {"executed"}
    assert sum(len(record["shards"]) for record in records_of(folder / name, "ingest")) == 8
    return facts


def records_of(run_folder: Path, step: str) -> list[dict[str, Any]]:
    return list(Records(run_folder / "stages" / step).by_shard.values())


@pytest.fixture(scope="module")
def inline(pool: Path) -> dict[str, Any]:
    return run(pool, "inline", "inline")


def test_the_run_is_worth_comparing(inline):
    """All 54,839 rows, with duplicates and drops, and a good part kept."""
    assert inline["rows_in"] == 54_839
    assert inline["dropped"]["exact_duplicate"] >= 923
    assert inline["dropped"]["near_duplicate"] > 500
    assert inline["kept"] > 1000


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_ray_gives_the_bytes_of_inline(pool, inline, cluster, tree_of, workers):
    facts = run(pool, f"ray-{workers}", "ray", workers)
    assert {key: facts[key] for key in ("rows_in", "kept", "dropped", "quarantined")} == {
        key: inline[key] for key in ("rows_in", "kept", "dropped", "quarantined")
    }
    assert tree_of(pool / f"ray-{workers}") == tree_of(pool / "inline")
    shutil.rmtree(pool / f"ray-{workers}")
