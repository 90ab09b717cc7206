"""The last dedup, over documents and the rows generated from them."""

from __future__ import annotations

from curate.dedup.lexical import Lexical


class Union(Lexical):
    """Drops rows that repeat others that are still in the running: generated ones above all, and raw ones where its threshold is lower than that of the first pass.

    A generated row never evicts a raw row, nor is it held against its own source or its siblings
    (an antidote differs from its source in a word, by design).
    """
