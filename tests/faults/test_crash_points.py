"""A death, or a full disk, at every storage operation of a run and of a refresh: the same command then comes to the bytes of an undisturbed one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from crash_points import DIED, WAYS, Outcome, Shim, enumerate_points, in_fork, leftovers, state, warm

pytestmark = pytest.mark.slow

# Every operation, before, after and in the middle of it: more than a thousand deaths over the two commands.
LEAST_POINTS = 1000


def project(folder: Path) -> None:
    """Two small files, a duplicate, a bad line; scored, selected, published."""
    (folder / "data").mkdir(parents=True)
    rows = [f"row {row} has words and more words {row * 7 % 5}" for row in range(4)]
    lines = {"1.jsonl": rows, "2.jsonl": [rows[1], "another text with a few words"]}
    for name, texts in lines.items():
        (folder / "data" / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "{\n" * (name == "2.jsonl"))
    (folder / "recipe.yaml").write_text(
        f"pipeline: ingest\nscorers: [length]\ningest: {{path: {folder / 'data'}, quarantine_max: 1.0}}\nselect: {{budget: 3, by: words}}\n"
        "refresh: {keep_versions: 1}\n"
    )


def command(folder: Path, refresh: bool):
    def run(at: Path) -> None:
        from curate.pipeline import execute

        execute(folder / "recipe.yaml", at, "inline", refresh=refresh)

    return run


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: the operations are counted, not waited for."""
    where = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield Path(folder)


def in_fresh_process(memory: Path, name: str, way: str) -> dict:
    """The enumeration, in a process that has computed nothing: forks of one that runs threads may hang."""
    done = subprocess.run([sys.executable, __file__, str(memory), name, way], capture_output=True, text=True, timeout=1500)
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


def _main(memory: Path, name: str, way: str) -> None:
    warm()
    base = memory / name / way
    base.mkdir(parents=True)
    project(base)
    (base / "work").mkdir()
    start, first, again = base / "start", command(base, False), command(base, True)
    start.mkdir()
    if name == "refresh":  # a version to follow; then a file comes, one changes, one goes
        assert in_fork(lambda: first(start), base / "log.txt") == 0, (base / "log.txt").read_text()
        (base / "data" / "3.jsonl").write_text(
            json.dumps({"text": "a third file has come with more words than any other row of them"}) + "\n"
        )
        (base / "data" / "2.jsonl").write_text(json.dumps({"text": "another text with a few words, and changed"}) + "\n")
    run = again if name == "refresh" else first
    good = base / "good"
    shutil.copytree(start, good, symlinks=True)
    assert in_fork(lambda: run(good), base / "log.txt") == 0, (base / "log.txt").read_text()
    expected = state(good)
    outcome = Outcome()
    if way == "full":
        outcome = _full_disk(start, run, expected, base / "work")
    else:
        for outcome in enumerate_points(start, run, expected, base / "work", (way,)):
            if len(outcome.wrong) > 5:
                break
    print(json.dumps({"points": outcome.points, "operations": outcome.operations, "wrong": outcome.wrong}))


def _full_disk(start: Path, run, expected: dict[str, str], work: Path) -> Outcome:
    """The disk is full at the k-th operation, for every k: exit code 6 or an undisturbed end, never another error; then there is room again."""
    from curate.errors import DiskFull

    outcome, at = Outcome(), 0
    while True:
        at += 1
        folder = work / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder, symlinks=True)

        def full(at: int = at, folder: Path = folder) -> None:
            shim = Shim(at, root=str(folder), error=lambda: OSError(errno.ENOSPC, "No space left on device"), only_growing=True)
            shim.install()
            try:
                run(folder)
            except DiskFull as error:
                assert str(folder) in str(error) and "bytes free" in str(error), error
            else:
                if shim.count < at:
                    os._exit(DIED)  # beyond the last operation

        code = in_fork(full, work / "log.txt")
        if code == DIED:
            outcome.operations = at - 1
            return outcome
        outcome.points += 1
        if code != 0:
            outcome.wrong.append(f"operation {at}: not said as a full disk: {(work / 'log.txt').read_text()[-1500:]}")
        elif (code := in_fork(lambda folder=folder: run(folder), work / "log.txt")) != 0:  # type: ignore[misc]
            outcome.wrong.append(f"operation {at}: the recovery failed: {(work / 'log.txt').read_text()[-1500:]}")
        elif (found := state(folder)) != expected:
            differing = sorted(name for name in {**found, **expected} if found.get(name) != expected.get(name))
            outcome.wrong.append(f"operation {at}: other bytes in {differing[:5]}")
        elif left := leftovers(folder):
            outcome.wrong.append(f"operation {at}: left behind {left[:5]}")
        if len(outcome.wrong) > 5:
            return outcome


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
