"""Antidote rows: the same row with a sensitive attribute of its people exchanged.

After Li, Xia and Liu, "Learning Antidote Data to Individual Unfairness" (ICML 2023, arXiv 2211.15897), which learns a
generator for tables (`table_antidote.py`); for text the exchange is by lexicon, all forms at once in prompt and response
(`exchange.py`, which also says which rows are left out). `manifold_gate.py` then asks whether the result lies where real
rows lie. Which rows are worth a copy is for a measure of unfairness to say (`by`): at equal rows that helped where the
closeness to the manifold did not (docs/methods/antidote.md).
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from curate.algorithms.water_filling import water_fill
from curate.errors import UserMistake
from curate.generate.exchange import attribute_of, swap
from curate.generate.lexicon import Lexicon, read_lexicons
from curate.generate.rows import GENERATED, PARENT, When, child, draw, generated, parents
from curate.ingest.canonical import as_text
from curate.stage import FitEngine, Inputs, Stage, TableFunction


class Antidote(Stage):
    """Makes new rows in which a sensitive attribute of the people in them is exchanged.

    Settings.

    lexicons, folder   names of lexicon files, and the folder they are in (default: the shipped ones)
    views              which rows: "pair" (with a prompt), "text" (plain documents)
    variants           other values per row and attribute, chosen by a hash of (seed, row_id, value)
    when, share        which rows; `share` of them, drawn by a hash of (seed, row_id)
    keep               columns of yours (strings, see ingest.keep) that an antidote takes from its parent, such as its label
    budget             at most so many parents (null: no bound), shared over the values of the column `groups` by their size
    by                 a column: parents with the highest value come first (such as filter_unfairness, what an exchange moves); null: drawn.
                       Rows where it is null are no parents
    """

    generates: ClassVar[bool] = True
    fit_makes: ClassVar[str] = "decision"
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("ruamel.yaml",)
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"folder"})

    lexicons: tuple[str, ...] = ("gender", "origin", "religion")
    folder: str | None = None
    views: tuple[Literal["pair", "text"], ...] = ("pair", "text")
    when: When = Field({"nominated": True})
    share: float = Field(1.0, gt=0, le=1)
    keep: tuple[str, ...] = ()
    budget: int | None = Field(None, ge=1)
    by: str | None = None
    groups: str | None = None
    variants: int = Field(1, ge=1)
    seed: int = 0

    @field_validator("keep")
    @classmethod
    def _free_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if taken := sorted({*names} & {*GENERATED.names, *PARENT}):
            raise ValueError(f"keep: an antidote has a column '{taken[0]}' of its own: leave it out")
        if len({*names}) < len(names):
            raise ValueError("keep: a column is named twice; name it once")
        return names

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*PARENT, *self.when, *(name for name in (self.by, self.groups) if name), *self.keep)))

    def reads_if_present(self) -> tuple[str, ...]:
        return ("origin",)

    def writes(self) -> pa.Schema:
        return pa.schema([*GENERATED, *((name, pa.large_string()) for name in self.keep)])

    def identity(self) -> dict[str, Any]:
        return {"lexicons": [lexicon.digest for lexicon in read_lexicons(self.lexicons, self.folder)]}

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Where there is a budget: the parents that it reaches, by row_id."""
        chosen: list[str] | None = None
        if self.budget is not None:
            lexicons = read_lexicons(self.lexicons, self.folder)
            found: dict[str, tuple[float, float, str]] = {}  # equal rows are one parent
            for _, table in inputs.tables():
                for row in self._parents(table):
                    if any(attribute_of(row["prompt"], row["response"], row["text"], lexicon)[0] is not None for lexicon in lexicons):
                        first = -float(row[self.by]) if self.by else 0.0
                        group = str(row[self.groups]) if self.groups else ""
                        found[row["row_id"]] = (first, draw(self.seed, "antidote", row["row_id"]), group)
            chosen = sorted(_within(found, self.budget))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "parents.json").write_text(json.dumps(chosen, indent=0) + "\n", encoding="utf-8")

    def _parents(self, table: pa.Table) -> list[dict[str, Any]]:
        """Rows of the wanted kinds that have a text and, where `by` names a column, a finite value of it."""
        beside = (*(name for name in (self.by, self.groups) if name), *self.keep)
        if self.by and not (pa.types.is_floating(kind := table.schema.field(self.by).type) or pa.types.is_integer(kind)):
            raise UserMistake(
                f"antidote.by: column '{self.by}' is {kind}: name a column of numbers that a scorer writes, such as filter_unfairness"
            )
        for name in self.keep:
            if not (pa.types.is_string(kind := table.schema.field(name).type) or pa.types.is_large_string(kind)):
                raise UserMistake(f"antidote.keep: column '{name}' is {kind}: name columns of your own, as ingest.keep lists them")
        found = parents(table, self.when, self.share, self.seed, "antidote", beside)
        found = [row for row in found if row["text"] is not None and ("pair" if row["prompt"] is not None else "text") in self.views]
        return [row for row in found if self.by is None or (row[self.by] is not None and math.isfinite(row[self.by]))]

    def load(self, folder: Path) -> TableFunction:
        lexicons = read_lexicons(self.lexicons, self.folder)
        listed = json.loads((folder / "parents.json").read_text(encoding="utf-8")) if self.budget is not None else None
        chosen = None if listed is None else frozenset(listed)

        def antidotes(table: pa.Table) -> pa.Table:
            made: list[dict[str, Any]] = []
            counts: Counter[str] = Counter()
            for row in self._parents(table):
                for lexicon in lexicons:
                    value, reason = attribute_of(row["prompt"], row["response"], row["text"], lexicon)
                    if value is None:
                        counts[f"{lexicon.attribute}:{reason}"] += 1
                    elif chosen is not None and row["row_id"] not in chosen:
                        counts[f"{lexicon.attribute}:over_budget"] += 1
                    else:
                        kept = {name: as_text(row[name]) for name in self.keep}
                        made += [_row(row, lexicon, value, other) | kept for other in self._others(row["row_id"], lexicon, value)]
            return generated(made, counts, self.writes())

        return antidotes

    def _others(self, row_id: str, lexicon: Lexicon, value: str) -> list[str]:
        others = [other for other in lexicon.values if other != value]
        return sorted(others, key=lambda other: draw(self.seed, "antidote", row_id, lexicon.attribute, other))[: self.variants]


def swapped(row: dict[str, Any], lexicon: Lexicon, value: str, other: str) -> dict[str, Any]:
    """messages, prompt, response and text of a row with the two values exchanged."""
    turns = [{"role": turn["role"], "content": swap(turn["content"], lexicon, value, other)} for turn in row["messages"] or ()]
    parts = {name: None if row[name] is None else swap(row[name], lexicon, value, other) for name in ("prompt", "response", "text")}
    return {"messages": turns or None, **parts}


def _row(row: dict[str, Any], lexicon: Lexicon, value: str, other: str) -> dict[str, Any]:
    made = swapped(row, lexicon, value, other)
    return child(
        row, **made, origin="antidote", generator=f"swap {lexicon.attribute}:{value}>{other} stop", prompt_digest=lexicon.digest
    )  # fmt: skip


def _within(found: dict[str, tuple[float, float, str]], budget: int) -> list[str]:
    """`budget` row_ids of {row_id: (minus its unfairness, its draw, its group)}: of each group the first, as many as its size gives it."""
    by_group: dict[str, list[str]] = defaultdict(list)
    order = sorted(found, key=lambda row_id: (*found[row_id][:2], row_id))
    for row_id in order:
        by_group[found[row_id][2]].append(row_id)
    names = sorted(by_group)
    sizes = np.array([len(by_group[name]) for name in names], np.float64)
    shares = np.floor(water_fill(sizes, sizes, budget)).astype(int) if names else np.zeros(0, int)
    chosen = {row_id for name, share in zip(names, shares.tolist(), strict=True) for row_id in by_group[name][:share]}
    rest = [row_id for row_id in order if row_id not in chosen]  # what whole rows leave over
    return [*chosen, *rest[: max(0, budget - len(chosen))]]
