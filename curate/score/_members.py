"""The members of a trained filter: ways to look at a row, each with a linear classifier of its own.

words      which words and pairs of words a text has (DCLM, arXiv 2406.11794, where n-grams beat embeddings and perplexity)
lines      runs of up to three line shapes: menus and lists of links against prose, in any language
embedding  the stored vector (FineWeb-Edu, arXiv 2406.17557: a linear head on a frozen encoder)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from curate.algorithms import presence
from curate.algorithms.line_shapes import line_shapes
from curate.algorithms.word_hashes import Hashes, word_hashes
from curate.score._bytes import byte_blocks

Name = Literal["words", "lines", "embedding"]

_ORDER = {"words": 2, "lines": 3}
_BUCKETS = {"lines": 1 << 16}


class Member:
    """What a row looks like to one member: `features` to train on, `products` with trained weights, the same numbers faster.

    characters  no more than the first so many of a text are read
    column      the stored vectors, for `embedding`
    """

    def __init__(self, name: Name, buckets: int, characters: int, column: str):
        self.name, self.characters, self.column = name, characters, column
        self.buckets = _BUCKETS.get(name, buckets)

    def features(self, table: pa.Table) -> Any:
        """(rows, columns) float32, scipy CSR or dense."""
        if self.name == "embedding":
            return vectors(table, self.column)
        return presence.features(self._hashes(table), _ORDER[self.name], self.buckets)

    def products(self, table: pa.Table, weights: np.ndarray, model: np.ndarray) -> np.ndarray:
        """Product of each row with the weights of its model, float64 (rows,). weights (models, columns); model int (rows,)."""
        if self.name == "embedding":
            return np.einsum("rd,rd->r", vectors(table, self.column).astype(np.float64), weights[model])
        return presence.products(self._hashes(table), _ORDER[self.name], weights, model)

    def _hashes(self, table: pa.Table) -> Iterator[Hashes]:
        text = table.column("text")
        if self.name == "words":
            return (word_hashes(*block) for block in byte_blocks(text, self.characters))
        return (line_shapes(*block) for block in byte_blocks(text, self.characters, fold=False))


def vectors(table: pa.Table, column: str) -> np.ndarray:
    """float32 (rows, d); a null vector is zeros: it says nothing."""
    found = table.column(column).combine_chunks()
    values = np.zeros((len(found), found.type.list_size), np.float32)
    there = found.is_valid().to_numpy(zero_copy_only=False)
    values[there] = found.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, found.type.list_size)
    return values
