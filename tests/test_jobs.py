"""Jobs in worker processes: what is finished is on the disk, whatever becomes of the others."""

import json
from pathlib import Path

import pytest

from curate.jobs import Results, run_jobs


class Counter:
    """A worker that gives each number back with what it was made with; -1 fails."""

    def __init__(self, made_with: str):
        self.made_with = made_with

    def run(self, job: int) -> dict:
        if job < 0:
            raise ValueError("a job that fails")
        return {"number": job, "made_with": self.made_with}


def test_each_job_is_a_line_before_its_record_is_given(tmp_path: Path):
    results = Results(tmp_path / "jobs.jsonl")
    for record in run_jobs({"a": 1, "b": 2}, Counter, ("x",), results):
        lines = [json.loads(line) for line in (tmp_path / "jobs.jsonl").read_text().splitlines()]
        assert record in lines and record["made_with"] == "x"
    assert (
        {line["key"]: line["number"] for line in lines}
        == {"a": 1, "b": 2}
        == {key: found["number"] for key, found in results.found.items()}
    )
    assert Results(tmp_path / "jobs.jsonl").found == results.found
    assert list(run_jobs({}, Counter, ("x",), results)) == []


def test_a_job_that_fails_takes_no_finished_one_with_it(tmp_path: Path):
    """The failing job ends within the same wait as the one before it."""
    for attempt in range(5):
        results = Results(tmp_path / f"{attempt}.jsonl")
        with pytest.raises(ValueError, match="a job that fails"):
            list(run_jobs({"good": 1, "bad": -1}, Counter, ("x",), results))
        assert list(results.found) == ["good"]
