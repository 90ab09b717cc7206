"""Antidotes for a table of people: comparable rows of other groups, beside the real ones.

docs ─> antidote ─> select ─> dataset, report     (rows are never duplicates of each other here: two people may have the same cells)
"""

from __future__ import annotations

from curate.dataset import union

STEPS = {
    "ingest": "ingest.settings",
    "tokens": "score.tokens",
    "antidote": "generate.table_antidote",
    "select": "select.budget",
    "publish": "publish.dataset",
}


def table(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    new = run.step("antidote", recipe.antidote, docs)
    rows = union(docs, new)
    scores = [run.step("tokens", recipe.tokens, rows)]
    for name, stage in recipe.scorers_of("text"):
        scores.append(run.step(name, stage, rows, *scores))
    run.step("select", recipe.select, run.everything(rows), *scores)
    run.publish(recipe.publish, rows, *scores)
