"""Which questions are the same, which answers exclude each other, and which of them goes."""

import pytest

from curate.algorithms.contradictions import answer, contradict, faults, question, same_question


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is the capital of France?", "please tell me what is capital of FRANCE", True),
        ("Name the capital of Germany", "Name the captial of Germany", True),
        ("Where was Ada born?", "When was Ada born?", False),
        ("Is 3 a prime?", "Is 4 a prime?", False),
        ("Do you like dogs?", "Do you not like dogs?", False),
        ("the moral choice", "the amoral choice", False),
        ("name a river", "name rivers", False),
        ("sort with a+b", "sort with a-b", False),
        ("Is London larger than Paris?", "Is Paris larger than London?", False),
    ],
)
def test_same_question(one, other, same):
    assert same_question(question(one), question(other)) is same


@pytest.mark.parametrize(
    ("one", "other", "excludes"),
    [
        ("Paris", "London", True),
        ("Paris", "paris.", False),
        ("Paris", "It is Paris.", False),
        ("4", "5", True),
        ("4 apples", "5 apples", True),
        ("4", "2 + 2 = 4", False),
        ("yes", "no", True),
        ("positive", "not positive", True),
        ("No", "No, he did not", False),
        ("Who came first?", "What is wood?", False),  # whoever is asked for a question may ask any
        ("A dog barks at the postman every single morning.", "The dog barked at a postman every morning again.", False),
        ("A dog barks at the postman every single morning.", "Nine planets once circled our young sun, they thought.", True),
    ],
)
def test_contradiction(one, other, excludes):
    assert contradict(answer(one), answer(other)) is contradict(answer(other), answer(one)) is excludes


def gone(*answers, losses=None):
    return [(fault.row, fault.against, fault.tied) for fault in faults([answer(text) for text in answers], losses or [None] * len(answers))]


def test_the_minority_goes_and_names_the_majority():
    assert gone("Paris", "London", "paris") == [(1, 0, False)]


def test_one_against_one_the_less_likely_goes_and_without_losses_both():
    assert gone("Paris", "London") == [(0, 1, True), (1, 0, True)]
    assert gone("Paris", "London", losses=[2.0, 5.0]) == [(1, 0, False)]
    assert gone("Paris", "London", losses=[None, 5.0]) == [(0, 1, True), (1, 0, True)]
    assert gone("Paris", "Paris.", "London", "london", losses=[1.0, None, 3.0, 2.0]) == [(2, 0, False), (3, 0, False)]


def test_open_questions_are_left_alone():
    assert gone("red", "green", "blue") == []
    assert gone("good app", "good app", "bad", "boring", "a waste") == []  # two agree, but they are no majority
    story = "Once upon a time a princess lived in a castle by the sea."
    assert gone(story, "Captain Zork steered his rocket past the burning moons of Jupiter.") == []
    assert gone(story, story, "Captain Zork steered his rocket past the burning moons of Jupiter.") == [(2, 0, False)]
