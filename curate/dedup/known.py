"""Rows of another dataset, to hold a run's rows against: a folder of Parquet files, one file, or the folder of an earlier run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dedup.copies import Marks, marks
from curate.errors import UserMistake
from curate.store import sha256_file

ROWS = 4096  # read at a time


class Known:
    """`view` is the column that is compared."""

    def __init__(self, place: str, view: str):
        self.place, self.view = place, view
        path = Path(place).expanduser()
        if (path / "run.json").is_file():
            path = path / "dataset"
        if (path / "data").is_dir():  # a dataset as curate publishes it: what it left out, in `rejected`, is not of it
            path = path / "data"
        self.files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not self.files or not all(file.is_file() for file in self.files):
            raise UserMistake(
                f"against: there is no Parquet file at {place}: name a dataset's folder, a Parquet file, or the folder of a finished run"
            )
        self.root = path if path.is_dir() else path.parent

    def digest(self) -> list[str]:
        """Of the files' names and content."""
        return [
            f"{file.relative_to(self.root).as_posix()} {_digest(str(file), file.stat().st_size, file.stat().st_mtime_ns)}"
            for file in self.files
        ]

    def marks(self, of: str, shingle: int) -> Iterator[Marks]:
        for file in self.files:
            names = _names(file)
            if self.view not in names:
                raise UserMistake(
                    f"against: {file} has no column '{self.view}', it has {', '.join(names)}: set `view` to one that both sides have"
                )
            for _, column in _column(file, self.view):
                try:
                    texts = column.cast(pa.large_string()).to_pylist()
                except (pa.ArrowException, UnicodeDecodeError):
                    raise UserMistake(
                        f"against: column '{self.view}' of {file} is {column.type}: set `view` to a column of texts"
                    ) from None
                yield marks(texts, of, shingle)

    def responses(self) -> Iterator[str | None]:
        """Of every row, None where the dataset has no responses."""
        for file in self.files:
            names = _names(file)
            for _, column in _column(file, "response" if "response" in names else names[0]):
                if "response" in names and not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                    raise UserMistake(
                        f"against: column 'response' of {file} is {column.type} and not text: set `answers: ignored`, or name a dataset with answers as text"
                    )
                yield from column.to_pylist() if "response" in names else [None] * len(column)

    def names(self) -> Iterator[tuple[str, str]]:
        """(row_id, or the place where there is none; the place: dataset, file and row) of every row."""
        for file in self.files:
            names = _names(file)
            name = f"{self.place}:{file.relative_to(self.root).as_posix()}"
            for start, column in _column(file, "row_id" if "row_id" in names else names[0]):
                row_ids = column.to_pylist() if "row_id" in names else [None] * len(column)
                places = (f"{name}:{start + row}" for row in range(len(column)))
                yield from ((place if row_id is None else str(row_id), place) for row_id, place in zip(row_ids, places, strict=True))


def _names(file: Path) -> list[str]:
    try:
        return pq.read_schema(file).names
    except pa.ArrowException as error:
        raise UserMistake(f"against: {file} cannot be read as Parquet ({error}): name a dataset that is whole") from None


def _column(file: Path, name: str) -> Iterator[tuple[int, pa.Array]]:
    """(number of the first row, values) of parts of a column."""
    start = 0
    with pq.ParquetFile(file) as source:
        for batch in source.iter_batches(ROWS, columns=[name], use_threads=False):
            yield start, batch.column(0)
            start += batch.num_rows


@cache
def _digest(file: str, size: int, mtime: int) -> str:
    return sha256_file(Path(file))
