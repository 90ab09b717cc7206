"""Training loops: every row once, the same weights twice, a loss that falls, and a model that can still be saved."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import save_tiny_model

from curate import encoding, hardware, models
from curate.errors import UserMistake
from curate.score.perplexity import MeanLoss
from curate.training import Tuning, schedule, shuffled_batches, tune

PAIRS = [(f"What follows {i}?", f"The number {i + 1} does.") for i in range(24)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def encoded(tokenizer, ends: bool = True) -> list[encoding.Encoded]:
    row = {"messages": None, "text": ""}
    return [encoding.encode_row(tokenizer, {**row, "prompt": a, "response": b}, "chat", 128, ends) for a, b in PAIRS]


def test_every_row_is_in_one_batch_and_batches_hold_rows_of_like_length():
    lengths = list(np.random.default_rng(0).integers(1, 200, 103))
    batches = shuffled_batches(lengths, 4, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(103))
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert padded < 1.25 * sum(lengths)
    assert [list(batch) for batch in batches] != [list(batch) for batch in shuffled_batches(lengths, 4, np.random.default_rng(2))]


def test_the_rate_rises_and_then_falls_to_nothing():
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:])) and rates[-1] < 0.001
    assert schedule(0, 1, 0.1) == 1.0


def test_the_end_of_an_answer_is_trained_on_and_not_measured(tiny: Path):
    tokenizer = models.load_tokenizer(str(tiny))
    trained, measured = encoded(tokenizer)[0], encoded(tokenizer, ends=False)[0]
    assert trained.ids[trained.scored][-1] == tokenizer.eos_token_id
    assert trained.scored.sum() == measured.scored.sum() + 1
    assert tokenizer.eos_token_id not in measured.ids[measured.scored]


def losses_of(model, rows: list[encoding.Encoded]) -> np.ndarray:
    return MeanLoss(model, 2048, 64)(rows)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_tuning_lowers_the_loss_and_gives_the_same_weights_twice(tiny: Path, method: str):
    settings = Tuning(method=method, learning_rate=3e-3, epochs=4)
    found = []
    for _ in range(2):
        model, tokenizer = models.load_causal_lm(str(tiny), "float32")
        rows = encoded(tokenizer)
        before = losses_of(model, rows).mean()
        steps = tune(model, rows, settings, seed=5)
        found.append((losses_of(model, rows), steps))
        assert len(steps) == 4 * 6 and found[-1][0].mean() < before - 0.2
    assert np.array_equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])
    other, _ = models.load_causal_lm(str(tiny), "float32")
    tune(other, rows, settings, seed=6)
    assert not np.array_equal(losses_of(other, rows), found[0][0])


def test_a_training_gives_freed_memory_back_every_ten_steps(tiny: Path, monkeypatch):
    model, tokenizer = models.load_causal_lm(str(tiny), "float32")
    seen, given = [], []
    monkeypatch.setattr(hardware, "give_back_freed_memory", lambda: given.append(len(seen)))
    tune(model, encoded(tokenizer), Tuning(epochs=4), 5, lambda step, steps: seen.append(step))
    assert (len(seen), given) == (24, [9, 19])


@pytest.mark.parametrize(("most", "width"), [(None, 32), (24, 24), (8, 19), (64, 32)])
def test_a_batch_may_be_as_wide_as_a_multiple_which_changes_no_state(tiny: Path, most: int | None, width: int):
    model, _ = models.load_causal_lm(str(tiny), "float32")
    rows = [encoding.Encoded(np.arange(3, 3 + length), np.arange(length) > 0, False) for length in (20, 7)]
    plain, wide = models.collate(rows), models.collate(rows, 16, most)
    assert plain.inputs.shape == (2, 19) and wide.inputs.shape == (2, width)
    with torch.inference_mode():
        states = [models.hidden_states(model, batch.inputs)[batch.rows, batch.columns] for batch in (plain, wide)]
    assert torch.equal(plain.targets, wide.targets) and torch.allclose(*states, atol=1e-5)


def test_the_attention_of_a_training_gives_the_states_of_any_other_and_ends_with_it(tiny: Path):
    """Rows of one batch have different lengths: what pads them must not be seen."""
    model, tokenizer = models.load_causal_lm(str(tiny), "float32")
    batch = models.collate(encoded(tokenizer)[:5])
    before = model.config._attn_implementation
    with models.attention_for_training(model):
        trained = models.hidden_states(model, batch.inputs)[batch.rows, batch.columns]
        assert model.config._attn_implementation == ("eager" if hardware.device() == "cpu" else before)
    assert model.config._attn_implementation == before
    assert np.allclose(trained.numpy(), models.hidden_states(model, batch.inputs)[batch.rows, batch.columns].numpy(), atol=1e-5)


def test_prompt_tokens_are_trained_on_by_their_weight(tiny: Path):
    """With a weight the model learns the prompts too; without one their loss is not what is trained."""
    model, tokenizer = models.load_causal_lm(str(tiny), "float32")
    rows = encoded(tokenizer)
    asked = [row._replace(scored=(np.arange(len(row.ids)) > 0) & ~row.scored) for row in rows]
    fell = {}
    for weight in (0.0, 1.0):
        model, _ = models.load_causal_lm(str(tiny), "float32")
        before = losses_of(model, asked).mean()
        steps = tune(model, rows, Tuning(learning_rate=3e-3, epochs=4, prompt_weight=weight), seed=0)
        fell[weight] = before - losses_of(model, asked).mean()
        assert steps[0] == pytest.approx(losses_of(models.load_causal_lm(str(tiny), "float32")[0], rows).mean() + weight * before, rel=0.15)
    assert fell[1.0] > 2 * fell[0.0]


def test_adapters_leave_the_weights_of_the_model_alone(tiny: Path):
    model, tokenizer = models.load_causal_lm(str(tiny), "float32")
    kept = model.get_input_embeddings().weight.clone()
    tune(model, encoded(tokenizer), Tuning(method="lora", learning_rate=1e-3), seed=0)
    assert (model.get_input_embeddings().weight == kept).all()


def test_a_rate_that_ruins_the_model_is_the_users_to_change(tiny: Path):
    model, tokenizer = models.load_causal_lm(str(tiny), "float32")
    with pytest.raises(UserMistake, match="smaller learning rate"):
        tune(model, encoded(tokenizer), Tuning(learning_rate=1e38, warmup=0, clip=1e38), seed=0)
    with pytest.raises(UserMistake, match="no row with a response"):
        tune(model, [], Tuning(), seed=0)
