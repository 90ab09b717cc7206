"""Token counts, the currency of budgets."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from curate.score.length import word_counts
from curate.stage import Stage, TableFunction


class Tokens(Stage):
    """Counts tokens of the text and of the response, by a model's tokenizer or, without a model, as words."""

    model: str | None = None  # reference of the model whose tokenizer counts; None: runs of non-space

    libraries = ("tokenizers",)

    def models(self) -> tuple[str, ...]:
        return (self.model,) if self.model else ()

    def reads(self) -> tuple[str, ...]:
        return ("text", "response")

    def writes(self) -> pa.Schema:
        return pa.schema([("tokens", pa.int32()), ("response_tokens", pa.int32())])

    def load(self, folder: Path) -> TableFunction:
        if self.model is None:

            def words(table: pa.Table) -> pa.Table:
                return pa.table({"tokens": word_counts(table["text"]), "response_tokens": word_counts(table["response"])})

            return words
        from curate import models

        tokenizer = models.load_tokenizer(self.model)

        def count(texts: list[str | None]) -> list[int | None]:
            present = [text for text in texts if text is not None]
            # split_special_tokens: a document that spells "<|im_end|>" holds characters, not a turn's end
            encoded = tokenizer(present, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"] if present else []
            found = iter(encoded)
            return [None if text is None else len(next(found)) for text in texts]

        def tokens(table: pa.Table) -> pa.Table:
            text, response = count(table["text"].to_pylist()), count(table["response"].to_pylist())
            return pa.table({"tokens": pa.array(text, pa.int32()), "response_tokens": pa.array(response, pa.int32())})

        return tokens
