"""Text of unknown origin, made safe to look at: every character that hides or moves others gets a visible sign.

Used by the report, the card and the commands. It does not escape for HTML or Markdown: that is done where the text is put.
"""

from __future__ import annotations

import re

# C0 (but newline and tab), DEL, C1; soft hyphen; bidi marks, embeddings, overrides and isolates; zero-width characters;
# line and paragraph separators; byte-order mark; interlinear and tag characters (used to smuggle ASCII); lone surrogates, which
# cannot be written as UTF-8. The two joiners are spelling between letters of Persian or parts of an emoji: they are shown only
# where they touch ASCII, where they can only hide something.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    "|(?<=[\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?=[\x00-\x7f])|^[\u200c\u200d]|[\u200c\u200d]$"
)


def sign(character: str) -> str:
    """The visible sign of one hidden character: a control picture (␛), or its code point (⟨U+202E⟩)."""
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def visible(text: str, limit: int | None = None) -> str:
    """`text` with hidden characters shown, cut after `limit` characters (of the original) with a note of how many follow."""
    rest = len(text) - limit if limit is not None else 0
    if rest > 0:
        text = text[:limit]
    text = HIDDEN.sub(lambda match: sign(match[0]), text.replace("\r\n", "\n"))
    return f"{text} … (+{rest:,} characters)" if rest > 0 else text
