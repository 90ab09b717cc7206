import pytest
import torch
from tiny_model import save_tiny_model

from curate import models
from curate.prune.depth import Depth


def test_it_is_the_original_without_the_layers_of_lowest_influence(tiny, texts, tmp_path):
    note = Depth(model=str(tiny), layers=2).prune(texts, tmp_path / "copy")
    influence = note["block_influence"]
    assert len(influence) == 6 and note["removed"] == sorted(sorted(range(1, 5), key=lambda i: influence[i])[:2])
    original, copy = (models.load_causal_lm(str(path), "float32")[0] for path in (tiny, tmp_path / "copy"))
    kept = [i for i in range(6) if i not in note["removed"]]
    for layer, i in zip(copy.model.layers, kept, strict=True):
        theirs = original.model.layers[i].state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in layer.state_dict().items())
    assert [layer.self_attn.layer_idx for layer in copy.model.layers] == [0, 1, 2, 3]
    assert copy.config.num_hidden_layers == 4


def test_a_layer_that_does_nothing_goes_first(texts, tmp_path):
    source = save_tiny_model(tmp_path / "source", seed=3)
    model, tokenizer = models.load_causal_lm(str(source), "float32")
    with torch.no_grad():
        for part in (model.model.layers[3].self_attn.o_proj, model.model.layers[3].mlp.down_proj):
            part.weight.zero_()
    model.save_pretrained(tmp_path / "idle")
    tokenizer.save_pretrained(tmp_path / "idle")
    note = Depth(model=str(tmp_path / "idle"), layers=1).prune(texts, tmp_path / "out")
    assert note["removed"] == [3] and note["block_influence"][3] == pytest.approx(0.0, abs=1e-6)
    assert note["loss_after"] == pytest.approx(note["loss_before"], abs=1e-4)
