import numpy as np
import pytest
import torch
from tiny_model import save_tiny_model

from curate import encoding, models
from curate.prune.ffn import PARTS, Ffn


def test_the_neurons_that_go_are_those_of_lowest_taylor_importance(tiny, texts, tmp_path):
    note = Ffn(model=str(tiny), share=0.25).prune(texts, tmp_path / "copy")
    assert (note["width_before"], note["width_after"]) == (48, 32)  # 36, down to a multiple of 8
    model, tokenizer = models.load_causal_lm(str(tiny), "float32")
    copy, _ = models.load_causal_lm(str(tmp_path / "copy"), "float32")
    assert copy.config.intermediate_size == 32
    # All texts at once, by the model's own loss: the mean over all tokens is the mean of means weighed by length.
    rows = [encoding.encode_text(tokenizer, text, 256).ids for i, text in enumerate(texts) if i % 8]
    tokens = sum(len(ids) - 1 for ids in rows)
    model.requires_grad_(True)
    losses = [model(torch.from_numpy(ids)[None], labels=torch.from_numpy(ids)[None]).loss * (len(ids) - 1) / tokens for ids in rows]
    torch.stack(losses).sum().backward()
    for layer, small in zip(model.model.layers, copy.model.layers, strict=True):
        gate, up, down = ((w := getattr(layer.mlp, name).weight) * w.grad for name in PARTS)
        importance = (gate.abs().sum(1) + up.abs().sum(1) + down.abs().sum(0)).detach().numpy()
        kept = np.sort(np.argsort(-importance)[:32])
        torch.testing.assert_close(small.mlp.gate_proj.weight, layer.mlp.gate_proj.weight[kept], rtol=0, atol=0)
        torch.testing.assert_close(small.mlp.up_proj.weight, layer.mlp.up_proj.weight[kept], rtol=0, atol=0)
        torch.testing.assert_close(small.mlp.down_proj.weight, layer.mlp.down_proj.weight[:, kept], rtol=0, atol=0)


def test_neurons_that_do_nothing_go_without_a_loss(texts, tmp_path):
    source = save_tiny_model(tmp_path / "source", seed=3)
    model, tokenizer = models.load_causal_lm(str(source), "float32")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight[:, 3::4] = 0.0
    model.save_pretrained(tmp_path / "idle")
    tokenizer.save_pretrained(tmp_path / "idle")
    note = Ffn(model=str(tmp_path / "idle"), share=0.25, multiple=1).prune(texts, tmp_path / "out")
    assert note["width_after"] == 36
    assert note["loss_after"] == pytest.approx(note["loss_before"], abs=2e-6)
