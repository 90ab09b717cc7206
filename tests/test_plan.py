"""`curate plan`: what a run would cost, from some rows that go through the recipe; nothing is generated, nothing but the plan is written."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import recipe as recipes
from curate.plan import plan, text

SCORERS = Path(__file__).parent / "scorers_for_tests"


def planned(project, run: str = "run", **options):
    return plan(recipes.load(project.path), project.folder / run, **options)


def test_rows_are_counted_and_only_some_are_read(project):
    project.file("a.jsonl", *[f"row {row} of a" for row in range(3000)])
    pq.write_table(pa.table({"text": [f"row {row} of b" for row in range(500)]}), project.data / "b.parquet")
    project.recipe(scorers=["length"])
    found = planned(project)
    assert found["rows"] == {"to_read": 3500, "known": 0} and found["trial_rows"] == 12 * 50
    low, high = found["tokens"]
    assert low <= 3500 * 4 <= high
    assert sorted(path.name for path in (project.folder / "run").iterdir()) == ["plan.json"]
    assert "3,500 rows to read" in text(found)


def test_what_is_known_is_not_planned_again(project):
    project.file("a.jsonl", *[f"row {row} of a" for row in range(40)])
    project.recipe(scorers=["length"])
    project.run()
    found = planned(project)
    assert found["files"] == {"to_read": 0, "known": 1} and "nothing to do" in text(found)
    project.file("b.jsonl", *[f"row {row} of b" for row in range(7)])
    found = planned(project)
    assert found["rows"] == {"to_read": 7, "known": 40}
    assert {step["name"]: step["rows"] for step in found["steps"]}["length"] == 7


def test_seconds_grow_with_the_rows_and_hold(project):
    """A scorer that rests a tenth of a second in every shard of the trial: 50 rows."""
    project.file("a.jsonl", *[f"row {row} of a with {row % 7} words" for row in range(2000)])
    project.recipe(ingest={"shard_rows": 50}, scorers=["slow"], scorer_path=str(SCORERS), slow={"seconds": 0.1})
    step = next(step for step in planned(project)["steps"] if step["name"] == "slow")
    assert step["seconds"][0] <= 2000 / 50 * 0.1 * 1.3 and step["seconds"][1] >= 2000 / 50 * 0.1
    facts = project.run()
    low, high, took = facts["planned"]["steps"]["slow"]
    assert low <= took <= 3 * high
    assert not (project.folder / "run" / "plan.json").exists()
    assert "planned" not in project.run()  # nothing was done


def test_a_mistake_in_the_recipe_is_told_as_by_run(project):
    project.file("a.jsonl", "one", "two")
    project.recipe(select={"budget": 1, "by": "nowhere"})
    done = project.curate("plan", project.path, "--run-dir", "run", "--json")
    told = json.loads(done.stdout.splitlines()[-1])
    assert "nowhere" in told["stopped"] and done.returncode == 0
    project.recipe(ingest={"path": str(project.folder / "nothing")})
    assert project.curate("plan", project.path, "--run-dir", "run").returncode == 2


@pytest.mark.slow
def test_no_endpoint_is_asked(project):
    """The address answers nobody: a plan that asked would fail."""
    project.file(
        "a.jsonl",
        *[{"text": f"A paragraph number {row} about rivers and how they run to the sea, with some more words. " * 4} for row in range(60)],
    )
    pipeline = project.folder / "rewriting.py"
    pipeline.write_text(
        """
STEPS = {"ingest": "ingest.settings", "near_dedup": "dedup.lexical", "tokens": "score.tokens", "rewrite": "generate.rewrite", "select": "select.budget",
         "publish": "publish.dataset"}


def rewriting(run, recipe):
    from curate.dataset import union

    docs = run.step("ingest", recipe.ingest)
    unique = run.step("near_dedup", recipe.near_dedup, docs)
    scores = [run.step("tokens", recipe.tokens, docs)]
    new = run.step("rewrite", recipe.rewrite, docs, unique, *scores)
    rows = union(docs, new)
    run.step("select", recipe.select, run.everything(rows), *scores)
    run.publish(recipe.publish, rows, *scores)
"""
    )
    project.recipe(
        pipeline=f"{pipeline}:rewriting",
        rewrite={
            "task": "guided_rewrite",
            "when": {},
            "backend": {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "m", "revision": "1"},
        },
    )
    found = planned(project)
    assert found["asked"]["rewrite"] > 60 * 50
    assert "tokens asked of the model" in text(found)
