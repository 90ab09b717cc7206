"""Vectors from a static model: the mean of its word pieces' own vectors (model2vec; Tulkens and van Dongen 2024).

No attention, so word order and context are lost: two orders of magnitude faster than a sentence encoder, and another
answer, not the same one faster.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import models as weights
from curate.algorithms.knn import unit_rows
from curate.embed.hashed import vector_column, viewed
from curate.stage import Stage, TableFunction


class Static(Stage):
    """Turns each prompt or text into a vector with a model2vec folder (config.json, model.safetensors, tokenizer.json).

    Column `vector`: unit vectors, fixed_size_list<float32>[width of the model]; null for a text without a known word piece.

    view         "prompt": the prompt, and the text of a row that has no prompt (plain documents); "text": the text
    max_tokens   longer texts lose their end
    """

    model: str
    view: Literal["prompt", "text"] = "prompt"
    max_tokens: int = Field(512, ge=1)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("model2vec", "tokenizers", "numpy")

    def reads(self) -> tuple[str, ...]:
        return ("prompt", "text") if self.view == "prompt" else ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([("vector", pa.list_(pa.float32(), weights.static_dimensions(self.model)))])

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def load(self, folder: Path) -> TableFunction:
        model = weights.load_static(self.model)

        def encode(table: pa.Table) -> pa.Table:
            means = model.encode(viewed(table, self.view), max_length=self.max_tokens, normalize=False, use_multiprocessing=False)
            unit, empty = unit_rows(np.asarray(means, np.float32))
            return pa.table({"vector": vector_column(unit, np.isin(np.arange(len(unit)), empty))})

        return encode
