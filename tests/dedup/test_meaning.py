"""Rows that say the same, in a run."""

from __future__ import annotations

from typing import Any

import pytest

from curate.errors import UserMistake

PIPELINE = """
STEPS = {"ingest": "ingest.settings", "near_dedup": "dedup.lexical", "embed": "embed.hashed", "semantic_dedup": "dedup.meaning", "publish": "publish.dataset"}
def meaning(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    unique = run.step("near_dedup", recipe.near_dedup, docs)
    vectors = run.step("embed", recipe.embed, docs, unique)
    scores = [run.step(name, stage, docs, unique) for name, stage in recipe.scorers_of("text")]
    run.step("semantic_dedup", recipe.semantic_dedup_of(), run.everything(docs), vectors, *scores)
    run.publish(recipe.publish, docs)
"""


@pytest.fixture
def meant(project: Any, tmp_path: Any) -> Any:
    (tmp_path / "meaning.py").write_text(PIPELINE)

    def run(*rows: Any, shard_rows: int = 100, **settings: Any) -> dict[str, Any]:
        project.file("a.jsonl", *rows)
        project.recipe(
            pipeline=f"{tmp_path / 'meaning.py'}:meaning",
            embed={"view": "text"},
            semantic_dedup=settings,
            ingest={"shard_rows": shard_rows},
        )
        project.run()
        return project.fates()

    return run


ROWS = (
    "Explain how rice is cooked.",
    "Explain how the rice is cooked.",
    "Explain how rice is not cooked.",
    "Name the capital of Italy.",
    "Explain how 2 rices are cooked",
)


def test_rows_that_say_the_same_fall_and_negations_and_numbers_do_not(meant, project):
    fates = meant(*ROWS, threshold=0.7)
    assert fates == {ROWS[0]: "semantic_duplicate", ROWS[1]: "kept", ROWS[2]: "kept", ROWS[3]: "kept", ROWS[4]: "kept"}
    (verdict,) = [verdict for verdict in project.column("semantic_dedup.verdict") if verdict]
    assert verdict["twin_at"] == "00000-0000:1" and verdict["similarity"] >= 0.7 and verdict["threshold"] == 0.7


def test_the_cut_into_shards_decides_nothing(meant):
    assert meant(*ROWS, threshold=0.7) == meant(*ROWS, threshold=0.7, shard_rows=2)


def test_rows_with_different_answers_do_not_say_the_same(meant):
    rows = [{"instruction": "Name the colour of the sky over the sea", "output": output} for output in ("a deep blue", "a grey")]
    assert set(meant(*rows, threshold=0.5, agreement=0).values()) == {"kept"}
    assert set(meant(*rows, threshold=0.5, agreement=0, answers="ignored").values()) == {"kept", "semantic_duplicate"}


def test_the_second_opinion_has_a_veto(meant):
    assert set(meant(*ROWS, threshold=0.7, agreement=0.99).values()) == {"kept"}


def test_an_encoder_without_a_threshold_is_a_mistake_with_a_remedy(meant):
    with pytest.raises(UserMistake, match="calibrate-dedup"):
        meant(*ROWS)


def test_calibration_finds_the_threshold_that_the_pairs_ask_for():
    import numpy as np

    from curate.dedup.calibrate import Measured, calibrate

    cosine = np.linspace(0, 1, 1001)
    same = cosine > 0.8
    found = calibrate(Measured(same, cosine, cosine, np.zeros(1001, bool)), 1.0, 0.0)
    assert found["threshold"] == pytest.approx(0.801, abs=1e-9) and found["precision"] == found["recall"] == 1 and found["auc"] == 1
    with pytest.raises(UserMistake, match="lower --precision"):
        calibrate(Measured(~same, cosine, cosine, np.zeros(1001, bool)), 0.95, 0.0)


def test_the_calibrated_encoders_are_told_by_content():
    from curate import models
    from curate.dedup.meaning import Meaning, calibrations

    known = calibrations()
    for identity, measured in known.items():
        assert models.identity(measured["encoder"]) == identity
        assert Meaning.model_validate({"encoder": measured["encoder"]}).least() == measured["threshold"]
    assert known


def test_calibration_does_not_hang_on_the_order_of_pairs():
    import numpy as np

    from curate.dedup.calibrate import Measured, calibrate

    tied = np.ones(60)
    for same in (np.arange(60) < 30, np.arange(60) >= 30):
        with pytest.raises(UserMistake, match="from no similarity on"):
            calibrate(Measured(same, tied, tied, np.zeros(60, bool)), 0.95, 0.0)
