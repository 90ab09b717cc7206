"""What every reader hands over: one record per line or row, good or bad."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from curate.errors import UserMistake
from curate.ingest.settings import Ingest


class Record(NamedTuple):
    line: int  # 1-based line of a text format, row of an Arrow format
    values: Mapping[str, Any] | None  # by column name; None where the line could not be parsed
    rule: str | None  # why it could not
    raw: bytes | None  # the line's bytes (a digest of them for a line that is too long); None for Arrow formats
    repaired: bool = False  # bytes that are not UTF-8 were replaced


def no_column(columns: Iterable[str], wanted: str) -> UserMistake:
    have = ", ".join(repr(name) for name in columns) or "none"
    return UserMistake(f"has no column {wanted}; its columns are {have}; name the right one under ingest.fields")


def check_columns(settings: Ingest, columns: list[str]) -> str:
    """The kind of rows in a file with this header; raises UserMistake for missing and for doubled columns."""
    kind = settings.kind_of(columns)
    if kind is None:
        fields = settings.fields
        raise no_column(columns, f"'{fields.instruction}', '{fields.messages}' or '{fields.text}'")
    for name in settings.used(kind):
        if columns.count(name) > 1:
            raise UserMistake(f"has {columns.count(name)} columns called '{name}'; remove or rename all but one")
    for name in settings.required(kind):
        if name not in columns:
            raise no_column(columns, f"'{name}'")
    return kind
