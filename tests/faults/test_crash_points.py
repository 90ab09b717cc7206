"""A death, or a full disk, at every storage operation of a run and of a refresh: the same command then comes to the bytes of an undisturbed one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from crash_points import WAYS

pytestmark = pytest.mark.slow

# Every operation, before, after and in the middle of it: more than a thousand deaths over the two commands.
LEAST_POINTS = 1000


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: the operations are counted, not waited for."""
    where = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield Path(folder)


def in_fresh_process(memory: Path, name: str, way: str) -> dict:
    """The enumeration, in a process that has computed nothing: forks of one that runs threads may hang."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("crash_points.py")), str(memory), name, way],
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


counted: dict[str, int] = {}


@pytest.mark.parametrize("way", [*WAYS, "full"])
@pytest.mark.parametrize("name", ["run", "refresh"])
def test_every_operation_can_be_the_last(memory, name, way):
    found = in_fresh_process(memory, name, way)
    counted[f"{name} {way}"] = found["points"]
    assert found["wrong"] == []
    assert found["points"] >= 100


def test_there_were_a_thousand_of_them():
    if len(counted) < 8:
        pytest.skip("only some of the enumerations ran")
    assert sum(counted.values()) >= LEAST_POINTS, counted
