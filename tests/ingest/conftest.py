"""Helpers of the ingest tests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.ingest.files import Ingest, find_files, read_shards


class Reading:
    """What came out of a path: all shards of all its files, as tables and as rows."""

    def __init__(self, path: Path | str, **settings: Any):
        self.settings = Ingest(path=str(path), **settings)
        self.shards = [shard for file in find_files(self.settings) for shard in read_shards(self.settings, file)]
        self.rows = pa.concat_tables([shard.replace_schema_metadata(None) for shard in self.shards]).to_pylist() if self.shards else []
        self.good = [row for row in self.rows if row["verdict"] is None]
        self.bad = [(row["line"], row["verdict"]["rule"]) for row in self.rows if row["verdict"]]

    def rules(self) -> dict[str, int]:
        return dict(Counter(rule for _, rule in self.bad))

    def texts(self) -> list[str]:
        return [row["text"] for row in self.good]


@pytest.fixture
def read():
    return Reading


@pytest.fixture
def read_bytes(tmp_path):
    """Read `content` as a file of that name."""

    def read(name: str, content: bytes | str, **settings: Any) -> Reading:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return Reading(path, **settings)

    return read
