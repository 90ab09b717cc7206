"""A sequence classifier as a scorer: its numbers are the model's own, whatever the batch."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_model import save_tiny_model

from curate.errors import UserMistake
from curate.score.classifier import Classifier

TEXTS = ["short", "a somewhat longer text about rivers", "x" * 300, "and one more"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory):
    """A function: the folder of a classifier with so many outputs, random weights."""

    def make(labels: int) -> Path:
        import torch
        from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

        folder = save_tiny_model(tmp_path_factory.mktemp("classifier"))
        config = LlamaConfig.from_pretrained(folder, num_labels=labels, pad_token_id=1)
        torch.manual_seed(0)
        LlamaForSequenceClassification(config).save_pretrained(folder)
        assert AutoTokenizer.from_pretrained(folder)
        return folder

    return make


def told(folder: Path, **settings) -> np.ndarray:
    stage = Classifier(model=str(folder), dtype="float32", **{"max_tokens": 64} | settings)
    found = stage.load(Path())(pa.table({"text": pa.array(TEXTS, pa.large_string())}))
    assert found.schema == stage.writes()
    return found["classifier"].to_numpy()


def logits(folder: Path) -> np.ndarray:
    """One text at a time, by the library alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return np.stack([model(**tokenizer(t, truncation=True, max_length=64, return_tensors="pt")).logits[0].numpy() for t in TEXTS])


def test_one_output_is_the_score(saved):
    folder = saved(1)
    np.testing.assert_allclose(told(folder), logits(folder)[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(told(folder, batch_tokens=1), told(folder), rtol=1e-4, atol=1e-5)


def test_of_several_labels_one_is_asked_for_or_they_are_grades(saved):
    folder = saved(3)
    shares = np.exp(logits(folder))
    shares /= shares.sum(1, keepdims=True)
    np.testing.assert_allclose(told(folder, label="LABEL_2"), shares[:, 2], rtol=1e-4)
    np.testing.assert_allclose(told(folder), shares @ [0, 1, 2], rtol=1e-4)
    assert np.ptp(told(folder)) > 1e-3


def test_mistakes_end_with_the_remedy(saved, tmp_path):
    with pytest.raises(UserMistake, match=r"no label 'good' \(it has: LABEL_0, LABEL_1\): name one"):
        told(saved(2), label="good")
    with pytest.raises(UserMistake, match="is LlamaForCausalLM, no sequence classifier: name one"):
        told(save_tiny_model(tmp_path / "lm"))
    with pytest.raises(UserMistake, match="set max_tokens to at most 512"):
        told(saved(1), max_tokens=4000)
