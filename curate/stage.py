"""A stage: a frozen settings object, an optional `fit`, and `load`.

    settings --fit(inputs, engine, folder)--> artifact files in `folder`
    settings --load(folder)-----------------> function: Arrow table (one shard) -> Arrow table (its new columns)

The fields of the class are its settings; an unknown key in a recipe is refused. The function that
`load` returns is the whole stage: it can be called in a test with a table typed by hand. A stage knows
nothing of Ray, of run folders, of resuming, of other stages.

One file holds one stage (one method); `method: NAME` in a recipe names the file inside the family's
folder, so `ls curate/score` is the catalogue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from curate.verdicts import VERDICT as VERDICT
from curate.verdicts import verdict_column as verdict_column
from curate.verdicts import verdicts as verdicts

TableFunction = Callable[[pa.Table], pa.Table]
MADE_BY_PRUNED = "the copy that `pruned` makes"  # stands for a model until the run has made it


class Resources(BaseModel):
    """What one worker of a stage needs. `memory` is in bytes, `cpus` in cores, `gpus` in devices; `workers`: no more of them at a time."""

    model_config = ConfigDict(frozen=True)
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 256 << 20
    workers: int | None = None


class Inputs(Protocol):
    """What `fit` sees: the columns that the stage reads, shard by shard, hidden rows left out."""

    @property
    def shards(self) -> list[str]: ...

    @property
    def rows(self) -> int: ...

    def table(self, shard: str) -> pa.Table: ...

    def tables(self) -> Iterator[tuple[str, pa.Table]]: ...

    def types(self) -> Iterator[dict[str, pa.DataType]]: ...


class FitEngine(Protocol):
    """What `fit` may ask for: another stage over every shard, in parallel, committed and resumable; or tasks of its own.

    step    shared: the step is the run's, by its name, and not the fit's own: another fit that asks for the same finds it done.
            Its tables have the rows of `inputs`; a row that the step has set aside has nulls
    map     `function(job, task)` of every task, in parallel, as they finish; nothing of it is committed. All three are sent to workers: modules of ours,
            settings, paths, and no tables. memory: bytes that a task needs
    room    a folder for files of such tasks, which is cleared when a run begins and ends
    """

    def step(self, name: str, stage: Stage, shared: bool = False) -> Inputs: ...

    def map(self, function: Callable[[Any, Any], Any], job: Any, tasks: Sequence[Any], memory: int) -> Iterator[tuple[Any, Any]]: ...

    @property
    def room(self) -> Path: ...


class Stage(BaseModel):
    """Base of every stage. Override `reads`, `writes`, `load`, and `fit` where the corpus must be seen.

    `reads` may also name two virtual columns: `shard` (string, the shard's name) and `position` (int32,
    the row's place in it). Rows hidden from the stage (see `hidden_by`) are taken out of the table before
    the function is called and come back as nulls; so a scorer never meets a null text, nor an empty table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Which verdicts hide a row from this stage: "quarantine", "duplicate", "sample"; "drop" (any) of what decides or ranks, never of what asks a model.
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine"})
    # Which verdicts hide a row from `fit` as well as those.
    fit_hidden_by: ClassVar[frozenset[str]] = frozenset()
    # What this stage's own verdicts mean to later stages: "duplicate", "sample" or "other".
    verdict_kind: ClassVar[str] = "other"
    # What `fit` makes: a "model", which applies to rows it has not seen and is frozen by a refresh; or a "decision" about the rows it saw,
    # remade whenever they change.
    fit_makes: ClassVar[str] = "model"
    # True: the function returns new rows (a generator), not columns for the rows it was given.
    generates: ClassVar[bool] = False
    # Distributions whose version belongs to the result, by their names on the package index.
    libraries: ClassVar[tuple[str, ...]] = ()
    # Settings that say where or how fast, not what: left out of the fingerprint.
    unfingerprinted: ClassVar[frozenset[str]] = frozenset()

    def reads(self) -> tuple[str, ...]:
        """Names of the columns the function needs."""
        return ()

    def reads_if_present(self) -> tuple[str, ...]:
        """Names of columns it uses where an input has them."""
        return ()

    def writes(self) -> pa.Schema:
        """Schema of what the function returns, in order; empty for a stage that only fits."""
        return pa.schema([])

    def models(self) -> tuple[str, ...]:
        """References of the models it loads (hub id, folder, GGUF file, package:NAME/PATH)."""
        return ()

    def identity(self) -> dict[str, Any]:
        """Anything else that the bytes of the result depend on (device, dtype, compiler, a file's digest)."""
        return {}

    def look_up(self) -> None:
        """Raise UserMistake where a model or file that the settings name is not there. Asked of every stage of a recipe before the first step."""
        from curate import models

        there = [reference for reference in self.models() if reference != MADE_BY_PRUNED]
        for reference in there:
            models.resolve(reference)
        if len(there) == len(self.models()):
            self.identity()

    def resources(self) -> Resources:
        return Resources()

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        raise NotImplementedError

    def load(self, folder: Path) -> TableFunction:
        raise NotImplementedError

    @classmethod
    def fits(cls) -> bool:
        return cls.fit is not Stage.fit

    def but(self, **changes: Any) -> Any:
        """The same settings with some changed; checked like settings from a recipe."""
        return type(self).model_validate({**self.model_dump(), **changes})


def rows_key(table: pa.Table) -> bytes:
    """Digest of which rows a table holds, in order; it has the column row_id."""
    return hashlib.sha256("\n".join(map(str, table.column("row_id").to_pylist())).encode()).hexdigest()[:32].encode()


def write_decision(folder: Path, shard: str, columns: pa.Table, rows: pa.Table | None = None) -> None:
    """Store what a fit decided about one shard: same rows, same order as `inputs.table(shard)`.

    rows   of a model, which is applied to other rows later: the table it was decided for (row_id), see `known_decision`
    """
    folder.mkdir(parents=True, exist_ok=True)
    if rows is not None:
        columns = columns.replace_schema_metadata({b"rows": rows_key(rows)})
    pq.write_table(columns, folder / f"{shard}.decision", compression="zstd", compression_level=3)


def known_decision(folder: Path, table: pa.Table) -> pa.Table | None:
    """What a model's fit decided about exactly these rows of a shard (shard, row_id); None for others.

    A shard's name alone does not say it: at a refresh a model is frozen while rows come out of hiding, and a file may take another's name.
    """
    path = folder / f"{table.column('shard')[0].as_py()}.decision"
    if not path.is_file():
        return None
    with pq.ParquetFile(path) as file:
        if (file.schema_arrow.metadata or {}).get(b"rows") != rows_key(table):
            return None
        return file.read(use_threads=False).replace_schema_metadata(None)


def read_decision(folder: Path) -> TableFunction:
    """The function of a stage whose fit wrote decisions: look up the shard (`reads` must name `shard`)."""

    def look_up(table: pa.Table) -> pa.Table:
        with pq.ParquetFile(folder / f"{table.column('shard')[0].as_py()}.decision") as file:
            return file.read(use_threads=False)

    return look_up
