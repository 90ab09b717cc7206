"""Words of many texts as 64-bit hashes, and hashes of the n-grams they form: many at a time, no loop over words.

What a word is, is decided on UTF-8 bytes, so that numpy can do it for all rows at once:

    a run of letters, digits, "_" and non-ASCII characters           one word
    each other printable ASCII character                             one word (punctuation counts, as in fastText), a run of the same one too: "...", "----"
    a character of U+2000-207F (dashes, curly quotes) or of U+0080-00BF              one word
    a character of U+3000-DFFF (kana, Han, Hangul), of the further Han planes, or of
    Thai, Lao and Khmer                              one word: most of these scripts put no spaces between words
    white space, the no-break space and control characters           between words

A word's hash is made of its bytes and their number, an n-gram's of its words' in their order. Both depend on nothing else.
"""

from __future__ import annotations

import numpy as np

Hashes = tuple[np.ndarray, np.ndarray]  # uint64 (words,), and where each text's begin and the last's end, int64 (texts + 1,)

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_SEED = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication by it loses nothing modulo 2**64
_NEXT = np.uint64(0xD6E8FEB86659FD93)

# Kinds of bytes.
_SPACE, _WORD, _ALONE = 0, 1, 2
_KIND = np.full(256, _WORD, np.uint8)
_KIND[:0x21] = _KIND[0x7F] = _SPACE
_KIND[[i for i in range(0x21, 0x7F) if not (chr(i).isalnum() or chr(i) == "_")]] = _ALONE


def word_hashes(raw: np.ndarray, ends: np.ndarray) -> Hashes:
    """Hashes of all words of some texts.

    raw   the texts' UTF-8 bytes one after the other, uint8, case folded (or not: then it counts)
    ends  where each begins in `raw` and the last ends, int64 (texts + 1,)
    """
    starts, lengths, begins = find_words(raw, ends)
    return hash_words(raw, starts, lengths), begins


def find_words(raw: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each word starts in `raw` and its bytes, int64 (words,) both; where each text's words begin, int64 (texts + 1,)."""
    if not len(raw):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(len(ends), np.int64)
    kind = _KIND[raw]
    begins_word = np.empty(len(raw), bool)
    begins_word[0] = True
    np.not_equal(kind[1:], kind[:-1], out=begins_word[1:])
    begins_word[1:] |= (kind[1:] == _ALONE) & (raw[1:] != raw[:-1])
    if (raw >= 0x80).any():
        _beyond_ascii(raw, kind, begins_word)
    begins_word[ends[:-1][ends[:-1] < len(raw)]] = True
    starts = np.flatnonzero(begins_word)
    lengths = np.diff(starts, append=len(raw))
    words = kind[starts] != _SPACE
    before = np.concatenate([[0], np.cumsum(words)])
    return starts[words], lengths[words], before[np.searchsorted(starts, ends)]


def hash_words(raw: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """uint64 (words,). Eight bytes of every word at a time: nearly all words are done after one or two rounds."""
    padded = np.concatenate([raw, np.zeros(8, np.uint8)])
    # Element i is the bytes i to i + 7 as one number; the same on any machine.
    eights = np.lib.stride_tricks.as_strided(padded[:8].view("<u8"), (len(raw) + 1,), (1,))
    hashes = lengths.astype(np.uint64) * _SEED
    left = np.arange(len(starts))
    for at in range(0, int(lengths.max(initial=0)), 8):
        if at:
            left = left[lengths[left] > at]
        bits = (np.minimum(lengths[left] - at, 8) * 8).astype(np.uint64)
        piece = eights[starts[left] + at] & (_ALL >> (np.uint64(64) - bits))
        hashes[left] = mix(hashes[left] ^ piece)
    return hashes


def ngram_hashes(words: np.ndarray, begins: np.ndarray, order: int) -> Hashes:
    """Hashes of every `order` words in a row, uint64, and where each text's begin, int64 (texts + 1,); none reaches over a text's end."""
    counts = np.diff(begins)
    place = np.arange(len(words)) - np.repeat(begins[:-1], counts)  # of each word in its text
    grams = words
    for _ in range(1, order):
        grams = longer(grams, words)
    return grams[place >= order - 1], np.concatenate([[0], np.cumsum(np.maximum(counts - (order - 1), 0))])


def longer(grams: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Hashes of the n-grams that end at each word, from those of the (n - 1)-grams that do. What reaches over a text's beginning is for the caller to leave out."""
    before = np.zeros_like(grams)
    before[1:] = grams[:-1]
    return mix(before * _NEXT + words)


def mix(values: np.ndarray) -> np.ndarray:
    """Every bit of a uint64 made to depend on every other: the finaliser of SplitMix64 (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def symbols(raw: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Which of the words that `find_words` found are punctuation or another symbol, bool (words,)."""
    first, second = raw[starts], raw[np.minimum(starts + 1, max(len(raw) - 1, 0))]
    return (_KIND[first] == _ALONE) | (first == 0xC2) | ((first == 0xE2) & (second <= 0x81))


def _beyond_ascii(raw: np.ndarray, kind: np.ndarray, begins_word: np.ndarray) -> None:
    """Mark, in place, where a character that is a word of its own begins and ends, and what is a space."""
    lead = np.flatnonzero(raw >= 0xC2)
    first, second = raw[lead], raw[np.minimum(lead + 1, len(raw) - 1)]
    two = first == 0xC2
    three = ((first == 0xE2) & (second <= 0x81)) | ((first >= 0xE3) & (first <= 0xED))
    three |= ((first == 0xE0) & (second >= 0xB8) & (second <= 0xBB)) | ((first == 0xE1) & ((second == 0x9E) | (second == 0x9F)))
    four = (first == 0xF0) & (second >= 0xA0) & (second <= 0xB3)
    for alone, size in ((two, 2), (three, 3), (four, 4)):
        at = lead[alone]
        begins_word[at] = True
        after = at + size
        begins_word[after[after < len(raw)]] = True
    kind[lead[two & (second == 0xA0)]] = _SPACE
