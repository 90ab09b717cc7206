"""Spend a budget: thresholds first, then the best rows of every group until its share is used up.

Groups (clusters, as a rule) get shares by `share_by`, in tokens, capped by what they hold; what a capped
group cannot use is poured over the others (water-filling). With `share_by` a degradation column this is the
capability budget of PASER (arXiv 2502.12594, eq. 6): n_k = B * d_k / sum(d), d_k the
mean over the group's rows.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from curate.select.sample import draws
from curate.stage import VERDICT, FitEngine, Inputs, Stage, TableFunction, read_decision, verdict_column, verdicts, write_decision

SLACK = 1e-9  # of sums of whole tokens
PRECISION = 6  # scores are compared after rounding: last-bit noise must not move a row


class Bound(BaseModel):
    """What a column must be: within [min, max], or one of `is`. Null passes only with `null: keep`."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    min: float | None = None
    max: float | None = None
    one_of: tuple[str, ...] | None = Field(None, alias="is")
    null: Literal["keep", "drop"] = "keep"


class Budget(Stage):
    """Drops what breaks a bound, then keeps the best rows of every group within the budget."""

    where: dict[str, Bound] = Field({}, description="column -> bound; rules below_COLUMN, above_COLUMN, other_COLUMN")
    budget: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0)] | None = Field(
        None, description="how much to keep: a number of `unit`, or a share below 1 of what there is; None: all"
    )
    unit: Literal["rows", "tokens", "response_tokens"] = "rows"
    by: str | None = Field(None, description="score column, best first; None: a fixed random draw")
    order: Literal["highest", "lowest"] = "highest"
    groups: str | None = Field(None, description="column whose values share the budget, for example cluster")
    share_by: str | None = Field(None, description="column whose mean over a group's rows is its weight; None: by size")
    generated_max_share: float = Field(0.3, ge=0, le=1, description="largest share of the budget that generated rows may take")
    replaces: tuple[str, ...] = Field((), description="origins whose published rows take the place of their source")
    nominate: bool = Field(False, description="write the column `nominated` instead of verdicts")
    seed: int = 0

    libraries = ("numpy",)
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "drop"})

    def reads(self) -> tuple[str, ...]:
        cost = (self.unit,) if self.unit != "rows" else ()
        named = (*self.where, *(name for name in (self.by, self.groups, self.share_by) if name))
        return tuple(dict.fromkeys(("shard", "row_id", "file", "line", *cost, *named)))

    def reads_if_present(self) -> tuple[str, ...]:
        return ("origin", "parent_at", *(("nominated",) if not self.nominate else ()))

    def writes(self) -> pa.Schema:
        return pa.schema([("nominated", pa.bool_())] if self.nominate else [("verdict", VERDICT)])

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        found = []  # shard, verdicts of the bounds, rows within the bounds
        for shard, table in inputs.tables():
            bounded = bound_verdicts(self.where, table)
            found.append((shard, bounded, table.filter(bounded.is_null())))
        must_choose = self.budget is not None or self.replaces or any("origin" in free.column_names for _, _, free in found)
        if not must_choose:  # everything within the bounds
            for shard, bounded, _ in found:
                self._decide(folder, shard, bounded)
            _write_report(folder, {"unit": self.unit, "budget": None, "by": self.by, "groups": []})
            return
        rows = [row for shard, _, free in found for row in _rows(self, shard, free)]
        chosen, report = _spend(self, rows)
        kept = {row.where for row in chosen}
        replaced = {row.parent for row in chosen if row.origin in self.replaces and row.parent}
        left = {row.where: _left_out(row, report, replaced) for row in rows if row.where not in kept}
        for shard, bounded, free in found:
            verdict = bounded.to_pylist()
            here = [index for index, broken in enumerate(verdict) if broken is None]
            for index, position in zip(here, free["position"].to_pylist(), strict=True):
                verdict[index] = left.get(f"{shard}:{position}")
            self._decide(folder, shard, verdicts(verdict))
        _write_report(folder, report)

    def _decide(self, folder: Path, shard: str, verdict: pa.Array) -> None:
        write_decision(folder, shard, pa.table({"nominated": verdict.is_null()} if self.nominate else {"verdict": verdict}))

    def load(self, folder: Path) -> TableFunction:
        return read_decision(folder)


@dataclass
class _Row:
    where: str  # shard:position
    cost: float
    score: float | None
    group: Any
    weight: float | None
    origin: str | None
    parent: str | None
    first: bool  # nominated, or generated: spent before the reserve
    tie: tuple[Any, ...]


def bound_verdicts(where: dict[str, Bound], table: pa.Table) -> pa.Array:
    """Verdicts of the bounds, the first broken one in the recipe's order; null where none is broken."""
    rows = table.num_rows
    rule, value, threshold = pa.nulls(rows, pa.string()), pa.nulls(rows, pa.float64()), pa.nulls(rows, pa.float64())

    def say(broken: pa.Array, name: str, found: pa.Array | None = None, limit: float | None = None) -> None:
        nonlocal rule, value, threshold
        now = pc.and_(pc.is_null(rule), pc.fill_null(broken, False))
        rule = pc.if_else(now, name, rule)
        if found is not None:
            value, threshold = pc.if_else(now, found, value), pc.if_else(now, float(limit or 0), threshold)

    for name, bound in where.items():
        column = table[name].combine_chunks()
        missing = pc.is_null(column, nan_is_null=True)
        if bound.null == "drop":
            say(missing, f"no_{name}")
        if bound.one_of is not None:
            known = pc.is_in(column.cast(pa.string()), value_set=pa.array(bound.one_of, pa.string()))
            say(pc.and_(pc.invert(missing), pc.invert(known)), f"other_{name}")
            continue
        number = pc.round(pc.if_else(missing, None, column.cast(pa.float64())), PRECISION)
        if bound.min is not None:
            say(pc.less(number, bound.min), f"below_{name}", number, bound.min)
        if bound.max is not None:
            say(pc.greater(number, bound.max), f"above_{name}", number, bound.max)
    return verdict_column(rule, value, threshold)


def _rows(stage: Budget, shard: str, table: pa.Table) -> list[_Row]:
    none = [None] * table.num_rows

    def column(name: str | None) -> list[Any]:
        return table[name].to_pylist() if name and name in table.column_names else none

    ids = column("row_id")
    random = draws(ids, stage.seed, "select")
    columns = (
        column("position"), column(stage.unit), column(stage.by), column(stage.groups), column(stage.share_by),
        column("origin"), column("parent_at"), column("nominated"), ids, column("file"), column("line"), random,
    )  # fmt: skip
    rows = []
    for position, cost, score, group, weight, origin, parent, nominated, row_id, file, line, draw in zip(*columns, strict=True):
        if stage.by is None:
            score = draw
        if score is not None:
            score = round(float(score), PRECISION)
            score = None if score != score else score if stage.order == "highest" else -score
        cost = 1.0 if stage.unit == "rows" else float(cost or 0)
        first = bool(nominated) or origin is not None
        rows.append(_Row(f"{shard}:{position}", cost, score, group, weight, origin, parent, first, (row_id, file, line)))
    return rows


def _spend(stage: Budget, rows: list[_Row]) -> tuple[list[_Row], dict[str, Any]]:
    """The chosen rows, and what was given to and spent by each group. Spent to within one row."""
    from curate.algorithms.water_filling import water_fill

    there = sum(row.cost for row in rows if row.origin is None)
    total = sum(row.cost for row in rows)
    if stage.budget is None:
        budget = total
    else:
        budget = stage.budget * there if isinstance(stage.budget, float) and stage.budget <= 1 else float(stage.budget)
    groups: dict[Any, list[_Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    names = sorted(groups, key=lambda name: (name is None, str(type(name)), name if name is not None else 0))
    capacity = np.array([sum(row.cost for row in groups[name]) for name in names], float)
    weights = np.array([_weight(stage, groups[name]) for name in names], float)
    weights = weights if weights.sum() > 0 else np.ones(len(names))
    given = water_fill(weights, capacity, min(budget, total)) if len(names) else np.empty(0)

    def rank(row: _Row) -> tuple[Any, ...]:
        return (not row.first, row.score is None, -(row.score or 0.0), row.tie)

    chosen: dict[str, _Row] = {}
    gone: set[str] = set()  # sources whose replacement was chosen
    generated_room = stage.generated_max_share * budget
    spent_by_group: dict[Any, float] = defaultdict(float)
    spent, spent_generated = 0.0, 0.0
    cut: dict[Any, float | None] = {}

    def may(row: _Row) -> bool:
        over_dose = row.origin is not None and spent_generated + row.cost > generated_room + SLACK
        return row.where not in chosen and row.where not in gone and not over_dose

    def take(row: _Row) -> None:
        nonlocal spent, spent_generated
        if row.origin in stage.replaces and row.parent:
            gone.add(row.parent)
            if (replaced := chosen.pop(row.parent, None)) is not None:
                spent -= replaced.cost
                spent_by_group[replaced.group] -= replaced.cost
        chosen[row.where] = row
        spent += row.cost
        spent_generated += row.cost if row.origin is not None else 0.0
        spent_by_group[row.group] += row.cost

    # A group ends at the first row that does not fit. Going on to smaller ones would fill the last tokens, and would
    # prefer short rows over better ones.
    for name, share in zip(names, given, strict=True):
        for row in sorted(groups[name], key=rank):
            if may(row):
                if spent_by_group[name] + row.cost > share + SLACK:
                    break
                take(row)
    # What whole rows leave over goes to the best rows anywhere, again until one does not fit.
    for row in sorted(rows, key=rank):
        if may(row):
            if spent + row.cost > budget + SLACK:
                break
            take(row)
    for name in names:
        scores = [row.score for row in groups[name] if row.where in chosen and row.score is not None]
        cut[name] = min(scores) if scores else None
    report: dict[str, Any] = {
        "unit": stage.unit, "budget": budget, "spent": spent, "available": total, "by": stage.by, "share_by": stage.share_by, "order": stage.order,
        "groups": [
            {
                "group": name, "rows": len(groups[name]), "available": float(capacity[index]), "weight": float(weights[index] / weights.sum()),
                "mean": _weight(stage, groups[name]) if stage.share_by else None, "given": round(float(given[index]), 3),
                "spent": round(spent_by_group[name], 3), "kept": sum(row.where in chosen for row in groups[name]), "cut": cut[name],
            }
            for index, name in enumerate(names)
        ],
    }  # fmt: skip
    report["cuts"] = cut
    return list(chosen.values()), report


def _weight(stage: Budget, rows: list[_Row]) -> float:
    """A group's weight: the mean of `share_by` over its raw rows, never negative; its size where none is named."""
    if stage.share_by is None:
        return sum(row.cost for row in rows)
    values = [row.weight for row in rows if row.weight is not None and row.weight == row.weight and row.origin is None]
    return max(float(np.mean(values)), 0.0) if values else 0.0


def _left_out(row: _Row, report: dict[str, Any], replaced: set[str]) -> dict[str, Any]:
    if row.where in replaced:
        return {"decision": "drop", "rule": "replaced"}
    cut = report["cuts"].get(row.group)
    sign = 1 if report["order"] == "highest" else -1
    return {
        "decision": "drop", "rule": "over_budget",
        "value": None if row.score is None else sign * row.score, "threshold": None if cut is None else sign * cut,
    }  # fmt: skip


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    import json

    report.pop("cuts", None)
    (folder / "budget.json").write_text(json.dumps(report, indent=1))
