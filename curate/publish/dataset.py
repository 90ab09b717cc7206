"""The published version: Parquet shards that `datasets.load_dataset` reads, a card, a Croissant file, what changed.

data/train-00000-of-0000N.parquet      the kept rows
rejected/rejected-00000-of-0000N.parquet   every other row with its reason, as a second config
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.stage import FitEngine, Inputs, Stage

LEFT_OUT = ("vector", "map_x", "map_y", "nominated", "parent_text", "parent_at")
REJECTED = ("row_id", "source", "file", "line", "origin", "prompt", "response", "text")


class Publish(Stage):
    """Writes the kept rows as a dataset, and the others with their reasons beside it."""

    rows_per_file: int = Field(50_000, gt=0)
    leave_out: tuple[str, ...] = Field(LEFT_OUT, description="columns that stay in the run folder")
    rejected: bool = Field(True, description="also write the rows that were not kept, as a second config")
    title: str = "Training set"
    licence: str | None = Field(None, description="as you state it; None: not stated")
    decisions: tuple[str, ...] = ()  # filled by the run: steps with verdicts, in order
    available: tuple[str, ...] = ()  # filled by the run: every column there is

    # Nothing is hidden: this stage looks at every row and at every verdict.
    hidden_by: ClassVar[frozenset[str]] = frozenset()

    def reads_if_present(self) -> tuple[str, ...]:
        return tuple(name for name in self.available if name not in self.leave_out)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        from curate.ledger import FATE, fates_of

        schema = self._schema(inputs)
        counts = {"rows_in": 0, "generated": 0, "kept": 0, "kept_generated": 0, "tokens_kept": 0}
        dropped: dict[str, int] = {}
        sources: dict[str, list[int]] = {}
        rejected_schema = pa.schema(
            [*(schema.field(name) for name in REJECTED if name in schema.names), *((name, kind) for name, kind in FATE)]
        )
        kept_writer = _Files(folder / "data", "train", schema, self.rows_per_file)
        rejected_writer = _Files(folder / "rejected", "rejected", rejected_schema, self.rows_per_file)
        for _, table in inputs.tables():
            fate = fates_of(
                {step: table[f"{step}.verdict"] for step in self.decisions if f"{step}.verdict" in table.column_names}, table.num_rows
            )
            mask = pc.equal(fate["fate"], "kept")
            generated = table.num_rows if "origin" in table.column_names else 0
            kept = _as(table.filter(mask), schema)
            counts["generated"] += generated
            counts["rows_in"] += table.num_rows - generated
            counts["kept"] += kept.num_rows
            counts["kept_generated"] += kept.num_rows if generated else 0
            if "tokens" in table.column_names:
                counts["tokens_kept"] += pc.sum(kept["tokens"]).as_py() or 0
            for source in pc.value_counts(table["source"]).to_pylist():
                sources.setdefault(source["values"], [0, 0])[0] += 0 if generated else source["counts"]
            for source in pc.value_counts(kept["source"]).to_pylist():
                sources[source["values"]][1] += source["counts"]
            for found in pc.value_counts(fate["rule"].filter(pc.invert(mask))).to_pylist():
                dropped[found["values"]] = dropped.get(found["values"], 0) + found["counts"]
            kept_writer.add(kept)
            if self.rejected:
                others = pc.invert(mask)
                left = table.filter(others)
                for name in fate.column_names:
                    left = left.append_column(name, fate[name].filter(others))
                rejected_writer.add(_as(left, rejected_schema))
        files = [*kept_writer.close(), *(rejected_writer.close() if self.rejected else [])]
        from curate.publish.about import write_about

        write_about(folder, self, schema, rejected_schema, counts, dropped, sources, files)

    def _schema(self, inputs: Inputs) -> pa.Schema:
        """Columns of the dataset: the union over shards, canonical ones first, in a fixed order."""
        from curate.dataset import CANONICAL, LINEAGE

        types: dict[str, pa.DataType] = {}
        for _, table in inputs.tables():
            for column in table.schema:
                if column.name.endswith(".verdict") or column.name == "position":
                    continue
                if types.setdefault(column.name, column.type) != column.type:
                    from curate.errors import InternalError

                    raise InternalError(
                        f"column '{column.name}' has type {types[column.name]} in one shard and {column.type} in another: please report this"
                    )
        types = types or {field.name: field.type for field in CANONICAL}
        first = [name for name in (*CANONICAL.names, *LINEAGE.names) if name in types]
        return pa.schema([(name, types[name]) for name in [*first, *sorted(set(types) - set(first))]])


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly these columns; what it does not have is null, `origin` of a raw row is 'raw'."""
    columns: list[Any] = []
    for column in schema:
        if column.name in table.column_names:
            columns.append(table[column.name])
        elif column.name == "origin":
            columns.append(pa.array(["raw"] * table.num_rows, column.type))
        else:
            columns.append(pa.nulls(table.num_rows, column.type))
    return pa.table(columns, schema=schema)


class _Files:
    """Rows into files of a fixed size; names carry the number of files, so they are given at the end."""

    def __init__(self, folder: Path, stem: str, schema: pa.Schema, rows: int):
        self.folder, self.stem, self.schema, self.rows = folder, stem, schema, rows
        self.waiting = schema.empty_table()
        self.written: list[Path] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, table: pa.Table) -> None:
        self.waiting = pa.concat_tables([self.waiting, table])
        while self.waiting.num_rows >= self.rows:
            self._write(self.waiting.slice(0, self.rows))
            self.waiting = self.waiting.slice(self.rows)

    def _write(self, table: pa.Table) -> None:
        from curate.dataset import write_table

        path = self.folder / f"{self.stem}-{len(self.written):05d}.attempt"
        write_table(table, path)
        self.written.append(path)

    def close(self) -> list[Path]:
        """Final names; without any row one empty file, so that the dataset always loads."""
        if self.waiting.num_rows or not self.written:
            self._write(self.waiting)
        named = []
        for index, path in enumerate(self.written):
            final = path.with_name(f"{self.stem}-{index:05d}-of-{len(self.written):05d}.parquet")
            path.rename(final)
            named.append(final)
        return named
