"""What records become, and that a row's identity follows from its content alone."""

from __future__ import annotations

import hashlib
import json

import pytest

from curate.ingest.canonical import is_blank, row_id


def lines(*records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_row_id_is_fixed_and_tells_null_from_empty_and_one_field_from_two():
    assert row_id(None, None, None, "one") == hashlib.sha256(b"---3:one").hexdigest()[:32]
    ids = {
        row_id(None, "a", "b", "ab"),
        row_id(None, "ab", "", "ab"),
        row_id(None, "ab", None, "ab"),
        row_id([], "ab", None, "ab"),
        row_id([{"role": "user", "content": "ab"}], "ab", None, "ab"),
        row_id([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "ab", None, "ab"),
        row_id(None, "1:b", None, "ab"),
    }
    assert len(ids) == 7 and all(len(one) == 32 for one in ids)


@pytest.mark.parametrize(
    "text", ["", " \t\r\n", "\u00a0\u2003\u3000", "\u200b\ufeff\u2060", "\u0301\u0301", "\x00\x07\x1b", "\u3164\u2800"]
)
def test_blank(text):
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", ".", "\u200bx", "\ue000", "\u6771", "\U0001f468\u200d\U0001f469", "NaN", "None", "0"])
def test_not_blank(text):
    assert not is_blank(text)


def test_instruction_rows(read_bytes):
    found = read_bytes(
        "a.jsonl",
        lines(
            {"instruction": "Add.", "input": "1 and 2", "output": "3"},
            {"instruction": "Sing.", "input": " \u200b", "output": "La"},
            {"instruction": "Say nothing.", "output": " "},
            {"instruction": "No answer yet.", "output": None},
            {"instruction": " ", "input": "", "output": "x"},
            {"instruction": None, "output": "x"},
            {"input": "x", "output": "x"},
            {"instruction": "Count.", "output": 3},
        ),
    )
    assert [(row["prompt"], row["response"], row["text"]) for row in found.good] == [
        ("Add.\n\n1 and 2", "3", "Add.\n\n1 and 2\n\n3"),
        ("Sing.", "La", "Sing.\n\nLa"),
        ("Say nothing.", "", "Say nothing."),
        ("No answer yet.", "", "No answer yet."),
    ]
    assert found.bad == [(5, "blank_prompt"), (6, "null_prompt"), (7, "missing_prompt"), (8, "wrong_type")]
    row = found.good[0]
    assert row["row_id"] == row_id(row["messages"], row["prompt"], row["response"], row["text"])


def test_chat_rows(read_bytes):
    def chat(*turns):
        return {"conversations": [{"from": role, "value": content} for role, content in turns]}

    found = read_bytes(
        "a.jsonl",
        lines(
            chat(("system", "Be brief."), ("human", "Hi"), ("gpt", "Hello"), ("human", "Bye"), ("gpt", "Ciao"), ("human", "?")),
            chat(("user", "only a question")),
            chat(("judge", "no such role")),
            chat(("user", None), ("assistant", "x")),
            {"conversations": "not a list"},
        ),
        fields={"messages": "conversations", "role": "from", "content": "value"},
    )
    first, second = found.good
    assert (first["prompt"], first["response"]) == ("Be brief.\n\nHi\n\nHello\n\nBye", "Ciao")
    assert first["text"] == "Be brief.\n\nHi\n\nHello\n\nBye\n\nCiao\n\n?"
    assert [message["role"] for message in first["messages"]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert (second["prompt"], second["response"]) == ("only a question", "")
    assert found.bad == [(3, "unknown_role"), (4, "null_content"), (5, "wrong_type")]


def test_row_id_does_not_depend_on_format_file_or_place(read_bytes):
    jsonl = read_bytes("a.jsonl", lines({"text": "first"}, {"text": "caf\u00e9, \u6771"}))
    csv = read_bytes("b.csv", 'n,text\n1,"caf\u00e9, \u6771"\n')
    assert csv.good[0]["row_id"] == jsonl.good[1]["row_id"]


def test_mapped_names_are_exact_and_nothing_is_guessed(read_bytes):
    assert read_bytes("a.jsonl", lines({"body": "x", "text": "y"}), fields={"text": "body"}).texts() == ["x"]
    with pytest.raises(ValueError, match="a column of every run's own"):
        read_bytes("a.jsonl", lines({"text": "y"}), keep=("prompt",))
