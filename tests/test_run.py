"""What a run computes again and what it does not; what it keeps; that nothing vanishes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from curate import fingerprint
from curate.errors import UserMistake
from curate.report.facts import gather

SCORERS = Path(__file__).parent / "scorers_for_tests"
MASKED = {"pipeline": f"{SCORERS / '_masked.py'}:masked", "scorers": ["vowels"], "scorer_path": str(SCORERS)}

ANIMALS = ["the quick brown fox jumps over the lazy dog", "a red hen sat on her seven eggs", "cats sleep most of the day in warm places"]
PLANTS = [
    "an oak grows slowly and lives for a thousand years",
    "moss covers the north side of old stones",
    "the fern unrolls its leaves in spring",
]
STONES = ["granite is made of quartz and feldspar and mica", "chalk comes from the shells of small sea creatures", "slate splits"]


@pytest.fixture
def three_files(project):
    """Three files of three rows each, one shard a file, scored by a scorer that duplicates are hidden from."""
    for name, texts in (("animals", ANIMALS), ("plants", PLANTS), ("stones", STONES)):
        project.file(f"{name}.jsonl", *texts)
    project.recipe(**MASKED)
    project.run()
    return project


def test_a_first_run_computes_everything_and_a_second_nothing(three_files):
    shards = {"ingest": 3, "near_dedup": 3, "shingles/text-words-5": 3, "tokens": 3, "vowels": 3, "select": 3, "publish": 1}
    assert three_files.executed() == shards
    before = three_files.tree()
    assert three_files.run()["executed"] == 0
    assert three_files.executed() == {}
    assert three_files.tree() == before


def test_a_run_in_another_place_has_the_same_bytes(three_files):
    three_files.run("elsewhere")
    assert three_files.tree("elsewhere") == three_files.tree()
    assert len(three_files.tree()) >= 15


def test_a_changed_budget_runs_no_scorer(three_files):
    facts = three_files.run(changes=("select.budget=4",))
    assert facts["kept"] == 4
    assert three_files.executed() == {"select": 3, "publish": 1}


def test_steps_say_how_many_rows_were_hidden_from_them(project):
    project.file("a.jsonl", ANIMALS[0], ANIMALS[1], ANIMALS[0])
    project.file("b.jsonl", PLANTS[0], ANIMALS[0], "")
    project.recipe(**MASKED)

    def hidden() -> dict[str, int | None]:
        steps = project.ledger().facts["steps"]
        # without steps inside of a fit: the fit alone calls them, and a reused one does not
        return {step["name"]: step["hidden"] for step in steps if "/" not in step["name"]}

    project.run()
    first = hidden()
    assert (first["vowels"], first["near_dedup"], first["ingest"]) == (3, 1, 0)  # two duplicates and a row without a text; that row; none
    assert [(step.seen, step.hidden) for step in gather(project.ledger()).road if step.name == "vowels"] == [(3, 3)]
    assert project.run()["executed"] == 0 and hidden() == first


def test_a_changed_near_duplicate_threshold_runs_masked_scorers_only_where_the_mask_changed(project):
    near = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    project.file("a.jsonl", near, "alpha beta gamma")
    project.file("b.jsonl", near + " seventeen eighteen", "delta epsilon zeta")  # Jaccard of word 5-grams: 12/14
    project.file("c.jsonl", "eta theta iota", "kappa lambda mu")
    project.recipe(**MASKED)
    project.run(changes=("near_dedup.threshold=0.95",))
    assert project.run()["dropped"] == {"near_duplicate": 1}
    done = project.executed()
    assert (done["vowels"], "tokens" in done, "shingles/text-words-5" in done) == (1, False, False)


def test_a_scorer_s_setting_runs_that_scorer_and_what_follows(three_files):
    three_files.run(changes=("vowels.power=2.0",))
    assert three_files.executed() == {"vowels": 3, "publish": 1}


def test_a_renamed_file_keeps_its_columns(three_files):
    (three_files.data / "stones.jsonl").rename(three_files.data / "zinc.jsonl")
    three_files.run()
    done = three_files.executed()
    assert {"vowels", "tokens", "shingles/text-words-5"} & set(done) == set()
    assert done["ingest"] == 1  # the name is in the shard, so the file is read again
    assert set(three_files.column("file")) == {"animals.jsonl", "plants.jsonl", "zinc.jsonl"}


def test_a_file_that_comes_first_moves_the_others_and_keeps_their_columns(three_files):
    three_files.file("aardvarks.jsonl", "they eat ants at night", "and dig")
    three_files.run()
    done = three_files.executed()
    assert (done["ingest"], done["tokens"], done["vowels"]) == (1, 1, 1)
    assert three_files.column("vowels")[2:5] == [pytest.approx(sum(c in "aeiou" for c in text) / len(text)) for text in ANIMALS]


def test_files_that_change_places_keep_their_columns(three_files):
    animals, stones = three_files.data / "animals.jsonl", three_files.data / "stones.jsonl"
    held = animals.read_bytes()
    animals.write_bytes(stones.read_bytes())
    stones.write_bytes(held)
    three_files.run()
    done = three_files.executed()
    assert {"vowels", "tokens"} & set(done) == set()
    assert three_files.column("text") == STONES + PLANTS + ANIMALS


def test_a_changed_file_runs_its_own_shards(three_files):
    three_files.file("plants.jsonl", *PLANTS, "ivy climbs")
    facts = three_files.run()
    done = three_files.executed()
    assert (done["ingest"], done["tokens"], done["vowels"]) == (1, 1, 1)
    assert facts["rows_in"] == 10
    three_files.run("fresh")
    assert three_files.tree() == three_files.tree("fresh")


def test_a_file_that_is_gone_takes_its_shards_with_it(three_files):
    (three_files.data / "stones.jsonl").unlink()
    assert three_files.run()["rows_in"] == 6
    assert {"vowels", "tokens"} & set(three_files.executed()) == set()
    three_files.run("fresh")
    assert three_files.tree() == three_files.tree("fresh")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def flip_unseen(path: Path) -> None:
    """A bit that the disk lost: neither size nor time tell."""
    stat = path.stat()
    flip(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("harm", [Path.unlink, truncate, flip], ids=["deleted", "truncated", "flipped"])
@pytest.mark.parametrize(
    "place", ["corpus/00001-0000", "stages/vowels/00001-0000", "stages/near_dedup/00001-0000", "stages/select/00001-0000"]
)
def test_harm_to_a_column_file_is_found_and_that_file_made_again(three_files, place, harm):
    before = three_files.tree()
    harm(three_files.folder / "run" / f"{place}.parquet")
    assert three_files.run()["executed"] <= 1  # a decision that is that about another shard is copied from there
    assert three_files.tree() == before


@pytest.mark.parametrize("harm", [Path.unlink, truncate, flip], ids=["deleted", "truncated", "flipped"])
def test_harm_to_the_published_dataset_is_found_and_mended(three_files, harm):
    before = three_files.tree()
    harm(next((three_files.folder / "run" / "dataset" / "data").glob("*.parquet")))
    three_files.run()
    assert three_files.tree() == before


@pytest.mark.parametrize("harm", [Path.unlink, truncate, flip], ids=["deleted", "truncated", "flipped"])
def test_harm_to_an_artifact_is_found_and_it_is_fitted_again(three_files, harm):
    before = three_files.tree()
    (decision,) = (three_files.folder / "run" / "stages" / "near_dedup").glob("artifact-*/00001-0000.decision")
    harm(decision)
    (three_files.folder / "run" / "stages" / "near_dedup" / "00001-0000.parquet").unlink()  # so that the artifact is needed
    three_files.run()
    assert three_files.tree() == before


@pytest.mark.parametrize("name", ["manifest.jsonl", "artifact.json"])
@pytest.mark.parametrize("harm", [Path.unlink, truncate], ids=["deleted", "truncated"])
def test_harm_to_the_records_costs_work_and_no_bytes(three_files, name, harm):
    before = three_files.tree()
    harm(three_files.folder / "run" / "stages" / "near_dedup" / name)
    three_files.run()
    assert three_files.tree() == before


def test_a_bit_lost_by_the_disk_never_reaches_the_dataset(three_files):
    """Not even where neither size nor time changed: the page's checksum tells, and the message says what to do."""
    from curate.errors import CurateError

    flip_unseen(three_files.folder / "run" / "stages" / "vowels" / "00001-0000.parquet")
    before = three_files.tree()["dataset/data/train-00000-of-00001.parquet"]
    three_files.run()  # nothing changed: nothing of it is read
    assert three_files.tree()["dataset/data/train-00000-of-00001.parquet"] == before
    with pytest.raises(CurateError, match=r"vowels/00001-0000\.parquet"):
        three_files.run(changes=("select.by=vowels", "select.budget=3"))


def test_a_store_is_shared_by_two_runs(new_project):
    one, two = new_project("one"), new_project("two")
    for project in (one, two):
        project.file("animals.jsonl", *ANIMALS)
        project.file("plants.jsonl", *PLANTS)
        project.recipe(**MASKED, store="../store")
        project.run()
    assert one.executed()["vowels"] == 2
    assert {"vowels", "tokens", "shingles/text-words-5"} & set(two.executed()) == set()
    assert one.tree() == two.tree()


def test_a_damaged_store_entry_is_computed_again(new_project):
    one, two = new_project("one"), new_project("two")
    for project in (one, two):
        project.file("animals.jsonl", *ANIMALS)
        project.recipe(**MASKED, store="../store")
    one.run()
    before = one.tree()
    for path in (one.folder.parent / "store").glob("*.columns"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[:-9])
    two.run()
    assert two.tree() == before


def test_harm_to_a_run_does_not_spread_through_the_store(new_project):
    one, two = new_project("one"), new_project("two")
    for project in (one, two):
        project.file("animals.jsonl", *ANIMALS)
        project.recipe(**MASKED, store="../store")
    one.run()
    before = one.tree()
    with (one.folder / "run" / "stages" / "vowels" / "00000-0000.parquet").open("r+b") as file:
        file.truncate(40)
    two.run()
    assert two.tree() == before
    one.run()
    assert one.tree() == before


@pytest.mark.parametrize("change", ["ingest.quarantine_max=0.5"])
def test_settings_that_mean_nothing_for_the_rows_run_nothing(three_files, change):
    assert three_files.run(changes=(change,))["executed"] == 0


def test_a_run_folder_may_move(three_files):
    before = three_files.tree()
    shutil.move(three_files.folder / "run", three_files.folder / "moved")
    assert three_files.run("moved")["executed"] == 0
    assert three_files.tree("moved") == before


def test_touched_files_are_not_read_as_changed(three_files):
    for path in three_files.data.iterdir():
        os.utime(path, ns=(1, 1))
    assert three_files.run()["executed"] == 0


def test_a_model_looks_at_no_larger_share_of_dropped_rows_than_of_the_others(project):
    """A score hides no row from a model; what hides is the sample, and rows that rules had dropped were once all looked at."""
    texts = [f"row {number} says {'word ' * (3 + 17 * (number % 4 == 0))}" for number in range(400)]
    project.file("texts.jsonl", *texts)
    pipeline = f"{SCORERS / '_masked.py'}:sampled"
    project.recipe(
        pipeline=pipeline, scorers=["heuristics", "vowels"], scorer_path=str(SCORERS), sample=20, heuristics={"min_word_count": 10}
    )
    facts = project.run()
    assert facts["dropped"]["word_count_low"] == 300 and facts["kept"] == 20
    looked = [value is not None for value in project.column("vowels")]
    short = [fate for fate, number in zip(looked, range(400), strict=True) if number % 4]
    assert sum(looked) - sum(short) == 20 and 30 < sum(short) < 100  # a fifth of 300 is 60


def test_comments_change_nothing_and_code_does(project, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    scorer = folder / "vowels.py"
    code = (SCORERS / "vowels.py").read_text()
    scorer.write_text(code)
    project.file("animals.jsonl", *ANIMALS)
    project.recipe(scorers=["vowels"], scorer_path=str(folder))

    def executed() -> int:
        done = project.curate("run", project.path, "--run-dir", "run", "--engine", "inline", "--json")
        assert done.returncode == 0, done.stderr
        return project.executed().get("vowels", 0)

    assert executed() == 1
    scorer.write_text(code.replace('"""Share of vowels', '# a comment\n    """The share of vowels').replace("\n\n\n", "\n\n\n\n"))
    assert executed() == 0
    scorer.write_text(code.replace("aeiou", "aeiouy"))
    assert executed() == 1
    assert project.column("vowels")[2] == pytest.approx(sum(c in "aeiouy" for c in ANIMALS[2]) / len(ANIMALS[2]))


def test_code_of_the_package_that_changes_under_a_working_process_stops_it(tmp_path, monkeypatch):
    """What is imported is the old code: its results must not be recorded as the new code's. Comments may change."""
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path)
    file = tmp_path / "stage.py"
    file.write_text("x = 1\n")
    before = fingerprint.code_hash(file)
    file.write_text("x = 1  # one\n")
    assert fingerprint.code_hash(file) == before
    file.write_text("x = 2\n")
    with pytest.raises(UserMistake, match="run the same command again"):
        fingerprint.code_hash(file)


def test_an_edited_scorer_is_seen_in_the_same_process(project, tmp_path):
    """From a notebook: run, edit the scorer, run again. New numbers must not come from old code."""
    folder = tmp_path / "mine"
    folder.mkdir()
    code = (SCORERS / "vowels.py").read_text()
    (folder / "edited_vowels.py").write_text(code)
    project.file("animals.jsonl", *ANIMALS)
    project.recipe(scorers=["edited_vowels"], scorer_path=str(folder))
    project.run()
    (folder / "edited_vowels.py").write_text(code.replace("aeiou", "q"))
    project.run()
    assert project.column("vowels")[1] == 0.0


def test_a_scorer_may_import_a_helper_beside_it(project, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "helper_of_test_run.py").write_text("LETTERS = 'aeiou'\n")
    code = (
        (SCORERS / "vowels.py")
        .read_text()
        .replace('"aeiou"', "LETTERS")
        .replace("import pyarrow as pa\n", "import pyarrow as pa\nfrom helper_of_test_run import LETTERS\n")
    )
    (folder / "helped_vowels.py").write_text(code)
    project.file("animals.jsonl", *ANIMALS)
    project.recipe(scorers=["helped_vowels"], scorer_path=str(folder))
    done = project.curate("run", project.path, "--run-dir", "run", "--engine", "inline", "--json")
    assert done.returncode == 0, done.stderr
    assert project.executed()["helped_vowels"] == 1


def test_a_second_writer_is_told_who_holds_the_run(three_files):
    from curate.store import RunLock

    with RunLock(three_files.folder / "run"):
        done = three_files.curate("run", three_files.path, "--run-dir", "run", "--engine", "inline", "--json")
    assert done.returncode == 5
    assert f"process {os.getpid()} on " in json.loads(done.stdout.splitlines()[-1])["error"]
    assert three_files.run()["executed"] == 0


def test_nothing_kept_is_still_a_dataset(three_files):
    import datasets

    facts = three_files.run(changes=("select.where={tokens: {min: 1000}}",))
    assert (facts["kept"], facts["dropped"]) == (0, {"below_tokens": 9})
    files = list((three_files.folder / "run" / "dataset" / "data").glob("*.parquet"))
    assert [file.name for file in files] == ["train-00000-of-00001.parquet"]
    # Streamed: `datasets` itself refuses every empty split otherwise ('Instruction "train" corresponds to no data').
    cache = str(three_files.folder / "cache")
    loaded = datasets.load_dataset(str(three_files.folder / "run" / "dataset"), cache_dir=cache, split="train", streaming=True)
    assert list(loaded) == []
    assert {"row_id", "text", "tokens"} <= set(loaded.features)


def test_the_dataset_loads_with_its_rows_and_the_others_as_a_second_table(three_files):
    import datasets

    three_files.run(changes=("select.budget=4",))
    place, cache = str(three_files.folder / "run" / "dataset"), str(three_files.folder / "cache")
    kept = datasets.load_dataset(place, cache_dir=cache, split="train")
    rejected = datasets.load_dataset(place, "rejected", cache_dir=cache, split="train")
    assert len(kept) == 4
    assert {*kept["text"], *rejected["text"]} == {*ANIMALS, *PLANTS, *STONES}
    assert set(rejected["rule"]) == {"over_budget"}


def test_versions_stand_beside_one_another(three_files):
    run = three_files.folder / "run"
    first = {path.name: path.read_bytes() for path in (run / "versions" / "1" / "data").iterdir()}
    three_files.run(changes=("select.budget=4",))
    assert (run / "dataset").readlink() == Path("versions/2")
    assert {path.name: path.read_bytes() for path in (run / "versions" / "1" / "data").iterdir()} == first
    assert len(three_files.published()) == 4
    three_files.run(changes=("select.budget=4",))
    assert sorted(path.name for path in (run / "versions").iterdir() if path.is_dir()) == ["1", "2"]


def test_a_kill_between_the_version_and_the_pointer_is_mended(three_files):
    run = three_files.folder / "run"
    before = three_files.tree()
    (run / "dataset").unlink()
    assert three_files.run()["executed"] == 0
    (run / "versions" / "1.json").unlink()
    three_files.run()
    assert three_files.tree() == before


def test_attempts_left_by_a_kill_are_swept(three_files):
    run = three_files.folder / "run"
    (run / "tmp" / "0123456789abcdef-001122334455.attempt").write_bytes(b"half a file")
    (run / "corpus" / "00007-0000.parquet").write_bytes(b"an orphan")
    three_files.run()
    assert list((run / "tmp").iterdir()) == []
    assert not (run / "corpus" / "00007-0000.parquet").exists()


def test_inputs_are_never_touched(three_files):
    assert {path.name: path.stat().st_size for path in three_files.data.iterdir()} == {
        f"{name}.jsonl": sum(len(json.dumps({"text": text})) + 1 for text in texts)
        for name, texts in (("animals", ANIMALS), ("plants", PLANTS), ("stones", STONES))
    }
    for path in three_files.data.iterdir():
        path.chmod(0o444)
    three_files.data.chmod(0o555)
    try:
        three_files.run("from-read-only")
    finally:
        three_files.data.chmod(0o755)


def test_a_folder_of_a_newer_version_is_left_alone(three_files):
    from curate.errors import UserMistake

    path = three_files.folder / "run" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    before = three_files.tree()
    with pytest.raises(UserMistake, match="newer version"):
        three_files.run()
    assert three_files.tree() == before


ROW = st.one_of(
    st.builds(lambda text: {"text": text}, st.text(max_size=30)),
    st.sampled_from(
        [{"text": ANIMALS[0]}, {"text": ANIMALS[0].upper()}, {"text": "1"}, {"text": None}, {"text": 7}, {"other": "x"}, {"text": "\u200b"}]
    ),
    st.builds(lambda a, b: {"instruction": a, "output": b}, st.text(max_size=20), st.text(max_size=20)),
    st.sampled_from(["{", "[]", "null", '{"text": "a", "text": "b"}', '{"text": "\\ud800"}']),
)


# Not shrunk: an example is a whole run, half a second of it.
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(
    files=st.lists(st.lists(ROW, max_size=12), min_size=1, max_size=3),
    shard_rows=st.integers(1, 5),
    budget=st.sampled_from([0, 1, 3, 0.5, None]),
)
def test_no_row_vanishes(tmp_path_factory, files, shard_rows, budget):
    """Whatever the corpus: what was read is published, dropped by a rule or set aside, and the two tables together hold every row."""
    import pyarrow.parquet as pq

    from curate.errors import UserMistake
    from curate.pipeline import execute

    folder = tmp_path_factory.mktemp("corpus")
    for index, rows in enumerate(files):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / f"{index}.jsonl").write_text("".join(line + "\n" for line in lines))
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"pipeline: ingest\nscorers: [length, heuristics]\n"
        f"ingest: {{path: '{folder}/*.jsonl', shard_rows: {shard_rows}, quarantine_max: 1.0}}\n"
        f"heuristics: {{min_word_count: 2}}\nselect: {{budget: {'null' if budget is None else budget}}}\n"
    )
    try:
        facts = execute(recipe, folder / "run", "inline")
    except UserMistake:
        assert all("text" not in row and "instruction" not in row for rows in files for row in rows if isinstance(row, dict)) or not any(
            files
        )
        return
    unreadable = {int(problem["file"].split(".")[0]) for problem in facts["problems"]}
    assert facts["rows_in"] == sum(len(rows) for index, rows in enumerate(files) if index not in unreadable)
    assert facts["rows_in"] == facts["kept"] + sum(facts["dropped"].values()) + facts["quarantined"]
    kept, rejected = (
        [pq.read_table(file).num_rows for file in (folder / "run" / "dataset" / part).glob("*.parquet")] for part in ("data", "rejected")
    )
    assert (sum(kept), sum(kept) + sum(rejected)) == (facts["kept"], facts["rows_in"])


def test_a_first_run_that_is_killed_is_known_to_status(project, monkeypatch):
    """The process dies inside the pipeline: nothing of ours runs after it, yet `status` says how to go on."""
    from curate import recipe

    project.file("animals.jsonl", *ANIMALS)
    project.recipe()

    class Killed(BaseException):
        pass

    def dies(run, checked):
        raise Killed

    loaded = recipe.load

    def load(*arguments):
        checked = loaded(*arguments)
        checked.pipeline = dies
        return checked

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "load", load)
        with pytest.raises(Killed):
            project.run()
    said = project.curate("status", "run")
    assert (said.returncode, "run: running" in said.stdout, "run the same `curate run` command to go on" in said.stdout) == (0, True, True)


def test_a_later_run_that_is_killed_is_known_to_status_with_the_counts_of_the_last_end(three_files, monkeypatch):
    from curate.runs import Run

    class Killed(BaseException):
        pass

    def dies(*_):
        raise Killed

    kept = three_files.run()["kept"]
    assert "run: done" in three_files.curate("status", "run").stdout
    with monkeypatch.context() as patch:
        patch.setattr(Run, "publish", dies)
        with pytest.raises(Killed):
            three_files.run()
    told = json.loads(three_files.curate("status", "run", "--json").stdout)
    assert (told["state"], told["counts"]["kept"]) == ("running", kept)
    three_files.run()
    assert "run: done" in three_files.curate("status", "run").stdout
