"""Edits that change how a text looks, or whom it is about, and not how good it is: a filter's score should hardly move.

`again` is the mark to hold them against: the text is the same but for a space at its end, which no member of a filter reads, and
another of the cross-fitted models scores it. What it moves is the filter's own noise. All others are scored by the original's model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from curate.generate.exchange import attribute_of, swap
from curate.generate.lexicon import Lexicon

_STRAIGHT = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "…": "..."})
_SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])")


def _curly(text: str) -> str:
    """Quotation marks as a typesetter would set them: curly, by what stands before them."""
    text = re.sub(r'(^|[\s(\[])"', r"\1“", text).replace('"', "”")
    return re.sub(r"(^|[\s(\[])'", r"\1‘", text).replace("'", "’")


def _joined(text: str) -> str:
    """Hard-wrapped paragraphs as one line each."""
    return "\n\n".join(re.sub(r"\s*\n\s*", " ", part) for part in re.split(r"\n\s*\n", text))


def _sentences(text: str) -> str:
    """A line break after each sentence."""
    return _SENTENCE.sub("\n", text)


def _no_blank_lines(text: str) -> str:
    return re.sub(r"\n\s*\n+", "\n", text)


def _no_final_stops(text: str) -> str:
    """The full stop at the end of each line left out."""
    return re.sub(r"\.[ \t]*$", "", text, flags=re.MULTILINE)


STYLE: dict[str, Callable[[str], str]] = {
    "again": lambda text: text + " ",
    "curly quotes": _curly,
    "straight quotes": lambda text: text.translate(_STRAIGHT),
    "lower case": str.lower,
    "paragraphs joined": _joined,
    "a line a sentence": _sentences,
    "no blank lines": _no_blank_lines,
    "no stop at the end of lines": _no_final_stops,
}


def styled(texts: Sequence[str]) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """(name of an edit, [(number of a text, the text after it)]) with the texts that it changes."""
    for name, edit in STYLE.items():
        changed = ((i, edit(text)) for i, text in enumerate(texts))
        yield name, [(i, text) for i, text in changed if text != texts[i]]


def exchanged(texts: Sequence[str], lexicons: Sequence[Lexicon]) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """(attribute: value > other value, [(number of a text, the text with the people of another group)]), as antidotes are made."""
    for lexicon in lexicons:
        found: dict[str, list[tuple[int, str]]] = {}
        for i, text in enumerate(texts):
            value, _ = attribute_of(None, None, text, lexicon)
            if value is None:
                continue
            for other in lexicon.values:
                if other != value:
                    found.setdefault(f"{lexicon.attribute}: {value} > {other}", []).append((i, swap(text, lexicon, value, other)))
        yield from sorted(found.items())
