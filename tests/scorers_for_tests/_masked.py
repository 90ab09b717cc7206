"""Pipelines in which scorers are masked as model stages are: by near-duplicates, and by the sample after rules of thumb."""

from __future__ import annotations

from typing import Any

from curate.select.sample import Sample

STEPS = {
    "ingest": "ingest.settings",
    "near_dedup": "dedup.lexical",
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


def sampled(run: Any, recipe: Any) -> None:
    docs = run.step("ingest", recipe.ingest)
    ruled = run.step("heuristics", recipe.sections["heuristics"], docs)
    drawn = run.step("sample", Sample(size=recipe.sample, seed=recipe.seed), run.everything(docs))
    scores = [ruled, run.step("vowels", recipe.sections["vowels"], docs, drawn)]
    chosen = run.step("select", recipe.select, run.everything(docs), *scores)
    run.publish(recipe.publish, docs, chosen, *scores)
