"""Rows that a bound may not take from a group. Made for a cut by perplexity: the authors of POINTS (arXiv 2409.04828) warn that the worst fifth is rare
knowledge, such as serial numbers and version strings, not junk as such. Which rows come back is a fixed random draw. The least extreme first would be
the same cut with a softer threshold: what is rarest never came back. The most extreme first would gather the noise. Perplexity has said all it knows by
sending a row beyond the bound; a draw keeps rare and broken texts in the proportion they have there, and other bounds are there to tell them apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from curate.algorithms.quota import spare
from curate.select._bounds import Bound, bound_verdicts
from curate.select._columns import coded, in_order, in_sequence, numbers
from curate.select.sample import draws
from curate.stage import Inputs


class Quota(BaseModel):
    """Every group keeps `share` of what it holds within the other bounds, in the unit of the budget, whatever the bound on `column` takes.

    Where less passes, rows that break no other bound come back, beyond either end of the bound alike, until the share is reached. Rows dropped for
    having no value are not counted. Generated rows are neither counted nor spared: an odd rewrite is not rare knowledge. An end that must
    stay cut is bounded by another column of the same score: `perplexity_loss: {min: 1}` keeps boilerplate out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    column: str
    share: float = Field(gt=0, le=1)
    groups: str = "cluster"


class Spared(NamedTuple):
    rows: dict[str, np.ndarray]  # shard -> bool (rows,)
    report: dict[str, Any]
    remarks: list[str]


def spared_rows(where: Mapping[str, Bound], quota: Quota, unit: str, seed: int, inputs: Inputs) -> Spared:
    """The rows that come back by the quota, and what each group lost to the bound."""
    own = {quota.column: where[quota.column]}
    others = {name: bound for name, bound in where.items() if name != quota.column}
    known: dict[Hashable, int] = {}
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    sizes: dict[str, int] = {}
    ids = []
    for number, (shard, table) in enumerate(inputs.tables()):
        rule = bound_verdicts(own, table).field("rule")
        cut = np.asarray(pc.fill_null(pc.not_equal(rule, f"no_{quota.column}"), False))  # beyond min or max
        counted = np.asarray(bound_verdicts(others, table).is_null()) & (cut | np.asarray(rule.is_null()))
        if "origin" in table.column_names:
            counted &= np.asarray(table["origin"].is_null())
        tokens = np.nan_to_num(numbers(table, "tokens"))
        cost = np.ones(len(cut)) if unit == "rows" else np.nan_to_num(numbers(table, unit))
        group, place = coded(known, table[quota.groups]), np.arange(len(cut))
        for name, values in {"group": group, "cost": cost, "tokens": tokens, "cut": cut, "place": place}.items():
            found[name].append(values[counted])
        found["shard"].append(np.full(counted.sum(), number))
        ids.append(table.select(["row_id", "file", "line"]).filter(pa.array(counted & cut)))
        sizes[shard] = len(cut)
    if not sizes:
        return Spared({}, {**quota.model_dump(), "by_group": []}, [])
    every = {name: np.concatenate(values) for name, values in found.items()}
    group, names = in_order(known, every["group"])
    drawn = pa.concat_tables(ids)
    keys = {"draw": draws(drawn["row_id"].to_pylist(), seed, "quota"), **{name: drawn[name] for name in drawn.column_names}}
    back = spare(group, every["cost"], every["cut"], np.flatnonzero(every["cut"])[in_sequence(keys)], quota.share)
    rows = {shard: np.zeros(size, bool) for shard, size in sizes.items()}
    for number, mask in enumerate(rows.values()):
        mask[every["place"][back & (every["shard"] == number)]] = True
    return Spared(rows, *_losses(quota, names, group, every["tokens"], every["cut"] & ~back, back))


def _losses(
    quota: Quota, names: list[Any], group: np.ndarray, tokens: np.ndarray, cut: np.ndarray, spared: np.ndarray
) -> tuple[dict[str, Any], list[str]]:
    """For budget.json: what each group holds within the other bounds, what of it stays cut and what came back; and the worst of it in words."""

    def of(rows: np.ndarray) -> list[dict[str, int]]:
        counts, sums = np.bincount(group[rows], minlength=len(names)), np.bincount(group[rows], tokens[rows], minlength=len(names))
        return [{"rows": int(count), "tokens": int(mass)} for count, mass in zip(counts, sums, strict=True)]

    held, lost, back = of(np.ones(len(group), bool)), of(cut), of(spared)
    by_group = [
        {"group": name, **whole, "cut": gone, "spared": kept} for name, whole, gone, kept in zip(names, held, lost, back, strict=True)
    ]
    report = {**quota.model_dump(), "by_group": by_group}
    if not (cut | spared).any():
        return report, []
    share = [gone["tokens"] / max(whole["tokens"], 1) for gone, whole in zip(lost, held, strict=True)]
    most = [index for index in np.argsort(-np.array(share), kind="stable")[:3] if share[index]]
    worst = ", ".join(f"{names[index]} ({share[index]:.0%}, {lost[index]['rows']:,} rows)" for index in most)
    remark = f"the bound on {quota.column} alone takes {(cut | spared).sum():,} rows, of which the quota spares {spared.sum():,}"
    return report, [remark + (f"; most of their tokens lose: {quota.groups} {worst}" if worst else "")]
