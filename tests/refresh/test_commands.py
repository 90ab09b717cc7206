"""The commands around versions, as a user or a scheduler calls them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCHEDULES = ROOT / "configs" / "schedules"


@pytest.fixture
def two_versions(project):
    project.file("a.jsonl", "one two three four", "five six seven eight nine")
    project.recipe(scorers=["length"], select={"budget": 2, "by": "words"})
    assert project.curate("refresh", project.path, "--run-dir", "run", "--engine", "inline").returncode == 0
    project.file("b.jsonl", "a longer text that takes the place of another one")
    return project


def last_line(done) -> dict:
    return json.loads(done.stdout.splitlines()[-1])


def test_a_refresh_ends_in_one_line_for_a_scheduler(two_versions):
    done = two_versions.curate("refresh", two_versions.path, "--run-dir", "run", "--engine", "inline", "--json")
    told = last_line(done)
    assert done.returncode == told["exit_code"] == 0 and done.stdout.count("\n") == 1
    assert (
        told["refresh"]["version"] == 2
        and told["refresh"]["entered"] == {"new": 1}
        and told["refresh"]["left"] == {"select: over_budget": 1}
    )


def test_a_refresh_says_in_words_what_came_and_went(two_versions):
    done = two_versions.curate("refresh", two_versions.path, "--run-dir", "run", "--engine", "inline")
    assert "version  2, after 1: published" in done.stdout and "new      b.jsonl" in done.stdout
    assert "1 rows entered" in done.stdout and "CHANGES.md" in done.stdout
    again = two_versions.curate("refresh", two_versions.path, "--run-dir", "run", "--engine", "inline")
    assert "version  2, after 1: nothing has changed" in again.stdout


def test_a_second_refresh_at_the_same_time_is_refused(two_versions):
    from curate.store import RunLock

    with RunLock(two_versions.folder / "run"):
        done = two_versions.curate("refresh", two_versions.path, "--run-dir", "run", "--engine", "inline", "--json")
    assert done.returncode == 5 and last_line(done)["exit_code"] == 5
    assert "another run holds" in done.stderr and "Traceback" not in done.stderr


def test_what_needs_a_decision_ends_with_code_4(two_versions):
    (two_versions.data / "a.jsonl").unlink()
    done = two_versions.curate("refresh", two_versions.path, "--run-dir", "run", "--engine", "inline", "--json")
    assert done.returncode == 4 and "--accept" in last_line(done)["error"]
    status = two_versions.curate("status", "run")
    assert "waits for a decision" in status.stdout
    assert two_versions.curate("refresh", two_versions.path, "--run-dir", "run", "--engine", "inline", "--accept").returncode == 0


def test_diff_rollback_and_verify(two_versions):
    two_versions.curate("refresh", two_versions.path, "--run-dir", "run", "--engine", "inline")
    told = two_versions.curate("diff", "run@1", "run")
    assert told.returncode == 0 and "1  select: over_budget" in told.stdout and "one two three four" in told.stdout
    assert "no version '9'" in two_versions.curate("diff", "run@9", "run").stderr
    assert two_versions.curate("diff", "run", "elsewhere").returncode == 2
    assert two_versions.curate("verify", "run").stdout.endswith("the ledger balances\n")
    assert "version 2 is published; 1 can be gone back to" in two_versions.curate("status", "run").stdout
    back = two_versions.curate("rollback", "run")
    assert "version 1 again; it was 2" in back.stdout
    assert two_versions.curate("rollback", "run").returncode == 2  # there is none before it
    (two_versions.folder / "run" / "corpus" / "00000-0000.parquet").unlink()
    found = two_versions.curate("verify", "run")
    assert found.returncode == 1 and "corpus/00000-0000.parquet is missing" in found.stdout


def test_diff_names_settings_that_differ(two_versions):
    two_versions.run("other", changes=("select.budget=1",))
    told = json.loads(two_versions.curate("diff", "run", "other", "--json").stdout.splitlines()[-1])
    assert told["settings"]["select.budget"] == ["2", "1"] and told["counts"]["kept"] == [2, 1]


# -- schedules ---------------------------------------------------------------------------------------------------


def test_the_crontab_calls_a_refresh_that_works(two_versions):
    """The line as it stands in the example, with its folders put in."""
    (line,) = [line for line in (SCHEDULES / "crontab").read_text().splitlines() if line and not line.startswith(("#", "MAILTO", "SHELL"))]
    fields = line.split(None, 5)
    assert all(re.fullmatch(r"[\d*/,-]+", field) for field in fields[:5])
    command = fields[5].replace("/srv/curate", str(two_versions.folder)).replace(".venv/bin/curate", f"{sys.executable} -m curate.cli")
    command = command.replace("configs/pretraining.yaml", f"{two_versions.path} --engine inline").replace("runs/nightly", "run")
    done = subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(two_versions.folder)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((two_versions.folder / "refresh.log").read_text().splitlines()[-1])["refresh"]["version"] == 2


def test_the_systemd_units_name_a_command_that_there_is():
    service, timer = ((SCHEDULES / f"curate-refresh.{kind}").read_text() for kind in ("service", "timer"))
    (start,) = re.findall(r"^ExecStart=(.*)$", service, re.M)
    words = shlex.split(start)
    assert words[0].endswith("/curate") and words[1] == "refresh"
    known = subprocess.run([sys.executable, "-m", "curate.cli", "refresh", "--help"], capture_output=True, text=True, cwd=ROOT).stdout
    assert all(word.split("=")[0] in known for word in words if word.startswith("--"))
    assert "Persistent=true" in timer and "OnCalendar=" in timer  # a tick that was missed comes once, later
    assert "SuccessExitStatus=3 5" in service


def test_missed_and_early_ticks_come_to_one_version_each(two_versions):
    """Three ticks in a row, one of them while another refresh is at work: never two writers, one new version."""
    command = [sys.executable, "-m", "curate.cli", "refresh", str(two_versions.path), "--run-dir", "run", "--engine", "inline", "--json"]
    ticks = [
        subprocess.Popen(command, cwd=two_versions.folder, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
        if not time.sleep(0.05)
    ]  # fmt: skip
    codes = []
    for tick in ticks:
        tick.communicate(timeout=120)
        codes.append(tick.returncode)
    assert set(codes) <= {0, 5} and 0 in codes
    from curate.versions import Versions

    assert Versions(two_versions.folder / "run").numbers() == [1, 2]
