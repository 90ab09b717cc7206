import pytest
import torch

from curate import encoding, models
from curate.prune.wanda import Wanda

LINEAR = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


def walked(model, rows: list[torch.Tensor], zeros: int, group: int) -> None:
    """Wanda the slow way: for each layer the whole, so far pruned, model is run again, and each row of weights sorted."""
    for layer in model.model.layers:
        seen: dict[str, list[torch.Tensor]] = {name: [] for name in LINEAR}
        handles = [
            layer.get_submodule(name).register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0][0]))
            for name, inputs in seen.items()
        ]
        for ids in rows:
            model(ids[None])
        for handle in handles:
            handle.remove()
        for name in LINEAR:
            weight, norms = layer.get_submodule(name).weight, torch.cat(seen[name]).double().square().sum(0).sqrt()
            size = group or weight.shape[1]
            for row in weight:
                for start in range(0, len(row), size):
                    part = row[start : start + size]
                    score = part.abs().double() * norms[start : start + size]
                    part[score.argsort()[: zeros or size // 2]] = 0.0


@pytest.mark.parametrize(("pattern", "zeros", "group"), [(None, 0, 0), ("2:4", 2, 4), ("4:8", 4, 8)])
def test_layers_are_judged_on_what_the_pruned_layers_before_them_give(tiny, texts, tmp_path, pattern, zeros, group):
    note = Wanda(model=str(tiny), pattern=pattern).prune(texts, tmp_path / "copy")
    copy, _ = models.load_causal_lm(str(tmp_path / "copy"), "float32")
    model, tokenizer = models.load_causal_lm(str(tiny), "float32")
    untouched = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        walked(model, [torch.from_numpy(encoding.encode_text(tokenizer, t, 256).ids) for i, t in enumerate(texts) if i % 8], zeros, group)
    for name, value in model.state_dict().items():
        assert torch.equal(copy.state_dict()[name], value), name
        pruned = any(f"{part}." in name for part in LINEAR)
        assert torch.equal(value, untouched[name]) is not pruned
    assert note["sparsity_reached"] == 0.5
    assert note["nonzero_before"] - note["nonzero_after"] == note["pruned_weights"] // 2


def test_every_row_of_weights_loses_the_same_share(tiny, texts, tmp_path):
    Wanda(model=str(tiny), sparsity=0.25).prune(texts, tmp_path / "copy")
    copy, _ = models.load_causal_lm(str(tmp_path / "copy"), "float32")
    for layer in copy.model.layers:
        for name in LINEAR:
            weight = layer.get_submodule(name).weight
            assert ((weight == 0).sum(1) == weight.shape[1] // 4).all()
