"""The recipe's `ingest:` section."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from curate.dataset import CANONICAL, LINEAGE

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
TAKEN = frozenset((*CANONICAL.names, *LINEAGE.names, "verdict", "shard", "position", "vector", "nominated"))


def byte_count(value: Any) -> Any:
    """`64MB`, `1.5 GiB` or a plain number of bytes."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2].upper() not in UNITS:
        raise ValueError(f"'{value}' is not a number of bytes: write for instance 64MB, 10MiB or 1000000")
    return int(float(match[1]) * UNITS[match[2].upper()])


Bytes = Annotated[int, BeforeValidator(byte_count), Field(gt=0)]


class Source(BaseModel):
    """One origin of rows. A lower `priority` comes first and is preferred where rows are duplicates."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1)
    path: str = Field(min_length=1)
    priority: int = 0


class Fields(BaseModel):
    """Exact names of the user's columns; `role` and `content` are the keys inside a message, `columns` the cells of a table's row."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"
    messages: str = "messages"
    role: str = "role"
    content: str = "content"
    text: str = "text"
    id: str = "id"
    columns: tuple[str, ...] = ()


class Ingest(BaseModel):
    """What to read and how to cut it; either `path` (one unnamed source, called `data`) or `sources`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str | tuple[str, ...] | None = None
    sources: tuple[Source, ...] | None = None
    kind: Literal["auto", "instruction", "chat", "text", "table"] = "auto"
    fields: Fields = Fields()
    keep: tuple[str, ...] = ()
    shard_rows: int = Field(5000, gt=0)
    shard_bytes: Bytes = 64 << 20
    max_row_bytes: Bytes = 10 << 20
    max_file_bytes: Bytes = 256 << 30  # unpacked
    max_unpack_ratio: int = Field(200, gt=0)  # looked at above 256 MiB unpacked
    quarantine_max: float = Field(0.01, ge=0, le=1)
    invalid_utf8: Literal["quarantine", "replace"] = "quarantine"
    damaged_text: Literal["keep", "mend"] = "keep"  # text that was decoded wrongly: see repair.py
    personal_data: Literal["keep", "mask"] = "keep"

    @field_validator("keep")
    @classmethod
    def _free_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name in TAKEN or name.endswith(".verdict"):
                raise ValueError(f"keep: '{name}' is a column of every run's own; rename the column in your data or leave it out")
        if len(set(names)) != len(names):
            raise ValueError("keep: a column is named twice; name it once")
        return names

    @model_validator(mode="after")
    def _one_origin(self) -> Ingest:
        if bool(self.path) == bool(self.sources):
            raise ValueError("give either ingest.path or ingest.sources")
        if self.path and not all([self.path] if isinstance(self.path, str) else self.path):
            raise ValueError("path: one of them is empty; name a file, a folder or a glob")
        if self.kind == "table" and (not self.fields.columns or len(set(self.fields.columns)) < len(self.fields.columns)):
            raise ValueError("kind: table needs the columns of a row, each once: fields: {columns: [age, sex, income]}")
        if self.kind == "table" and (self.personal_data != "keep" or self.damaged_text != "keep"):
            raise ValueError("personal_data and damaged_text are for texts: leave columns of a table out, or mend them before")
        names = [source.name for source in self.sources or ()]
        if len(set(names)) != len(names):
            raise ValueError("sources: two have the same name; give each its own")
        return self

    def identity(self) -> dict[str, str]:
        """What else the rows depend on: the version of the library that mends."""
        from importlib import metadata

        return {"ftfy": metadata.version("ftfy")} if self.damaged_text == "mend" else {}

    def origins(self) -> list[Source]:
        """The sources in order of priority, then as written."""
        if self.sources:
            return sorted(self.sources, key=lambda source: source.priority)
        paths = (self.path,) if isinstance(self.path, str) else self.path or ()
        return [Source.model_construct(name="data", path=path) for path in paths]  # also names that are no Unicode

    def kind_of(self, columns: Any) -> str | None:
        """The kind of row that a record or file with these columns holds; None where no column tells."""
        if self.kind != "auto":
            return self.kind
        marks = {"instruction": self.fields.instruction, "chat": self.fields.messages, "text": self.fields.text}
        return next((kind for kind, column in marks.items() if column in columns), None)

    def required(self, kind: str) -> tuple[str, ...]:
        """Columns without which a file cannot be read as this kind."""
        fields = self.fields
        return {
            "instruction": (fields.instruction, fields.output), "chat": (fields.messages,), "text": (fields.text,), "table": fields.columns,
        }[kind]  # fmt: skip

    def used(self, kind: str) -> tuple[str, ...]:
        """Columns that are looked at, once each; the others pass by untouched."""
        optional = (self.fields.input,) if kind == "instruction" else ()
        return tuple(dict.fromkeys((*self.required(kind), *optional, self.fields.id, *self.keep)))
