"""Read, deduplicate, filter by rules of thumb, publish: no neural model.

docs ──> near_dedup ──> tokens, length, heuristics ──> embed (hashed) ──> select ──> dataset, report
"""

from __future__ import annotations

STEPS = {
    "ingest": "ingest.settings",
    "near_dedup": "dedup.near",
    "tokens": "score.tokens",
    "embed": "embed.hashed?",
    "select": "select.budget",
    "publish": "publish.dataset",
}


def ingest(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    unique = run.step("near_dedup", recipe.near_dedup.but(priority=recipe.priorities()), docs)
    scores = [run.step("tokens", recipe.tokens, docs)]
    if recipe.has("embed"):
        run.step("embed", recipe.embed, docs, unique)
    for name in recipe.scorers:
        scores.append(run.step(name, recipe.sections[name], docs, *scores))
    chosen = run.step("select", recipe.select, run.everything(docs), *scores)
    run.publish(recipe.publish, docs, chosen, *scores)
