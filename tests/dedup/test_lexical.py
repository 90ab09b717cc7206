"""Which rows are duplicates, which one survives, and what is never merged."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow.parquet as pq
import pytest

WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"


@pytest.fixture
def fates(project: Any) -> Any:
    """Fates of texts in one file, by their order: "kept", or (rule, text of the survivor, similarity)."""

    def run(*rows: Any, **settings: Any) -> list[Any]:
        project.file("rows.jsonl", *rows)
        project.recipe(near_dedup=settings)
        project.run()
        texts, ids, verdicts = project.column("text"), project.column("row_id"), project.column("near_dedup.verdict")
        by_place = {f"00000-0000:{row}": text for row, text in enumerate(texts)}
        found: list[Any] = []
        for verdict in verdicts:
            if verdict is None:
                found.append("kept")
                continue
            assert ids[texts.index(by_place[verdict["twin_at"]])] == verdict["twin"]
            assert verdict["decision"] == "drop"
            found.append((verdict["rule"], by_place[verdict["twin_at"]], verdict["similarity"]))
        return found

    return run


def test_ten_rows(fates):
    rows = [
        WORDS,
        WORDS.upper() + ".",  # the same in the declared normal form
        f"{WORDS} seventeen",  # 12 of 13 five-word shingles
        f"{WORDS} seventeen eighteen nineteen twenty",  # 12 of 16 with the first, 13 of 16 with the third: joined through it
        "something else entirely that shares no five words in a row with the rest",
        "too short",
        "too  short",
        "Too short!",
        "short",
        "shorter",
    ]
    last = rows[3]
    assert fates(*rows) == [
        ("exact_duplicate", last, 0.75),  # a copy of the next row, which itself falls to the last one
        ("near_duplicate", last, 0.75),
        ("near_duplicate", last, 0.8125),
        "kept",
        "kept",
        ("exact_duplicate", rows[6], 1.0),
        "kept",
        "kept",  # "!" is a symbol: below five words only equal texts are duplicates
        "kept",
        "kept",
    ]


def test_the_threshold_is_exact(fates):
    """12 shared shingles of 15: Jaccard 0.8 is at the threshold of 0.8 and joined, at 0.81 it is not."""
    pair = (WORDS, f"{WORDS} seventeen eighteen nineteen")
    assert fates(*pair, threshold=0.8)[0] == ("near_duplicate", pair[1], 0.8)
    assert fates(*pair, threshold=0.81) == ["kept", "kept"]
    assert fates(*pair, threshold=0.8, exact_only=True) == ["kept", "kept"]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (f"add 3 to this: {WORDS}", f"add 4 to this: {WORDS}"),
        (f"the answer is not there: {WORDS}", f"the answer is there: {WORDS}"),
        (f"you should do it: {WORDS}", f"you shouldn't do it: {WORDS}"),
        ("x = a + b", "x = a - b"),
        (f"if a < b then {WORDS}", f"if a > b then {WORDS}"),
        ("a", "b"),
        ("...", "???"),
    ],
)
def test_what_turns_the_meaning_round_is_never_merged(fates, a, b):
    assert fates(a, b, threshold=0.3) == ["kept", "kept"]


def test_texts_without_shingles_are_not_equal_to_one_another(fates):
    assert fates(*"abcdefghij") == ["kept"] * 10


def test_invisible_marks_and_compatibility_forms_do_not_tell_texts_apart(fates):
    found = fates("ﬁne words", "fi\u00adne wo\u200brds", "ＦＩＮＥ  WORDS")
    assert sum(fate == "kept" for fate in found) == 1


def test_the_source_of_higher_priority_survives_whatever_the_length(project):
    long = project.file("long.jsonl", f"{WORDS} seventeen")
    short = project.file("short.jsonl", WORDS)
    for first, kept in (("long", f"{WORDS} seventeen"), ("short", WORDS)):
        sources = [{"name": path.stem, "path": str(path), "priority": int(path.stem != first)} for path in (long, short)]
        project.recipe(ingest={"path": None, "sources": sources})
        project.run(first)
        assert {text for text, fate in project.fates(first).items() if fate == "kept"} == {kept}


def test_the_older_of_two_equally_long_rows_survives(project):
    project.file("a.jsonl", {"text": f"alpha {WORDS} omega", "born": "2024"}, {"text": f"omega {WORDS} alpha", "born": "2020"})
    project.recipe(ingest={"keep": ["born"]}, near_dedup={"age": "born", "threshold": 0.5})
    project.run()
    assert project.fates() == {f"alpha {WORDS} omega": "near_duplicate", f"omega {WORDS} alpha": "kept"}


def test_the_order_of_files_and_the_cut_into_shards_decide_nothing(new_project):
    rows = [f"{WORDS} {'x ' * (row % 4)}" for row in range(9)] + ["a row of its own"]
    kept = []
    for name, order, shard_rows in (("forth", rows, 100), ("back", rows[::-1], 3)):
        project = new_project(name)
        project.file("a.jsonl", *order)
        project.recipe(ingest={"shard_rows": shard_rows})
        project.run()
        kept.append(sorted(row["text"] for row in project.published()))
    assert kept[0] == kept[1]


def test_a_set_of_duplicates_has_one_survivor_that_is_kept(fates):
    found = fates(*[" ".join([*WORDS.split()[: 16 - row], *(f"w{row}{at}" for at in range(row))]) for row in range(6)], threshold=0.5)
    survivors = {fate[1] for fate in found if fate != "kept"}
    assert len(survivors) <= sum(fate == "kept" for fate in found)


def test_real_documents_are_found_as_exact_comparison_finds_them(project, shared):
    """Truth: every pair of neardup_pairs with an exact Jaccard of word 5-grams of 0.8 and more, found by comparing all with all."""
    docs = pq.read_table(shared / "data" / "neardup_docs.parquet", columns=["id", "text", "cluster_id"]).to_pylist()
    docs = [doc for doc in docs if hashlib.sha256(doc["cluster_id"].encode()).digest()[0] % 5 == 0]
    project.file("docs.jsonl", *[{"id": doc["id"], "text": doc["text"]} for doc in docs])
    project.recipe(near_dedup={"threshold": 0.8})
    project.run()
    ids, verdicts = project.column("source_id"), project.column("near_dedup.verdict")
    survivor = {own: ids[int(verdict["twin_at"].split(":")[1])] if verdict else own for own, verdict in zip(ids, verdicts, strict=True)}
    assert all(survivor[other] == other for other in survivor.values())
    there = {doc["id"] for doc in docs}
    pairs = pq.read_table(shared / "data" / "neardup_pairs.parquet", columns=["id_a", "id_b", "jaccard5", "exact_text"]).to_pylist()
    pairs = [pair for pair in pairs if pair["id_a"] in there and pair["id_b"] in there]
    alike = [pair for pair in pairs if pair["jaccard5"] >= 0.8]
    assert len(alike) > 500
    assert all(survivor[pair["id_a"]] == survivor[pair["id_b"]] for pair in alike)
    assert all(survivor[pair["id_a"]] == survivor[pair["id_b"]] for pair in pairs if pair["exact_text"])
    in_a_pair = {one for pair in alike for one in (pair["id_a"], pair["id_b"])}
    dropped = {own for own, other in survivor.items() if own != other}
    assert len(dropped & in_a_pair) / len(dropped) >= 0.99  # what a word is differs a little


def test_questions_about_one_passage_are_duplicates_only_where_their_answers_agree(project):
    def row(question: str, answer: str) -> dict[str, str]:
        return {"instruction": f"{question} {' '.join(f'word{number}' for number in range(60))}", "output": answer}

    project.file(
        "a.jsonl", row("Who came?", "Anna"), row("Who left?", "Bert"), row("Who really came?", "anna."), row("Who came then?", "not Anna")
    )
    for answers, kept in (("agree", 3), ("ignored", 1)):
        project.recipe(near_dedup={"answers": answers, "threshold": 0.7})
        project.run()
        assert len(project.published()) == kept
        assert set(project.fates().values()) == {"kept", "near_duplicate"}


def test_rows_of_another_dataset_stay_and_are_named(new_project):
    old = new_project("old")
    old.file("old.jsonl", WORDS, "an old row")
    old.recipe()
    old.run()
    project = new_project("new")
    project.file("new.jsonl", f"{WORDS} seventeen eighteen", "An  old row.", "a new row", f"{WORDS} seventeen")
    for place in (old.folder / "run", old.folder / "run" / "dataset"):
        project.recipe(near_dedup={"against": [str(place)]})
        project.run()
        verdicts = project.column("near_dedup.verdict")
        assert [verdict and verdict["rule"] for verdict in verdicts] == [
            "near_duplicate_of_known",
            "exact_duplicate_of_known",
            None,
            "near_duplicate_of_known",
        ]
        ids = {row["text"]: row["row_id"] for row in old.published()}
        assert [verdict["twin"] for verdict in verdicts if verdict] == [ids[WORDS], ids["an old row"], ids[WORDS]]
        assert verdicts[0]["twin_at"].startswith(str(place)) and verdicts[0]["similarity"] == pytest.approx(12 / 14, abs=1e-6)
    assert [row["text"] for row in project.published()] == ["a new row"]


def test_what_a_run_left_out_is_not_known_and_answers_of_known_rows_count(new_project):
    def row(question: str, answer: str) -> dict[str, str]:
        return {"instruction": f"{question} {' '.join(f'word{number}' for number in range(60))}", "output": answer}

    old, project = new_project("old"), new_project("new")
    old.file("old.jsonl", row("Who came?", "Anna"), {"instruction": "left out", "output": ""})
    old.recipe(scorers=["heuristics"], heuristics={"empty_response": True})
    old.run()
    assert len(old.published()) == 1
    project.file("new.jsonl", row("Who left?", "Bert"), {"instruction": "left out", "output": ""}, row("Who came then?", "Anna"))
    project.recipe(near_dedup={"against": [str(old.folder / "run")]})
    project.run()
    assert [verdict and verdict["rule"] for verdict in project.column("near_dedup.verdict")] == [None, None, "near_duplicate_of_known"]
    (shard,) = project.ledger().dataset.shards
    assert str(old.folder) in project.ledger().explain(shard, 2)["twin_is"]["file"]
    assert project.curate("explain", "run", "new.jsonl:3").returncode == 0


def test_a_run_is_not_held_against_itself(project):
    from curate.errors import UserMistake

    project.file("a.jsonl", "a")
    project.recipe()
    project.run()
    with pytest.raises(UserMistake, match="own folder"):
        project.run(changes=(f"near_dedup.against=[{project.folder / 'run'}]",))


def test_plain_documents_are_compared_by_their_text_where_the_view_is_the_prompt(project):
    project.file("a.jsonl", "one document", "another document")
    project.file("b.jsonl", *[{"instruction": "a prompt", "output": output} for output in "xy"])
    for view, kept in (("prompt", 3), ("response", 4)):  # documents have no response and are no copies for that
        project.recipe(near_dedup={"view": view, "exact_only": True})
        project.run()
        assert len(project.published()) == kept


@pytest.mark.parametrize("view", ["line", "messages"])
def test_a_view_that_is_no_text_is_a_mistake(project, view):
    from curate.errors import UserMistake

    project.file("a.jsonl", "one document", "another")
    project.recipe(near_dedup={"view": view})
    with pytest.raises(UserMistake, match="name a column of texts"):
        project.run()


def test_another_dataset_that_changes_is_looked_at_again(new_project):
    old, project = new_project("old"), new_project("new")
    old.file("old.jsonl", "one row")
    old.recipe()
    old.run()
    project.file("new.jsonl", "one row", "two rows")
    project.recipe(near_dedup={"against": [str(old.folder / "run")]})
    project.run()
    assert project.fates() == {"one row": "exact_duplicate_of_known", "two rows": "kept"}
    old.file("more.jsonl", "two rows")
    old.run()
    project.run()
    assert set(project.fates().values()) == {"exact_duplicate_of_known"}


def test_a_quality_that_is_no_number_is_a_mistake(project):
    from curate.errors import UserMistake

    project.file("a.jsonl", {"text": "a", "when": {"day": 1}}, {"text": "b", "when": {"day": 2}})
    project.recipe(ingest={"keep": ["when"]}, near_dedup={"quality": "when"})
    with pytest.raises(UserMistake, match=r"quality: column 'when' is .*a column of numbers"):
        project.run()


@pytest.mark.parametrize(("place", "said"), [("nowhere", "no Parquet file at"), ("recipe.yaml", "cannot be read as Parquet")])
def test_a_dataset_that_is_none_is_a_mistake_with_a_remedy(project, place, said):
    from curate.errors import UserMistake

    project.file("a.jsonl", "a")
    project.recipe(near_dedup={"against": [str(project.folder / place)]})
    with pytest.raises(UserMistake, match=said):
        project.run()


def test_a_source_of_which_nearly_nothing_is_left_raises_an_alarm(project):
    project.file("a.jsonl", *["the same text again"] * 120, *[f"row {number}" for number in range(5)])
    project.recipe(near_dedup={})
    done = project.run()
    assert done["exit_code"] == 3 and any("119 of 125 rows of source" in remark and "most_removed" in remark for remark in done["remarks"])
    assert done["kept"] == 6
    assert project.run(changes=("near_dedup.most_removed=1",))["exit_code"] == 0


def test_the_better_row_survives_where_a_column_says_which(project):
    project.file(
        "a.jsonl",
        {"text": f"{WORDS} seventeen", "stars": 2},
        {"text": WORDS, "stars": 5},
        {"text": f"{WORDS} eighteen nineteen", "stars": None},
    )
    project.recipe(ingest={"keep": ["stars"]}, near_dedup={"quality": "stars", "threshold": 0.7})
    project.run()
    assert [text for text, fate in project.fates().items() if fate == "kept"] == [WORDS]


def test_the_last_pass_reads_the_shingles_of_the_first(project, tmp_path):
    """Two dedup steps of one pipeline ask for the same shingles: they are made once."""
    pipeline = tmp_path / "twice.py"
    pipeline.write_text(
        "STEPS = {'ingest': 'ingest.settings', 'near_dedup': 'dedup.lexical', 'dedup': 'dedup.union', 'publish': 'publish.dataset'}\n"
        "def twice(run, recipe):\n"
        "    docs = run.step('ingest', recipe.ingest)\n"
        "    run.step('near_dedup', recipe.near_dedup, docs)\n"
        "    run.step('dedup', recipe.dedup, run.everything(docs))\n"
        "    run.publish(recipe.publish, docs)\n"
    )
    project.file("a.jsonl", WORDS, f"{WORDS} seventeen", f"{WORDS} eighteen nineteen twenty x")
    project.recipe(pipeline=f"{pipeline}:twice", dedup={"threshold": 0.6})
    project.run()
    assert project.executed()["shingles/text-words-5"] == 1
    assert len(project.published()) == 1


@pytest.mark.slow
def test_the_same_decisions_for_any_cut_any_workers_and_any_order_of_files(new_project, shared):
    docs = pq.read_table(shared / "data" / "neardup_docs.parquet", columns=["id", "text"]).to_pylist()[:600]
    docs += [{"id": f"{doc['id']}/again", "text": doc["text"].upper()} for doc in docs[::9]]
    seen = []
    for files, workers, engine, order in ((1, None, "inline", 1), (3, 2, "ray", -1), (17, 3, "ray", 1), (17, None, "inline", -1)):
        project = new_project(f"{files}-{workers}-{order}")
        for number in range(files):
            part = docs[number::files]
            project.file(f"{number if order == 1 else files - number:02d}.jsonl", *part[::order])
        project.recipe(ingest={"shard_rows": 250})
        project.run(engine=engine, workers=workers)
        ids, texts, verdicts = (project.column(name) for name in ("row_id", "source_id", "near_dedup.verdict"))
        assert set(texts) == {doc["id"] for doc in docs}
        # Of rows of one text (and so one row_id) it does not matter which is which.
        seen.append(
            sorted(
                (own, verdict and (verdict["rule"], verdict["twin"], verdict["similarity"], verdict["value"]))
                for own, verdict in zip(ids, verdicts, strict=True)
                if verdict
            )
        )
    assert len(seen[0]) > 200
    assert seen[0] == seen[1] == seen[2] == seen[3]
