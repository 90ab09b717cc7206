"""Filter web-like text by a filter trained on a trusted set, recycle what is dropped by rewriting it, deduplicate.

docs ─> near_dedup ─> filter, heuristics ─> embed ─> cluster ─> semantic_dedup? ─> sample ─> perplexity ─> percentiles?
                                                                 │
      publish <─ select <─ dedup <─ gates <─ rewrite, antidote <─┘   (rewrites start from dropped rows too)
"""

from __future__ import annotations

from curate.dataset import union
from curate.select.sample import Sample

STEPS = {
    "ingest": "ingest.settings",
    "near_dedup": "dedup.lexical",
    "tokens": "score.tokens",
    "filter": "score.filter",
    "embed": "embed.transformer",
    "reduce": "embed.reduce?",
    "cluster": "cluster.diffused",
    "semantic_dedup": "dedup.meaning?",
    "percentiles": "score.percentiles?",
    "select": "select.budget",
    "rewrite": "generate.rewrite?",
    "antidote": "generate.antidote?",
    "gate": "generate.gate",
    "manifold_gate": "generate.manifold_gate",
    "batch_gate": "generate.batch_gate",
    "dedup": "dedup.union",
    "publish": "publish.dataset",
}


def pretraining(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    unique = run.step("near_dedup", recipe.near_dedup.but(priority=recipe.priorities()), docs)

    def read(rows):
        """What text alone tells about rows. On a second call only the new rows are computed."""
        vectors = run.step("embed", recipe.embed, rows, unique)
        if recipe.has("reduce"):
            vectors = vectors.beside(run.step("reduce", recipe.reduce, rows, unique, vectors))
        scores = [run.step("tokens", recipe.tokens, rows), run.step("cluster", recipe.cluster, rows, unique, vectors)]
        first, rest = recipe.text_scorers()
        for scorer, stage in [*first, ("filter", recipe.filter), *rest]:
            scores.append(run.step(scorer, stage, rows, unique, vectors, *scores))
        return vectors, scores

    def ask(rows):
        """What language models tell about the rows of the sample, and about generated ones."""
        return [run.step(scorer, stage, rows, heard, sampled) for scorer, stage in recipe.scorers_of("language model")]

    def compared(rows, scores):
        """Where scores lie among comparable rows, for `select`; generated rows are placed by the tables of the raw ones."""
        return [run.step("percentiles", recipe.percentiles, rows, heard, *scores)] if recipe.has("percentiles") else []

    vectors, scores = read(docs)
    heard = unique  # what models are not asked about: duplicates, those in meaning, too
    if recipe.has("semantic_dedup"):
        heard = unique.beside(run.step("semantic_dedup", recipe.semantic_dedup_of(), run.everything(docs), vectors, *scores))
    sampled = run.step("sample", Sample(size=recipe.sample, seed=recipe.seed), run.everything(docs))
    scores += ask(docs)
    scores += compared(docs, scores)
    nominated = run.step("nominate", recipe.select.but(nominate=True), run.everything(docs), *scores)
    new = [run.step(name, recipe.sections[name], docs, heard, nominated, *scores) for name in ("rewrite", "antidote") if recipe.has(name)]

    rows = union(docs, *new)
    vectors, scores = read(rows)
    scores += ask(rows)
    scores += compared(rows, scores)
    if new:
        run.step("gate", recipe.gate_of(quality="filter_score"), rows, *scores)
        run.step("manifold_gate", recipe.manifold_gate, rows, unique, vectors)
        run.step("batch_gate", recipe.batch_gate, run.everything(rows))
    run.step("dedup", recipe.dedup.but(priority=recipe.priorities()), run.everything(rows))
    if new and recipe.has("semantic_dedup"):
        run.step("semantic_union", recipe.semantic_dedup_of(), run.everything(rows), vectors, *scores)
    run.step("select", recipe.select, run.everything(rows), nominated, *scores)
    run.publish(recipe.publish, rows, *scores)
