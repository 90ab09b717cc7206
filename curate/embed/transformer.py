"""Vectors from a sentence encoder: the mean of its last hidden states (Reimers and Gurevych 2019, Sentence-BERT)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import models as weights
from curate.algorithms.batches import length_batches
from curate.embed.hashed import vector_column, viewed
from curate.errors import UserMistake
from curate.models import Precision
from curate.stage import Resources, Stage, TableFunction


class Transformer(Stage):
    """Turns each prompt or text into a vector with a sentence encoder.

    Column `vector`: unit vectors, fixed_size_list<float32>[width of the model].

    model         an encoder in sentence-transformers form, with mean pooling
    view          "prompt": the prompt, and the text of a row that has no prompt (plain documents); "text": the text
    max_tokens    longer inputs lose their end; null: the encoder's own limit
    batch_tokens  tokens computed at once, padding included; batches never cross a shard
    dtype         auto: the faster one on this processor (see models.dtype). The cosine between float32 and bfloat16
                  vectors was at least .9999 on 300 instructions. Averaging and scaling are always in float32.
    """

    model: str
    view: Literal["prompt", "text"] = "prompt"
    max_tokens: int | None = Field(None, ge=8)
    batch_tokens: int = Field(4096, ge=1)
    dtype: Precision = "auto"

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")

    def reads(self) -> tuple[str, ...]:
        return ("prompt", "text") if self.view == "prompt" else ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([("vector", pa.list_(pa.float32(), weights.encoder_facts(self.model).dimensions))])

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def identity(self) -> dict[str, Any]:
        return weights.execution_identity(self.dtype)

    def resources(self) -> Resources:
        return Resources(gpus=weights.gpus_wanted(), memory=1500 << 20)

    def load(self, folder: Path) -> TableFunction:
        model, tokenizer, limit = weights.load_encoder(self.model, self.dtype)
        if self.max_tokens is not None and self.max_tokens > limit:
            raise UserMistake(f"max_tokens is {self.max_tokens}, but the encoder was made for {limit}: set at most {limit}")

        def encode(table: pa.Table) -> pa.Table:
            ids = tokenizer(viewed(table, self.view), truncation=True, max_length=self.max_tokens or limit, split_special_tokens=True)[
                "input_ids"
            ]
            vectors = np.empty((len(ids), model.config.hidden_size), np.float32)
            for batch in length_batches([len(row) for row in ids], self.batch_tokens):
                vectors[batch] = mean_states(model, [ids[i] for i in batch])
            return pa.table({"vector": vector_column(vectors)})

        return encode


def mean_states(model: Any, ids: list[list[int]]) -> np.ndarray:
    """Unit vectors (rows, width), float32: hidden states averaged over each row's own tokens, in float32."""
    import torch

    width = max(len(row) for row in ids)
    inputs = torch.zeros(len(ids), width, dtype=torch.long)
    mask = torch.zeros(len(ids), width, dtype=torch.long)
    for i, row in enumerate(ids):
        inputs[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    inputs, mask = inputs.to(model.device), mask.to(model.device)
    with torch.inference_mode():
        states = model(input_ids=inputs, attention_mask=mask).last_hidden_state.float()
        total = (states * mask[:, :, None]).sum(1)
        return torch.nn.functional.normalize(total, dim=1).cpu().numpy()
