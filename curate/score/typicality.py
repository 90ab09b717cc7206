"""How typical a row is of the trusted rows, by its place among their vectors. Low is junk or rare knowledge: nothing is dropped for it.

Two views, as percentiles among the trusted rows' own scores, averaged. The first is the distance to the k-th nearest trusted row. The second is a
density model over (log of that distance, log of how far apart trusted rows are there: `around` in algorithms/prdc.py), of two kinds:

    left_out   log ratio of the density of trusted rows to that of rows whose like are missing: a tenth of the reference, one cluster, is left out and
               its rows are held against the rest, cluster by cluster (logistic regression). Ours: outliers that need no outliers
    gmm        density of trusted rows alone, a Gaussian mixture with components by BIC, after Forte (Ganguly et al. 2024, arXiv 2410.11149)

Forte's mixture takes precision, recall, density and coverage of several encoders. Over those of one encoder it is worse than chance on CLINC150: the
trusted rows that no ball holds (8 %) share one point of that space, where the mixture is highest and most outliers are. Hence two features without
such points. Measured (benchmarks/results/typicality.md): with left_out, AUROC on CLINC150 rises from .961 to .973; on AG News, where a whole topic
is missing, nothing is gained, and for one topic of four .015 is lost: there `density: none` is better.

The reference is cut in two by a hash of the text. A row is judged by the halves that do not hold its text: a trusted row by one, others by both, mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate import training
from curate.algorithms.kmeans import spherical_kmeans
from curate.algorithms.knn import search, unit_rows
from curate.algorithms.prdc import Prdc, prdc, radii
from curate.cluster._clustering import vector_rows
from curate.errors import UserMistake
from curate.score._trusted import Trusted, draw
from curate.score.perplexity import nullable
from curate.stage import FitEngine, Inputs, Resources, Stage, TableFunction

CLUSTERS = 10  # of a half, left out in turn
COMPONENTS = (1, 2, 4, 8, 16)  # of a mixture, tried
LEAST = 10  # trusted texts in each half
_FLOOR = 0.02  # added to distances before the logarithm: a copy is not infinitely near
_COLUMNS = ("typicality_knn", "typicality_precision", "typicality_recall", "typicality_density", "typicality_coverage", "typicality")


class Typicality(Stage):
    """Scores how typical a row is of trusted rows, by their vectors. All columns are null where a row has no vector; higher is more typical.

    typicality            0 to 1: mean percentile of typicality_knn and of the density model, among the trusted rows' own
    typicality_knn        minus the distance to the k-th nearest trusted row, -2 to 0
    typicality_precision  1 if the row is in the ball of a trusted row, else 0; 0.5 in one half alone. A ball reaches the k-th nearest other trusted row
    typicality_recall     of the k nearest trusted rows, the share whose ball holds the row
    typicality_density    balls that hold the row, over k
    typicality_coverage   0 to 1, depth in the nearest trusted row's ball: from 1/2 on the row is in it (mean of the halves)

    column         vectors, lists of numbers
    k              neighbours. Half the reference judges at a time, so 5 is about 10 of the whole
    density        left_out, gmm, or none: typicality is the percentile of typicality_knn alone
    max_reference  trusted texts that are compared with; of more, those with the smallest draws
    characters     texts that begin with the same so many are one text, and on the same side of the cut
    seed           draws, clusters and mixtures
    """

    trusted: Trusted
    column: str = "vector"
    k: int = Field(5, ge=1, le=100)
    density: Literal["left_out", "gmm", "none"] = "left_out"
    max_reference: int = Field(20_000, ge=2 * LEAST)
    characters: int = Field(20_000, ge=100)
    seed: int = Field(0, ge=0)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine"})
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "scipy", "numpy")

    @model_validator(mode="after")
    def _sound(self) -> Typicality:
        if self.trusted.path:
            raise ValueError("texts of trusted.path have no stored vector: name trusted rows of the corpus by trusted.where")
        return self

    def reads(self) -> tuple[str, ...]:
        return ("text", self.column)

    def reads_if_present(self) -> tuple[str, ...]:
        """Generated rows carry none of the user's columns: they are judged, never trusted."""
        return tuple(name for name in self.trusted.columns() if name not in self.reads())

    def writes(self) -> pa.Schema:
        return pa.schema([(name, pa.float32()) for name in _COLUMNS])

    def resources(self) -> Resources:
        return Resources(memory=768 << 20)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Writes halves.npz (the fields of two `Half`, names beginning with 0_ and 1_) and info.json."""
        keys, side, unit, there = self._reference(inputs)
        sizes = np.bincount(side, minlength=2)
        if sizes.min() < max(LEAST, 2 * self.k):
            needed = 5 * max(LEAST, 2 * self.k)
            raise UserMistake(
                f"typicality: {len(keys)} trusted texts with a vector, cut in {sizes[0]} and {sizes[1]}, are too few for k {self.k}: "
                f"give {needed} or more, or lower k"
            )
        halves, agreement = zip(*(self._half(keys[side == h], unit[side == h], unit[side != h]) for h in (0, 1)), strict=True)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "halves.npz", **{f"{h}_{name}": value for h, half in enumerate(halves) for name, value in half.arrays().items()})
        info: dict[str, Any] = {"trusted_texts": there, "reference": len(keys), "halves": sizes.tolist()}
        if self.density != "none":
            info["agreement"] = agreement
        if there > len(keys):
            info["remarks"] = [f"max_reference {self.max_reference:,}: of {there:,} trusted texts the others are not compared with"]
        (folder / "info.json").write_text(json.dumps(info, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> TableFunction:
        with np.load(folder / "halves.npz", allow_pickle=False) as artifact:
            halves = [Half.of_arrays({name[2:]: artifact[name] for name in artifact.files if name.startswith(f"{h}_")}) for h in (0, 1)]

        def score(table: pa.Table) -> pa.Table:
            unit, bad = unit_rows(vector_rows(table.column(self.column), self.column, halves[0].rows.shape[1]))
            usable = np.ones(len(unit), bool)
            usable[bad] = False
            keys = np.array([self._key(text[: self.characters]) for text in table.column("text").to_pylist()], np.uint64)
            sums, judges = np.zeros((len(_COLUMNS), len(unit))), np.zeros(len(unit))
            for half in halves:
                mine = np.flatnonzero(usable & ~np.isin(keys, half.keys))
                sums[:, mine] += half.scores(unit[mine], self.k)
                judges[mine] += 1
            found = np.where(judges > 0, sums / np.maximum(judges, 1), np.nan)
            return pa.table({name: nullable(values) for name, values in zip(_COLUMNS, found, strict=True)})

        return score

    def _key(self, text: str) -> int:
        return draw(self.seed, "reference", text)

    def _reference(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """(keys uint64 (n,), ascending; 0 or 1 of each, int64 (n,); unit rows float32 (n, d); trusted texts that there are): no text twice."""
        kept: dict[int, tuple[int, np.ndarray]] = {}
        seen: set[int] = set()
        matched = 0
        for table, mask in self.trusted.marked(inputs, "typicality"):
            matched += int(mask.sum())
            if not mask.any():
                continue
            found = table.filter(pa.array(mask))
            unit, bad = unit_rows(vector_rows(found.column(self.column), self.column))
            without = set(bad.tolist())
            for row, text in enumerate(found.column("text").to_pylist()):
                text = text[: self.characters]
                key = self._key(text)
                if row not in without and key not in seen:
                    seen.add(key)
                    kept[key] = (draw(self.seed, "half", text) % 2, unit[row].copy())
            if len(kept) > 2 * self.max_reference:  # memory stays bounded; what is cut could not be chosen any more
                kept = dict(sorted(kept.items())[: self.max_reference])
        if not matched:
            raise self.trusted.none_found("typicality")
        if not kept:
            raise UserMistake(
                f"typicality: none of {matched:,} trusted rows has a vector in '{self.column}': embed them, or name the column of vectors"
            )
        if len(widths := {len(vector) for _, vector in kept.values()}) > 1:
            raise UserMistake(f"typicality: vectors of widths {sorted(widths)} in '{self.column}': embed all rows with one model")
        chosen = sorted(kept)[: self.max_reference]
        return (
            np.array(chosen, np.uint64),
            np.array([kept[key][0] for key in chosen], np.int64),
            np.stack([kept[key][1] for key in chosen]),
            len(seen),
        )

    def _half(self, keys: np.ndarray, rows: np.ndarray, others: np.ndarray) -> tuple[Half, float | None]:
        """One half of the reference, and what it makes of the other; the rank correlation (Spearman) of the two views on that other half."""
        from scipy.stats import spearmanr

        size = radii(rows, self.k)
        found = prdc(others, rows, size, self.k)
        model: dict[str, np.ndarray] = {}
        if self.density != "none":
            seen = features(found)
            center, scale = seen.mean(axis=0), np.maximum(seen.std(axis=0), 1e-6)
            model = {"center": center, "scale": scale}
            if self.density == "left_out":
                strange = features(self._left_out(others, rows, size))
                both = (np.concatenate([seen, strange]) - center) / scale
                weights, bias = training.fit_logistic(both, np.arange(len(both)) < len(seen))
                model |= {"weights": weights, "bias": np.array(bias)}
            else:
                model |= mixture((seen - center) / scale, self.seed)
        near, dense = -found.distance, model_scores(found, model) if model else np.zeros(0)
        several = len(dense) > 0 and np.ptp(near) > 0 and np.ptp(dense) > 0
        agreement = round(float(spearmanr(near, dense).statistic), 6) if several else None
        return Half(keys, rows, size, np.sort(near), np.sort(dense), model), agreement

    def _left_out(self, others: np.ndarray, rows: np.ndarray, size: np.ndarray) -> Prdc:
        """Rows of the other half against this one without the cluster that they belong to, one cluster after the other."""
        centers, labels = spherical_kmeans(rows, CLUSTERS, self.seed)
        theirs = search(others, centers, 1)[1][:, 0]
        parts = []
        for cluster in range(len(centers)):
            mine, rest = theirs == cluster, labels != cluster
            if mine.any() and rest.sum() >= self.k:
                parts.append(prdc(others[mine], rows[rest], size[rest], self.k))
        if not parts:
            raise UserMistake("typicality: the trusted rows are all alike, nothing can be left out of them: set density: none")
        return Prdc(*(np.concatenate(values) for values in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Half:
    """A half of the reference: what rows are measured against.

    keys           uint64 (n,)      its texts
    rows, radii    float32 (n, d), (n,)
    levels         float64 (m,)     minus the distances of the other half's rows to their k-th neighbour here, ascending
    model_levels   float64 (m,)     the density model's scores of the same rows, ascending
    model          center, scale, and weights, bias or shares, means, covariances; empty: no density model
    """

    keys: np.ndarray
    rows: np.ndarray
    radii: np.ndarray
    levels: np.ndarray
    model_levels: np.ndarray
    model: Mapping[str, np.ndarray]

    def arrays(self) -> dict[str, np.ndarray]:
        """For np.savez: names of the model's arrays begin with model-."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "model"}
        return own | {f"model-{name}": value for name, value in self.model.items()}

    @classmethod
    def of_arrays(cls, stored: Mapping[str, np.ndarray]) -> Half:
        own = {name: value for name, value in stored.items() if not name.startswith("model-")}
        return cls(**own, model={name.removeprefix("model-"): value for name, value in stored.items() if name.startswith("model-")})

    def scores(self, unit: np.ndarray, k: int) -> np.ndarray:
        """float64 (columns, m): the columns of `Typicality` for unit rows (m, d). Each depends on its row alone."""
        found = prdc(unit, self.rows, self.radii, k)
        ranks = [place(-found.distance, self.levels)]
        if self.model:
            ranks.append(place(model_scores(found, self.model), self.model_levels))
        return np.stack([-found.distance, found.precision, found.recall, found.density, found.coverage, sum(ranks) / len(ranks)])


def features(found: Prdc) -> np.ndarray:
    """What density models see of rows, float64 (m, 2)."""
    return np.stack([np.log(found.distance + _FLOOR), np.log(found.around + _FLOOR)], axis=1)


def model_scores(found: Prdc, model: Mapping[str, np.ndarray]) -> np.ndarray:
    """float64 (m,), higher is more typical. Sums along rows, not matrix products, whose last digits follow the batch."""
    given = (features(found) - model["center"]) / model["scale"]
    if "weights" in model:
        return (given * model["weights"]).sum(axis=1) + model["bias"]
    return log_density(given, model["shares"], model["means"], model["covariances"])


def place(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Share of the levels that are at most as high, 0 to 1."""
    return np.searchsorted(levels, scores, side="right") / len(levels)


def mixture(given: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Shares (c,), means (c, f) and covariances (c, f, f) of the Gaussian mixture of rows (m, f) with the lowest BIC."""
    from sklearn.mixture import GaussianMixture

    tried = [c for c in COMPONENTS if 10 * c <= len(given)] or [1]
    fitted = [GaussianMixture(c, reg_covar=1e-3, max_iter=300, random_state=seed).fit(given) for c in tried]
    best = fitted[int(np.argmin([model.bic(given) for model in fitted]))]
    return {"shares": best.weights_, "means": best.means_, "covariances": best.covariances_}


def log_density(given: np.ndarray, shares: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Of each row (m, f) under a Gaussian mixture, float64 (m,), nats."""
    parts = []
    for share, mean, covariance in zip(shares, means, covariances, strict=True):
        off = given - mean
        products = off[:, :, None] * off[:, None, :] * np.linalg.inv(covariance)
        squared = products.reshape(len(given), covariance.size).sum(axis=1)
        parts.append(np.log(share) - 0.5 * (squared + np.linalg.slogdet(2 * np.pi * covariance)[1]))
    return np.logaddexp.reduce(parts, axis=0)
