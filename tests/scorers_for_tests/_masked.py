"""A pipeline in which every scorer is masked by near-duplicates, as model stages are."""

from __future__ import annotations

from typing import Any

STEPS = {
    "ingest": "ingest.settings",
    "near_dedup": "dedup.near",
    "tokens": "score.tokens",
    "select": "select.budget",
    "publish": "publish.dataset",
}


def masked(run: Any, recipe: Any) -> None:
    docs = run.step("ingest", recipe.ingest)
    unique = run.step("near_dedup", recipe.near_dedup, docs)
    scores = [run.step("tokens", recipe.tokens, docs)]
    scores += [run.step(name, recipe.sections[name], docs, unique) for name in recipe.scorers]
    chosen = run.step("select", recipe.select, run.everything(docs), *scores)
    run.publish(recipe.publish, docs, chosen, *scores)
