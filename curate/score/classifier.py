"""What a text classifier of somebody else says of a row: any Hugging Face sequence classification model.

Fixed classifiers (FineWeb-Edu, arXiv 2406.17557; Nemotron-CC, arXiv 2412.02595, joins several) know one idea of quality, and their training data is rarely
yours. Bound the column in `select.where`, or give it to the filter: `{members: [words, lines, scores], numbers: [classifier]}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import hardware
from curate import models as weights
from curate.algorithms.batches import length_batches
from curate.errors import UserMistake
from curate.hardware import Precision
from curate.score.perplexity import nullable
from curate.stage import Resources, Stage, TableFunction


class Classifier(Stage):
    """Asks a sequence classifier about the text of each row.

    classifier  of a model with one output: the output. With several: the probability of `label`, or without `label` the mean of
                their numbers 0, 1, ..., weighted by probability (for labels that are grades)

    max_tokens    longer texts lose their end
    batch_tokens  tokens computed at once, padding included; batches never cross a shard
    """

    model: str
    label: str | None = None
    max_tokens: int = Field(512, ge=8)
    batch_tokens: int = Field(4096, ge=1)
    dtype: Precision = "auto"

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([("classifier", pa.float32())])

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def identity(self) -> dict[str, Any]:
        return hardware.execution_identity(self.dtype)

    def resources(self) -> Resources:
        return Resources(gpus=hardware.gpus_wanted(), memory=weights.memory(self.model, precision=self.dtype))

    def load(self, folder: Path) -> TableFunction:
        model, tokenizer = weights.load_classifier(self.model, self.dtype)
        weights.check_window(model, self.max_tokens, self.model)
        wanted = self._wanted({str(name): int(number) for number, name in model.config.id2label.items()})

        def score(table: pa.Table) -> pa.Table:
            texts = [text[: 100 * self.max_tokens] for text in table.column("text").to_pylist()]
            ids = tokenizer(texts, truncation=True, max_length=self.max_tokens, split_special_tokens=True)["input_ids"]
            found = np.empty(len(ids))
            for batch in length_batches([len(row) for row in ids], self.batch_tokens):
                found[batch] = wanted(self._logits(model, [ids[i] for i in batch]))
            return pa.table([nullable(found)], schema=self.writes())

        return score

    def _wanted(self, labels: dict[str, int]) -> Any:
        """A function: logits float64 (rows, labels) -> the number that is wanted, float64 (rows,)."""
        if self.label is not None and self.label not in labels:
            raise UserMistake(
                f"classifier: '{self.model}' has no label '{self.label}' (it has: {', '.join(sorted(labels))}): name one of these"
            )

        def number(logits: np.ndarray) -> np.ndarray:
            if logits.shape[1] == 1:
                return logits[:, 0]
            shares = np.exp(logits - logits.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            return shares[:, labels[self.label]] if self.label is not None else shares @ np.arange(shares.shape[1])

        return number

    @staticmethod
    def _logits(model: Any, ids: list[list[int]]) -> np.ndarray:
        import torch

        lengths = np.array([len(row) for row in ids])
        inputs = np.full((len(ids), lengths.max()), model.config.pad_token_id or 0, np.int64)
        mask = np.arange(lengths.max()) < lengths[:, None]
        inputs[mask] = np.concatenate(ids)
        with torch.inference_mode():
            there = torch.from_numpy(mask).long().to(model.device)
            return model(input_ids=torch.from_numpy(inputs).to(model.device), attention_mask=there).logits.double().cpu().numpy()
