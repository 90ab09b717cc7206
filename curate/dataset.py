"""The one table of a run: shards on disk, and columns beside them.

    corpus/00000.parquet             row_id source file line prompt response text ...   (ingest)
    stages/embed/00000.parquet       vector                                             same rows,
    stages/length/00000.parquet      chars words response_words                         same order
    stages/near_dedup/00000.parquet  verdict

A `Dataset` is a list of shards and, for each, where its columns live and what their values hash to. It
holds no data. Putting results side by side is a merge of those mappings; nothing is copied or joined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import Damaged, UserMistake

# Columns of every corpus shard, before the columns a recipe asks to `keep` (all large_string).
CANONICAL = pa.schema(
    [
        ("row_id", pa.string()),  # 32 hex digits of SHA-256 over messages, prompt, response, text
        ("source", pa.string()),  # the source's name in the recipe
        ("source_id", pa.large_string()),  # the user's own id: shown, never a key, a path or a file name
        ("file", pa.string()),  # path as found under the source
        ("line", pa.int64()),  # 1-based line (text formats) or row (Parquet, Arrow)
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))),
        ("prompt", pa.large_string()),
        ("response", pa.large_string()),
        ("text", pa.large_string()),
    ]
)

# Columns that only shards of generated rows carry, after the canonical ones.
LINEAGE = pa.schema(
    [
        ("origin", pa.string()),  # the step that made the row: "rewrite", "antidote"
        ("parents", pa.list_(pa.string())),  # row_ids
        ("parent_at", pa.string()),  # "shard:position" of the source row in this run
        ("parent_text", pa.large_string()),  # what the generator was shown, for the gates
        ("generator", pa.string()),  # model and method
        ("prompt_digest", pa.string()),
        ("depth", pa.int32()),  # 1: made from a raw row
    ]
)


@dataclass(frozen=True)
class Column:
    """Where a column of one shard lives (relative to the run) and what its values hash to."""

    file: str
    name: str
    hash: str
    # Of a verdict column: hash of which rows it drops, and of which it quarantines; "" where none.
    masks: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Shard:
    """`name` is the shard's identity in the run; `columns` maps a name, as stages see it, to its place."""

    name: str
    rows: int
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class Dataset:
    """Shards of a run under `root`, in order. `kinds`: what the verdicts of each deciding step mean."""

    root: Path
    shards: tuple[Shard, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def names(self) -> list[str]:
        """Every column that at least one shard has."""
        return sorted({name for shard in self.shards for name in shard.columns})

    def beside(self, *others: Dataset) -> Dataset:
        """These shards, with the columns that `others` know about them."""
        known: dict[str, dict[str, Column]] = {shard.name: dict(shard.columns) for shard in self.shards}
        kinds = dict(self.kinds)
        for other in others:
            kinds.update(other.kinds)
            for shard in other.shards:
                mine = known.get(shard.name)
                if mine is None:
                    continue
                for name, column in shard.columns.items():
                    if mine.setdefault(name, column) != column:
                        raise UserMistake(
                            f"column '{name}' of shard {shard.name} comes from both {mine[name].file} and {column.file}: "
                            "give one of the two another name; a column of `ingest.keep` has to be renamed in your data"
                        )
        shards = tuple(Shard(shard.name, shard.rows, known[shard.name]) for shard in self.shards)
        return Dataset(self.root, shards, kinds)

    def read(self, shard: Shard, names: list[str] | tuple[str, ...]) -> pa.Table:
        """The named columns of one shard, in the order asked for."""
        return read_columns(self.root, shard, names)

    def tables(self, names: list[str]) -> Iterator[tuple[Shard, pa.Table]]:
        """Shard by shard; a column that a shard does not have is left out of its table."""
        for shard in self.shards:
            yield shard, self.read(shard, [name for name in names if name in shard.columns])


def columns_of(step: str, file: str, described: Mapping[str, Mapping[str, str]]) -> dict[str, Column]:
    """Columns of a committed file as later stages see them: a `verdict` is known by its step's name."""
    found = {}
    for name, hashes in described.items():
        masks = {word: hashes[word] for word in ("drop", "quarantine") if word in hashes}
        found[f"{step}.verdict" if name == "verdict" else name] = Column(file, name, hashes["hash"], masks)
    return found


def union(*datasets: Dataset) -> Dataset:
    """All shards, one list after the other: documents and the rows generated from them."""
    seen: dict[str, Shard] = {}
    kinds: dict[str, str] = {}
    for dataset in datasets:
        kinds.update(dataset.kinds)
        for shard in dataset.shards:
            if shard.name in seen:
                raise ValueError(f"shard {shard.name} is in two of the datasets to unite: unite each only once")
            seen[shard.name] = shard
    return Dataset(datasets[0].root, tuple(seen.values()), kinds)


def read_columns(root: Path, shard: Shard, names: list[str] | tuple[str, ...], parts: Sequence[str] = ()) -> pa.Table:
    """Columns of one shard from as many files as they live in; `shard` and `position` are virtual. Of struct columns only `parts`, if any are named."""
    by_file: dict[str, list[str]] = {}
    for name in names:
        if name not in ("shard", "position"):
            by_file.setdefault(shard.columns[name].file, []).append(name)
    found: dict[str, pa.ChunkedArray | pa.Array] = {}
    for file, wanted in by_file.items():
        stored = [shard.columns[name].name for name in wanted]
        table = _read_file(root / file, [f"{name}.{part}" for name in stored for part in parts] or stored)
        if table.num_rows != shard.rows:
            raise Damaged(str(root / file))
        for name in wanted:
            found[name] = table.column(shard.columns[name].name)
    if "shard" in names:
        found["shard"] = pa.array([shard.name] * shard.rows, pa.string())
    if "position" in names:
        found["position"] = pa.array(range(shard.rows), pa.int32())
    return pa.table({name: found[name] for name in names})


def read_rows(root: Path, shard: Shard, names: Sequence[str], rows: Sequence[int]) -> pa.Table:
    """Stored columns of some rows of a shard, in the order of `rows`; only the row groups that hold them are read."""
    by_file: dict[str, list[str]] = {}
    for name in names:
        by_file.setdefault(shard.columns[name].file, []).append(name)
    found: dict[str, pa.ChunkedArray] = {}
    for file, wanted in by_file.items():
        with _opened(root / file) as source:
            if source.metadata.num_rows != shard.rows:
                raise Damaged(str(root / file))
            ends = np.cumsum([source.metadata.row_group(group).num_rows for group in range(source.num_row_groups)])
            groups = sorted({int(np.searchsorted(ends, row, side="right")) for row in rows})
            table = source.read_row_groups(groups, [shard.columns[name].name for name in wanted], use_threads=False)
        held = np.concatenate([np.empty(0, np.int64), *(np.arange(ends[group - 1] if group else 0, ends[group]) for group in groups)])
        table = table.take(pa.array(np.searchsorted(held, rows)))
        for name in wanted:
            found[name] = table.column(shard.columns[name].name)
    return pa.table({name: found[name] for name in names})


def column_types(root: Path, shard: Shard, names: Sequence[str]) -> dict[str, pa.DataType]:
    """Types of the columns of a shard, from the files' footers alone."""
    schemas: dict[str, pa.Schema] = {}
    for name in names:
        file = shard.columns[name].file
        if file not in schemas:
            schemas[file] = pq.read_schema(root / file)
    return {name: schemas[shard.columns[name].file].field(shard.columns[name].name).type for name in names}


def _read_file(path: Path, names: list[str]) -> pa.Table:
    # One thread: the caller owns the parallelism (one shard per worker).
    with _opened(path) as file:
        return file.read(names, use_threads=False)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A file of ours; what cannot be read of it is Damaged."""
    try:
        # No memory map. ParquetFile and not read_table, which goes through pyarrow.dataset at two to four times the cost for a small file.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise Damaged(str(path)) from error


def write_table(table: pa.Table, path: Path) -> None:
    """The one way a table of ours is written: fixed options, so that equal tables give equal bytes.

    Level 1 writes in 60 % of the time of level 3, 12 % larger. No dictionaries: zstd does as well without (measured: 3 % smaller). Page checksums: without them a flipped bit was read back silently wrong 290 times of 400.
    """
    table = table.replace_schema_metadata(None).combine_chunks()
    with pq.ParquetWriter(
        path, table.schema, compression="zstd", compression_level=1, use_dictionary=False, write_page_checksum=True
    ) as writer:
        if table.num_rows:  # a row group of no rows is what `datasets` cannot read
            writer.write_table(table, row_group_size=8192)


def column_hash(column: pa.ChunkedArray | pa.Array) -> str:
    """SHA-256 over the values of a column, independent of chunking, of slicing and of the file around it."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # combine_chunks gives several where offsets would overflow
        array = pa.concat_arrays(array.chunks) if array.num_chunks != 1 else array.chunk(0)
    if array.offset or array.null_count:
        # `take` rebuilds the buffers: no offset, and what lies under a null does not count
        array = array.take(pa.array(range(len(array)), pa.int64()))
    digest = hashlib.sha256(str(array.type).encode())
    batch = pa.record_batch([array], names=["c"])
    options = pa.ipc.IpcWriteOptions(unify_dictionaries=False)
    sink = _HashSink(digest)
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return digest.hexdigest()[:32]


class _HashSink:
    """A file object that only hashes."""

    def __init__(self, digest: hashlib._Hash):
        self.digest, self.closed, self.position = digest, False, 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.position += len(data)
        return len(data)

    def tell(self) -> int:
        return self.position

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def writable(self) -> bool:
        return True
