"""Exact and near duplicates by MinHash, every candidate verified, every dropped row with its twin.

Texts equal after normalisation are exact duplicates. For the rest: word shingles, MinHash signatures (rensa),
banding, exact Jaccard of the candidates, union-find over the pairs at or above the threshold. The survivor of
a set is the row that comes first by: raw before generated, source priority, longer text, age, then row_id,
file, line. Texts with fewer words than a shingle are compared by exact match only. Under 50 words a pair is
never joined when the words it differs in hold a number or a negation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.algorithms.minhash import UnionFind, band_plan, candidate_pairs, exact_key, guard, jaccard, normalise, shingles
from curate.stage import VERDICT, FitEngine, Inputs, Stage, TableFunction, read_decision, verdicts, write_decision

SHORT = 50  # words; below, one number or "not" can turn the meaning round without moving the similarity


class _Signatures(Stage):
    """What near-duplicate search needs of a row: exact key, MinHash signature, shingle hashes, guard."""

    shingle: int
    permutations: int
    seed: int
    view: str

    libraries = ("rensa",)
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine"})

    def reads(self) -> tuple[str, ...]:
        return (self.view,)

    def writes(self) -> pa.Schema:
        return pa.schema(
            [
                ("key", pa.binary()),
                ("signature", pa.list_(pa.uint32())),
                ("shingles", pa.list_(pa.uint64())),
                ("guard", pa.int64()),
                ("words", pa.int32()),
                ("length", pa.int32()),
            ]
        )

    def load(self, folder: Path) -> TableFunction:
        import rensa

        def sign(table: pa.Table) -> pa.Table:
            texts = table[self.view].to_pylist()
            normal = [normalise(text or "") for text in texts]
            parts = [shingles(text, self.shingle) for text in normal]
            hashes = [np.unique(np.asarray(row, np.uint64)) for row in rensa.RMinHash.hash_token_sets([pieces for _, pieces in parts])]
            matrix = rensa.RMinHash.digests_from_token_sets([pieces for _, pieces in parts], self.permutations, self.seed)
            signatures = [row if len(found) else [] for row, found in zip(matrix, hashes, strict=True)]
            return pa.table(
                {
                    "key": pa.array([exact_key(text) for text in normal], pa.binary()),
                    "signature": pa.array(signatures, pa.list_(pa.uint32())),
                    "shingles": pa.array(hashes, pa.list_(pa.uint64())),
                    "guard": pa.array([guard(tokens) for tokens, _ in parts], pa.int64()),
                    "words": pa.array([len(tokens) for tokens, _ in parts], pa.int32()),
                    "length": pa.array([len(text or "") for text in texts], pa.int32()),
                }
            )

        return sign


class Near(Stage):
    """Drops exact and near duplicates; one row of each set survives, the others name it."""

    threshold: float = Field(0.8, gt=0, le=1, description="exact Jaccard similarity of shingle sets from which two rows are duplicates")
    shingle: int = Field(5, ge=1, description="words in a row")
    permutations: int = Field(128, ge=16)
    view: str = "text"
    exact_only: bool = False
    priority: dict[str, int] = Field({}, description="source name -> priority, lower survives; filled from ingest.sources")
    age: str | None = Field(None, description="a kept column; the smaller value is the older row and survives")
    seed: int = 0

    libraries = ("rensa", "numpy")
    verdict_kind: ClassVar[str] = "duplicate"
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "drop"})

    def reads(self) -> tuple[str, ...]:
        return ("shard", "row_id", "source", "file", "line", self.view, *((self.age,) if self.age else ()))

    def reads_if_present(self) -> tuple[str, ...]:
        return ("origin", "parent_at")

    def writes(self) -> pa.Schema:
        return pa.schema([("verdict", VERDICT)])

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        signed = engine.step(
            "signatures", _Signatures(shingle=self.shingle, permutations=self.permutations, seed=self.seed, view=self.view)
        )
        rows = _Rows(self, inputs, signed)
        verdict = _decide(self, rows, signed)
        start = 0
        for shard, count in rows.shards:
            write_decision(folder, shard, pa.table({"verdict": verdicts(verdict[start : start + count])}))
            start += count

    def load(self, folder: Path) -> TableFunction:
        return read_decision(folder)


class _Rows:
    """Columns of all visible rows in survivor order: index 0 survives every set it is in."""

    def __init__(self, stage: Near, inputs: Inputs, signed: Inputs):
        self.shards: list[tuple[str, int]] = []
        order_keys: list[tuple[Any, ...]] = []
        keys, signatures, guards, words, where = [], [], [], [], []
        parents: list[str | None] = []
        ids: list[str] = []
        for shard, table in inputs.tables():
            mine = signed.table(shard)
            self.shards.append((shard, table.num_rows))
            raw = table["origin"].is_null().to_pylist() if "origin" in table.column_names else [True] * table.num_rows
            age = table[stage.age].to_pylist() if stage.age else [None] * table.num_rows
            parents += table["parent_at"].to_pylist() if "parent_at" in table.column_names else [None] * table.num_rows
            ids += table["row_id"].to_pylist()
            lengths = mine["length"].to_pylist()
            columns = (
                raw,
                table["source"].to_pylist(),
                lengths,
                age,
                table["row_id"].to_pylist(),
                table["file"].to_pylist(),
                table["line"].to_pylist(),
            )
            for is_raw, source, length, born, row_id, file, line in zip(*columns, strict=True):
                order_keys.append((not is_raw, stage.priority.get(source, 0), -length, born is None, born or "", row_id, file, line))
            where += [f"{shard}:{position}" for position in table["position"].to_pylist()]
            keys += mine["key"].to_pylist()
            signature = mine["signature"].combine_chunks()
            signatures.append(np.asarray(signature.flatten(), np.uint32).reshape(-1, stage.permutations))
            guards.append(mine["guard"].to_numpy())
            words.append(mine["words"].to_numpy())
        n = len(order_keys)
        self.n = n
        self.rank_of = np.empty(n, np.int64)  # place in reading order -> place in survivor order
        self.order = np.array(sorted(range(n), key=order_keys.__getitem__), np.int64)
        self.rank_of[self.order] = np.arange(n)
        self.ids, self.where, self.keys, self.parents = ids, where, keys, parents
        self.raw = np.array([not key[0] for key in order_keys], bool)
        self.guard = np.concatenate(guards) if guards else np.empty(0, np.int64)
        self.words = np.concatenate(words) if words else np.empty(0, np.int32)
        self.signatures = np.concatenate(signatures) if signatures else np.empty((0, stage.permutations), np.uint32)
        has = [np.asarray(signed.table(shard)["signature"].combine_chunks().value_lengths()) > 0 for shard, count in self.shards if count]
        self.signed_rows = np.flatnonzero(np.concatenate(has)) if has else np.empty(0, np.int64)


def _decide(stage: Near, rows: _Rows, signed: Inputs) -> list[dict[str, Any] | None]:
    """A verdict, or None, per row in reading order."""
    first: dict[bytes, int] = {}
    copies: dict[int, int] = {}  # row -> the first row, in survivor order, of the same text
    for row in rows.order.tolist():
        if (twin := first.setdefault(rows.keys[row], row)) != row:
            copies[row] = twin
    near: dict[int, tuple[int, float]] = {}  # row -> survivor, similarity of the closest pair that joined them
    hashes: dict[int, np.ndarray] = {}
    if not stage.exact_only:
        alive = np.array([row for row in rows.signed_rows.tolist() if row not in copies], np.int64)
        place = np.searchsorted(rows.signed_rows, alive)
        bands, size = band_plan(stage.threshold, stage.permutations)
        # The estimate has a standard deviation of sqrt(s(1-s)/permutations): four of them lose one pair in 30,000.
        least = stage.threshold - 4 * (stage.threshold * (1 - stage.threshold) / stage.permutations) ** 0.5 - 1e-9
        pairs = alive[candidate_pairs(rows.signatures[place], bands, size, least)] if len(alive) else np.empty((0, 2), np.int64)
        pairs = pairs[~_barred(rows, pairs)]
        hashes = _shingles_of(rows, signed, np.unique(pairs))
        edges = [
            (int(a), int(b), similarity) for a, b in pairs if (similarity := jaccard(hashes[int(a)], hashes[int(b)])) >= stage.threshold
        ]
        near = _join(rows, edges)
    verdict: list[dict[str, Any] | None] = [None] * rows.n
    for row in [*copies, *near]:
        text = copies.get(row, row)  # of a copy, the row that stood for its text among the near ones
        survivor, closest = near.get(text, (text, 1.0))
        verdict[row] = {
            "decision": "drop",
            "rule": "exact_duplicate" if row in copies else "near_duplicate",
            "value": 1.0 if row in copies else round(closest, 6),
            "threshold": 1.0 if row in copies else stage.threshold,
            "twin": rows.ids[survivor],
            "twin_at": rows.where[survivor],
            "similarity": 1.0 if survivor == text else round(jaccard(hashes[text], hashes[survivor]), 6),
        }
    return verdict


def _barred(rows: _Rows, pairs: np.ndarray) -> np.ndarray:
    """Pairs that must not be joined: short ones that differ in a number or negation; a child and its parent, or siblings."""
    if not len(pairs):
        return np.empty(0, bool)
    a, b = pairs[:, 0], pairs[:, 1]
    barred = (np.minimum(rows.words[a], rows.words[b]) < SHORT) & (rows.guard[a] != rows.guard[b])
    for index in np.flatnonzero(~(rows.raw[a] & rows.raw[b])):
        x, y = int(a[index]), int(b[index])
        family_x, family_y = rows.parents[x] or rows.where[x], rows.parents[y] or rows.where[y]
        barred[index] |= family_x == family_y
    return barred


def _shingles_of(rows: _Rows, signed: Inputs, wanted: np.ndarray) -> dict[int, np.ndarray]:
    """Shingle hashes of the wanted rows, read shard by shard."""
    found: dict[int, np.ndarray] = {}
    start = 0
    for shard, count in rows.shards:
        here = wanted[(wanted >= start) & (wanted < start + count)]
        if len(here):
            column = signed.table(shard)["shingles"]
            for row in here.tolist():
                found[row] = column[row - start].values.to_numpy()
        start += count
    return found


def _join(rows: _Rows, edges: list[tuple[int, int, float]]) -> dict[int, tuple[int, float]]:
    """Row -> (survivor, similarity of its closest pair), for every row that goes.

    Sets among raw rows first; then a generated row by its best raw twin; what is left of the generated by sets again.
    """
    gone: dict[int, tuple[int, float]] = {}

    def sets(chosen: list[tuple[int, int, float]]) -> None:
        union = UnionFind(rows.n)
        best: dict[int, float] = {}
        for a, b, similarity in chosen:
            union.union(int(rows.rank_of[a]), int(rows.rank_of[b]))  # in survivor order the root is the survivor
            best[a], best[b] = max(best.get(a, 0), similarity), max(best.get(b, 0), similarity)
        for row in sorted(best):
            root = int(rows.order[union.find(int(rows.rank_of[row]))])
            if root != row:
                gone[row] = (root, best[row])

    raw = rows.raw
    sets([edge for edge in edges if raw[edge[0]] and raw[edge[1]]])
    closest: dict[int, tuple[float, int, int]] = {}
    for a, b, similarity in edges:
        if raw[a] != raw[b]:
            child, other = (b, a) if raw[a] else (a, b)
            candidate = (-similarity, int(rows.rank_of[other]), other)
            closest[child] = min(closest.get(child, candidate), candidate)
    for child, (similarity, _, other) in sorted(closest.items()):
        gone[child] = (gone[other][0] if other in gone else other, -similarity)
    sets([edge for edge in edges if not raw[edge[0]] and not raw[edge[1]] and edge[0] not in closest and edge[1] not in closest])
    return gone
