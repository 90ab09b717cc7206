"""Rows that answer a question otherwise than other rows do.

Two prompts are one question if they are equal after normalisation but for articles, politeness and sentence marks, or if
they differ only in the spelling of a few words and the Jaccard similarity of their shingles (MinHash banding, verified)
reaches the threshold. A similarity alone would not do: on 54,839 real rows 242,000 pairs of prompts reach 0.8, nearly all of them different
questions about one passage. What counts as contradiction, and which row goes: see `algorithms/contradictions.py`.

Duplicates are not hidden from this stage: an answer that two rows agree on outweighs one that stands alone. Put it
before near-duplicate removal, which else may drop the right answer as a near copy of the wrong one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.algorithms import contradictions
from curate.algorithms.minhash import UnionFind, band_plan, candidate_pairs
from curate.stage import VERDICT, FitEngine, Inputs, Stage, TableFunction, read_decision, verdicts, write_decision


class _Questions(Stage):
    """What finding equal questions needs of a row: a key that equal ones share, and a MinHash signature."""

    shingle: int
    permutations: int
    seed: int

    libraries = ("rensa",)

    def reads(self) -> tuple[str, ...]:
        return ("prompt",)

    def writes(self) -> pa.Schema:
        return pa.schema([("key", pa.binary()), ("signature", pa.list_(pa.uint32()))])

    def load(self, folder: Path) -> TableFunction:
        import hashlib

        import rensa

        def sign(table: pa.Table) -> pa.Table:
            words = [contradictions.question(text or "") for text in table["prompt"].to_pylist()]
            pieces = [[" ".join(row[at : at + self.shingle]) for at in range(len(row) - self.shingle + 1)] for row in words]
            signed = rensa.RMinHash.digests_from_token_sets(pieces, self.permutations, self.seed)
            keys = [
                hashlib.blake2b(" ".join(row).encode("utf-8", "surrogatepass"), digest_size=16).digest() if row else None for row in words
            ]
            signatures = [row if piece else [] for row, piece in zip(signed, pieces, strict=True)]
            return pa.table({"key": pa.array(keys, pa.binary()), "signature": pa.array(signatures, pa.list_(pa.uint32()))})

        return sign


class Contradictions(Stage):
    """Drops the minority answer to a question that rows answer in ways that exclude each other (rule `contradicts`)."""

    threshold: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of two prompts from which misspelt words may tell them apart; 1: never"
    )
    agreement: float = Field(
        0.5, ge=0, le=1, description="share of the shorter answer's content words below which short answers contradict"
    )
    ties: Literal["drop", "keep"] = Field("drop", description="one against one, and no `loss_original` to tell: drop both, or keep both")
    shingle: int = Field(3, ge=1, description="words in a row")
    permutations: int = Field(128, ge=16)
    seed: int = 0

    libraries = ("rensa", "numpy", "scikit-learn")

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine"})

    def reads(self) -> tuple[str, ...]:
        return ("shard", "row_id", "file", "line", "prompt", "response")

    def reads_if_present(self) -> tuple[str, ...]:
        return ("loss_original", "origin")

    def writes(self) -> pa.Schema:
        return pa.schema([("verdict", VERDICT)])

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        signed = engine.step("questions", _Questions(shingle=self.shingle, permutations=self.permutations, seed=self.seed))
        sets = self._sets(inputs, signed)
        rows = _Members(inputs, sets)
        decided: dict[str, dict[int, dict[str, Any]]] = {}
        for members in sets:
            members = sorted(members, key=rows.order)
            answers = [contradictions.answer(rows.response[row]) for row in members]
            for fault in contradictions.faults(answers, [rows.loss.get(row) for row in members], self.agreement):
                row, twin = members[fault.row], members[fault.against]
                if fault.tied and self.ties == "keep":
                    continue
                shard, place = rows.place[row]
                decided.setdefault(shard, {})[place] = {
                    "decision": "drop", "rule": "contradicts",
                    "value": round(contradictions.overlap(answers[fault.row], answers[fault.against]), 6), "threshold": self.agreement,
                    "twin": rows.row_id[twin], "twin_at": rows.at[twin], "similarity": round(self._jaccard(rows.asks[row], rows.asks[twin]), 6),
                }  # fmt: skip
        for shard, count in rows.shards:
            here = decided.get(shard, {})
            write_decision(folder, shard, pa.table({"verdict": verdicts([here.get(place) for place in range(count)])}))

    def load(self, folder: Path) -> TableFunction:
        return read_decision(folder)

    def _sets(self, inputs: Inputs, signed: Inputs) -> list[list[int]]:
        """Rows, by their number in reading order, that ask the same."""
        first: dict[bytes, int] = {}
        same: dict[int, list[int]] = {}  # the first row of a question -> all rows that ask it in the same words
        starts, heads, signatures = [0], [], []
        for shard in inputs.shards:
            table = signed.table(shard)
            column = table["signature"].combine_chunks()
            has = np.asarray(column.value_lengths()) > 0
            flat = np.asarray(column.flatten(), np.uint32).reshape(-1, self.permutations)
            at = np.cumsum(has) - 1
            for place, key in enumerate(table["key"].to_pylist()):
                row = starts[-1] + place
                if key is not None:
                    head = first.setdefault(key, row)
                    same.setdefault(head, []).append(row)
                    if head == row and has[place] and self.threshold < 1:
                        heads.append(row)
                        signatures.append(flat[at[place]])
            starts.append(starts[-1] + table.num_rows)
        union = UnionFind(len(heads))
        if heads:
            bands, size = band_plan(self.threshold, self.permutations)
            least = self.threshold - 4 * (self.threshold * (1 - self.threshold) / self.permutations) ** 0.5 - 1e-9
            pairs = candidate_pairs(np.stack(signatures), bands, size, least)
            words = self._words(inputs, starts, np.array(heads)[np.unique(pairs)])
            for one, other in pairs.tolist():
                a, b = words[heads[one]], words[heads[other]]
                if contradictions.same_question(a, b) and self._jaccard(a, b) >= self.threshold:
                    union.union(one, other)
        joined: dict[int, list[int]] = {}
        place_of = {row: place for place, row in enumerate(heads)}
        for head, rows in same.items():
            root = heads[union.find(place_of[head])] if head in place_of else head
            joined.setdefault(root, []).extend(rows)
        return [sorted(rows) for rows in joined.values() if len(rows) > 1]

    def _words(self, inputs: Inputs, starts: list[int], wanted: np.ndarray) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for number, shard in enumerate(inputs.shards):
            here = wanted[(wanted >= starts[number]) & (wanted < starts[number + 1])]
            if len(here):
                texts = inputs.table(shard)["prompt"]
                found |= {row: contradictions.question(texts[row - starts[number]].as_py()) for row in here.tolist()}
        return found

    def _jaccard(self, one: list[str], other: list[str]) -> float:
        if one == other:
            return 1.0
        a, b = ({tuple(words[at : at + self.shingle]) for at in range(len(words) - self.shingle + 1)} for words in (one, other))
        return len(a & b) / len(a | b)


class _Members:
    """Columns of the rows that share a question with another; all dictionaries go from the row's number."""

    def __init__(self, inputs: Inputs, sets: list[list[int]]):
        wanted = np.unique(np.concatenate([np.array(members) for members in sets])) if sets else np.empty(0, np.int64)
        self.shards: list[tuple[str, int]] = []
        self.asks: dict[int, list[str]] = {}
        self.response: dict[int, str] = {}
        self.loss: dict[int, float | None] = {}
        self.row_id: dict[int, str] = {}
        self.at: dict[int, str] = {}
        self.place: dict[int, tuple[str, int]] = {}
        self.key: dict[int, tuple[Any, ...]] = {}
        start = 0
        for shard, table in inputs.tables():
            here = wanted[(wanted >= start) & (wanted < start + table.num_rows)]
            some = table.take(pa.array(here - start))
            for row, values in zip(here.tolist(), some.to_pylist(), strict=True):
                self.asks[row], self.response[row] = contradictions.question(values["prompt"] or ""), values["response"] or ""
                self.loss[row] = values.get("loss_original")
                self.row_id[row], self.at[row] = values["row_id"], f"{shard}:{values['position']}"
                self.place[row] = shard, row - start
                self.key[row] = (values.get("origin") is not None, values["row_id"], values["file"], values["line"])
            self.shards.append((shard, table.num_rows))
            start += table.num_rows
        for members in sets:  # an empty answer contradicts nothing: other stages judge it
            members[:] = [row for row in members if self.response[row].strip()]

    def order(self, row: int) -> tuple[Any, ...]:
        return self.key[row]
