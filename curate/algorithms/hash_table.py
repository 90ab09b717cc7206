"""A table from 64-bit keys to numbers that looks up a million keys at a time: open addressing with linear probing (Knuth, vol. 3, 6.4), in numpy."""

from __future__ import annotations

import numpy as np


class HashTable:
    """keys  uint64, distinct, none 0, already mixed (their low bits are their place);  values  float32 (keys,)"""

    def __init__(self, keys: np.ndarray, values: np.ndarray):
        # A quarter to a half full: one or two steps find a key, or that it is not there.
        size = 1 << max(4, int(2 * len(keys)).bit_length())
        self.keys = np.zeros(size, np.uint64)
        self.values = np.zeros(size, np.float32)
        place, left = (keys & np.uint64(size - 1)).astype(np.int64), np.arange(len(keys))
        while len(left):
            free = np.flatnonzero(self.keys[place[left]] == 0)
            # Of keys that want one place the first gets it: the table follows from the order of the keys.
            first = free[np.unique(place[left[free]], return_index=True)[1]]
            settled = left[first]
            self.keys[place[settled]] = keys[settled]
            self.values[place[settled]] = values[settled]
            left = np.delete(left, first)
            place[left] = (place[left] + 1) & (size - 1)

    @classmethod
    def stored(cls, keys: np.ndarray, values: np.ndarray) -> HashTable:
        """From the arrays `keys` and `values` of a table."""
        table = cls.__new__(cls)
        table.keys, table.values = keys, values
        return table

    def get(self, keys: np.ndarray, missing: float) -> np.ndarray:
        """Values of the keys, float32; `missing` where there is none."""
        place = (keys & np.uint64(len(self.keys) - 1)).astype(np.int64)
        there = self.keys[place]
        found = self.values[place]
        open_ = np.flatnonzero(there != keys)
        while len(open_):
            ended = there[open_] == 0
            found[open_[ended]] = missing
            open_ = open_[~ended]
            place[open_] = (place[open_] + 1) & (len(self.keys) - 1)
            there[open_] = self.keys[place[open_]]
            hit = there[open_] == keys[open_]
            found[open_[hit]] = self.values[place[open_[hit]]]
            open_ = open_[~hit]
        return found
