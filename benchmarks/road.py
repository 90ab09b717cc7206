"""A short pipeline of real steps that benchmarks of the spine write beside their recipes."""

from __future__ import annotations

from pathlib import Path

ROAD = """
STEPS = {"ingest": "ingest.settings", "near_dedup": "dedup.lexical", "tokens": "score.tokens", "embed": "embed.transformer", "cluster": "cluster.diffused",
         "select": "select.budget", "publish": "publish.dataset"}


def road(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    unique = run.step("near_dedup", recipe.near_dedup, docs)
    vectors = run.step("embed", recipe.embed, docs, unique)
    scores = [run.step("tokens", recipe.tokens, docs), run.step("cluster", recipe.cluster, docs, unique, vectors)]
    scores += [run.step(name, stage, docs, unique, *scores) for name, stage in recipe.scorers_of("text")]
    run.step("select", recipe.select, run.everything(docs), *scores)
    run.publish(recipe.publish, docs, vectors, *scores)
"""


def write_road(work: Path) -> str:
    """What a recipe in `work` says as its `pipeline`."""
    (work / "road.py").write_text(ROAD)
    return f"{work}/road.py:road"
