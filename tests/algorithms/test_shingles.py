import numpy as np
import pytest

from curate.algorithms.normal_form import normalise
from curate.algorithms.shingles import shingled


def of(*texts, **settings):
    data = [normalise(text).encode() for text in texts]
    return shingled(np.frombuffer(b"".join(data), np.uint8), np.cumsum([0, *map(len, data)]), **settings)


def sets(found):
    return [set(found.sets.values[a:b].tolist()) for a, b in zip(found.sets.begins, found.sets.begins[1:], strict=False)]


def test_words_leave_symbols_out_and_tokens_do_not():
    assert len(set(map(frozenset, sets(of("a, b; c!", "a b c", unit="words", size=2))))) == 1
    one, other = sets(of("x = a + b", "x = a - b", unit="tokens", size=2))
    assert len(one & other) == 2 and len(one) == 4  # "x =" and "= a"
    assert of("a, b; c!", "...", "").words.tolist() == [3, 0, 0]


def test_a_text_shorter_than_a_shingle_has_none():
    assert [len(found) for found in sets(of("one two", "one two three", size=3))] == [0, 1]


def test_scripts_without_spaces_are_cut_into_characters():
    assert [len(found) for found in sets(of("漢字漢字", "ภาษาไทย", unit="words", size=2))] == [2, 6]


def test_characters_are_characters_not_bytes():
    assert [len(found) for found in sets(of("äöü", "abc", "🙂🙂🙂", unit="characters", size=2))] == [2, 2, 1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("it is", "it is not"), ("we can", "we can't"), ("we can", "we can’t"), ("3 apples", "4 apples"), ("a < b", "a > b"), ("page 1 of 2", "page 1 of 1"),
        ("mit", "ohne und nie"), ("rule ١٢", "rule ١٣"), ("version a1", "version a2"),
    ],
)  # fmt: skip
def test_the_guard_tells_numbers_negations_and_operators(one, other):
    guard = of(one, other).guard
    assert guard[0] != guard[1]


@pytest.mark.parametrize(
    ("one", "other"), [("red apples", "green apples"), ("2 of 3 are not", "not 3, but 2"), ("rule 12", "rule １２"), ("don t", "dont")]
)
def test_the_guard_tells_nothing_else(one, other):
    guard = of(one, other).guard
    assert guard[0] == guard[1]


def test_the_guard_of_a_text_does_not_depend_on_the_one_before_it():
    alone, after = of("t cells fight"), of("so it was rock n'", "t cells fight")
    assert alone.guard[0] == after.guard[1]
    assert of("rock n't").guard[0] != of("rock n", "t").guard[0]
