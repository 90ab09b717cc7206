"""Die at the k-th storage operation, for every k, and look whether the same command comes to the bytes of an undisturbed run.

A point is (k, way): the process ends at its k-th operation, before it, after it, or with half of it done. Each runs in a fork of a process that has
imported everything and computed nothing, so that a death is a death (no `finally`, no exit handler) and costs milliseconds. The recovery is another
fork, undisturbed. Used by tests and by the soak; from the command line it prints one line of JSON:

    python crash_points.py FOLDER run|refresh before|after|torn|full [SEED]
"""

from __future__ import annotations

import builtins
import errno
import hashlib
import importlib
import io
import json
import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WAYS = ("before", "after", "torn")
DIED, WRONG = 77, 78
WORDS = ["granite", "chalk", "slate", "moss", "fern", "oak", "hen", "fox", "cat", "lake", "river", "stone", "seven", "eight", "nine"]


def warm() -> None:
    """Import what a run needs, so that every fork has it; nothing is computed, no thread is started."""
    for name in (
        "filelock", "jinja2", "numpy", "pandas", "pyarrow.acero", "pyarrow.compute", "pyarrow.dataset", "pyarrow.parquet", "ruamel.yaml", "scipy.sparse.csgraph", "scipy.stats",
        "curate.dedup.lexical", "curate.ingest.files", "curate.pipeline", "curate.plan", "curate.publish.dataset", "curate.report.facts", "curate.report.geometry",
        "curate.runs", "curate.score.length", "curate.score.tokens", "curate.select.budget",
    ):  # fmt: skip
        importlib.import_module(name)
    import threadpoolctl

    from curate.fingerprint import versions

    versions()  # read from the disk once
    threadpoolctl.threadpool_limits = lambda **_: None  # a tenth of a small run; one thread is what the environment says


class Shim:
    """Counts storage operations and ends the process at one of them. `error`: raise this instead, once (a full disk)."""

    def __init__(
        self, at: int, way: str = "before", error: Callable[[], Exception] | None = None, root: str = "", only_growing: bool = False
    ):
        self.at, self.way, self.error, self.root, self.only_growing, self.count = at, way, error, root, only_growing, 0

    def _op(self, do: Callable[[], Any], torn: Callable[[Any], None] | None = None) -> Any:
        self.count += 1
        if self.count != self.at:
            return do()
        if self.error is not None:
            raise self.error()
        try:
            if self.way != "before":
                result = do()
                if self.way == "torn" and torn is not None:
                    torn(result)
        finally:  # also where the operation itself fails: a file that is not there to be removed
            os._exit(DIED)

    def install(self) -> None:
        # Removing something and renaming a file need no room.
        for name in (
            ("mkdir", "symlink", "link")
            if self.only_growing
            else ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "symlink", "link")
        ):
            setattr(os, name, self._wrapped(getattr(os, name)))
        # Nothing is synced, which is half the time of a small run: what a power cut would lose is another test's question.
        os.fsync = lambda handle: self._op(lambda: None, lambda _: _half(handle))  # type: ignore[assignment]
        opened = io.open

        def open_file(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            if isinstance(mode, str) and set(mode) & set("wax+") and str(file).startswith(self.root):
                return self._op(lambda: opened(file, mode, *rest, **options))
            return opened(file, mode, *rest, **options)

        io.open = builtins.open = open_file  # type: ignore[assignment]
        import pyarrow.parquet as pq

        close = pq.ParquetWriter.close

        def close_writer(writer: Any) -> None:
            if writer.is_open:
                self._op(lambda: close(writer), lambda _: os.truncate(writer.where, Path(writer.where).stat().st_size // 2))

        made = pq.ParquetWriter.__init__

        def make(writer: Any, where: Any, *rest: Any, **options: Any) -> None:
            writer.is_open = False
            self._op(lambda: made(writer, where, *rest, **options))
            writer.where = str(where)

        pq.ParquetWriter.close, pq.ParquetWriter.__init__ = close_writer, make

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **options: self._op(lambda: function(*given, **options))


def _half(handle: int) -> None:
    """Only half of the bytes have reached the disk."""
    try:
        os.ftruncate(handle, os.fstat(handle).st_size // 2)
    except OSError:  # a folder, or opened for reading
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)


def in_fork(work: Callable[[], None], log: Path) -> int:
    """Exit code of `work` in a fork of this process: 0, DIED, WRONG (an exception, written to `log`)."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        work()
    except BaseException:
        with log.open("w") as file:
            traceback.print_exc(file=file)
        os._exit(WRONG)
    os._exit(0)


def state(run: Path) -> dict[str, str]:
    """Path -> digest of what must come out the same: tables, published files, records of versions without times."""
    found = {}
    for path in sorted(run.rglob("*")):
        at = path.relative_to(run).as_posix()
        if path.is_file() and (
            at.endswith((".parquet", "CHANGES.md", "croissant.json")) or (at.startswith("versions/") and at.endswith("README.md"))
        ):
            found[at] = hashlib.sha256(path.read_bytes()).hexdigest()
    found["dataset"] = str((run / "dataset").readlink()) if (run / "dataset").is_symlink() else ""
    return found


def leftovers(run: Path) -> list[str]:
    """What nobody should leave behind: attempts, asides, loose records."""
    return [
        path.relative_to(run).as_posix()
        for path in run.rglob("*")
        if path.name.endswith((".attempt", ".record"))
        or (path.name.startswith(".") and path.name.count(".") > 2)
        or path.parent.name == "tmp"
    ]


@dataclass
class Outcome:
    points: int = 0
    operations: int = 0
    wrong: list[str] = field(default_factory=list)


def enumerate_points(
    start: Path,
    command: Callable[[Path], None],
    expected: dict[str, str],
    work: Path,
    ways: tuple[str, ...] = WAYS,
    only: Callable[[int], bool] = lambda k: True,
) -> Iterator[Outcome]:
    """Die at every operation of `command(folder)`, run on a copy of `start`; the outcome so far, point by point.

    expected   `state` after an undisturbed command
    only       which k to try (a share of them, for a second process)
    """
    outcome, folder = Outcome(), work / "run"
    for way in ways:
        at = 0
        while True:
            at += 1
            if not only(at):
                if at > outcome.operations > 0:
                    break
                continue
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(start, folder, symlinks=True)
            code = in_fork(lambda at=at, way=way: _dying(command, folder, at, way), work / "log.txt")  # type: ignore[misc]
            if code == 0:
                outcome.operations = at - 1
                break
            outcome.points += 1
            where = f"{way} operation {at}"
            if code != DIED:
                outcome.wrong.append(f"{where}: the command failed by itself: {(work / 'log.txt').read_text()[-2000:]}")
            elif (code := in_fork(lambda: command(folder), work / "log.txt")) != 0:
                outcome.wrong.append(f"{where}: the recovery failed ({code}): {(work / 'log.txt').read_text()[-2000:]}")
            elif (found := state(folder)) != expected:
                differing = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
                outcome.wrong.append(f"{where}: other bytes in {sorted(differing)[:5]}")
            elif left := leftovers(folder):
                outcome.wrong.append(f"{where}: left behind {left[:5]}")
            yield outcome


def _dying(command: Callable[[Path], None], folder: Path, at: int, way: str) -> None:
    Shim(at, way, root=str(folder)).install()
    command(folder)


def project(folder: Path, seed: int = 0) -> None:
    """Two small files, a duplicate, a bad line; scored, selected, published. The seed draws words and how many rows there are."""
    (folder / "data").mkdir(parents=True)
    draw = random.Random(seed)
    rows = [
        f"row {row} has words and more words {' '.join(draw.choices(WORDS, k=draw.randrange(1, 9)))}" for row in range(draw.randrange(3, 9))
    ]
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


def _main(memory: Path, name: str, way: str, seed: int = 0) -> None:
    warm()
    base = memory / name / f"{way}-{seed}"
    base.mkdir(parents=True)
    project(base, seed)
    (base / "work").mkdir()
    start, first, again = base / "start", command(base, False), command(base, True)
    start.mkdir()
    if name == "refresh":  # a version to follow; then a file comes, and one changes
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
    _main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
