"""Likeness to a small trusted set: a filter trained on it, after Data Filtering Networks and DCLM.

A linear classifier over hashed word 1- and 2-grams tells trusted rows from a sample of the pool (Fang et al. 2023,
arXiv 2309.17425; Li et al. 2024, arXiv 2406.11794, where this model family beat embeddings and perplexity). What
the trusted set is made of decides everything: a little of the pool in it ruins the filter without hurting its AUC.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from curate import models, training
from curate.errors import UserMistake
from curate.score._texts import existing, read_texts
from curate.stage import FitEngine, Inputs, Resources, Stage, TableFunction

HELD_OUT = 5  # one row in five is not trained on
LEVELS = 1000  # steps of the percentile table


class Trusted(BaseModel):
    """Which texts are trusted: rows of the corpus (`where`: column: value, or a list of values; all must hold), or a file.

    path   .jsonl or .parquet with a column `text`, or .txt with one text per line
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    where: dict[str, Any] | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Trusted:
        if (self.where is None) == (self.path is None):
            raise ValueError("trusted needs either `where: {column: value}` or `path: FILE`")
        if self.where is not None and not self.where:
            raise ValueError("trusted.where is empty: name a column and a value")
        return self


class Filter(Stage):
    """Scores how much a row is like the trusted set, with a classifier trained on it.

    filter_score       probability-like score in [0, 1], higher is more like the trusted set
    filter_percentile  0 to 100: the share of the pool's text (in bytes) that scores at most as high

    pool_sample  rows of the pool to train against; trusted rows and copies of their texts are never among them
    features     buckets that word 1- and 2-grams are hashed to
    characters   no more than the first so many of a text are read
    strength     inverse of the L2 regularisation
    """

    trusted: Trusted
    pool_sample: int = Field(20_000, ge=10)
    features: int = Field(1 << 18, ge=2)
    characters: int = Field(20_000, ge=100)
    strength: float = Field(1.0, gt=0)
    seed: int = Field(0, ge=0)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine"})
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "scipy", "numpy")
    # `trusted` is part of `identity`, a file by its content.
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"trusted"})

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def reads_if_present(self) -> tuple[str, ...]:
        """Generated rows carry none of the user's columns: they are judged, never trusted."""
        return tuple(name for name in self.trusted.where or {} if name != "text")

    def writes(self) -> pa.Schema:
        return pa.schema([("filter_score", pa.float32()), ("filter_percentile", pa.float32())])

    def identity(self) -> dict[str, Any]:
        return {
            "trusted": models.file_digest(existing(self.trusted.path, "filter: trusted.path")) if self.trusted.path else self.trusted.where
        }

    def resources(self) -> Resources:
        return Resources(memory=768 << 20)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Writes weights.npy float32 (features,), levels.npy float32 (LEVELS,) and info.json."""
        trusted, pool = self._examples(inputs)
        texts = trusted + pool
        positive = np.arange(len(texts)) < len(trusted)
        # A text's side depends on the text alone: copies never fall on both sides of the split.
        held = np.array([_draw(self.seed, "held out", text) % HELD_OUT == 0 for text in texts])
        for name, part in (("trusted", positive), ("pool", ~positive)):
            if (part & held).sum() < 2 or (part & ~held).sum() < 2:
                raise UserMistake(f"filter: only {part.sum()} {name} texts, too few to train and test on: give 50 or more")
        vectors = self._vectorizer()(texts)
        weights, bias = training.fit_logistic(vectors[~held], positive[~held], self.strength)
        weights = weights.astype(np.float32)
        lengths = np.log([[len(text)] for text in texts])
        weight, _ = training.fit_logistic(lengths[~held], positive[~held])
        info = {
            "trusted_rows": len(trusted),
            "pool_rows": len(pool),
            "held_out_rows": int(held.sum()),
            "auc": round(training.auc((vectors @ weights)[held], positive[held]), 6),
            "auc_length_only": round(training.auc(lengths[held, 0] * weight[0], positive[held]), 6),
            "bias": bias,
        }
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "weights.npy", weights)
        np.save(folder / "levels.npy", self._levels(inputs, weights, bias))
        (folder / "info.json").write_text(json.dumps(info, indent=2, sort_keys=True) + "\n")

    def load(self, folder: Path) -> TableFunction:
        weights, levels = np.load(folder / "weights.npy"), np.load(folder / "levels.npy")
        bias = json.loads((folder / "info.json").read_text())["bias"]
        vectors = self._vectorizer()

        def score(table: pa.Table) -> pa.Table:
            scores = _scores(vectors(table.column("text").to_pylist()), weights, bias)
            percentiles = np.searchsorted(levels, scores, side="right") * (100.0 / len(levels))
            return pa.table({"filter_score": scores, "filter_percentile": percentiles.astype(np.float32)})

        return score

    def _vectorizer(self) -> Callable[[list[str]], Any]:
        from sklearn.feature_extraction.text import HashingVectorizer

        hashing = HashingVectorizer(
            ngram_range=(1, 2), n_features=self.features, alternate_sign=False, norm="l2", token_pattern=r"\w+|[^\w\s]", dtype=np.float32
        )
        return lambda texts: hashing.transform([text[: self.characters] for text in texts])

    def _examples(self, inputs: Inputs) -> tuple[list[str], list[str]]:
        """Trusted texts in their order, and the pool texts with the smallest draws: both without repeats, none in common."""
        if self.trusted.path:
            trusted = dict.fromkeys(read_texts(self.trusted.path, "filter: trusted.path"))
        else:
            trusted = dict.fromkeys(text for table, mask in self._marked(inputs) for text in _picked(table, mask))
        if not trusted:
            raise UserMistake(
                f"filter: no row matches trusted.where {self.trusted.where}: check the value, and that ingest.keep lists the column"
            )
        pool: dict[str, int] = {}
        for table, mask in self._marked(inputs):
            for text in _picked(table, ~mask):
                if text not in trusted and text not in pool:
                    pool[text] = _draw(self.seed, "pool", text)
            if len(pool) > 4 * self.pool_sample:  # memory stays bounded; what is cut could not be chosen any more
                pool = self._smallest(pool)
        if not pool:
            raise UserMistake("filter: every row is trusted, none is left to compare with: narrow trusted.where")
        return list(trusted), list(self._smallest(pool))

    def _smallest(self, pool: dict[str, int]) -> dict[str, int]:
        return dict(sorted(pool.items(), key=lambda item: (item[1], item[0]))[: self.pool_sample])

    def _marked(self, inputs: Inputs) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Each shard with a mask of its trusted rows (bool; none where the trusted texts come from a file)."""
        for _, table in inputs.tables():
            mask = np.full(table.num_rows, self.trusted.where is not None)
            for column, wanted in (self.trusted.where or {}).items():
                values = wanted if isinstance(wanted, list) else [wanted]
                if column not in table.column_names:
                    mask[:] = False
                    continue
                try:
                    found = pc.is_in(table.column(column), pa.array(values).cast(table.schema.field(column).type))
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
                    kind = table.schema.field(column).type
                    raise UserMistake(f"filter: trusted.where compares '{column}' ({kind}) with {values}: give {kind} values") from error
                mask &= found.to_numpy(zero_copy_only=False)
            yield table, mask

    def _levels(self, inputs: Inputs, weights: np.ndarray, bias: float) -> np.ndarray:
        """Scores at equal steps of the pool's text mass, float32 (LEVELS,), ascending: a row's percentile is its place here."""
        vectors = self._vectorizer()
        scores, masses = [], []
        for table, mask in self._marked(inputs):
            texts = _picked(table, ~mask)
            if texts:
                scores.append(_scores(vectors(texts), weights, bias))
                masses.append(np.array([len(text.encode()) for text in texts], np.float64))
        score, mass = np.concatenate(scores), np.concatenate(masses)
        order = np.argsort(score, kind="stable")
        reached = np.cumsum(mass[order]) / mass.sum()
        return score[order][np.searchsorted(reached, (np.arange(LEVELS) + 0.5) / LEVELS)]


def _scores(vectors: Any, weights: np.ndarray, bias: float) -> np.ndarray:
    return (1.0 / (1.0 + np.exp(-(vectors @ weights + bias)))).astype(np.float32)


def _picked(table: pa.Table, mask: np.ndarray) -> list[str]:
    return table.column("text").filter(pa.array(mask)).to_pylist()


def _draw(seed: int, purpose: str, text: str) -> int:
    """64 pseudo-random bits that follow from the text: the same however the corpus is cut or ordered."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, salt=seed.to_bytes(8, "little"), person=purpose.encode()).digest())
