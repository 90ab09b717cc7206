"""Where a committed file was harmed: CRC-32 of its blocks, stored with its record, tell the block, and mostly the byte.

CRC-32 is linear: the checksum of a harmed block differs from the stored one by what the harm alone would give. Of one harmed byte there are 255
such values at each place; where exactly one place and value fit, that is the byte.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from curate.store import block_size

_POLYNOMIAL = 0xEDB88320
MOST_SEARCHED = 1 << 22  # bytes of a block in which the byte is looked for


def first_bad_byte(path: Path, size: int, blocks: str) -> str:
    """In words, from which byte on a file is not the one that was committed; `blocks` as `store.hashed` gives them.

    A file that was written before blocks were stored, or that is harmed nowhere, is said to be so.
    """
    found = path.stat().st_size
    if not blocks:
        return "which byte is not known: it was written before block checksums were stored"
    step = block_size(size)
    with path.open("rb") as file:
        for number in range(len(blocks) // 8):
            block = file.read(min(step, size - number * step))
            good, start = int(blocks[8 * number : 8 * number + 8], 16), number * step
            if len(block) < min(step, size - start):
                return f"byte {found:,} is missing, the file is {size - found:,} bytes short"
            if zlib.crc32(block) != good:
                place = _harmed_byte(zlib.crc32(block) ^ good, len(block))
                return f"byte {start + place:,}" if place is not None else f"a byte from {start:,} to {start + len(block) - 1:,}"
    return f"byte {size:,} on is too much" if found > size else "no byte"


def _harmed_byte(syndrome: int, length: int) -> int | None:
    """Place of the one harmed byte of a block that would change its checksum so; None where none or several would."""
    if length > MOST_SEARCHED:
        return None
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    state = table[1:].copy()  # harm of every kind in the last byte; one step moves it a byte to the front
    places = []
    for place in range(length - 1, -1, -1):
        if (state == syndrome).any():
            places.append(place)
        state = (state >> 8) ^ table[state & 0xFF]
    return places[0] if len(places) == 1 else None
