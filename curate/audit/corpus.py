"""The rows that a filter is audited on: trusted ones, judges, and a draw of the pool."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import UserMistake
from curate.ledger import Ledger, is_generated
from curate.score._trusted import draw
from curate.score.filter import Filter


@dataclass(frozen=True)
class Corpus:
    """What is audited. table  text and what the filter reads beside it, of some rows, none twice;  trusted, judge  bool (rows,);  scores  columns to choose by."""

    table: pa.Table
    trusted: np.ndarray
    judge: np.ndarray
    scores: dict[str, np.ndarray]

    def texts(self) -> list[str]:
        return self.table.column("text").to_pylist()

    @property
    def pool(self) -> np.ndarray:
        return ~self.trusted & ~self.judge


class Tables:
    """Inputs of a fit: one table in memory."""

    def __init__(self, table: pa.Table):
        self._table, self.shards, self.rows = table, ["audit"], len(table)

    def table(self, shard: str) -> pa.Table:
        return self._table

    def tables(self) -> Iterator[tuple[str, pa.Table]]:
        yield "audit", self._table

    def types(self) -> Iterator[dict[str, pa.DataType]]:
        yield dict(zip(self._table.column_names, self._table.schema.types, strict=True))


def settings_of(ledger: Ledger) -> tuple[Filter, Path, float | None]:
    """(the filter's settings, the folder of what it fitted, the share of the pool that the recipe's bound keeps; None: it has none) of a run."""
    from ruamel.yaml import YAML

    recipe = YAML(typ="safe").load(ledger.folder / "recipe.yaml")
    fitted = fitted_folder(ledger, "filter")
    if fitted is None or "filter" not in recipe:
        raise UserMistake(
            f"{ledger.folder} has no trained filter: give a run whose recipe has a `filter` section, such as configs/pretraining.yaml"
        )
    section = {name: value for name, value in recipe["filter"].items() if name != "method"}
    bound = ((recipe.get("select") or {}).get("where") or {}).get("filter_percentile") or {}
    kept = 1 - float(bound["min"]) / 100 if bound.get("min") else None
    return Filter.model_validate(section), fitted, kept


def fitted_folder(ledger: Ledger, step: str) -> Path | None:
    """Where a step of a run keeps what it fitted; None: it fitted nothing."""
    record = ledger.folder / "stages" / step / "artifact.json"
    return record.parent / f"artifact-{json.loads(record.read_text())['fingerprint'][:12]}" if record.is_file() else None


def read_corpus(
    ledger: Ledger, settings: Filter, choose_by: Sequence[str], judge_where: tuple[str, str] | None, most: int, seed: int
) -> Corpus:
    """Trusted rows, judges, and a draw of at most `most` pool rows. Texts that repeat an earlier one are left out, and so are generated rows.

    choose_by  score columns, "-" before one where the lowest are best;  judge_where  (column, value) of rows to judge by: they are neither trusted nor pool here; the run's own filter has seen them
    """
    own = ["filter_score", *(f"filter_{name}" for name in settings.members)]
    found: dict[str, tuple[int, bool, bool, dict[str, Any]]] = {}
    raw = [shard for shard in ledger.dataset.shards if not is_generated(shard)]
    known = set().union(*(shard.columns for shard in raw)) if raw else set()
    wanted = [name.removeprefix("-") for name in choose_by]
    for name in [*wanted, *([judge_where[0]] if judge_where else [])]:
        if name not in known:
            raise UserMistake(f"{ledger.folder} has no column '{name}': name one of its columns (`curate explain` shows them for a row)")
    columns = dict.fromkeys(
        ["text", *own, *wanted, *settings.beside(), *settings.trusted.columns(), *([judge_where[0]] if judge_where else [])]
    )
    for shard in raw:
        table = ledger.dataset.read(shard, [name for name in columns if name in shard.columns])
        table = table.filter(pc.is_valid(table.column("filter_score")))
        mask = np.zeros(len(table), bool)
        if settings.trusted.where is not None:
            ((_, mask),) = settings.trusted.marked(Tables(table), "audit-filter")
        judges = _equals(table, judge_where)
        for row, trusted, judge in zip(table.to_pylist(), mask.tolist(), judges.tolist(), strict=True):
            if row["text"] in found:
                continue
            order = -1 if trusted or judge else draw(seed, "audit", row["text"])
            found[row["text"]] = (order, trusted and not judge, judge, row)
        if len(found) > 3 * most:
            found = _fewest(found, most)
    if settings.trusted.path:
        for text in settings.trusted.texts(Tables(pa.table({"text": pa.array([], pa.large_string())})), "audit-filter"):
            found[text] = (-1, True, False, {"text": text})
    found = _fewest(found, most)
    if not any(order >= 0 for order, *_ in found.values()):
        raise UserMistake("every row is trusted or a judge: there is no pool to audit the filter on")
    rows = list(found.values())
    plain = [{name: row.get(name) for name in ("text", *settings.beside())} for *_, row in rows]
    types = {"text": pa.large_string()}
    for name in settings.stored():
        width = next((len(vector) for row in plain if isinstance(vector := row[name], list)), 0)
        types[name] = pa.list_(pa.float32(), width) if width else pa.float32()
    if settings.words_within:
        types[settings.words_within] = pa.string()
        plain = [{**row, settings.words_within: None if (value := row[settings.words_within]) is None else str(value)} for row in plain]
    table = pa.table({name: pa.array([row[name] for row in plain], types.get(name)) for name in ("text", *settings.beside())})
    scores = {name: _numbers([row.get(name) for *_, row in rows]) for name in own}
    scores |= {
        name: (-1 if name.startswith("-") else 1) * _numbers([row.get(name.removeprefix("-")) for *_, row in rows]) for name in choose_by
    }
    return Corpus(table, np.array([trusted for _, trusted, _, _ in rows]), np.array([judge for _, _, judge, _ in rows]), scores)


def _fewest(found: dict[str, Any], most: int) -> dict[str, Any]:
    fixed = {text: item for text, item in found.items() if item[0] < 0}
    drawn = sorted((item[0], text) for text, item in found.items() if item[0] >= 0)[:most]
    return {**fixed, **{text: found[text] for _, text in drawn}}


def _equals(table: pa.Table, where: tuple[str, str] | None) -> np.ndarray:
    if where is None or where[0] not in table.column_names:
        return np.zeros(len(table), bool)
    return pc.fill_null(pc.equal(table.column(where[0]).cast(pa.string()), where[1]), False).to_numpy()


def _numbers(values: list[Any]) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in values])


def highest(scores: np.ndarray, mass: np.ndarray, among: np.ndarray, share: float) -> np.ndarray:
    """bool: the rows with the highest scores that together hold `share` of the mass of the rows in question, to within one row."""
    rows = np.flatnonzero(among & ~np.isnan(scores))
    order = rows[np.argsort(-scores[rows], kind="stable")]
    chosen = np.zeros(len(scores), bool)
    chosen[order[: np.searchsorted(np.cumsum(mass[order]), share * mass[rows].sum(), side="right")]] = True
    return chosen
