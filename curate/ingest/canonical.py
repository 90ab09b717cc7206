"""Canonical rows: what a record becomes, what is refused, and how a row's identity is computed.

    instruction   prompt = instruction and input, response = output, text = prompt and response
    chat          response = last assistant message, prompt = every message before it, text = every message
    text          text only; prompt and response null
    table         text = the cells of `fields.columns` as one JSON object, in that order

Parts are joined by one empty line; blank parts are left out. Texts are kept as given: no Unicode normal form
is imposed. Role labels are not written into prompt and text, as `messages` keeps them.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

ROLES = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool", "human": "user", "gpt": "assistant"}
# Letters and symbols by category that print nothing: Hangul fillers and the empty Braille cell.
UNPRINTED = frozenset("\u115f\u1160\u3164\uffa0\u2800")
INVISIBLE = frozenset(("Mn", "Mc", "Me", "Cc", "Cf", "Zs", "Zl", "Zp"))
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


class Row(NamedTuple):
    """The content of a row; the order of the fields is the order in which they are hashed."""

    messages: list[dict[str, str]] | None
    prompt: str | None
    response: str | None
    text: str


class BadRow(Exception):
    """This record cannot become a row; `rule` is the snake_case name under which it is counted."""

    def __init__(self, rule: str):
        super().__init__(rule)
        self.rule = rule


def row_id(messages: Sequence[Mapping[str, str]] | None, prompt: str | None, response: str | None, text: str | None) -> str:
    """First 32 hex digits of SHA-256 over the canonical fields; equal rows share it, wherever they come from."""
    return hash_id(encode(messages, prompt, response, text))


def encode(messages: Sequence[Mapping[str, str]] | None, prompt: str | None, response: str | None, text: str | None) -> bytes:
    """An encoding that no two different rows share; a lone surrogate raises UnicodeEncodeError.

    Each part is written as its length in bytes and its UTF-8 bytes, a null as `-`; messages as their number
    and the role and content of each. So null differs from "".
    """
    parts = [b"-" if messages is None else b"%d;" % len(messages)]
    for message in messages or ():
        parts += _part(message["role"]), _part(message["content"])
    parts += _part(prompt), _part(response), _part(text)
    return b"".join(parts)


def _part(value: str | None) -> bytes:
    if value is None:
        return b"-"
    data = value.encode()
    return b"%d:%b" % (len(data), data)


def hash_id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def is_blank(text: str) -> bool:
    """Nothing to read: only white space, zero-width, combining marks, control and format characters."""
    if not text or (text[0].isalnum() and text[0] not in UNPRINTED):  # nearly every text ends here
        return not text
    return all(char in UNPRINTED or unicodedata.category(char) in INVISIBLE for char in text.strip())


def as_text(value: Any) -> str | None:
    """An id or a kept value: strings and null as they are, anything else as compact JSON (integers exactly)."""
    return value if value is None or type(value) is str else _compact(value)


def text_row(record: Mapping[str, Any], fields: Any) -> Row:
    text = _string(record, fields.text, "text")
    if is_blank(text):
        raise BadRow("blank_text")
    return Row(None, None, None, text)


def instruction_row(record: Mapping[str, Any], fields: Any) -> Row:
    """A null or missing input or output counts as blank: a row without an answer is a later stage's to judge."""
    prompt = _string(record, fields.instruction, "prompt")
    given = _string_or_blank(record, fields.input)
    response = _string_or_blank(record, fields.output)
    if is_blank(prompt) or not is_blank(given):
        prompt = _join(prompt, given)
        if not prompt:
            raise BadRow("blank_prompt")
    if is_blank(response):
        return Row(None, prompt, "", prompt)
    return Row(None, prompt, response, f"{prompt}\n\n{response}")


def chat_row(record: Mapping[str, Any], fields: Any) -> Row:
    """Messages after the last assistant message belong to the text, not to the prompt."""
    given = record.get(fields.messages)
    if given is None:
        raise BadRow("null_messages" if fields.messages in record else "missing_messages")
    if type(given) is not list:
        raise BadRow("wrong_type")
    if not given:
        raise BadRow("no_messages")
    messages = []
    for message in given:
        if type(message) is not dict:
            raise BadRow("wrong_type")
        role = message.get(fields.role)
        if type(role) is not str or role not in ROLES:
            raise BadRow("unknown_role")
        messages.append({"role": ROLES[role], "content": _string(message, fields.content, "content")})
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=len(messages))
    prompt = _join(*(message["content"] for message in messages[:last]))
    if not prompt:
        raise BadRow("blank_prompt")
    response = messages[last]["content"] if last < len(messages) else ""
    text = _join(*(message["content"] for message in messages))
    return Row(messages, prompt, "" if is_blank(response) else response, text)


def table_row(record: Mapping[str, Any], fields: Any) -> Row:
    """Cells keep their type (a CSV has strings only); a cell that is missing, empty or no number is null."""
    cells = {}
    for name in fields.columns:
        value = record.get(name)
        if type(value) is bytes:
            raise BadRow("invalid_utf8")
        blank = (type(value) is str and not value.strip()) or (type(value) is float and value - value != 0)
        cells[name] = None if blank else value
    if all(value is None for value in cells.values()):
        raise BadRow("blank_row")
    return Row(None, None, None, _compact(cells))


BUILDERS = {"instruction": instruction_row, "chat": chat_row, "text": text_row, "table": table_row}


def _join(*parts: str) -> str:
    return "\n\n".join([part for part in parts if not is_blank(part)])


def _string(record: Mapping[str, Any], name: str, what: str) -> str:
    value = record.get(name)
    if type(value) is str:
        return value
    if value is None:
        raise BadRow(f"null_{what}" if name in record else f"missing_{what}")
    # Readers of Arrow data hand over a string that is not UTF-8 as its bytes.
    raise BadRow("invalid_utf8" if type(value) is bytes else "wrong_type")


def _string_or_blank(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return value if type(value) is str else "" if value is None else _string(record, name, "text")
