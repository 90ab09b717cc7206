import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.algorithms.text_measures import NAMES, STOP_WORDS, measure

WORD = re.compile(
    r"[\u0080-\u009f\u00a1-\u00bf\u2000-\u207f\u3000-\udfff]|[A-Za-z0-9_\u00c0-\u1fff\u2080-\u2fff\ue000-\U0010ffff]+|([!-~])\1*"
)
MARK = re.compile(r"[\u0080-\u00bf\u2000-\u207f\u3000-\u303f]|[!-/:-@\[-^`{-~]+")


def laid(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    data = [text.encode() for text in texts]
    return np.frombuffer(b"".join(data), np.uint8), np.cumsum([0, *map(len, data)])


def spelled(text: str) -> list[str]:
    return [found[0] for found in WORD.finditer(text)]


def plain(text: str) -> dict[str, float]:
    """The same numbers, one text at a time and as a reader would count them."""
    words = spelled(text)
    spoken = [word for word in words if not MARK.fullmatch(word)]
    lines = [line.strip(" \t\x00") for line in text.split("\n")]
    lines = [line for line in lines if line]
    paragraphs = [part for part in re.split(r"\n[ \t\x00]*\n[ \t\x00\n]*", text) if part.strip(" \t\n\x00")]
    inner = [line[:-1] if len(line) > 1 and line[-1] in "\"'”’)»」" else line for line in lines]
    total = max(len(text), 1)

    def repeats(parts: list[str]) -> tuple[int, int]:
        seen: set[tuple[str, ...]] = set()
        again = []
        for part in parts:
            key = tuple(spelled(part))
            if key in seen:
                again.append(len(part.strip(" \t\n\x00")))
            seen.add(key)
        return len(again), sum(again)

    found = {
        "word_count": len(spoken),
        "mean_word_length": sum(map(len, spoken)) / max(len(spoken), 1),
        "hash_words": text.count("#") / max(len(words), 1),
        "ellipsis_words": (text.count("...") + text.count("…")) / max(len(words), 1),
        "alpha_words": sum(not MARK.fullmatch(word) and any(c.isalpha() or c > "\x7f" for c in word) for word in words)
        / max(len(words), 1),
        "stop_words": len(set(STOP_WORDS) & {word.lower() for word in words}),
        "bullet_lines": sum(line[0] in "-*•‣●◦·" for line in lines) / max(len(lines), 1),
        "ellipsis_lines": sum(line.endswith(("...", "…")) for line in inner) / max(len(lines), 1),
        "unfinished_lines": sum(line[-1] not in ".!?。…" for line in inner) / max(len(lines), 1),
        "short_lines": sum(len(line) <= 30 for line in lines) / max(len(lines), 1),
        "line_breaks": text.count("\n") / max(len(words), 1),
        "duplicate_lines": repeats(lines)[0] / max(len(lines), 1),
        "duplicate_line_chars": repeats(lines)[1] / max(len(text.replace("\n", "")), 1),
        "duplicate_paragraphs": repeats(paragraphs)[0] / max(len(paragraphs), 1),
        "duplicate_paragraph_chars": repeats(paragraphs)[1] / total,
        "digits": sum(c in "0123456789" for c in text) / total,
        "capitals": len(re.findall("[A-Z]", text)) / max(len(re.findall("[A-Za-z]", text)), 1),
        "curly_brackets": text.count("{"),
    }
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if n < 5:
            gram, count = Counter(grams).most_common(1)[0] if grams else ((), 0)
            found[f"top_{n}gram"] = count * len(" ".join(gram)) / total if count > 1 else 0.0
        else:
            covered = {j for i, gram in enumerate(grams) if gram in grams[:i] for j in range(i, i + n)}
            found[f"duplicate_{n}gram"] = sum(len(words[j]) for j in covered) / total
    return found


PIECES = st.sampled_from(
    ["the ", "The ", "cat", "sat ", "a b ", "of the ", "\n", "\n\n", "\n \n", "- ", "• ", "...", "…", ".", "!", '"', "”", "é", "漢字", "#", "{", "12", "X", " ", "_", "—", "。", "\t"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=40).map("".join), max_size=4))
def test_measures_are_what_a_reader_counts(texts):
    found = measure(*laid(texts))
    assert tuple(found) == NAMES
    for i, text in enumerate(texts):
        expected = plain(text)
        assert {name: found[name][i] for name in NAMES} == pytest.approx({name: expected[name] for name in NAMES}, abs=1e-9), repr(text)


def test_long_repeats_are_found_and_texts_do_not_mix():
    sentence = "one two three four five six seven eight nine ten eleven twelve"
    alone, twice, beside = sentence, f"{sentence}\n{sentence}", sentence
    found = measure(*laid([alone, twice, beside]))
    assert found["duplicate_10gram"].tolist() == [0, pytest.approx(len(sentence.replace(" ", "")) / len(twice)), 0]
    assert found["duplicate_lines"].tolist() == [0, 0.5, 0]


def test_nothing_to_measure():
    for texts in ([], ["", ""], [" \n ", "\u00a0"]):
        found = measure(*laid(texts))
        assert all(len(values) == len(texts) and np.isfinite(values).all() for values in found.values())
        assert not found["word_count"].any() and not found["duplicate_lines"].any()
