"""Arrow IPC, file or stream form, such as the files that `datasets.save_to_disk` writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from curate.errors import UnreadableFile
from curate.ingest.record import Record
from curate.ingest.settings import Ingest
from curate.ingest.streams import open_file
from curate.ingest.table import check_schema, records

FILE_MARK = b"ARROW1"
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def read(settings: Ingest, path: Path) -> Iterator[Record]:
    """Records of the file's rows; UnreadableFile for damage, UserMistake for columns that do not fit."""
    with open_file(path) as source:
        is_file = source.read(len(FILE_MARK)) == FILE_MARK
        if not is_file:
            # A stream cut between two batches reads as a shorter one: only its last mark tells.
            source.seek(max(0, source.size() - len(END_OF_STREAM)))
            if source.read() != END_OF_STREAM:
                raise UnreadableFile("is not Arrow, or its end is missing; write or download it again")
        source.seek(0)
        reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        names = check_schema(settings, reader.schema)
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else iter(reader)
        yield from records(settings, (_checked(batch.select(names)) for batch in batches), names)


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, once its offsets are known to stay inside its buffers: they come from the file as they are."""
    for column in batch.columns:
        # Strings are checked as bytes, so that one which is not UTF-8 costs its row and not the file.
        plain = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(column.type)
        (column.view(plain) if plain else column).validate(full=True)
    return batch
