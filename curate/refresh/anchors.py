"""The cross-test of a changed encoder: a few rows whose old vectors are still there are encoded by the new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.dataset import Shard, columns_of, read_columns
from curate.errors import Damaged
from curate.stage import Stage

SHARDS, ROWS = 8, 32  # looked at, and taken of each
LEAST = 10


def vector_column(stage: Stage) -> str | None:
    """The column of vectors that a stage writes from text alone, or None."""
    if type(stage).__module__.split(".")[:2] != ["curate", "embed"]:
        return None
    kinds = {field.name: field.type for field in stage.writes() if pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type)}
    found = [name for name, kind in kinds.items() if pa.types.is_floating(kind.value_type)]
    return found[0] if len(found) == 1 and stage.models() else None


def cross_test(
    root: Path, name: str, stage: Stage, artifact: Path, shards: Sequence[Shard], records: Mapping[str, Mapping[str, Any]], identity: str
) -> dict[str, Any] | None:
    """How well a changed encoder agrees with the one that made the stored vectors, as a mapping; None where there are too few to tell.

    identity   of the changed one: shards that it has made already, before a kill, are no witnesses
    """
    from curate.algorithms.encoder_agreement import agreement
    from curate.algorithms.knn import unit_rows
    from curate.cluster._clustering import vector_rows

    column = vector_column(stage)
    known = [shard for shard in shards if shard.name in records and records[shard.name].get("identity") != identity]
    if column is None or not known:
        return None
    tables, old = [], []
    for shard in known[:: max(1, len(known) // SHARDS)][:SHARDS]:
        file = f"stages/{name}/{shard.name}.parquet"
        stored = Shard(shard.name, shard.rows, {**shard.columns, **columns_of(name, file, records[shard.name]["columns"])})
        try:
            vectors = read_columns(root, stored, [column]).column(0)
            table = read_columns(
                root, shard, ["row_id", *stage.reads(), *(each for each in stage.reads_if_present() if each in shard.columns)]
            )
        except (Damaged, FileNotFoundError):
            continue
        there = np.flatnonzero(np.asarray(vectors.is_valid()))
        if not len(there):
            continue
        ids = table["row_id"].take(pa.array(there)).to_pylist()
        chosen = pa.array(sorted(there[np.argsort(ids)[:ROWS]].tolist()), pa.int64())  # ids are hashes: a fair draw
        tables.append(table.take(chosen).select([each for each in table.column_names if each != "row_id" or each in stage.reads()]))
        old.append(vector_rows(vectors.take(chosen), column))
    if sum(map(len, old)) < LEAST:
        return None
    encode = stage.load(artifact)
    new = np.concatenate([vector_rows(encode(table).column(column), column) for table in tables])
    stored_rows = np.concatenate(old)
    unit, bad = unit_rows(stored_rows)
    other, worse = unit_rows(new)
    usable = np.setdiff1d(np.arange(len(unit)), np.union1d(bad, worse))
    if len(usable) < LEAST:
        return None
    found = agreement(unit[usable], other[usable])
    return {**asdict(found), "compatible": found.compatible}


def said(found: Mapping[str, Any]) -> str:
    """The outcome in a clause."""
    cosine = f"median cosine {found['cosine']:.3f}" if found["cosine"] is not None else "vectors of another width"
    outcome = (
        "models that were fitted on the old vectors stay"
        if found["compatible"]
        else "whatever was fitted on the old vectors is fitted anew"
    )
    return f"the encoder changed; over {found['anchors']} rows {cosine}, {found['neighbours']:.0%} of the nearest rows the same (by chance {found['chance']:.0%}): {outcome}"
