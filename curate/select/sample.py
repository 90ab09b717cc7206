"""Which rows the language-model stages look at: a share of all, or a number."""

from __future__ import annotations

import hashlib
import heapq
import json
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curate.stage import VERDICT, FitEngine, Inputs, Stage, TableFunction, verdict_column

LARGEST = 1 << 53  # draws are whole numbers below it, exact in float64


def draws(row_ids: list[str], seed: int, purpose: str) -> list[float]:
    """A number in [0, 1) per row_id, fixed by the seed and the purpose alone; equal rows draw equally."""
    salt = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=16).digest()
    return [int.from_bytes(hashlib.blake2b(row_id.encode(), digest_size=8, key=salt).digest(), "big") / 2**64 for row_id in row_ids]


class Sample(Stage):
    """Leaves rows out of the language-model stages, by a draw on the row's id (verdict: not_sampled).

    A count of rows that nothing has dropped becomes a bound on that draw when it is first fitted; new rows later face the same bound. So do rows
    that were dropped before: a score never hides a row from a model, but a model looks at no more than the same share of them.
    """

    size: int | float | None = None  # rows, or a share below 1; None: every row
    seed: int = 0

    verdict_kind: ClassVar[str] = "sample"
    fit_hidden_by: ClassVar[frozenset[str]] = frozenset({"drop"})

    def reads(self) -> tuple[str, ...]:
        return ("row_id",)

    def writes(self) -> pa.Schema:
        return pa.schema([("verdict", VERDICT)])

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        bound = 1.0
        if isinstance(self.size, float):
            bound = self.size
        elif self.size is not None:
            smallest: list[float] = []
            for _, table in inputs.tables():
                smallest = heapq.nsmallest(self.size + 1, [*smallest, *draws(table["row_id"].to_pylist(), self.seed, "sample")])
            bound = smallest[self.size] if len(smallest) > self.size else 1.0
        (folder / "bound.json").write_text(json.dumps({"bound": bound}))

    def load(self, folder: Path) -> TableFunction:
        bound = json.loads((folder / "bound.json").read_text())["bound"]

        def sample(table: pa.Table) -> pa.Table:
            values = pa.array(draws(table["row_id"].to_pylist(), self.seed, "sample"), pa.float64())
            rules = pc.if_else(pc.less(values, bound), None, pa.scalar("not_sampled"))
            return pa.table({"verdict": verdict_column(rules, values, pa.array([bound] * len(values)))})

        return sample
