"""A death, or a full disk, at every storage operation of a run and of a refresh: the same command then comes to the bytes of an undisturbed one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LEAST_POINTS = 1000


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: the operations are counted, not waited for."""
    where = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield Path(folder)


# Dying halfway through an operation, or after it where it has no half; and a disk that is full at it. The soak also dies before each.
UNITS = (("refresh", "torn"), ("run", "torn"), ("refresh", "full"), ("run", "full"))


@pytest.fixture(scope="module")
def outcomes(memory) -> dict[tuple[str, str], dict]:
    """Each enumeration in a process that has computed nothing (forks of one that runs threads may hang), two at a time."""

    def outcome(unit: tuple[str, str]) -> dict:
        script = Path(__file__).with_name("crash_points.py")
        done = subprocess.run([sys.executable, str(script), str(memory), *unit], capture_output=True, text=True, timeout=3000)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(UNITS, pool.map(outcome, UNITS), strict=True))


@pytest.mark.parametrize("unit", UNITS, ids=" ".join)
def test_every_operation_can_be_the_last(outcomes, unit):
    assert outcomes[unit]["wrong"] == []
    assert outcomes[unit]["points"] >= 50


def test_there_were_a_thousand_of_them(outcomes):
    assert sum(found["points"] for found in outcomes.values()) >= LEAST_POINTS
