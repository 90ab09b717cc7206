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
                    "words": word_counts(text),
                    "response_words": word_counts(response),
                }
            )

        return lengths


def word_counts(texts: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Runs of non-space per text, int32, null for null. Four times cheaper than counting matches of a pattern."""
    trimmed = pc.ascii_trim_whitespace(texts)
    counts = pc.list_value_length(pc.ascii_split_whitespace(trimmed)).cast(pa.int32())
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(0, pa.int32()), counts)
