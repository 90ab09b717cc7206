"""Same question, other answer: which questions are the same, which answers exclude each other, and which of them goes.

The concept graph of PASER never compares answers; this does. Rules were set on 54,839 real instruction rows, where most
pairs of prompts with a Jaccard similarity of 0.8 and more are *different* questions about one long passage, and where equal
prompts with different answers mostly leave room for several ("write a review", "ask a question about this text").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from curate.algorithms.normal_form import NEGATIONS, TOKEN, normalise

SHORT = 5  # words; an answer of no more states one thing, which another can contradict by itself
FAR = 0.25  # overlap of content words below which long answers have nothing in common
# What a question can gain or lose and stay the same one. Not the stop words of a search engine: they hold who and when, before and after.
_EMPTY = frozenset(
    ["a", "an", "the", "please", "kindly", "can", "could", "would", "will", "you", "me", "us", "tell", "give", "just", "following"]
)
_MARKS = frozenset(".,!?;:\"'`´‘’“”…()")
_OPPOSITES = frozenset(["false", "incorrect", "wrong", "untrue"])


def question(text: str) -> list[str]:
    """What a prompt asks, as words: normal form, without sentence marks, articles and politeness."""
    return [token for token in TOKEN.findall(normalise(text)) if token not in _MARKS and token not in _EMPTY]


def same_question(one: Sequence[str], other: Sequence[str], most: int = 3) -> bool:
    """True if two questions differ in nothing but the spelling of at most `most` words.

    Words of five letters and more, without digits; one letter more or two neighbours swapped: "live" and "love" are two words.
    """
    if len(one) != len(other) or len(set(one) ^ set(other)) > 2 * most:
        return False
    different = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    return len(different) <= most and all(_spelling(a, b) for a, b in different)


def _spelling(a: str, b: str) -> bool:
    """One letter more, not the first and not a plural's s, or two neighbours swapped."""
    if min(len(a), len(b)) < 5 or a[0] != b[0] or not (a + b).isalpha() or {a, b} & NEGATIONS:
        return False
    short, long = sorted((a, b), key=len)
    if len(short) == len(long):
        at = next(place for place in range(len(a)) if a[place] != b[place])
        return a[:at] + a[at : at + 2][::-1] + a[at + 2 :] == b
    return long != short + "s" and any(long[:place] + long[place + 1 :] == short for place in range(len(long)))


class Answer(NamedTuple):
    normal: str  # normal form without the final full stop
    words: frozenset[str]  # content words; all words where there are no others
    numbers: frozenset[str]
    negated: bool
    length: int  # words
    asks: bool  # is a question itself


def answer(text: str) -> Answer:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    normal = normalise(text).rstrip(" .")
    words = [token for token in TOKEN.findall(normal) if token[0].isalnum()]
    content = frozenset(words) - ENGLISH_STOP_WORDS | (NEGATIONS & frozenset(words))
    numbers = frozenset(word for word in words if word[0].isdigit())
    return Answer(
        normal,
        content or frozenset(words) or frozenset(normal),
        numbers,
        bool((NEGATIONS | _OPPOSITES) & content),
        len(words),
        normal.endswith("?"),
    )


def overlap(one: Answer, other: Answer) -> float:
    """Share of the content words of the shorter answer that the other holds too, in [0, 1]."""
    least = min(len(one.words), len(other.words))
    return len(one.words & other.words) / least if least else float(one.normal == other.normal)


def agree(one: Answer, other: Answer, threshold: float = 0.5) -> bool:
    """Equal, or, without contradiction, they share at least `threshold` of the shorter one's content words."""
    return one.normal == other.normal or (overlap(one, other) >= threshold and not contradict(one, other, threshold))


def contradict(one: Answer, other: Answer, threshold: float = 0.5) -> bool:
    """Two answers to one question that cannot both stand.

    Short ones: they share less than `threshold` of the shorter one's content words, or one holds numbers that the other
    does not and the reverse, or one alone is a negation. Where one is longer than SHORT words: they share less than FAR.
    Two questions never do: whoever is asked for a question may ask any.
    """
    if one.normal == other.normal or (one.asks and other.asks):
        return False
    if max(one.length, other.length) > SHORT:
        return overlap(one, other) < FAR
    numbers = bool(one.numbers - other.numbers) and bool(other.numbers - one.numbers)
    return numbers or one.negated != other.negated or overlap(one, other) < threshold


class Fault(NamedTuple):
    row: int  # that goes
    against: int  # the row it contradicts
    tied: bool  # neither side had more rows


def faults(answers: Sequence[Answer], losses: Sequence[float | None], threshold: float = 0.5) -> list[Fault]:
    """Which answers to one question go, in the order given. `losses`: of the original model on each answer, None: unknown.

    Of two answers that contradict each other the one that fewer others agree with goes. Equally many: the side that the original model finds less likely (mean of the known losses); where
    that is unknown, both, each naming the other. No fault where the question is open: three or more answers of which no two
    agree, or a tie that takes a long answer (a story against another story).
    """
    n = len(answers)
    against = [[contradict(one, other, threshold) for other in answers] for one in answers]
    camps = [[other for other in range(n) if agree(answers[row], answers[other], threshold)] for row in range(n)]
    support = [len(camp) for camp in camps]
    if max(support, default=0) == 1 and n > 2:
        return []

    def loss(row: int) -> float | None:
        known = [value for other in camps[row] if (value := losses[other]) is not None and value == value]
        return sum(known) / len(known) if known else None

    found = []
    for row in range(n):
        rivals = sorted((other for other in range(n) if against[row][other]), key=lambda other: (-support[other], other))
        if not rivals or support[rivals[0]] < support[row]:
            continue
        rival = rivals[0]
        tied = support[rival] == support[row]
        if not tied and 2 * support[rival] <= n:
            continue
        if tied:
            if max(answers[row].length, answers[rival].length) > SHORT:
                continue
            mine, theirs = loss(row), loss(rival)
            if mine is not None and theirs is not None and mine < theirs:
                continue
            tied = mine is None or theirs is None or mine == theirs
        found.append(Fault(row, rival, tied))
    return found
