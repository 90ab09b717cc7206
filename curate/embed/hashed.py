"""Vectors without a model: hashed character n-grams of the prompt or of the text.

They know spelling, not meaning: good for near copies, templates and languages; a sentence encoder
(`method: transformer`) is better for topics. Thousands of rows a second on one core.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.algorithms.hashed_ngrams import hashed_ngrams
from curate.stage import Stage, TableFunction


class HashedNgrams(Stage):
    """Turns each prompt or text into a vector of hashed character n-grams; no model.

    Column `vector`: unit vectors, fixed_size_list<float32>[dimensions].

    view   "prompt": the prompt, and the text of a row that has no prompt (plain documents); "text": the text
    lowest, highest   lengths of the n-grams, in characters
    max_characters    longer texts lose their end: the n-grams of a text are in memory at once, 200 bytes a character
    """

    view: Literal["prompt", "text"] = "prompt"
    dimensions: int = Field(384, ge=2)
    lowest: int = Field(3, ge=1)
    highest: int = Field(5, ge=1)
    max_characters: int = Field(100_000, ge=1)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "scipy", "numpy")

    def reads(self) -> tuple[str, ...]:
        return ("prompt", "text") if self.view == "prompt" else ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([("vector", pa.list_(pa.float32(), self.dimensions))])

    def load(self, folder: Path) -> TableFunction:
        def encode(table: pa.Table) -> pa.Table:
            texts = [text[: self.max_characters] for text in viewed(table, self.view)]
            vectors = hashed_ngrams(texts, self.dimensions, self.lowest, self.highest)
            return pa.table({"vector": vector_column(vectors)})

        return encode


def viewed(table: pa.Table, view: str) -> list[str]:
    """The texts to embed. With view "prompt", rows with a null prompt (plain documents) give their text."""
    texts = table.column("text").to_pylist()
    if view == "text":
        return texts
    return [text if prompt is None else prompt for prompt, text in zip(table.column("prompt").to_pylist(), texts, strict=True)]


def vector_column(vectors: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    """(rows, d) float32 -> fixed_size_list<float32>[d]; null where `missing`, bool (rows,)."""
    mask = None if missing is None else pa.array(missing)
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), vectors.shape[1], mask=mask)


def unit_vectors(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Unit float32 (n, d) of a column of vectors, and the positions of rows without a usable one (null, zero, NaN); their rows are zero."""
    from curate.algorithms.knn import unit_rows

    array = pa.chunked_array([column]).combine_chunks() if isinstance(column, pa.Array) else column.combine_chunks()
    present = np.flatnonzero(np.asarray(array.is_valid()))
    if not len(present):
        return np.zeros((len(array), 1), np.float32), np.arange(len(array))
    values = np.asarray(array.take(pa.array(present)).flatten(), np.float32).reshape(len(present), -1)
    vectors = np.zeros((len(array), values.shape[1]), np.float32)
    vectors[present] = values
    return unit_rows(vectors)
