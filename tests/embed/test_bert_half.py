"""The float16 kernel against torch in float32, on small encoders with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curate.embed import bert_half
from curate.embed.transformer import Padded
from curate.errors import UserMistake


def save_bert(folder: Path, width: int, heads: int, inner: int, **settings) -> Path:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=500, hidden_size=width, num_attention_heads=heads, intermediate_size=inner, num_hidden_layers=2,
        initializer_range=0.1, **settings,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


# Narrow; heads of 64 and sums over more than one chunk of 384, the last one shorter.
@pytest.fixture(params=[(64, 2, 96), (448, 7, 800)], ids=str)
def model(tmp_path, request):
    from transformers import BertModel

    folder = save_bert(tmp_path, *request.param)
    if not bert_half.kernel(str(folder)):
        pytest.skip("no processor with avx512_fp16, or no g++ 12")
    return BertModel.from_pretrained(folder).eval().requires_grad_(False)


@pytest.fixture
def ids() -> list[list[int]]:
    """Rows of 1 to 512 tokens: around the kernel's blocks of 12 and panels of 32, and beyond one chunk of 384."""
    random = np.random.default_rng(0)
    return [random.integers(1, 500, n).tolist() for n in (1, 2, 11, 12, 13, 31, 32, 33, 64, 100, 383, 385, 512, 1)]


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_means_are_those_of_float32(model, ids):
    found, expected = bert_half.BertHalf(model).means(ids), Padded(model, 512).means(ids)
    assert cosine(found, expected).min() > 0.9999
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_left_out_tokens_are_those_at_the_beginning(model, ids):
    long = [row for row in ids if len(row) > 3]
    found, expected = bert_half.BertHalf(model).means(long, skip=3), Padded(model, 512).means(long, skip=3)
    assert cosine(found, expected).min() > 0.9999
    assert cosine(found, Padded(model, 512).means(long)).min() < 0.999


def test_a_row_has_the_same_bytes_alone_and_among_others(model, ids):
    encoder = bert_half.BertHalf(model)
    whole = encoder.means(ids)
    assert np.array_equal(np.concatenate([encoder.means([row]) for row in ids]), whole)
    assert np.array_equal(encoder.means(ids[::-1])[::-1], whole)


def test_weights_beyond_the_range_of_float16_are_an_error_not_a_vector(model, ids):
    model.encoder.layer[0].intermediate.dense.weight.mul_(1e6)
    with pytest.raises(UserMistake, match="dtype: float32"), np.errstate(over="ignore"):
        bert_half.BertHalf(model).means(ids)


@pytest.mark.parametrize("settings", [{"hidden_act": "relu"}, {"heads": 4}])
def test_encoders_of_another_build_are_left_to_torch(tmp_path, settings):
    heads = settings.pop("heads", 2)  # heads of 16: less than a panel
    assert bert_half.kernel(str(save_bert(tmp_path, 64, heads, 96, **settings))) == ""
