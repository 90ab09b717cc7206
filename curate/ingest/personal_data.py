"""Typed placeholders for personal data: e-mail and IP addresses, phone numbers, payment cards.

Patterns only, for those four kinds; names and postal addresses need a model and are left alone. A card must pass
the Luhn check (ISO/IEC 7812), an IP address must parse, a phone number must begin with + or 0 or ( or be grouped 3-3-4;
so an ISBN or an order number stays. Counted by kind, never by value.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable

from curate.ingest.canonical import Row

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}(?![\w-])")
IP4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)")
IP6 = re.compile(r"(?<![\w:])(?=[0-9A-Fa-f]*:)[0-9A-Fa-f:]{2,39}(?![\w:])")
CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
PHONE = re.compile(
    r"(?<![\w.+-])(?:"
    r"\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6}"  # +1 (202) 555-0143
    r"|\(0?\d{2,4}\) ?\d{3,4}[ .-]?\d{3,4}"  # (020) 7946 0958
    r"|0\d{2,4}(?:[ -]\d{3,8}){1,3}"  # 020 7946 0958; never a date such as 01-02-2024
    r"|\d{3}[ .-]\d{3}[ .-]\d{4}"  # 202-555-0143
    r")(?![\w-]|\.\d)"
)


def mask_row(row: Row, counts: Counter[str]) -> Row:
    """The row with placeholders in every text; `counts` gains `masked_email` and so on, once per place in the text."""
    messages = row.messages and [{**message, "content": mask(message["content"])} for message in row.messages]
    prompt = None if row.prompt is None else mask(row.prompt)
    response = None if row.response is None else mask(row.response)
    return Row(messages, prompt, response, mask(row.text, counts))


def mask(text: str, counts: Counter[str] | None = None) -> str:
    """The text with [EMAIL], [IP], [CARD] and [PHONE] in the place of what was found."""
    found: Counter[str] = Counter() if counts is None else counts

    def replace(kind: str, accept: Callable[[str], bool] = lambda value: True) -> Callable[[re.Match[str]], str]:
        def one(match: re.Match[str]) -> str:
            if not accept(match[0]):
                return match[0]
            found[f"masked_{kind.lower()}"] += 1
            return f"[{kind}]"

        return one

    if "@" in text:
        text = EMAIL.sub(replace("EMAIL"), text)
    if ":" in text:
        text = IP6.sub(replace("IP", _is_ip), text)
    if any(digit in text for digit in "0123456789"):
        text = IP4.sub(replace("IP", _is_ip), text)
        text = CARD.sub(replace("CARD", _luhn), text)
        text = PHONE.sub(replace("PHONE", lambda value: 8 <= sum(char.isdigit() for char in value) <= 15), text)
    return text


def _is_ip(value: str) -> bool:
    if not any(char.isdigit() for char in value):  # punctuation, or names such as A::B
        return False
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _luhn(value: str) -> bool:
    digits = [int(char) for char in reversed(value) if char.isdigit()]
    return sum(digits[0::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) in range(0, 200, 10)
