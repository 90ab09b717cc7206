"""Cut a long text where a reader would pause, so that the pieces, put together, are the text."""

from __future__ import annotations

import re
from collections.abc import Callable

# From the strongest pause to the weakest: blank line, line, sentence, word.
_PAUSES = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+"), re.compile(r"\s+"))


def segments(text: str, size: Callable[[str], int], limit: int) -> list[tuple[str, str]]:
    """(segment, what parts it from the next one) in order; "".join of both is the text.

    A segment has a size of at most `limit`, but for a single word that is longer. Short neighbours stay together.
    """
    return _cut(text, size, limit, 0)


def _cut(text: str, size: Callable[[str], int], limit: int, strength: int) -> list[tuple[str, str]]:
    if strength == len(_PAUSES) or size(text) <= limit:
        return [(text, "")]
    found: list[tuple[str, str]] = []
    for piece, pause in _pieces(text, strength):
        whole = found[-1][0] + found[-1][1] + piece if found else piece
        if found and size(whole) <= limit:
            found[-1] = (whole, pause)
            continue
        parts = _cut(piece, size, limit, strength + 1)
        found += [*parts[:-1], (parts[-1][0], parts[-1][1] + pause)]
    return found


def _pieces(text: str, strength: int) -> list[tuple[str, str]]:
    found, at = [], 0
    for pause in _PAUSES[strength].finditer(text):
        if pause.start() > at:  # a pause at the beginning belongs to the first piece
            found.append((text[at : pause.start()], pause[0]))
            at = pause.end()
    return [*found, (text[at:], "")] if at < len(text) or not found else found
