"""A scorer with a fault of its own: it fails on every row."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from curate.stage import Stage, TableFunction


class Broken(Stage):
    """Never works."""

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([("nothing", pa.int64())])

    def load(self, folder: Path) -> TableFunction:
        def score(table: pa.Table) -> pa.Table:
            raise KeyError("a mistake in the scorer")

        return score
