"""Spend a budget: thresholds first, then the best rows of every group until its share is used up.

Groups (clusters, as a rule) get shares in the unit of the budget, capped by what they hold; what a capped group cannot
use is poured over the others (water-filling). `allocation: mean` with `share_by` a degradation column is the capability
budget of PASER (arXiv 2502.12594, eq. 6): n_k = B * d_k / sum(d), d_k the mean over the group's rows. Stratified random
is `allocation: uniform` without `by`.

`conflicts` adds PASER's filter: see `algorithms/concepts.py` for what it does and does not catch.

`quota` keeps a bound from emptying a group: `_quota.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from curate.errors import UserMistake
from curate.select._bounds import PRECISION, Bound, bound_verdicts, bounded_columns
from curate.select._columns import coded, in_order, in_sequence, numbers
from curate.select._quota import Quota, spared_rows
from curate.select.sample import draws
from curate.stage import VERDICT, FitEngine, Inputs, Stage, TableFunction, read_decision, verdict_column, write_decision


class Budget(Stage):
    """Drops what breaks a bound, then keeps the best rows of every group, or a random draw of them, within the budget."""

    where: dict[str, Bound] = Field({}, description="column -> bound; rules below_COLUMN, above_COLUMN, other_COLUMN")
    quota: Quota | None = Field(
        None,
        description="share of every group that the bound on one column may not take; the column `spared` marks rows that came back by it",
    )
    budget: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0)] | None = Field(
        None, description="how much to keep: a number of `unit`, or a share below 1 of what there is; None: all"
    )
    unit: Literal["rows", "tokens", "response_tokens"] = "rows"
    by: str | None = Field(None, description="score column, best first, rows without a score last; None: a fixed random draw")
    order: Literal["highest", "lowest"] = "highest"
    groups: str | None = Field(None, description="column whose values share the budget, for example cluster")
    allocation: Literal["size", "uniform", "mean", "size_mean", "sqrt_size_mean"] | None = Field(
        None, description="weight of a group: what it holds; equal; the mean of `share_by`; products. None: mean with `share_by`, else size"
    )
    share_by: str | None = Field(
        None, description="column for the mean, over a group's raw rows that have a value; none has: 0; below 0: 0"
    )
    gain_by: str | None = Field(
        None, description="column whose mean, taken in the same way, multiplies the weight: what spending there is worth"
    )
    conflicts: Literal["none", "concepts", "concepts_any_order"] = Field(
        "none",
        description="concepts: PASER's concept consistency graph, by the order of groups and rows; any_order: its order-free variant",
    )
    generated_max_share: float = Field(0.3, ge=0, le=1, description="largest share of the budget that generated rows may take")
    keep_margin: float = Field(
        0.0, ge=0, description="at a refresh: how much better than a published row, in units of `by`, another must be to take its place"
    )
    replaces: tuple[str, ...] = Field((), description="origins whose published rows take the place of their source")
    nominate: bool = Field(False, description="write the column `nominated` instead of verdicts")
    seed: int = 0

    libraries = ("numpy",)
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "drop"})
    fit_makes: ClassVar[str] = "decision"

    @model_validator(mode="after")
    def _consistent(self) -> Budget:
        if self.allocation and not self.groups:
            raise ValueError(f"allocation: {self.allocation} shares the budget between groups: name their column, `groups: cluster`")
        if self.allocation and self.allocation.endswith("mean") and not self.share_by:
            raise ValueError(f"allocation: {self.allocation} takes the mean of a column: name it, for example `share_by: jsd`")
        bound = self.where.get(self.quota.column) if self.quota else None
        if self.quota and (bound is None or bound.one_of or (bound.min is None and bound.max is None)):
            raise ValueError(
                f"quota: {self.quota.column} has no min or max to spare rows from: add `where: {{{self.quota.column}: {{max: 90}}}}`"
            )
        return self

    def reads(self) -> tuple[str, ...]:
        cost = (self.unit,) if self.unit != "rows" else ()
        text = ("text",) if self.conflicts != "none" else ()
        quota = ("tokens", self.quota.groups) if self.quota else ()
        named = (*bounded_columns(self.where), *(name for name in (self.by, self.groups, self.share_by, self.gain_by) if name))
        return tuple(dict.fromkeys(("shard", "row_id", "file", "line", *cost, *text, *quota, *named)))

    def reads_if_present(self) -> tuple[str, ...]:
        return ("origin", "parent_at", "published_before", *(("nominated",) if not self.nominate else ()))

    def writes(self) -> pa.Schema:
        spared = [("spared", pa.bool_())] if self.quota else []
        return pa.schema([("nominated", pa.bool_())] if self.nominate else [("verdict", VERDICT), *spared])

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        bounded: dict[str, pa.Array] = {}  # of a shard where a bound is broken
        pool = _Pool(self)
        spared = spared_rows(self.where, self.quota, self.unit, self.seed, inputs) if self.quota else None
        for shard, table in inputs.tables():
            verdict = bound_verdicts(self.where, table)
            if spared:
                verdict = pc.if_else(pa.array(spared.rows[shard]), pa.nulls(len(verdict), VERDICT), verdict)
            if verdict.null_count < len(verdict):
                bounded[shard], table = verdict, table.filter(verdict.is_null())
            pool.add(shard, table)
        rows = pool.rows()
        if self.budget is None and not self.replaces and self.conflicts == "none" and not pool.has_generated:  # all within the bounds
            decided = _Decided.nothing(rows)
            report: dict[str, Any] = {"unit": self.unit, "budget": None, "by": self.by, "groups": []}
        else:
            decided, report = _spend(self, rows)
        for number, shard in enumerate(rows.shards):
            verdict = _verdict(self, rows, decided, slice(rows.starts[number], rows.starts[number + 1]))
            if shard in bounded:
                broken = np.asarray(bounded[shard].is_valid())
                place = np.where(broken, np.arange(len(broken)), len(broken) + np.cumsum(~broken) - 1)
                verdict = pa.concat_arrays([bounded[shard], verdict]).take(pa.array(place))
            columns = {"nominated": verdict.is_null()} if self.nominate else {"verdict": verdict}
            if spared and not self.nominate:  # the deciding call alone: two steps must not write one column
                columns["spared"] = pa.array(spared.rows[shard])
            write_decision(folder, shard, pa.table(columns))
        if spared:
            report |= {"quota": spared.report, "remarks": [*report.get("remarks", ()), *spared.remarks]}
        _write_report(folder, report)

    def load(self, folder: Path) -> TableFunction:
        return read_decision(folder)


class _Rows(NamedTuple):
    """Columns of the rows within the bounds, in reading order; n rows, about 100 bytes each, the concepts apart."""

    shards: list[str]
    starts: np.ndarray  # int64 (shards + 1,): rows of shard s are starts[s]:starts[s + 1]
    position: np.ndarray  # int32 (n,): place in the shard
    row_id: pa.ChunkedArray  # string
    cost: np.ndarray  # float64 (n,), whole numbers of the unit
    score: np.ndarray  # float64 (n,), higher is better; NaN: none
    group: np.ndarray  # int32 (n,), a place in `names`
    names: list[Any]
    share: np.ndarray  # float64 (n,) or (0,): `share_by`; NaN: none
    gain: np.ndarray
    made: np.ndarray  # bool (n,): generated
    first: np.ndarray  # bool (n,): nominated or generated, spent before the reserve
    source: np.ndarray  # int64 (n,): the row whose place this one takes; -1: none
    order: np.ndarray  # int64 (n,): best first
    by_id: np.ndarray | None  # int64 (n,): in the order of row_id, file, line; with the concepts
    concepts: tuple[np.ndarray, np.ndarray] | None  # starts int64 (n + 1,), hashes uint64

    def at(self, row: int) -> str:
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return f"{self.shards[number]}:{self.position[row]}"


class _Pool:
    """Gathers `_Rows` shard by shard."""

    def __init__(self, stage: Budget):
        self.stage = stage
        self.shards: list[str] = []
        self.columns: dict[str, list[Any]] = defaultdict(list)
        self.codes: dict[str, dict[Hashable, int]] = {"group": {}, "file": {}}
        self.sources: dict[int, str] = {}  # row -> "shard:position" of the row whose place it takes
        self.count = 0
        self.has_generated = False

    def add(self, shard: str, table: pa.Table) -> None:
        stage, rows = self.stage, table.num_rows
        self.shards.append(shard)
        add = {name: values.append for name, values in ((name, self.columns[name]) for name in _GATHERED)}
        ids = table["row_id"].combine_chunks()
        score = np.array(draws(ids.to_pylist(), stage.seed, "select")) if stage.by is None else numbers(table, stage.by)
        score = np.array([round(value, PRECISION) for value in score.tolist()], np.float64)
        origin = table["origin"] if "origin" in table.column_names else pa.nulls(rows, pa.string())
        made = np.asarray(origin.is_valid())
        nominated = np.asarray(table["nominated"].fill_null(False)) if "nominated" in table.column_names else np.zeros(rows, bool)
        self.has_generated |= "origin" in table.column_names
        add["rows"](rows)
        add["position"](np.asarray(table["position"], np.int32))
        add["row_id"](ids.cast(pa.string()))
        add["cost"](np.ones(rows) if stage.unit == "rows" else np.nan_to_num(numbers(table, stage.unit)))
        add["score"](score if stage.order == "highest" else -score)
        add["group"](coded(self.codes["group"], table[stage.groups]) if stage.groups else np.zeros(rows, np.int32))
        add["file"](coded(self.codes["file"], table["file"]))
        add["line"](table["line"].combine_chunks())
        add["share"](numbers(table, stage.share_by) if stage.share_by else np.empty(0))
        add["gain"](numbers(table, stage.gain_by) if stage.gain_by else np.empty(0))
        add["made"](made)
        published = "published_before" in table.column_names
        add["published"](np.asarray(table["published_before"].fill_null(False)) if published else np.zeros(rows, bool))
        add["first"](made | nominated)
        if stage.replaces and made.any():
            takes = np.flatnonzero(pc.is_in(origin, value_set=pa.array(stage.replaces, pa.string())))
            parents = table["parent_at"].take(pa.array(takes)).to_pylist()
            self.sources |= {self.count + int(row): parent for row, parent in zip(takes, parents, strict=True) if parent}
        if stage.conflicts != "none":
            from curate.algorithms import concepts

            counts, hashes = concepts.hashed(table["text"].to_pylist())
            add["concept_counts"](counts)
            add["concepts"](hashes)
        self.count += rows

    def rows(self) -> _Rows:
        joined = {name: np.concatenate(self.columns[name]) if self.columns[name] else np.empty(0) for name in _ARRAYS}
        starts = np.concatenate([[0], np.cumsum(self.columns["rows"], dtype=np.int64)]).astype(np.int64)
        row_id = pa.chunked_array(self.columns["row_id"], pa.string())
        group, names = in_order(self.codes["group"], joined["group"])
        names = names if self.stage.groups else [None] * bool(self.count)
        score = joined["score"]
        missing = np.isnan(score)
        published = joined["published"].astype(bool)
        ranked = np.where(missing, 0.0, score)
        if self.stage.keep_margin:
            ahead = published & ~missing
            ranked[ahead] = [round(value + self.stage.keep_margin, PRECISION) for value in ranked[ahead].tolist()]
        keys = {
            "later": ~joined["first"].astype(bool), "missing": missing, "score": -ranked, "unpublished": ~published,
            "row_id": row_id, "file": in_order(self.codes["file"], joined["file"])[0], "line": pa.chunked_array(self.columns["line"], pa.int64()),
        }  # fmt: skip
        concepts, by_id = None, None
        if self.stage.conflicts != "none":
            counts = np.concatenate([[0], *self.columns["concept_counts"]]).astype(np.int64)
            by_id = in_sequence({name: keys[name] for name in ("row_id", "file", "line")})
            concepts = np.cumsum(counts), np.concatenate([np.empty(0, np.uint64), *self.columns["concepts"]])
        return _Rows(
            self.shards, starts, joined["position"], row_id, joined["cost"], score, group, names, joined["share"], joined["gain"],
            joined["made"].astype(bool), joined["first"].astype(bool), self._source(starts, joined["position"]), in_sequence(keys), by_id, concepts,
        )  # fmt: skip

    def _source(self, starts: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Row numbers of the sources; -1 where the source is not among the rows within the bounds."""
        source = np.full(self.count, -1, np.int64)
        number = {shard: index for index, shard in enumerate(self.shards)}
        for row, at in self.sources.items():
            shard, _, place = at.rpartition(":")
            if shard in number:
                start, end = starts[number[shard] : number[shard] + 2]
                found = start + int(np.searchsorted(position[start:end], int(place)))
                if found < end and position[found] == int(place):
                    source[row] = found
        return source


_ARRAYS = ("position", "cost", "score", "group", "file", "share", "gain", "made", "first", "published")
_GATHERED = ("rows", "row_id", "line", "concept_counts", "concepts", *_ARRAYS)


class _Decided(NamedTuple):
    """What becomes of each row."""

    chosen: np.ndarray  # bool (n,)
    replaced: np.ndarray  # bool (n,)
    twin: np.ndarray | None  # int64 (n,): the row it conflicts with; -1: none
    cut: np.ndarray  # float64 (K,): the lowest score chosen in a group; NaN: none

    @staticmethod
    def nothing(rows: _Rows) -> _Decided:
        return _Decided(np.ones(len(rows.cost), bool), np.zeros(len(rows.cost), bool), None, np.full(len(rows.names), np.nan))


def _spend(stage: Budget, rows: _Rows) -> tuple[_Decided, dict[str, Any]]:
    """What becomes of each row, and what was given to and spent by each group."""
    from curate.algorithms import concepts
    from curate.algorithms.spending import spend
    from curate.algorithms.water_filling import group_weights, water_fill

    n, groups = len(rows.cost), len(rows.names)
    graph, twin = None, None
    if rows.concepts and stage.conflicts == "concepts":
        graph, twin = concepts.Graph(*rows.concepts), np.full(n, -1, np.int64)
    elif rows.concepts and rows.by_id is not None:
        twin = concepts.unexpected(*rows.concepts, order=rows.by_id)
    barred = twin >= 0 if twin is not None else np.zeros(n, bool)
    there, total = float(rows.cost[~rows.made].sum()), float(rows.cost.sum())
    remarks = []
    if stage.budget is not None and (free_rows := int((rows.cost == 0).sum())):
        if free_rows == n:
            raise UserMistake(f"select: no row counts any {stage.unit}, a budget of them would choose them all: give another `unit`")
        remarks.append(f"{free_rows:,} of {n:,} rows count no {stage.unit} and cost the budget nothing")
    if stage.budget is None:
        budget = total
    else:
        budget = stage.budget * there if isinstance(stage.budget, float) and stage.budget <= 1 else float(stage.budget)
    held, free = _sums(rows, rows.cost), _sums(rows, np.where(barred, 0.0, rows.cost))
    mean, gain = (
        _means(rows, column, name) if name else None for column, name in ((rows.share, stage.share_by), (rows.gain, stage.gain_by))
    )
    weights = group_weights(stage.allocation or ("mean" if stage.share_by else "size"), held, mean, gain)
    if groups and not weights.sum() > 0:
        weights = np.ones(groups)
        if stage.share_by or stage.gain_by:
            remarks.append(f"no group has a positive mean of {stage.share_by or stage.gain_by}: all got equal weight")
    given = water_fill(weights, free, min(budget, float(free.sum()))) if groups else np.empty(0)
    chosen, refused = spend(
        rows.order, rows.group, rows.cost, given, budget,
        barred=barred, made=rows.made, source=rows.source, made_room=stage.generated_max_share * budget, conflicts=graph,
    )  # fmt: skip
    if twin is not None:
        twin[list(refused)] = list(refused.values())
    replaced = np.zeros(n, bool)
    replaced[rows.source[chosen & (rows.source >= 0)]] = True
    cut = np.full(groups, np.inf)
    scored = chosen & ~np.isnan(rows.score)
    np.minimum.at(cut, rows.group[scored], rows.score[scored])
    cut[np.isinf(cut)] = np.nan
    spent, kept = _sums(rows, np.where(chosen, rows.cost, 0.0)), np.bincount(rows.group[chosen], minlength=groups)
    size = np.bincount(rows.group, minlength=groups)
    report: dict[str, Any] = {
        "unit": stage.unit, "budget": budget, "spent": float(spent.sum()), "available": total, "by": stage.by, "share_by": stage.share_by,
        "gain_by": stage.gain_by, "allocation": stage.allocation, "order": stage.order, "conflicts": int((twin >= 0).sum()) if twin is not None else None,
        "groups": [
            {
                "group": name, "rows": int(size[index]), "available": float(held[index]), "weight": float(weights[index] / weights.sum()),
                "mean": float(mean[index]) if mean is not None else None, "gain": float(gain[index]) if gain is not None else None,
                "given": round(float(given[index]), 3), "spent": round(float(spent[index]), 3), "kept": int(kept[index]),
                "cut": None if np.isnan(cut[index]) else float(cut[index]),
            }
            for index, name in enumerate(rows.names)
        ],
        "remarks": remarks,
    }  # fmt: skip
    return _Decided(chosen, replaced, twin, cut), report


def _sums(rows: _Rows, values: np.ndarray) -> np.ndarray:
    return np.bincount(rows.group, values, minlength=len(rows.names))


def _means(rows: _Rows, values: np.ndarray, name: str) -> np.ndarray:
    """Means over the raw rows of each group that have a value, at least 0; 0 where none has."""
    if np.isinf(values).any():
        raise UserMistake(f"select: column '{name}' holds an infinite number: bound it with `where`, or name another column")
    counted = np.flatnonzero(~np.isnan(values) & ~rows.made)
    counted = counted[np.argsort(rows.group[counted], kind="stable")]
    ends = np.cumsum(np.bincount(rows.group[counted], minlength=len(rows.names)))
    parts = np.split(values[counted], ends[:-1])
    return np.array([max(float(np.mean(part)), 0.0) if len(part) else 0.0 for part in parts])


def _verdict(stage: Budget, rows: _Rows, decided: _Decided, here: slice) -> pa.Array:
    """Verdicts of the rows of one shard."""
    replaced = decided.replaced[here]
    conflict = decided.twin[here] >= 0 if decided.twin is not None else np.zeros(len(replaced), bool)
    left = ~decided.chosen[here] & ~replaced & ~conflict
    rule = np.select([replaced, conflict, left], ["replaced", "conflicts_with_concepts", "over_budget"], "")
    sign = 1 if stage.order == "highest" else -1
    value, threshold = sign * rows.score[here], sign * decided.cut[rows.group[here]]
    verdict = verdict_column(
        pa.array(rule, mask=rule == ""),
        pa.array(value, mask=~left | np.isnan(value)),
        pa.array(threshold, mask=~left | np.isnan(threshold)),
    )
    if decided.twin is None or not conflict.any():
        return verdict
    twins = [int(twin) for twin in decided.twin[here][conflict]]
    place = pa.array(np.cumsum(conflict) - 1, mask=~conflict)
    named = {"twin": rows.row_id.take(pa.array(twins)).combine_chunks(), "twin_at": pa.array([rows.at(twin) for twin in twins])}
    fields = [named[field.name].take(place) if field.name in named else verdict.field(field.name) for field in VERDICT]
    return pa.StructArray.from_arrays(fields, fields=list(VERDICT), mask=verdict.is_null())


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    import json

    if remarks := report.pop("remarks", None):
        (folder / "info.json").write_text(json.dumps({"remarks": remarks}))
    (folder / "budget.json").write_text(json.dumps(report, indent=1))
