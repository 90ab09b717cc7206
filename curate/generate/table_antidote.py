"""Antidote rows of a table: for a person, a comparable one of another group, given the label of the first.

After Li, Xia and Liu, "Learning Antidote Data to Individual Unfairness" (ICML 2023, arXiv 2211.15897); its generator is a GAN, ours takes a real
comparable row and goes part of the way to it (`algorithms/comparable.py`). Changing the group alone ("flip") is offered as the control it is: it makes
rows that nobody could be, a husband who is a woman, and leaves every other sign of the group as telling as before.

Rows are those of `ingest: {kind: table}`: `text` is the JSON object of the cells.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.algorithms.comparable import between, comparable, deviations
from curate.errors import UserMistake
from curate.generate.rows import GENERATED, PARENT, When, child, draw, generated, parents
from curate.ingest.canonical import as_text
from curate.stage import FitEngine, Inputs, Resources, Stage, TableFunction


class Cells(NamedTuple):
    """Rows as arrays. numbers float64 (n, c), NaN where there is none; codes int32 (n, d), places in each column's `values`."""

    numbers: np.ndarray
    codes: np.ndarray


class Columns(NamedTuple):
    """What the fit learned of the columns."""

    numeric: list[str]
    whole: list[bool]
    categories: dict[str, list[str]]

    def cells(self, rows: list[dict[str, Any]]) -> Cells:
        """A category that the fit did not see has the code -1: it differs from all."""
        numbers = np.array([[_number(row.get(name)) for name in self.numeric] for row in rows], np.float64).reshape(
            len(rows), len(self.numeric)
        )
        known = {name: {value: code for code, value in enumerate(values)} for name, values in self.categories.items()}
        codes = np.array([[known[name].get(_category(row.get(name)), -1) for name in known] for row in rows], np.int32)
        return Cells(numbers, codes.reshape(len(rows), len(known)))


class TableAntidote(Stage):
    """For every row of a table, rows of other groups that are comparable to it, with its label.

    Settings.

    sensitive      columns that name the group; each in turn is exchanged. The others are categories like any: they may differ between comparable rows
    label          column that every antidote keeps from its source; null: none
    same_label     whether a comparable row must have that label, too. If so antidotes lie where rows of the other group with this label lie already
    method         comparable: categories of a comparable row, numbers on the way to it; flip: the group alone (a control)
    categorical    columns that are categories though they look like numbers (codes); a column with any other cell is one anyway
    ignored        columns that comparable rows may differ in (weights, row numbers); an antidote keeps its source's value
    most_codes     categories, the group aside, in which comparable rows may differ
    most           what each number may differ by, in standard deviations of its column
    k              comparable rows to draw from, the nearest
    variants       antidotes of a row and sensitive column; where that has more than two values, at most one for each other value
    max_reference  rows of a group that comparable ones are looked for among, the lowest by a hash of (seed, row_id)
    when, share    which rows get antidotes
    """

    generates: ClassVar[bool] = True
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    sensitive: tuple[str, ...] = Field(min_length=1)
    label: str | None = None
    same_label: bool = False
    method: Literal["comparable", "flip"] = "comparable"
    categorical: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    most_codes: int = Field(2, ge=0)
    most: float = Field(0.5, gt=0)
    k: int = Field(5, ge=1)
    variants: int = Field(1, ge=1)
    max_reference: int = Field(20_000, ge=1)
    when: When = Field({})
    share: float = Field(1.0, gt=0, le=1)
    seed: int = 0

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*PARENT, *self.when)))

    def reads_if_present(self) -> tuple[str, ...]:
        return ("origin",)

    def writes(self) -> pa.Schema:
        return GENERATED

    def resources(self) -> Resources:
        return Resources(memory=1 << 30)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Writes columns.json (kinds and categories) and reference.jsonl (the rows to compare with, by their draws)."""
        drawn: dict[tuple[str, ...], dict[str, tuple[float, dict[str, Any]]]] = {}
        known: list[str] = []
        whole: dict[str, bool] = {}  # a column that holds numbers: whole ones only?
        words = {*self.sensitive, *self.categorical, *([self.label] if self.label else [])}  # and columns with a cell that is no number
        for row_id, row in _raw_rows(inputs):
            known = known or list(row)
            for name, value in row.items():
                number = _number(value)
                if not math.isnan(number):
                    whole[name] = whole.get(name, True) and number == int(number)
                elif value is not None:
                    words.add(name)
            value_of = tuple(_category(row.get(name)) for name in self.sensitive)
            group = drawn.setdefault(value_of, {})
            group[row_id] = (draw(self.seed, "table_antidote", row_id), row)
            if len(group) > 2 * self.max_reference:
                drawn[value_of] = self._lowest(group)
        for name in (*self.sensitive, *((self.label,) if self.label else ()), *self.ignored, *self.categorical):
            if name not in known:
                raise UserMistake(
                    f"antidote: the table has no column '{name}' (there: {', '.join(known)}): name one of these, or list it in ingest.fields.columns"
                )
        categories: dict[str, set[str]] = {name: set() for name in known if name in words}
        for _, row in _raw_rows(inputs):
            for name, values in categories.items():
                if row.get(name) is not None:
                    values.add(_category(row[name]))
        for name in self.sensitive:
            if len(categories[name]) < 2:
                raise UserMistake(f"antidote: {name} has one value in the whole table: there is no other group; name another column")
        numeric = [name for name in known if name in whole and name not in words]
        kinds = {
            "numeric": numeric, "whole": [whole[name] for name in numeric], "categories": {name: sorted(values) for name, values in categories.items()},
        }  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "columns.json").write_text(json.dumps(kinds, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        rows = [row for group in sorted(drawn) for _, row in sorted(self._lowest(drawn[group]).values(), key=lambda item: item[0])]
        (folder / "reference.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")

    def _lowest(self, group: dict[str, tuple[float, dict[str, Any]]]) -> dict[str, tuple[float, dict[str, Any]]]:
        return dict(sorted(group.items(), key=lambda item: (item[1][0], item[0]))[: self.max_reference])

    def load(self, folder: Path) -> TableFunction:
        columns = Columns(**json.loads((folder / "columns.json").read_text(encoding="utf-8")))
        lines = (folder / "reference.jsonl").read_text(encoding="utf-8").split("\n")
        reference = [json.loads(line) for line in lines if line]
        known = columns.cells(reference)
        unit = deviations(known.numbers)

        def antidotes(table: pa.Table) -> pa.Table:
            made: list[dict[str, Any]] = []
            counts: Counter[str] = Counter()
            sources = parents(table, self.when, self.share, self.seed, "antidote")
            rows = [_row(source["text"]) for source in sources]
            cells = columns.cells(rows)
            for name in self.sensitive:
                for value in columns.categories[name]:
                    mine = [i for i, row in enumerate(rows) if _category(row.get(name)) != value and row.get(name) is not None]
                    wanted = self._others(sources, rows, mine, name, value, columns)
                    counts.update({f"{name}:{value}:another_value_drawn": len(mine) - len(wanted)} if len(wanted) < len(mine) else {})
                    for label in sorted({self._label(rows[i]) for i in wanted}):
                        those = [i for i in wanted if self._label(rows[i]) == label]
                        at = [j for j, row in enumerate(reference) if _category(row.get(name)) == value and self._label(row) == label]
                        made += self._made(those, at, name, value, sources, rows, cells, reference, known, unit, columns, counts)
            order = {source["row_id"]: place for place, source in enumerate(sources)}
            made.sort(key=lambda row: (order[row["parents"][0]], row["generator"], row["row_id"]))
            return generated(made, counts)

        return antidotes

    def _others(
        self, sources: list[dict[str, Any]], rows: list[dict[str, Any]], mine: list[int], name: str, value: str, columns: Columns
    ) -> list[int]:
        """Rows that get an antidote of this value: `variants` of the other values, by a hash of (seed, row_id, value)."""
        values = columns.categories[name]
        if len(values) - 1 <= self.variants:
            return mine
        found = []
        for i in mine:
            others = [other for other in values if other != _category(rows[i].get(name))]
            others.sort(key=lambda other: draw(self.seed, "table_antidote", sources[i]["row_id"], name, other))
            if value in others[: self.variants]:
                found.append(i)
        return found

    def _label(self, row: dict[str, Any]) -> str:
        """Rows of one value here are compared with each other."""
        return _category(row.get(self.label)) if self.label and self.same_label else ""

    def _made(
        self, mine: list[int], at: list[int], name: str, value: str, sources: list[dict[str, Any]], rows: list[dict[str, Any]], cells: Cells,
        reference: list[dict[str, Any]], known: Cells, unit: np.ndarray, columns: Columns, counts: Counter[str],
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Antidotes of the rows `mine` from the reference rows `at`, which have the other value."""
        if self.method == "flip":
            return [
                _antidote(sources[i], {**rows[i], name: _cell(value, rows[i].get(name))}, name, rows[i].get(name), value, "flip")
                for i in mine
            ]
        free = {name, self.label, *self.ignored}
        numeric = [c for c, column in enumerate(columns.numeric) if column not in free]
        coded = [c for c, column in enumerate(columns.categories) if column not in free]
        numbers, others = cells.numbers[mine][:, numeric], known.numbers[at][:, numeric]
        found, _ = comparable(
            numbers / unit[numeric],
            cells.codes[mine][:, coded],
            others / unit[numeric],
            known.codes[at][:, coded],
            self.most_codes,
            self.most,
            self.k,
        )
        made = []
        for place, i in enumerate(mine):
            near = found[place][found[place] >= 0]
            if not len(near):
                counts[f"{name}:{value}:no_comparable_row"] += 1
                continue
            for copy in range(self.variants if len(columns.categories[name]) == 2 else 1):
                key = (sources[i]["row_id"], name, value, str(copy))
                chosen = int(near[int(draw(self.seed, "neighbour", *key) * len(near))])
                share = np.array([draw(self.seed, "way", *key)])
                whole = np.array([columns.whole[c] for c in numeric], bool)
                mixed = between(numbers[[place]], others[[chosen]], share, whole)[0]
                row = dict(rows[i])
                for c, number in zip(numeric, mixed.tolist(), strict=True):
                    column = columns.numeric[c]
                    if not math.isnan(number):
                        row[column] = _like(number, columns.whole[c], rows[i].get(column))
                names = list(columns.categories)
                twin = reference[at[chosen]]
                for c in coded:
                    row[names[c]] = twin.get(names[c])
                row[name] = twin.get(name)
                made.append(_antidote(sources[i], row, name, rows[i].get(name), value, "comparable"))
        return made


def _antidote(source: dict[str, Any], row: dict[str, Any], name: str, value: Any, other: str, method: str) -> dict[str, Any]:
    text = str(as_text(row))
    return child(
        source, messages=None, prompt=None, response=None, text=text, origin="antidote", generator=f"{method} {name}:{_category(value)}>{other} stop", prompt_digest=""
    )  # fmt: skip


def _raw_rows(inputs: Inputs) -> Iterator[tuple[str, dict[str, Any]]]:
    for _, table in inputs.tables():
        origins = table.column("origin").to_pylist() if "origin" in table.column_names else [None] * table.num_rows
        for row_id, text, origin in zip(table.column("row_id").to_pylist(), table.column("text").to_pylist(), origins, strict=True):
            if origin is None and text is not None:
                yield row_id, _row(text)


def _row(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise UserMistake(
            "antidote: a row is no JSON object of cells: read the table with `ingest: {kind: table, fields: {columns: [...]}}`"
        )
    return found


def _number(value: Any) -> float:
    """NaN where a cell is no finite number. Strings count: a CSV has no other cells."""
    if value is None or isinstance(value, bool):
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _category(value: Any) -> str:
    return "" if value is None else str(as_text(value))


def _cell(value: str, old: Any) -> Any:
    """A category as a cell of the old one's type, where it can be."""
    if isinstance(old, str) or old is None:
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _like(number: float, whole: bool, old: Any) -> Any:
    """A number as a cell of the old one's type: 37, 37.0, "37" or "37.0"."""
    plain: int | float = float(f"{number:.10g}")
    if whole and (isinstance(old, int) or (isinstance(old, str) and "." not in old)):
        plain = int(number)
    return str(plain) if isinstance(old, str) else plain
