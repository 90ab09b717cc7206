"""Personal data is masked by kind where a recipe asks for it, and what only looks like it stays."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from curate.ingest.personal_data import mask


@pytest.mark.parametrize(
    "text, masked",
    [
        ("Write to ann.example@example.com or bob+list@example.org.", "Write to [EMAIL] or [EMAIL]."),
        ("Call +1 (202) 555-0143 or 020 7946 0958 after six.", "Call [PHONE] or [PHONE] after six."),
        ("202-555-0143, (202) 555-0143", "[PHONE], [PHONE]"),
        ("Test card 4111 1111 1111 1111, expiry 01/30.", "Test card [CARD], expiry 01/30."),
        ("The host was 192.0.2.44, later 2001:db8::7.", "The host was [IP], later [IP]."),
    ],
)
def test_found(text, masked):
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "The ISBN is 978-3-16-148410-0 and the order was 555-0199-2.",
        "Card 4111 1111 1111 1112 fails its check.",
        "On 2024-01-05, 01/02/2024 and 05-11-2023 at 12:30:45",
        "std::vector<int> x; A::B; 3.14159265358979 and 1e-10",
        "999.1.1.1 is no address, nor is 1.2.3, nor @name",
        "Ms Jane Doe of 12 Example Road was born on 1 January 1970.",
        "1234567 + 7654321 = 8888888; 100,000,000",
    ],
)
def test_left_alone(text):
    assert mask(text) == text


def test_counts_come_by_kind_and_never_by_value(read_bytes):
    row = {"instruction": "Mail a@example.com", "input": "or b@example.com", "output": "Sent to a@example.com from 192.0.2.1"}
    found = read_bytes("a.jsonl", json.dumps(row), personal_data="mask")
    assert found.rows[0]["text"] == "Mail [EMAIL]\n\nor [EMAIL]\n\nSent to [EMAIL] from [IP]"
    assert json.loads(found.shards[0].schema.metadata[b"counts"]) == {"masked_email": 3, "masked_ip": 1}
    assert "example.com" not in json.dumps(found.rows)
    assert read_bytes("a.jsonl", json.dumps(row)).rows[0]["prompt"].startswith("Mail a@example.com")


def test_counter_is_optional_and_exact():
    counts = Counter()
    mask("a@b.org a@b.org", counts)
    assert counts == {"masked_email": 2}
