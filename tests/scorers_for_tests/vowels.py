"""A scorer that behaves like a model: row-local, masked by duplicates, one float per row."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from curate.stage import Stage, TableFunction


class Vowels(Stage):
    """Share of vowels among the characters of the text."""

    power: float = 1.0

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate", "sample"})

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([("vowels", pa.float64())])

    def load(self, folder: Path) -> TableFunction:
        def score(table: pa.Table) -> pa.Table:
            texts = table["text"].to_pylist()
            shares = [sum(character in "aeiou" for character in text.lower()) / len(text) for text in texts]
            return pa.table({"vowels": pa.array([share**self.power for share in shares], pa.float64())})

        return score
