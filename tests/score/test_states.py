from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import rows

from curate import encoding, models
from curate.score.states import States

ROWS = rows(("Two and two?", "Four."), ("Name a colour.", "Blue."), "A plain text.", ("No answer", ""), [("tool", "t"), ("assistant", "a")])


def stored(model: Path, table=ROWS, **settings) -> list[bytes | None]:
    stage = States(model=str(model), dtype="float32", max_tokens=128, **settings)
    found = stage.load(Path())(table)
    assert found.schema == stage.writes()
    return found.column("original_states").to_pylist()


def test_the_head_makes_the_models_own_logits_of_them(tiny):
    model, tokenizer = models.load_causal_lm(str(tiny), "float32")
    row = encoding.encode_pair(tokenizer, "Two and two?", "Four.", max_tokens=128)
    states = torch.from_numpy(np.frombuffer(stored(tiny)[0], np.float32).reshape(-1, model.config.hidden_size).copy())
    with torch.inference_mode():
        logits = model(input_ids=torch.from_numpy(row.ids)[None]).logits[0, np.flatnonzero(row.scored) - 1]
        np.testing.assert_allclose(model.lm_head(states).numpy(), logits.numpy(), atol=1e-4)


@pytest.mark.parametrize(("positions", "tokens"), [("response", [5, 5, 13]), ("all", [35, 37, 13])])
def test_one_state_per_token_and_null_where_nothing_is_scored(tiny, positions, tokens):
    found = stored(tiny, positions=positions)
    assert found[3:] == [None, None]
    size = 4 * models.load_causal_lm(str(tiny), "float32")[0].config.hidden_size
    assert [len(data) / size for data in found[:3]] == tokens


def test_equal_rows_give_equal_bytes_and_batches_change_little(tiny):
    whole = stored(tiny)
    assert stored(tiny) == whole
    for ours, theirs in zip(stored(tiny, batch_tokens=1)[:3], whole[:3], strict=True):
        np.testing.assert_allclose(np.frombuffer(ours, np.float32), np.frombuffer(theirs, np.float32), atol=1e-4)
