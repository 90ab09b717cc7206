"""The roads end to end, with a Llama of random weights for every language model: who runs when, and that nothing is lost."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from tiny_model import save_tiny_model

PEOPLE = ["The woman said she lost her keys.", "The man thinks he is late for his train.", "The girl lost her ball and she cried."]
TOPICS = ["boil an egg", "sharpen a knife", "paint a fence", "tie a knot", "plant a rose", "clean a pan", "wax a floor", "fix a tap"]
MODEL_STAGES = {"embed", "perplexity", "degradation", "pruned"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def rows() -> list[dict[str, str]]:
    made = []
    for index, topic in enumerate(TOPICS):
        for way in ("quickly", "safely", "at night", "with one hand", "on a boat"):
            made.append(
                {
                    "id": f"{topic}-{way}",
                    "instruction": f"Explain how to {topic} {way}, please.",
                    "output": f"First {way} take number {index}.",
                }
            )
    made += [{"id": f"p{i}", "instruction": f"What happened here? {text}", "output": text} for i, text in enumerate(PEOPLE)]
    made.append(dict(made[0]))  # an exact repeat
    made.append({"id": "blank", "instruction": "Say nothing at all, please.", "output": ""})
    made.append({"id": "none", "instruction": None, "output": "no question"})  # quarantined
    return made


@pytest.fixture
def recovery(project, model: Path):
    made = rows()
    project.file("a.jsonl", *made[:24])
    project.file("b.jsonl", *made[24:])
    project.recipe(
        pipeline="recovery",
        scorers=["length", "heuristics", "perplexity", "degradation"],
        sample=40,
        ingest={"kind": "instruction"},
        embed={"method": "hashed", "dimensions": 64},
        reduce={"dimensions": 32},
        cluster={"k": 4, "nearest": 5, "column": "vector_small", "resamples": 3},
        tokens={"model": str(model)},
        pruned={"model": str(model), "layers": 2, "calibration_rows": 8, "max_tokens": 64},
        perplexity={"model": str(model), "max_tokens": 128},
        degradation={"model": str(model), "max_tokens": 128},
        select={"budget": 0.5, "unit": "response_tokens", "groups": "cluster", "share_by": "jsd", "by": "recoverable"},
        rewrite={"task": "self_answer", "share": 0.3, "backend": {"kind": "model", "model": str(model), "max_new_tokens": 8}},
        antidote={"lexicons": ["gender"], "when": {}},
        manifold_gate={"k": 3, "alpha": 0.3},
    )
    return project


@pytest.mark.slow
def test_the_whole_recovery_road_keeps_its_books(recovery):
    facts = recovery.run()
    assert facts["rows_in"] == len(rows()) and facts["quarantined"] == 1
    assert facts["rows_in"] + facts["generated"] == facts["kept"] + sum(facts["dropped"].values()) + facts["quarantined"]
    assert facts["dropped"]["exact_duplicate"] == 1 and facts["dropped"]["empty_response"] == 1
    origins = [origin for origin in recovery.column("origin") if origin]
    assert len(origins) == facts["generated"] and {"rewrite", "antidote"} == set(origins)
    assert len(recovery.published()) == facts["kept"]
    spent = sum(row["response_tokens"] for row in recovery.published())
    budget = recovery.ledger().folder / "stages" / "select"
    report = next(budget.glob("artifact-*/budget.json")).read_text()
    import json

    told = json.loads(report)
    assert spent == told["spent"] <= told["budget"]
    again = recovery.run()
    assert again["executed"] == 0, recovery.executed()


@pytest.mark.slow
def test_a_decision_is_remade_without_asking_a_model_again(recovery):
    recovery.run()
    before = recovery.tree()
    for change in ("select.budget=0.2", "select.where={chars: {min: 60}}", "select.by=loss_gap"):
        recovery.run(changes=(change,))
        ran = recovery.executed()
        raw = {step for step in ran if step in MODEL_STAGES}
        shards = {step: ran[step] for step in raw}
        # Generated rows of newly nominated sources are new work; shards of raw rows are not.
        assert all(count <= 4 for count in shards.values()), (change, ran)
        for name, digest in recovery.tree().items():
            if (
                name.startswith(tuple(f"stages/{step}/0000" for step in MODEL_STAGES))
                and "-rewrite" not in name
                and "-antidote" not in name
            ):
                assert before[name] == digest, (change, name)
        assert not {"near_dedup", "tokens", "length", "sample", "cluster"} & {step for step in ran if ran[step] > 4}, (change, ran)


@pytest.mark.slow
def test_rows_can_be_taken_in_the_order_of_herding(recovery):
    """Raw rows get their order from the fit, generated ones one towards the same means."""
    changes = ("herding.column=vector_small", "select.by=herding", "manifold_gate.alpha=0.001")  # so that an antidote gets past its gate
    facts = recovery.run(changes=changes)
    assert facts["rows_in"] + facts["generated"] == facts["kept"] + sum(facts["dropped"].values()) + facts["quarantined"]
    order, origins = recovery.column("herding"), recovery.column("origin")
    raw = [value for value, origin in zip(order, origins, strict=True) if origin is None and value is not None]
    made = [value for value, origin in zip(order, origins, strict=True) if origin is not None and value is not None]
    assert len(raw) > 30 and made and all(0 < value <= 1 for value in raw + made)
    assert all(row["herding"] is not None for row in recovery.published())
    assert recovery.run(changes=changes)["executed"] == 0


@pytest.mark.slow
def test_a_cut_by_percentile_leaves_every_cluster_its_quota(recovery):
    """Raw and generated rows have percentiles, and of the raw ones' response tokens two fifths get past the cut in every cluster."""
    changes = (
        "percentiles={columns: {perplexity: [length]}, length_bins: 2, least: 10}",
        "select.where={perplexity_percentile: {max: 20}}",
        "select.quota={column: perplexity_percentile, share: 0.4}",
        "select.budget=0.9",
        "manifold_gate.alpha=0.001",  # so that an antidote gets past its gate
    )
    facts = recovery.run(changes=changes)
    assert facts["rows_in"] + facts["generated"] == facts["kept"] + sum(facts["dropped"].values()) + facts["quarantined"]
    columns = ("perplexity", "perplexity_percentile", "spared", "response_tokens", "cluster", "origin", "verdict")
    found = [
        dict(zip(columns, row, strict=True))
        for row in zip(*(recovery.column(name) for name in columns[:-1]), recovery.column("select.verdict"), strict=True)
    ]
    assert all((row["perplexity"] is None) == (row["perplexity_percentile"] is None) for row in found)
    assert any(row["origin"] and row["perplexity_percentile"] is not None for row in found)
    spared = [row for row in found if row["spared"]]
    assert spared and all(row["perplexity_percentile"] > 20 and not row["origin"] for row in spared)
    assert facts["dropped"]["above_perplexity_percentile"] > 0
    held, passed = Counter(), Counter()
    for row in found:
        if row["spared"] is not None and not row["origin"]:  # null: hidden from select
            held[row["cluster"]] += row["response_tokens"]
            passed[row["cluster"]] += (row["verdict"] or {}).get("rule") != "above_perplexity_percentile" and row["response_tokens"]
    assert len(held) == 4 and all(passed[cluster] >= 0.4 * held[cluster] for cluster in held), (held, passed)
    assert any("the quota spares" in remark for remark in facts["remarks"])
    assert {row["spared"] for row in recovery.published()} >= {True, False}
    assert recovery.run(changes=changes)["executed"] == 0


@pytest.mark.slow
def test_rows_can_be_taken_by_turns_of_examples(recovery):
    """Raw rows are ranked by the fit, generated ones by what it left; a row that a rule of thumb drops takes no turn."""
    examples = recovery.folder / "examples.jsonl"
    examples.write_text(
        "".join(json.dumps({**row, "instruction": row["instruction"].replace("boat", "ship")}) + "\n" for row in rows()[4:9])
    )
    changes = (
        "scorers=[length,heuristics,nearest,perplexity,degradation]", f"nearest={{target: '{examples}'}}", "heuristics.empty_response=true",
        "select={budget: 0.3, unit: response_tokens, by: target_rank, order: lowest}", "manifold_gate.alpha=0.001",
    )  # fmt: skip
    facts = recovery.run(changes=changes)
    assert facts["rows_in"] + facts["generated"] == facts["kept"] + sum(facts["dropped"].values()) + facts["quarantined"]
    rank, origins, responses = recovery.column("target_rank"), recovery.column("origin"), recovery.column("response")
    raw = [value for value, origin in zip(rank, origins, strict=True) if origin is None and value is not None]
    assert sorted(raw) == list(range(1, len(raw) + 1)) and len(raw) > 30
    assert all(value is None for value, response in zip(rank, responses, strict=True) if response == "")
    kept = [row["target_rank"] for row in recovery.published() if row["origin"] is None]
    left = [value for value in raw if value not in kept]
    assert kept and max(kept) < max(left)
    assert any(value is not None for value, origin in zip(rank, origins, strict=True) if origin)
    assert recovery.run(changes=changes)["executed"] == 0


@pytest.mark.slow
def test_changed_near_dup_rule_asks_models_only_where_the_mask_changed(project, model):
    """The two texts of a.jsonl are 0.6 alike: below 0.8 both stay, at 0.5 one goes. b.jsonl is not touched by it."""
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    project.file("a.jsonl", long, long.replace("nine", "other"), "something else entirely stands in this row of the file")
    project.file("b.jsonl", "quite another file with other words in its only row, none of them shared")
    project.recipe(scorers=["perplexity"], perplexity={"model": str(model), "max_tokens": 64}, near_dedup={"threshold": 0.8})
    project.run()
    assert project.executed()["perplexity"] == 2
    project.run(changes=("near_dedup.threshold=0.4",))
    assert project.executed().get("perplexity") == 1, "only the shard in which a row became a duplicate"
    project.run(changes=("near_dedup.threshold=0.39",))
    assert "perplexity" not in project.executed(), "the same rows are hidden: nothing to ask"


@pytest.mark.slow
def test_declared_gpus_are_asked_for_and_change_no_byte(recovery):
    """Logical GPUs in an own Ray: model stages ask for num_gpus, the models still run on the CPU."""
    recovery.run("inline")
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from curate.pipeline import execute; from curate import hardware, engine\n"
        "asked = set(); real = engine.OnRay._actor\n"
        "def spy(self, resources, size): asked.add(resources.gpus); return real(self, resources, size)\n"
        "engine.OnRay._actor = spy\n"
        "execute(Path('recipe.yaml'), Path('gpus'), 'ray', num_cpus=2, num_gpus=2)\n"
        "print(sorted(asked), hardware.device())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=recovery.folder, capture_output=True, text=True, timeout=600, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "[0.0, 1.0] cpu"
    assert recovery.tree("gpus") == recovery.tree("inline")


@pytest.mark.slow
def test_the_pretraining_road_recycles_what_the_filter_drops(project, model):
    good = [f"The {thing} of the river {verb} slowly in the {time}, and the people of the valley know it well." for thing in ("bed", "bank", "mouth", "water") for verb in ("moves", "shifts", "rises") for time in ("spring", "autumn")]  # fmt: skip
    junk = [f"win {n} cash now click here {n * 7} free offer call {n * 13} today buy buy" for n in range(30)]
    project.file("web.jsonl", *[{"text": text, "label": "good"} for text in good], *[{"text": text, "label": "web"} for text in junk])
    (project.folder / "items.jsonl").write_text('{"text": "' + good[0] + '"}\n')
    project.recipe(
        pipeline="pretraining",
        ingest={"kind": "text", "keep": ["label"]},
        near_dedup={"threshold": 0.95},
        embed={"method": "hashed", "dimensions": 64},
        cluster={"k": 2, "nearest": 5},
        scorers=["contamination"],
        contamination={"benchmarks": {"rivers": str(project.folder / "items.jsonl")}},
        semantic_dedup={"threshold": 0.99},
        filter={"trusted": {"where": {"label": "good"}}},
        select={"where": {"filter_percentile": {"min": 40}}, "replaces": ["rewrite"]},
        rewrite={
            "when": {"filter_percentile": {"max": 40}},
            "share": 0.5,
            "backend": {"kind": "model", "model": str(model), "max_new_tokens": 8},
        },
    )
    facts = project.run()
    assert facts["generated"] > 0 and facts["dropped"].get("below_filter_percentile", 0) > 0
    assert facts["dropped"]["contaminated_rivers"] >= 1
    steps = {step["name"]: step for step in project.ledger().facts["steps"]}
    assert {"semantic_dedup", "semantic_union"} <= set(steps)
    assert facts["rows_in"] + facts["generated"] == facts["kept"] + sum(facts["dropped"].values()) + facts["quarantined"]
    kept = {row["label"] for row in project.published()}
    assert "good" in kept


@pytest.mark.slow
def test_the_pretraining_road_makes_antidotes_where_its_filter_is_unfair(project):
    """A filter whose trusted texts are about women: rows that an exchange moves most get an antidote, with their label, and the labels' regions are asked."""
    things = ("bed", "bank", "mouth", "water", "sand", "shore")
    good = [f"The woman said that she saw the {thing} of the river {verb} slowly in the {time}." for thing in things for verb in ("move", "shift", "rise") for time in ("spring", "autumn")]  # fmt: skip
    web = [f"The man said that he saw {n} offers of cash for {n * 7} phones, and {thing} for free." for n in range(8) for thing in things]
    project.file("web.jsonl", *[{"text": text, "label": "good"} for text in good], *[{"text": text, "label": "web"} for text in web])
    project.recipe(
        pipeline="pretraining",
        ingest={"kind": "text", "keep": ["label"]},
        near_dedup={"exact_only": True},
        embed={"method": "hashed", "dimensions": 64},
        cluster={"method": "kmeans", "k": 2},
        filter={"trusted": {"where": {"label": "good"}}, "unfairness": True, "lexicons": ["gender"], "set_aside": 0, "like_pool": 0},
        select={"generated_max_share": 0.5},
        antidote={"lexicons": ["gender"], "when": {}, "by": "filter_unfairness", "budget": 10, "groups": "cluster", "keep": ["label"]},
        manifold_gate={"alpha": 0.01, "label": "label", "refuses": []},
        dedup={"exact_only": True},
    )
    facts = project.run()
    assert facts["generated"] == 10
    assert facts["rows_in"] + facts["generated"] == facts["kept"] + sum(facts["dropped"].values()) + facts["quarantined"]
    made = [row for row in project.published() if row["origin"] == "antidote"]
    assert len(made) == 10 and {row["label"] for row in made} <= {"good", "web"}
    assert all(("he saw the" in row["text"]) == (row["label"] == "good") for row in made)
    # other shards, the same rows and scores
    project.run("again", changes=("ingest.shard_rows=7",))
    columns = ("row_id", "label", "origin", "filter_unfairness", "label_ratio")
    rows, again = ([tuple(row[name] for name in columns) for row in project.published(name)] for name in ("run", "again"))
    assert sorted(again, key=str) == sorted(rows, key=str)
