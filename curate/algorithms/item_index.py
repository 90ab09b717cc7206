"""Which of some short texts (items of a benchmark) a longer text holds: the share of an item's n-grams that occur in it.

n-gram overlap as in Brown et al. 2020 (GPT-3, appendix C: 13 words) and Touvron et al. 2023 (Llama 2, section A.6: a share of tokens), held against
the item and not the text: an item inside a long document is found, and a long document that shares a phrase with an item is not.
n-grams that several items have are the wording of their template and count for none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.algorithms.set_join import Sets
from curate.algorithms.shingles import shingled
from curate.algorithms.word_hashes import mix

_LEAST_SHARED = 4  # n-grams that a text and an item have in common, or all the item has


@dataclass(frozen=True)
class ItemIndex:
    """grams   uint64 (m,) ascending; item  int32 (m,): whose;  order  int32 (m,): words of the gram
    sizes      int32 (items,): grams of each that are its own; 0 where an item has too few words, or none but a template's
    """

    grams: np.ndarray
    item: np.ndarray
    order: np.ndarray
    sizes: np.ndarray

    def held(self, raw: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(share float64 (n,), item int64 (n,)): of each text the item it holds the most of, -1 and 0 where it holds nothing of any."""
        texts = len(ends) - 1
        share, best = np.zeros(texts), np.full(texts, -1, np.int64)
        rows, items = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for order in np.unique(self.order).tolist():
            mine = np.flatnonzero(self.order == order)
            grams = self.grams[mine]
            found = shingled(raw, ends, "words", order).sets
            row = np.repeat(np.arange(texts), found.sizes)
            first, last = (np.searchsorted(grams, found.values, side) for side in ("left", "right"))
            hits = np.flatnonzero(last > first)
            count = (last - first)[hits]
            at = np.repeat(first[hits] - np.concatenate([[0], np.cumsum(count)[:-1]]), count) + np.arange(count.sum())
            rows.append(np.repeat(row[hits], count))
            items.append(self.item[mine][at].astype(np.int64))
        pair, count = np.unique(np.concatenate(rows) * len(self.sizes) + np.concatenate(items), return_counts=True)
        row, item = np.divmod(pair, max(len(self.sizes), 1))
        # Where a template has left an item two or three n-grams of its own, one of them is no half of it.
        enough = count >= np.minimum(_LEAST_SHARED, self.sizes[item])
        row, item, count = row[enough], item[enough], count[enough]
        shares = count / self.sizes[item]
        # Of equal shares the longer item, then the first one.
        for place in np.lexsort((-item, self.sizes[item], shares)).tolist():
            share[row[place]], best[row[place]] = shares[place], item[place]
        return share, best


def index_of(raw: np.ndarray, ends: np.ndarray, order: int = 6, least: int = 5, common: int = 4) -> ItemIndex:
    """The index of some items, given by their texts in normal form.

    order   words of an n-gram; an item of fewer is one n-gram of all its words
    least   an item of fewer words is not looked for: "yes" is in every text
    common  an n-gram that so many different items have belongs to none of them
    """
    words = shingled(raw, ends, "words", 1).words
    items = len(ends) - 1
    parts: list[tuple[np.ndarray, np.ndarray, int]] = []
    for size in np.unique(np.minimum(words[words >= least], order)).tolist():
        found: Sets = shingled(raw, ends, "words", size).sets
        mine = np.repeat(np.minimum(words, order) == size, found.sizes)
        parts.append((found.values[mine], np.repeat(np.arange(items), found.sizes)[mine], size))
    grams = np.concatenate([np.empty(0, np.uint64), *(part[0] for part in parts)])
    item = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    orders = np.concatenate([np.empty(0, np.int32), *(np.full(len(part[0]), part[2], np.int32) for part in parts)])
    order_of = np.lexsort((item, grams))
    grams, item, orders = grams[order_of], item[order_of], orders[order_of]
    # An item that is listed twice is one item: what counts is how many different ones have the n-gram.
    whole = np.zeros(items, np.uint64)
    np.add.at(whole, item, mix(grams))
    _, which = np.unique(grams, return_inverse=True)
    different = np.unique(np.stack([which.astype(np.uint64), whole[item]], axis=1), axis=0)[:, 0].astype(np.int64)
    own = np.bincount(different, minlength=int(which.max(initial=-1)) + 1)[which] < common
    grams, item, orders = grams[own], item[own], orders[own]
    return ItemIndex(grams, item.astype(np.int32), orders, np.bincount(item, minlength=items).astype(np.int32))
