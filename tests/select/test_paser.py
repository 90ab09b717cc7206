"""PASER is one line: `select: {method: paser}` gives what its four settings give."""

from pathlib import Path

from curate.recipe import check
from curate.select.budget import Budget


def test_method_paser_is_the_budget_with_its_settings():
    raw = {"pipeline": "recovery", "scorers": [], "ingest": {"path": "x"}, "embed": {"method": "hashed"}}
    short = check({**raw, "select": {"method": "paser", "budget": 0.2}}, Path("configs/x.yaml")).select
    whole = Budget(budget=0.2, groups="cluster", allocation="mean", share_by="jsd", by="ies", conflicts="concepts")
    assert isinstance(short, Budget) and short.model_dump() == whole.model_dump()
    assert set(short.reads()) == set(whole.reads()) >= {"jsd", "ies", "cluster", "text"}
