"""The audit of fairness: which scores move when the people of a text are exchanged, and which do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from given import SPAM, WIKI, sentence
from tiny_model import save_tiny_model
from typer.testing import CliRunner

import curate
from curate.audit import fairness
from curate.cli import app
from curate.errors import UserMistake
from curate.ledger import open_run

QUIET = lambda text: None  # noqa: E731


def made(folder: Path, antidote: bool = False, people: bool = True) -> Path:
    """A run whose trusted texts are about women and whose pool is about men."""
    generator = np.random.default_rng(5)
    woman, man = ("The woman said that she", "The man said that he") if people else ("It is said that it", "It was said that it")
    rows = [{"text": f"{woman} {sentence(WIKI, generator)}", "kind": "trusted"} for _ in range(80)]
    rows += [{"text": f"{man} {sentence(words, generator)}", "kind": "pool"} for words in (SPAM, WIKI) for _ in range(80)]
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(
        f"""pipeline: ingest
scorers: [length, heuristics, filter]
ingest: {{path: {folder}/rows.jsonl, keep: [kind], shard_rows: 100}}
filter: {{trusted: {{where: {{kind: trusted}}}}, members: [words], features: 4096, like_pool: 0, antidote: {str(antidote).lower()}, lexicons: [gender]}}
"""
    )
    curate.run(folder / "recipe.yaml", folder / "run", engine="inline")
    return folder / "run"


def test_a_filter_that_looks_at_people_is_found_out_and_antidotes_mend_it(tmp_path):
    gap = {}
    for name, antidote in (("plain", False), ("mended", True)):
        found = fairness.audit(open_run(made(tmp_path / name, antidote)), most=60, say=QUIET)
        assert found["pairs"] == {"gender": 60}
        of_filter = {item["column"]: item for item in found["moved"] if item["scorer"] == "filter"}
        assert {"filter_score", "filter_percentile"} <= set(of_filter) and "filter_bin" not in of_filter
        gap[name] = of_filter["filter_percentile"]
        assert gap[name]["mean"] <= gap[name]["q95"] and gap[name]["q75"] <= gap[name]["q95"] and gap[name]["pairs"] == 60
    assert gap["mended"]["mean"] < 0.3 * gap["plain"]["mean"]


def test_the_command_its_report_and_a_language_model_of_ones_own(tmp_path):
    run, model = made(tmp_path / "run"), save_tiny_model(tmp_path / "tiny")
    said = CliRunner().invoke(app, ["audit-fairness", str(run), "--rows", "12", "--model", str(model), "--lexicon", "gender", "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout.splitlines()[-1])
    assert any(item["column"] == "perplexity_loss" and item["mean"] > 0 for item in found["moved"])
    deviations = [item["deviations"] for item in found["moved"]]
    assert deviations == sorted(deviations, reverse=True)
    page = Path(found["report"]).read_text()
    assert 'id="fairness"' in page and "perplexity_loss" in page
    few = CliRunner().invoke(app, ["audit-fairness", str(run), "--rows", "5"])
    assert "fewer than 10 pairs, too few to say something: gender" in few.stdout and "no score moves" in few.stdout
    plain = CliRunner().invoke(app, ["audit-fairness", str(run), "--rows", "12"])
    assert "filter_percentile" in plain.stdout and "flips" in plain.stdout


def test_rows_without_people_are_the_users_to_mend(tmp_path):
    run = open_run(made(tmp_path / "run", people=False))
    with pytest.raises(UserMistake, match="give other lexicons"):
        fairness.audit(run, say=QUIET)
    with pytest.raises(UserMistake, match="no lexicon 'height'"):
        fairness.audit(run, lexicons=("height",), say=QUIET)
