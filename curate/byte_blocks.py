"""A column of texts as blocks of bytes, as `algorithms/word_hashes.py` reads them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLOCK = 1 << 20  # bytes at once: arrays of eight bytes per byte of text stay small


def byte_blocks(
    texts: pa.Array | pa.ChunkedArray, characters: int | None = None, fold: bool = True, block: int = BLOCK
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The UTF-8 bytes of some texts after the other, uint8, and where each begins and the last ends, int64 (texts + 1,).

    characters  no more than the first so many of a text;  fold  lower case;  null is an empty text
    """
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        read = chunk.cast(pa.large_string())
        if characters is not None:
            read = pc.utf8_slice_codeunits(read, 0, characters)
        read = pc.fill_null(pc.utf8_lower(read) if fold else read, "")
        _, offsets, data = read.buffers()
        ends = np.frombuffer(offsets, np.int64)[read.offset : read.offset + len(read) + 1]
        raw = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
        first = 0
        while first < len(read):
            last = max(first + 1, int(np.searchsorted(ends, ends[first] + block, side="right")) - 1)
            yield raw[ends[first] : ends[last]], ends[first : last + 1] - ends[first]
            first = last
