"""What the parts share: where the data is, the control of random words, and differences with their intervals."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from curate.algorithms import roc
from curate.generate.exchange import spans
from curate.generate.lexicon import Lexicon

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
DRAWS = 1000


def random_words(text: str, lexicon: Lexicon, words: Sequence[str], chance: random.Random) -> str:
    """As many words exchanged as there are mentions, for words drawn from all posts: a change that says nothing of groups."""
    found = [match for match in re.finditer(r"[^\W\d_]+", text) if match[0].lower() not in lexicon.value_of]
    chosen = sorted(chance.sample(range(len(found)), min(len(found), len(spans(text, lexicon)))), reverse=True)
    for place in chosen:
        text = text[: found[place].start()] + chance.choice(words) + text[found[place].end() :]
    return text


def probability(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def draws(seeds: int, items: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    chance = np.random.default_rng(0)
    for _ in range(DRAWS):
        yield chance.integers(seeds, size=seeds), chance.integers(items, size=items)


def mean_draws(ours: np.ndarray, base: np.ndarray) -> np.ndarray:
    difference = ours - base
    return np.array([difference.mean(), *(difference[np.ix_(s, i)].mean() for s, i in draws(*difference.shape))])


def auc_draws(ours: np.ndarray, base: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Of two drawn seeds for each draw of items, not ten: ranks are what costs here."""

    def difference(seeds: np.ndarray, items: np.ndarray) -> float:
        return float(np.mean([roc.auc(ours[s][items], positive[items]) - roc.auc(base[s][items], positive[items]) for s in seeds]))

    everything = difference(np.arange(len(ours)), np.arange(len(positive)))
    return np.array([everything, *(difference(s[:2], i) for s, i in draws(len(ours), len(positive)))])


def interval(draws: np.ndarray, digits: int) -> str:
    low, high = np.quantile(draws[1:], (0.025, 0.975))
    return f"{draws[0]:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def t_interval(difference: np.ndarray, digits: int) -> str:
    from scipy.stats import t

    half = t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    return f"{difference.mean():+.{digits}f} ({difference.mean() - half:+.{digits}f} to {difference.mean() + half:+.{digits}f})"
