"""A short pipeline of real steps that benchmarks of the spine write beside their recipes, and the rows that they run it over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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


def instructions(data: Path, rows: int) -> pa.Table:
    """So many real instruction rows (instruction, input, output), drawn from the pool in `data`."""
    files = sorted(data.glob("instruct_pool_*.parquet"))
    whole = pa.concat_tables([pq.read_table(file, columns=["instruction", "input", "output"]) for file in files])
    return whole.take(pa.array(np.random.default_rng(0).permutation(len(whole))[:rows]))
