"""Trials: named by what decides them, run once, found again after a kill."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_model import save_tiny_model

from curate.jobs import Results
from curate.recover.arms import random_rows
from curate.recover.trials import Exam, Examiner, Trial, run_trials
from curate.training import Tuning


def row(prompt: str, response: str) -> dict:
    return {"messages": None, "prompt": prompt, "response": response, "text": ""}


ROWS = tuple(row(f"Name {i}.", f"It is {i}.") for i in range(12))
EXAM = Exam((row("Name 3.", "It is 3."), row("Say no.", "No.")), (row("Name 4.", "Yes."),))
TUNING = Tuning(learning_rate=3e-3)


def test_a_trial_is_named_by_models_rows_answers_seed_settings_and_exam(tiny: Path, tmp_path: Path):
    trial = Trial("arm", 0, str(tiny), ROWS)
    key = trial.key(str(tiny), TUNING, EXAM.digest())
    assert Trial("another name", 0, str(tiny), ROWS).key(str(tiny), TUNING, EXAM.digest()) == key
    others = [
        Trial("arm", 1, str(tiny), ROWS).key(str(tiny), TUNING, EXAM.digest()),
        Trial("arm", 0, str(tiny), ROWS[:-1]).key(str(tiny), TUNING, EXAM.digest()),
        Trial("arm", 0, str(tiny), (*ROWS[:-1], row("Name 11.", "It is 12."))).key(str(tiny), TUNING, EXAM.digest()),
        trial.key(str(tiny), Tuning(learning_rate=2e-3), EXAM.digest()),
        Trial("arm", 0, str(tiny), ROWS, TUNING.model_copy(update={"prompt_weight": 1.0})).key(str(tiny), TUNING, EXAM.digest()),
        trial.key(str(tiny), TUNING, Exam(EXAM.rows[:1], EXAM.own).digest()),
    ]
    assert len({key, *others}) == 7
    assert trial.key(str(save_tiny_model(tmp_path / "other", seed=1)), TUNING, EXAM.digest()) != key  # what divergences are from
    untrained = Trial("none", 0, str(tiny), ())  # nothing is drawn, nothing is trained
    assert untrained.key(str(tiny), TUNING, "x") == Trial("none", 7, str(tiny), ()).key(str(tiny), Tuning(learning_rate=1), "x")


def test_a_model_held_against_itself_has_no_divergence_and_tuning_moves_it(tiny: Path):
    examiner = Examiner(str(tiny), TUNING, EXAM)
    untouched = examiner.run(Trial("none", 0, str(tiny), ()))
    assert untouched["divergences"] == [0.0] and untouched["steps"] == 0 and len(untouched["losses"]) == 2
    tuned = examiner.run(Trial("arm", 0, str(tiny), ROWS))
    assert tuned["divergences"][0] > 0.001 and tuned["losses"][0] < untouched["losses"][0]
    assert (tuned["rows"], tuned["steps"]) == (12, 3)
    assert examiner.run(Trial("arm", 0, str(tiny), ROWS)) | {"cpu_seconds": 0} == tuned | {"cpu_seconds": 0}


def test_finished_trials_are_not_run_again_and_a_torn_line_is_passed_over(tiny: Path, tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    trials = [Trial("a", 0, str(tiny), ROWS), Trial("same rows", 0, str(tiny), ROWS), Trial("b", 1, str(tiny), ROWS)]
    first = list(run_trials(trials[:1], str(tiny), TUNING, EXAM, Results(path)))
    with path.open("a") as file:
        file.write('{"key": "cut sho')
    records = list(run_trials(trials, str(tiny), TUNING, EXAM, Results(path)))
    assert {(record["arm"], record["seed"]) for record in records} == {("a", 0), ("same rows", 0), ("b", 1)}
    assert [record["losses"] for record in records if record["arm"] != "b"] == [first[0]["losses"]] * 2
    whole = [json.loads(line) for line in path.read_text().splitlines() if "cut sho" not in line]
    assert sorted(record["arm"] for record in whole) == ["a", "b"]
    assert all(json.loads(line)["key"] for line in path.read_text().splitlines() if "cut sho" not in line)


def test_random_rows_cost_the_budget_to_within_one_row_and_strata_share_it():
    rng = np.random.default_rng(0)
    cost, groups = rng.integers(1, 30, 900), np.repeat([0, 1, 2], [700, 150, 50])
    eligible = np.flatnonzero(rng.random(900) < 0.9)
    for seed in range(5):
        picked = random_rows(cost, eligible, 1000, seed)
        assert set(picked) <= set(eligible) and len(set(picked)) == len(picked)
        assert 1000 - 30 < cost[picked].sum() <= 1000
        strata = random_rows(cost, eligible, 1000, seed, groups)
        by_group = np.bincount(groups[strata], cost[strata])
        assert by_group == pytest.approx([333, 333, 333], abs=35) and 1000 - 30 < by_group.sum() <= 1000
    assert not np.array_equal(random_rows(cost, eligible, 1000, 0), random_rows(cost, eligible, 1000, 1))
    small = random_rows(cost, eligible, 3000, 0, groups)  # the third group cannot fill its third
    assert np.isin(np.intersect1d(np.flatnonzero(groups == 2), eligible), small).all() and cost[small].sum() > 3000 - 30


def test_a_stop_ends_the_training_processes_and_keeps_what_is_finished(tiny: Path, tmp_path: Path):
    from multiprocessing import active_children

    from curate.errors import Stopped
    from curate.stopping import stop

    trials = [Trial("arm", seed, str(tiny), ROWS * 40) for seed in range(3)]
    results = Results(tmp_path / "trials.jsonl")
    try:
        with pytest.raises(Stopped):
            for _ in run_trials(trials, str(tiny), TUNING, EXAM, results):
                stop.set()
    finally:
        stop.clear()
    for child in active_children():
        child.join(10)
    assert not active_children() and len(results.found) in (1, 2)
