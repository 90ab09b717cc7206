"""Rows of a target file: what the model is to get better at, in subtasks."""

from __future__ import annotations

import pyarrow as pa

from curate.errors import UserMistake
from curate.ingest.files import read_beside
from curate.score._texts import existing

KINDS = ".parquet or .jsonl"  # rows with prompt and response


def target_tables(path: str, group_by: str | None, stage: str) -> list[pa.Table]:
    """The rows of the file as canonical rows, with the column `group_by`. `stage` names the section of the recipe in messages."""
    file = existing(path, f"{stage}: target", KINDS)
    tables = read_beside(file, (group_by,) if group_by else (), "target")
    if group_by and all(table.column(group_by).null_count == len(table) for table in tables):
        raise UserMistake(f"{stage}: group_by '{group_by}' is not in {file}: name one of its columns, or leave group_by out")
    return tables


def groups_of(table: pa.Table, column: str | None) -> list[str]:
    """The group of each row, as text; "" where there is none."""
    if column not in table.column_names:
        return [""] * len(table)
    return ["" if value is None else str(value) for value in table.column(column).to_pylist()]
