"""What the version before says about a row: whether it survived deduplication then, and whether it was published.

Deduplication lets earlier survivors come first, so that a copy that arrives today drops nothing that was there yesterday; selection lets
published rows win ties (and `select.keep_margin`), so that the set does not churn.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.stage import Stage, TableFunction
from curate.versions import places

COLUMNS = pa.schema([("survived_before", pa.int8()), ("published_before", pa.bool_())])


class Before(Stage):
    """Looks every row up in the version before.

    survived_before   2: this row was no duplicate then; 1: another row of the same content was none; 0: its content was there, as a duplicate; -1: it is new
    """

    rows: str  # versions/N.rows.parquet
    digest: str  # its SHA-256

    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"rows"})

    def reads(self) -> tuple[str, ...]:
        return ("row_id", "source", "file", "line")

    def writes(self) -> pa.Schema:
        return COLUMNS

    def load(self, folder: Path) -> TableFunction:
        with pq.ParquetFile(self.rows, page_checksum_verification=True) as file:
            known = file.read(["row_id", "place", "fate", "duplicate"], use_threads=False)
        survived = ~np.asarray(known["duplicate"])
        place = np.sort(np.asarray(known["place"])[survived])
        same = np.sort(_texts(known["row_id"].to_pylist())[survived])
        there = np.sort(_texts(known["row_id"].to_pylist()))
        kept = np.sort(_texts(known["row_id"].to_pylist())[np.asarray(known["fate"]) == "kept"])

        def look_up(table: pa.Table) -> pa.Table:
            texts = _texts(table["row_id"].to_pylist())
            here = places(*(table[name].to_pylist() for name in ("row_id", "source", "file", "line")))
            found = np.select([_among(place, here), _among(same, texts), _among(there, texts)], [2, 1, 0], -1).astype(np.int8)
            return pa.table([pa.array(found), pa.array(_among(kept, texts))], schema=COLUMNS)

        return look_up


def _texts(row_ids: list[str]) -> np.ndarray:
    """The first 64 bits of each row_id, which is a hash: uint64 (n,)."""
    return np.array([int(row_id[:16], 16) for row_id in row_ids], np.uint64)


def _among(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Which values are in a sorted array, bool (n,)."""
    if not len(known):
        return np.zeros(len(asked), bool)
    return known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked
