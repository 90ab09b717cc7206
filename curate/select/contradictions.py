"""Rows that answer a question otherwise than other rows do.

Two prompts are one question if they are equal after normalisation but for articles, politeness and sentence marks, or if
they differ only in the spelling of a few words and the Jaccard similarity of their shingles reaches the threshold
(an exact set join). A similarity alone would not do: on 54,839 real rows 242,000 pairs of prompts reach 0.8, nearly all of them different
questions about one passage. What counts as contradiction, and which row goes: see `algorithms/contradictions.py`.

Duplicates are not hidden from this stage: an answer that two rows agree on outweighs one that stands alone. Put it
before near-duplicate removal, which else may drop the right answer as a near copy of the wrong one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.algorithms import contradictions
from curate.algorithms.set_join import Sets, connected, joined, of_hashes, similar_pairs
from curate.stage import VERDICT, FitEngine, Inputs, Stage, TableFunction, read_decision, verdicts, write_decision


class _Questions(Stage):
    """What finding equal questions needs of a row: a key that equal ones share, and shingles."""

    shingle: int

    libraries = ("numpy",)

    def reads(self) -> tuple[str, ...]:
        return ("prompt",)

    def writes(self) -> pa.Schema:
        return pa.schema([("key", pa.binary()), ("shingles", pa.list_(pa.uint64()))])

    def load(self, folder: Path) -> TableFunction:
        def sign(table: pa.Table) -> pa.Table:
            words = [contradictions.question(text or "") for text in table["prompt"].to_pylist()]
            keys = [_hash(row) if row else None for row in words]
            pieces = [[_hash(row[at : at + self.shingle])[:8] for at in range(len(row) - self.shingle + 1)] for row in words]
            hashes = np.frombuffer(b"".join(piece for row in pieces for piece in row), np.uint64).copy()
            sets = of_hashes(hashes, np.cumsum([0, *map(len, pieces)]))
            shingles = pa.ListArray.from_arrays(pa.array(sets.begins, pa.int32()), pa.array(sets.values, pa.uint64()))
            return pa.table({"key": pa.array(keys, pa.binary()), "shingles": shingles})

        return sign


def _hash(words: Sequence[str]) -> bytes:
    return hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=16).digest()


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

    libraries = ("numpy", "scipy", "scikit-learn")

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine"})
    fit_makes: ClassVar[str] = "decision"

    def reads(self) -> tuple[str, ...]:
        return ("shard", "row_id", "file", "line", "prompt", "response")

    def reads_if_present(self) -> tuple[str, ...]:
        return ("loss_original", "origin")

    def writes(self) -> pa.Schema:
        return pa.schema([("verdict", VERDICT)])

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        signed = engine.step("questions", _Questions(shingle=self.shingle))
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
        heads: list[int] = []
        starts, parts = [0], []
        for shard in inputs.shards:
            table = signed.table(shard)
            column = table["shingles"].combine_chunks()
            begins = np.concatenate([[0], np.cumsum(np.asarray(column.value_lengths().fill_null(0), np.int64))])
            mine = len(heads)
            for place, key in enumerate(table["key"].to_pylist()):
                row = starts[-1] + place
                if key is not None:
                    head = first.setdefault(key, row)
                    same.setdefault(head, []).append(row)
                    if head == row:
                        heads.append(row)
            parts.append(Sets(np.asarray(column.flatten(), np.uint64), begins).take(np.array(heads[mine:], np.int64) - starts[-1]))
            starts.append(starts[-1] + table.num_rows)
        alike = np.empty((0, 2), np.int64)
        if heads and self.threshold < 1:
            pairs, _ = similar_pairs(joined(parts), self.threshold)
            words = self._words(inputs, starts, np.array(heads)[np.unique(pairs)])
            alike = pairs[[contradictions.same_question(words[heads[one]], words[heads[other]]) for one, other in pairs.tolist()]]
        root_of = (
            dict(zip(heads, np.array(heads, np.int64)[connected(alike, np.arange(len(heads)))].tolist(), strict=True)) if heads else {}
        )
        asked: dict[int, list[int]] = {}
        for head, rows in same.items():
            asked.setdefault(root_of[head], []).extend(rows)
        return [sorted(rows) for rows in asked.values() if len(rows) > 1]

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
