import numpy as np

from curate.algorithms.item_index import index_of


def block(*texts):
    data = [text.encode() for text in texts]
    return np.frombuffer(b"".join(data), np.uint8), np.cumsum([0, *map(len, data)])


def words(seed, count):
    chance = np.random.default_rng(seed)
    return " ".join("".join(chance.choice(list("abcdefghij"), 6)) for _ in range(count))


ITEM, OTHER = words(1, 30), words(2, 30)


def held(*texts, items=(ITEM, OTHER), **settings):
    share, best = index_of(*block(*items), **settings).held(*block(*texts))
    return list(zip(share.round(3).tolist(), best.tolist(), strict=True))


def test_an_item_is_found_whole_in_part_and_inside_a_longer_text():
    half = " ".join(ITEM.split()[:15])
    found = held(ITEM, f"{words(3, 200)} {OTHER} {words(4, 200)}", half, words(5, 60), "", order=8)
    assert found[:2] == [(1.0, 0), (1.0, 1)] and found[3:] == [(0.0, -1), (0.0, -1)]
    assert found[2] == (round(8 / 23, 3), 0)  # 8 of its 23 runs of eight words


def test_the_wording_of_a_template_counts_for_none():
    template = words(6, 20)
    items = [f"{template} {words(seed, 12)}" for seed in range(10, 16)]
    found = held(f"{template} {words(40, 12)}", items[2], items=items, order=8, common=4)
    assert found[0] == (0.0, -1) and found[1] == (1.0, 2)


def test_one_of_two_ngrams_is_no_half():
    item = words(7, 9)  # two runs of eight words
    assert held(" ".join(item.split()[:8]), item, items=(item,), order=8) == [(0.0, -1), (1.0, 0)]


def test_a_short_item_is_one_ngram_and_one_below_the_least_is_not_looked_for():
    assert held(
        "what is the capital of france today", items=("the capital of france is", "what is the capital of france", "yes"), least=5, order=8
    ) == [(1.0, 1)]
    assert held("yes", items=("yes",), least=5) == [(0.0, -1)]


def test_an_item_that_is_listed_again_and_again_is_one_item():
    assert held(ITEM, items=(ITEM, ITEM, ITEM, ITEM, ITEM, OTHER), order=8) == [(1.0, 0)]
