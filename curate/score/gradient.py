"""How much a training step on a row would help the pruned model: alignment of its gradient with that of a target.

LESS (Xia et al. 2024, arXiv 2402.04333) made light: the pruned model itself as the one checkpoint, plain gradients of
the linear maps in its last layers, a sketch of each (`algorithms/gradient_features.py`). As there, a row is held against
the mean of each subtask of the target, and its best subtask counts. Without a target the pool is its own: a row is held
against the other rows of its group.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from curate import encoding, hardware
from curate import models as weights
from curate.algorithms.batches import length_batches
from curate.algorithms.gradient_features import RowGradients, alignments, is_prime, prime_below
from curate.encoding import Template
from curate.errors import UserMistake
from curate.score._target import KINDS, groups_of, target_tables
from curate.score._texts import existing
from curate.score.perplexity import nullable
from curate.stage import FitEngine, Inputs, Resources, Stage, TableFunction, known_decision, write_decision


class _Features(Stage):
    """The sketched gradient of each row's mean response loss: its direction (float16, unit length) and its norm."""

    pruned: str
    template: Template = "chat"
    max_tokens: int = Field(1024, ge=16)
    batch_tokens: int = Field(2048, ge=1)
    layers: int = Field(4, ge=1)
    dims: int = Field(4093, ge=2)
    seed: int = Field(0, ge=0)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate", "sample"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")

    @field_validator("dims")
    @classmethod
    def _prime(cls, dims: int) -> int:
        if not is_prime(dims):
            raise ValueError(f"dims: {dims} is no prime, and others lose precision: set {prime_below(dims)}")
        return dims

    def reads(self) -> tuple[str, ...]:
        return tuple(encoding.ROW)

    def writes(self) -> pa.Schema:
        return pa.schema([("direction", pa.list_(pa.float16(), self.dims)), ("norm", pa.float32())])

    def models(self) -> tuple[str, ...]:
        return (self.pruned,)

    def identity(self) -> dict[str, Any]:
        return hardware.execution_identity("float32")

    def resources(self) -> Resources:
        return Resources(gpus=hardware.gpus_wanted(), memory=weights.memory(self.pruned, precision="float32") + (512 << 20))

    def load(self, folder: Path) -> TableFunction:
        return self._features()

    def _features(self) -> TableFunction:
        import torch

        model, tokenizer = weights.load_causal_lm(self.pruned, "float32")  # differences of gradients do not survive half precision
        weights.check_window(model, self.max_tokens, self.pruned)
        last = weights.decoder_layers(model)[-self.layers :]
        if len(last) < self.layers:
            raise UserMistake(f"gradient: layers is {self.layers}, but '{self.pruned}' has {len(last)}: set layers to at most {len(last)}")
        maps = [module for layer in last for module in layer.modules() if isinstance(module, torch.nn.Linear)]
        head = weights.output_head(model)
        gradients = RowGradients(lambda inputs: weights.hidden_states(model, inputs), head, maps, self.dims, self.seed)

        def features(table: pa.Table) -> pa.Table:
            encoded = encoding.encode_rows(tokenizer, table, self.template, self.max_tokens)
            rows = [(i, row) for i, row in enumerate(encoded) if row is not None and row.scored.any()]
            directions, norms = np.zeros((len(encoded), self.dims), np.float16), np.full(len(encoded), np.nan)
            for picked in length_batches([len(row.ids) for _, row in rows], self.batch_tokens):
                found = gradients(*weights.collate([rows[i][1] for i in picked]))
                at = [rows[i][0] for i in picked]
                norms[at] = lengths = np.linalg.norm(found.astype(np.float64), axis=1)
                directions[at] = found / np.where(lengths > 0, lengths, 1.0)[:, None]
            column = pa.FixedSizeListArray.from_arrays(directions.ravel(), self.dims, mask=pa.array(~(norms > 0)))
            return pa.table({"direction": column, "norm": nullable(norms)})

        return features


class Gradient(_Features):
    """Measures how well the gradient of a row agrees with what the pruned model has to learn.

    Null where a row has no response. Gradients of the mean response loss, of the linear maps in the last layers.

    gradient_alignment  cosine with the mean direction of the target: of the best of its groups. Without a target: of the
                        other rows of the row's own group; null where it is alone
    gradient_gain       gradient_alignment x gradient_norm: loss on that target that a small step on the row takes away
    gradient_norm       length of the row's gradient; short answers have long gradients
    gradient_features   with `keep_features`: the direction, float16, unit length

    pruned         the model to be recovered
    target         file (.parquet, .jsonl) of rows like those to get better at; `group_by`: its column of subtasks
    groups         without a target: column of the pool whose values are the groups; without that column the pool is one
    layers, dims   decoder layers at the end whose gradients count; numbers per row, a prime
    """

    target: str | None = None
    group_by: str | None = None
    groups: str = "cluster"
    keep_features: bool = False

    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"target"})  # in `identity` by content

    def reads(self) -> tuple[str, ...]:
        return ("shard", "row_id", *super().reads())

    def reads_if_present(self) -> tuple[str, ...]:
        return () if self.target else (self.groups,)

    def writes(self) -> pa.Schema:
        measures = [(f"gradient_{name}", pa.float32()) for name in ("alignment", "gain", "norm")]
        return pa.schema([*measures, *([("gradient_features", super().writes().field(0).type)] if self.keep_features else [])])

    def identity(self) -> dict[str, Any]:
        return {
            **super().identity(),
            "target": weights.file_digest(existing(self.target, "gradient: target", KINDS)) if self.target else None,
        }

    def look_up(self) -> None:
        super().look_up()
        if self.target:
            target_tables(self.target, self.group_by, "gradient")

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Writes directions.npz (group names; sums of directions, float64 (groups, dims)), info.json, and the decisions."""
        features = engine.step("features", _Features(**{name: getattr(self, name) for name in _Features.model_fields}))
        parts = self._target() if self.target else ((self._groups(table), features.table(shard)) for shard, table in inputs.tables())
        # Float16 numbers add up in float64 without rounding: the sums depend on neither the order nor the shards.
        sums: dict[str, np.ndarray] = {}
        rows: dict[str, int] = {}
        for groups, found in parts:
            unit, there = _directions(found)
            for group in sorted({groups[i] for i in there}):
                mine = unit[[groups[i] == group for i in there]]
                sums[group] = sums.get(group, np.zeros(self.dims)) + mine.sum(0, dtype=np.float64)
                rows[group] = rows.get(group, 0) + len(mine)
        if not sums:
            where = f"target {self.target}" if self.target else "the pool"
            raise UserMistake(f"gradient: no row of {where} has a response to learn: give rows with an answer that fits max_tokens")
        names = sorted(sums)
        np.savez(folder / "directions.npz", names=np.array(names), sums=np.stack([sums[name] for name in names]))
        remarks = []
        if not self.target and not any(self.groups in types for types in inputs.types()):
            remarks.append(f"there is no column '{self.groups}': each row was held against the whole pool; give a target or such a column")
        info = {"rows": {name: rows[name] for name in names}, "remarks": remarks}
        (folder / "info.json").write_text(json.dumps(info, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        score = self._scorer(folder, seen=True)
        for shard, table in inputs.tables():
            write_decision(folder, shard, score(self._groups(table), features.table(shard)), table)

    def load(self, folder: Path) -> TableFunction:
        score = self._scorer(folder, seen=False)
        features: list[TableFunction] = []  # the model is loaded for the first shard that the fit has not seen

        def align(table: pa.Table) -> pa.Table:
            if (decided := known_decision(folder, table)) is not None:
                return decided
            if not features:
                features.append(self._features())
            return score(self._groups(table), features[0](table))

        return align

    def _scorer(self, folder: Path, seen: bool) -> Callable[[list[str], pa.Table], pa.Table]:
        """(group of each row, features) -> the columns. `seen`: the rows are part of their group's sum, and taken out of it."""
        with np.load(folder / "directions.npz", allow_pickle=False) as artifact:
            names, sums = artifact["names"].tolist(), artifact["sums"]

        def score(groups: list[str], found: pa.Table) -> pa.Table:
            unit, there = _directions(found)
            values = np.full(len(found), np.nan)
            if self.target:
                values[there] = np.max([alignments(unit, total) for total in sums], axis=0)
            else:
                for group in sorted({groups[i] for i in there} & set(names)):
                    mine = np.array([groups[i] == group for i in there])
                    total = sums[names.index(group)]
                    values[there[mine]] = alignments(unit[mine], total - unit[mine] if seen else total)
            norms = found["norm"].to_numpy().astype(np.float64)
            columns = [nullable(values), nullable(values * norms), nullable(norms)]
            return pa.table([*columns, *([found["direction"]] if self.keep_features else [])], schema=self.writes())

        return score

    def _groups(self, table: pa.Table) -> list[str]:
        return groups_of(table, self.group_by if self.target else self.groups)

    def _target(self) -> list[tuple[list[str], pa.Table]]:
        """Groups and features of the target's rows."""
        tables = target_tables(self.target or "", self.group_by, "gradient")
        features = self._features()
        return [(self._groups(table), features(table)) for table in tables]


def _directions(found: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(directions float32 (m, dims), their positions int64 (m,)): rows without a gradient are left out."""
    column = found["direction"].combine_chunks()
    there = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    flat = column.drop_null().flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(len(there), column.type.list_size), there
