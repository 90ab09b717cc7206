"""Read, deduplicate, filter by rules of thumb, publish: no neural model, unless a scorer asks one.

docs ─> near_dedup ─> tokens, scorers, embed (hashed) ─> select ─> dataset, report
"""

from __future__ import annotations

from curate.select.sample import Sample

STEPS = {
    "ingest": "ingest.settings",
    "near_dedup": "dedup.lexical",
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
        scores.append(run.step("embed", recipe.embed, docs, unique))
    for name, stage in recipe.scorers_of("text"):
        scores.append(run.step(name, stage, docs, unique, *scores))
    sampled = run.step("sample", Sample(size=recipe.sample, seed=recipe.seed), run.everything(docs)) if recipe.sample else docs
    for name, stage in recipe.scorers_of("language model", recipe.pruned_model(run, docs, unique)):
        scores.append(run.step(name, stage, docs, unique, sampled, *scores))
    run.step("select", recipe.select, run.everything(docs), *scores)
    run.publish(recipe.publish, docs, *scores)
