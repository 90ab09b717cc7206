"""Rows of the instruct pool and of web_docs with planted copies, and the truth about them.

base     real rows of 30 to 1,000 words, thinned until no two of them share a tenth of their 5-word shingles (exact set join)
filler   up to the wanted number: base rows in which each word is drawn anew from the corpus with probability one half
copies   of n/50 rows each: verbatim, and with 2, 5, 10 and 20 % of their words replaced (70 %), deleted or inserted (15 % each)
truth    exact Jaccard of the word 5-grams of every copy and its source; all other rows are less alike than .1, the filler than .3
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.algorithms.set_join import connected, joined, similar_pairs
from curate.dedup.copies import marks

LEVELS = (0.0, 0.02, 0.05, 0.10, 0.20)
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def real_texts() -> list[str]:
    texts = [
        "\n\n".join(part for part in (row["instruction"], row["input"], row["output"]) if part)
        for name in ("instruct_pool_t0", "instruct_pool_other")
        for row in pq.read_table(DATA / f"{name}.parquet", columns=["instruction", "input", "output"]).to_pylist()
    ]
    return texts + pq.read_table(DATA / "web_docs.parquet", columns=["text"]).column(0).to_pylist()


def grams(text: str) -> set[str]:
    """Word 5-grams, as every tool here is given them."""
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def planted(rows: int, folder: Path) -> tuple[Path, np.ndarray]:
    """(Parquet file with columns id and text; pairs float64 (m, 4): source, copy, level, exact Jaccard)."""
    path, truth = folder / f"planted-{rows}.parquet", folder / f"planted-{rows}.npy"
    if path.is_file() and truth.is_file():
        return path, np.load(truth)
    chance = random.Random(0)
    base = [text for text in dict.fromkeys(real_texts()) if 30 <= len(text.split()) <= 1000]
    sets = joined([marks(base[start : start + 1000]).sets for start in range(0, len(base), 1000)])
    first = connected(similar_pairs(sets, 0.1)[0], np.arange(len(base)))
    base = [base[row] for row in np.flatnonzero(first == np.arange(len(base)))]
    words = [word for text in chance.sample(base, min(3000, len(base))) for word in text.split()]
    each = rows // 50
    wanted, real = rows - each * len(LEVELS), len(base)
    while len(base) < wanted:
        base.append(" ".join(chance.choice(words) if chance.random() < 0.5 else word for word in base[len(base) % real].split()))
    base = base[:wanted]

    def edited(text: str, level: float) -> str:
        found = text.split(" ")
        for place in sorted(chance.sample(range(len(found)), max(1, round(level * len(found)))), reverse=True):
            kind = chance.random()
            if kind < 0.7:
                found[place] = chance.choice(words)
            elif kind < 0.85:
                del found[place]
            else:
                found.insert(place, chance.choice(words))
        return " ".join(found)

    texts, pairs = list(base), []
    for number, source in enumerate(chance.sample(range(len(base)), each * len(LEVELS))):
        level = LEVELS[number // each]
        copy = edited(base[source], level) if level else base[source]
        left, right = grams(base[source]), grams(copy)
        pairs.append((source, len(texts), level, len(left & right) / len(left | right)))
        texts.append(copy)
    order = np.random.default_rng(0).permutation(len(texts))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    found = np.array(pairs)
    found[:, :2] = place[found[:, :2].astype(np.int64)]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"id": [str(row) for row in range(len(order))], "text": [texts[row] for row in order]}), path, row_group_size=10_000
    )
    np.save(truth, found)
    return path, found
