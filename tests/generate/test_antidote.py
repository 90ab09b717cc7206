"""Exchanges read as English, keep everything else, and leave rows out where the attribute is what they are about."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from doubles import table

from curate.audit.corpus import Tables
from curate.errors import UserMistake
from curate.generate.antidote import Antidote
from curate.generate.exchange import attribute_of, swap, variants
from curate.generate.lexicon import read_lexicons
from curate.generate.rows import GENERATED

GENDER, ORIGIN, RELIGION = read_lexicons(("gender", "origin", "religion"), None)


@pytest.mark.parametrize(
    ("female", "male"),
    [
        ("She lost her keys.", "He lost his keys."),
        ("I saw her yesterday.", "I saw him yesterday."),
        ("The doctor gave her a book and told her that it was hers.", "The doctor gave him a book and told him that it was his."),
        ("HER MOTHER waits; Her sister's friend does not.", "HIS FATHER waits; His brother's friend does not."),
        ("An actress met a waitress.", "An actor met a waiter."),
        ("The woman loves her husband.", "The man loves his wife."),
        ("Two girls and a boy share it: she's glad.", "Two boys and a girl share it: he's glad."),
        ("She said it herself:\\nShe did.", "He said it himself:\\nHe did."),
    ],
)
def test_gender_there_and_back(female, male):
    assert swap(female, GENDER, "female", "male") == male
    assert swap(male, GENDER, "male", "female") == female


def test_articles_follow_the_new_word_and_capitals_of_proper_adjectives_stay():
    assert swap("An American student met a Mexican teacher.", ORIGIN, "American", "Mexican") == "A Mexican student met an American teacher."
    assert swap("A Christian woman spoke.", RELIGION, "Christian", "Muslim") == "A Muslim woman spoke."
    assert swap("They are an Indian couple.", ORIGIN, "Indian", "Chinese") == "They are a Chinese couple."
    assert swap("He is an atheist, an heir, a one-off.", GENDER, "male", "female") == "She is an atheist, an heir, a one-off."


def test_only_whole_words_are_exchanged():
    text = "The manager ordered the sherbet; humans, woman-like heroes; mankind, boyish."
    assert swap(text, GENDER, "male", "female") == text.replace("woman", "man")


def reason(text, lexicon=GENDER, prompt=None, response=None):
    return attribute_of(prompt, response, text, lexicon)[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The weather is fine.", "no_span"),
        ("A nurse forgot her umbrella.", ""),
        ("She is pregnant with her first child.", "attribute_is_content"),
        ("We asked what gender she has.", "attribute_is_content"),
        ("We heard that Marie likes her job.", "name_in_text"),
        ("Kiki made 10 sandwiches and her guests ate them.", "name_in_text"),
        ("Two sisters go to the movies.", ""),
        ("They met aunt Petra there.", "name_in_text"),
        ("libyan leader moamer kadhafi said he would come .", "names_not_visible"),
        ("Translate: she sings.", "surface_task"),
        ("How many letters are in the word woman?", "surface_task"),
        ('The word "she" is short.', "quoted"),
        ("They tried to make her happy.", "unclear_grammar"),
        ("Each one took his or her turn.", "unclear_grammar"),
    ],
)
def test_reasons_for_leaving_a_row_out(text, expected):
    assert reason(text) == expected


def test_origin_and_religion_count_only_before_people():
    assert reason("We met a German student.", ORIGIN) == ""
    assert reason("We read a German novel with a German student.", ORIGIN) == "attribute_is_content"
    assert reason("A German student met a Mexican student.", ORIGIN) == "several_values"
    assert reason("Many Muslims live here.", RELIGION) == ""
    assert reason("Many Muslims live near the mosque.", RELIGION) == "attribute_is_content"


def test_an_answer_that_is_the_attribute_is_left_out():
    assert (
        reason("Who called, a man or a woman?\n\nA woman.", prompt="Who called, a man or a woman?", response="A woman.")
        == "answer_is_attribute"
    )


ROWS = table(
    {"prompt": "My sister lost her keys. What should she do?", "response": "She could look under her bed."},
    {"prompt": "What is 2 + 2?", "response": "4"},
    {"text": "The man told his friend a story."},
    {
        "messages": [{"role": "user", "content": "My dad?"}, {"role": "assistant", "content": "He waits."}],
        "prompt": "My dad?",
        "response": "He waits.",
    },
    {"prompt": "We met a German student.", "response": "Good."},
)


def test_prompt_response_and_text_change_together_and_the_row_knows_its_parent():
    made = Antidote(lexicons=("gender",)).load(Path())(ROWS)
    assert made.schema.equals(GENERATED)
    first, document, chat = made.to_pylist()
    assert first["prompt"] == "My brother lost his keys. What should he do?" and first["response"] == "He could look under his bed."
    assert first["text"] == f"{first['prompt']}\n\n{first['response']}" and first["parent_text"] == ROWS.column("text")[0].as_py()
    assert (first["origin"], first["depth"], first["generator"]) == ("antidote", 1, "swap gender:female>male stop")
    assert first["parents"] == [ROWS.column("row_id")[0].as_py()] and first["row_id"] != first["parents"][0]
    assert document["text"] == "The woman told her friend a story." and document["prompt"] is None
    assert [turn["content"] for turn in chat["messages"]] == ["My mom?", "She waits."] and chat["text"] == "My mom?\n\nShe waits."
    assert json.loads(made.schema.metadata[b"counts"]) == {"gender:no_span": 2}


def test_views_variants_and_the_seed():
    assert Antidote(lexicons=("gender",), views=("text",)).load(Path())(ROWS).num_rows == 1
    row = ROWS.slice(4)

    def others(**settings):
        made = Antidote(lexicons=("origin",), **settings).load(Path())(row).column("generator").to_pylist()
        return [name.partition(">")[2].partition(" ")[0] for name in made]

    assert len(others(variants=7)) == 7 == len(set(others(variants=7))) and "German" not in others(variants=7)
    assert others(variants=99) == others(variants=7)
    assert others() == others(variants=3)[:1] == others() and len({others(seed=seed)[0] for seed in range(20)}) > 2


def test_a_lexicon_of_ones_own(tmp_path):
    (tmp_path / "age.yaml").write_text("attribute: age\nvalues: [young, old]\nforms:\n  - [teenager, pensioner]\n")
    made = Antidote(lexicons=("age",), folder=str(tmp_path)).load(Path())(table({"text": "A teenager asked."}))
    assert made.column("text").to_pylist() == ["A pensioner asked."]
    (tmp_path / "bad.yaml").write_text("attribute: age\nvalues: [young, old]\nforms:\n  - [teenager]\n")
    with pytest.raises(UserMistake, match="one word for each"):
        read_lexicons(("bad",), str(tmp_path))
    with pytest.raises(UserMistake, match="there: age, bad"):
        read_lexicons(("ages",), str(tmp_path))
    with pytest.raises(UserMistake, match="there: age, gender"):
        read_lexicons(("../secret",), None)


def test_the_identity_follows_the_content_of_the_lexicons(tmp_path):
    path = tmp_path / "age.yaml"
    path.write_text("attribute: age\nvalues: [young, old]\nforms: [[kid, elder]]\n")
    stage = Antidote(lexicons=("age",), folder=str(tmp_path))
    before = stage.identity()
    path.write_text("attribute: age\nvalues: [young, old]\nforms: [[child, elder]]\n")
    assert stage.identity() != before


def test_mentions_are_exchanged_whatever_a_text_is_about_where_the_lexicon_says_so():
    (identity,) = read_lexicons(("identity",), None)
    text = "I hate the Catholic Church, a Jew said; Jews and Catholics agree."
    assert attribute_of(None, None, text, identity) == ("Catholic", "")
    assert swap(text, identity, "Catholic", "Muslim") == "I hate the Muslim Church, a Jew said; Jews and Muslims agree."
    assert swap("A Jew and a Jewish friend.", identity, "Jewish", "gay") == "A Gay and a Gay friend."
    assert attribute_of(None, None, "Nobody is named here.", identity) == (None, "no_span")


def test_variants_of_a_text_of_people_or_of_every_mention():
    assert dict(variants("Her novel is long.", (GENDER, ORIGIN))) == {"gender:female>male": "His novel is long."}
    text = "The novel is about a German student in Germany."
    assert not dict(variants(text, (GENDER, ORIGIN)))
    every = dict(variants(text, (ORIGIN,), of_people=False))
    assert every["origin:German>Mexican"] == "The novel is about a Mexican student in Germany." and len(every) == 7


@pytest.mark.parametrize(
    ("name", "text", "other"),
    [
        ("orientation", "A gay man asked us.", "A straight man asked us."),
        ("age", "We met an elderly woman there.", "We met a young woman there."),
    ],
)
def test_orientation_and_age_count_before_people(name, text, other):
    (lexicon,) = read_lexicons((name,), None)
    value, why = attribute_of(None, None, text, lexicon)
    assert why == "" and swap(text, lexicon, value, next(one for one in lexicon.values if one != value)) == other
    assert attribute_of(None, None, {"age": "A young tree stood there.", "orientation": "The gay bar is open."}[name], lexicon)[0] is None


def chosen(tmp_path, rows, **settings):
    stage = Antidote(lexicons=("gender",), **settings)
    stage.fit(Tables(rows), None, tmp_path)
    made = stage.load(tmp_path)(rows)
    return made, made.column("parent_text").to_pylist()


def test_a_budget_goes_to_the_rows_that_an_exchange_moves_most_in_every_group(tmp_path):
    texts = [f"She has {count} coins." for count in range(6)] + ["It has none."]
    unfair = [0.1, 0.5, 0.3, 0.9, None, 0.2, 0.99]
    rows = table(*({"text": text} for text in texts), filter_unfairness=unfair, cluster=[0, 0, 0, 1, 1, 1, 1])
    made, parents = chosen(tmp_path / "a", rows, budget=2, by="filter_unfairness")
    assert sorted(parents) == [texts[1], texts[3]]
    # group 0 has three rows, group 1 two (one has no value, one no people): of three, one and one by size, and the next best
    _, parents = chosen(tmp_path / "b", rows, budget=3, by="filter_unfairness", groups="cluster")
    assert sorted(parents) == [texts[1], texts[2], texts[3]]
    assert json.loads(made.schema.metadata[b"counts"]) == {"gender:no_span": 1, "gender:over_budget": 3}
    _, everything = chosen(tmp_path / "c", rows, budget=100)
    assert len(everything) == 6


def test_an_antidote_keeps_the_label_of_its_parent(tmp_path):
    rows = table({"text": "She left."}, {"text": "He came."}, toxic=["no", "yes"])
    made, _ = chosen(tmp_path, rows, keep=("toxic",))
    assert made.select(["text", "toxic"]).to_pylist() == [{"text": "He left.", "toxic": "no"}, {"text": "She came.", "toxic": "yes"}]


def test_mistakes_in_by_and_keep(tmp_path):
    rows = table({"text": "She left."}, score=["0.5"], cluster=[1])
    with pytest.raises(UserMistake, match="name a column of numbers"):
        chosen(tmp_path, rows, by="score", budget=1)
    with pytest.raises(UserMistake, match="as ingest\\.keep lists them"):
        chosen(tmp_path, rows, keep=("cluster",))
    for keep, said in ((("source",), "of its own"), (("a", "a"), "named twice")):
        with pytest.raises(ValueError, match=said):
            Antidote(keep=keep)
