"""Ranges of keys as tasks: the same rows fall for the same ones whoever looks at them, in this process or on Ray's workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.dedup import ranges
from curate.dedup.copies import marks
from curate.engine import Inline, OnRay
from curate.errors import UserMistake
from curate.verify import verify

WORDS = [f"{a}{b}" for a in ("ra", "be", "ki", "to", "mu", "sa", "le") for b in ("lon", "dar", "vis", "pem", "nor", "tal", "gus")]


def rows_of(seed: int, rows: int) -> list[dict[str, Any]]:
    """Instructions of 60 words, of which a third are copies with a word or two exchanged; half of the copies have another answer."""
    chance, found = np.random.default_rng(seed), []
    for row in range(rows):
        words = chance.choice(WORDS, 60).tolist()
        answer = " ".join(chance.choice(WORDS, 12))
        if row % 3 == 2:
            words, answer = found[row - int(chance.integers(1, 3))]["instruction"].split(), found[row - 1]["output"]
            for _ in range(int(chance.integers(1, 3))):
                words[int(chance.integers(60))] = "exchanged"
        found.append({"instruction": " ".join(words), "input": "", "output": answer if row % 2 else answer + " indeed"})
    return found


def ranges_sent(engine: Any) -> list[str]:
    """Names of the ranges that an engine is given, as they come: each with room for its memory, and without a limit of time."""
    sent, whole = [], engine.map

    def counted(function: Any, job: Any, tasks: Any, resources: Any) -> Any:
        tasks = list(tasks)
        mine = [task for task in tasks if str(task).startswith("range")]
        assert all(task.patient for task in mine) and (not mine or resources.memory >= 2 << 30)
        sent.extend(map(str, mine))
        return whole(function, job, tasks, resources)

    engine.map = counted
    return sent


def run_on_ray(project: Any) -> list[str]:
    """Run it as `ray` on two workers of the session's cluster; names of the ranges that they were given."""
    ray = OnRay(workers=2)
    sent = ranges_sent(ray)
    try:
        project.with_engine(ray, "ray")
    finally:
        ray.close()
    return sent


@pytest.fixture
def pool(new_project):
    old, project = new_project("old"), new_project("new")
    old.file("old.jsonl", *rows_of(3, 30))
    old.recipe(ingest={"kind": "instruction"})
    old.run()
    for number in range(3):
        project.file(f"{number}.jsonl", *rows_of(number, 60))
    project.file("9.jsonl", *rows_of(3, 12))
    project.recipe(ingest={"kind": "instruction"}, near_dedup={"against": [str(old.folder / "run")], "threshold": 0.6})
    return project


def test_ranges_that_are_looked_at_one_by_one_find_what_one_look_at_all_finds(pool, monkeypatch):
    pool.run("whole")
    looked = []
    look_at = ranges.look_at
    monkeypatch.setattr("curate.dedup.ranges.look_at", lambda job, task: looked.append(str(task)) or look_at(job, task))
    monkeypatch.setattr("curate.dedup.buckets.MOST_ENTRIES", 500)
    pool.run("parts")
    assert len(looked) > 10
    assert pool.fates("parts") == pool.fates("whole")
    assert {"near_duplicate", "near_duplicate_of_known", "exact_duplicate_of_known"} <= set(pool.fates("parts").values())
    # the night after, with rows that are like those of today and like one another
    monkeypatch.setattr("curate.dedup.buckets.MOST_ENTRIES", 1 << 23)
    pool.file("tonight.jsonl", *rows_of(0, 30), *rows_of(5, 30), *rows_of(5, 20))
    pool.run("whole", refresh=True)
    monkeypatch.setattr("curate.dedup.buckets.MOST_ENTRIES", 500)
    pool.run("parts", refresh=True)
    assert pool.column("near_dedup.verdict", "parts") == pool.column("near_dedup.verdict", "whole")


@pytest.mark.slow
def test_workers_that_look_at_ranges_give_the_bytes_of_one_process(pool, monkeypatch, cluster):
    monkeypatch.setattr("curate.dedup.buckets.MOST_ENTRIES", 500)
    pool.with_engine(Inline(), "inline")
    sent = run_on_ray(pool)
    assert len(sent) > 10
    assert pool.tree("ray") == pool.tree("inline")


@pytest.mark.slow
def test_workers_need_neither_a_user_s_class_nor_his_folder(pool, monkeypatch, cluster):
    """A stage derived in a pipeline file, and `against` as a relative path: a worker can import the one and open the other as little as it could before."""
    pipeline = pool.folder / "mine.py"
    pipeline.write_text(
        """
from curate.dedup.lexical import Lexical

STEPS = {"ingest": "ingest.settings", "publish": "publish.dataset"}


class Mine(Lexical):
    pass


def mine(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    unique = run.step("near_dedup", Mine(threshold=0.6, against=["../old/run"]), docs)
    run.publish(recipe.publish, docs, unique)
"""
    )
    monkeypatch.chdir(pool.folder)
    monkeypatch.setattr("curate.dedup.buckets.MOST_ENTRIES", 500)
    pool.recipe(pipeline=f"{pipeline}:mine", ingest={"kind": "instruction"})
    sent = run_on_ray(pool)
    assert len(sent) > 10 and {"near_duplicate", "near_duplicate_of_known"} <= set(pool.fates("ray").values())


TWICE = """
STEPS = {"ingest": "ingest.settings", "near_dedup": "dedup.lexical", "dedup": "dedup.union", "publish": "publish.dataset"}


def twice(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    run.step("near_dedup", recipe.near_dedup, docs)
    run.step("dedup", recipe.dedup, run.everything(docs))
    run.publish(recipe.publish, docs)
"""


@pytest.mark.parametrize("twice", [False, True])
def test_a_row_that_shingles_cannot_be_made_of_is_set_aside_and_no_copy_of_anything(pool, monkeypatch, twice):
    whole = marks

    def fails(texts, *options):
        if any(text and text.startswith("cannot") for text in texts):
            raise RuntimeError("no shingles")
        return whole(texts, *options)

    monkeypatch.setattr("curate.dedup.deciding.marks", fails)
    if twice:  # both passes ask for the same shingles
        (pool.folder / "twice.py").write_text(TWICE)
        pool.recipe(**{**pool.written, "pipeline": f"{pool.folder}/twice.py:twice", "dedup": {"threshold": 0.5}})
    pool.file("0.jsonl", *rows_of(0, 60), *({"instruction": f"cannot {n}", "input": "", "output": "x"} for n in range(2)))
    pool.run()
    fates = pool.fates()
    assert [fate for text, fate in fates.items() if "cannot" in text] == ["stage_shingles"] * 2
    assert list(verify(pool.folder / "run")) == [] and "stage_shingles" in pool.curate("drops", "run").stdout
    before = pool.tree()
    for changes in ((), ("publish.title=another",)):  # the fit is reused, and what its step has set aside is not forgotten
        facts = pool.run(changes=changes)
        assert pool.fates() == fates and facts["quarantine_rules"] == {"stage_shingles": 2}
    assert pool.run()["executed"] <= 1 and pool.tree() == before
    pool.file("0.jsonl", *rows_of(0, 60))
    pool.run("without")
    assert {text: fate for text, fate in fates.items() if "cannot" not in text} == pool.fates("without")


@pytest.mark.parametrize("most", [1 << 23, 500])
def test_answers_of_known_rows_that_are_no_text_matter_only_where_they_are_compared(pool, monkeypatch, tmp_path, most):
    monkeypatch.setattr("curate.dedup.buckets.MOST_ENTRIES", most)
    texts = [f"changed {row['instruction']}\n\n{row['output']}" for row in rows_of(3, 30)]
    pq.write_table(pa.table({"text": texts, "response": list(range(30))}), tmp_path / "known.parquet")
    against = {"against": [str(tmp_path / "known.parquet")], "threshold": 0.6}
    pool.recipe(**{**pool.written, "near_dedup": {**against, "answers": "ignored"}})
    pool.run()
    assert "near_duplicate_of_known" in set(pool.fates().values())
    pool.recipe(**{**pool.written, "near_dedup": against})
    with pytest.raises(UserMistake, match="set `answers: ignored`"):
        pool.run()
