"""The report card of a run's rows, by the command and in the report, on a run small enough to know."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate.cli import main
from curate.errors import UserMistake
from curate.report import geometry

SUBJECTS = {
    "cooking": "cook a warm soup with onions and carrots in a large pot for guests number",
    "rivers": "which river flows through the northern valley towards the cold sea number",
    "python": "write a python function that returns the sorted list of integers number",
    "letters": "draft a polite letter to the bank about an unpaid invoice number",
}


PIPELINE = """
STEPS = {"ingest": "ingest.settings", "near_dedup": "dedup.lexical", "embed": "embed.hashed", "cluster": "cluster.kmeans",
         "select": "select.budget", "publish": "publish.dataset"}

def road(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    unique = run.step("near_dedup", recipe.near_dedup, docs)
    vectors = run.step("embed", recipe.embed, docs, unique)
    scores = [run.step("cluster", recipe.cluster, vectors, unique)]
    scores += [run.step(scorer, stage, docs, unique) for scorer, stage in recipe.scorers_of("text")]
    run.step("select", recipe.select, run.everything(docs), *scores)
    run.publish(recipe.publish, docs, *scores)
"""


@pytest.fixture
def run(project: Any) -> Any:
    """160 rows of four subjects; the 60 with the fewest characters are kept."""
    words = np.random.default_rng(0).permutation([f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "lmnrst"])
    for number, (subject, text) in enumerate(SUBJECTS.items()):
        texts = [f"{text} {row} {' '.join(words[(7 * row + number) % 100 :][:5])}" for row in range(40)]
        project.file(f"{subject}.jsonl", *({"text": text, "subject": subject} for text in texts))
    (project.folder / "road.py").write_text(PIPELINE)
    project.recipe(
        pipeline=f"{project.folder / 'road.py'}:road",
        scorers=["length"],
        ingest={"kind": "text", "keep": ["subject"]},
        near_dedup={"exact_only": True},
        embed={"method": "hashed"},
        cluster={"method": "kmeans", "k": 4},
        select={"budget": 60, "unit": "rows", "by": "chars", "order": "lowest"},
    )
    project.run()
    return project


def say(capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    return int(end.value.code or 0), said.out, said.err


def test_one_source_is_narrow_and_the_command_says_so(run, capsys):
    code, out, _ = say(capsys, "geometry", run.folder / "run", "--where", "subject=rivers", "--json")
    facts = json.loads(out.splitlines()[-1])
    assert (code, facts["rows"], facts["whole"]) == (0, 40, 160)
    assert set(facts["measures"]) >= {"vendi", "clusters_kept", "cluster_shift", "coverage_radius"}
    assert facts["measures"]["vendi"]["said"] == "narrower" and facts["measures"]["coverage_radius"]["said"] == "leaves gaps"
    code, out, _ = say(capsys, "geometry", run.folder / "run", "--where", "subject=rivers")
    assert "40 rows against 160 read" in out and "leaves gaps" in out


def test_subsets_by_fate_step_and_cluster(run):
    ledger = run.ledger()
    assert geometry.required_card(ledger, geometry.published(ledger)).rows == 60
    assert geometry.required_card(ledger, geometry.fallen_to(ledger, "select")).rows == 100
    cluster = geometry.required_card(ledger, geometry.where(ledger, "cluster=0"))
    assert cluster.rows == run.column("cluster").count(0)
    assert {line.key: line for line in cluster.lines}["clusters_kept"].subset == 0.25


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--where", "flavour=sweet"], "no column 'flavour'"),
        (["--where", "subject"], "COLUMN=VALUE"),
        (["--where", "cluster=many"], "'many' is no int32"),
        (["--where", "vector=1"], "lists or structs"),
        (["--where", "subject=nobody"], "too few"),
        (["--step", "embed"], "steps that do"),
        (["--step", "select", "--where", "cluster=1"], "give one of them"),
    ],
)
def test_mistakes_end_in_one_sentence(run, capsys, options, said):
    code, _, error = say(capsys, "geometry", run.folder / "run", *options)
    assert code == 2 and said in error and len(error.strip().splitlines()) == 1


def test_the_report_has_the_card_and_names(run):
    page = (run.folder / "run" / "report" / "index.html").read_text()
    assert '<section id="geometry">' in page and "60 kept rows against the 160 read rows" in page
    assert "Rows from the middle of each cluster" in page and "function" in page


def test_without_vectors_there_is_no_card(project):
    project.file("a.jsonl", *(f"a short text number {row}" for row in range(30)))
    project.recipe(scorers=["length"])
    project.run()
    assert '<section id="geometry">' not in (project.folder / "run" / "report" / "index.html").read_text()
    ledger = project.ledger()
    with pytest.raises(UserMistake, match="section `embed`"):
        geometry.required_card(ledger, geometry.published(ledger))


def test_the_card_is_the_same_twice(run):
    ledger = run.ledger()
    assert geometry.card(ledger, geometry.published(ledger)) == geometry.card(ledger, geometry.published(ledger))


def test_drift_of_later_rows_is_read_from_the_artifact(run):
    """The artifact is given a reference fitted on three subjects; the fourth is a shard that came later."""
    from curate.algorithms.drift import fit_reference

    ledger = run.ledger()
    assert geometry.drifts(ledger) == []  # no reference in the artifact: nothing to say
    tables = {shard.name: ledger.dataset.read(shard, ["vector", "cluster", "subject"]) for shard in ledger.dataset.shards}
    later = [name for name, table in tables.items() if table["subject"][0].as_py() == "rivers"]
    fit = pa.concat_tables(table for name, table in tables.items() if name not in later)
    # The cluster of the rivers must not be empty in the fit: one row of another subject stands in it.
    labels = fit["cluster"].to_numpy().copy()
    labels[0] = tables[later[0]]["cluster"][0].as_py()
    reference = fit_reference(np.stack(fit["vector"].to_numpy()).astype(np.float32), labels, 0)
    folder = next((run.folder / "run" / "stages" / "cluster").glob("artifact-*/"))
    with np.load(folder / "clusters.npz") as stored:
        arrays = dict(stored)
    np.savez(folder / "clusters.npz", **{**arrays, **reference.arrays()})
    info = json.loads((folder / "info.json").read_text())
    (folder / "info.json").write_text(json.dumps({**info, "fitted_shards": sorted(set(tables) - set(later))}))
    (found,) = geometry.drifts(ledger)
    assert (found.name, found.rows, found.alarm) == ("read after the fit", 40, True)
    assert found.moved[0].cluster == labels[0] and found.moved[0].now == 1
