"""Arrow batches, whatever file they come from, as records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from curate.errors import UserMistake
from curate.ingest.record import Record, check_columns
from curate.ingest.settings import Ingest

# Stands for a nested value with a string in it that is not UTF-8; such a string by itself comes as its bytes.
INVALID = b""


def check_schema(settings: Ingest, schema: pa.Schema) -> list[str]:
    """The used columns that the file has; raises UserMistake for a missing, doubled or wrongly typed one."""
    kind = check_columns(settings, schema.names)
    fields = settings.fields
    texts = {"instruction": (fields.instruction, fields.input, fields.output), "chat": (), "text": (fields.text,), "table": ()}[kind]
    names = [name for name in settings.used(kind) if name in schema.names]
    for name in names:
        column = schema.field(name).type
        if name in texts and not is_text(column):
            raise UserMistake(f"column '{name}' is {column}, text was expected; convert it, or name another column under ingest.fields")
        if name == fields.messages and kind == "chat" and not _is_messages(column):
            raise UserMistake(f"column '{name}' is {column}, messages were expected; name another column under ingest.fields")
        if _is_binary(column):
            raise UserMistake(f"column '{name}' is {column}, which has no text form; convert it to strings, or leave it out")
    return names


def is_text(column: pa.DataType) -> bool:
    """A column of type null is one in which no row has a text."""
    if types.is_dictionary(column):
        column = column.value_type
    return types.is_string(column) or types.is_large_string(column) or types.is_string_view(column) or types.is_null(column)


def _is_binary(column: pa.DataType) -> bool:
    if types.is_dictionary(column):
        column = column.value_type
    return types.is_binary(column) or types.is_large_binary(column) or types.is_fixed_size_binary(column) or types.is_binary_view(column)


def _is_messages(column: pa.DataType) -> bool:
    lists = types.is_list(column) or types.is_large_list(column) or types.is_list_view(column) or types.is_fixed_size_list(column)
    return types.is_null(column) or (lists and types.is_struct(column.value_type))


def records(settings: Ingest, batches: Iterable[pa.RecordBatch], names: list[str]) -> Iterator[Record]:
    """One record per row, numbered from 1 through all batches."""
    row = 0
    replace = settings.invalid_utf8 == "replace"
    for batch in batches:
        columns = []
        repaired: set[int] = set()
        for name in names:
            column = values(batch.column(name), name)
            if replace:
                for i in [i for i, value in enumerate(column) if type(value) is bytes and value != INVALID]:
                    column[i] = column[i].decode(errors="replace")
                    repaired.add(i)
            columns.append(column)
        for i, found in enumerate(zip(*columns, strict=True)):
            row += 1
            yield Record(row, dict(zip(names, found, strict=True)), None, None, i in repaired)


def values(column: pa.Array, name: str) -> list[Any]:
    """Python values; a string that is not UTF-8 comes as bytes, a time or a decimal as its text."""
    if types.is_dictionary(column.type):
        # Only the values that occur, once each: a dictionary can be far larger than the batch, and so can
        # the batch be when a long value is repeated.
        codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        present, places = np.unique(codes, return_inverse=True)
        found = values(column.dictionary.take(pa.array(present[present >= 0])), name)
        if present.size and present[0] < 0:
            found.insert(0, None)
        return [found[place] for place in places.tolist()]
    if types.is_string(column.type) or types.is_large_string(column.type) or types.is_string_view(column.type):
        try:
            return column.to_pylist()
        except UnicodeDecodeError:
            return [_text_or_bytes(value) for value in column.cast(pa.large_binary(), safe=False).to_pylist()]
    if types.is_temporal(column.type) or types.is_decimal(column.type):
        try:
            return pc.cast(column, pa.large_string()).to_pylist()
        except pa.ArrowException as error:
            raise UserMistake(f"column '{name}' is {column.type}, which has no text form; leave it out of ingest.keep") from error
    return [_value(value, name) for value in column] if types.is_nested(column.type) else column.to_pylist()


def _value(value: pa.Scalar, name: str) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return INVALID
    except (ValueError, OverflowError) as error:
        raise UserMistake(f"column '{name}' of type {value.type} holds a value without a text form; leave it out of ingest.keep") from error


def _text_or_bytes(value: bytes | None) -> str | bytes | None:
    try:
        return value if value is None else value.decode()
    except UnicodeDecodeError:
        return value
