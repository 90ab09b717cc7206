"""The random control of another selection: as many rows, of the same lengths, and none of its own.

Short rows give more rows and more training steps in one budget of tokens, so a selection that prefers them beats plain
random rows whatever its score is worth. This is the comparison that takes that away.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from curate import models
from curate.errors import UserMistake
from curate.select._bounds import Bound, bound_verdicts, bounded_columns
from curate.stage import VERDICT, FitEngine, Inputs, Stage, TableFunction, read_decision, verdict_column, write_decision


class Matched(Stage):
    """Keeps, for every row of `like` that this run has, one random other row of nearly its length (rule `not_drawn`).

    like   a published dataset (the folder with `data/`) or one Parquet file, with a column `row_id`; rows are found by it
    where  bounds that a drawn row must keep, as in the selection that is controlled

    Lengths are prompt (`tokens` less `response_tokens`) and response tokens. `matched.json` in the artifact says how well they agree.
    """

    like: str
    where: dict[str, Bound] = Field({}, description="column -> bound; rules below_COLUMN, above_COLUMN, other_COLUMN")
    nominate: bool = Field(False, description="write the column `nominated` instead of verdicts")
    seed: int = 0

    libraries = ("numpy", "scipy")
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "drop"})
    fit_makes: ClassVar[str] = "decision"
    # `like` is part of `identity`, by its content.
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"like"})

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("shard", "row_id", "file", "line", "tokens", "response_tokens", *bounded_columns(self.where))))

    def writes(self) -> pa.Schema:
        return pa.schema([("nominated", pa.bool_())] if self.nominate else [("verdict", VERDICT)])

    def identity(self) -> dict[str, Any]:
        return {"like": [models.file_digest(file) for file in _files(self.like)]}

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        from curate.algorithms.matching import deviation, length_matched

        shards, bounded, parts = [], [], []
        for shard, table in inputs.tables():
            shards.append((shard, table.num_rows))
            bounded.append(bound_verdicts(self.where, table))
            parts.append(table.select(["row_id", "file", "line", "tokens", "response_tokens"]))
        rows = pa.concat_tables(parts) if parts else pa.table({})
        drawn = np.zeros(rows.num_rows, bool)
        wanted = pa.chunked_array([pq.read_table(file, columns=["row_id"])["row_id"].combine_chunks() for file in _files(self.like)])
        # In the order of the ids: how the corpus is cut and sorted decides nothing.
        keys = [("row_id", "ascending"), ("file", "ascending"), ("line", "ascending")]
        order = np.asarray(pc.sort_indices(rows, sort_keys=keys)).astype(np.int64) if rows.num_rows else np.empty(0, np.int64)
        ids = rows["row_id"].take(pa.array(order)) if rows.num_rows else pa.chunked_array([], pa.string())
        repeated = np.concatenate([[False], np.asarray(pc.equal(ids[1:], ids[:-1]))]) if len(order) else np.empty(0, bool)
        theirs = np.asarray(pc.is_in(ids, value_set=wanted.cast(ids.type)))
        chosen = np.flatnonzero(theirs & ~repeated)
        if not len(chosen):
            raise UserMistake(
                f"select: none of the {len(wanted):,} rows of {self.like} is in this run: name a selection from the same corpus"
            )
        response, whole = (rows[name].fill_null(0).to_numpy()[order].astype(np.int64) for name in ("response_tokens", "tokens"))
        prompt = np.maximum(whole - response, 0)
        free = np.concatenate([np.asarray(verdict.is_null()) for verdict in bounded])[order]
        eligible = np.flatnonzero(free & ~theirs & (whole > 0))
        if len(eligible) < len(chosen):
            raise UserMistake(
                f"select: {len(chosen):,} rows to match and {len(eligible):,} others to draw from: "
                "select at most half of the corpus, or widen select.where"
            )
        taken = length_matched(prompt, response, chosen, eligible, self.seed)
        drawn[order[taken]] = True
        self._write(folder, shards, bounded, drawn)
        missing = len(pc.unique(wanted)) - len(chosen)
        remarks = [f"{missing:,} of the rows of {self.like} are not in this run (generated there, or dropped here): no row stands for them"]
        about = {"rows": len(taken), "not_found": missing, **deviation(prompt, response, chosen, taken)}
        (folder / "matched.json").write_text(json.dumps(about, indent=1))
        (folder / "info.json").write_text(json.dumps({"remarks": remarks if missing else []}))

    def _write(self, folder: Path, shards: list[tuple[str, int]], bounded: list[pa.Array], drawn: np.ndarray) -> None:
        start = 0
        for (shard, count), broken in zip(shards, bounded, strict=True):
            rule = pa.array(np.full(count, "not_drawn"), mask=drawn[start : start + count])
            verdict = pc.if_else(broken.is_null(), verdict_column(rule), broken)
            write_decision(folder, shard, pa.table({"nominated": verdict.is_null()} if self.nominate else {"verdict": verdict}))
            start += count

    def load(self, folder: Path) -> TableFunction:
        return read_decision(folder)


def _files(like: str) -> list[Path]:
    """The Parquet files of a published dataset, or the one named."""
    place = Path(like).expanduser()
    files = [place] if place.is_file() else sorted((place / "data").glob("*.parquet")) or sorted(place.glob("*.parquet"))
    if not files:
        raise UserMistake(f"select.like: {like} holds no Parquet file: name a published dataset (RUN/dataset) or a .parquet file")
    for file in files:
        if "row_id" not in pq.read_schema(file).names:
            raise UserMistake(f"select.like: {file} has no column 'row_id': name a dataset that a run has published")
    return files
