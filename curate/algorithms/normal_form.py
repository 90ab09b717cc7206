"""The declared normal form of texts for comparing them: what counts as the same text.

NFKC, case folded, decimal digits as ASCII, invisible marks out, runs of white space as one space. Symbols, accents and every script stay.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

# A word; or one character of a script that writes without spaces; or one symbol, so that code is kept apart.
TOKEN = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]|\w+|[^\w\s]")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
NEGATIONS = frozenset(
    [
        "no",
        "not",
        "never",
        "none",
        "neither",
        "nor",
        "without",
        "cannot",
        "nothing",
        "nobody",
        "nicht",
        "kein",
        "keine",
        "nie",
        "pas",
        "jamais",
        "sans",
        "ne",
        "nunca",
        "ningún",
        "sin",
        "не",
        "нет",
    ]
)


def normalise(text: str) -> str:
    """The normal form of a text, on one line."""
    if text.isascii():
        return " ".join(text.lower().split())
    text = INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_OTHER_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text).split())


def exact_key(normal: str) -> bytes:
    """16 bytes that equal texts (after `normalise`) share. A final full stop does not tell texts apart."""
    return hashlib.blake2b((normal.rstrip(" .") or normal).encode("utf-8", "surrogatepass"), digest_size=16).digest()
