import json

import numpy as np
import pyarrow as pa
import pytest
from given import SPAM, WIKI, Shards, sentence

from curate.errors import UserMistake
from curate.score._trusted import Trusted
from curate.score.ngram_perplexity import NgramPerplexity

STAGE = NgramPerplexity(trusted=Trusted(where={"source": "wiki"}))


def corpus() -> pa.Table:
    generator = np.random.default_rng(0)
    texts = [sentence(words, generator) for words in [WIKI] * 80 + [WIKI] * 40 + [SPAM] * 40]
    return pa.table({"text": pa.array([*texts, "", "!?"], pa.large_string()), "source": ["wiki"] * 80 + ["web"] * 82})


def test_texts_like_the_trusted_ones_are_foretold_better(tmp_path):
    table = corpus()
    STAGE.fit(Shards(table), None, tmp_path)
    found = STAGE.load(tmp_path)(table)
    assert found.schema == STAGE.writes()
    loss, gain = (found.column(name).to_numpy() for name in ("ngram_loss", "ngram_gain"))
    # Eight words in any order: nobody can do better than ln 8 = 2.08 nats.
    assert 2.0 < loss[80:120].mean() < 2.7 < 4 < loss[120:160].min()
    assert gain[80:120].min() > gain[120:160].max()
    np.testing.assert_allclose(found.column("ngram_perplexity").to_numpy()[:160], np.exp(loss[:160]), rtol=1e-5)
    assert found.column("ngram_unknown").to_pylist()[119:121] == [0.0, 1.0]
    assert found.column("ngram_loss").to_pylist()[160] is None and found.column("ngram_loss").to_pylist()[161] is not None
    info = json.loads((tmp_path / "info.json").read_text())
    assert info == {"order": 3, "pool_texts": 82, "pool_words": 962, "trusted_texts": 80, "trusted_words": 960}


def test_no_row_is_asked_of_a_model_that_saw_it(tmp_path):
    """Trusted texts with words of their own, each three times in one text only: who saw the text would know them."""
    table = corpus()
    texts = table.column("text").to_pylist()
    texts[3] = " ".join(["secret", "hidden", "unseen"] * 4)
    STAGE.fit(Shards(table.set_column(0, "text", pa.array(texts, pa.large_string()))), None, tmp_path)
    found = STAGE.load(tmp_path)(pa.table({"text": pa.array(texts, pa.large_string())}))
    assert found.column("ngram_unknown")[3].as_py() == 1.0


@pytest.mark.parametrize("cut", [1, 50, 161])
def test_the_models_do_not_depend_on_how_the_corpus_is_cut(tmp_path, cut):
    table, stage = corpus(), STAGE.but(most=30)
    stage.fit(Shards(table), None, tmp_path / "a")
    stage.fit(Shards(table.slice(cut), table.slice(0, cut)), None, tmp_path / "b")
    for name in ("trusted-0", "trusted-1", "pool-0", "pool-1"):
        assert (tmp_path / "a" / f"{name}.npz").read_bytes() == (tmp_path / "b" / f"{name}.npz").read_bytes()
    whole, parts = stage.load(tmp_path / "a")(table), [stage.load(tmp_path / "a")(part) for part in (table.slice(0, cut), table.slice(cut))]
    assert whole.combine_chunks() == pa.concat_tables(parts).combine_chunks()


def test_trusted_texts_from_a_file_are_known_by_its_content(tmp_path):
    table = corpus()
    STAGE.fit(Shards(table), None, tmp_path / "rows")
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in table.column("text").to_pylist()[:80]))
    one, two = (NgramPerplexity(trusted=Trusted(path=str(tmp_path / name))) for name in ("one.jsonl", "two.jsonl"))
    assert one.identity() == two.identity() and one.reads() == ("text",)
    one.fit(Shards(table), None, tmp_path / "file")  # the trusted texts among the rows are no pool
    for name in ("trusted-0", "pool-1"):
        assert (tmp_path / "rows" / f"{name}.npz").read_bytes() == (tmp_path / "file" / f"{name}.npz").read_bytes()


def test_mistakes_end_with_the_remedy(tmp_path):
    with pytest.raises(UserMistake, match="check the value"):
        STAGE.but(trusted=Trusted(where={"source": "book"})).fit(Shards(corpus()), None, tmp_path)
    blank = pa.table({"text": pa.array([" ", "\n"], pa.large_string()), "source": ["wiki", "wiki"]})
    with pytest.raises(UserMistake, match="no words"):
        STAGE.fit(Shards(blank), None, tmp_path)
