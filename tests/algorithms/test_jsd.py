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


def kl_by_definition(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    log_p, log_q = a.double().log_softmax(-1), b.double().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).numpy()


def test_it_is_the_definition():
    a, b = logits(0), logits(1)
    jsd, forward, backward, log_a, log_b = divergence(a, b, torch.arange(7)).numpy()
    np.testing.assert_allclose(jsd, by_definition(a, b), atol=2e-6)
    np.testing.assert_allclose(forward, kl_by_definition(a, b), rtol=1e-5)
    np.testing.assert_allclose(backward, kl_by_definition(b, a), rtol=1e-5)
    np.testing.assert_allclose(log_a, torch.log_softmax(a, -1)[range(7), range(7)].numpy(), atol=1e-5)
    np.testing.assert_allclose(log_b, torch.log_softmax(b, -1)[range(7), range(7)].numpy(), atol=1e-5)


def test_equal_models_differ_by_nothing_and_disjoint_ones_by_ln_2():
    a = torch.full((1, 4), -1e4)
    b = a.clone()
    a[0, 0], b[0, 3] = 1e4, 1e4
    jsd, forward, backward, *_ = divergence(a, b, torch.tensor([0]))[:, 0].tolist()
    assert jsd == pytest.approx(np.log(2.0), abs=1e-6)
    assert forward == backward == pytest.approx(2e4)  # far beyond what a quotient of probabilities could say
    same = divergence(logits(0), logits(0), torch.zeros(7, dtype=torch.long))
    assert same[0].max() < 1e-6 and same[1:3].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 80.0, 10000.0])
def test_it_is_symmetric_finite_and_exact_where_probabilities_underflow(dtype, scale):
    a, b = logits(2).to(dtype) * (scale / 4), logits(3).to(dtype) * (scale / 4)
    assert torch.isfinite(a).all()
    targets = torch.zeros(7, dtype=torch.long)
    forth, back = divergence(a, b, targets), divergence(b, a, targets)
    assert torch.isfinite(forth).all()
    np.testing.assert_allclose(forth[0], back[0], atol=1e-6)
    np.testing.assert_allclose(forth[1], kl_by_definition(a, b), rtol=2e-5)
    np.testing.assert_array_equal(forth[1], back[2])


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


def test_equal_heads_are_read_once():
    head, twin, other = (torch.nn.Linear(8, 300) for _ in range(3))
    twin.load_state_dict(head.state_dict())
    with torch.no_grad():
        other.weight.copy_(head.weight)  # another bias is another head
    x, y, targets = torch.randn(150, 8), torch.randn(150, 8), torch.arange(150)
    calls = []
    for layer in (head, twin, other):
        layer.register_forward_hook(lambda layer, given, _: calls.append((layer, len(given[0]))))
    with torch.inference_mode():
        found = Divergences(head, twin, 64)(x, y, targets)
        assert calls == [(head, 128)] * 3
        whole = divergence(head(x), twin(y), targets)
        for ours, theirs in zip(found, whole, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-6)
        calls.clear()
        Divergences(head, other, 64)(x, y, targets)
    assert calls == [(head, 64), (other, 64)] * 3


def test_no_tokens_no_values():
    found = Divergences(torch.nn.Identity(), torch.nn.Identity())(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert all(values.shape == (0,) and values.dtype == np.float32 for values in found)
