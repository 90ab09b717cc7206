import pytest

from curate.generate.forms import parsed

PAIRS = "Question: Who built it?\nAnswer: The county.\n\nQuestion: When?\nAnswer: In 1932."


@pytest.mark.parametrize(
    "text",
    [
        PAIRS,
        "**Question 1:** Who built it?\n**Answer:** The county.\n**Question 2:** When?\n**Answer:** In 1932.",
        "Here are some:\n\n1. Q: Who built it?\n   A: The\n county.\n\n2. Q: When?\n   A: In 1932.",
    ],
)
def test_questions_with_answers_are_put_in_one_form(text):
    assert parsed(text, "questions") == PAIRS
    assert parsed(PAIRS, "questions") == PAIRS


def test_a_question_alone_is_not_parsed():
    assert parsed("Question: Who built it?", "questions") is None
    assert parsed("The county built it.", "questions") is None


def test_a_list_loses_its_preamble_and_other_bullets():
    assert parsed("Facts:\n* one\n2) two\n\n• three\n* one", "list") == "- one\n- two\n- three"
    assert parsed("- one\nand prose after it", "list") is None
    assert parsed("no list at all", "list") is None


def test_prose_loses_what_is_wrapped_around_all_of_it():
    assert parsed(' "It was built." ', "prose") == "It was built."
    assert parsed("```text\nIt was built.\n```", "prose") == "It was built."
    assert parsed('"One," he said, "or two."', "prose") == '"One," he said, "or two."'
