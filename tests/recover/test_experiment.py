"""The experiment of `curate recover`: fair arms, held-out rows in no arm, and numbers that follow from the trials."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from curate import encoding, models
from curate.cli import app
from curate.ledger import open_run
from curate.recover import experiment, outcome
from curate.training import Tuning

SEEDS = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A finished run of 160 rows in 4 clusters, a quarter of its response tokens chosen."""
    import curate

    folder = tmp_path_factory.mktemp("recover")
    words = ["apple", "river", "stone", "cloud"]
    rows = [
        {"instruction": f"Tell me about the {words[i % 4]}, number {i}.", "input": "", "output": f"{words[i % 4]} {i} " * (1 + i % 3)}
        for i in range(160)
    ]
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "held_out.jsonl").write_text("".join(json.dumps({**row, "kind": f"kind {i % 2}"}) + "\n" for i, row in enumerate(rows[:12])))
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"""pipeline: recovery
seed: 0
scorers: [degradation]
ingest: {{path: {folder}/pool.jsonl, kind: instruction, shard_rows: 40}}
near_dedup: {{exact_only: true}}
tokens: {{model: {tiny}}}
embed: {{method: hashed}}
cluster: {{method: kmeans, k: 4}}
pruned: {{model: {tiny}, layers: 2}}
degradation: {{model: {tiny}, max_tokens: 128}}
select: {{budget: 0.25, unit: response_tokens, groups: cluster, share_by: jsd, by: jsd}}
"""
    )
    curate.run(recipe, folder / "run", engine="inline")
    return folder / "run"


def read_pool(run: Path, **options) -> experiment.Pool:
    tokenizer = models.load_tokenizer(experiment.models_of(open_run(run))[0])
    return experiment.read_pool(open_run(run), tokenizer, Tuning(), 24, **options)


def test_a_question_of_the_test_is_in_no_arm(run: Path):
    whole = read_pool(run)
    prompt = whole.rows[whole.chosen[0]]["prompt"]
    without = read_pool(run, questions=frozenset([prompt]))
    assert len(without.chosen) == len(whole.chosen) - 1 and len(without.raw) == len(whole.raw) - 1
    assert prompt not in {without.rows[i]["prompt"] for i in without.raw}


def test_what_was_generated_from_a_test_row_is_in_no_arm(run: Path, monkeypatch: pytest.MonkeyPatch):
    whole = read_pool(run)
    ledger = open_run(run)
    source = whole.rows[whole.test[0]]["row_id"]
    at = next(f"{shard.name}:{position}" for shard, position in ledger.find(source))
    child = whole.rows[whole.chosen[0]]["row_id"]
    read = type(ledger.dataset).read

    def with_parent(dataset, shard, names):
        table = read(dataset, shard, [name for name in names if name != "parent_at"])
        parents = [at if row_id == child else None for row_id in table["row_id"].to_pylist()]
        return table.append_column("parent_at", pa.array(parents, pa.string()))

    monkeypatch.setattr(type(ledger.dataset), "read", with_parent)
    pool = read_pool(run)
    assert child not in {pool.rows[i]["row_id"] for i in (*pool.chosen, *pool.raw)} and len(pool.chosen) == len(whole.chosen) - 1


@pytest.mark.parametrize("unit", ["tokens", "response_tokens"])
def test_arms_cost_the_same_and_no_arm_holds_a_test_row(run: Path, unit: str):
    pool = read_pool(run)
    assert len(pool.test) == 24 and len(np.unique(pool.groups[pool.test])) == 4
    assert not set(pool.test) & (set(pool.chosen) | set(pool.raw))
    original, pruned = experiment.models_of(open_run(run))
    trials, remarks = experiment.plan(pool, original, pruned, SEEDS, unit)
    cost = {row["prompt"]: tokens for row, tokens in zip(pool.rows, getattr(pool, unit), strict=True)}
    held_out = {pool.rows[i]["prompt"] for i in pool.test}
    chosen = {pool.rows[i]["prompt"] for i in pool.chosen}
    spent = sum(cost[prompt] for prompt in chosen)
    for trial in trials:
        prompts = [row["prompt"] for row in trial.rows]
        assert len(set(prompts)) == len(prompts) and not set(prompts) & held_out
        assert trial.model == (original if trial.arm in ("ceiling", "original") else pruned)
        if trial.arm == "length_matched":
            assert len(prompts) == len(chosen) and not set(prompts) & chosen
            assert sum(cost[prompt] for prompt in prompts) == pytest.approx(spent, rel=0.05)
        elif prompts:
            assert spent - max(cost.values()) < sum(cost[prompt] for prompt in prompts) <= spent
    assert [trial.arm for trial in trials].count("selection") == SEEDS and len(remarks) == SEEDS


@pytest.mark.parametrize(
    ("unit", "short_answer", "remark"),
    [
        (
            "response_tokens",
            2,
            r"stratified rows have [3-9]\.\d times the tokens of the selection: only response tokens are made equal; --unit tokens",
        ),
        ("tokens", 2, r"stratified rows have 0\.[4-6] times the response tokens of the selection: only tokens .* --unit response_tokens"),
        ("tokens", 50, None),
        ("response_tokens", 50, None),
    ],
)
def test_it_is_said_what_stratified_rows_cost_in_the_other_unit(unit: str, short_answer: int, remark: str | None):
    """Two clusters with prompts of 50 tokens: the answers of one have 50 and are chosen, those of the other may be short."""
    count = 400
    groups = np.arange(count) % 2
    response = np.where(groups == 0, 50, short_answer)
    rows = [dict.fromkeys(encoding.ROW, str(i)) for i in range(count)]
    chosen = np.flatnonzero(groups == 0)[:20]
    pool = experiment.Pool(rows, chosen, np.arange(count), np.empty(0, np.int64), groups, response + 50, response)
    remarks = [line for line in experiment.plan(pool, "original", "pruned", 2, unit)[1] if "stratified" in line]
    assert len(remarks) == bool(remark)
    if remark:
        assert re.match(remark, remarks[0])


def test_recover_ends_with_a_table_resumes_and_shows_in_the_report(run: Path):
    command = ["recover", str(run), "--seeds", str(SEEDS), "--test-rows", "24", "--workers", "1", "--learning-rate", "0.001", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    assert set(summary["arms"]) == set(outcome.ARMS)
    trials = (run / "recovery" / "trials.jsonl").read_text()
    assert trials.count("\n") == 2 + 4 * SEEDS
    records = [json.loads(line) for line in trials.splitlines()]
    groups = np.unique([f"cluster {row}" for row in _test_clusters(run)], return_inverse=True)[1]
    for arm in ("selection", "none"):
        losses = np.array([record["losses"] for record in records if record["arm"] == arm])
        by_hand = np.mean([losses[:, groups == group].mean() for group in range(4)])
        assert summary["arms"][arm]["loss"] == pytest.approx(by_hand, abs=1e-6)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0 and (run / "recovery" / "trials.jsonl").read_text() == trials
    assert json.loads(again.stdout.splitlines()[-1]) == summary
    html = (run / "report" / "index.html").read_text()
    assert "length-matched" in html and f"{summary['arms']['selection']['loss']:.3f}" in html


def _test_clusters(run: Path) -> list[int]:
    pool = read_pool(run)
    return [pool.rows[i]["cluster"] for i in pool.test]


def test_a_file_of_test_rows_gives_the_groups(run: Path):
    held_out = run.parent / "held_out.jsonl"
    command = ["recover", str(run), "--seeds", "1", "--workers", "1", "--test", str(held_out), "--by", "kind", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout.splitlines()[-1])["groups"]["none"]) == {"kind 0", "kind 1"}


def test_mistakes_are_answered_with_a_remedy(run: Path, tmp_path: Path):
    for arguments, remedy in (
        (["--by", "kind"], "give --test FILE too"),
        (["--unit", "rows"], "give tokens or response_tokens"),
        (["--method", "magic"], "--method"),
        (["--test", str(tmp_path / "none.jsonl")], "no such file"),
    ):
        result = CliRunner().invoke(app, ["recover", str(run), *arguments])
        assert result.exit_code != 0 and (remedy in result.output or remedy in str(result.exception)), (arguments, result.output)


def test_an_arm_that_is_better_everywhere_is_called_better():
    names = ["a", "a", "b", "b"]
    base = {"rows": 5, "tokens": 50, "response_tokens": 10, "divergences": [0.1]}
    noise = np.random.default_rng(0).normal(0, 0.01, (4, 3, 4))
    level = {"none": 4.0, "selection": 3.2, "length_matched": 3.4, "ceiling": 2.0}
    records = [
        {**base, "arm": arm, "seed": seed, "losses": list(loss + noise[number, seed])}
        for number, (arm, loss) in enumerate(level.items())
        for seed in range(1 if arm == "none" else 3)
    ]
    summary = outcome.summarise(records, names)
    found = summary["differences"]["length_matched"]
    assert found["difference"] == pytest.approx(-0.2, abs=0.02) and found["interval"][1] < 0
    assert summary["arms"]["selection"]["recovered"][0] == pytest.approx(0.4, abs=0.02)
    assert "selection is better than length-matched" in outcome.table(summary)
