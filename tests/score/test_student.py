import json

import numpy as np
import pyarrow as pa
import pytest
from given import SPAM, WIKI, Shards, sentence
from pydantic import ValidationError

from curate.errors import UserMistake
from curate.score._trusted import Trusted
from curate.score.student import Student

STAGE = Student(trusted=Trusted(where={"source": "wiki"}), vocabulary=300, width=32, layers=1, heads=2, epochs=6, batch_rows=8)


def corpus() -> pa.Table:
    generator = np.random.default_rng(0)
    texts = [sentence(words, generator) for words in [WIKI] * 160 + [WIKI] * 30 + [SPAM] * 30]
    return pa.table({"text": pa.array([*texts, ""], pa.large_string()), "source": ["wiki"] * 160 + ["web"] * 61})


def test_texts_like_the_trusted_ones_are_foretold_better(tmp_path):
    table = corpus()
    STAGE.fit(Shards(table), None, tmp_path / "a")
    found = STAGE.load(tmp_path / "a")(table)
    assert found.schema == STAGE.writes()
    loss = found.column("student_loss").to_numpy()
    assert loss[160:190].max() < loss[190:220].min()
    assert abs(np.mean(loss[:160]) - np.mean(loss[160:190])) < 0.2 * np.std(
        loss[160:220]
    )  # trusted rows are no easier: their own model did not see them
    np.testing.assert_allclose(found.column("student_perplexity").to_numpy()[:220], np.exp(loss[:220]), rtol=1e-5)
    assert found.column("student_loss")[220].as_py() is None
    info = json.loads((tmp_path / "a" / "info.json").read_text())
    assert (info["trusted_texts"], info["trained_on"], len(info["training_loss"])) == (160, 160, 2)

    cut = 57  # neither the models nor, but for last digits, the scores depend on how the corpus is cut
    STAGE.fit(Shards(table.slice(cut), table.slice(0, cut)), None, tmp_path / "b")
    for name in ("half-0/model.safetensors", "half-1/model.safetensors", "half-0/tokenizer.json", "seen.npz", "info.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    score = STAGE.load(tmp_path / "b")
    parts = np.concatenate([score(part).column("student_loss").to_numpy() for part in (table.slice(0, cut), table.slice(cut))])
    np.testing.assert_allclose(parts, loss, rtol=1e-5)


def test_the_type_that_it_is_trained_in_is_part_of_what_it_is(monkeypatch):
    """Two machines, one of which trains in bfloat16, make other weights: one must not pass for the other."""
    found = set()
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setattr("curate.hardware.dtype", lambda dtype=dtype: dtype)
        found.add(json.dumps(STAGE.identity(), sort_keys=True))
    assert len(found) == 2


def test_mistakes_end_with_the_remedy(tmp_path):
    with pytest.raises(UserMistake, match="check the value"):
        STAGE.but(trusted=Trusted(where={"source": "book"})).fit(Shards(corpus()), None, tmp_path)
    with pytest.raises(UserMistake, match="give 80 or more"):
        STAGE.but(trusted=Trusted(where={"source": "web"})).fit(Shards(corpus().slice(190)), None, tmp_path)
    with pytest.raises(ValidationError, match="multiple of 12"):
        STAGE.but(heads=6)
