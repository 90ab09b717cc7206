"""Memory that runs out halves the batches, and the record says so; a run in which nothing ends for too long says where it hangs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from curate.errors import InternalError, OutOfMemory
from curate.store import Records

SCORERS = Path(__file__).resolve().parents[1] / "scorers_for_tests"
TEXTS = ["one", "four", "seven", "eleven"]


def hungry(project, **settings) -> None:
    project.file("a.jsonl", *TEXTS)
    project.recipe(scorers=["hungry"], scorer_path=str(SCORERS), hungry={"log": str(project.folder / "attempts"), **settings})


def attempts(project) -> list[int]:
    return [int(line) for line in (project.folder / "attempts").read_text().split()]


def test_batches_are_halved_until_they_fit_and_no_row_is_blamed(project):
    hungry(project)
    facts = project.run()
    assert facts["kept"] == 4 and facts["quarantined"] == 0
    assert attempts(project) == [1024, 512, 256, 128]
    (record,) = Records(project.folder / "run/stages/hungry").by_shard.values()
    assert record["halvings"] == 3


def test_what_is_computed_again_begins_where_it_fitted(project):
    hungry(project)
    project.run()
    before = project.tree()
    (project.folder / "attempts").unlink()
    (project.folder / "run/stages/hungry/00000-0000.parquet").unlink()
    project.run(changes=("hungry.holds=100000",))  # more memory by now: the batches stay, for the bytes' sake
    assert attempts(project) == [128] and project.tree() == before


def test_a_shard_that_never_fits_ends_in_a_clear_error(project):
    hungry(project, holds=0)
    with pytest.raises(OutOfMemory, match=r"--workers 1"):
        project.run()
    done = project.curate("run", project.path, "--run-dir", "run", "--engine", "inline")
    assert done.returncode == 1 and "Traceback" not in done.stderr and "smallest batches" in done.stderr


@pytest.mark.slow
def test_on_ray_too(project, cluster):
    hungry(project)
    assert project.run(engine="ray")["quarantined"] == 0
    project.run("here")
    assert project.tree() == project.tree("here")


def slow(project, seconds: float) -> None:
    project.file("a.jsonl", *TEXTS)
    project.recipe(scorers=["slow"], scorer_path=str(SCORERS), slow={"seconds": seconds})


def test_a_run_in_which_nothing_ends_says_where_it_hangs(project):
    slow(project, 600.0)
    began = time.monotonic()
    done = project.curate("run", project.path, "--run-dir", "run", "--engine", "inline", "--stall-timeout", "2", "--json")
    assert time.monotonic() - began < 60 and done.returncode == 1
    assert "shard 00000-0000" in done.stderr and "--stall-timeout" in done.stderr and "Traceback" not in done.stderr
    assert '"exit_code": 1' in done.stdout.splitlines()[-1]
    assert "slow.py" in Path(done.stderr.split("what it was doing: ")[1].split()[0]).read_text()
    slow(project, 0.0)
    assert project.run()["kept"] == 4  # what was finished is kept


@pytest.mark.slow
def test_a_run_on_ray_in_which_nothing_ends_says_so(project, cluster):
    slow(project, 300.0)
    with pytest.raises(InternalError, match=r"shard 00000-0000.*--stall-timeout"):
        project.run(engine="ray", stall_timeout=20.0)


def test_a_slow_shard_within_the_time_is_left_alone(project):
    slow(project, 0.3)
    assert project.run(stall_timeout=5.0)["kept"] == 4
