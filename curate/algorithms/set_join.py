"""All pairs of sets that are alike, and no others: exact Jaccard (or containment) at or above a bound, without comparing all with all.

Prefix filtering (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search"), with the size filter
and the positional filter of PPJoin (Xiao et al. 2008). Put the elements of every set into one order, the same for all sets. Two sets that share `a` of
their elements share one of the first |x| - a + 1 of x and one of the first |y| - a + 1 of y. So only these prefixes are looked up: about
1 - t of each set for a Jaccard of t. Rare elements come first in the order, which keeps the look-ups short; whatever the order, no pair is missed.

MinHash with bands finds a pair with some probability, here it is certain: recall 1 at the bound, and a result that depends on no seed,
no number of bands, and no cut into shards.

    sets = Sets(values, begins)             distinct uint64, ascending within each set
    pairs, alike = similar_pairs(sets, 0.8)

or, where the sets lie in shards: `count` over all of them, `prefixes` of each, `candidate_pairs` of a part of the keys at a time, and `Sets.shared` of the candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

Measure = Literal["jaccard", "containment"]

_EPSILON = 1e-9  # of rounding in t * size
_COUNT_BITS = 7  # of a key: how often its element occurs, as a power of two; the rest is its hash
_MOST_PAIRS = 1 << 21  # candidates of a block, repeated ones counted


@dataclass(frozen=True)
class Sets:
    """Some sets of 64-bit hashes.

    values  (m,) uint64, one set after the other, distinct and ascending within each
    begins  (n + 1,) int64, where each begins, and the last ends
    """

    values: np.ndarray
    begins: np.ndarray

    def __len__(self) -> int:
        return len(self.begins) - 1

    @property
    def sizes(self) -> np.ndarray:
        return np.diff(self.begins)

    def take(self, rows: np.ndarray) -> Sets:
        """The sets of these rows, in their order."""
        sizes = self.sizes[rows]
        begins = np.concatenate([[0], np.cumsum(sizes)])
        places = np.arange(begins[-1]) + np.repeat(self.begins[rows] - begins[:-1], sizes)
        return Sets(self.values[places], begins)

    def shared(self, pairs: np.ndarray, most: int = 1 << 22) -> np.ndarray:
        """How many elements each pair of rows shares, int64 (len(pairs),). About `most` elements are compared at a time."""
        from scipy.sparse import csr_array

        found = np.zeros(len(pairs), np.int64)
        block = np.cumsum(self.sizes[pairs].sum(axis=1)) // most
        edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(pairs)]
        for start, end in pairwise(edges):
            rows, at = np.unique(pairs[start:end], return_inverse=True)
            left, right = at.reshape(-1, 2).T
            some = self.take(rows)
            names, columns = np.unique(some.values, return_inverse=True)
            matrix: Any = csr_array((np.ones(len(columns), np.int32), columns, some.begins), shape=(len(rows), max(len(names), 1)))
            found[start:end] = (matrix[left] * matrix[right]).sum(axis=1)
        return found


def of_hashes(hashes: np.ndarray, begins: np.ndarray) -> Sets:
    """Sets of hashes that may repeat and come in any order; `hashes` is sorted in place."""
    edges = begins.tolist()
    for begin, end in pairwise(edges):
        hashes[begin:end].sort()
    first = np.ones(len(hashes), bool)
    np.not_equal(hashes[1:], hashes[:-1], out=first[1:])
    first[begins[:-1][begins[:-1] < len(hashes)]] = True
    return Sets(hashes[first], np.concatenate([[0], np.cumsum(first)])[begins])


def joined(parts: Sequence[Sets]) -> Sets:
    """The sets of all parts, one after the other."""
    sizes = [part.sizes for part in parts]
    values = [part.values for part in parts]
    return Sets(
        np.concatenate([np.empty(0, np.uint64), *values]), np.concatenate([[0], np.cumsum(np.concatenate([np.empty(0, np.int64), *sizes]))])
    )


def similarity(shared: np.ndarray, left: np.ndarray, right: np.ndarray, measure: Measure = "jaccard") -> np.ndarray:
    """Jaccard of sets from their sizes and what they share, float64; containment: the share of the smaller set that is in the other."""
    whole = left + right - shared if measure == "jaccard" else np.minimum(left, right)
    return np.where(whole > 0, shared / np.maximum(whole, 1), 0.0)


def count(counts: np.ndarray, values: np.ndarray) -> None:
    """Add to `counts`, uint32 (a power of two,), how often elements occur, by their top bits."""
    # An index and a number of the array's own kind: several times as fast as any other.
    np.add.at(counts, (values >> np.uint64(64 - _bits(counts))).astype(np.intp), np.uint32(1))


def counters(elements: int) -> np.ndarray:
    """Empty `counts` for so many elements. How large they are changes how long the join takes, never what it finds."""
    return np.zeros(1 << min(max(elements.bit_length(), 12), 24), np.uint32)


def _bits(counts: np.ndarray) -> int:
    return len(counts).bit_length() - 1


def prefix_sizes(sizes: np.ndarray, least: float, measure: Measure = "jaccard") -> tuple[np.ndarray, np.ndarray]:
    """(as the smaller set of a pair, as the larger one): how many of a set's first elements are looked up, int64 both; the second is never less."""
    whole = np.asarray(sizes, np.int64)
    must = np.ceil(least * whole - _EPSILON)
    if measure == "containment":
        return np.where(whole > 0, whole - must + 1, 0).astype(np.int64), whole
    # With a partner no smaller, a Jaccard of t needs 2t / (1 + t) of the smaller set.
    of_smaller = np.ceil(2 * least / (1 + least) * whole - _EPSILON)
    return tuple(np.where(whole > 0, whole - shared + 1, 0).astype(np.int64) for shared in (of_smaller, must))  # type: ignore[return-value]


@dataclass(frozen=True)
class Prefixes:
    """Elements to look up: parallel arrays.

    key    uint64: how rare the element is, then its hash
    row    int32: which set
    size   int32: of the set
    place  int32: of the element in the set's order
    short  bool: whether it is in the prefix that the set has as the smaller one of a pair
    """

    key: np.ndarray
    row: np.ndarray
    size: np.ndarray
    place: np.ndarray
    short: np.ndarray

    def where(self, chosen: np.ndarray) -> Prefixes:
        return Prefixes(*(column[chosen] for column in (self.key, self.row, self.size, self.place, self.short)))


def together(parts: Sequence[Prefixes]) -> Prefixes:
    names = ("key", "row", "size", "place", "short")
    return Prefixes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def prefixes(sets: Sets, counts: np.ndarray, least: float, measure: Measure = "jaccard", first_row: int = 0) -> Prefixes:
    """What is looked up of these sets, whose rows are numbered from `first_row` on. What occurs once has no partner and is left out."""
    often = counts[sets.values >> np.uint64(64 - _bits(counts))]
    # Powers of two, in steps of a half: a finer order costs bits of the hash and saves nothing.
    rarity = np.round(2 * np.log2(np.maximum(often, 1))).astype(np.uint64)
    keys = (rarity << np.uint64(64 - _COUNT_BITS)) | (sets.values >> np.uint64(_COUNT_BITS))
    edges = sets.begins.tolist()
    for begin, end in pairwise(edges):
        keys[begin:end].sort()
    sizes = sets.sizes
    short, long = prefix_sizes(sizes, least, measure)
    begins = np.concatenate([[0], np.cumsum(long)])
    place = np.arange(begins[-1]) - np.repeat(begins[:-1], long)
    row = np.repeat(np.arange(len(sizes)), long)
    keys = keys[sets.begins[row] + place]
    some = np.flatnonzero(keys >> np.uint64(64 - _COUNT_BITS))
    row, place = row[some], place[some]
    return Prefixes(keys[some], (row + first_row).astype(np.int32), sizes[row].astype(np.int32), place.astype(np.int32), place < short[row])


def candidate_pairs(found: Prefixes, least: float, measure: Measure = "jaccard") -> np.ndarray:
    """Pairs of rows that may be alike, int64 (m, 2), first < second, ascending, each once.

    Of some keys all entries must be given; which keys, and so how many at a time, is the caller's choice.
    """
    blocks = list(candidate_blocks(found, least, measure))
    return blocks[0] if len(blocks) == 1 else np.unique(np.concatenate([np.empty((0, 2), np.int64), *blocks]), axis=0)


def candidate_blocks(
    found: Prefixes, least: float, measure: Measure = "jaccard", rank: np.ndarray | None = None, label: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """`candidate_pairs` in blocks of two million and less; a pair may be in several.

    rank   int64 (rows,): the order in which rows of one size are looked at, so that blocks do not depend on their numbers
    label  int64 (rows,), changed by the caller between blocks: pairs of one label are left out from then on. Of 50,000 rows that are all
           alike there are a billion pairs; once the first ones have tied them together the others say nothing new
    """
    order = np.argsort(found.key, kind="stable")
    key = found.key[order]
    again = np.zeros(len(key), bool)
    np.equal(key[1:], key[:-1], out=again[1:])
    again[:-1] |= again[1:]  # most elements are in one prefix only
    some = found.where(order[again])
    some = some.where(np.lexsort((some.row if rank is None else rank[some.row], some.size, some.key)))
    parts: list[np.ndarray] = []
    waiting = 0
    at = np.arange(1, len(some.key))
    for distance in range(1, len(some.key)):
        at = at[at >= distance]
        other = at - distance
        # Sizes ascend within a key: where this neighbour is too small, the ones before it are as well.
        near = some.key[at] == some.key[other]
        if measure == "jaccard":
            near &= some.size[other] >= least * some.size[at] - _EPSILON
        at, other = at[near], other[near]
        if not len(at):
            break
        if label is None:
            pairs = _promising(some, at, other, least, measure)
        else:
            apart = label[some.row[at]] != label[some.row[other]]
            pairs = _promising(some, at[apart], other[apart], least, measure)
        parts.append(pairs)
        waiting += len(pairs)
        if waiting > _MOST_PAIRS:
            yield _pairs(parts)
            parts, waiting = [], 0
            if label is not None:
                at = at[_mixed(some.key, label[some.row])[at]]
    yield _pairs(parts)


def _pairs(parts: Sequence[np.ndarray]) -> np.ndarray:
    packed = np.concatenate([np.empty(0, np.uint64), *parts])
    packed.sort()  # np.unique hashes integers, which takes ten times as long for millions
    first = np.ones(len(packed), bool)
    np.not_equal(packed[1:], packed[:-1], out=first[1:])
    packed = packed[first]
    return np.stack([packed >> np.uint64(32), packed & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)


def _mixed(key: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Which entries are of a key whose rows do not all have one label, bool (n,); `key` ascends."""
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    mixed = np.minimum.reduceat(label, first) != np.maximum.reduceat(label, first)
    return np.repeat(mixed, np.diff(first, append=len(key)))


def _promising(some: Prefixes, larger: np.ndarray, smaller: np.ndarray, least: float, measure: Measure) -> np.ndarray:
    """Pairs of entries whose sets may share enough if this is the first element they share; packed into uint64."""
    sizes = some.size[larger], some.size[smaller]
    if measure == "jaccard":
        needed = np.ceil(least / (1 + least) * (sizes[0] + sizes[1]) - _EPSILON)
    else:
        needed = np.ceil(least * sizes[1] - _EPSILON)
    left = np.minimum(sizes[0] - some.place[larger], sizes[1] - some.place[smaller])
    good = some.short[smaller] & (left >= needed) & (some.row[larger] != some.row[smaller])
    a, b = some.row[larger[good]], some.row[smaller[good]]
    return (np.minimum(a, b).astype(np.uint64) << np.uint64(32)) | np.maximum(a, b).astype(np.uint64)


def similar_pairs(sets: Sets, least: float, measure: Measure = "jaccard") -> tuple[np.ndarray, np.ndarray]:
    """(pairs int64 (m, 2), first < second, ascending; their similarity float64 (m,)): all at or above `least`, which is in (0, 1]."""
    counts = counters(len(sets.values))
    count(counts, sets.values)
    pairs = candidate_pairs(prefixes(sets, counts, least, measure), least, measure)
    sizes = sets.sizes
    alike = similarity(sets.shared(pairs), sizes[pairs[:, 0]], sizes[pairs[:, 1]], measure)
    near = alike >= least - _EPSILON
    return pairs[near], alike[near]


def connected(pairs: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Of each of len(rank) rows the one with the lowest rank that pairs connect it with (itself, where none does), int64."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    n = len(rank)
    graph: Any = csr_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    by_rank = np.argsort(rank, kind="stable")
    _, first = np.unique(component[by_rank], return_index=True)
    return by_rank[first][component]
