import random

import numpy as np
import pytest

from curate.algorithms.collapse import compressed, distinct, features, opening, separable, spread

RANDOM = random.Random(0)
WORDS = [f"w{number}" for number in range(3000)]
TEXTS = [" ".join(RANDOM.choices(WORDS, k=40)) for _ in range(120)]


def changed(text):
    return " ".join(RANDOM.choice(WORDS) if RANDOM.random() < 0.2 else word for word in text.split())


def test_the_commonest_opening_is_counted_without_labels_and_case():
    assert opening(["Question: What is the use of it?", "- what is the USE, really", "Something else", ""]) == (0.25, "something else")
    assert opening(["What is the use of it?", "Question: what is the USE of them", "Other words"]) == (
        pytest.approx(2 / 3),
        "what is the use of",
    )
    assert opening(["", " "]) == (0.0, "")


def test_repetition_lowers_distinct_and_compressed():
    loops = [" ".join(text.split()[:5] * 8) for text in TEXTS]
    assert distinct(TEXTS, 2000) == 1.0 and distinct(loops, 2000) < 0.2
    assert compressed(loops, 2000) < 0.6 * compressed(TEXTS, 2000)
    assert distinct(TEXTS, 0) == 1.0 and compressed([], 10) == 1.0


def test_spread_is_one_for_rewrites_and_small_for_one_text_in_many_copies():
    sources = features(TEXTS)
    assert spread(features([changed(text) for text in TEXTS]), sources) == pytest.approx(1.0)
    assert spread(features([TEXTS[0]] * 120), sources) == pytest.approx(1 / 120)
    assert 0.1 < spread(sources) < 1


def test_separable_sees_a_frame_and_not_a_new_draw():
    groups = np.arange(120)
    assert separable(features([changed(text) for text in TEXTS]), features(TEXTS), groups) < 0.65
    assert separable(features(["it is important to note that " + text for text in TEXTS]), features(TEXTS), groups) > 0.99
