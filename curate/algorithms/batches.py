"""Batches of rows of like length, so that little is spent on padding; chunks of one size, so that one compiled kernel serves all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def length_batches(lengths: Sequence[int], budget: int) -> list[np.ndarray]:
    """Indices (int64) of each batch: longest rows first, equal lengths in their given order.

    A batch of n rows whose longest has L tokens costs n x L, at most `budget`; a row longer than the budget is
    a batch by itself. The batches follow from lengths and budget alone.
    """
    if budget < 1:
        raise ValueError(f"budget is {budget} tokens: give at least 1")
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    batches = []
    first = 0
    while first < len(order):
        size = max(1, budget // max(1, lengths[order[first]]))
        batches.append(order[first : first + size])
        first += size
    return batches


def padded_chunks(size: int, *tensors: Any) -> Iterator[tuple[Any, ...]]:
    """(rows that count, then `size` rows of each tensor): the last chunk is filled up with its own last row. Tensors of as many rows."""
    import torch

    for first in range(0, len(tensors[0]), size):
        parts = [tensor[first : first + size] for tensor in tensors]
        rows = len(parts[0])
        if rows < size:
            parts = [torch.cat([part, part[-1:].expand(size - rows, *part.shape[1:])]) for part in parts]
        yield (rows, *parts)
