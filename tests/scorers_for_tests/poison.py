"""A scorer that some rows are poison for: their text holds the word."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import ClassVar, Literal

import pyarrow as pa

from curate.stage import Stage, TableFunction


class Poison(Stage):
    """Length of the text; a row with `word` in it raises, ends the process, kills it or sleeps for ever."""

    how: Literal["raise", "exit", "kill", "sleep", "nothing"] = "raise"
    word: str = "poison"

    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"how"})

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([("size", pa.int64())])

    def load(self, folder: Path) -> TableFunction:
        def score(table: pa.Table) -> pa.Table:
            texts = table["text"].to_pylist()
            if any(self.word in text for text in texts):
                if self.how == "raise":
                    raise ValueError("a row that this scorer cannot bear")
                if self.how == "exit":
                    os._exit(7)
                if self.how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                while self.how == "sleep":
                    time.sleep(3600)
            return pa.table({"size": pa.array([len(text) for text in texts], pa.int64())})

        return score
