"""Entries of prefixes by ranges of their keys: in memory where they are few, else on the disk, a file a range.

A range holds every entry of its keys, so each can be looked at by itself, by another process as well: `ranges.py`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from curate.algorithms.set_join import Prefixes, together

MOST_ENTRIES = 1 << 23  # of prefixes at a time, about 25 bytes each and twice that while they are sorted
_ENTRY = np.dtype([("key", np.uint64), ("row", np.int32), ("size", np.int32), ("place", np.int32), ("short", np.bool_)])


class Buckets:
    """with Buckets(most, room) as buckets: buckets.add(prefixes) ...; then `files`, or the entries of each range in turn.

    most  at most so many entries will come: how many ranges there are depends on nothing else
    room  a folder for the files; None: all stays in memory
    """

    def __init__(self, most: int, room: Path | None = None):
        self.number = max(1, -(-most // MOST_ENTRIES))
        self._held: list[list[Prefixes]] = [[] for _ in range(self.number)]
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if room is not None and self.number > 1:
            room.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.TemporaryDirectory(prefix="ranges-", dir=room)

    def __enter__(self) -> Buckets:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def files(self) -> list[Path]:
        """Of each range that has entries, in their order; empty where all is in memory. They go when the block ends."""
        return sorted(self._place().glob("*.entries")) if self._folder else []

    def add(self, some: Prefixes) -> None:
        if self.number == 1:
            self._held[0].append(some)
            return
        bucket = some.key % np.uint64(self.number)  # the low bits of a key are those of its hash
        for number in np.unique(bucket).tolist():
            chosen = some.where(bucket == number)
            if self._folder is None:
                self._held[number].append(chosen)
                continue
            entries = np.empty(len(chosen.key), _ENTRY)
            for name in _ENTRY.names or ():
                entries[name] = getattr(chosen, name)
            with (self._place() / f"{number:06d}.entries").open("ab") as file:
                file.write(entries.tobytes())

    def __iter__(self) -> Iterator[Prefixes]:
        """The entries of each range that has any; what is held in memory can be read once."""
        yield from map(read_entries, self.files)
        for held in self._held:
            if held:
                some = together(held)
                held.clear()
                yield some

    def _place(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name)


def read_entries(file: Path) -> Prefixes:
    """The entries of one range, in the order in which they came."""
    entries = np.fromfile(file, _ENTRY)
    return Prefixes(*(np.ascontiguousarray(entries[name]) for name in _ENTRY.names or ()))
