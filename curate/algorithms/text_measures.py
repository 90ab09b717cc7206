"""Numbers that rules of thumb hold against thresholds, for many texts at once: arrays of bytes in, an array per measure out.

Definitions follow Gopher (Rae et al. 2021, arXiv 2112.11446, section A.1 and table A1), C4 (Raffel et al. 2020, JMLR 21) and FineWeb (Penedo et al. 2024,
arXiv 2406.17557). A word is what `word_hashes.find_words` finds, so a punctuation mark is one too; Gopher's word count, mean length and share leave marks out.
Lines and paragraphs are compared without the white space around them; blank ones are left out. Lengths are in characters.

    word_count, mean_word_length      words that are no marks
    hash_words, ellipsis_words        "#" and ellipses per word
    alpha_words                       share of words with a letter in them
    stop_words                        how many of Gopher's eight English stop words occur
    bullet_lines, ellipsis_lines      share of lines that begin with a bullet, that end in an ellipsis
    unfinished_lines                  share of lines that do not end in . ! ? or their like (FineWeb)
    short_lines                       share of lines of at most 30 characters (FineWeb)
    line_breaks                       line breaks per word (FineWeb)
    duplicate_lines, duplicate_paragraphs             share of those that stand earlier in the text
    duplicate_line_chars, duplicate_paragraph_chars   what these take of the text
    top_2gram, top_3gram, top_4gram   what the commonest n words in a row take of the text, if they occur twice
    duplicate_5gram ... duplicate_10gram              what words take that are part of n words in a row which stand earlier
    digits, capitals                  share of the characters that are digits; of the ASCII letters that are capitals
    curly_brackets                    how many { (C4)
"""

from __future__ import annotations

import numpy as np

from curate.algorithms.line_shapes import find_lines
from curate.algorithms.word_hashes import find_words, hash_words, longer, mix

STOP_WORDS = (
    "the",
    "be",
    "to",
    "of",
    "and",
    "that",
    "have",
    "with",
    "in",
    "is",
    "a",
    "for",
    "on",
    "it",
)  # Gopher's eight, and six as common
SHORT_LINE = 30
TOP, DUPLICATE = (2, 3, 4), (5, 6, 7, 8, 9, 10)
NAMES = (
    "word_count", "mean_word_length", "hash_words", "ellipsis_words", "alpha_words", "stop_words", "bullet_lines", "ellipsis_lines", "unfinished_lines",
    "short_lines", "line_breaks", "duplicate_lines", "duplicate_line_chars", "duplicate_paragraphs", "duplicate_paragraph_chars",
    *(f"top_{n}gram" for n in TOP), *(f"duplicate_{n}gram" for n in DUPLICATE), "digits", "capitals", "curly_brackets",
)  # fmt: skip


def _codes(*marks: str) -> np.ndarray:
    """UTF-8 bytes of marks, at most three, as numbers."""
    return np.array([int.from_bytes(mark.encode(), "big") for mark in marks], np.int64)


_BULLETS = _codes("-", "*", "•", "‣", "●", "◦", "·")
_FINISHED = _codes(".", "!", "?", "。", "！", "？", "…", "۔", "؟", "।")
_QUOTES = _codes('"', "'", "”", "’", ")", "»", "」")  # a sentence may end inside them
_ELLIPSIS = _codes("…", "...")
_STOPS = np.sort(
    hash_words(
        np.frombuffer("".join(STOP_WORDS).encode(), np.uint8), np.cumsum([0, *map(len, STOP_WORDS[:-1])]), np.array(list(map(len, STOP_WORDS)))
    )
)  # fmt: skip
_LETTER = np.zeros(256, bool)
_LETTER[[i for i in range(256) if i >= 0x80 or chr(i).isalpha()]] = True
_CAPITAL, _SMALL, _DIGIT = (np.isin(np.arange(256), np.arange(ord(a), ord(z) + 1)) for a, z in ("AZ", "az", "09"))
_PLACE = np.uint64(0xA0761D6478BD642F)
_MARK = np.array([0x21 <= i < 0x7F and not (chr(i).isalnum() or chr(i) == "_") for i in range(256)])


def measure(raw: np.ndarray, ends: np.ndarray) -> dict[str, np.ndarray]:
    """{name: float64 (texts,)}, in the order of NAMES; 0 where there is nothing to share.

    raw, ends  as in `word_hashes`, case not folded
    """
    if not len(raw):
        return dict.fromkeys(NAMES, np.zeros(len(ends) - 1))
    words = _Words(raw, ends)
    count = np.diff(words.begins)
    spoken = _tally(words.text[~words.mark], len(count))
    lines = _Stretches(words, *find_lines(raw, ends))
    found = {
        "word_count": spoken,
        "mean_word_length": _share(_tally(words.text[~words.mark], len(count), words.size[~words.mark]), spoken),
        "hash_words": _share(_per_text(raw == ord("#"), ends), count),
        "ellipsis_words": _share(_ellipses(raw, ends), count),
        "alpha_words": _share(_tally(words.text[words.alpha], len(count)), count),
        "stop_words": _stop_words(raw, words, len(count)),
        **_lines(raw, ends, words, lines),
        **_paragraphs(raw, words, lines),
        **_repeated_words(words),
        "digits": _share(_per_text(_DIGIT[raw], ends), words.characters),
        "capitals": _share(_per_text(_CAPITAL[raw], ends), _per_text(_CAPITAL[raw] | _SMALL[raw], ends)),
        "curly_brackets": _per_text(raw == ord("{"), ends),
    }
    return {name: np.asarray(found[name], np.float64) for name in NAMES}


class _Words:
    """The words of some texts: where they start, their bytes, hashes, sizes in characters, the text of each, and what they are."""

    def __init__(self, raw: np.ndarray, ends: np.ndarray):
        self.starts, self.lengths, self.begins = find_words(raw, ends)
        self.hashes = hash_words(raw, self.starts, self.lengths)
        self.text = np.repeat(np.arange(len(ends) - 1), np.diff(self.begins))
        self.before = np.concatenate([[0], np.cumsum((raw & 0xC0) != 0x80, dtype=np.int32)])  # characters before each byte
        self.size = self.chars(self.starts, self.starts + self.lengths)
        self.characters = np.diff(self.before[ends])
        self.mark = _MARK[raw[self.starts]] | _is_wide_mark(raw, self.starts)
        self.alpha = np.logical_or.reduceat(_LETTER[raw], self.starts) & ~self.mark if len(self.starts) else np.zeros(0, bool)

    def chars(self, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        return self.before[stops] - self.before[starts]


class _Stretches:
    """Lines or paragraphs. Two are equal where their words are."""

    def __init__(self, words: _Words, starts: np.ndarray, stops: np.ndarray, begins: np.ndarray):
        self.starts, self.stops, self.begins = starts, stops, begins
        self.text = np.repeat(np.arange(len(begins) - 1), np.diff(begins))
        self.size = words.chars(starts, stops)
        self.texts = len(begins) - 1
        first = np.append(np.searchsorted(words.starts, starts), len(words.starts))  # every word is in a line
        place = np.arange(len(words.starts)) - np.repeat(first[:-1], np.diff(first))
        in_order = np.zeros(len(place) + 1, np.uint64)
        np.cumsum(mix(words.hashes + place.astype(np.uint64) * _PLACE), out=in_order[1:])
        hashes = in_order[first[1:]] - in_order[first[:-1]]
        self.again = _seen_earlier(_of_text(hashes, self.text))

    def repeated(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each text: stretches that are equal to an earlier one of it, and their characters."""
        return _tally(self.text[self.again], self.texts), _tally(self.text[self.again], self.texts, self.size[self.again])


def _tally(text: np.ndarray, texts: int, values: np.ndarray | None = None) -> np.ndarray:
    return np.bincount(text, values, minlength=texts)


def _per_text(marked: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """How many bytes of each text are marked."""
    counts, some = np.zeros(len(ends) - 1, np.int64), np.flatnonzero(np.diff(ends))
    counts[some] = np.add.reduceat(marked, ends[some], dtype=np.int64)
    return counts


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.maximum(whole, 1)


def _is_wide_mark(raw: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Words that are one character of general or Latin-1 punctuation."""
    first, second = raw[starts], raw[np.minimum(starts + 1, len(raw) - 1)]
    return (first == 0xC2) | ((first == 0xE2) & (second <= 0x81)) | ((first == 0xE3) & (second == 0x80))


def _ellipses(raw: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Runs of three dots, and the character; in a longer run every three count."""
    dot = raw == ord(".")
    parted = np.zeros(len(raw) + 1, bool)  # no run goes on from the byte before
    parted[ends] = True
    parted[1:-1] |= ~(dot[1:] & dot[:-1])
    edge, past = np.flatnonzero(dot & parted[:-1]), np.flatnonzero(dot & parted[1:]) + 1
    count = np.zeros(len(raw) + 1, np.int64)
    count[edge + 1] = (past - edge) // 3
    sign = np.flatnonzero((raw[:-2] == 0xE2) & (raw[1:-1] == 0x80) & (raw[2:] == 0xA6)) if len(raw) > 2 else np.zeros(0, np.int64)
    count[sign + 1] += 1
    return np.diff(np.cumsum(count)[ends])


def _stop_words(raw: np.ndarray, words: _Words, texts: int) -> np.ndarray:
    """Small words alone are looked at, and folded."""
    small = np.flatnonzero(words.lengths <= max(map(len, STOP_WORDS)))
    folded = raw | (_CAPITAL[raw] * np.uint8(0x20))
    hashes = hash_words(folded, words.starts[small], words.lengths[small])
    place = np.minimum(np.searchsorted(_STOPS, hashes), len(_STOPS) - 1)
    hit = _STOPS[place] == hashes
    seen = np.zeros((texts, len(_STOPS)), bool)
    seen[words.text[small[hit]], place[hit]] = True
    return seen.sum(axis=1)


def _lines(raw: np.ndarray, ends: np.ndarray, words: _Words, lines: _Stretches) -> dict[str, np.ndarray]:
    starts, stops = lines.starts, lines.stops
    there = np.diff(lines.begins)
    last = _last_character(raw, stops)
    quoted = np.isin(last, _QUOTES) & (stops - _bytes(last) > starts)
    stops = np.where(quoted, stops - _bytes(last), stops)
    last = _last_character(raw, stops)
    ellipsis = np.isin(last, _ELLIPSIS) | (_bytes_before(raw, stops, 3, starts) == _ELLIPSIS[1])

    def share(marked: np.ndarray) -> np.ndarray:
        return _share(_tally(lines.text[marked], lines.texts), there)

    count, chars = lines.repeated()
    breaks = _per_text(raw == ord("\n"), ends)
    return {
        "bullet_lines": share(np.isin(_first_character(raw, starts), _BULLETS)),
        "ellipsis_lines": share(ellipsis),
        "unfinished_lines": share(~np.isin(last, _FINISHED)),
        "short_lines": share(lines.size <= SHORT_LINE),
        "line_breaks": _share(breaks, np.diff(words.begins)),
        "duplicate_lines": _share(count, there),
        "duplicate_line_chars": _share(chars, words.characters - breaks),
    }


def _paragraphs(raw: np.ndarray, words: _Words, lines: _Stretches) -> dict[str, np.ndarray]:
    """Paragraphs are parted by one blank line or more."""
    breaks = np.flatnonzero(raw == ord("\n"))
    new = np.ones(len(lines.starts), bool)
    new[1:] = (np.searchsorted(breaks, lines.starts[1:]) - np.searchsorted(breaks, lines.stops[:-1]) > 1) | (
        lines.text[1:] != lines.text[:-1]
    )
    first = np.flatnonzero(new)
    stops = lines.stops[np.append(first[1:], len(new))[: len(first)] - 1]
    begins = np.concatenate([[0], np.cumsum(_tally(lines.text[first], lines.texts))])
    count, chars = _Stretches(words, lines.starts[first], stops, begins).repeated()
    return {"duplicate_paragraphs": _share(count, np.diff(begins)), "duplicate_paragraph_chars": _share(chars, words.characters)}


def _of_text(hashes: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Equal only where hash and text are."""
    return mix(hashes ^ mix(text.astype(np.uint64) + np.uint64(1)))


def _seen_earlier(keys: np.ndarray) -> np.ndarray:
    """bool: an equal key stands before this one."""
    again = np.ones(len(keys), bool)
    again[np.unique(keys, return_index=True)[1]] = False
    return again


def _repeated_words(of: _Words) -> dict[str, np.ndarray]:
    words, size, text, counts, total = of.hashes, of.size, of.text, np.diff(of.begins), of.characters
    place = np.arange(len(words)) - np.repeat(of.begins[:-1], counts)
    before = np.concatenate([[0], np.cumsum(size)])
    found: dict[str, np.ndarray] = {}
    ending, at = words, np.arange(len(words))
    for n in range(2, max(DUPLICATE) + 1):
        ending = longer(ending, words)
        at = at[place[at] >= n - 1]
        keys = _of_text(ending[at], text[at])
        twice = _perhaps_twice(keys)
        at, keys = at[twice], keys[twice]
        _, first, inverse, count = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        if n in TOP:
            # Of n-grams as common the first one, as a reader meets them.
            some = np.flatnonzero(count > 1)
            order = some[np.lexsort((first[some], -count[some], text[at[first[some]]]))]
            best = order[np.unique(text[at[first[order]]], return_index=True)[1]]
            end = at[first[best]]
            taken = np.zeros(len(counts))
            taken[text[end]] = count[best] * (before[end + 1] - before[end + 1 - n] + n - 1)
            found[f"top_{n}gram"] = _share(taken, total)
        else:
            again = at[np.arange(len(at)) != first[inverse]]
            cover = np.zeros(len(words) + 1, np.int64)
            np.add.at(cover, again + 1 - n, 1)
            np.add.at(cover, again + 1, -1)
            covered = np.cumsum(cover[:-1]) > 0
            found[f"duplicate_{n}gram"] = _share(np.bincount(text[covered], size[covered], minlength=len(counts)), total)
        # n + 1 words that occur twice begin with n words that do: only these are looked at again.
        at = at[count[inverse] > 1] + 1
        at = at[at < len(words)]
    return found


def _perhaps_twice(keys: np.ndarray) -> np.ndarray:
    """bool: all keys that occur twice, and one in ten or so of the others: much cheaper than to sort them."""
    bits = max(10, (8 * len(keys)).bit_length())
    bucket = (keys >> np.uint64(64 - bits)).astype(np.int64)
    return np.bincount(bucket, minlength=1 << bits)[bucket] > 1


def _bytes(codes: np.ndarray) -> np.ndarray:
    return 1 + (codes > 0xFF) + (codes > 0xFFFF)


def _first_character(raw: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Characters of at most three bytes as numbers; of longer ones the first three bytes."""
    first = raw[starts].astype(np.int64)
    second, third = (raw[np.minimum(starts + i, len(raw) - 1)].astype(np.int64) for i in (1, 2))
    return np.where(first < 0x80, first, np.where(first < 0xE0, first << 8 | second, first << 16 | second << 8 | third))


def _last_character(raw: np.ndarray, stops: np.ndarray) -> np.ndarray:
    start = stops - 1
    for _ in range(3):
        start = np.where((raw[start] & 0xC0) == 0x80, np.maximum(start - 1, 0), start)
    return _first_character(raw, start)


def _bytes_before(raw: np.ndarray, stops: np.ndarray, count: int, starts: np.ndarray) -> np.ndarray:
    """The last `count` bytes of each stretch as a number; 0 where it is shorter."""
    value = np.zeros(len(stops), np.int64)
    for i in range(count, 0, -1):
        value = value << 8 | raw[np.maximum(stops - i, 0)].astype(np.int64)
    return np.where(stops - starts >= count, value, 0)
