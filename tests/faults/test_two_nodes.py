"""One recipe on a cluster of two nodes, of which one dies in the middle of a stage: the bytes are those of a run in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCORERS = ROOT / "tests" / "scorers_for_tests"


@pytest.mark.slow
def test_a_node_that_dies_costs_its_shard_once_more_and_no_bytes(project):
    for number in range(8):
        project.file(f"{number}.jsonl", *[f"row {row} of file {number} has its own words {row * 31 + number}" for row in range(20)])
    project.recipe(scorers=["slow", "length"], scorer_path=str(SCORERS), slow={"seconds": 1.0}, select={"budget": 90, "by": "words"})
    project.run("here", changes=("slow.seconds=0.0",))
    script = Path(__file__).with_name("two_nodes.py")
    done = subprocess.run(
        [sys.executable, str(script), str(project.path), str(project.folder / "run"), "slow"],
        capture_output=True, text=True, cwd=project.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["killed_after"] and told["killed_after"][0] < 8 and told["quarantined"] == 0
    assert project.tree() == project.tree("here")
