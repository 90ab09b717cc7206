"""A data set of the Hugging Face hub, read through `datasets`: `hub:NAME`, `hub:NAME@REVISION`, `hub:NAME@REVISION:SPLIT`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from curate.errors import UnreadableFile, UserMistake
from curate.ingest.record import Record
from curate.ingest.settings import Ingest
from curate.ingest.table import check_schema, records

PREFIX = "hub:"
FORM = re.compile(r"hub:(?P<name>[^@:]+)(?:@(?P<revision>[^:]+))?(?::(?P<split>\w+))?")


def read(settings: Ingest, spec: str) -> Iterator[Record]:
    """Records of one split (`train` where none is named), streamed; data only, no code of the data set is run."""
    match = FORM.fullmatch(spec)
    if match is None:
        raise UserMistake(f"'{spec}' is not a hub address; write hub:NAME, hub:NAME@REVISION or hub:NAME@REVISION:SPLIT")
    import datasets

    try:
        data = datasets.load_dataset(match["name"], revision=match["revision"], split=match["split"] or "train", streaming=True)
    except Exception as error:  # `datasets` raises many kinds, from ValueError to those of its HTTP client
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UnreadableFile(f"cannot be opened through datasets ({reason}); check name, revision, split and network", True) from error
    names: list[str] = []

    def batches() -> Iterator:
        for table in data.with_format("arrow").iter(1024):
            yield from table.select(names).to_batches()

    first = next(iter(data.with_format("arrow").iter(1)), None)
    if first is not None:
        names += check_schema(settings, first.schema)
        yield from records(settings, batches(), names)
