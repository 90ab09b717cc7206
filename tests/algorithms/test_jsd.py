import numpy as np
import pytest
import torch

from curate.algorithms.jsd import Divergences, divergence


def logits(seed: int, tokens: int = 7, vocabulary: int = 500, scale: float = 4.0) -> torch.Tensor:
    return scale * torch.randn(tokens, vocabulary, generator=torch.Generator().manual_seed(seed))


def by_definition(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    p, q = torch.softmax(a.double(), -1), torch.softmax(b.double(), -1)
    m = (p + q) / 2
    return ((p * (p / m).log()).sum(-1) / 2 + (q * (q / m).log()).sum(-1) / 2).numpy()


def test_it_is_the_definition():
    a, b = logits(0), logits(1)
    targets = torch.arange(7)
    jsd, log_a, log_b = divergence(a, b, targets)
    np.testing.assert_allclose(jsd.numpy(), by_definition(a, b), atol=2e-6)
    np.testing.assert_allclose(log_a.numpy(), torch.log_softmax(a, -1)[range(7), range(7)].numpy(), atol=1e-5)
    np.testing.assert_allclose(log_b.numpy(), torch.log_softmax(b, -1)[range(7), range(7)].numpy(), atol=1e-5)


def test_equal_models_differ_by_nothing_and_disjoint_ones_by_ln_2():
    a = torch.full((1, 4), -1e4)
    b = a.clone()
    a[0, 0], b[0, 3] = 1e4, 1e4
    zero = torch.tensor([0])
    assert divergence(a, b, zero)[0].item() == pytest.approx(np.log(2.0), abs=1e-6)
    assert divergence(logits(0), logits(0), torch.zeros(7, dtype=torch.long))[0].max().item() < 1e-6


def test_it_is_symmetric_and_finite_where_probabilities_underflow():
    a, b = logits(2, scale=80.0), logits(3, scale=80.0)
    targets = torch.zeros(7, dtype=torch.long)
    forth, back = divergence(a, b, targets)[0], divergence(b, a, targets)[0]
    assert torch.isfinite(forth).all() and torch.allclose(forth, back, atol=1e-6)


def test_chunks_change_nothing_and_heads_may_differ():
    left, right = torch.nn.Linear(8, 300), torch.nn.Linear(6, 300)
    x, y = torch.randn(150, 8), torch.randn(150, 6)
    targets = torch.arange(150)
    with torch.inference_mode():
        whole = divergence(left(x), right(y), targets)
        for chunk in (1, 64, 200):
            found = Divergences(left, right, chunk)(x, y, targets)
            for ours, theirs in zip(found, whole, strict=True):
                np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-6)


def test_no_tokens_no_values():
    found = Divergences(torch.nn.Identity(), torch.nn.Identity())(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert all(values.shape == (0,) and values.dtype == np.float32 for values in found)
