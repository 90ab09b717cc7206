"""A scorer that runs out of memory with batches above a limit, as torch does on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curate.stage import Stage, TableFunction


class Hungry(Stage):
    """Length of the text, where `batch_tokens` is at most `holds`; `log` gets a line for each attempt."""

    batch_tokens: int = 1024
    holds: int = 200
    log: str = ""

    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"log", "holds"})

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([("size", pa.int64())])

    def load(self, folder: Path) -> TableFunction:
        def score(table: pa.Table) -> pa.Table:
            if self.log:
                with Path(self.log).open("a") as file:
                    file.write(f"{self.batch_tokens}\n")
            if self.batch_tokens > self.holds:
                raise RuntimeError(
                    "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
                )
            return pa.table({"size": pc.utf8_length(table["text"]).cast(pa.int64())})

        return score
