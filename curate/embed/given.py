"""The user's own vectors, every one of them checked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.algorithms.knn import unit_rows
from curate.errors import UserMistake
from curate.stage import FitEngine, Inputs, Stage, TableFunction, verdicts


class Given(Stage):
    """Takes the vectors that came with the rows.

    Column `vector`: unit vectors, list<float32>, all of one length; null for a row that is set aside.
    Column `verdict`: quarantine by rule
        vector_missing        null, or not a list of numbers
        vector_wrong_length   value: its length, threshold: the length expected
        vector_not_finite     NaN or infinite; value: the first such coordinate
        vector_zero           no direction

    column       the user's column, named under `ingest.keep`
    dimensions   their length; null: the most common one of the corpus, the longer where two are equally common
    """

    column: str
    dimensions: int | None = Field(None, ge=1)

    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    def writes(self) -> pa.Schema:
        return pa.schema([("vector", pa.list_(pa.float32())), ("verdict", verdicts([]).type)])

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        lengths: Counter[int] = Counter()
        if self.dimensions is None:
            for _, table in inputs.tables():
                lengths.update(len(row) for row in parsed(table.column(self.column)) if row is not None)
            if not lengths:
                raise UserMistake(f"no row has a list of numbers in '{self.column}': name the column with the vectors under embed.column")
        chosen = self.dimensions or max(lengths, key=lambda length: (lengths[length], length))
        info = {"dimensions": chosen, "lengths": {str(length): count for length, count in sorted(lengths.items())}}
        (folder / "info.json").write_text(json.dumps(info, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> TableFunction:
        width = json.loads((folder / "info.json").read_text(encoding="utf-8"))["dimensions"]

        def check(table: pa.Table) -> pa.Table:
            rows = parsed(table.column(self.column))
            whole = [i for i, row in enumerate(rows) if row is not None and len(row) == width]
            given = np.array([rows[i] for i in whole], np.float64).reshape(len(whole), width)
            # Scaled by the largest entry first: the squares of 1e200 are not finite, its direction is.
            largest = np.abs(given).max(axis=1)
            unit, bad = unit_rows(given / np.where(np.isfinite(largest) & (largest > 0), largest, 1.0)[:, None])
            vectors: list[np.ndarray | None] = [None] * len(rows)
            found: list[dict[str, Any] | None] = [_outcome(row, width) for row in rows]
            for j in np.setdiff1d(np.arange(len(whole)), bad).tolist():
                vectors[whole[j]], found[whole[j]] = unit[j], None
            return pa.table({"vector": pa.array(vectors, pa.list_(pa.float32())), "verdict": verdicts(found)})

        return check


def parsed(column: pa.ChunkedArray) -> list[list[float] | None]:
    """Each row's numbers; None where there are none. Kept columns are text (a list as JSON), others lists of numbers."""
    return [_numbers(value) for value in column.to_pylist()]


def _numbers(value: Any) -> list[float] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list):
        return None
    try:
        # A null inside a list is a number that is missing: NaN. So is text of NaN, which JSON writers spell in their own ways.
        return [float("nan") if number is None else float(number) for number in value]
    except (TypeError, ValueError, OverflowError):
        return None


def _outcome(row: list[float] | None, width: int) -> dict[str, Any]:
    """The verdict on a row that has no unit vector."""
    if row is None:
        return {"decision": "quarantine", "rule": "vector_missing"}
    if len(row) != width:
        return {"decision": "quarantine", "rule": "vector_wrong_length", "value": float(len(row)), "threshold": float(width)}
    strange = [number for number in row if not np.isfinite(number)]
    if strange:
        return {"decision": "quarantine", "rule": "vector_not_finite", "value": strange[0]}
    return {"decision": "quarantine", "rule": "vector_zero", "value": 0.0}
