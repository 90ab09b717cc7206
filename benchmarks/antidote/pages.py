"""The pretraining filter on web_docs, `antidote: true`: what moves when people are exchanged."""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import DATA, random_words, t_interval

from curate.algorithms.unfairness import unfairness
from curate.audit.corpus import Tables
from curate.generate.exchange import variants
from curate.generate.lexicon import read_lexicons
from curate.score.filter import Filter

PAGES = 2500


def of_filter(seeds: int) -> list[str]:
    """`antidote: true` beside copies and random words at equal rows, all inside the filter's own cross-fit."""

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
        less = ["", "", ""] if name == "none" else [t_interval(values[:, i] - base[:, i], digits) for i, digits in ((0, 4), (1, 2), (5, 2))]
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
