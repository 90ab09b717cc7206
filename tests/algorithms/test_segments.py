from hypothesis import given
from hypothesis import strategies as st

from curate.algorithms.segments import segments


def words(text):
    return len(text.split())


@given(st.text(alphabet="ab .!?\n", max_size=200), st.integers(1, 8))
def test_segments_put_together_are_the_text_and_stay_within_the_limit(text, limit):
    found = segments(text, words, limit)
    assert "".join(segment + pause for segment, pause in found) == text
    assert all(words(segment) <= limit for segment, _ in found)


def test_the_strongest_pause_that_serves_is_taken():
    text = "One two three. Four five.\nSix seven.\n\nEight nine ten."
    assert [segment for segment, _ in segments(text, words, 7)] == ["One two three. Four five.\nSix seven.", "Eight nine ten."]
    assert [segment for segment, _ in segments(text, words, 5)] == ["One two three. Four five.", "Six seven.\n\nEight nine ten."]
    assert [segment for segment, _ in segments(text, words, 4)] == ["One two three.", "Four five.\nSix seven.", "Eight nine ten."]
    assert segments(text, words, 100) == [(text, "")]
