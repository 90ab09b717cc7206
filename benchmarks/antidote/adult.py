"""UCI Adult, income: rows of the table's own generators, "anti" and "anti + worst case"."""

from __future__ import annotations

import json
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import DATA, probability, t_interval
from sklearn.ensemble import HistGradientBoostingClassifier

from curate import training
from curate.algorithms import roc
from curate.algorithms.comparable import comparable, deviations
from curate.algorithms.unfairness import unfairness
from curate.audit.corpus import Tables
from curate.generate.table_antidote import TableAntidote

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
        encode = _Encoder(train)
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
            less = [""] * 4 if name == "none" else [t_interval(values[:, i] - base[:, i], 4) for i in (0, 1, 2, 5)]
            lines.append(
                f"| {name} | {np.mean(rows_added[name]):.0f} | {mean[0]:.4f} | {less[0]} | {mean[1]:.4f} | {less[1]} | {mean[2]:.4f} | {less[2]} | {mean[3]:.4f} "
                f"| {mean[4]:.1%} | {mean[5]:.4f} | {less[3]} | {mean[6]:.4f} |"
            )
        lines.append("")
    return lines


def _table_arms(train: list[dict[str, Any]], seed: int) -> dict[str, tuple[np.ndarray, list[dict[str, Any]]]]:
    """Arm -> (the training row each copy is of, the copies)."""
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


def _comparable_pairs(rows: list[dict[str, Any]], most_codes: int, most: float) -> tuple[np.ndarray, np.ndarray]:
    """(left, right) of pairs of comparable rows of other sex, or of other race, with the same label; the five nearest of each row."""
    numeric = [name for name in CELLS if not isinstance(rows[0][name], str)]
    numbers = np.array([[row[name] for name in numeric] for row in rows], float)
    numbers /= deviations(numbers)
    found: set[tuple[int, int]] = set()
    for name in ("sex", "race"):
        coded = [column for column in CELLS if column not in numeric and column != name]
        codes = np.array([[_code(row[column]) for column in coded] for row in rows])
        for label in ("<=50K", ">50K"):
            for value in sorted({row[name] for row in rows}):
                left = np.array([i for i, row in enumerate(rows) if row[LABEL] == label and row[name] == value])
                right = np.array([i for i, row in enumerate(rows) if row[LABEL] == label and row[name] != value])
                near, _ = comparable(numbers[left], codes[left], numbers[right], codes[right], most_codes, most, 5)
                found |= {tuple(sorted((int(left[i]), int(right[j])))) for i, line in enumerate(near) for j in line if j >= 0}
    pairs = np.array(sorted(found))
    return pairs[:, 0], pairs[:, 1]


def _code(value: str) -> int:
    return zlib.crc32(value.encode())


def _logistic(features: np.ndarray, label: np.ndarray, weight: np.ndarray, asked: np.ndarray) -> np.ndarray:
    weights, bias = training.fit_logistic(features, label, weight=weight)
    return probability(asked @ weights + bias)


def _trees(features: np.ndarray, label: np.ndarray, weight: np.ndarray, asked: np.ndarray) -> np.ndarray:
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
