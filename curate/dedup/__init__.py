"""Duplicates: exact, near, and by meaning. Stages of a run, and two functions that need none:

    found = curate.dedup.near(texts)            exact and near copies by their words
    found = curate.dedup.semantic(vectors)      rows that say the same, by their embeddings

Both name of every row that goes the one that stays for it, and how alike they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from curate.algorithms.set_join import Measure


class Dropped(NamedTuple):
    """A row that goes: its place, the row that stays for it, how alike the two are, and the rule."""

    row: int
    twin: int
    similarity: float
    rule: str


class Pair(NamedTuple):
    left: int
    right: int
    similarity: float


@dataclass(frozen=True)
class Found:
    """kept: places of the rows that stay, ascending; dropped: the others; least_alike: of the pairs that were called duplicates the least similar, None if there are none."""

    kept: list[int]
    dropped: list[Dropped]
    least_alike: Pair | None


def near(texts: Sequence[str], threshold: float = 0.8, *, of: str = "words", shingle: int = 5, measure: Measure = "jaccard") -> Found:
    """Exact and near copies among texts: every pair whose sets of shingles have a similarity of `threshold` or more, and no other.

    of, shingle   what a shingle is made of (words, tokens, which are words and symbols, characters: so many in a row; lines, paragraphs: one at a time)
    measure       jaccard, or containment: the share of the smaller set that is in the other

    Of a set of copies the longest stays, of equally long ones the first. A pair under 50 words that differs in a number or a negation is never one.
    """
    import numpy as np

    from curate.dedup.copies import Rows, decide, marks

    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}: give a similarity in (0, 1]")
    if of not in ("words", "tokens", "characters", "lines", "paragraphs") or shingle < 1:
        raise ValueError(f"of is {of!r} and shingle {shingle}: give words, tokens, characters, lines or paragraphs, and 1 or more")
    texts = [_encodable(text) for text in texts]
    parts = [marks(texts[start : start + 1000], of, shingle) for start in range(0, len(texts), 1000)] or [marks([], of, shingle)]
    key, words, guard, length = (np.concatenate([getattr(part, name) for part in parts]) for name in ("key", "words", "guard", "length"))
    sizes = np.concatenate([part.sets.sizes for part in parts])
    rank = np.empty(len(texts), np.int64)
    rank[np.argsort(-length.astype(np.int64), kind="stable")] = np.arange(len(texts))
    decided = decide(Rows(key, words, guard, sizes, rank), lambda: [part.sets for part in parts], threshold, measure)
    return _found(decided, ["exact_duplicate" if exact else "near_duplicate" for exact in decided.exact])


def _encodable(text: str) -> str:
    """A lone surrogate, which is half a character, as a question mark: such a text cannot be written as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def semantic(vectors: Any, texts: Sequence[str] | None = None, threshold: float = 0.9, *, agreement: float = 0.4) -> Found:
    """Rows that say the same, by their embeddings (n, d), of any length but 0.

    texts      a second opinion by letters, and no pair that differs in a number, a negation or an operator; without them the embeddings decide alone
    threshold  similarity from which two rows say the same: .65 cosine of the embeddings + .35 of the letters' (without texts: the cosine)
    agreement  least cosine of the letters

    The first of two rows stays. A row without a direction (zero, NaN) stays. 32 nearest others of a row are looked at.
    """
    import numpy as np

    from curate.algorithms.knn import unit_rows
    from curate.dedup.copies import Rows, marks
    from curate.dedup.meaning import same_meaning

    given = np.asarray(vectors, np.float32)
    if given.ndim != 2:
        if given.size:
            raise ValueError(f"vectors have the shape {given.shape}: give one row a vector, (n, d)")
        given = given.reshape(0, 1)
    unit, nowhere = unit_rows(given)
    if texts is not None and len(texts) != len(unit):
        raise ValueError(f"there are {len(unit)} vectors and {len(texts)} texts: give one text for each vector")
    texts = None if texts is None else [_encodable(text) for text in texts]
    found = marks(texts if texts is not None else [""] * len(unit), "words", 5)
    rows = Rows(found.key, found.words, found.guard, found.sets.sizes, np.arange(len(unit)))
    said = None if texts is None else lambda wanted: [texts[row] for row in wanted.tolist()]
    decided = same_meaning(rows, unit, nowhere, said, threshold, agreement)
    return _found(decided, ["semantic_duplicate"] * len(unit))


def _found(decided: Any, rules: Sequence[str]) -> Found:
    import numpy as np

    gone = decided.survivor != np.arange(len(decided.survivor))
    dropped = [
        Dropped(row, int(decided.survivor[row]), float(decided.similarity[row]), rules[row]) for row in np.flatnonzero(gone).tolist()
    ]
    least = int(np.argmin(decided.alike)) if len(decided.alike) else None
    pair = None if least is None else Pair(int(decided.pairs[least, 0]), int(decided.pairs[least, 1]), float(decided.alike[least]))
    return Found(np.flatnonzero(~gone).tolist(), dropped, pair)
