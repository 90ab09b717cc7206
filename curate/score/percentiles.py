"""Scores as percentiles among comparable rows: how high a row scores among rows of its length, cluster or language.

A perplexity is high because a text is bad, and also because it is short, about something rare, or in another language. A bound on the raw column
therefore empties whole topics (POINTS, Liu et al. 2024, arXiv 2409.04828, warns of it); CCNet (Wenzek et al. 2020, arXiv 1911.00359) takes its
percentiles within each language. Tables are weighted by text, as in Nemotron-CC (arXiv 2412.02595): half of the tokens lie below 50, not half of the rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate.errors import UserMistake
from curate.stage import FitEngine, Inputs, Stage, TableFunction

LEVELS = 1000  # steps of a table, at most: a row that the fit has not seen is placed to within 0.1
LENGTH = "length"  # the name that stands for bins of `length_by`


class Percentiles(Stage):
    """Places each row's score among the scores of comparable rows. The tables are a model: rows that come later are placed by the same ones.

    COLUMN_percentile  0 to 100: the share of the text (`tokens`) of comparable rows whose score is at most as high; null where the score is null

    columns      score column -> what is compared within: `length` (bins of `length_by`) and names of columns, such as cluster or language; []: among all
    length_bins  bins of `length_by`, of equal shares of the rows that have the score
    length_by    `tokens` is known for every row; of instruction rows `response_tokens` or `scored_tokens` may say more
    least        rows that a group needs for a table of its own

    The rows of a smaller group, and those whose value of a name is null or new, are placed in the next coarser one: without the last name, then without
    the one before it, at last among all. So [length, cluster] gives up the cluster first. info.json counts these rows.

    Windows are bounds on the new column, in `select: {where: {perplexity_percentile: ...}}`:

        {max: 20}            lowest-p: what the model finds easiest (POINTS)
        {max: 30}            CCNet's head, with `perplexity: [language]`;  {min: 30, max: 60} its middle;  {min: 60} its tail
        {min: 10, max: 90}   a band: neither boilerplate, which is easy, nor noise
    """

    columns: dict[str, tuple[str, ...]] = Field(min_length=1)
    length_bins: int = Field(8, ge=1, le=1000)
    length_by: str = "tokens"
    least: int = Field(50, ge=1)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})  # a copy must not weigh twice
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    @model_validator(mode="after")
    def _sound(self) -> Percentiles:
        for column, names in self.columns.items():
            if len(set(names)) < len(names):
                raise ValueError(f"columns.{column} names one twice: name each once")
        return self

    def reads(self) -> tuple[str, ...]:
        length = (self.length_by,) if any(LENGTH in names for names in self.columns.values()) else ()
        return tuple(dict.fromkeys(("tokens", *self.columns, *length)))

    def reads_if_present(self) -> tuple[str, ...]:
        """Generated rows carry none of the user's columns: they are placed among rows of every value."""
        return tuple(dict.fromkeys(name for name in self._names() if name not in self.reads()))

    def writes(self) -> pa.Schema:
        return pa.schema([(f"{column}_percentile", pa.float32()) for column in self.columns])

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Writes tables.npz (see `_save`) and info.json."""
        coded = {name: _Labels() for name in self._names()}
        numbers: dict[str, list[np.ndarray]] = {name: [] for name in self.reads()}
        codes: dict[str, list[np.ndarray]] = {name: [] for name in coded}
        seen: set[str] = set()
        for _, table in inputs.tables():
            seen |= set(table.column_names)
            for name, arrays in numbers.items():
                arrays.append(_numbers(table, name))
            for name, arrays in codes.items():
                arrays.append(coded[name].learned(table, name))
        missing = [name for name in coded if seen and name not in seen]
        if missing:
            raise UserMistake(f"percentiles: no row has a column '{missing[0]}': add the step that makes it, or list it in ingest.keep")
        rows = _Rows(
            {name: np.concatenate([np.empty(0), *arrays]) for name, arrays in numbers.items()},
            {name: coded[name].in_order(np.concatenate([np.empty(0, np.int64), *arrays])) for name, arrays in codes.items()},
        )
        labels = {name: coded[name].labels for name in coded}
        made, about, remarks = [], {}, []
        for column, names in self.columns.items():
            there = ~np.isnan(rows.numbers[column])
            scored = _Rows(*({name: values[there] for name, values in part.items()} for part in rows))
            edges = _edges(scored.numbers[self.length_by], self.length_bins) if LENGTH in names else np.empty(0)
            keys = self._keys(names, scored, edges, labels)
            tables = [
                _tables(key, scored.numbers[column], scored.numbers["tokens"], self.least if depth else 1) for depth, key in enumerate(keys)
            ]
            made.append(_Column(edges, tables))
            about[column] = self._about(names, keys, tables)
            if remark := _remark(column, about[column], self.least):
                remarks.append(remark)
        _save(folder / "tables.npz", labels, made)
        (folder / "info.json").write_text(
            json.dumps({"columns": about, "remarks": remarks}, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )

    def load(self, folder: Path) -> TableFunction:
        labels, made = _load(folder / "tables.npz", [len(names) + 1 for names in self.columns.values()])
        coded = {name: _Labels(known) for name, known in labels.items()}

        def place(table: pa.Table) -> pa.Table:
            rows = _Rows(
                {name: _numbers(table, name) for name in self.reads()}, {name: known.codes(table, name) for name, known in coded.items()}
            )
            found = []
            for (column, names), (edges, tables) in zip(self.columns.items(), made, strict=True):
                scores = rows.numbers[column]
                depths, groups = _placed(self._keys(names, rows, edges, labels), tables)
                depths = np.where(np.isnan(scores), -1, depths)
                values = np.full(len(table), np.nan)
                for depth, of in enumerate(tables):
                    for group in np.unique(groups[depths == depth]):
                        mine = (depths == depth) & (groups == group)
                        values[mine] = of.percentiles(int(group), scores[mine])
                found.append(pa.array(values.astype(np.float32), pa.float32(), from_pandas=True))
            return pa.table(found, schema=self.writes())

        return place

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for names in self.columns.values() for name in names if name != LENGTH))

    def _keys(self, names: tuple[str, ...], rows: _Rows, edges: np.ndarray, labels: dict[str, list[str]]) -> list[np.ndarray]:
        """The group of each row, int64 (n,), among all rows, by the first name, by the first two, ...; -1 where one of them is not known."""
        keys = [np.zeros(len(rows.numbers["tokens"]), np.int64)]
        for name in names:
            if name == LENGTH:
                length = rows.numbers[self.length_by]
                codes, size = np.where(np.isnan(length), -1, np.searchsorted(edges, length, side="right")), len(edges) + 1
            else:
                codes, size = rows.codes[name], len(labels[name])
            keys.append(np.where((keys[-1] < 0) | (codes < 0), -1, keys[-1] * size + codes))
        return keys

    def _about(self, names: tuple[str, ...], keys: list[np.ndarray], tables: list[_Tables]) -> dict[str, Any]:
        depths, _ = _placed(keys, tables)
        counts = np.bincount(depths, minlength=len(tables))
        within = {_spoken(names[:depth]): int(counts[depth]) for depth in range(len(names), -1, -1)}
        groups = len(np.unique(keys[-1][keys[-1] >= 0]))
        return {"rows": len(depths), "groups": groups, "groups_with_a_table": len(tables[-1].keys), "rows_within": within}


class _Rows(NamedTuple):
    """numbers  float64 (n,) by column, NaN: none;  codes  int64 (n,) by name, a place among its labels, -1: null or not known."""

    numbers: dict[str, np.ndarray]
    codes: dict[str, np.ndarray]


class _Tables(NamedTuple):
    """Of every group of one grouping: table g is levels and shares [starts[g]:starts[g + 1]].

    keys    int64 (groups,), ascending
    levels  float64, scores, ascending in each group; at most LEVELS of them
    shares  float64: percent of the group's text that scores at most as high as the level
    """

    keys: np.ndarray
    starts: np.ndarray
    levels: np.ndarray
    shares: np.ndarray

    def percentiles(self, group: int, scores: np.ndarray) -> np.ndarray:
        here = slice(self.starts[group], self.starts[group + 1])
        reached = np.searchsorted(self.levels[here], scores, side="right")
        return np.concatenate([[0.0], self.shares[here]])[reached]


class _Column(NamedTuple):
    edges: np.ndarray  # float64: a length at an edge is in the bin above it
    tables: list[_Tables]  # among all, by the first name, by the first two, ...


class _Labels:
    """Numbers for the values of a column, as text."""

    def __init__(self, labels: list[str] | None = None):
        self.known = {label: code for code, label in enumerate(labels or [])}

    @property
    def labels(self) -> list[str]:
        return sorted(self.known)

    def learned(self, table: pa.Table, name: str) -> np.ndarray:
        """Codes in the order in which labels were met; `in_order` makes them those of `labels`."""
        for label in self._encoded(table, name).dictionary.to_pylist():
            self.known.setdefault(label, len(self.known))
        return self.codes(table, name)

    def codes(self, table: pa.Table, name: str) -> np.ndarray:
        encoded = self._encoded(table, name)
        of = np.array([*(self.known.get(label, -1) for label in encoded.dictionary.to_pylist()), -1], np.int64)
        return of[np.asarray(encoded.indices.fill_null(len(of) - 1))]

    def in_order(self, codes: np.ndarray) -> np.ndarray:
        place = {label: code for code, label in enumerate(self.labels)}
        return np.array([*(place[label] for label in self.known), -1], np.int64)[codes]

    def _encoded(self, table: pa.Table, name: str) -> pa.DictionaryArray:
        column = table[name].combine_chunks() if name in table.column_names else pa.nulls(len(table), pa.string())
        try:
            return column.cast(pa.string()).dictionary_encode()
        except pa.ArrowException:
            raise UserMistake(
                f"percentiles: column '{name}' holds {column.type}, nothing to group by: name a column of words or numbers"
            ) from None


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column as float64 (n,), NaN where it is null."""
    try:
        return table[name].cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        raise UserMistake(f"percentiles: column '{name}' holds {table[name].type}, not numbers: name a column of scores") from None


def _edges(lengths: np.ndarray, bins: int) -> np.ndarray:
    """Where the bins begin, the first one left out, float64: equal shares of rows, but equal lengths stay together."""
    lengths = np.sort(lengths[~np.isnan(lengths)])
    return np.unique(lengths[np.arange(1, bins) * len(lengths) // bins]) if len(lengths) else np.empty(0)


def _tables(keys: np.ndarray, scores: np.ndarray, mass: np.ndarray, least: int) -> _Tables:
    """Tables of the groups of at least so many rows. keys int64 (n,), -1: no group; scores, mass float64 (n,)"""
    order = np.lexsort((scores, keys))
    order = order[keys[order] >= 0]
    found, first, counts = np.unique(keys[order], return_index=True, return_counts=True)
    kept = counts >= least
    parts = [
        table_of(scores[order[at : at + n]], np.nan_to_num(mass[order[at : at + n]]))
        for at, n in zip(first[kept], counts[kept], strict=True)
    ]
    starts = np.cumsum([0, *(len(levels) for levels, _ in parts)])
    joined = [np.concatenate([np.empty(0), *columns]) for columns in zip(*parts, strict=True)] or [np.empty(0), np.empty(0)]
    return _Tables(found[kept], starts, *joined)


def table_of(scores: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels and shares (see `_Tables`) of one group's scores, ascending, and the mass of each, whole numbers: sums are exact in any order."""
    if not mass.any():  # rows without a token count alike
        mass = np.ones(len(scores))
    last = np.append(scores[1:] != scores[:-1], True)  # equal scores share a place
    levels, shares = scores[last], np.cumsum(mass)[last] / mass.sum() * 100
    if len(levels) > LEVELS:
        picked = np.unique(np.searchsorted(shares, np.arange(1, LEVELS + 1) * (100 / LEVELS)))
        levels, shares = levels[picked], shares[picked]
    return levels, shares


def _placed(keys: list[np.ndarray], tables: list[_Tables]) -> tuple[np.ndarray, np.ndarray]:
    """The finest grouping in which a row's group has a table, int64 (n,), and the table's number in it; -1 where even all rows have none."""
    depths, groups = np.full(len(keys[0]), -1), np.full(len(keys[0]), -1)
    for depth, (key, of) in enumerate(zip(keys, tables, strict=True)):
        at = np.minimum(np.searchsorted(of.keys, key), max(len(of.keys) - 1, 0))
        there = of.keys[at] == key if len(of.keys) else np.zeros(len(key), bool)
        depths[there], groups[there] = depth, at[there]
    return depths, groups


def _spoken(names: tuple[str, ...]) -> str:
    return " and ".join(names) or "all rows"


def _remark(column: str, about: dict[str, Any], least: int) -> str | None:
    """What to tell the user: no score at all, or rows that were placed more coarsely than asked for."""
    if not about["rows"]:
        return f"{column}: no row has this score, so none has a percentile"
    (finest, own), *coarser = about["rows_within"].items()
    if own == about["rows"]:
        return None
    small = about["groups"] - about["groups_with_a_table"]
    counts = ", ".join(f"{number:,} within {name}" for name, number in coarser if number)
    return (
        f"{column}: {small:,} of {about['groups']:,} groups by {finest} have fewer than {least} rows; "
        f"{about['rows'] - own:,} of {about['rows']:,} rows, of these or without a value, are compared more coarsely: {counts}"
    )


def _save(path: Path, labels: dict[str, list[str]], made: list[_Column]) -> None:
    """labels (JSON: name -> labels, by code); C.edges of score column number C; C.D.keys, .starts, .levels and .shares of its first D names."""
    arrays = {"labels": np.array(json.dumps(labels))}
    for column, (edges, tables) in enumerate(made):
        arrays[f"{column}.edges"] = edges
        for depth, of in enumerate(tables):
            arrays |= {f"{column}.{depth}.{name}": array for name, array in of._asdict().items()}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _load(path: Path, depths: list[int]) -> tuple[dict[str, list[str]], list[_Column]]:
    with np.load(path, allow_pickle=False) as found:
        made = [
            _Column(
                found[f"{column}.edges"],
                [_Tables(*(found[f"{column}.{depth}.{name}"] for name in _Tables._fields)) for depth in range(count)],
            )
            for column, count in enumerate(depths)
        ]
        return json.loads(str(found["labels"])), made
