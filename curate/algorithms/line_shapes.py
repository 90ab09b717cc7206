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
    starts, stops, begins = find_lines(raw, ends)
    seen = raw > 0x20
    # A line's first word begins where the line does; each further one after a space.
    further = np.flatnonzero(seen[1:] & ~seen[:-1]) + 1
    length = 1 + np.searchsorted(further, stops) - np.searchsorted(further, starts, side="right")
    shape = (np.searchsorted(_LENGTHS, length, side="right").astype(np.uint64) * np.uint64(8) + _BEGINS[raw[starts]]) * np.uint64(8)
    return mix(shape + _ENDS[raw[stops - 1]] + np.uint64(1)), begins


def find_lines(raw: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each line that is not blank starts and stops in `raw`, white space around it left out, int64 (lines,) both; where each text's begin."""
    breaks = np.flatnonzero(raw == ord("\n"))
    heads = np.unique(np.concatenate([ends[:-1], breaks + 1]))
    heads = heads[heads < len(raw)]
    at = np.flatnonzero(raw > 0x20)
    first, last = np.searchsorted(at, heads), np.searchsorted(at, np.append(heads, len(raw))[1:]) - 1
    some = first <= last
    before = np.concatenate([[0], np.cumsum(some)])
    return at[first[some]], at[last[some]] + 1, before[np.searchsorted(heads, ends)]
