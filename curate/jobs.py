"""Jobs that take minutes, in worker processes of one thread each; every finished one is a line of a JSONL file.

An experiment goes on where it was stopped, in as many sittings as it needs: a job is named by what decides its outcome, and
one whose name is in the file is not done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from curate.errors import UserMistake
from curate.stopping import check_stop


class Worker(Protocol):
    """What a worker process holds: made once by it, then asked for one job after the other."""

    def run(self, job: Any) -> dict[str, Any]:
        """The record of a job: plain values, for JSON."""


class Results:
    """A file of finished jobs, one JSON object per line; a line that a kill cut short is passed over."""

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[str, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.is_file() else ():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.found[record["key"]] = record

    def add(self, record: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.is_file() and self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a") as file:
            file.write(("\n" if torn else "") + json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.found[record["key"]] = record


_worker: Worker | None = None  # of this worker process


def _begin(make: Any, arguments: tuple[Any, ...]) -> None:
    import signal

    from curate.engine import set_threads

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    set_threads(1)
    global _worker
    _worker = make(*arguments)


def _run(job: Any) -> dict[str, Any]:
    assert _worker is not None
    return _worker.run(job)


def run_jobs(
    jobs: Mapping[str, Any], make: Any, arguments: tuple[Any, ...], results: Results, workers: int = 1
) -> Iterator[dict[str, Any]]:
    """The record of each job (its key -> the job), as they are done; each is on the disk before it is given.

    make, arguments   a class or function of a module, and what makes a `Worker` of it in each process
    """
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import active_children, get_context

    if not jobs:
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _begin, (make, arguments))
    try:
        futures = {pool.submit(_run, job): key for key, job in jobs.items()}
        while futures:
            done, _ = wait(futures, timeout=0.5, return_when=FIRST_COMPLETED)
            check_stop()
            for future in sorted(done, key=lambda future: future.exception() is not None):  # a failure must not take finished ones with it
                record = {"key": futures.pop(future), **future.result()}
                results.add(record)
                yield record
    except BaseException as error:
        for child in active_children():  # a training under way would go on for minutes
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise UserMistake(
                "a training process died, of too little memory as a rule: give fewer --workers; what is finished is kept"
            ) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)
