"""What a step of a run tells of itself (StepFacts, Artifact) and what its fit is given (View, FitEngineOf)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Dataset, Shard, column_types, read_columns
from curate.stage import Resources, Stage
from curate.stopping import check_stop
from curate.work import hidden_rows

if TYPE_CHECKING:
    from curate.runs import Run


@dataclass
class StepFacts:
    """What a step did in this run; shown by `status` and the report."""

    name: str
    stage: str
    kind: str
    about: str = ""
    shards: int = 0
    rows: int = 0
    hidden: int | None = None  # of these rows, those that the stage was not shown; None where a record is of before it was noted
    executed: int = 0
    reused: int = 0
    generated: int = 0
    seconds: float = 0.0
    fitted: str = ""  # "", "fitted", "reused", or "frozen": kept by a refresh although rows have changed
    fit_makes: str = "model"
    generates: bool = False
    models: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # what a fit has to say to the user: `remarks` of its info.json
    alarm: bool = False  # whether one of them is a reason to end with exit code 3


@dataclass(frozen=True)
class Artifact:
    """What a fit has made: its folder, the hash of all of it, and its record's `files`."""

    folder: Path
    hash: str = ""
    files: Mapping[str, list[Any]] = field(default_factory=dict)


class View:
    """What `fit` sees of a dataset: some columns, hidden rows left out. See `stage.Inputs`.

    hiding  whose verdicts hide rows (None: the dataset's own). It knows of the stage no more than that, so that it can be sent to a worker that cannot import a user's class.
    """

    def __init__(self, dataset: Dataset, stage: Stage, names: tuple[str, ...] | None = None, hiding: Dataset | None = None):
        self.dataset, self.names = dataset, names
        self._reads, self._if_present, self._hidden_by = stage.reads(), stage.reads_if_present(), stage.hidden_by | stage.fit_hidden_by
        self._by_name = {shard.name: shard for shard in dataset.shards}
        self._hiding = self._by_name if hiding is None else {shard.name: shard for shard in hiding.shards}

    @property
    def shards(self) -> list[str]:
        return list(self._by_name)

    @property
    def rows(self) -> int:
        return self.dataset.rows

    def table(self, shard: str) -> pa.Table:
        found = self._by_name[shard]
        table = read_columns(self.dataset.root, found, self._names(found))
        hidden = hidden_rows(self.dataset.root, self._hiding[shard], self._hidden_by, self.dataset.kinds)
        return table if hidden is None else table.filter(pc.invert(hidden))

    def types(self) -> Iterator[dict[str, pa.DataType]]:
        """Per shard, the types of the columns that `table` would give; no data is read."""
        for shard in self._by_name.values():
            yield column_types(self.dataset.root, shard, [name for name in self._names(shard) if name in shard.columns])

    def _names(self, shard: Shard) -> list[str]:
        names = self.names or (*self._reads, *(name for name in self._if_present if name in shard.columns))
        return list(dict.fromkeys((*names, "position")))

    def tables(self) -> Iterator[tuple[str, pa.Table]]:
        for shard in self._by_name:
            check_stop()
            yield shard, self.table(shard)


class FitEngineOf:
    """The engine as `fit` sees it: further stages over the same shards, under the step's own folder."""

    def __init__(self, run: Run, name: str, inputs: Dataset, stage: Stage):
        self.run, self.name, self.inputs, self.stage = run, name, inputs, stage

    def step(self, name: str, stage: Stage, shared: bool = False) -> View:
        result = self.run.step(name if shared else f"{self.name}/{name}", stage, self.inputs)
        # Row by row beside the fit's inputs: one that the step has set aside is there, with nulls.
        return View(self.inputs.beside(result), self.stage, ("shard", *stage.writes().names), self.inputs)

    def map(self, function: Callable[[Any, Any], Any], job: Any, tasks: Sequence[Any], memory: int) -> Iterator[tuple[Any, Any]]:
        yield from self.run.engine.map(function, job, tasks, Resources(memory=memory))

    @property
    def room(self) -> Path:
        return self.run.tmp
