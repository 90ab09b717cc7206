"""The lines of texts by their shape alone: how long each is, how it begins and ends. Not a word is read.

Menus, lists of links and headers are runs of short lines without a full stop; prose is not. Rules of thumb measure this
one number at a time (C4: lines that end like a sentence; FineWeb: short lines); a classifier of runs of shapes learns which matter.
"""

from __future__ import annotations

import numpy as np

from curate.algorithms.word_hashes import Hashes, mix

_LENGTHS = np.array([2, 4, 8, 16, 32, 64])  # words: a shape says between which of them a line lies

# How a line begins and ends, by its first and last byte.
_BEGINS = np.zeros(256, np.uint64)
_BEGINS[[*range(ord("A"), ord("Z") + 1)]] = 1
_BEGINS[[*range(ord("a"), ord("z") + 1)]] = 2
_BEGINS[[*range(ord("0"), ord("9") + 1)]] = 3
_BEGINS[0x80:] = 4
_ENDS = np.zeros(256, np.uint64)
_ENDS[[ord(c) for c in ".!?"]] = 1
_ENDS[[ord(c) for c in ":;,"]] = 2
_ENDS[[ord(c) for c in "\"')"]] = 3
_ENDS[[*range(ord("0"), ord("9") + 1)]] = 4
_ENDS[0x80:] = 5


def line_shapes(raw: np.ndarray, ends: np.ndarray) -> Hashes:
    """Hashes of the shapes of the lines of some texts; blank lines are left out. `raw` and `ends` as in `word_hashes`."""
    if not len(raw):
        return np.zeros(0, np.uint64), np.zeros(len(ends), np.int64)
    first = np.zeros(len(raw), bool)
    first[ends[:-1][ends[:-1] < len(raw)]] = True
    first[1:] |= raw[:-1] == ord("\n")
    starts = np.flatnonzero(first)
    seen = raw > 0x20
    words = seen.copy()
    words[1:] &= ~seen[:-1] | first[1:]
    length = np.add.reduceat(words.astype(np.int64), starts)
    at = np.flatnonzero(seen)
    filled = np.flatnonzero(length)  # lines with a word in them
    head = at[np.searchsorted(at, starts[filled])]
    tail = at[np.searchsorted(at, np.append(starts, len(raw))[filled + 1]) - 1]
    shape = (np.searchsorted(_LENGTHS, length[filled], side="right").astype(np.uint64) * np.uint64(8) + _BEGINS[raw[head]]) * np.uint64(8)
    before = np.concatenate([[0], np.cumsum(length > 0)])
    return mix(shape + _ENDS[raw[tail]] + np.uint64(1)), before[np.searchsorted(starts, ends)]
