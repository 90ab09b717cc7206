"""The experiment of `curate recover`: fair arms, held-out rows in no arm, and numbers that follow from the trials."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from curate import encoding, models
from curate.cli import app, main
from curate.errors import UserMistake
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


def test_a_row_that_asks_what_a_test_row_asks_is_in_no_arm(run: Path, monkeypatch: pytest.MonkeyPatch):
    whole = read_pool(run)
    twin, asked = whole.rows[whole.chosen[0]]["row_id"], whole.rows[whole.test[0]]["prompt"]
    read = type(open_run(run).dataset).read

    def asking_the_same(dataset, shard, names):
        table = read(dataset, shard, names)
        rows = table.to_pylist()
        return pa.Table.from_pylist([{**row, "prompt": asked} if row["row_id"] == twin else row for row in rows], table.schema)

    monkeypatch.setattr(type(open_run(run).dataset), "read", asking_the_same)
    pool = read_pool(run)
    assert twin in {row["row_id"] for row in pool.rows} and asked in {pool.rows[i]["prompt"] for i in pool.test}
    assert twin not in {pool.rows[i]["row_id"] for i in (*pool.chosen, *pool.raw)}
    assert experiment.question({"prompt": None, "text": "A plain text."}) == "A plain text."


def test_a_test_that_asks_all_that_was_chosen_is_refused(run: Path):
    whole = read_pool(run)
    with pytest.raises(UserMistake, match="a test row or asks what one asks"):
        read_pool(run, questions=frozenset(whole.rows[i]["prompt"] for i in whole.chosen))


def test_no_more_rows_are_held_out_than_asked_for_and_never_more_than_a_third_of_a_group():
    groups = np.repeat(np.arange(40), 9)
    draw, raw = np.random.default_rng(0).permutation(360), np.ones(360, bool)
    few, many = (experiment._held_out(draw, groups, raw, count) for count in (24, 1000))
    assert len(few) == len(np.unique(groups[few])) == 24  # of as many groups as there are rows
    assert (np.bincount(groups[many]) == 3).all() and set(few) < set(many)


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


@pytest.mark.parametrize("most", [48, 256])
def test_arms_cost_the_same_as_they_are_trained_on(run: Path, most: int):
    """With the chat template, long rows cut: nearly all of these have more than 48 tokens, and none 256."""
    tuning = Tuning(max_tokens=most)
    original, pruned = experiment.models_of(open_run(run))
    tokenizer = models.load_tokenizer(original)
    pool = experiment.read_pool(open_run(run), tokenizer, tuning, 24)
    trials, _ = experiment.plan(pool, original, pruned, SEEDS, "tokens")
    encoded = [(trial.arm, [encoding.encode_row(tokenizer, row, "chat", most, ends=True) for row in trial.rows]) for trial in trials]
    assert (max(len(row.ids) for _, rows in encoded for row in rows) == 48) == (most == 48)
    spent = [(arm, sum(len(row.ids) for row in rows)) for arm, rows in encoded]
    budget = dict(spent)["selection"]
    assert budget == pool.tokens[pool.chosen].sum()
    for arm, tokens in spent:
        if arm in ("stratified", "ceiling"):
            assert budget - most < tokens <= budget
        if arm == "length_matched":
            assert tokens == pytest.approx(budget, rel=0.05)
    assert sum(int(row.scored.sum()) for row in dict(encoded)["selection"]) == pool.response_tokens[pool.chosen].sum()


def test_an_arm_that_cannot_spend_the_budget_is_told():
    rows = [dict.fromkeys(encoding.ROW, str(i)) for i in range(30)]
    tokens = np.full(30, 100)
    pool = experiment.Pool(rows, np.arange(20), np.arange(15, 30), np.empty(0, np.int64), np.zeros(30, np.int64), tokens, tokens)
    remarks = experiment.plan(pool, "original", "pruned", 1, "tokens")[1]
    assert "ceiling rows have as little as 75% of the selection's tokens" in remarks
    assert "there is one cluster or none: stratified rows are plain random ones" in remarks


def test_a_run_that_did_not_end_is_refused(run: Path):
    ledger = open_run(run)
    ledger.facts["state"] = "stopped"
    with pytest.raises(UserMistake, match="no finished run"):
        experiment.recover(ledger, *experiment.models_of(ledger), say=lambda text: None)


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


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (["--by", "kind"], "give --test FILE too"),
        (["--unit", "rows"], "give tokens or response_tokens"),
        (["--method", "magic"], "--method"),
        (["--template", "none"], "--template"),
        (["--test", "none.jsonl"], "no such file"),
        (["--test", "held_out.jsonl", "--by", "knid"], "12 of 12 rows of held_out.jsonl have no such value"),
        (["--test", "held_out.jsonl", "--by", "source"], "held_out.jsonl: "),
        (["--pruned", "other"], "different vocabularies"),
    ],
)
def test_mistakes_are_answered_with_a_remedy(run: Path, options: list[str], remedy: str, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(run.parent)
    if "other" in options and not Path("other").exists():
        other = save_tiny_model(Path("other"))
        text = (other / "tokenizer.json").read_text()
        (other / "tokenizer.json").write_text(text.replace("<|im_end|>", "<|the_end|>"))
    with pytest.raises(SystemExit) as end:
        main(["recover", str(run), *options])
    said = capsys.readouterr().err
    assert end.value.code == 2 and remedy in said and "Traceback" not in said


def test_a_model_without_a_chat_template_is_tuned_on_plain_conversations(run: Path):
    command = ["recover", str(run), "--seeds", "1", "--test-rows", "8", "--workers", "1", "--template", "plain", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["tuning"]["template"] == "plain" and summary["arms"]["selection"]["divergence"] is None
    assert outcome.verdict("stratified", summary["differences"]["stratified"]).endswith(
        "another seed may say otherwise: give --seeds 3 or more"
    )


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
