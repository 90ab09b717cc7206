"""Columns of a shard as arrays that selections work on."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import UserMistake


def coded(known: dict[Hashable, int], column: pa.ChunkedArray) -> np.ndarray:
    """Numbers, int32, for values: a value has the same one in every shard."""
    encoded = column.combine_chunks().dictionary_encode()
    here = [known.setdefault(value, len(known)) for value in [*encoded.dictionary.to_pylist(), *([None] if encoded.null_count else [])]]
    return np.array(here, np.int32)[np.asarray(encoded.indices.fill_null(len(here) - 1))] if here else np.empty(0, np.int32)


def in_sequence(keys: dict[str, Any]) -> np.ndarray:
    return np.asarray(pc.sort_indices(pa.table(keys), sort_keys=[(name, "ascending") for name in keys])).astype(np.int64)


def numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column as float64, NaN where it is null."""
    try:
        return table[name].cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        raise UserMistake(f"select: column '{name}' holds {table[name].type}, not numbers: name a column of scores") from None


def in_order(codes: dict[Hashable, int], values: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """Codes renumbered in the order of what they stand for, null last; and that, in order."""
    names = sorted(codes, key=lambda name: (name is None, str(type(name)), name if name is not None else 0))
    renumbered = np.empty(max(len(codes), 1), np.int32)
    renumbered[[codes[name] for name in names]] = np.arange(len(names))
    return (renumbered[values.astype(np.int32)] if len(codes) else values.astype(np.int32)), names
