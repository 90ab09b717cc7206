"""A pipeline in which rules of thumb drop rows first, and a scorer is masked by the sample, as language-model stages are."""

from __future__ import annotations

from typing import Any

from curate.select.sample import Sample

STEPS = {
    "ingest": "ingest.settings",
    "near_dedup": "dedup.near",
    "tokens": "score.tokens",
    "select": "select.budget",
    "publish": "publish.dataset",
}


def sampled(run: Any, recipe: Any) -> None:
    docs = run.step("ingest", recipe.ingest)
    ruled = run.step("heuristics", recipe.sections["heuristics"], docs)
    drawn = run.step("sample", Sample(size=recipe.sample, seed=recipe.seed), run.everything(docs))
    scores = [ruled, run.step("vowels", recipe.sections["vowels"], docs, drawn)]
    chosen = run.step("select", recipe.select, run.everything(docs), *scores)
    run.publish(recipe.publish, docs, chosen, *scores)
