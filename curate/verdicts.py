"""What a stage says of a row. Apart from `stage.py`, so that reading a ledger imports no more than Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

# A verdict is one struct column. A null struct means that the stage has nothing against the row.
#   decision   "drop" or "quarantine" ("keep" is written only where a stage wants to record a value)
#   rule       short snake_case name; the key under which the row is counted
#   value, threshold   what was measured and what it was held against (float64, may be null)
#   twin       row_id of the survivor, for a duplicate;  twin_at: its "shard:position" in this run
#   similarity exact similarity to that survivor, in [0, 1]
VERDICT = pa.struct(
    [
        ("decision", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("twin", pa.string()),
        ("twin_at", pa.string()),
        ("similarity", pa.float64()),
    ]
)


def verdicts(rows: Sequence[dict[str, Any] | None]) -> pa.Array:
    """One verdict struct per row; None where there is nothing against the row. Missing keys are null."""
    return pa.array(rows, type=VERDICT)


def verdict_column(
    rules: Sequence[str | None],
    values: Sequence[float | None] | None = None,
    thresholds: Sequence[float | None] | None = None,
    decision: str | Sequence[str] = "drop",
    twins: Sequence[str | None] | None = None,
    twins_at: Sequence[str | None] | None = None,
    similarities: Sequence[float | None] | None = None,
) -> pa.Array:
    """Verdicts from parallel columns, without a Python dictionary per row (rule None: no verdict)."""
    rule = pa.array(rules, pa.string())
    rows = len(rule)

    def column(given: Sequence[Any] | None, kind: pa.DataType) -> pa.Array:
        return pa.nulls(rows, kind) if given is None else pa.array(given, kind)

    fields = [
        pa.array([decision] * rows if isinstance(decision, str) else decision, pa.string()),
        rule,
        column(values, pa.float64()),
        column(thresholds, pa.float64()),
        column(twins, pa.string()),
        column(twins_at, pa.string()),
        column(similarities, pa.float64()),
    ]
    return pa.StructArray.from_arrays(fields, fields=list(VERDICT), mask=rule.is_null())
