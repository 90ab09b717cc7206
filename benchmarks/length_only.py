"""The shortest pipeline there is: read, measure lengths, keep what is within bounds, publish."""

from __future__ import annotations

STEPS = {
    "ingest": "ingest.settings",
    "length": "score.length",
    "select": "select.budget",
    "publish": "publish.dataset",
}


def length_only(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    lengths = run.step("length", recipe.length, docs)
    chosen = run.step("select", recipe.select, run.everything(docs), lengths)
    run.publish(recipe.publish, docs, chosen, lengths)
