"""Words that mark a cluster, and the rows that stand in its middle.

Class-based TF-IDF (as in BERTopic, Grootendorst 2203.05794), a word counted once a row: how often it occurs in the cluster's rows, times
the log of how much rarer it is in a row of another cluster.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

WORDS = 4
MOST_ROWS = 400  # of a cluster, read for its words
LONGEST = 400  # characters of a row that are read
_SHARED = 0.5  # two middle rows that share more of their words than this are one template: the first is shown
_TEMPLATE = 80  # characters in which two rows begin alike, from which on they are one template
_DECAY = 0.6  # what a row still counts for the next word, once a word has named it: else all words come from one kind of row
_STEM = 5  # words equal in so many first letters are forms of one word
_WORD = re.compile(r"[^\W\d_]{3,}")
# Function words of English, and the names of brackets in parsed text. Question words of amount stay: "many, total, each" is how one knows a word problem.
_STOP = frozenset(
    """
    lrb rrb a about above after again all also although always among and another any are around because been before being below
    between both but can cannot could did does doing done down during either else etc ever every few for from further get gets give
    given gives going had has have having her here hers herself him himself his how however its itself just let like make makes may
    might more most must myself neither nor not now off often once one only onto other others our ours out over own per please put
    rather same shall she should since some something such take than that the their theirs them themselves then there therefore
    these they this those though through thus too toward towards two under until upon use used uses using very was way well went
    were what whatever when where whether which while who whole whom whose why will with within without would yet you your yours
    yourself
    """.split()  # noqa: SIM905
)


def words_of(text: str) -> frozenset[str]:
    """The words of the text's beginning, lower case, of three letters and more."""
    return frozenset(_WORD.findall(text[:LONGEST].lower()))


def names(rows: Mapping[int, Sequence[frozenset[str]]]) -> dict[int, tuple[str, ...]]:
    """At most four words for each cluster, the most telling first, from the words of some of its rows."""
    found = {cluster: Counter(word for words in some for word in words) for cluster, some in rows.items()}
    # Of another cluster taken at random, the chance that a row of it holds the word; half a row where none does.
    chance = {cluster: {word: number / (len(rows[cluster]) + 1) for word, number in counts.items()} for cluster, counts in found.items()}
    everywhere: Counter[str] = Counter()
    for shares in chance.values():
        everywhere.update(shares)
    others = max(1, len(rows) - 1)
    return {cluster: _name(some, found[cluster], chance[cluster], everywhere, others) for cluster, some in rows.items()}


def _name(
    rows: Sequence[frozenset[str]], counts: Counter[str], mine: Mapping[str, float], everywhere: Mapping[str, float], others: int
) -> tuple[str, ...]:
    least = 1 if len(rows) < 10 else 3
    rare = 0.5 / (len(rows) + 1)
    weights = {
        word: math.log(mine[word] / ((everywhere[word] - mine[word]) / others + rare))
        for word, number in counts.items()
        if number >= least and word not in _STOP
    }
    candidates = sorted(weights, key=lambda word: (-counts[word] * weights[word], word))[:60]
    left = [1.0] * len(rows)
    chosen: list[str] = []
    while len(chosen) < WORDS:
        scores = {word: weights[word] * sum(rest for rest, words in zip(left, rows, strict=True) if word in words) for word in candidates}
        best = max(candidates, key=lambda word: scores[word], default=None)
        if best is None or scores[best] <= 0:
            break
        chosen.append(best)
        candidates = [word for word in candidates if word[:_STEM] != best[:_STEM]]
        left = [rest * (_DECAY if best in words else 1.0) for rest, words in zip(left, rows, strict=True)]
    return tuple(chosen)


def middle_rows(rows: Sequence[tuple[float, str, str]], most: int = 3) -> list[tuple[str, str]]:
    """(row_id, text) of the rows (similarity, row_id, text) nearest to the cluster's mean, none of them like one before it.

    Rows that begin alike are a template: from the second on, only what differs is compared and given.
    """
    chosen: list[tuple[str, str]] = []
    seen: list[tuple[str, frozenset[str]]] = []  # whole text, words of its own part
    for _, row_id, text in sorted(rows, key=lambda row: (-row[0], row[1])):
        own = text[max((_shared(text, other) for other, _ in seen), default=0) :]
        words = words_of(own)
        if all(text != other and len(words & others) <= _SHARED * len(words | others) for other, others in seen):
            seen.append((text, words))
            chosen.append((row_id, own if own == text else f"… {own}"))
        if len(chosen) == most:
            break
    return chosen


def _shared(text: str, other: str) -> int:
    """Length of the template in which two texts begin, back to the beginning of the word in which they part; 0 for a short one."""
    same = next((place for place, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
    return max(text.rfind(" ", 0, same), text.rfind("\n", 0, same)) + 1 if same >= _TEMPLATE else 0
