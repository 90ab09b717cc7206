"""Lengths of a row, in characters and in words (runs of non-space)."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curate.stage import Stage, TableFunction


class Length(Stage):
    """Counts characters and words of the text, and words of the response (null where there is none)."""

    def reads(self) -> tuple[str, ...]:
        return ("text", "response")

    def writes(self) -> pa.Schema:
        return pa.schema([("chars", pa.int32()), ("words", pa.int32()), ("response_words", pa.int32())])

    def load(self, folder: Path) -> TableFunction:
        def lengths(table: pa.Table) -> pa.Table:
            text, response = table["text"], table["response"]
            return pa.table(
                {
                    "chars": pc.utf8_length(text).cast(pa.int32()),
                    "words": pc.count_substring_regex(text, r"\S+").cast(pa.int32()),
                    "response_words": pc.count_substring_regex(response, r"\S+").cast(pa.int32()),
                }
            )

        return lengths
