import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest

from curate.algorithms.importance import bags, gumbel, log_ratio

POOL = ["The cat sat on the mat.", "Buy now!! Click, click & win 100 prizes", "naïve über-cats sit", "the cat"]
TARGET = ["A cat sat on a mat, purring.", "Cats sit; the dog sat on the cat."]


def published(text: str) -> Counter:
    """`get_ngram_counts` of the authors' data-selection, without the hash: WordPunct words of the lowered text, and pairs."""
    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    return Counter(words) + Counter(" ".join(pair) for pair in itertools.pairwise(words))


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_weights_are_those_of_the_published_formula(smoothing):
    buckets = 1 << 20  # so many that no two of these few words fall together: then the hash cannot matter
    counts = bags(POOL + TARGET, buckets)
    pool, target = (np.asarray(part.sum(0)).ravel() for part in (counts[: len(POOL)], counts[len(POOL) :]))
    found = counts @ log_ratio(target, pool, smoothing)

    theirs, ours = (sum((published(text) for text in texts), Counter()) for texts in (TARGET, POOL))
    whole = theirs.total() + smoothing * buckets
    for text, weight in zip(POOL + TARGET, found, strict=True):
        expected = sum(
            n * (math.log((theirs[word] + smoothing) / whole + 1e-8) - math.log(ours[word] / ours.total() + 1e-8))
            for word, n in published(text).items()
        )
        assert weight == pytest.approx(expected, abs=1e-9)


def test_a_case_by_hand():
    # Shares: target 3/4 and 1/4, pool 1/4 and 3/4.
    np.testing.assert_allclose(log_ratio(np.array([3.0, 1.0]), np.array([1.0, 3.0])), [math.log(3), -math.log(3)], atol=1e-6)


def test_a_row_counts_its_own_words_alone():
    np.testing.assert_array_equal(bags(POOL[1:2]).toarray(), bags(POOL).toarray()[1:2])
    assert bags(["the cat the"]).sum() == 5  # 3 words, 2 pairs
    assert bags(["", "  "]).sum() == 0


def test_the_highest_sums_of_log_weight_and_noise_are_a_draw_by_weight():
    weights = np.array([1.0, 2.0, 5.0])
    noise = gumbel(np.random.default_rng(0).random((40_000, 3)))
    first = np.bincount((np.log(weights) + noise).argmax(1)) / 40_000
    np.testing.assert_allclose(first, weights / weights.sum(), atol=0.01)
    assert np.isfinite(gumbel(np.array([0.0, 1.0]))).all()


def test_bags_without_words_are_refused():
    with pytest.raises(ValueError, match="words on both sides"):
        log_ratio(np.zeros(2), np.ones(2))
