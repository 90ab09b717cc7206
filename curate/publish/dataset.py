"""The published version: Parquet shards that `datasets.load_dataset` reads, a card, a Croissant file.

data/train-00000-of-0000N.parquet          the kept rows
rejected/rejected-00000-of-0000N.parquet   every other row with its reason, as a second config
README.md, croissant.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.dataset import CANONICAL, LINEAGE, write_table
from curate.errors import InternalError
from curate.ledger import FATE, fates_of
from curate.publish.card import Config, Published, PublishedFile, SourceNote, card
from curate.publish.croissant import croissant
from curate.stage import FitEngine, Inputs, Stage
from curate.store import sha256_file

LEFT_OUT = ("vector", "map_x", "map_y", "nominated", "parent_text", "parent_at")
REJECTED = ("row_id", "source", "file", "line", "origin", "prompt", "response", "text")


class Publish(Stage):
    """Writes the kept rows as a dataset, and the others with their reasons beside it."""

    rows_per_file: int = Field(default=50_000, gt=0)
    leave_out: tuple[str, ...] = Field(default=LEFT_OUT, description="columns that stay in the run folder")
    rejected: bool = Field(default=True, description="also write the rows that were not kept, as a second config")
    title: str = "Training set"
    licence: dict[str, str] = Field(default={}, description="source name -> licence, as you state it")
    # Filled by the run:
    decisions: tuple[str, ...] = ()  # steps with verdicts, in order
    available: tuple[str, ...] = ()  # every column there is
    about: dict[str, Any] = Field(default={})  # version, counts, models and the like, for the card

    # Nothing is hidden: this stage looks at every row and at every verdict.
    hidden_by: ClassVar[frozenset[str]] = frozenset()
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"about"})

    def reads_if_present(self) -> tuple[str, ...]:
        return tuple(name for name in self.available if name not in self.leave_out)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        schema = self._schema(inputs)
        rejected_schema = pa.schema([*(schema.field(name) for name in REJECTED if name in schema.names), *FATE])
        kept = _Files(folder, "data/train", schema, self.rows_per_file)
        others = _Files(folder, "rejected/rejected", rejected_schema, self.rows_per_file) if self.rejected else None
        for _, table in inputs.tables():
            known = {step: table[f"{step}.verdict"] for step in self.decisions if f"{step}.verdict" in table.column_names}
            fate = fates_of(known, table.num_rows)
            mask = pc.equal(fate["fate"], "kept")
            kept.add(_as(table.filter(mask), schema))
            if others:
                rows = table.select(
                    [name for name in REJECTED if name in table.column_names]
                )  # a column of the user's may be called `value`
                for name in fate.column_names:
                    rows = rows.append_column(name, fate[name])
                others.add(_as(rows.filter(pc.invert(mask)), rejected_schema))
        configs = [Config("default", kept.close(), schema, "the training set")]
        if others:
            configs.append(
                Config("rejected", others.close(), rejected_schema, "every row that was left out, with the step and rule that did it")
            )
        facts = self._facts(configs)
        (folder / "README.md").write_text(card(facts), encoding="utf-8")
        (folder / "croissant.json").write_text(json.dumps(croissant(facts), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _facts(self, configs: list[Config]) -> Published:
        about = dict(self.about)
        sources = about.pop("sources", {})
        return Published(
            name=self.title,
            configs=tuple(configs),
            sources=tuple(SourceNote(name, rows, kept, self.licence.get(name, "")) for name, (rows, kept) in sorted(sources.items())),
            **about,
        )

    def _schema(self, inputs: Inputs) -> pa.Schema:
        """Columns of the dataset: the union over shards, canonical ones first, in a fixed order."""
        types: dict[str, pa.DataType] = {} if inputs.shards else {field.name: field.type for field in CANONICAL}
        for found in inputs.types():
            for name, kind in found.items():
                if not name.endswith(".verdict") and types.setdefault(name, kind) != kind:
                    raise InternalError(f"column '{name}' has type {types[name]} in one shard and {kind} in another: please report this")
        first = [name for name in (*CANONICAL.names, *LINEAGE.names) if name in types]
        return pa.schema([(name, types[name]) for name in [*first, *sorted(set(types) - set(first))]])


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly these columns; what it does not have is null."""
    columns = [table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type) for field in schema]
    return pa.table(columns, schema=schema)


class _Files:
    """Rows into files of a fixed size; names carry the number of files, so they are given at the end."""

    def __init__(self, folder: Path, stem: str, schema: pa.Schema, rows: int):
        self.folder, self.stem, self.rows = folder, stem, rows
        self.waiting = schema.empty_table()
        self.written: list[tuple[Path, int]] = []
        (folder / stem).parent.mkdir(parents=True)

    def add(self, table: pa.Table) -> None:
        self.waiting = pa.concat_tables([self.waiting, table])
        while self.waiting.num_rows >= self.rows:
            self._write(self.waiting.slice(0, self.rows))
            self.waiting = self.waiting.slice(self.rows)

    def _write(self, table: pa.Table) -> None:
        path = self.folder / f"{self.stem}-{len(self.written):05d}.attempt"
        write_table(table, path)
        self.written.append((path, table.num_rows))

    def close(self) -> tuple[PublishedFile, ...]:
        """Final names; without any row one empty file, so that the dataset always loads."""
        if self.waiting.num_rows or not self.written:
            self._write(self.waiting)
        named = []
        for index, (path, rows) in enumerate(self.written):
            name = f"{self.stem}-{index:05d}-of-{len(self.written):05d}.parquet"
            final = path.rename(self.folder / name)
            named.append(PublishedFile(name, sha256_file(final), final.stat().st_size, rows))
        return tuple(named)
