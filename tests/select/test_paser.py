"""PASER is one line: `select: {method: paser}` gives what its four settings give."""

from pathlib import Path

import pytest

from curate.errors import UserMistake
from curate.recipe import check, load
from curate.select.budget import Budget
from curate.select.paser import Paser


def test_method_paser_is_the_budget_with_its_settings():
    raw = {"pipeline": "recovery", "scorers": [], "ingest": {"path": "x"}, "embed": {"method": "hashed"}}
    short = check({**raw, "select": {"method": "paser", "budget": 0.2}}, Path("configs/x.yaml")).select
    whole = Budget(budget=0.2, groups="cluster", allocation="mean", share_by="jsd", by="ies", conflicts="concepts")
    assert isinstance(short, Budget) and short.model_dump() == whole.model_dump()
    assert set(short.reads()) == set(whole.reads()) >= {"jsd", "ies", "cluster", "text"}


def test_an_order_left_over_from_another_selection_is_a_mistake():
    raw = {"pipeline": "recovery", "scorers": [], "ingest": {"path": "x"}, "embed": {"method": "hashed"}}
    with pytest.raises(UserMistake, match="paser takes the rows with the highest"):
        check({**raw, "select": {"method": "paser", "budget": 0.2, "by": "target_rank", "order": "lowest"}}, Path("configs/x.yaml"))


def test_the_recipe_of_the_paper_takes_its_method_and_no_ranking_of_ours():
    recipe = load(Path(__file__).resolve().parents[2] / "configs" / "paser.yaml", [])
    assert recipe.select.model_dump() == Paser(budget=0.2, unit="tokens").model_dump()
    assert {recipe.select.by, recipe.select.share_by} <= set(recipe.sections["degradation"].writes().names)
