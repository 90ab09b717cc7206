"""The peer of length_filter.py: what one would write with pyarrow alone.

    python benchmarks/plain_length_filter.py ROWS.jsonl OUT_FOLDER SHARD_ROWS LEAST MOST

Reads block by block, keeps rows of LEAST to MOST characters, writes one Parquet file per SHARD_ROWS rows read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq


def main(source: str, out: str, shard_rows: int, least: int, most: int) -> None:
    folder = Path(out)
    folder.mkdir()
    held: list[pa.RecordBatch] = []
    rows = shards = kept = 0

    def write(batches: list[pa.RecordBatch]) -> None:
        nonlocal shards, kept
        table = pa.Table.from_batches(batches)
        length = pc.utf8_length(table["text"])
        table = table.filter(pc.and_(pc.greater_equal(length, least), pc.less_equal(length, most)))
        pq.write_table(table, folder / f"{shards:05d}.parquet", compression="zstd", compression_level=3)  # as curate writes
        shards, kept = shards + 1, kept + table.num_rows

    for batch in pyarrow.json.open_json(source, read_options=pyarrow.json.ReadOptions(block_size=1 << 20)):
        while batch.num_rows:
            part = batch.slice(0, shard_rows - rows)
            batch = batch.slice(part.num_rows)
            held.append(part)
            rows += part.num_rows
            if rows == shard_rows:
                write(held)
                held, rows = [], 0
    if held:
        write(held)
    print(f'{{"kept": {kept}, "shards": {shards}}}')


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
