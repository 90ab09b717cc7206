"""Text that was decoded wrongly somewhere on its way is put right, by ftfy (Speer 2019, "ftfy: fixes text for you"): "schÃ¶n" becomes "schön".

Only what is certain to be damage: mojibake, HTML entities in text without tags, control characters, line ends. Quotes, ligatures, widths and the
composition of characters stay as they are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from curate.ingest.canonical import Row


def repairer() -> Callable[[str], str]:
    """A function: the text, mended."""
    from ftfy import TextFixerConfig, fix_text

    config = TextFixerConfig(
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        normalization=None,
        explain=False,
        remove_terminal_escapes=True,
    )

    def mend(text: str) -> str:
        if text.isascii() and text.isprintable() and "&" not in text:  # nothing of what is mended can be in it
            return text
        return fix_text(text, config)

    return mend


def repair_row(row: Row, mend: Callable[[str], str], counts: Counter[str]) -> Row:
    """The row with every text mended; `counts` gains `mended_text` where that changed it."""
    messages = row.messages and [{**message, "content": mend(message["content"])} for message in row.messages]
    prompt = None if row.prompt is None else mend(row.prompt)
    response = None if row.response is None else mend(row.response)
    mended = Row(messages, prompt, response, mend(row.text))
    if mended != row:
        counts["mended_text"] += 1
    return mended
