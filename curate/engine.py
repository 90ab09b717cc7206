"""Where shards are computed: in this process, or on Ray. The only module that imports Ray.

One verb: `map(function, job, tasks, resources)` runs `function(job, task)` for every task and yields
(task, result) as they finish. Both engines keep one conformance suite (tests/test_engine.py).

Why Ray Core actors and not Ray Data: on 2.60 a poison row loses its block, a crashing row is retried
without limit, files get random names and shuffled rows, and two one-CPU actors deadlock two cores.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from curate.errors import EngineUnavailable, InternalError, UserMistake
from curate.stage import Resources
from curate.stopping import check_stop


class Task(Protocol):
    """One shard's worth of work. A task of 0 rows cannot be narrowed (a whole source file, for one)."""

    @property
    def rows(self) -> int: ...

    def only(self, start: int, end: int) -> Any: ...

    def without(self, positions: tuple[int, ...], why: str) -> Any: ...

    def smaller(self, job: Any) -> Any: ...


T = TypeVar("T", bound=Task)
Results = Iterator[tuple[T, Any]]
Function = Callable[[Any, Any], Any]


def set_threads(count: int) -> None:
    """Fix the thread pools of everything that computes: other counts give other bytes (measured: numpy, k-means)."""
    for name in ("OMP", "OPENBLAS", "MKL", "RAYON", "NUMEXPR", "BLIS", "VECLIB_MAXIMUM"):
        os.environ[f"{name}_NUM_THREADS"] = str(count)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("TQDM_DISABLE", "1")  # the run's own progress is the only one; libraries' bars tear it apart


def limit_threads(count: int) -> None:
    """The same for libraries that are loaded already."""
    from threadpoolctl import threadpool_limits

    if "numpy" in sys.modules:
        threadpool_limits(limits=count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


class Inline:
    """Every shard in this process, one after the other: for tests, debugging and data of minutes."""

    name = "inline"

    def __init__(self, threads: int = 1, stall_timeout: float | None = None):
        self.stall_timeout = stall_timeout
        set_threads(threads)

    def map(self, function: Function, job: Any, tasks: Iterable[T], resources: Resources) -> Results:
        for task in tasks:
            check_stop()
            with self._watched(task):
                result = function(job, task)
            yield task, result

    @contextmanager
    def _watched(self, task: Any) -> Iterator[None]:
        """Ends the process where a shard takes too long: this thread cannot be interrupted, and what is committed is safe."""
        if not self.stall_timeout:
            yield
            return
        timer = threading.Timer(self.stall_timeout, _give_up, (str(task), self.stall_timeout))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None: ...


def stalled(tasks: Iterable[Any], seconds: float) -> str:
    """What is said of a run in which nothing ends."""
    names = ", ".join(sorted(str(task) for task in tasks)) or "no shard"
    return f"nothing has finished for {seconds:g} s; at work: {names}. What is finished is kept: run the same command again, with a longer --stall-timeout if a shard may take that long"


def _give_up(task: str, seconds: float) -> None:
    trace = Path(tempfile.gettempdir()) / f"curate-stalled-{os.getpid()}.txt"
    with trace.open("w") as file:
        faulthandler.dump_traceback(file)
    message = f"{stalled([task], seconds)}; what it was doing: {trace}"
    sys.stderr.write(f"curate: {message}\n")
    sys.stderr.flush()
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "exit_code": 1}), flush=True)
    os._exit(1)


def _cpu_memory() -> int:
    """Bytes of memory that are free on this machine."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class OnRay:
    """Pools of actors, one shard per call, retries off; pools are kept from stage to stage.

    A dead worker's shard is run once more whole; after a second death it is narrowed by halves to the row
    that kills it, and computed in one piece without that row: a poison row costs a row and no other bytes.
    """

    name = "ray"

    def __init__(
        self,
        threads: int = 1,
        workers: int | None = None,
        address: str | None = None,
        num_cpus: int | None = None,
        num_gpus: int | None = None,
        shard_timeout: float | None = None,
        stall_timeout: float | None = None,
    ):
        self.threads, self.workers, self.shard_timeout, self.stall_timeout = threads, workers, shard_timeout, stall_timeout
        self.address = address or os.environ.get("RAY_ADDRESS")
        self.num_cpus, self.num_gpus = num_cpus, num_gpus
        self.pools: dict[tuple[float, int], list[Any]] = {}
        self.ray: Any = None
        self.mine = False
        if num_gpus:  # declared, whether or not there is CUDA: model stages then ask for them (see hardware.gpus_wanted)
            os.environ["CURATE_LOGICAL_GPUS"] = str(num_gpus)
        else:
            os.environ.pop("CURATE_LOGICAL_GPUS", None)
        set_threads(threads)

    def _start(self) -> Any:
        """Ray starts when a shard must run, not before: a run with nothing to do never pays for it."""
        if self.ray is not None:
            return self.ray
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import logging

        import ray

        environment = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS") or name.startswith("CURATE_")}
        options: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "runtime_env": {"env_vars": {**environment, "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}},
            "ignore_reinit_error": True,
        }
        if self.address:
            options["address"] = self.address
        else:
            self.mine = not ray.is_initialized()
            options |= {
                "address": "local",  # without it Ray joins whatever cluster it finds on this machine
                "include_dashboard": False,
                "num_cpus": self.num_cpus or os.cpu_count(),
                "_node_ip_address": "127.0.0.1",
                # Tables go through files, never through the object store.
                "object_store_memory": 100 << 20,
            }
            if self.num_gpus is not None:
                options["num_gpus"] = self.num_gpus
        try:
            ray.init(**options)
        except Exception as error:
            where = (
                f"the cluster at {self.address} does not answer"
                if self.address
                else "Ray does not start on this machine; it may be overloaded"
            )
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise EngineUnavailable(f"{where} ({reason}): try again later, or use --engine inline") from error
        self.ray = ray
        return ray

    def _size(self, resources: Resources, tasks: int) -> int:
        """How many workers: what was asked for, else as many as cores, memory and devices allow."""
        ray = self._start()
        total = ray.cluster_resources()
        tasks = min(tasks, resources.workers or tasks)
        if resources.gpus:
            devices = int(total.get("GPU", 0) // resources.gpus)
            if not devices:
                raise UserMistake(
                    f"a stage asks for {resources.gpus:g} GPU and the cluster has none: start Ray with num_gpus, or run on CPU"
                )
            wanted = self.workers or devices
            return max(1, min(wanted, devices, tasks))
        cores = int(total.get("CPU", 1))
        # An address may be a cluster of many machines: there the memory of this one says nothing.
        fits = cores if self.address else max(1, int(_cpu_memory() * 0.8 // max(resources.memory, 1)))
        return max(1, min(self.workers or min(cores, fits), tasks))

    def _actor(self, resources: Resources, size: int, replacement: bool = False) -> Any:
        ray = self._start()
        cores = ray.cluster_resources().get("CPU", 1)
        # A fraction of a core each, so that nothing can starve: two one-CPU actors deadlock two cores. One that takes the place of another asks for
        # next to nothing: with a node that died its cores are gone, and what is left is given away.
        share = 0.01 if replacement else round(max(0.01, min(resources.cpus, 0.8 * cores / size)), 2)
        actor = ray.remote(_Worker).options(num_cpus=share, num_gpus=resources.gpus, max_restarts=0, max_task_retries=0)
        return actor.remote(self.threads)

    def _pool(self, resources: Resources, size: int) -> list[Any]:
        key = (resources.gpus, size)
        for other in [other for other in self.pools if other != key]:
            for worker in self.pools.pop(other):
                self.ray.kill(worker)
        if key not in self.pools:
            self.pools[key] = [self._actor(resources, size) for _ in range(size)]
            self._wait_until_ready(self.pools[key])
        return self.pools[key]

    def _wait_until_ready(self, workers: list[Any]) -> None:
        """Before a clock starts: a worker that is still importing is not hanging."""
        if self.shard_timeout:
            self.ray.get([worker.ready.remote() for worker in workers])

    def _replace(self, pool: list[Any], slot: int, resources: Resources) -> None:
        pool[slot] = self._actor(resources, len(pool), replacement=True)
        self._wait_until_ready([pool[slot]])

    def map(self, function: Function, job: Any, tasks: Iterable[T], resources: Resources) -> Results:
        waiting: deque[Any] = deque(tasks)
        if not waiting:
            return
        ray = self._start()
        pool = self._pool(resources, self._size(resources, len(waiting)))
        job_reference = ray.put(job)
        idle = list(range(len(pool)))
        flying: dict[Any, tuple[int, Any, float]] = {}
        deaths: dict[int, int] = {}
        originals = {id(task): task for task in waiting}
        kept_alive: list[Any] = []  # what `originals` names by its id
        moved = time.monotonic()
        try:
            while waiting or flying:
                check_stop()
                if self.stall_timeout and time.monotonic() - moved > self.stall_timeout:
                    raise InternalError(stalled((task for _, task, _ in flying.values()), self.stall_timeout))
                while waiting and idle:
                    task, slot = waiting.popleft(), idle.pop()
                    flying[pool[slot].call.remote(function, job_reference, task)] = (slot, task, time.monotonic())
                ready, _ = ray.wait(list(flying), timeout=0.2)
                for reference in list(flying):
                    slot, task, since = flying[reference]
                    timed = bool(self.shard_timeout) and not getattr(task, "patient", False)
                    late = timed and time.monotonic() - since > (self.shard_timeout or 0)
                    if reference not in ready and not late:
                        continue
                    del flying[reference]
                    moved = time.monotonic()
                    outcome = self._outcome(ray, reference, pool[slot], late)
                    if isinstance(outcome, _Death):
                        self._replace(pool, slot, resources)
                        first = originals.get(id(task), task)
                        if outcome.why == "out_of_memory" and (smaller := task.smaller(job)) is not None:
                            originals[id(smaller)] = first
                            kept_alive.append(smaller)
                            waiting.appendleft(smaller)
                            idle.append(slot)
                            continue
                        deaths[id(first)] = deaths.get(id(first), 0) + 1
                        if deaths[id(first)] == 1:
                            waiting.appendleft(task)
                        elif not getattr(task, "rows", 0) or deaths[id(first)] > 2:
                            raise InternalError(
                                f"the worker of {task} died {deaths[id(first)]} times ({outcome.why}): look at Ray's logs, or run it with --engine inline to see where"
                            )
                        else:
                            poison = self._poison(function, job_reference, task, resources, pool, slot)
                            narrowed = task.without(tuple(poison), outcome.why)
                            originals[id(narrowed)] = first
                            kept_alive.append(narrowed)
                            waiting.appendleft(narrowed)
                    else:
                        yield originals.get(id(task), task), outcome
                    idle.append(slot)
        finally:
            for reference in flying:
                ray.cancel(reference, force=False)
            if flying:  # abandoned work must not delay the next stage, nor write after us
                self._drop_pools()

    def _outcome(self, ray: Any, reference: Any, worker: Any, late: bool) -> Any:
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError

        if late:
            ray.kill(worker)
            return _Death("hang")
        try:
            return ray.get(reference)
        except OutOfMemoryError:
            return _Death("out_of_memory")
        except (RayActorError, WorkerCrashedError):
            return _Death("crash")
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None

    def _poison(self, function: Function, job: Any, task: Any, resources: Resources, pool: list[Any], slot: int) -> list[int]:
        """Rows (places in the task) whose presence kills a worker, by halving; results are thrown away."""
        ray = self._start()

        def dies(start: int, end: int) -> bool:
            check_stop()
            reference = pool[slot].call.remote(function, job, task.only(start, end))
            ready, _ = ray.wait([reference], timeout=self.shard_timeout)
            outcome = self._outcome(ray, reference, pool[slot], late=not ready)
            if isinstance(outcome, _Death):
                self._replace(pool, slot, resources)
            return isinstance(outcome, _Death)

        found: list[int] = []

        def narrow(start: int, end: int) -> None:
            """Called only where start:end is known to kill."""
            if end - start == 1:
                found.append(start)
                return
            middle = (start + end) // 2
            left = dies(start, middle)
            if left:
                narrow(start, middle)
            if not left or dies(middle, end):  # left survives: the fault must be on the right
                narrow(middle, end)

        narrow(0, task.rows)
        return found

    def _drop_pools(self) -> None:
        for workers in self.pools.values():
            for worker in workers:
                self.ray.kill(worker)
        self.pools.clear()

    def close(self) -> None:
        if self.ray is not None:
            self._drop_pools()
            if self.mine:  # a cluster that was there before us stays
                self.ray.shutdown()
            self.ray = None


class _Death:
    def __init__(self, why: str):
        self.why = why


class _Worker:
    """The actor: any function of ours over one shard. What a function loads, it caches in its own module."""

    def __init__(self, threads: int):
        set_threads(threads)

    def ready(self) -> bool:
        return True

    def call(self, function: Function, job: Any, task: Any) -> Any:
        return function(job, task)
