from collections import Counter as Tally
from collections import defaultdict
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.algorithms.hash_table import HashTable
from curate.algorithms.ngram_lm import Counter


def laid(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    data = [text.encode() for text in texts]
    return np.frombuffer(b"".join(data), np.uint8), np.cumsum([0, *map(len, data)])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 60), unique=True, max_size=40))
def test_a_table_gives_back_what_was_put_in_and_nothing_else(keys):
    """Keys that all want one of a few places, so that they get in each other's way."""
    keys = np.array(keys, np.uint64) * np.uint64(1 << 20) + np.uint64(3)
    values = np.arange(len(keys), dtype=np.float32)
    table = HashTable(keys, values)
    np.testing.assert_array_equal(table.get(keys, -1.0), values)
    others = np.arange(70, dtype=np.uint64) * np.uint64(1 << 20) + np.uint64(3)
    others = others[~np.isin(others, keys)]
    assert (table.get(others, -1.0) == -1).all()


class Plain:
    """The same model with dictionaries, from the formulas in the docstring."""

    def __init__(self, texts: list[str], order: int, least: int):
        tally = Tally(word for text in texts for word in text.split())
        self.vocabulary = {word for word, count in tally.items() if count >= least}
        self.order = order
        lines = [["<s>", *self.known(text)] for text in texts]
        counts = [
            Tally(tuple(line[i - n + 1 : i + 1]) for line in lines for i in range(max(n - 1, 1), len(line))) for n in range(1, order + 1)
        ]
        before = [defaultdict(set) for _ in range(order)]
        for n in range(2, order + 1):
            for gram in counts[n - 1]:
                before[n - 2][gram[1:]].add(gram[0])
        self.counts = counts
        for n in range(1, order):
            self.counts[n - 1] = Tally(
                {gram: count if n > 1 and gram[0] == "<s>" else len(before[n - 1][gram]) for gram, count in counts[n - 1].items()}
            )
        self.discounts = []
        for tally in self.counts:
            ones, twos = sum(c == 1 for c in tally.values()), sum(c == 2 for c in tally.values())
            self.discounts.append(ones / (ones + 2 * twos) if ones and twos else 0.5)

    def known(self, text: str) -> list[str]:
        return [word if word in self.vocabulary else "<unk>" for word in text.split()]

    def probability(self, context: tuple[str, ...], word: str) -> float:
        n = len(context) + 1
        tally, discount = self.counts[n - 1], self.discounts[n - 1]
        shorter = self.probability(context[1:], word) if n > 1 else 1 / len(tally)
        after = {gram[-1]: count for gram, count in tally.items() if gram[:-1] == context}
        if not after:
            return shorter
        total = sum(after.values())
        rest = discount * sum(count > 0 for count in after.values()) / total
        return max(after.get(word, 0) - discount, 0) / total + rest * shorter

    def loss(self, text: str) -> float:
        line = ["<s>", *self.known(text)]
        return -sum(log(self.probability(tuple(line[max(0, i - self.order + 1) : i]), line[i])) for i in range(1, len(line)))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=9).map(" ".join), min_size=1, max_size=8).filter(lambda texts: any(texts)))
def test_it_is_kneser_ney(order, texts):
    counter = Counter()
    for text in texts:  # one block each: blocks change nothing
        counter.add(*laid([text]))
    model, plain = counter.model(order, least=2), Plain(texts, order, 2)
    asked = [*texts, "a b c d e", "e e a", ""]
    nats, words, unknown = model.losses(*laid(asked))
    assert words.tolist() == [len(text.split()) for text in asked]
    assert unknown.tolist() == [plain.known(text).count("<unk>") for text in asked]
    spelled = [
        sum(model.spelling[0, ord(w)] + model.spelling[ord(w), 0] for w in text.split() if w not in plain.vocabulary) for text in asked
    ]
    np.testing.assert_allclose(nats - spelled, [plain.loss(text) for text in asked], rtol=1e-4, atol=1e-4)


def test_probabilities_of_all_words_after_a_context_add_up_to_one():
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(list("abcdefgh"), 30)) for _ in range(50)]
    counter = Counter()
    counter.add(*laid(texts))
    model = counter.model(3, least=1)
    for context in ("a b", "h h", "c"):
        alone = model.losses(*laid([context]))[0][0]
        total = sum(np.exp(alone - model.losses(*laid([f"{context} {word}"]))[0][0]) for word in "abcdefgh")
        assert total == pytest.approx(1, abs=1e-3)


def test_an_unknown_word_costs_its_letters():
    counter = Counter()
    counter.add(*laid(["the cat sat on the mat", "the cat sat on the hat", "flat bat"]))
    model = counter.model(2, least=2)
    likely, strange, longer = model.losses(*laid(["the rat", "the xqz", "the ratratrat"]))[0]
    assert likely < strange and likely < longer
