"""Shorter vectors: principal axes, or the first coordinates, with what was lost stated in the artifact."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate.algorithms import knn
from curate.algorithms.intrinsic import isoscore, two_nn
from curate.algorithms.reduction import Moments, first_axes, moments, principal_axes, project, variance_kept
from curate.embed.hashed import vector_column
from curate.errors import UserMistake
from curate.stage import FitEngine, Inputs, Stage, TableFunction

_NEIGHBOURS = 10


class Reduce(Stage):
    """Makes vectors shorter and says what that loses.

    Column `vector_small` (or the name in `to`): unit vectors, fixed_size_list<float32>[dimensions]; null where the row
    has no vector, or none that points along the axes kept.
    `info.json`, for the method chosen and for plain truncation beside it: share of variance kept and, on a sample without
    exact copies, the share of 10 nearest neighbours that stay, TwoNN intrinsic dimension and IsoScore before and after.

    column       fixed_size_list<float32> or list<float32>, all of one length
    how          "pca": the axes that keep most of the sum of squares; "truncate": the first coordinates, for encoders
                 that were trained to be cut (Matryoshka)
    sample       rows for the neighbour figures, drawn by seed
    """

    column: str = "vector"
    to: str = "vector_small"
    how: Literal["pca", "truncate"] = "pca"
    dimensions: int = Field(128, ge=2)
    sample: int = Field(2000, ge=0)
    seed: int = 0

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "faiss-cpu", "faiss-gpu")

    @model_validator(mode="after")
    def _another_name(self) -> Reduce:
        if self.to == self.column:
            raise ValueError(f"to: '{self.to}' is the column it reads; give the shorter vectors another name")
        return self

    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    def writes(self) -> pa.Schema:
        return pa.schema([(self.to, pa.list_(pa.float32(), self.dimensions))])

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        found: Moments | None = None
        draws, drawn = np.empty(0), np.empty((0, 0), np.float32)
        random = np.random.default_rng(self.seed)
        for _, table in inputs.tables():
            unit, places = unit_vectors(table.column(self.column), self.column)
            draw = random.random(len(table))[places]  # a number for every row: the sample follows the rows, not the shards
            if not len(unit):
                continue
            if found is not None and unit.shape[1] != len(found.total):
                raise UserMistake(f"vectors of widths {len(found.total)} and {unit.shape[1]} in '{self.column}': embed all rows alike")
            found = moments(unit) if found is None else found + moments(unit)
            draws, drawn = np.concatenate([draws, draw]), np.concatenate([drawn.reshape(-1, unit.shape[1]), unit])
            kept = np.sort(np.argsort(draws, kind="stable")[: self.sample])
            draws, drawn = draws[kept], drawn[kept]
        if found is None:
            raise UserMistake(f"no row has a vector in '{self.column}': check what hides the rows (`curate status`), and the embed step")
        width = len(found.total)
        if self.dimensions > width:
            raise UserMistake(f"dimensions is {self.dimensions}, but the vectors in '{self.column}' have {width}: set at most {width}")

        axes = {"pca": principal_axes(found, self.dimensions), "truncate": first_axes(width, self.dimensions)}
        distinct = drawn[np.sort(np.unique(drawn, axis=0, return_index=True)[1])]
        info = {
            "rows": found.rows,
            "from": width,
            "to": self.dimensions,
            "how": self.how,
            "sample": len(distinct),
            "before": shape(distinct),
            **{how: {"variance_kept": variance_kept(found, a), **loss(distinct, a)} for how, a in axes.items()},
        }
        np.savez(folder / "axes.npz", axes=axes[self.how])
        (folder / "info.json").write_text(json.dumps(_without_nan(info), indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> TableFunction:
        axes = np.load(folder / "axes.npz", allow_pickle=False)["axes"]

        def reduce(table: pa.Table) -> pa.Table:
            unit, places = unit_vectors(table.column(self.column), self.column, len(axes))
            small, lost = project(unit, axes)
            rows = np.zeros((len(table), self.dimensions), np.float32)
            rows[places] = small
            missing = np.ones(len(table), bool)
            missing[np.delete(places, lost)] = False
            return pa.table({self.to: vector_column(rows, missing)})

        return reduce


def unit_vectors(column: pa.ChunkedArray, name: str, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(unit rows float32 (m, d), their positions int64 (m,)): null, zero and not finite rows are left out."""
    array = column.combine_chunks()
    if not isinstance(array, pa.FixedSizeListArray | pa.ListArray | pa.LargeListArray):
        raise UserMistake(f"'{name}' holds {array.type}, not vectors: name a column of lists of float32 under `column`")
    there = array.drop_null()
    widths = set(there.value_lengths().to_pylist()) | ({width} if width else set())
    if len(widths) > 1:
        raise UserMistake(f"vectors of widths {sorted(widths)} in '{name}': embed all rows alike")
    rows = there.flatten().to_numpy(zero_copy_only=False).reshape(len(there), widths.pop() if widths else 0)
    unit, bad = knn.unit_rows(rows)
    places = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    return np.delete(unit, bad, axis=0), np.delete(places, bad)


def shape(unit: np.ndarray) -> dict[str, float]:
    """Of distinct unit rows (n, d): intrinsic dimension and evenness of the axes; NaN for fewer than 20 rows."""
    if len(unit) < 20:
        return {"two_nn": math.nan, "isoscore": math.nan}
    return {"two_nn": two_nn(knn.nearest_others(unit, 2)[0]), "isoscore": isoscore(np.cov(unit.T.astype(np.float64)))}


def loss(unit: np.ndarray, axes: np.ndarray) -> dict[str, float]:
    """What the rows (n, d) look like along the axes, and which share of their nearest neighbours is still nearest."""
    small, lost = project(unit, axes)
    k = min(_NEIGHBOURS, len(unit) - 1)
    if k < 1:
        return {"neighbours_kept": math.nan, **shape(small)}
    before, after = knn.nearest_others(unit, k)[1], knn.nearest_others(small, k)[1]
    same = (before[:, :, None] == after[:, None, :]).any(axis=2).mean()
    return {"neighbours_kept": float(same), **shape(np.unique(np.delete(small, lost, axis=0), axis=0))}


def _without_nan(value: Any) -> Any:
    """NaN as null, since JSON has no NaN; figures rounded to what they can carry."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return (None if math.isnan(value) else round(value, 6)) if isinstance(value, float) else value
