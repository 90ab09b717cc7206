"""The trusted set of a recipe: rows or texts that a user vouches for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, model_validator

from curate import models
from curate.errors import UserMistake
from curate.score._texts import existing, read_texts
from curate.stage import Inputs


class Trusted(BaseModel):
    """Which texts are trusted: rows of the corpus (`where`: column: value, or a list of values; all must hold), or a file.

    path   .jsonl or .parquet with a column `text`, or .txt with one text per line
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    where: dict[str, Any] | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Trusted:
        if (self.where is None) == (self.path is None):
            raise ValueError("trusted needs either `where: {column: value}` or `path: FILE`")
        if self.where is not None and not self.where:
            raise ValueError("trusted.where is empty: name a column and a value")
        return self

    def columns(self) -> tuple[str, ...]:
        """Columns of the corpus that say which rows are trusted."""
        return tuple(self.where or {})

    def identity(self, stage: str) -> dict[str, Any]:
        """For a fingerprint: a file by its content, not by its path. `stage` names the section of the recipe in messages."""
        return {"trusted": models.file_digest(existing(self.path, f"{stage}: trusted.path")) if self.path else self.where}

    def texts(self, inputs: Inputs, stage: str) -> Iterator[str]:
        """The trusted texts, in their order, repeats included."""
        if self.path:
            yield from read_texts(self.path, f"{stage}: trusted.path")
        else:
            for table, mask in self.marked(inputs, stage):
                yield from table.column("text").filter(pa.array(mask)).to_pylist()

    def none_found(self, stage: str) -> UserMistake:
        return UserMistake(f"{stage}: no row matches trusted.where {self.where}: check the value, and that ingest.keep lists the column")

    def marked(self, inputs: Inputs, stage: str) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Each shard with a mask of its trusted rows (bool; none where the trusted texts come from a file)."""
        for _, table in inputs.tables():
            mask = np.full(table.num_rows, self.where is not None)
            for column, wanted in (self.where or {}).items():
                values = wanted if isinstance(wanted, list) else [wanted]
                if column not in table.column_names:
                    mask[:] = False
                    continue
                try:
                    found = pc.is_in(table.column(column), pa.array(values).cast(table.schema.field(column).type))
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
                    kind = table.schema.field(column).type
                    raise UserMistake(f"{stage}: trusted.where compares '{column}' ({kind}) with {values}: give {kind} values") from error
                mask &= found.to_numpy(zero_copy_only=False)
            yield table, mask


def draw(seed: int, purpose: str, text: str) -> int:
    """64 pseudo-random bits that follow from the text: the same however the corpus is cut or ordered."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, salt=seed.to_bytes(8, "little"), person=purpose.encode()).digest())
