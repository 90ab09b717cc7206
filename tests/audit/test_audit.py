"""The audit of a trained filter: purity, pollution, edits, and the model that its choice makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from given import SPAM, WIKI, sentence

import curate
from curate.audit import filter as audits
from curate.audit import proxy
from curate.audit.corpus import Corpus, highest, read_corpus, settings_of
from curate.audit.induced import induced
from curate.cli import app
from curate.errors import UserMistake
from curate.ledger import open_run
from curate.score.filter import Filter
from curate.training import train_pieces

QUIET = lambda text: None  # noqa: E731


def corpus(trusted: int = 60, spam: int = 240, wiki: int = 60) -> Corpus:
    """Trusted sentences about history; a pool of advertisements with some history in it."""
    generator = np.random.default_rng(0)
    texts = [f"{i} " + sentence(words, generator) for i, words in enumerate([WIKI] * trusted + [SPAM] * spam + [WIKI] * wiki)]
    table = pa.table({"text": pa.array(texts, pa.large_string()), "tokens": pa.array([13] * len(texts), pa.int64())})
    is_trusted = np.arange(len(texts)) < trusted
    good = np.array([0.0] * (trusted + spam) + [1.0] * wiki)
    return Corpus(table, is_trusted, np.zeros(len(texts), bool), {"good": good, "bad": -good})


def test_purity_counts_trusted_rows_that_nearly_repeat_the_pool():
    clean = corpus()
    assert audits.purity(clean)["near_copies_of_pool_rows"] == 0
    texts = clean.texts()
    texts[3], texts[5] = texts[100], texts[101] + " more"
    dirty = Corpus(clean.table.set_column(0, "text", pa.array(texts, pa.large_string())), clean.trusted, clean.judge, {})
    found = audits.purity(dirty)
    assert found["near_copies_of_pool_rows"] == 2 and found["trusted_rows"] == 60
    assert [example["similarity"] for example in found["examples"]] == [1.0, pytest.approx(9 / 10, abs=0.02)]


def test_pool_rows_that_hold_a_judge_are_found():
    given = corpus()
    texts = given.texts()
    assert audits.repeated(given, [texts[100][:70] + " and so on", "a text that nobody has"]).nonzero()[0].tolist() == [100]
    assert not audits.repeated(given, [texts[0]]).any()  # a trusted row is not of the pool


def test_language_alone_tells_languages_apart_and_nothing_else():
    assert audits.language_auc(corpus(), 0) == pytest.approx(0.5, abs=0.2)
    german = [
        "Die Straße führt durch den Wald und über den Fluss nach Hause",
        "Wir haben gestern das ganze Buch gelesen und nichts verstanden",
    ]
    mixed = corpus()
    texts = [
        text if trusted else f"{german[i % 2]} {i}" for i, (text, trusted) in enumerate(zip(mixed.texts(), mixed.trusted, strict=True))
    ]
    apart = Corpus(pa.table({"text": pa.array(texts, pa.large_string())}), mixed.trusted, mixed.judge, {})
    assert audits.language_auc(apart, 0) > 0.95


def test_the_highest_hold_their_share_of_the_mass():
    scores, mass = np.array([0.1, 0.9, 0.5, 0.7, np.nan]), np.array([1.0, 1, 1, 1, 9])
    everything = np.ones(5, bool)
    assert highest(scores, mass, everything, 0.5).tolist() == [False, True, False, True, False]
    assert highest(scores, mass, np.array([True, False, True, True, True]), 0.34).tolist() == [False, False, False, True, False]


def test_pollution_leaves_the_choice_alone_only_where_there_is_none():
    settings = Filter(trusted={"where": {"x": 1}}, members=("words",), features=1 << 12)
    found = audits.pollution(corpus(), settings, 0.2, (0.0, 0.3), 0, QUIET)
    assert [(item["share"], item["audited"]) for item in found] == [(0.0, True), (0.3, True), (0.0, False), (0.3, False)]
    assert found[0]["overlap"] == found[2]["overlap"] == 1.0
    assert all(0 < item["overlap"] <= 1 for item in found) and found[1]["rows_set_aside"] > 1 and found[3]["rows_set_aside"] == 0
    assert found[1]["overlap"] > found[3]["overlap"]
    assert found[3]["auc"] < found[2]["auc"]


@pytest.mark.slow
def test_a_model_of_the_right_words_foretells_them_better_and_every_arm_reads_as_much(tmp_path: Path):
    generator = np.random.default_rng(7)
    judges = [sentence(WIKI, generator) for _ in range(20)]
    given = corpus(trusted=10, spam=2400, wiki=600)
    found = induced(given, judges, tmp_path, (0.1,), 2, None, 1, 0, QUIET, small())
    arms = found["arms"]
    assert set(arms) == {"good 10%", "bad 10%", "random"}
    assert arms["good 10%"]["loss"] < arms["random"]["loss"] < arms["bad 10%"]["loss"]
    assert arms["good 10%"]["difference"]["interval"][1] < 0 < arms["bad 10%"]["difference"]["interval"][0]
    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert len({line["tokens"] for line in lines}) == 1 and len(lines) == 6
    before = (tmp_path / "trials.jsonl").read_bytes()
    assert induced(given, judges, tmp_path, (0.1,), 2, None, 1, 0, QUIET, small()) == found
    assert (tmp_path / "trials.jsonl").read_bytes() == before  # nothing was trained again
    with pytest.raises(UserMistake, match="too few to train on: audit a larger run"):
        induced(corpus(), judges, tmp_path, (0.1,), 1, None, 1, 0, QUIET, small())


def small() -> proxy.ProxyModel:
    return proxy.ProxyModel(vocabulary=300, width=32, layers=1, heads=2, context=16, batch_blocks=4)


def test_losses_of_a_judge_do_not_depend_on_the_others():
    given = [np.arange(1, n, dtype=np.uint16) % 290 for n in (5, 40, 100)]
    sizes = np.array([4, 39, 99])
    from curate import models

    model = models.fresh_causal_lm(300, 32, 1, 2, 16, 0).eval()
    together = proxy.Trainer(small(), [], given, sizes, 0).judge(model)
    apart = [proxy.Trainer(small(), [], [ids], sizes[i : i + 1], 0).judge(model)[0] for i, ids in enumerate(given)]
    assert together == pytest.approx(apart, rel=1e-4) and together == pytest.approx(np.log(300), abs=0.5)  # weights say nothing yet


def test_pieces_spell_any_text():
    tokenizer = train_pieces(["the river and the sea", "a river"] * 20, 300)
    texts = ["the river", "Straße 東京 \x00 🙂", ""]
    assert proxy.decode(tokenizer, proxy.encode(tokenizer, texts)) == texts
    assert len(proxy.encode(tokenizer, ["the river"])[0]) < 9


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a filter over 360 rows."""
    folder = tmp_path_factory.mktemp("audit")
    given = corpus()
    kinds = ["trusted" if trusted else "pool" for trusted in given.trusted]
    rows = [{"text": text, "kind": kind} for text, kind in zip(given.texts(), kinds, strict=True)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": "", "kind": "pool"}]))
    (folder / "recipe.yaml").write_text(
        f"""pipeline: ingest
scorers: [length, filter]
ingest: {{path: {folder}/rows.jsonl, keep: [kind], shard_rows: 100, quarantine_max: 1.0}}
filter: {{trusted: {{where: {{kind: trusted}}}}, members: [words], features: 4096}}
select: {{where: {{filter_percentile: {{min: 80}}}}}}
"""
    )
    curate.run(folder / "recipe.yaml", folder / "run", engine="inline")
    return folder / "run"


def test_the_corpus_of_a_run_is_its_rows_without_what_was_set_aside(run: Path):
    ledger = open_run(run)
    settings, fitted, kept = settings_of(ledger)
    assert (settings.members, kept, (fitted / "info.json").is_file()) == (("words",), pytest.approx(0.2), True)
    found = read_corpus(ledger, settings, ["-chars"], ("kind", "trusted"), 100, 0)
    assert (int(found.trusted.sum()), int(found.judge.sum()), int(found.pool.sum())) == (0, 60, 100)  # judges are not trusted
    assert set(found.scores) == {"filter_score", "filter_words", "-chars"} and (found.scores["-chars"] < 0).all()
    again = read_corpus(ledger, settings, [], None, 100, 0)
    assert int(again.trusted.sum()) == 60 and "" not in again.texts()
    with pytest.raises(UserMistake, match="no column 'fame': name one of its columns"):
        read_corpus(ledger, settings, ["fame"], None, 100, 0)


def test_the_command_says_what_it_found_and_what_it_did_not_ask(run: Path):
    from typer.testing import CliRunner

    said = CliRunner().invoke(app, ["audit-filter", str(run), "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout.splitlines()[-1])
    assert found["remarks"] and "give --judge FILE" in found["remarks"][0] and "induced" not in found
    assert json.loads((run / "audit" / "filter.json").read_text()) == {name: found[name] for name in found if name != "report"}
    assert [item["edit"] for item in found["edits"]] == ["again"]  # plain words: no other edit changes them
    page = Path(found["report"]).read_text()
    assert 'id="audit"' in page and "choice stays" in page
    with pytest.raises(UserMistake, match="give shares between 0 and 1"):
        CliRunner().invoke(app, ["audit-filter", str(run), "--cuts", "5"], catch_exceptions=False)
    with pytest.raises(UserMistake, match="give COLUMN=VALUE"):
        CliRunner().invoke(app, ["audit-filter", str(run), "--judge-where", "kind"], catch_exceptions=False)


def test_a_run_without_a_filter_is_the_users_to_mend(tmp_path: Path):
    (tmp_path / "rows.txt").write_text("one\n")
    (tmp_path / "rows.jsonl").write_text('{"text": "one row"}\n')
    (tmp_path / "recipe.yaml").write_text(f"pipeline: ingest\nscorers: []\ningest: {{path: {tmp_path}/rows.jsonl}}\n")
    curate.run(tmp_path / "recipe.yaml", tmp_path / "run", engine="inline")
    with pytest.raises(UserMistake, match="has no trained filter: give a run"):
        settings_of(open_run(tmp_path / "run"))
