"""The members of a trained filter: ways to look at a row, each with a linear classifier of its own.

words      which words and pairs of words a text has (DCLM, arXiv 2406.11794, where n-grams beat embeddings and perplexity)
lines      runs of up to three line shapes: menus and lists of links against prose, in any language
embedding  the stored vector (FineWeb-Edu, arXiv 2406.17557: a linear head on a frozen encoder)
scores     columns of numbers that other scorers wrote: a classifier's, likeness to a description, a perplexity
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.algorithms import presence
from curate.algorithms.line_shapes import line_shapes
from curate.algorithms.word_hashes import Hashes, word_hashes
from curate.byte_blocks import byte_blocks
from curate.errors import UserMistake

Name = Literal["words", "lines", "embedding", "scores"]

_ORDER = {"words": 2, "lines": 3}
_BUCKETS = {"lines": 1 << 16}


class Member:
    """What a row looks like to one member: `features` to train on, `products` with trained weights, the same numbers faster.

    characters  no more than the first so many of a text are read
    column      the stored vectors, for `embedding`
    numbers     the columns of numbers, for `scores`: each is two features, the number and whether there is one
    """

    def __init__(self, name: Name, buckets: int, characters: int, column: str, numbers: Sequence[str] = ()):
        self.name, self.characters, self.column, self.numbers = name, characters, column, numbers
        self.buckets = _BUCKETS.get(name, buckets)

    def features(self, table: pa.Table) -> Any:
        """(rows, columns) float32, scipy CSR or dense."""
        if self.name in ("embedding", "scores"):
            return self._stored(table)
        return presence.features(self._hashes(table), _ORDER[self.name], self.buckets)

    def products(self, table: pa.Table, weights: np.ndarray, model: np.ndarray) -> np.ndarray:
        """Product of each row with the weights of its model, float64 (rows,). weights (models, columns); model int (rows,)."""
        if self.name in ("embedding", "scores"):
            return np.einsum("rd,rd->r", self._stored(table).astype(np.float64), weights[model])
        return presence.products(self._hashes(table), _ORDER[self.name], weights, model)

    def _stored(self, table: pa.Table) -> np.ndarray:
        return vectors(table, self.column) if self.name == "embedding" else scores(table, self.numbers)

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


def scores(table: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """float32 (rows, 2 x columns): each number, 0 where there is none or none that is finite, and beside it 1 where there is one."""
    found = np.zeros((len(table), 2 * len(columns)), np.float32)
    for place, column in enumerate(columns):
        try:
            values = pc.cast(table.column(column), pa.float32()).to_numpy()
        except pa.ArrowException:
            raise UserMistake(
                f"filter: column '{column}' holds {table.schema.field(column).type}, not numbers: name a column of scores"
            ) from None
        there = np.isfinite(values)
        found[there, 2 * place], found[there, 2 * place + 1] = values[there], 1
    return found
