"""Parquet: used columns only, row group by row group in small batches, page checksums verified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import UnreadableFile
from curate.ingest.record import Record
from curate.ingest.settings import Ingest
from curate.ingest.streams import open_file, refuse_bomb, unpacked_limit
from curate.ingest.table import check_schema, is_text, records

BATCH_ROWS = 2048
BATCH_BYTES = 16 << 20


def read(settings: Ingest, path: Path) -> Iterator[Record]:
    """Records of the file's rows; UnreadableFile for damage, UserMistake for columns that do not fit."""
    with open_file(path) as source:
        if source.read(4) != b"PAR1":
            raise UnreadableFile("is not Parquet, it does not begin with its mark; rename it, or download it again")
        schema = pq.read_schema(source)
        names = check_schema(settings, schema)
        # Texts are read as dictionaries: a long value repeated 65,536 times in a file of 5 KB (a Parquet bomb) is then
        # held once. What the rows add up to is counted where they become shards.
        texts = [name for name in names if is_text(schema.field(name).type)]
        file = pq.ParquetFile(source, read_dictionary=texts, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True)
        limit = unpacked_limit(source.size(), settings.max_unpack_ratio, settings.max_file_bytes)
        rows = max(1, min(BATCH_ROWS, settings.shard_rows, BATCH_BYTES // max(_bytes_per_row(file.metadata, limit), 1)))
        yield from records(settings, _batches(file, rows, names), names)


def _batches(file: pq.ParquetFile, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Every row that the footer promises, or UnreadableFile."""
    read = 0
    for batch in file.iter_batches(rows, columns=names, use_threads=False):
        read += batch.num_rows
        yield batch
    if read != file.metadata.num_rows:
        raise UnreadableFile(f"holds {read} rows, its footer says {file.metadata.num_rows}; download or write it again")


def _bytes_per_row(metadata: pq.FileMetaData, limit: int) -> int:
    """The largest mean size of a row over the row groups, unused columns included, as the footer states it.

    The sizes of single columns are not asked for: on some damaged footers that call ends the whole process
    (PyArrow 26 does not catch the C++ exception).
    """
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    if any(group.total_byte_size > limit for group in groups):
        raise refuse_bomb(limit)
    return max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
