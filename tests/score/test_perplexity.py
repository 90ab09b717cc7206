from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import rows

from curate import models
from curate.score.perplexity import Perplexity

ROWS = rows(
    ("Two and two?", "Four."),
    "A plain text of some length.",
    ("No answer", ""),
    ("p" * 90, "r" * 90),
    [("user", "u"), ("assistant", "first"), ("user", "v"), ("assistant", "second")],
    [("user", "u"), ("tool", "t"), ("assistant", "a")],
)


def score(tiny: Path, table=ROWS, **settings) -> dict[str, list]:
    stage = Perplexity(model=str(tiny), **{"max_tokens": 128, "dtype": "float32"} | settings)
    found = stage.load(Path())(table)
    assert found.schema == stage.writes()
    return found.to_pydict()


def by_hand(tiny: Path, context: str, answer: str) -> float:
    """Mean loss of the answer's bytes, from the model's own logits, one row at a time."""
    model, tokenizer = models.load_causal_lm(str(tiny), "float32")
    before, after = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (context, answer))
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([before + after])).logits[0].double().log_softmax(-1)
    return -np.mean([float(logits[len(before) + i - 1, token]) for i, token in enumerate(after)])


def test_losses_are_those_of_the_model_by_hand(tiny):
    found = score(tiny)
    conditional = by_hand(tiny, "<|im_start|>user\nTwo and two?<|im_end|>\n<|im_start|>assistant\n", "Four.")
    alone = by_hand(tiny, "<|im_start|>", "Four.")
    assert found["perplexity_loss"][0] == pytest.approx(conditional, rel=1e-5)
    assert found["perplexity"][0] == pytest.approx(np.exp(conditional), rel=1e-4)
    assert found["ifd"][0] == pytest.approx(np.exp(conditional) / np.exp(alone), rel=1e-4)
    assert found["perplexity_loss"][1] == pytest.approx(by_hand(tiny, "<|im_start|>", "A plain text of some length."), rel=1e-5)


def test_what_cannot_be_measured_is_null_and_never_nan(tiny):
    found = score(tiny)
    assert found["scored_tokens"] == [5, 28, 0, 64, 11, None]
    assert found["truncated"] == [False, False, False, True, False, None]
    assert [value is None for value in found["perplexity_loss"]] == [False, False, True, False, False, True]
    assert [value is None for value in found["ifd"]] == [False, True, True, False, False, True]
    assert all(np.isfinite(value) for name in ("perplexity_loss", "perplexity", "ifd") for value in found[name] if value is not None)


def test_batches_change_only_the_last_digits(tiny):
    whole, single = score(tiny), score(tiny, batch_tokens=1, chunk=3)
    for name in ("perplexity_loss", "ifd"):
        np.testing.assert_allclose(np.array(whole[name], float), np.array(single[name], float), rtol=1e-5)
    assert score(tiny) == whole


def test_nothing_to_score_in_the_whole_shard(tiny):
    assert score(tiny, rows(("a", ""), ("b", "")))["perplexity"] == [None, None]


LONG = "The first words are not like " + "what comes in the middle, where 1234567890 stands, " * 3 + "nor like the LAST ONES of it."


def texts_by_hand(tiny: Path, *parts: str) -> float:
    """Mean loss over the bytes of all parts, each read as a text of its own."""
    return float(np.average([by_hand(tiny, "<|im_start|>", part) for part in parts], weights=[len(part) for part in parts]))


@pytest.mark.parametrize(("windows", "begins"), [(1, [0]), (2, [0, 179]), (3, [0, 89, 179]), (4, [0, 59, 119, 179])])
def test_a_long_text_is_read_in_windows_spread_over_it(tiny, windows, begins):
    """210 bytes in windows of 31: the first at 0, the last ends with the text."""
    text = LONG[:210]
    found = score(tiny, rows(text), max_tokens=32, windows=windows)
    assert (found["scored_tokens"], found["truncated"]) == ([31 * windows], [True])
    expected = texts_by_hand(tiny, *(text[begin : begin + 31] for begin in begins))
    assert found["perplexity_loss"][0] == pytest.approx(expected, rel=1e-5)
    assert found["perplexity"][0] == pytest.approx(np.exp(expected), rel=1e-4) and found["ifd"] == [None]


def test_windows_that_hold_the_whole_text_lie_end_to_end(tiny):
    """70 bytes in up to five windows of 31: 31, 31 and 8, and nothing is left unscored."""
    text = LONG[:70]
    found = score(tiny, rows(text), max_tokens=32, windows=5)
    assert (found["scored_tokens"], found["truncated"]) == ([70], [False])
    assert found["perplexity_loss"][0] == pytest.approx(texts_by_hand(tiny, text[:31], text[31:62], text[62:]), rel=1e-5)


def test_each_text_gets_its_own_windows_and_other_rows_stay_as_they_are(tiny):
    mixed = rows(
        LONG[:70], ("p" * 90, "r" * 90), "short", LONG[60:150], [("user", "u"), ("tool", "t"), ("assistant", "a")], ("No answer", "")
    )
    one, more = score(tiny, mixed, max_tokens=32), score(tiny, mixed, max_tokens=32, windows=2)
    for name in one:
        assert [more[name][i] for i in (4, 5)] == [one[name][i] for i in (4, 5)]
        np.testing.assert_allclose([more[name][i] or 0 for i in (1, 2)], [one[name][i] or 0 for i in (1, 2)], rtol=1e-5)
    assert one["truncated"] == more["truncated"] == [True, True, False, True, None, False]
    for row, text in ((0, LONG[:70]), (3, LONG[60:150])):
        assert one["perplexity_loss"][row] == pytest.approx(by_hand(tiny, "<|im_start|>", text[:31]), rel=1e-5)
        assert more["perplexity_loss"][row] == pytest.approx(texts_by_hand(tiny, text[:31], text[-31:]), rel=1e-5)
    assert score(tiny, mixed, max_tokens=128, windows=3) == score(tiny, mixed, max_tokens=128), "no plain text is longer: the same bytes"
