"""Which rows are copies of which, once their texts are keys and sets of hashes: exact copies, near ones, and who survives.

Arrays in, arrays out; what makes them of texts is `marks`, what feeds them from shards is the stage (`lexical.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from curate.algorithms.normal_form import exact_key, normalise
from curate.algorithms.set_join import (
    Measure,
    Prefixes,
    Sets,
    candidate_blocks,
    connected,
    count,
    counters,
    joined,
    of_hashes,
    prefix_sizes,
    prefixes,
    similarity,
)
from curate.algorithms.shingles import Unit, shingled
from curate.byte_blocks import byte_blocks
from curate.dedup.buckets import Buckets

SHORT = 50  # words; below, one number or "not" can turn the meaning round without moving the similarity
NO_TEXT = b"\xff" * 16  # the key of a row without a text, which is no copy of anything


@dataclass(frozen=True)
class Marks:
    """What finding copies needs of texts.

    key     uint64 (n, 2): equal for texts of the same normal form
    sets    shingles of each; empty for a text shorter than one
    words   int32 (n,)
    guard   uint64 (n,): differs where the numbers, negations or operators of two texts do
    length  int32 (n,): characters
    """

    key: np.ndarray
    sets: Sets
    words: np.ndarray
    guard: np.ndarray
    length: np.ndarray


def marks(texts: Sequence[str | None], unit: Unit | str = "words", size: int = 5) -> Marks:
    """unit  words, tokens or characters, `size` of them in a row; or lines or paragraphs, one at a time."""
    normal = [normalise(text or "") for text in texts]
    keys = np.frombuffer(
        b"".join(NO_TEXT if text is None else exact_key(form) for text, form in zip(texts, normal, strict=True)), np.uint64
    )
    keys = keys.reshape(-1, 2)
    runs: Unit = "words" if unit in ("lines", "paragraphs") else unit  # type: ignore[assignment]
    parts = [shingled(raw, ends, runs, size) for raw, ends in byte_blocks(pa.array(normal, pa.large_string()), fold=False)]
    sets = joined([part.sets for part in parts])
    if unit in ("lines", "paragraphs"):
        sets = _pieces(texts, "\n" if unit == "lines" else "\n\n")
    words, guard = (
        np.concatenate([np.empty(0, kind), *(getattr(part, name) for part in parts)])
        for name, kind in (("words", np.int32), ("guard", np.uint64))
    )
    return Marks(keys, sets, words, guard, np.array([len(text or "") for text in texts], np.int32))


def _pieces(texts: Sequence[str | None], between: str) -> Sets:
    """The lines or paragraphs of each text, by their normal form; blank ones are none."""
    hashes: list[bytes] = []
    sizes = []
    for text in texts:
        pieces = [exact_key(normal) for piece in (text or "").split(between) if (normal := normalise(piece))]
        hashes += pieces
        sizes.append(len(pieces))
    return of_hashes(np.frombuffer(b"".join(hashes), np.uint64)[::2].copy(), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


@dataclass(frozen=True)
class Rows:
    """All rows, in the order in which their sets are read.

    rank    int64 (n,): of the rows of a set of copies the one with the lowest survives
    known   the last so many rows are of another dataset: they survive, whatever their rank, and are compared with no other of their kind
    raw     bool (n,), None: all;  family: (n,), of each row what it shares with its source and what else was made of that (only where some are not raw)
    new     bool (n,), None: none;  at a refresh the rows that were no survivors before: they tie no rows together that were
    fell    bool (n,), None: none;  those of them that were there, as duplicates: they stay duplicates while what they hang on is there
    """

    key: np.ndarray
    words: np.ndarray
    guard: np.ndarray
    sizes: np.ndarray
    rank: np.ndarray
    known: int = 0
    raw: np.ndarray | None = None
    family: np.ndarray | None = None
    new: np.ndarray | None = None
    fell: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rank)

    def levels(self) -> np.ndarray | None:
        """0: rows that may tie others together; 1: new ones; 2: generated ones, int8 (n,). None: all are 0."""
        if self.raw is None and self.new is None:
            return None
        found = np.zeros(len(self), np.int8) if self.new is None else self.new.astype(np.int8)
        return found if self.raw is None else np.where(self.raw, found, np.int8(2))


@dataclass(frozen=True)
class Decided:
    """survivor  int64 (n,): the row itself where it stays
    exact       bool (n,): its text is that of another row that comes before it
    closest     float64 (n,): similarity of the closest pair that joined a row to its set; NaN where it stays
    similarity  float64 (n,): to the survivor, exact
    pairs, alike   the pairs that joined rows, int64 (m, 2), and their similarity
    """

    survivor: np.ndarray
    exact: np.ndarray
    closest: np.ndarray
    similarity: np.ndarray
    pairs: np.ndarray
    alike: np.ndarray


@dataclass(frozen=True)
class Look:
    """One look for near pairs.

    alone  bool (n,): rows that are looked at, of equal texts the first
    same   bool (n,): those of them that are not held against one another
    level  of the rows that pairs may tie together, so that not all of them are compared; None: pairs with known rows, which tie nothing
    """

    alone: np.ndarray
    same: np.ndarray
    level: int | None


class Spread(Protocol):
    """How ranges of keys are looked at by others: `near_pairs` of each file, in their order. `room`: a folder for the files."""

    @property
    def room(self) -> Path: ...

    def __call__(self, files: Sequence[Path], rows: Rows, look: Look) -> Iterator[tuple[np.ndarray, np.ndarray]]: ...


def decide(
    rows: Rows,
    read: Callable[[], Iterable[Sets]],
    threshold: float,
    measure: Measure = "jaccard",
    exact_only: bool = False,
    agree: Callable[[np.ndarray], np.ndarray] | None = None,
    spread: Spread | None = None,
) -> Decided:
    """Which rows go, and for whom. `read` gives the sets of all rows, part by part in their order; it is called a few times.

    agree   function: pairs (m, 2) -> bool (m,), which near pairs may be joined
    spread  who looks for pairs where there are many rows; None: this process, and all is held in memory
    """
    n = len(rows)
    head = _exact(rows)
    alone = head == np.arange(n)
    pairs, alike = np.empty((0, 2), np.int64), np.empty(0)
    if not exact_only:
        pairs, alike = _near(rows, read, alone, threshold, measure, agree, spread)
    survivor, closest = _join(rows, pairs, alike)
    survivor = survivor[head]
    gone = survivor != np.arange(n)
    last = np.flatnonzero(gone & (survivor != head))  # fell to a row of another text
    to_survivor = np.where(gone, 1.0, np.nan)
    to_survivor[last] = _similarity(rows, read, np.stack([head[last], survivor[last]], axis=1), measure)
    exact = ~alone
    return Decided(survivor, exact & gone, np.where(exact & gone, 1.0, closest), to_survivor, pairs, alike)


def _exact(rows: Rows) -> np.ndarray:
    """Of each row the first, by rank, of the same text, int64 (n,); known rows first."""
    known = np.arange(len(rows)) < len(rows) - rows.known
    order = np.lexsort((rows.rank, known, rows.key[:, 1], rows.key[:, 0]))
    key = rows.key[order]
    first = np.ones(len(order), bool)
    first[1:] = (key[1:] != key[:-1]).any(axis=1) | (key[1:] == np.uint64(0xFFFFFFFFFFFFFFFF)).all(axis=1)
    head = np.empty(len(order), np.int64)
    head[order] = order[first][np.cumsum(first) - 1]
    return head


def _near(
    rows: Rows,
    read: Callable[[], Iterable[Sets]],
    alone: np.ndarray,
    threshold: float,
    measure: Measure,
    agree: Callable[[np.ndarray], np.ndarray] | None,
    spread: Spread | None,
) -> tuple[np.ndarray, np.ndarray]:
    """(pairs, similarity) of rows that may be joined. Of very many only as many as tie the same rows together."""
    n, own, levels = len(rows), len(rows) - rows.known, rows.levels()
    nobody = np.zeros(n, bool)
    found, similarities = [np.empty((0, 2), np.int64)], [np.empty(0)]

    def seek(look: Look) -> None:
        most = int(prefix_sizes(rows.sizes[look.alone], threshold, measure)[1].sum())
        with Buckets(most, spread.room if spread else None) as buckets:
            for some in _prefixes(rows, read, look.alone, threshold, measure):
                buckets.add(some)
            if spread and (files := buckets.files):
                several = spread(files, rows, look)
            else:
                several = (near_pairs(some, rows, read, threshold, measure, agree, look) for some in buckets)
            for pairs, alike in several:
                found.append(pairs)
                similarities.append(alike)

    if rows.known:
        # What known rows take is taken first: it must tie no others together.
        seek(Look(alone, np.arange(n) < own, None))
        alone = alone & (np.arange(n) < own)
        alone[np.concatenate(found)[:, 0]] = False
    new = nobody if levels is None else levels == 1
    seek(Look(alone, new, 0))
    if new.any():
        fallen = np.concatenate(found)
        liked = np.zeros(n, bool)  # rows that are like a survivor
        liked[fallen[new[fallen].any(axis=1) & ~new[fallen].all(axis=1) & (fallen < own).all(axis=1)].ravel()] = True
        if rows.fell is not None and rows.fell.any():  # duplicates of before, which may hang on one another
            seek(Look(alone & rows.fell, nobody, 1))
            top = _chained(rows, np.concatenate(found))
            hangs = np.zeros(n, bool)
            hangs[top[liked & rows.fell]] = True
            liked |= rows.fell & hangs[top]
        seek(Look(alone & new & ~liked, nobody, 1))  # those that are like none that was there, among themselves
    every, first = np.unique(np.concatenate(found), axis=0, return_index=True)
    return every, np.concatenate(similarities)[first]


def _chained(rows: Rows, pairs: np.ndarray) -> np.ndarray:
    """Of each row the one with the lowest rank that pairs of duplicates of before connect it with, int64 (n,)."""
    assert rows.fell is not None
    return connected(pairs[rows.fell[pairs].all(axis=1)], rows.rank)


def near_pairs(
    some: Prefixes,
    rows: Rows,
    read: Callable[[], Iterable[Sets]],
    threshold: float,
    measure: Measure,
    agree: Callable[[np.ndarray], np.ndarray] | None,
    look: Look,
) -> tuple[np.ndarray, np.ndarray]:
    """(pairs int64 (m, 2), their similarity float64) that share a key of this range and may be joined.

    What they tie together is compared once: many like rows are not looked at pair by pair.
    """
    n, own, levels = len(rows), len(rows) - rows.known, rows.levels()
    label = np.where(look.same, n, np.arange(n))
    found, similarities = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for pairs in candidate_blocks(some, threshold, measure, rows.rank, label):
        if look.level is None:
            pairs = pairs[pairs[:, 0] < own]  # first < second: two known rows are not compared
        pairs = pairs[~_barred(rows, pairs)]
        alike = _similarity(rows, read, pairs, measure)
        near = alike >= threshold - 1e-9
        pairs, alike = pairs[near], alike[near]
        if agree is not None and len(pairs):
            near = agree(pairs)
            pairs, alike = pairs[near], alike[near]
        found.append(pairs)
        similarities.append(alike)
        if look.level is None:
            continue
        ties = np.concatenate(found)
        ties = ties[ties[:, 1] < own]
        if levels is not None:  # a generated row ties no others together, nor does a new one those that were there
            ties = ties[(levels[ties] == look.level).all(axis=1)]
        label[~look.same] = connected(ties, rows.rank)[~look.same]
    return np.concatenate(found), np.concatenate(similarities)


def _prefixes(rows: Rows, read: Callable[[], Iterable[Sets]], alone: np.ndarray, least: float, measure: Measure) -> Iterator[Prefixes]:
    """What is looked up of the rows in `alone`, part by part."""

    def parts() -> Iterable[tuple[np.ndarray, Sets]]:
        """(rows, their sets) of those to compare: at a refresh later looks are at few of them."""
        start = 0
        for sets in read():
            here = np.flatnonzero(alone[start : start + len(sets)])
            if len(here):
                yield here + start, sets if len(here) == len(sets) else sets.take(here)
            start += len(sets)

    counts = counters(int(rows.sizes[alone].sum()))
    for _, sets in parts():
        count(counts, sets.values)
    for numbers, sets in parts():
        some = prefixes(sets, counts, least, measure)
        yield replace(some, row=numbers[some.row].astype(np.int32))


def _barred(rows: Rows, pairs: np.ndarray) -> np.ndarray:
    """Pairs that must not be joined: short ones that differ in a number or negation; a child and its parent, or siblings."""
    a, b = pairs[:, 0], pairs[:, 1]
    short = np.minimum(rows.words[a], rows.words[b]) < SHORT
    return (short & (rows.guard[a] != rows.guard[b])) | same_family(rows, pairs)


def same_family(rows: Rows, pairs: np.ndarray) -> np.ndarray:
    """Which pairs are a generated row and its source, or two rows made of one source, bool (len(pairs),)."""
    if rows.raw is None or rows.family is None:
        return np.zeros(len(pairs), bool)
    a, b = pairs.T
    return ~(rows.raw[a] & rows.raw[b]) & (rows.family[a] == rows.family[b])


def _similarity(rows: Rows, read: Callable[[], Iterable[Sets]], pairs: np.ndarray, measure: Measure) -> np.ndarray:
    """Exact, float64 (len(pairs),); only the sets that are asked for are held."""
    if not len(pairs):
        return np.empty(0)
    wanted = np.unique(pairs)
    start, parts = 0, []
    for sets in read():
        here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(sets))]
        if len(here):
            parts.append(sets.take(here - start))
        start += len(sets)
    shared = joined(parts).shared(np.searchsorted(wanted, pairs))
    return similarity(shared, rows.sizes[pairs[:, 0]], rows.sizes[pairs[:, 1]], measure)


def _join(rows: Rows, pairs: np.ndarray, alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(survivor of each row; similarity of the closest pair that joined it, NaN where it stays).

    Rows that are known take theirs first, each by itself. Then level by level: a row falls to its best twin of a lower level, duplicates of before by what they
    hang on, what is left of the level by sets. So a generated row never takes a raw one, nor does it tie two raw rows together; and a new row neither takes nor ties those that were there.
    """
    n = len(rows)
    survivor, closest = np.arange(n), np.full(n, np.nan)

    def by_best_twin(some: np.ndarray, child: np.ndarray, other: np.ndarray) -> None:
        """Each child falls to the survivor of the other row that is most like it."""
        order = np.lexsort((rows.rank[other], -alike[some], child))
        first = np.unique(child[order], return_index=True)[1]
        chosen = order[first]
        survivor[child[chosen]], closest[child[chosen]] = survivor[other[chosen]], alike[some][chosen]

    def by_sets(some: np.ndarray) -> None:
        local, at = np.unique(pairs[some], return_inverse=True)
        if not len(local):
            return
        top = local[connected(at.reshape(-1, 2), rows.rank[local])]
        best = np.zeros(n)
        np.maximum.at(best, pairs[some].ravel(), np.repeat(alike[some], 2))
        falls = top != local
        survivor[local[falls]], closest[local[falls]] = top[falls], best[local[falls]]

    def by_chain(some: np.ndarray, has_twin: np.ndarray) -> None:
        """Duplicates of before that are like no survivor, but like one that falls to a survivor, fall to that: of several to the first."""
        top = _chained(rows, pairs[some])
        best = np.full(n, -np.inf)
        np.maximum.at(best, pairs[some].ravel(), np.repeat(alike[some], 2))
        there = np.flatnonzero(has_twin & (best > -np.inf))
        first = np.full(n, n)  # of each chain the survivor with the lowest rank, as a place in `order`
        order = np.argsort(rows.rank, kind="stable")
        place = np.empty(n, np.int64)
        place[order] = np.arange(n)
        np.minimum.at(first, top[there], place[survivor[there]])
        hang = np.flatnonzero(~has_twin & (best > -np.inf) & (first[top] < n))
        survivor[hang], closest[hang] = order[first[top[hang]]], best[hang]
        has_twin[hang] = True

    if not len(pairs):
        return survivor, closest
    a, b = pairs.T
    known = b >= n - rows.known
    by_best_twin(np.flatnonzero(known), a[known], b[known])
    taken = survivor != np.arange(n)
    free = ~known & ~taken[a] & ~taken[b]
    levels = rows.levels()
    if levels is None:
        by_sets(np.flatnonzero(free))
        return survivor, closest
    has_twin = np.zeros(n, bool)
    upper = np.maximum(levels[a], levels[b])
    for level in (0, 1, 2):
        mixed = np.flatnonzero(free & (upper == level) & (levels[a] != levels[b]))
        child, other = np.where(levels[a] > levels[b], a, b)[mixed], np.where(levels[a] > levels[b], b, a)[mixed]
        by_best_twin(mixed, child, other)
        has_twin[child] = True
        if level == 1 and rows.fell is not None:
            by_chain(np.flatnonzero(free & (levels[a] == 1) & (levels[b] == 1) & rows.fell[a] & rows.fell[b]), has_twin)
        by_sets(np.flatnonzero(free & (upper == level) & (levels[a] == levels[b]) & ~has_twin[a] & ~has_twin[b]))
    return survivor, closest
