"""`kill -9` of everything a run has started, at random moments, again and again: the bytes are those of an undisturbed run.

CURATE_KILLS sets the number of kills per engine (the soak: 20). The moments are drawn by a fixed seed.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))
from kills import kill_until, start

ROOT = Path(__file__).resolve().parents[1]
SCORERS = ROOT / "tests" / "scorers_for_tests"
KILLS = {"inline": int(os.environ.get("CURATE_KILLS", 24)), "ray": int(os.environ.get("CURATE_KILLS", 6))}

pytestmark = pytest.mark.slow


def killable(project: Any) -> None:
    """Six shards with duplicates and a bad line; a fit, row-local stages, a selection; a rest in every shard of one stage."""
    for file in range(3):
        rows = [
            {"text": f"row {row} of file {file % 2}: " + " ".join(f"w{(row * 7 + word) % 97}" for word in range(30))} for row in range(120)
        ]
        project.file(f"{file}.jsonl", *rows)
    with (project.data / "0.jsonl").open("a") as file:
        file.write("{\n")
    project.recipe(
        ingest={"shard_rows": 60, "quarantine_max": 1.0},
        scorers=["slow", "length"],
        scorer_path=str(SCORERS),
        slow={"seconds": 0.15},
        select={"budget": 100, "by": "words"},
    )


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_any_number_of_kills_leaves_the_bytes_of_an_undisturbed_run(project, engine):
    killable(project)
    command = ["run", str(project.path), "--run-dir", "run", "--engine", engine]
    began = time.monotonic()
    assert start(project.folder, command).wait(timeout=300) == 0, (project.folder / "log.txt").read_text()
    usual = time.monotonic() - began
    run = project.folder / "run"
    run.rename(project.folder / "undisturbed")

    found = kill_until(
        project.folder, command, KILLS[engine], usual, random.Random(f"kill {engine}"),
        same=lambda: project.tree() == project.tree("undisturbed"), again=lambda complete: run.rename(project.folder / f"complete-{complete}"),
    )  # fmt: skip
    assert found.wrong == [] and found.kills == KILLS[engine]
    assert project.tree() == project.tree("undisturbed")
    assert "Traceback" not in (project.folder / "log.txt").read_text()
    assert list((run / "tmp").iterdir()) == []
    assert [path.name for path in run.rglob("*.attempt")] == []


def test_a_killed_worker_costs_its_shard_once_more_and_no_bytes(project, cluster):
    """Workers are killed from outside while they hold a shard: the run goes on, nothing is set aside."""
    from curate.engine import OnRay

    killable(project)
    project.run("undisturbed")
    engine = OnRay(workers=2)
    make_pool, begun, killed = engine._pool, [], []

    def kill(worker: Any) -> None:
        engine.ray.kill(worker)
        killed.append(worker)

    def pool_that_loses_one(resources: Any, size: int) -> list[Any]:
        known = set(engine.pools)
        pool = make_pool(resources, size)
        # Once for a new pool, in the moment after its worker was given a shard and before its process can have answered:
        # the replacement lives, for a second death of one shard is another matter.
        if set(engine.pools) != known:
            begun.append(threading.Timer(0.1, kill, (pool[-1],)))
            begun[-1].start()
        return pool

    engine._pool = pool_that_loses_one  # type: ignore[method-assign]
    try:
        facts = project.with_engine(engine)
    finally:
        for timer in begun:
            timer.join()
        engine.close()
    assert killed
    assert facts["quarantined"] == 1  # the line that was bad from the start
    assert project.tree() == project.tree("undisturbed")
