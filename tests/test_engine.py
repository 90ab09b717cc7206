"""One suite over both engines: same bytes, and a poison row costs a row."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from curate.engine import Inline, OnRay
from curate.errors import InternalError, Stopped
from curate.stage import Resources
from curate.stopping import stop

SCORERS = Path(__file__).parent / "scorers_for_tests"
ENGINES = ["inline", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Any:
    """An engine by its name; on Ray two workers of the session's cluster."""

    def make(name: str, **options: Any) -> Any:
        if name == "inline":
            return Inline()
        request.getfixturevalue("cluster")
        made = OnRay(workers=2, **options)
        request.addfinalizer(made.close)
        return made

    return make


def texts(shard: int, rows: int, *poison: int) -> list[str]:
    return [f"row {row} of shard {shard} is {'poison' if row in poison else 'wholesome'}" for row in range(rows)]


def recipe(project: Any, **poison: Any) -> None:
    project.recipe(scorers=["poison"], scorer_path=str(SCORERS), poison=poison)


@pytest.mark.parametrize("name", ENGINES)
def test_columns_come_out_in_the_rows_order_and_equal_on_both(project, engine, name):
    for shard in range(4):
        project.file(f"{shard}.jsonl", *texts(shard, 5 + shard))
    recipe(project, how="nothing")
    project.with_engine(engine(name))
    assert project.column("size") == [len(text) for text in project.column("text")]
    project.with_engine(Inline(), "inline")
    assert project.tree() == project.tree("inline")
    assert project.executed() == {
        "ingest": 4,
        "near_dedup": 4,
        "shingles/text-words-5": 4,
        "tokens": 4,
        "poison": 4,
        "select": 4,
        "publish": 1,
    }


@pytest.mark.parametrize("name", ENGINES)
def test_rows_that_raise_are_set_aside_and_only_they(project, engine, name):
    project.file("a.jsonl", *texts(0, 9))
    project.file("b.jsonl", *texts(1, 9, 0, 4, 8))
    recipe(project, how="raise")
    facts = project.with_engine(engine(name))
    assert facts["quarantine_rules"] == {"stage_valueerror": 3}
    assert {text for text, fate in project.fates().items() if fate != "kept"} == {text for text in texts(1, 9, 0, 4, 8) if "poison" in text}
    assert project.column("size") == [None if "poison" in text else len(text) for text in project.column("text")]


@pytest.mark.parametrize("name", ENGINES)
def test_rows_without_the_poison_get_the_bytes_they_have_without_it_beside_them(project, engine, name):
    project.file("a.jsonl", *texts(0, 8, 3))
    recipe(project, how="nothing")
    project.with_engine(Inline(), "harmless")
    recipe(project, how="raise")
    project.with_engine(engine(name))
    harmless = project.column("size", "harmless")
    assert [value for value in project.column("size") if value is not None] == harmless[:3] + harmless[4:]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("rows", [40, 3])
def test_a_scorer_that_always_fails_is_at_fault_itself(project, engine, name, rows):
    """Not the rows: they are neither dropped nor set aside, the run ends and names the scorer and its error."""
    project.file("a.jsonl", *texts(0, rows))
    project.recipe(scorers=["broken"], scorer_path=str(SCORERS))
    with pytest.raises(InternalError, match=r"Broken fails.*KeyError.*a mistake in the scorer"):
        project.with_engine(engine(name))


@pytest.mark.parametrize("name", ENGINES)
def test_a_stop_ends_the_run_between_shards_and_it_goes_on_from_there(project, engine, name):
    for shard in range(6):
        project.file(f"{shard}.jsonl", *texts(shard, 3))
    recipe(project, how="nothing")
    project.with_engine(Inline(), "undisturbed")
    stopping = engine(name)
    whole, done = stopping.map, []

    def map_and_stop(function: Any, job: Any, tasks: Any, resources: Any) -> Any:
        for task, result in whole(function, job, tasks, resources):
            yield task, result
            done.append(task)
            if len(done) == 9:  # within the second step
                stop.set()

    stopping.map = map_and_stop
    with pytest.raises(Stopped, match="run the same command to go on"):
        project.with_engine(stopping)
    stop.clear()
    facts = project.with_engine(engine(name))
    assert 0 < facts["executed"] < 6 * 6 + 1 - 8
    assert project.tree() == project.tree("undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["exit", "kill"])
def test_rows_that_kill_a_worker_are_set_aside_and_only_they(project, engine, how):
    rows = 32
    project.file("a.jsonl", *texts(0, 10))
    project.file("b.jsonl", *texts(1, rows, 20))
    recipe(project, how=how)
    ray = engine("ray")
    made = count_workers(ray)
    facts = project.with_engine(ray)
    assert facts["quarantine_rules"] == {"stage_crash": 1}
    assert [text for text, fate in project.fates().items() if fate != "kept"] == [texts(1, rows, 20)[20]]
    assert deaths(made) <= math.log2(rows) + 2
    recipe(project, how="nothing")
    project.with_engine(Inline(), "harmless")
    harmless = project.column("size", "harmless")
    assert [value for value in project.column("size") if value is not None] == harmless[:30] + harmless[31:]


@pytest.mark.slow
def test_two_killing_rows_in_one_shard_cost_two_rows(project, engine):
    rows = 8
    project.file("a.jsonl", *texts(0, rows, 1, 6))
    recipe(project, how="exit")
    ray = engine("ray")
    made = count_workers(ray)
    project.with_engine(ray)
    assert [text for text, fate in project.fates().items() if fate != "kept"] == [text for text in texts(0, rows, 1, 6) if "poison" in text]
    assert deaths(made) <= 2 * (math.log2(rows) + 2)


@pytest.mark.slow
def test_a_row_that_hangs_is_set_aside(project, engine):
    project.file("a.jsonl", *texts(0, 3))
    project.file("b.jsonl", *texts(1, 4, 2))
    recipe(project, how="sleep")
    ray = engine("ray", shard_timeout=8)
    made = count_workers(ray)
    facts = project.with_engine(ray)
    assert facts["quarantine_rules"] == {"stage_hang": 1}
    assert [text for text, fate in project.fates().items() if fate != "kept"] == [texts(1, 4, 2)[2]]
    assert deaths(made) <= math.log2(4) + 2


@pytest.mark.slow
def test_a_reader_that_dies_twice_ends_in_a_clear_error(project, engine, monkeypatch):
    """A source file cannot be narrowed to rows: the engine says which file and where to look."""
    project.file("a.jsonl", *texts(0, 3))
    recipe(project, how="nothing")

    def die(job: Any, task: Any) -> None:  # within the test: workers get it by value
        os._exit(9)

    monkeypatch.setattr("curate.sources.ingest_file", die)
    with pytest.raises(InternalError, match=r"a\.jsonl died 2 times.*--engine inline"):
        project.with_engine(engine("ray"))


@pytest.mark.slow
def test_every_worker_asked_for_is_there_and_nothing_starves(project, engine):
    """Five workers on two cores: fractional cores, so that all of them start."""
    for shard in range(6):
        project.file(f"{shard}.jsonl", *texts(shard, 2))
    recipe(project, how="nothing")
    ray = engine("ray")
    ray.workers = 5
    project.with_engine(ray)
    assert {size for _, size in ray.pools} <= {1, 5}


def count_workers(ray: Any) -> list[tuple[int, str]]:
    """Actors as the engine makes them: (size of the pool they are for, "pool" or "again")."""
    made: list[tuple[int, str]] = []
    actor, pool = ray._actor, ray._pool
    inside = []

    def counted_pool(*arguments: Any) -> Any:
        inside.append(1)
        try:
            return pool(*arguments)
        finally:
            inside.pop()

    def counted_actor(resources: Any, size: int, **options: Any) -> Any:
        made.append((size, "pool" if inside else "again"))
        return actor(resources, size, **options)

    ray._actor, ray._pool = counted_actor, counted_pool
    return made


def deaths(made: list[tuple[int, str]]) -> int:
    """Every worker made outside a new pool replaces one that died."""
    return sum(why == "again" for _, why in made)


@pytest.mark.slow
def test_a_stage_may_bound_how_many_workers_it_has(engine):
    """An endpoint's limits hold for the run: it is asked by one worker, however many there are."""
    ray = engine("ray")
    assert ray._size(Resources(), 5) == 2
    assert ray._size(Resources(workers=1), 5) == 1


def test_a_local_ray_joins_no_cluster_that_it_finds(monkeypatch):
    """Where another Ray runs on the machine, `init` without an address joins it and refuses our number of cores."""
    import ray

    from curate.engine import OnRay

    asked: dict[str, object] = {}
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: asked.update(options))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    OnRay(num_cpus=2)._start()
    assert asked["address"] == "local" and asked["num_cpus"] == 2


def test_a_ray_that_does_not_start_is_tried_later(monkeypatch):
    import ray

    from curate.engine import OnRay
    from curate.errors import EngineUnavailable

    def fails(**_):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(EngineUnavailable, match=r"timed out.*--engine inline") as error:
        OnRay()._start()
    assert error.value.exit_code == 75
