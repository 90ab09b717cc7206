"""Are there natural comparables: rows that are the same but for whom they are about? Forms of an attribute masked, all pairs at .8 by an exact set join."""

from __future__ import annotations

import random
import sys

import numpy as np
import pyarrow.parquet as pq
from common import DATA

from curate.algorithms.set_join import joined, similar_pairs
from curate.dedup.copies import marks
from curate.generate.exchange import attribute_of, spans
from curate.generate.lexicon import Lexicon, read_lexicons

NAMES = ("gender", "origin", "religion", "orientation", "age", "identity")
LEAST = 0.8
CHARACTERS = 4000


def of_comparables() -> list[str]:
    pool = [row for name in ("instruct_pool_t0", "instruct_pool_other") for row in pq.read_table(DATA / f"{name}.parquet").to_pylist()]
    sets = {
        "fair_wiki_toxicity": pq.read_table(DATA / "fair_wiki_toxicity.parquet", columns=["text"]).column(0).to_pylist(),
        "web_docs": pq.read_table(DATA / "web_docs.parquet", columns=["text"]).column(0).to_pylist(),
        "instruct pool": ["\n\n".join((row["instruction"], row["input"], row["output"])) for row in pool],
    }
    lines = [
        f"Pairs of rows that name another value of an attribute and, its forms masked, have a Jaccard of words of {LEAST} or more. `whole`: word 5-grams instead of words. `of people`: pairs of which both sides",
        "could be exchanged, that is where the attribute is not what the row is about.", "",
        "| rows | attribute | rows that name it | pairs by words | whole | of people |", "|---|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    examples: list[str] = []
    for name, texts in sets.items():
        for lexicon in read_lexicons(NAMES, None):
            rows = [text[:CHARACTERS] for text in dict.fromkeys(texts) if spans(text[:CHARACTERS], lexicon)]
            values = [_value(text, lexicon) for text in rows]
            masked = [_masked(text, lexicon) for text in rows]
            counts = []
            for size in (1, 5):
                found = [marks(masked[start : start + 1000], "words", size).sets for start in range(0, len(masked), 1000)]
                pairs, _ = similar_pairs(joined(found), LEAST)
                other = np.array([values[a] != values[b] for a, b in pairs.tolist()], bool)
                counts.append(pairs[other] if len(pairs) else pairs)
            people = [pair for pair in counts[0].tolist() if all(attribute_of(None, None, rows[side], lexicon)[0] for side in pair)]
            lines.append(f"| {name} | {lexicon.attribute} | {len(rows):,} | {len(counts[0]):,} | {len(counts[1]):,} | {len(people)} |")
            for left, right in random.Random(0).sample(people, min(2, len(people))):
                examples.append(f"- {lexicon.attribute}: {rows[left][:160]!r} / {rows[right][:160]!r}")
            print(f"  comparables: {name}, {lexicon.attribute}", file=sys.stderr, flush=True)
    return [*lines, "", *examples]


def _value(text: str, lexicon: Lexicon) -> str:
    named = [span.value for span in spans(text, lexicon)]
    return max(lexicon.values, key=named.count)


def _masked(text: str, lexicon: Lexicon) -> str:
    parts, at = [], 0
    for span in spans(text, lexicon):
        parts += [text[at : span.start], "someone"]
        at = span.end
    return "".join([*parts, text[at:]])
