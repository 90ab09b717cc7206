"""Entries of prefixes by ranges of their keys: in memory where they are few, else on the disk, a file a range. One range at a time is read back.

A range holds every entry of its keys, so the pairs of rows that share a key are found from one range. The ranges are looked at one after the other and
not side by side: what the pairs of one tie together is not compared again in the next, which keeps a million like rows from being a billion pairs.
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
    """with Buckets(most, room) as buckets: buckets.add(prefixes) ...; for prefixes in buckets: ...

    most  at most so many entries will come: how many ranges there are depends on nothing else
    room  a folder for the files; None: all stays in memory
    """

    def __init__(self, most: int, room: Path | None = None):
        self.number = max(1, -(-most // MOST_ENTRIES))
        self._held: list[list[Prefixes]] = [[] for _ in range(self.number)]
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if room is not None and self.number > 1:
            room.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.TemporaryDirectory(prefix="buckets-", dir=room)

    def __enter__(self) -> Buckets:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._folder is not None:
            self._folder.cleanup()

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
            with self._file(number).open("ab") as file:
                file.write(entries.tobytes())

    def __iter__(self) -> Iterator[Prefixes]:
        """The entries of each range that has any, in the order in which they came; each can be read once."""
        for number, held in enumerate(self._held):
            if self._folder is not None and self._file(number).exists():
                entries = np.fromfile(self._file(number), _ENTRY)
                self._file(number).unlink()
                yield Prefixes(*(np.ascontiguousarray(entries[name]) for name in _ENTRY.names or ()))
            elif held:
                some = together(held)
                held.clear()
                yield some

    def _file(self, number: int) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / f"{number}.entries"
