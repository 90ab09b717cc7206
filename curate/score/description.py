"""How near a row is to a description of what is wanted: the highest cosine to any of a few texts.

CiT (Xu et al. 2023, arXiv 2301.02241) keeps what is near the metadata of a task - names of classes, prompts, a card's text - by the maximum, so that one
good match is enough, above a threshold of its own per encoder: bound `description_similarity` in `select.where`, or give it to the filter as
a member, `{members: [words, lines, scores], numbers: [description_similarity]}`. Here the encoder is frozen: CiT trains it on what it chose.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate import models as weights
from curate.algorithms.knn import unit_rows
from curate.embed.transformer import Transformer
from curate.errors import UserMistake
from curate.hardware import Precision
from curate.score._members import vectors
from curate.score._texts import existing, read_texts
from curate.score.perplexity import nullable
from curate.stage import FitEngine, Inputs, Resources, Stage, TableFunction


class Description(Stage):
    """Compares each row's vector with the vectors of texts that say what is wanted.

    description_similarity  highest cosine to any of them, -1 to 1; null where the row has no vector
    description_nearest     which of them it is, from 0

    texts, path  the texts themselves, or a file of them (.jsonl or .parquet with a column `text`, or .txt); either or both
    model        the encoder that made the rows' vectors, with the same `max_tokens`
    column       the rows' vectors
    """

    texts: tuple[str, ...] = ()
    path: str | None = None
    model: str
    max_tokens: int | None = Field(None, ge=8)
    dtype: Precision = "auto"
    column: str = "vector"

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"path"})  # in `identity` by content

    @model_validator(mode="after")
    def _some(self) -> Description:
        if not self.path and not any(text.strip() for text in self.texts):
            raise ValueError('description: say what is wanted, in `texts: ["news about science"]` or in a file, `path: wanted.txt`')
        return self

    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    def writes(self) -> pa.Schema:
        return pa.schema([("description_similarity", pa.float32()), ("description_nearest", pa.int32())])

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def identity(self) -> dict[str, Any]:
        path = weights.file_digest(existing(self.path, "description: path")) if self.path else None
        return {**self._encoder().identity(), "path": path}

    def resources(self) -> Resources:
        return Resources(memory=512 << 20)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Writes wanted.npy, float32 (texts, width), unit rows."""
        texts = [text for text in (*self.texts, *(read_texts(self.path, "description: path") if self.path else ())) if text.strip()]
        if not texts:
            raise UserMistake(f"description: {self.path} holds no text: write what is wanted, one text per line")
        table = pa.table({"text": pa.array(texts, pa.large_string())})
        np.save(folder / "wanted.npy", vectors(self._encoder().load(folder)(table), "vector"))

    def load(self, folder: Path) -> TableFunction:
        wanted = np.load(folder / "wanted.npy").astype(np.float64)

        def compare(table: pa.Table) -> pa.Table:
            found = vectors(table, self.column)
            if found.shape[1] != wanted.shape[1]:
                raise UserMistake(
                    f"description: vectors of '{self.column}' have {found.shape[1]} numbers, the encoder gives {wanted.shape[1]}: name the encoder that made them"
                )
            unit, bad = unit_rows(found)
            # One row after the other: a product of whole blocks gives other last bits for other blocks.
            cosines = np.array([wanted @ row for row in unit.astype(np.float64)]).reshape(len(unit), len(wanted))
            nearest = np.round(cosines, 6).argmax(1)
            best = cosines[np.arange(len(cosines)), nearest]
            best[bad] = np.nan
            missing = np.zeros(len(best), bool)
            missing[bad] = True
            return pa.table([nullable(best), pa.array(nearest.astype(np.int32), mask=missing)], schema=self.writes())

        return compare

    def _encoder(self) -> Transformer:
        return Transformer.model_validate({"model": self.model, "view": "text", "max_tokens": self.max_tokens, "dtype": self.dtype})
