"""A scorer that takes its time, so that a test can interrupt it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curate.stage import Stage, TableFunction


class Slow(Stage):
    """Length of the text, after `seconds` of rest per shard."""

    seconds: float = 0.3

    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"seconds"})

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([("size", pa.int64())])

    def load(self, folder: Path) -> TableFunction:
        def score(table: pa.Table) -> pa.Table:
            time.sleep(self.seconds)
            return pa.table({"size": pc.utf8_length(table["text"]).cast(pa.int64())})

        return score
