"""Choose, from an instruction pool, the rows that repair what pruning broke in a language model.

docs ─> contradictions? ─> near_dedup ─> embed ─> cluster ─> semantic_dedup? ─> sample ─> scores (perplexity, degradation) ─> percentiles?, herding?
                                                                        │
      publish <─ select <─ dedup <─ gates <─ rewrite, antidote <─ nominate
"""

from __future__ import annotations

from curate.dataset import union
from curate.score.degradation import apart
from curate.score.states import States
from curate.select.sample import Sample

STEPS = {
    "ingest": "ingest.settings",
    "contradictions": "select.contradictions?",
    "near_dedup": "dedup.lexical",
    "tokens": "score.tokens",
    "embed": "embed.transformer",
    "reduce": "embed.reduce?",
    "cluster": "cluster.diffused",
    "semantic_dedup": "dedup.meaning?",
    "filter": "score.filter?",
    "percentiles": "score.percentiles?",
    "herding": "score.herding?",
    "select": "select.budget",
    "rewrite": "generate.rewrite?",
    "antidote": "generate.antidote?",
    "gate": "generate.gate",
    "manifold_gate": "generate.manifold_gate",
    "batch_gate": "generate.batch_gate",
    "dedup": "dedup.union",
    "publish": "publish.dataset",
}


def recovery(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    if recipe.has("contradictions"):  # a question with two answers; before its wrong answer can count as the copy of a right one
        run.step("contradictions", recipe.contradictions, docs)
    unique = run.step("near_dedup", recipe.near_dedup.but(priority=recipe.priorities()), run.everything(docs))
    pruned = recipe.pruned_model(run, docs, unique)

    def read(rows):
        """What text alone tells about rows. On a second call only the new rows are computed."""
        vectors = run.step("embed", recipe.embed, rows, unique)
        if recipe.has("reduce"):
            vectors = vectors.beside(run.step("reduce", recipe.reduce, rows, unique, vectors))
        scores = [run.step("tokens", recipe.tokens, rows), run.step("cluster", recipe.cluster, rows, unique, vectors)]
        first, rest = recipe.text_scorers()
        for scorer, stage in [*first, *([("filter", recipe.filter)] if recipe.has("filter") else []), *rest]:
            scores.append(run.step(scorer, stage, rows, unique, vectors, *scores))
        return vectors, scores

    def ask(rows, scores):
        """What language models tell about the rows of the sample, and about generated ones."""
        found = []
        for scorer, stage in recipe.scorers_of("language model", pruned):
            inputs = [rows, heard, sampled, *scores]
            if scorer == "degradation" and apart(stage):  # two models that do not fit together are run one after the other
                shared = {name: getattr(stage, name) for name in ("model", "template", "max_tokens", "batch_tokens", "dtype")}
                inputs.append(run.step("states", States(**shared), rows, heard, sampled))
                stage = stage.but(pair="apart")
            found.append(run.step(scorer, stage, *inputs))
        return found

    def compared(rows, scores):
        """Where scores lie among comparable rows, for `select`; generated rows are placed by the tables of the raw ones."""
        return [run.step("percentiles", recipe.percentiles, rows, heard, *scores)] if recipe.has("percentiles") else []

    def in_order(rows, vectors, scores):
        """The order in which a cluster's first rows stand for all of it, for `select: {by: herding}`."""
        return [run.step("herding", recipe.herding, run.everything(rows), vectors, *scores)] if recipe.has("herding") else []

    vectors, scores = read(docs)
    heard = unique  # what models are not asked about: duplicates, those in meaning, too
    if recipe.has("semantic_dedup"):
        heard = unique.beside(run.step("semantic_dedup", recipe.semantic_dedup_of(), run.everything(docs), vectors, *scores))
    sampled = run.step("sample", Sample(size=recipe.sample, seed=recipe.seed), run.everything(docs))
    scores += ask(docs, scores)
    scores += compared(docs, scores)
    scores += in_order(docs, vectors, scores)
    nominated = run.step("nominate", recipe.select.but(nominate=True), run.everything(docs), *scores)
    new = [run.step(name, recipe.sections[name], docs, heard, nominated, *scores) for name in ("rewrite", "antidote") if recipe.has(name)]

    rows = union(docs, *new)
    vectors, scores = read(rows)
    scores += ask(rows, scores)
    scores += compared(rows, scores)
    if new:
        run.step("gate", recipe.gate_of(), rows, *scores)
        run.step("manifold_gate", recipe.manifold_gate, rows, unique, vectors)
        run.step("batch_gate", recipe.batch_gate, run.everything(rows))
    scores += in_order(rows, vectors, scores)
    run.step("dedup", recipe.dedup.but(priority=recipe.priorities()), run.everything(rows))
    if new and recipe.has("semantic_dedup"):
        run.step("semantic_union", recipe.semantic_dedup_of(), run.everything(rows), vectors, *scores)
    run.step("select", recipe.select, run.everything(rows), nominated, *scores)
    run.publish(recipe.publish, rows, *scores)
