"""`kill -9` of the real command and of everything it has started, at random moments, in chains. Used by tests and by the soak."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(folder: Path, command: list[str]) -> subprocess.Popen[bytes]:
    """The real command in `folder`, in a process group of its own, which everything it starts belongs to; it writes to log.txt."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "log.txt").open("ab") as log:
        whole = [sys.executable, "-m", "curate.cli", *command]
        return subprocess.Popen(whole, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def in_group(group: int) -> list[int]:
    """Processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


@dataclass
class Killed:
    """kills: how many; complete: undisturbed ends in between; moments: seconds after the start; wrong: what was not as it has to be"""

    kills: int = 0
    complete: int = 0
    moments: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def kill_until(
    folder: Path,
    command: list[str],
    kills: int,
    usual: float,
    draw: random.Random,
    same: Callable[[], bool],
    again: Callable[[int], None],
    chain: int = 5,
) -> Killed:
    """Kill the command so many times, at moments from its first to nearly its last; after `chain` kills in a row it is left to end.

    usual   seconds that it takes undisturbed; one that ends before its kill moves that halfway to its own time
    same    whether the bytes are those of an undisturbed run;  again   prepare the folder for the next, told how many ended
    """
    found, in_a_row, late = Killed(), 0, 0
    while found.kills < kills or in_a_row:
        process = start(folder, command)
        last = in_a_row >= chain or found.kills >= kills
        began, moment = time.monotonic(), draw.uniform(0.3, 0.95 * usual)
        try:
            ended = process.wait(timeout=300 if last else moment)
            if ended == 0 and not in_a_row:
                usual = (usual + time.monotonic() - began) / 2
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            found.kills, in_a_row = found.kills + 1, in_a_row + 1
            found.moments.append(round(moment, 2))
            deadline = time.monotonic() + 30
            while in_group(process.pid) and time.monotonic() < deadline:
                time.sleep(0.02)
            if left := in_group(process.pid):
                found.wrong.append(f"processes {left} live on")
            continue
        if ended == 75 and late < 3:  # on a machine that is too busy Ray may not start: the command says to try later
            late += 1
            continue
        if ended != 0:
            found.wrong.append(f"exit code {ended} after kills at {found.moments[-in_a_row:]}: {(folder / 'log.txt').read_text()[-1500:]}")
            return found
        if not same():
            found.wrong.append(f"other bytes after kills at {found.moments[-in_a_row:]}")
        found.complete, in_a_row = found.complete + 1, 0
        if found.kills < kills:
            again(found.complete)
    return found
