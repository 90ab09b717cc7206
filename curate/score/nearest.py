"""Where a row comes when every example of a target takes, in turn, the row of the pool that is nearest to it.

RDS+ (Ivison et al. 2025, arXiv 2503.01807) does so on a language model's hidden states. Here the vectors are hashed words and word
pairs, each text a set of them weighted by rarity (tf-idf): no model. That finds rows of the same task and the same wording of it, which is
what an instruction pool made of templates has most of.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import models
from curate.algorithms.presence import features
from curate.algorithms.target_walk import target_walk
from curate.algorithms.word_hashes import word_hashes
from curate.byte_blocks import byte_blocks
from curate.errors import UserMistake
from curate.score._target import KINDS, groups_of, target_tables
from curate.score._texts import existing
from curate.score.perplexity import nullable
from curate.select.sample import draws
from curate.stage import FitEngine, Inputs, Resources, Stage, TableFunction, known_decision, write_decision

BUCKETS = 1 << 18  # that words and pairs are hashed to
AT_ONCE = 2000  # rows whose likenesses to all targets are in memory together
PRECISION = 6  # likenesses are compared after rounding


class Nearest(Stage):
    """Ranks rows by turns of a target's examples: each in turn takes the nearest row that is left. Made for `select: {by: target_rank, order: lowest}`.

    target_rank        1 for the row that is taken first; null where no example came to it
    target_similarity  0 to 1, cosine to the most similar example

    target      file (.parquet, .jsonl) of examples of what the model is to do, prompt and response as in the pool: a few dozen of each task
    group_by    its column of tasks; tasks take turns, and within a task its examples
    depth       rows that an example can come to, its nearest ones. All rows after the walk are ranked last, in no order
    order       words in a row, at most, that are compared
    characters  no more than the first so many of a text are read
    seed        draws whose turn is first. Ties follow from it and the row's id
    """

    target: str
    group_by: str | None = None
    depth: int = Field(2000, ge=1)
    order: int = Field(2, ge=1, le=5)
    characters: int = Field(20_000, ge=100)
    seed: int = Field(0, ge=0)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "drop"})
    libraries: ClassVar[tuple[str, ...]] = ("scipy", "numpy")
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"target"})  # in `identity` by content

    def reads(self) -> tuple[str, ...]:
        return ("shard", "row_id", "text")

    def writes(self) -> pa.Schema:
        return pa.schema([("target_rank", pa.float32()), ("target_similarity", pa.float32())])

    def identity(self) -> dict[str, Any]:
        return {"target": models.file_digest(existing(self.target, "nearest: target", KINDS))}

    def look_up(self) -> None:
        super().look_up()
        target_tables(self.target, self.group_by, "nearest")

    def resources(self) -> Resources:
        return Resources(memory=512 << 20)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Writes walk.npz (texts of the examples; seen, int64 (BUCKETS,), rows that have each word; of each row taken, in order, the example and their likeness), and the decisions."""
        tables = target_tables(self.target, self.group_by, "nearest")
        texts = [text or "" for table in tables for text in table.column("text").to_pylist()]
        groups = [group for table in tables for group in groups_of(table, self.group_by)]
        rows, seen = 0, np.zeros(BUCKETS, np.int64)
        for _, table in inputs.tables():
            rows += len(table)
            seen += np.bincount(self._sets(table.column("text")).indices, minlength=BUCKETS)
        target = _Target(self, texts, seen, rows)
        best = [_Nearest(self.depth) for _ in texts]
        most: dict[str, np.ndarray] = {}
        first = 0
        for shard, table in inputs.tables():
            found = target.likeness(table.column("text"))
            most[shard] = found.max(1, initial=0.0)
            ties = np.array(draws(table.column("row_id").to_pylist(), self.seed, "nearest"))
            for one, column in zip(best, found.T, strict=True):
                one.add(first + np.arange(len(table)), column, ties)
            first += len(table)
        nearest = [one.rows() for one in best]
        if not any(len(one) for one in nearest):
            raise UserMistake(
                f"nearest: no row of the pool shares a word with target {self.target}: give examples of what the pool is about"
            )
        taken, by = target_walk(nearest, groups, self.seed)
        rank = np.full(rows, np.nan)
        rank[taken] = np.arange(1, len(taken) + 1)
        first = 0
        for shard, table in inputs.tables():
            columns = [nullable(rank[first : first + len(table)]), pa.array(most[shard].astype(np.float32))]
            write_decision(folder, shard, pa.table(columns, schema=self.writes()), table)
            first += len(table)
        likeness = [dict(zip(one.rows().tolist(), one.likeness().tolist(), strict=True)) for one in best]
        own = np.array([likeness[example][row] for example, row in zip(by.tolist(), taken.tolist(), strict=True)])
        np.savez(folder / "walk.npz", texts=np.array(json.dumps(texts)), seen=seen, rows=rows, by=by, likeness=own)
        counts = {name: int(sum(groups[int(t)] == name for t in by)) for name in sorted(set(groups))}
        remarks = [f"depth {self.depth}: {rows - len(taken):,} of {rows:,} rows are ranked last"] if len(taken) < rows else []
        info = {"examples": len(texts), "ranked": len(taken), "ranked_by_group": counts, "remarks": remarks}
        (folder / "info.json").write_text(json.dumps(info, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> TableFunction:
        made: list[tuple[_Target, list[tuple[np.ndarray, np.ndarray]]]] = []  # read for the first shard that the fit has not seen

        def rank(table: pa.Table) -> pa.Table:
            if (decided := known_decision(folder, table)) is not None:
                return decided
            if not made:
                with np.load(folder / "walk.npz", allow_pickle=False) as artifact:
                    by, likeness = artifact["by"], artifact["likeness"]
                    target = _Target(self, json.loads(str(artifact["texts"])), artifact["seen"], int(artifact["rows"]))
                at = [np.flatnonzero(by == i) for i in range(len(target.texts))]
                made.append((target, [(likeness[mine], mine + 1.0) for mine in at]))
            target, walked = made[0]
            found = np.round(target.likeness(table.column("text")), PRECISION)
            ranks = np.full(len(table), np.inf)
            # A later row gets the rank of the first row taken that is no more like the example.
            for column, (likeness, places) in zip(found.T, walked, strict=True):
                after = np.searchsorted(-likeness, -column, side="left")
                there = (after < len(places)) & (column > 0)
                ranks[there] = np.minimum(ranks[there], places[after[there]])
            columns = [nullable(np.where(np.isinf(ranks), np.nan, ranks)), pa.array(found.max(1, initial=0.0).astype(np.float32))]
            return pa.table(columns, schema=self.writes())

        return rank

    def _sets(self, texts: pa.Array | pa.ChunkedArray) -> Any:
        """The words and word pairs of each text, scipy CSR (texts, BUCKETS)."""
        blocks = byte_blocks(texts, self.characters)
        return features((word_hashes(raw, ends) for raw, ends in blocks), self.order, BUCKETS)


class _Target:
    """The examples as vectors. seen  int64 (BUCKETS,): how many of the pool's `rows` have each word or pair."""

    def __init__(self, stage: Nearest, texts: list[str], seen: np.ndarray, rows: int):
        self.stage, self.texts = stage, texts
        self.rarity = np.log((rows + 1) / (seen + 1))
        self.vectors = self._vectors(pa.array(texts, pa.large_string()))

    def _vectors(self, texts: pa.Array | pa.ChunkedArray) -> Any:
        """Unit rows, scipy CSR float64; a text of nothing rare is a row of zeros."""
        found = self.stage._sets(texts)
        found.data = self.rarity[found.indices]
        norms = np.sqrt(found.multiply(found).sum(1))
        found.data /= np.repeat(np.where(norms > 0, norms, 1.0), np.diff(found.indptr))
        return found

    def likeness(self, texts: pa.ChunkedArray) -> np.ndarray:
        """Cosines, float64 (texts, examples), each the sum over one text's words in their order: it depends on no other text."""
        parts = [(self._vectors(texts.slice(i, AT_ONCE)) @ self.vectors.T).toarray() for i in range(0, len(texts), AT_ONCE)]
        return np.concatenate([np.empty((0, len(self.texts))), *parts])


class _Nearest:
    """The `depth` rows that are most like one example."""

    def __init__(self, depth: int):
        self.depth = depth
        self.keys = [np.empty(0), np.empty(0), np.empty(0, np.int64)]  # likeness below 0, the tie's draw, row number

    def add(self, rows: np.ndarray, likeness: np.ndarray, ties: np.ndarray) -> None:
        likeness = np.round(likeness, PRECISION)
        there = likeness > 0
        keys = [np.concatenate(pair) for pair in zip(self.keys, (-likeness[there], ties[there], rows[there]), strict=True)]
        first = np.lexsort(keys[::-1])[: self.depth]
        self.keys = [key[first] for key in keys]

    def rows(self) -> np.ndarray:
        return self.keys[2]

    def likeness(self) -> np.ndarray:
        return -self.keys[0]
