"""The last dedup, over documents and the rows generated from them."""

from __future__ import annotations

from curate.dedup.lexical import Lexical


class Union(Lexical):
    """Drops generated rows that repeat a raw row or one another; only rows still in the running take part.

    A generated row never evicts a raw row, nor is it held against its own source or its siblings
    (an antidote differs from its source in a word, by design).
    """
