import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_model import save_tiny_model

from curate import models
from curate.embed.static import Static
from curate.errors import UserMistake

WORDS = ["[UNK]", "bees", "make", "honey", "one", "two"]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model2vec folder of six words, word i along axis i - 1; written by the library."""
    library = pytest.importorskip("model2vec", reason="pip install model2vec")
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    vectors = np.concatenate([np.zeros((1, 5)), np.eye(5)]).astype(np.float32)
    library.StaticModel(vectors, tokenizer, normalize=False).save_pretrained(tmp_path / "static")
    return tmp_path / "static"


def embed(stage: Static, *texts: str) -> list:
    table = stage.load(Path())(pa.table({"text": list(texts)}))
    assert table.schema == stage.writes()
    return table.column("vector").to_pylist()


def test_a_text_is_the_unit_mean_of_its_words(folder):
    stage = Static(model=str(folder), view="text")
    found = embed(stage, "bees make honey", "two two one")
    np.testing.assert_allclose(found[0], np.array([1, 1, 1, 0, 0]) / np.sqrt(3), atol=1e-6)
    np.testing.assert_allclose(found[1], np.array([0, 0, 0, 1, 2]) / np.sqrt(5), atol=1e-6)


def test_a_text_of_unknown_words_has_no_vector(folder):
    assert embed(Static(model=str(folder), view="text"), "", "zzz", "bees")[:2] == [None, None]


def test_long_texts_lose_their_end_and_rows_do_not_disturb_each_other(folder):
    stage = Static(model=str(folder), view="text", max_tokens=3)
    assert embed(stage, "bees make honey one", "one") == embed(stage, "bees make honey") + embed(stage, "one")


def test_the_width_is_read_without_the_library_which_is_asked_for_by_name(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "model2vec", None)
    stage = Static(model=str(folder))
    assert stage.writes().field("vector").type.list_size == 5
    with pytest.raises(UserMistake, match="pip install model2vec"):
        stage.load(Path())


def test_another_kind_of_model_is_refused(tmp_path):
    with pytest.raises(UserMistake, match="method transformer"):
        models.static_dimensions(str(save_tiny_model(tmp_path / "llama", layers=1)))
