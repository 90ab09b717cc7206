"""The corpus of the quick start: what becomes of a docstring, and that equal environments give equal bytes."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
corpus = importlib.import_module("pipelines.quickstart_corpus")


def test_the_prose_before_the_parameters_is_the_answer():
    docstring = (
        "Return the weighted mean of the values.\n\nThe weights need not\nsum to one.\n\nParameters\n----------\nvalues : array_like"
    )
    assert corpus.answer(docstring) == "Return the weighted mean of the values.\n\nThe weights need not sum to one."


def test_markup_becomes_plain_text():
    text = "Build a :class:`~shop.Basket` from ``rows``, as the :ref:`guide <long-guide>` of *one* shop asks [3]_."
    assert corpus.answer(text) == "Build a `shop.Basket` from `rows`, as the `guide` of one shop asks."


@pytest.mark.parametrize(
    "docstring",
    [
        "Return it.",  # says nothing
        "See the documentation of the base class, which is long and good.",
        "Return the %(klass)s that holds all of the values of the other one.",
        "TODO: describe what this function really does with its many arguments.",
        "lower case fragments are seldom the beginning of a good sentence here",
        "Parameters\n----------\nvalues : list of numbers that are to be added up",
    ],
)
def test_what_does_not_read_as_an_answer_is_left_out(docstring):
    assert corpus.answer(docstring) is None


def test_a_sentence_that_announces_what_was_cut_off_goes_too():
    text = "Load a table from one of several kinds of files.\n\nThe kinds that it knows are these:\n\n- CSV\n- Parquet"
    assert corpus.answer(text) == "Load a table from one of several kinds of files."


def test_long_prose_is_cut_at_a_paragraph_or_else_at_a_sentence():
    sentence = "This sentence tells of one more thing that the function does. "
    several = corpus.answer("\n\n".join([sentence * 5] * 4))
    assert several == "\n\n".join([(sentence * 5).strip()] * 2)
    one = corpus.answer(sentence * 30)
    assert one and len(one) <= corpus.LONGEST_ANSWER and one.endswith("does.")


SOURCE = '''
"""Tools for baskets: how to fill them, how to weigh them, how to send them."""

class Basket(dict):
    """A basket that knows how much the things in it weigh together."""

    def weigh(self, unit: str = "g") -> float:
        """Return the weight of everything that lies in the basket.

        >>> Basket().weigh()
        """

    def _hidden(self):
        """Nobody needs to know that this method is here, nor what it does."""

if True:
    async def send(basket, *, to):
        """Send a basket to somebody and wait until it has arrived there."""
'''


def test_rows_of_a_module_hold_its_signatures_and_pass_over_private_names():
    rows = [row for _, row in corpus.rows_of_source(SOURCE, "shop.basket", "shopping", "shop/basket.py") if row]
    assert [row.id for row in rows] == ["shop/basket.py:1", "shop/basket.py:4", "shop/basket.py:7", "shop/basket.py:17"]
    assert [row.input for row in rows] == [
        "",
        "class Basket(dict)",
        "def weigh(self, unit: str='g') -> float",
        "async def send(basket, *, to)",
    ]
    assert rows[2].output == "Return the weight of everything that lies in the basket."
    assert {row.capability for row in rows} == {"shopping"}
    assert all("shop.basket" in row.instruction for row in rows)


def test_a_private_file_is_named_after_its_public_package():
    (row,) = [row for _, row in corpus.rows_of_source(SOURCE, "shop._impl", "shopping", "shop/_impl.py") if row and "send" in row.input]
    assert "`shop`" in row.instruction and "_impl" not in row.instruction


def test_a_topic_is_asked_for_by_its_title_and_answered_from_its_first_prose():
    title, grammar = 'The "with" statement', "   with_stmt ::= with suite"
    prose = 'The "with" statement is used to wrap the execution of a block with *methods* of a manager.'
    source = f"topics = {{'with': {f'{title}{chr(10)}********{chr(10) * 2}{grammar}{chr(10) * 2}{prose}{chr(10)}'!r}}}"
    ((_, row),) = corpus.rows_of_topics(source)
    assert row is not None and "the `with` statement" in row.instruction.lower() and row.capability == "language"
    assert row.output == "The `with` statement is used to wrap the execution of a block with methods of a manager."


def test_the_small_corpus_is_spread_over_capabilities_and_keeps_some_repeats():
    def rows(capability: str, count: int, same: int = 0):
        return [corpus.Row(f"{capability}:{i}", "ask", f"def f{max(i, same)}()", "answer", capability) for i in range(count)]

    small = corpus.spread([*rows("rare", 5), *rows("plain", 200), *rows("repeating", 200, same=3)], 105)
    assert Counter(row.capability for row in small) == {"rare": 5, "plain": 50, "repeating": 50}
    assert Counter(row.input for row in small if row.capability == "repeating")["def f3()"] == corpus.REPEATS


def test_examples_are_set_apart_from_every_capability_and_share_no_answer_with_the_rest():
    rows = [corpus.Row(f"{c}:{i}", "ask", f"def f{i}()", f"answer {i // 2 if i < 4 else i}", c) for c in ("a", "b") for i in range(12)]
    unique = [corpus.Row(f"c:{i}", "ask", "", f"only c {i}", "c") for i in range(12)]
    rest, apart = corpus.set_apart([*rows, *unique], 3)
    assert Counter(row.capability for row in apart) == {"c": 3}  # what a and b answer is repeated
    assert len(rest) + len(apart) == 36 and not {row.output for row in rest} & {row.output for row in apart}


def test_the_same_environment_gives_the_same_bytes_and_a_second_call_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "FAMILIES", {"text": ["textwrap", "string"], "numbers": ["fractions", "not_there"]})
    first = corpus.build(tmp_path / "a", rows=30)
    again = corpus.build(tmp_path / "b", rows=30)
    assert first["state"] == again["state"] == "written" and "not installed: not_there" in first["read"]
    for name in ("pool.jsonl", "quickstart.jsonl", "examples.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    written = (tmp_path / "a" / "pool.jsonl").stat().st_mtime_ns
    assert corpus.build(tmp_path / "a", rows=30)["state"] == "up to date"
    assert (tmp_path / "a" / "pool.jsonl").stat().st_mtime_ns == written
    (tmp_path / "a" / "quickstart.jsonl").write_text("")  # damaged: made again
    assert corpus.build(tmp_path / "a", rows=30)["state"] == "written"
    rows = [json.loads(line) for line in (tmp_path / "a" / "quickstart.jsonl").read_text().splitlines()]
    assert len(rows) == 30 and list(rows[0]) == ["id", "instruction", "input", "output", "capability"]
    assert {row["capability"] for row in rows} == {"text", "numbers", "language"}
