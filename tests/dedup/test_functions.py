"""curate.dedup.near and curate.dedup.semantic: what a script gets without a run."""

import numpy as np
import pytest

from curate import dedup

WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"


def test_near_names_the_twin_the_similarity_and_the_rule():
    found = dedup.near([WORDS, "something else", f"{WORDS} seventeen eighteen nineteen", WORDS.upper(), f"{WORDS} x1 x2 x3"])
    assert found.kept == [1, 2, 4]
    assert [tuple(row) for row in found.dropped] == [(0, 2, 0.8, "near_duplicate"), (3, 2, 0.8, "exact_duplicate")]
    assert found.least_alike == (0, 2, 0.8)  # the number guard kept the last row


def test_near_of_nothing_and_of_blank_texts():
    assert dedup.near([]) == dedup.Found([], [], None)
    assert dedup.near(["", "", "a"]).kept == [0, 2]
    with pytest.raises(ValueError, match="give a similarity"):
        dedup.near(["a"], threshold=0)


def test_lines_containment_and_characters():
    page = "\n".join(f"line number {name} of the page" for name in WORDS.split())
    part = "\n".join(page.split("\n")[3:9])
    assert dedup.near([page, part], 0.9, of="lines", measure="containment").dropped == [(1, 0, 1.0, "near_duplicate")]
    assert dedup.near([page, part], 0.9, of="lines").kept == [0, 1]
    assert dedup.near([page, page.replace("\n", "\n\n")], 0.9, of="paragraphs").dropped[0].rule == "exact_duplicate"
    assert dedup.near(["neighbourhood", "neighborhood"], 0.5, of="characters", shingle=3).kept == [0]


def test_semantic_with_and_without_the_second_opinion():
    texts = ["how do I cook rice", "how do I cook the rice", "how do I not cook rice", "rice, the cooking of", "weather in Rome"]
    vectors = np.array([[1, 0], [0.99, 0.02], [0.99, 0.01], [1, 0.01], [0, 1.0]])
    assert dedup.semantic(vectors).kept == [0, 4]
    found = dedup.semantic(vectors, texts, threshold=0.85)
    assert found.kept == [0, 2, 3, 4] and [(row.row, row.twin, row.rule) for row in found.dropped] == [(1, 0, "semantic_duplicate")]
    assert dedup.semantic(np.zeros((2, 3))).kept == [0, 1]  # no direction, no twin
    with pytest.raises(ValueError, match="one text for each"):
        dedup.semantic(vectors, texts[:2])


def test_of_many_rows_that_say_the_same_one_stays_whatever_their_order():
    chance = np.random.default_rng(0)
    vectors = np.concatenate([np.ones((300, 6)) + 0.01 * chance.normal(size=(300, 6)), np.eye(6)[:3]])
    assert dedup.semantic(vectors, threshold=0.95).kept == [0, 300, 301, 302]
    assert dedup.semantic(vectors[::-1], threshold=0.95).kept == [0, 1, 2, 3]
    assert dedup.semantic([]) == dedup.Found([], [], None)


@pytest.mark.parametrize("settings", [{"of": "sentences"}, {"shingle": 0}])
def test_settings_that_are_none_are_refused(settings):
    with pytest.raises(ValueError, match="1 or more"):
        dedup.near(["a"], **settings)


def test_half_a_character_is_no_reason_to_fail():
    from curate.dedup import near, semantic

    texts = ["the quick brown fox jumps over the lazy \ud800 dog today"] * 2 + ["nothing of the kind at all, is it not so"]
    assert near(texts).kept == [0, 2]
    assert semantic([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], texts).kept == [0, 2]
