"""A scorer whose values are no ordinary numbers."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from curate.stage import Stage, TableFunction


class Extremes(Stage):
    """NaN, both infinities and null, in turn."""

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([("extreme", pa.float64())])

    def load(self, folder: Path) -> TableFunction:
        values = [float("nan"), float("inf"), float("-inf"), None]

        def score(table: pa.Table) -> pa.Table:
            return pa.table({"extreme": pa.array([values[row % 4] for row in range(table.num_rows)], pa.float64())})

        return score
