"""Key phrases, and what a graph of them refuses."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curate.algorithms.concepts import Graph, hashed, phrases, unexpected


def rows_of(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.cumsum([0, *map(len, rows)]), np.array([concept for row in rows for concept in row], np.uint64)


def test_phrases_are_runs_between_stop_words_and_marks():
    assert phrases("The quick brown fox, and the Lazy dog's tail. Quick brown fox!") == ["quick brown fox", "lazy dog's tail"]
    assert phrases("the of and ...") == phrases("") == []


def test_equal_phrases_share_a_hash():
    counts, concepts = hashed(["red apple, pear", "Pear", None])
    assert counts.tolist() == [2, 1, 0] and concepts[1] == concepts[2] != concepts[0]


def as_written(rows: list[list[int]]) -> list[bool]:
    """The rule as the paper states it, with nodes and edges."""
    nodes: set[int] = set()
    edges: set[frozenset[int]] = set()
    accepted = []
    for row in rows:
        pairs = {frozenset((one, other)) for one in row for other in row if one != other}
        accepted.append(all(pair in edges for pair in pairs if pair <= nodes))
        if accepted[-1]:
            nodes |= set(row)
            edges |= pairs
    return accepted


@given(st.lists(st.lists(st.integers(0, 8), max_size=4, unique=True), max_size=14))
def test_births_say_all_that_edges_would(rows):
    graph, accepted = Graph(*rows_of(rows)), []
    for row, concepts in enumerate(rows):
        twin = graph.against(row)
        accepted.append(twin < 0)
        if twin < 0:
            graph.accept(row)
        else:  # the row named was accepted, and holds one of two concepts of this one without the other
            assert accepted[twin] and set(rows[twin]) & set(concepts) and set(concepts) - set(rows[twin])
    assert accepted == as_written(rows)


@given(st.lists(st.lists(st.integers(0, 5), max_size=4, unique=True), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_the_free_variant_does_not_know_the_order(rows, random):
    names = np.arange(len(rows))
    found = unexpected(*rows_of(rows), order=names)
    shuffled = list(range(len(rows)))
    random.shuffle(shuffled)
    again = unexpected(*rows_of([rows[row] for row in shuffled]), order=np.argsort(shuffled))
    twins = [shuffled[twin] if twin >= 0 else -1 for twin in again]
    assert twins == found[shuffled].tolist()
    for row, twin in enumerate(found.tolist()):
        joins = any(
            sum({a, b} <= set(other) for other in rows) == 1 and sum(a in o for o in rows) * sum(b in o for o in rows) >= 3 * len(rows)
            for a in rows[row]
            for b in rows[row]
            if a < b
        )
        assert (twin >= 0) == joins
        assert twin < 0 or (set(rows[twin]) & set(rows[row]) and not set(rows[row]) <= set(rows[twin]))
