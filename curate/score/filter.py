"""Likeness to a small trusted set: a filter trained on it, after Data Filtering Networks and DCLM.

Linear classifiers (`_members.py`) tell trusted rows from a sample of the pool (Fang et al. 2023, arXiv 2309.17425; Li et al. 2024, arXiv 2406.11794).
What the trusted set is made of decides everything: a little of the pool in it ruins a filter without hurting its AUC. So the fit looks at the set
first, and sets aside the rows of it that look like the pool, and those that look least like the others.

    five models of each member, each trained without one row in five     -> every row is scored by the one that did not see it
    a score's place among the pool's scores, weighted by text            -> percentile, comparable over members (Nemotron-CC, arXiv 2412.02595)
    mean, highest or lowest percentile over members                      -> filter_score, and its own percentile and bin
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator
from scipy import sparse

from curate import training
from curate.algorithms import roc
from curate.errors import UserMistake
from curate.generate.exchange import variants
from curate.generate.lexicon import Lexicon, read_lexicons
from curate.score import _members
from curate.score._members import Member
from curate.score._trusted import Trusted, draw
from curate.stage import FitEngine, Inputs, Resources, Stage, TableFunction

FOLDS = 5  # one row in five is not seen by the model that scores it
LEVELS = 1000  # steps of a percentile table
BINS = 20
LEXICONS = ("gender", "origin", "religion", "orientation", "age")
FEW = 100  # pool texts of a value of `words_within`: fewer are held against all
MANY = 0.05  # of the trusted rows: where more are set aside, the fit says so
Judge = Callable[[pa.Table, np.ndarray], dict[str, Any]]
_LISTED = 50  # rows set aside that info.json shows
_SOURCES = 10  # no more values of `held_out_by` than that are left out one by one


@dataclass
class Examples:
    """Rows to train on. table  text and, for the embedding, vectors; positive  bool (rows,), trusted; fold  int (rows,); source, group  str or None of each row."""

    table: pa.Table
    positive: np.ndarray
    fold: np.ndarray
    source: list[str | None]
    group: np.ndarray

    def mass(self) -> np.ndarray:
        """Bytes of each text, float64 (rows,)."""
        return pc.binary_length(self.table.column("text")).to_numpy().astype(np.float64)

    def check(self, remedy: str) -> None:
        """Refuse what cannot be parted into folds that all hold both kinds."""
        for name, part in (("trusted", self.positive), ("pool", ~self.positive)):
            if min(np.bincount(self.fold[part], minlength=FOLDS)) < 1 or part.sum() < 2 * FOLDS:
                raise UserMistake(f"filter: only {part.sum()} {name} texts, too few to train and test on: {remedy}")

    def only(self, rows: np.ndarray) -> Examples:
        kept = np.flatnonzero(rows)
        return Examples(self.table.take(kept), self.positive[rows], self.fold[rows], [self.source[i] for i in kept], self.group[kept])


@dataclass
class Levels:
    """What percentiles are read from: scores of the pool at equal steps of its text.

    members   float64 (members, LEVELS);  combined  float64 (LEVELS,)
    words     of the member `words`, for texts of one value of `words_within`: value -> float64 (LEVELS,)
    """

    members: np.ndarray
    words: dict[str, np.ndarray]
    combined: np.ndarray

    def save(self, path: Path) -> None:
        groups = sorted(self.words)
        words = np.array([self.words[group] for group in groups]).reshape(len(groups), LEVELS)
        np.savez(path, members=self.members, combined=self.combined, groups=np.array(groups, np.str_), words=words)

    @staticmethod
    def read(path: Path) -> Levels:
        with np.load(path, allow_pickle=False) as found:
            return Levels(found["members"], dict(zip(found["groups"].tolist(), found["words"], strict=True)), found["combined"])


class Filter(Stage):
    """Scores how much a row is like the trusted set, with classifiers trained on it. No row is scored by a model that was trained on it.

    filter_score       0 to 1: the members' percentiles combined, higher is more like the trusted set
    filter_percentile  0 to 100: the share of the pool's text (in bytes) whose filter_score is at most as high
    filter_bin         0 to 19, in steps of 5 of filter_percentile
    filter_MEMBER, filter_MEMBER_bin   percentile and bin of each member
    quality            where `labels` are given

    members      words, lines, embedding, scores: see _members.py. embedding reads the column `column`, scores the columns `numbers`
    words_within  a column, such as `language`: by its words a text is held against pool texts of its own value alone (of values with few, against all). Words
                 know the language of the trusted texts before anything else, and without this they put texts of another one below its own
    combine      mean, max (a row that any member likes: Nemotron-CC) or min
    labels       quality label: its lowest bin, such as {low: 0, medium: 7, high: 18}
    set_aside    share of the trusted rows that are not trained on: those that models trained without them find least like the others
    like_pool    trusted rows that these models put below this percentile of the pool's text are not trained on either, however many; 0: none
    held_out_by  a column, such as a source: the fit reports how well trusted rows of a value that it did not train on are told from the pool (ten values at most)
    pool_sample  rows of the pool to train against; trusted rows and copies of their texts are never among them
    features     buckets that word 1- and 2-grams are hashed to, a power of two
    characters   no more than the first so many of a text are read
    strength     inverse of the L2 regularisation
    antidote     train also on copies of the texts in which people (and groups that are spoken of) are of another group: what a text is worth must not
                 depend on whom it is about. For members that read the text itself. See `generate/exchange.py`; one copy for each attribute, a text and
                 its copies together weigh as much as one text
    unfairness   also write filter_unfairness: how far, at most, filter_percentile moves (0 to 1) when the people of the text are exchanged; null where
                 no exchange is possible. It says which rows `antidote: {by: filter_unfairness}` should start from
    lexicons     names of the lexicons of both
    """

    trusted: Trusted
    members: tuple[_members.Name, ...] = Field(("words", "lines"), min_length=1)
    combine: Literal["mean", "max", "min"] = "mean"
    labels: dict[str, int] | None = None
    set_aside: float = Field(0.02, ge=0, lt=1)
    like_pool: float = Field(50, ge=0, le=100)
    held_out_by: str | None = None
    words_within: str | None = None
    column: str = "vector"
    numbers: tuple[str, ...] = ()
    pool_sample: int = Field(20_000, ge=10)
    features: int = Field(1 << 18, ge=2)
    characters: int = Field(20_000, ge=100)
    strength: float = Field(10.0, gt=0)
    antidote: bool = False
    unfairness: bool = False
    lexicons: tuple[str, ...] = Field(LEXICONS, min_length=1)
    seed: int = Field(0, ge=0)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine"})
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "scipy", "numpy")
    # `trusted` is part of `identity`, a file by its content.
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"trusted"})

    @model_validator(mode="after")
    def _sound(self) -> Filter:
        if self.features & (self.features - 1):
            raise ValueError(f"features is {self.features}: give a power of two, such as {1 << self.features.bit_length()}")
        if (self.antidote or self.unfairness) and self.stored():
            raise ValueError(
                f"antidote and unfairness need members that read the text alone: a copy has no stored {', '.join(self.stored())}"
            )
        if len(set(self.members)) < len(self.members):
            raise ValueError("members names one twice: name each once")
        if self.labels is not None and (0 not in self.labels.values() or not all(0 <= bin < BINS for bin in self.labels.values())):
            raise ValueError(f"labels: give each label its lowest bin, from 0 to {BINS - 1}, and one label 0: {{low: 0, high: 18}}")
        if self.labels is not None and len(set(self.labels.values())) < len(self.labels):
            raise ValueError("labels: two labels begin at one bin: give each its own lowest bin")
        if self.held_out_by and self.trusted.path:
            raise ValueError("held_out_by: texts of trusted.path have no columns: leave it out, or name trusted rows by trusted.where")
        if ("scores" in self.members) != bool(self.numbers):
            raise ValueError(
                "members: `scores` reads the columns that `numbers` names: give both, {members: [words, scores], numbers: [classifier]}"
            )
        if self.words_within and "words" not in self.members:
            raise ValueError(f"words_within: {self.words_within} is for the member words: add it to members, or leave words_within out")
        if self.stored() and self.trusted.path:
            raise ValueError(
                "members: texts of trusted.path have no stored vectors or scores: leave embedding and scores out, or name trusted rows by trusted.where"
            )
        return self

    def stored(self) -> tuple[str, ...]:
        """Columns beside the text that members read."""
        return (*((self.column,) if "embedding" in self.members else ()), *self.numbers)

    def beside(self) -> tuple[str, ...]:
        """Columns beside the text that are read."""
        return (*self.stored(), *([self.words_within] if self.words_within else ()))

    def reads(self) -> tuple[str, ...]:
        return ("text", *self.beside())

    def reads_if_present(self) -> tuple[str, ...]:
        """Generated rows carry none of the user's columns: they are judged, never trusted."""
        named = [*self.trusted.columns(), *([self.held_out_by] if self.held_out_by else [])]
        return tuple(dict.fromkeys(name for name in named if name not in self.reads()))

    def writes(self) -> pa.Schema:
        columns = [("filter_score", pa.float32()), ("filter_percentile", pa.float32()), ("filter_bin", pa.uint8())]
        for name in self.members:
            columns += [(f"filter_{name}", pa.float32()), (f"filter_{name}_bin", pa.uint8())]
        columns += [("quality", pa.string())] if self.labels else []
        return pa.schema([*columns, *([("filter_unfairness", pa.float32())] if self.unfairness else [])])

    def identity(self) -> dict[str, Any]:
        lexicons = [lexicon.digest for lexicon in self._lexicons()]
        return {**self.trusted.identity("filter"), **({"lexicons": lexicons} if lexicons else {})}

    def _lexicons(self) -> tuple[Lexicon, ...]:
        return read_lexicons(self.lexicons, None) if self.antidote or self.unfairness else ()

    def resources(self) -> Resources:
        return Resources(memory=768 << 20)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Writes weights-MEMBER.npy float32 (FOLDS, columns), levels.npz (see `Levels`) and info.json."""
        found = self._examples(inputs)
        found.check("give 50 or more")
        _, scores, levels = self._cross_fit(found)
        combined = self._combined(scores, levels, found.group)[0]
        aside = self._aside(found, combined, _percentiles(combined, levels.combined))
        listed = [found.table.column("text")[int(i)].as_py()[:200] for i in np.flatnonzero(aside)[:_LISTED]]
        found = found.only(~aside)
        found.check("lower set_aside and like_pool")
        weights, scores, levels = self._cross_fit(found)
        combined, parts = self._combined(scores, levels, found.group)
        lengths = np.log(np.maximum(found.mass(), 1))
        low, high = roc.auc_interval(combined, found.positive)
        by_length = roc.auc(lengths, found.positive)
        remarks: list[str] = []
        if aside.sum() > MANY * (aside.sum() + found.positive.sum()):
            remarks.append(
                f"{aside.sum():,} trusted rows look more like the pool than like the other trusted rows and were not trained on: read them"
            )
        info = {
            "trusted_rows": int(found.positive.sum()),
            "pool_rows": int((~found.positive).sum()),
            "held_out_rows": len(found.positive),
            "set_aside_rows": int(aside.sum()),
            "set_aside": listed,
            "auc": round(roc.auc(combined, found.positive), 6),
            "auc_interval": [round(low, 6), round(high, 6)],
            "auc_length_only": round(max(by_length, 1 - by_length), 6),
            "auc_by_member": {name: round(roc.auc(part, found.positive), 6) for name, part in zip(self.members, parts, strict=True)},
            "auc_by_source": self._by_source(found, remarks),
            "like_trusted": round(roc.hidden_share(combined, found.positive), 6),
            "bias": {name: [round(float(b), 9) for b in bias] for name, (_, bias) in weights.items()},
        }
        if remarks:
            info["remarks"] = remarks
        folder.mkdir(parents=True, exist_ok=True)
        for name, (vectors, _) in weights.items():
            np.save(folder / f"weights-{name}.npy", vectors)
        levels.save(folder / "levels.npz")
        (folder / "info.json").write_text(json.dumps(info, indent=2, sort_keys=True) + "\n")

    def load(self, folder: Path) -> TableFunction:
        score = self.judge(folder)

        def filter_(table: pa.Table) -> pa.Table:
            fold = self.folds(table.column("text").to_pylist())
            columns = score(table, fold)
            if self.labels:
                names, lowest = zip(*sorted(self.labels.items(), key=lambda item: item[1]), strict=True)
                columns["quality"] = pa.array(
                    np.array(names)[np.searchsorted(lowest, columns["filter_bin"], side="right") - 1], pa.string()
                )
            if self.unfairness:
                columns["filter_unfairness"] = self._unfairness(table, fold, score)
            return pa.table(columns)

        return filter_

    def judge(self, folder: Path) -> Judge:
        """What scores texts by the models that are asked for: (table, int (rows,), a fold for each) -> columns of every row.

        An edited text is compared with its original by one model: two would differ by more than the edit."""
        levels = Levels.read(folder / "levels.npz")
        bias = json.loads((folder / "info.json").read_text())["bias"]
        weights = {name: np.load(folder / f"weights-{name}.npy") for name in self.members}
        members = self._looks()

        def score(table: pa.Table, fold: np.ndarray) -> dict[str, Any]:
            scores = [member.products(table, weights[member.name], fold) + np.array(bias[member.name])[fold] for member in members]
            combined, parts = self._combined(scores, levels, self._groups(table))
            percentile = _percentiles(combined, levels.combined)
            columns: dict[str, Any] = {
                "filter_score": combined.astype(np.float32),
                "filter_percentile": percentile.astype(np.float32),
                "filter_bin": _bins(percentile),
            }
            for name, part in zip(self.members, parts, strict=True):
                columns |= {f"filter_{name}": part.astype(np.float32), f"filter_{name}_bin": _bins(part)}
            return columns

        return score

    def _looks(self) -> list[Member]:
        return [Member(name, self.features, self.characters, self.column, self.numbers) for name in self.members]

    def folds(self, texts: list[str]) -> np.ndarray:
        """Which model scores each text: the one that was not trained on it nor on a copy of it."""
        return np.array([draw(self.seed, "held out", text[: self.characters]) % FOLDS for text in texts], np.int64)

    def _groups(self, table: pa.Table) -> np.ndarray:
        """The value of `words_within` of each row, as words; "" where there is none."""
        if self.words_within is None:
            return np.full(table.num_rows, "", object)
        return np.array(pc.fill_null(table.column(self.words_within).cast(pa.string()), "").to_pylist(), object)

    def _cross_fit(self, found: Examples) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[np.ndarray], Levels]:
        """({member: weights (FOLDS, columns) and biases (FOLDS,)}, each member's score of every row by the model that did not see it, levels)."""
        weights: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        scores: list[np.ndarray] = []
        copies, of = self._copies(found.table)
        for member in self._looks():
            vectors = member.features(found.table)
            fitted = []
            copied = member.features(copies) if len(of) else None
            for fold in range(FOLDS):
                seen, also = np.flatnonzero(found.fold != fold), np.flatnonzero(found.fold[of] != fold)
                rows = vectors[seen] if copied is None else sparse.vstack([vectors[seen], copied[also]]).tocsr()
                origin = np.concatenate([seen, of[also]])
                weight = None if copied is None else (1 / np.bincount(origin, minlength=len(found.fold)).clip(1))[origin]
                fitted.append(training.fit_logistic(rows, found.positive[origin], self.strength, member.name == "scores", weight))
            weights[member.name] = (np.array([w for w, _ in fitted], np.float32), np.array([b for _, b in fitted]))
            del vectors
            own, bias = weights[member.name]
            scores.append(member.products(found.table, own, found.fold) + np.round(bias, 9)[found.fold])
        return weights, scores, self._levels(scores, found, np.ones(len(found.fold), bool))

    def _copies(self, table: pa.Table) -> tuple[pa.Table, np.ndarray]:
        """(texts in which an attribute's mentions are exchanged, one other value each; the row that each is a copy of, int (copies,))"""
        texts: list[str] = []
        of: list[int] = []
        lexicons = self._lexicons() if self.antidote else ()
        for row, text in enumerate(table.column("text").to_pylist() if lexicons else ()):
            for lexicon in lexicons:
                made = [copy for _, copy in variants(text, [lexicon], of_people=False) if copy != text]
                if made:
                    texts.append(made[draw(self.seed, "antidote", f"{lexicon.attribute} {text}") % len(made)])
                    of.append(row)
        return pa.table({"text": pa.array(texts, pa.large_string())}), np.array(of, np.int64)

    def _unfairness(self, table: pa.Table, fold: np.ndarray, score: Judge) -> pa.Array:
        """Of each row the largest change of filter_percentile, 0 to 1, over all exchanges of its people, by the model that scores the row."""
        copies: list[str] = []
        of: list[int] = []
        lexicons = self._lexicons()
        for row, text in enumerate(table.column("text").to_pylist()):
            made = [copy for _, copy in variants(text[: self.characters], lexicons)]
            copies, of = copies + made, of + [row] * len(made)
        found: list[float | None] = [None] * table.num_rows
        if copies:
            given = table.take(pa.array(of)).drop_columns("text").append_column("text", pa.array(copies, pa.large_string()))
            before = score(table, fold)["filter_percentile"][of]
            gaps = np.abs(score(given, fold[of])["filter_percentile"] - before) / 100
            for row, gap in zip(of, gaps.tolist(), strict=True):
                found[row] = max(gap, found[row] or 0.0)
        return pa.array(found, pa.float32())

    def _levels(self, scores: list[np.ndarray], found: Examples, rows: np.ndarray) -> Levels:
        """Levels of the pool rows among `rows`, bool; `scores` of all."""
        pool, mass = rows & ~found.positive, found.mass()
        words: dict[str, np.ndarray] = {}
        if self.words_within:
            own = scores[self.members.index("words")]
            for group in sorted(set(found.group[pool]) - {""}):
                same = pool & (found.group == group)
                if same.sum() >= FEW:
                    words[group] = _levels(own[same], mass[same])
        levels = Levels(np.array([_levels(score[pool], mass[pool]) for score in scores]), words, np.zeros(LEVELS))
        combined, _ = self._combined([score[pool] for score in scores], levels, found.group[pool])
        levels.combined = _levels(combined, mass[pool])
        return levels

    def _combined(self, scores: list[np.ndarray], levels: Levels, group: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """(combined score in [0, 1], percentile of each member in [0, 100])"""
        parts = [_percentiles(score, level) for score, level in zip(scores, levels.members, strict=True)]
        for value, level in levels.words.items():
            same = group == value
            place = self.members.index("words")
            parts[place][same] = _percentiles(scores[place][same], level)
        stacked = np.array(parts)
        combined = stacked.mean(axis=0) if self.combine == "mean" else stacked.max(axis=0) if self.combine == "max" else stacked.min(axis=0)
        return combined / 100, parts

    def _aside(self, found: Examples, combined: np.ndarray, percentile: np.ndarray) -> np.ndarray:
        """bool (rows,): trusted rows that are least like the others, and those that are like the lesser part of the pool."""
        trusted = np.flatnonzero(found.positive)
        count = int(self.set_aside * len(trusted))
        aside = found.positive & (percentile < self.like_pool)
        aside[trusted[np.argsort(combined[trusted], kind="stable")[:count]]] = True
        return aside

    def _by_source(self, found: Examples, remarks: list[str]) -> dict[str, float]:
        """AUC of the trusted rows of each source, by models that saw none of it, against pool rows that these did not see either."""
        if self.held_out_by is None:
            return {}
        own = sorted({source for source, trusted in zip(found.source, found.positive, strict=True) if trusted and source is not None})
        if not own:
            raise UserMistake(
                f"filter: no trusted row has a value in held_out_by '{self.held_out_by}': check the name, and that ingest.keep lists it"
            )
        if len(own) == 1:
            remarks.append(f"held_out_by: all trusted rows have {self.held_out_by} {own[0]}, nothing is left to train on without it")
        if len(own) > _SOURCES:
            remarks.append(f"held_out_by: of {len(own)} values of {self.held_out_by} the first {_SOURCES} were left out, one by one")
        result = {}
        for source in own[:_SOURCES] if len(own) > 1 else []:
            is_source = np.array([value == source for value in found.source])
            left_out = np.where(found.positive, is_source, found.fold == 0)
            scores = []
            for member in self._looks():
                vectors = member.features(found.table)
                seen = np.flatnonzero(~left_out & ~is_source)
                weights, _ = training.fit_logistic(vectors[seen], found.positive[seen], self.strength, scaled=member.name == "scores")
                scores.append(vectors @ weights)
            combined, _ = self._combined(scores, self._levels(scores, found, left_out), found.group)
            result[source] = round(roc.auc(combined[left_out], found.positive[left_out]), 6)
        return result

    def _examples(self, inputs: Inputs) -> Examples:
        """Trusted rows in their order, and the pool rows with the smallest draws: no text twice, none in both."""
        trusted: dict[str, _Row] = {}
        if self.trusted.path:
            trusted = dict.fromkeys((text[: self.characters] for text in self.trusted.texts(inputs, "filter")), (0, None, "", ()))
        else:
            for table, mask in self.trusted.marked(inputs, "filter"):
                for text, source, group, stored in self._picked(table, mask):
                    trusted.setdefault(text, (0, source, group, stored))
        if not trusted:
            raise self.trusted.none_found("filter")
        pool: dict[str, _Row] = {}
        for table, mask in self.trusted.marked(inputs, "filter"):
            for text, source, group, stored in self._picked(table, ~mask):
                if text not in trusted and text not in pool:
                    pool[text] = (draw(self.seed, "pool", text), source, group, stored)
            if len(pool) > 2 * self.pool_sample:  # memory stays bounded; what is cut could not be chosen any more
                pool = self._smallest(pool)
        if not pool:
            raise UserMistake("filter: every row is trusted, none is left to compare with: narrow trusted.where")
        rows = {**trusted, **self._smallest(pool)}
        columns: dict[str, Any] = {"text": pa.array(list(rows), pa.large_string())}
        for place, name in enumerate(self.stored()):
            values = [stored[place] for *_, stored in rows.values()]
            width = len(values[0]) if isinstance(values[0], np.ndarray) else 0
            columns[name] = pa.array(values, pa.list_(pa.float32(), width) if width else pa.float32())
        positive = np.arange(len(rows)) < len(trusted)
        groups = np.array([group for _, _, group, _ in rows.values()], object)
        return Examples(pa.table(columns), positive, self.folds(list(rows)), [source for _, source, _, _ in rows.values()], groups)

    def _picked(self, table: pa.Table, mask: np.ndarray) -> Iterator[tuple[str, str | None, str, tuple[Any, ...]]]:
        """(text, cut to what is read; its values of `held_out_by` and `words_within`; its stored vector and numbers) of the rows under the mask."""
        found = table.filter(pa.array(mask))
        there = self.held_out_by is not None and self.held_out_by in found.column_names
        sources = found.column(self.held_out_by).cast(pa.string()).to_pylist() if there else [None] * found.num_rows
        stored: list[Any] = [_members.vectors(found, self.column)] if "embedding" in self.members else []
        numbers = _members.scores(found, self.numbers)
        stored += [np.where(numbers[:, 2 * n + 1] > 0, numbers[:, 2 * n], np.nan) for n in range(len(self.numbers))]
        groups = self._groups(found)
        for i, (text, source) in enumerate(zip(found.column("text").to_pylist(), sources, strict=True)):
            yield text[: self.characters], source, groups[i], tuple(values[i] for values in stored)

    def _smallest(self, pool: dict[str, _Row]) -> dict[str, _Row]:
        return dict(sorted(pool.items(), key=lambda item: (item[1][0], item[0]))[: self.pool_sample])


_Row = tuple[int, str | None, str, tuple[Any, ...]]  # draw, values of `held_out_by` and `words_within`, what is stored of the row


def _levels(scores: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Scores at equal steps of the text's mass, float64 (LEVELS,), ascending."""
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(mass[order]) / max(mass.sum(), 1)
    return scores[order][np.minimum(np.searchsorted(reached, (np.arange(LEVELS) + 0.5) / LEVELS), len(order) - 1)]


def _percentiles(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Share of the mass that scores at most as high, 0 to 100, float64."""
    return np.searchsorted(levels, scores, side="right") * (100.0 / len(levels))


def _bins(percentiles: np.ndarray) -> np.ndarray:
    return np.minimum(percentiles * (BINS / 100), BINS - 1).astype(np.uint8)
