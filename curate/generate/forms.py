"""The form that a task asks for: put right where that is safe, and told where it is missing.

    prose       a fence of three backticks or one pair of quotation marks around the whole of it is taken off
    questions   "Question: ..." and "Answer: ..." in turn, at least one pair; numbers and bold marks before them are taken off
    list        lines that begin with "- "; other bullets become it, what stands before the first one is taken off

Nemotron-CC (Su et al. 2024, arXiv 2412.02595) tidies its outputs in this way and drops what cannot be parsed.
"""

from __future__ import annotations

import re

_FENCED = re.compile(r"```\w*\n(.*)\n```", re.DOTALL)
_QUOTED = re.compile(r"\"([^\"]*)\"|“([^“”]*)”", re.DOTALL)
_PAIR = re.compile(
    r"^[ \t>*#-]*(?:\d+[.)]\s*)?\**(?:question|q)\s*\d*\**\s*[:.]\**\s*(?P<question>\S.*?)\s*\n[ \t>*#-]*\**(?:answer|a)\s*\d*\**\s*[:.]\**\s*"
    r"(?P<answer>\S.*?)(?=\s*(?:\Z|\n\s*\n|\n[ \t>*#-]*(?:\d+[.)]\s*)?\**(?:question|q)\s*\d*\**\s*[:.]))",
    re.DOTALL | re.IGNORECASE | re.MULTILINE,
)
_BULLET = re.compile(r"^[ \t]*(?:[-*•‣·–]|\d{1,3}[.)])[ \t]+(?=\S)")


def parsed(text: str, form: str) -> str | None:
    """The text in its form, or None where it has another. What is parsed once parses to itself."""
    text = text.strip()
    if form == "questions":
        pairs = [(_line(match["question"]), _line(match["answer"])) for match in _PAIR.finditer(text)]
        pairs = list(dict.fromkeys(pairs))
        return "\n\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in pairs) or None
    if form == "list":
        lines = [line.rstrip() for line in text.split("\n") if line.strip()]
        first = next((place for place, line in enumerate(lines) if _BULLET.match(line)), None)
        if first is None or not all(_BULLET.match(line) for line in lines[first:]):
            return None
        return "\n".join(dict.fromkeys("- " + _BULLET.sub("", line).strip() for line in lines[first:]))
    for pattern in (_FENCED, _QUOTED):
        if whole := pattern.fullmatch(text):
            text = next(part for part in whole.groups() if part is not None).strip()
    return text


def _line(text: str) -> str:
    return " ".join(text.strip(" *").split())
