import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from given import SPAM, WIKI, Shards, sentence
from pydantic import ValidationError

from curate.errors import UserMistake
from curate.score._trusted import Trusted
from curate.score.filter import Filter


def corpus() -> pa.Table:
    """200 trusted rows about history; a pool of 300 advertisements and 100 rows like the trusted ones."""
    generator = np.random.default_rng(0)
    kinds = ["wiki"] * 200 + ["web"] * 400
    words = [WIKI] * 200 + [SPAM] * 300 + [WIKI] * 100
    return pa.table({"text": pa.array([sentence(w, generator) for w in words], pa.large_string()), "source": kinds})


def fitted(stage: Filter, folder: Path, *tables: pa.Table) -> dict:
    stage.fit(Shards(*tables), None, folder)
    return json.loads((folder / "info.json").read_text())


STAGE = Filter(trusted=Trusted(where={"source": "wiki"}), features=1 << 12)


def test_rows_like_the_trusted_ones_score_above_the_rest(tmp_path):
    table = corpus()
    info = fitted(STAGE, tmp_path, table)
    found = STAGE.load(tmp_path)(table)
    assert found.schema == STAGE.writes()
    score = found.column("filter_score").to_numpy()
    assert score[500:].min() > score[200:500].max()
    assert info["auc"] > 0.7 and info["trusted_rows"] == 196 and info["set_aside_rows"] == 4 and info["pool_rows"] == 400
    low, high = info["auc_interval"]
    assert low < info["auc"] < high
    # A quarter of the pool is like the trusted rows.
    assert 0.2 < info["like_trusted"] < 0.32
    assert info["auc_length_only"] == 0.5


def test_percentiles_are_shares_of_the_pools_text(tmp_path):
    table = corpus()
    fitted(STAGE, tmp_path, table)
    found = STAGE.load(tmp_path)(table)
    percentile, score = (found.column(name).to_numpy()[200:] for name in ("filter_percentile", "filter_score"))
    mass = np.array([len(text) for text in table.column("text").to_pylist()[200:]])
    exact = np.array([100 * mass[score <= s].sum() / mass.sum() for s in score])
    np.testing.assert_allclose(percentile, exact, atol=0.4)


def test_length_alone_is_reported_beside_the_auc(tmp_path):
    generator = np.random.default_rng(1)
    texts = [" ".join(generator.choice(WIKI, 40)) for _ in range(100)] + [" ".join(generator.choice(WIKI, 5)) for _ in range(100)]
    info = fitted(STAGE, tmp_path, pa.table({"text": texts, "source": ["wiki"] * 100 + ["web"] * 100}))
    assert info["auc_length_only"] == 1.0


def test_copies_of_trusted_texts_are_not_negatives(tmp_path):
    table = corpus()
    doubled = pa.concat_tables([table, table.slice(0, 150).set_column(1, "source", pa.array(["web"] * 150))])
    assert fitted(STAGE, tmp_path, doubled)["pool_rows"] == 400


@pytest.mark.parametrize("cut", [1, 333, 599])
def test_the_artifact_does_not_depend_on_how_the_corpus_is_cut(tmp_path, cut):
    table = corpus()
    small = STAGE.but(pool_sample=60)
    fitted(small, tmp_path / "a", table)
    fitted(small, tmp_path / "b", table.slice(0, cut), table.slice(cut))
    for name in ("weights-words.npy", "weights-lines.npy", "levels.npz", "info.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_trusted_texts_may_come_from_a_file_known_by_its_content(tmp_path):
    table = corpus()
    texts = table.column("text").to_pylist()
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:200]))
    one, two = (Filter(trusted=Trusted(path=str(tmp_path / name)), features=1 << 12) for name in ("one.jsonl", "two.jsonl"))
    assert one.identity() == two.identity() and "trusted" in one.unfingerprinted
    assert one.reads() == ("text",)
    info = fitted(one, tmp_path / "artifact", table.slice(200))
    assert info["trusted_rows"] + info["set_aside_rows"] == 200 and info["pool_rows"] == 400


def test_no_row_is_scored_by_a_model_that_saw_it(tmp_path):
    """Words that only one trusted text has: a model trained on that text would know them and rank it first of all."""
    table = corpus()
    texts = table.column("text").to_pylist()
    texts[7] = " ".join(f"secret{i}" for i in range(12))
    table = table.set_column(0, "text", pa.array(texts, pa.large_string()))
    stage = STAGE.but(set_aside=0, like_pool=0, members=("words",))
    fitted(stage, tmp_path, table)
    score = stage.load(tmp_path)(table).column("filter_score").to_numpy()
    assert score[7] < np.median(score[:200])


def test_trusted_rows_that_are_not_like_the_others_are_set_aside(tmp_path):
    table = corpus()
    texts = table.column("text").to_pylist()
    generator = np.random.default_rng(5)
    planted = [sentence(SPAM, generator) for _ in range(4)]
    texts[10:14] = planted
    info = fitted(STAGE, tmp_path, table.set_column(0, "text", pa.array(texts, pa.large_string())))
    assert sorted(info["set_aside"]) == sorted(planted)


def test_all_trusted_rows_that_look_like_the_pool_are_set_aside_and_the_fit_says_that_they_are_many(tmp_path):
    table = corpus()
    texts = table.column("text").to_pylist()
    generator = np.random.default_rng(5)
    planted = [sentence(SPAM, generator) for _ in range(16)]
    texts[10:26] = planted
    table = table.set_column(0, "text", pa.array(texts, pa.large_string()))
    info = fitted(STAGE.but(set_aside=0), tmp_path / "some", table)
    assert set(info["set_aside"]) < set(planted) and info["set_aside_rows"] >= 4  # half of the pool's text is below the middle
    info = fitted(STAGE.but(set_aside=0, like_pool=95), tmp_path / "all", table)
    assert set(planted) <= set(info["set_aside"]) and "read them" in info["remarks"][-1]
    assert "remarks" not in fitted(STAGE.but(set_aside=0, like_pool=0), tmp_path / "none", table)


GERMAN = ["wir", "haben", "heute", "ein", "neues", "Angebot", "und", "morgen", "kommt", "noch", "mehr", "davon", "in", "den", "Laden"]


def test_words_hold_a_text_against_texts_of_its_own_language_alone(tmp_path):
    """Trusted texts are English. By the words the best of 150 German pool texts are below a fifth of the pool; held against one another half of them are in the better half."""
    generator = np.random.default_rng(3)
    english = corpus().append_column("language", pa.array(["en"] * 600))
    texts = [sentence(GERMAN, generator) + (f" {' '.join(WIKI[:3])}" if number % 3 == 0 else "") for number in range(150)]
    german = pa.table({"text": pa.array(texts, pa.large_string()), "source": ["web"] * 150, "language": ["de"] * 150})
    rare = pa.table({"text": pa.array([f"un mot {i}" for i in range(9)], pa.large_string()), "source": ["web"] * 9, "language": [None] * 9})
    table = pa.concat_tables([english, german, rare.cast(english.schema)])
    plain, within = STAGE.but(members=("words",)), STAGE.but(members=("words",), words_within="language")
    found = {}
    for name, stage in (("plain", plain), ("within", within)):
        fitted(stage, tmp_path / name, table)
        found[name] = stage.load(tmp_path / name)(table).column("filter_words").to_numpy()
    half = found["within"][600:750]
    assert found["plain"][600:750].max() < 85 and half.max() > 98
    assert abs(np.mean(half < 50) - 0.5) < 0.1 and half[::3].mean() > half[1::3].mean() + 20  # words of the trusted texts count among them
    np.testing.assert_array_equal(found["within"][750:], found["plain"][750:])  # too few: against all
    assert within.reads() == ("text", "language") and plain.reads() == ("text",)
    parts = [within.load(tmp_path / "within")(part).column("filter_words").to_numpy() for part in (table.slice(0, 611), table.slice(611))]
    np.testing.assert_array_equal(np.concatenate(parts), found["within"])


def test_each_member_is_a_column_and_any_may_decide(tmp_path):
    table = corpus()
    generator = np.random.default_rng(2)
    # Vectors that tell a third kind apart: rows 300-399 of the pool point where trusted rows point.
    vectors = generator.normal(size=(600, 8)).astype(np.float32)
    vectors[:200, 0] += 4
    vectors[300:400, 0] += 4
    table = table.append_column("vector", pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8))
    found = {}
    for combine in ("mean", "max", "min"):
        stage = STAGE.but(members=("words", "embedding"), combine=combine, set_aside=0, like_pool=0, labels={"low": 0, "high": 10})
        info = fitted(stage, tmp_path / combine, table)
        found[combine] = stage.load(tmp_path / combine)(table)
        assert found[combine].schema == stage.writes()
    assert info["auc_by_member"]["embedding"] > 0.6
    words, embedding = (found["mean"].column(f"filter_{name}").to_numpy() for name in ("words", "embedding"))
    assert embedding[300:400].mean() > embedding[200:300].mean() + 30 and words[500:].mean() > words[300:400].mean() + 30
    for combine, by in (("mean", np.mean), ("max", np.max), ("min", np.min)):
        np.testing.assert_allclose(found[combine].column("filter_score").to_numpy(), by([words, embedding], axis=0) / 100, rtol=1e-6)
    bins = found["max"].column("filter_bin").to_numpy()
    np.testing.assert_array_equal(bins, np.minimum(found["max"].column("filter_percentile").to_numpy() // 5, 19))
    assert found["max"].column("quality").to_pylist() == ["high" if bin >= 10 else "low" for bin in bins]


def test_scores_of_others_are_a_member_whatever_their_units(tmp_path):
    table = corpus()
    generator = np.random.default_rng(3)
    good = np.array([1.0] * 200 + [0.0] * 300 + [1.0] * 100)
    told = pa.array([None if i % 50 == 7 else float(value) for i, value in enumerate(1e6 * good + generator.normal(size=600))])
    table = table.append_column("judge", told).append_column("noise", pa.array(1e-3 * generator.normal(size=600)))
    stage = STAGE.but(members=("scores",), numbers=("judge", "noise"))
    info = fitted(stage, tmp_path, table)
    found = stage.load(tmp_path)(table).column("filter_score").to_numpy()
    there = np.array([value is not None for value in told.to_pylist()])
    assert found[500:][there[500:]].min() > found[200:500][there[200:500]].max() and info["auc_by_member"]["scores"] > 0.7
    assert np.isfinite(found).all()  # a row without the score is scored too
    with pytest.raises(UserMistake, match="not numbers: name a column of scores"):
        fitted(STAGE.but(members=("scores",), numbers=("source",)), tmp_path, corpus())
    for wrong in ({"members": ("scores",)}, {"numbers": ("judge",)}):
        with pytest.raises(ValidationError, match="give both"):
            STAGE.but(**wrong)


def test_a_trusted_source_that_was_not_trained_on_is_reported_apart(tmp_path):
    """Sources with words of their own: what one source teaches says nothing of the other, so left out it is no better than chance."""
    generator = np.random.default_rng(3)
    texts = [sentence(WIKI, generator) for _ in range(100)] + [sentence(SPAM[:4], generator) for _ in range(100)]
    texts += [sentence(["pebble", "anchor", "butter", "cradle"], generator) + f" {i}" for i in range(300)]
    table = pa.table({"text": texts, "source": ["wiki"] * 100 + ["book"] * 100 + ["web"] * 300})
    stage = Filter(trusted=Trusted(where={"source": ["wiki", "book"]}), features=1 << 12, held_out_by="source", members=("words",))
    info = fitted(stage, tmp_path, table)
    assert info["auc"] > 0.95 and set(info["auc_by_source"]) == {"wiki", "book"}
    assert fitted(stage.but(held_out_by=None), tmp_path, table)["auc_by_source"] == {}
    info = fitted(stage.but(trusted={"where": {"source": "wiki"}}), tmp_path, table)
    assert info["auc_by_source"] == {} and "nothing is left" in info["remarks"][0]
    with pytest.raises(UserMistake, match="keep lists it"):
        fitted(stage.but(held_out_by="domain"), tmp_path, table)


def test_mistakes_end_with_the_remedy(tmp_path):
    table = corpus()
    for wrong, remedy in (
        ({"features": 1000}, "1024"),
        ({"members": ("words", "words")}, "each once"),
        ({"labels": {"high": 18}}, "lowest bin"),
        ({"labels": {"low": 0, "bad": 0}}, "its own"),
    ):
        with pytest.raises(ValidationError, match=remedy):
            STAGE.but(**wrong)
    with pytest.raises(ValidationError, match="stored vector"):
        Filter(trusted=Trusted(path="a.jsonl"), members=("embedding",))
    with pytest.raises(ValidationError, match="add it to members"):
        STAGE.but(members=("lines",), words_within="language")
    with pytest.raises(ValidationError, match="no columns"):
        Filter(trusted=Trusted(path="a.jsonl"), held_out_by="source")
    with pytest.raises(UserMistake, match="lower set_aside"):
        fitted(STAGE.but(set_aside=0.97), tmp_path, table)
    with pytest.raises(ValidationError, match="either"):
        Trusted()
    with pytest.raises(UserMistake, match="check the value"):
        fitted(Filter(trusted=Trusted(where={"source": "book"})), tmp_path, table)
    with pytest.raises(UserMistake, match="give string values"):
        fitted(Filter(trusted=Trusted(where={"source": [["nested"]]})), tmp_path, table)
    with pytest.raises(UserMistake, match="too few"):
        fitted(STAGE, tmp_path, table.slice(195, 20))
    with pytest.raises(UserMistake, match="narrow"):
        fitted(STAGE, tmp_path, table.slice(0, 200))
    with pytest.raises(UserMistake, match="does not exist"):
        Filter(trusted=Trusted(path=str(tmp_path / "absent.jsonl"))).identity()


def gendered() -> pa.Table:
    """Trusted texts are about women, pool texts about men, and about other things as well: a filter learns the wrong reason."""
    generator = np.random.default_rng(3)
    rows = [(f"The woman said that she {sentence(WIKI, generator)}", "wiki") for _ in range(150)]
    rows += [(f"The man said that he {sentence(words, generator)}", "web") for words in (SPAM, WIKI) for _ in range(150)]
    return pa.table({"text": pa.array([text for text, _ in rows], pa.large_string()), "source": [source for _, source in rows]})


def test_antidotes_in_training_make_a_filter_blind_to_whom_a_text_is_about(tmp_path):
    rows = gendered()
    found = {}
    for name, antidote in (("plain", False), ("antidote", True)):
        stage = STAGE.but(antidote=antidote, unfairness=True, lexicons=("gender",), like_pool=0, set_aside=0)
        info = fitted(stage, tmp_path / name, rows)
        scores = stage.load(tmp_path / name)(rows)
        assert scores.schema == stage.writes() and scores.column("filter_unfairness").null_count == 0
        found[name] = np.mean(scores.column("filter_unfairness").to_numpy()), info["auc"], info["trusted_rows"] + info["pool_rows"]
    assert found["antidote"][0] < 0.2 * found["plain"][0]
    assert found["antidote"][2] == found["plain"][2] == 450  # copies are trained on, not counted nor compared with
    # what told trusted rows from pool rows of the same topic was the people alone
    assert found["plain"][1] > 0.95 > found["antidote"][1] > 0.7


def test_unfairness_is_null_without_people_and_needs_members_that_read_text(tmp_path):
    table = corpus()
    stage = STAGE.but(unfairness=True)
    fitted(stage, tmp_path, table)
    assert stage.load(tmp_path)(table).column("filter_unfairness").null_count == table.num_rows
    with pytest.raises(ValidationError, match="a copy has no stored vector"):
        STAGE.but(members=("words", "embedding"), antidote=True)
    assert STAGE.identity() != stage.identity()
