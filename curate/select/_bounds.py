"""Bounds on columns: what a recipe's `where` and `when` say of a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from curate.stage import verdict_column

PRECISION = 6  # scores are compared after rounding: last-bit noise must not move a row


class Bound(BaseModel):
    """What a column must be: within [min, max], or one of `is`. Null passes only with `null: keep`.

    unless  other bounds: a row that keeps all of them is not held to this one. What is unlike the trusted texts is dropped only where a filter finds it bad as
            well: {typicality: {min: 0.05, unless: {filter_percentile: {min: 70}}}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    min: float | None = None
    max: float | None = None
    one_of: tuple[str, ...] | None = Field(None, alias="is")
    null: Literal["keep", "drop"] = "keep"
    unless: dict[str, Bound] = {}


def bounded_columns(where: Mapping[str, Bound]) -> Iterator[str]:
    """Every column that the bounds look at."""
    for name, bound in where.items():
        yield name
        yield from bounded_columns(bound.unless)


def bound_verdicts(where: dict[str, Bound], table: pa.Table) -> pa.Array:
    """Verdicts of the bounds, the first broken one in the recipe's order; null where none is broken."""
    rows = table.num_rows
    rule, value, threshold = pa.nulls(rows, pa.string()), pa.nulls(rows, pa.float64()), pa.nulls(rows, pa.float64())

    def say(broken: pa.Array, name: str, found: pa.Array | None = None, limit: float | None = None) -> None:
        nonlocal rule, value, threshold
        now = pc.and_(pc.and_(pc.is_null(rule), held), pc.fill_null(broken, False))
        rule = pc.if_else(now, name, rule)
        if found is not None:
            value, threshold = pc.if_else(now, found, value), pc.if_else(now, float(limit or 0), threshold)

    for name, bound in where.items():
        column = table[name].combine_chunks()
        missing = pc.is_null(column, nan_is_null=True)
        held = pc.is_valid(bound_verdicts(bound.unless, table)) if bound.unless else pa.array(np.ones(rows, bool))
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
