"""What every stage that drops duplicates has in common: all rows in the order of survival, and verdicts that name the survivor.

The survivor of rows that are the same is the one that comes first by: raw before generated, at a refresh survivors of the version before, source priority, quality where a column is named, longer text,
age, then row_id, file, line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.algorithms.set_join import Sets, similarity
from curate.dedup.copies import NO_TEXT, SHORT, Decided, Marks, Rows, marks
from curate.dedup.known import Known
from curate.dedup.ranges import stored_sets
from curate.errors import UserMistake
from curate.stage import VERDICT, FitEngine, Inputs, Stage, TableFunction, read_decision, verdict_column, write_decision

LEAST_ROWS = 100  # of a source, for an alarm
UNSIGNED = "stage_shingles"  # a row of which no shingles can be made: the step that makes them fails on it, and sets it aside


class Shingles(Stage):
    """What finding copies needs of a row: exact key, shingle hashes, guard."""

    view: str
    of: str
    shingle: int

    libraries = ("numpy",)
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine"})

    def reads(self) -> tuple[str, ...]:
        return viewed_columns(self.view)

    def writes(self) -> pa.Schema:
        return pa.schema(
            [
                ("shingle_key", pa.binary(16)),
                ("shingle_hashes", pa.list_(pa.uint64())),
                ("shingle_guard", pa.uint64()),
                ("shingle_words", pa.int32()),
                ("shingle_length", pa.int32()),
            ]
        )

    def load(self, folder: Path) -> TableFunction:
        def sign(table: pa.Table) -> pa.Table:
            found = marks(texts_of(table, self.view), self.of, self.shingle)
            key = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(found.key), [None, pa.py_buffer(found.key.tobytes())])
            sets = pa.ListArray.from_arrays(pa.array(found.sets.begins, pa.int32()), pa.array(found.sets.values, pa.uint64()))
            columns = [key, sets, pa.array(found.guard, pa.uint64()), pa.array(found.words, pa.int32()), pa.array(found.length, pa.int32())]
            return pa.table(columns, schema=self.writes())

        return sign


def viewed_columns(view: str) -> tuple[str, ...]:
    return (view, "text") if view == "prompt" else (view,)


def texts_of(table: pa.Table, view: str) -> list[str | None]:
    """What is compared of each row; with view "prompt", rows without a prompt (plain documents) give their text, as `embed` reads them."""
    kind = table.schema.field(view).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserMistake(f"view: column '{view}' is {kind}: name a column of texts, as text, prompt or response")
    texts = table[view].to_pylist()
    if view != "prompt":
        return texts
    return [text if prompt is None else prompt for prompt, text in zip(texts, table["text"].to_pylist(), strict=True)]


def responses_agree(pairs: np.ndarray, own: int, theirs: Callable[[], Sequence[str | None]], inputs: Inputs, least: float) -> np.ndarray:
    """Which pairs do not have two different responses, bool (m,): as many words in common as a Jaccard of `least` asks, and no other number.

    Rows from `own` on are of other datasets; `theirs` gives the responses of these.
    """
    wanted = np.unique(pairs)
    responses: list[str | None] = []
    start = 0
    for _, table in inputs.tables():
        here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + table.num_rows)] - start
        responses += table["response"].take(pa.array(here)).to_pylist() if "response" in table.column_names else [None] * len(here)
        start += table.num_rows
    beyond = wanted[len(responses) :] - own
    if len(beyond):
        every = theirs()
        responses += [every[row] for row in beyond.tolist()]
    there = np.array([response is not None for response in responses], bool)
    found = marks(responses, "words", 1)
    left, right = np.searchsorted(wanted, pairs).T
    sizes = found.sets.sizes
    alike = similarity(found.sets.shared(np.stack([left, right], axis=1)), sizes[left], sizes[right]) >= least - 1e-9
    alike &= (np.minimum(found.words[left], found.words[right]) >= SHORT) | (found.guard[left] == found.guard[right])
    same = (found.key[left] == found.key[right]).all(axis=1)
    return ~there[left] | ~there[right] | same | alike


class Deciding(Stage):
    """Base of the stages that decide which rows are the same. Override `found` and `rules`."""

    view: str = "text"
    priority: dict[str, int] = Field({}, description="source name -> priority, lower survives; filled from ingest.sources")
    quality: str | None = Field(None, description="a column of numbers; the row with the larger one survives")
    age: str | None = Field(None, description="a kept column; the smaller value is the older row and survives")
    most_removed: float = Field(
        0.9, gt=0, le=1, description="share of a source's rows above which the run says so and ends with exit code 3"
    )

    verdict_kind: ClassVar[str] = "duplicate"
    fit_makes: ClassVar[str] = "decision"

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("shard", "row_id", "source", "file", "line", *viewed_columns(self.view), *self._ordering())))

    def _ordering(self) -> list[str]:
        return [name for name in (self.age, self.quality) if name]

    def reads_if_present(self) -> tuple[str, ...]:
        return ("origin", "parent_at", "survived_before")

    def writes(self) -> pa.Schema:
        return pa.schema([("verdict", VERDICT)])

    def shingles(self) -> Shingles:
        return Shingles(view=self.view, of="words", shingle=5)

    def known(self) -> list[Known]:
        """Other datasets that rows are held against."""
        return []

    def found(self, corpus: Corpus, inputs: Inputs, engine: FitEngine) -> Decided:
        raise NotImplementedError

    def rules(self, found: Decided, own: int, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
        """(rule, threshold) of the rows that go; from row `own` on they are of another dataset."""
        raise NotImplementedError

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        shingles = self.shingles()
        corpus = Corpus(self, inputs, engine.step(f"shingles/{self.view}-{shingles.of}-{shingles.shingle}", shingles, shared=True))
        found = self.found(corpus, inputs, engine)
        gone = np.flatnonzero(found.survivor[: corpus.own] != np.arange(corpus.own))
        twins, places = corpus.names(found.survivor[gone])
        rules, thresholds = self.rules(found, corpus.own, gone)
        start = 0
        for shard, rows in corpus.shards:
            here = slice(*np.searchsorted(gone, (start, start + rows)))
            columns = [_laid(rows, gone[here] - start, values) for values in (
                rules[here], _rounded(found.closest[gone[here]]), thresholds[here].tolist(), twins[here], places[here], _rounded(found.similarity[gone[here]])
            )]  # fmt: skip
            rule, value, threshold, twin, twin_at, alike = columns
            decision = ["drop"] * rows
            for row in np.flatnonzero(corpus.unsigned[start : start + rows]).tolist():
                decision[row], rule[row] = "quarantine", UNSIGNED
            write_decision(
                folder,
                shard,
                pa.table({"verdict": verdict_column(rule, value, threshold, decision, twins=twin, twins_at=twin_at, similarities=alike)}),
            )
            start += rows
        folder.mkdir(parents=True, exist_ok=True)
        info = self._info(corpus, gone, found)
        (folder / "info.json").write_text(json.dumps(info, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")

    def _info(self, corpus: Corpus, gone: np.ndarray, found: Any) -> dict[str, Any]:
        """What the fit has to say: the least similar pair still called a duplicate, and sources of which nearly nothing is left."""
        removed = Counter(corpus.sources.take(pa.array(gone)).to_pylist())
        alarms = [
            f"{removed[source]:,} of {rows:,} rows of source {source!r} are duplicates, above most_removed: {self.most_removed:g}. Read some with `curate drops`; "
            f"if they are right, set it higher"
            for source, rows in sorted(Counter(corpus.sources.to_pylist()).items(), key=str)
            if rows >= LEAST_ROWS and removed[source] > self.most_removed * rows
        ]
        info: dict[str, Any] = {"remarks": alarms, "alarm": bool(alarms), "pairs": len(found.pairs)}
        if len(found.alike):
            least = int(np.argmin(found.alike))
            _, places = corpus.names(found.pairs[least])
            info["least_alike"] = {"similarity": round(float(found.alike[least]), 6), "rows": places.tolist()}
        return info

    def load(self, folder: Path) -> TableFunction:
        return read_decision(folder)


def _laid(rows: int, at: np.ndarray, values: Any) -> list[Any]:
    """A column of so many rows, null but for the values at their places."""
    column = np.full(rows, None, object)
    column[at] = values
    return column.tolist()


def _rounded(values: np.ndarray) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


class Corpus:
    """All visible rows in reading order, those of `against` after them. Shingles stay on the disk.

    unsigned  bool (own,): rows of which there are none, since making them failed
    """

    def __init__(self, stage: Deciding, inputs: Inputs, signed: Inputs):
        self.signed = signed
        self.known = stage.known()
        shingles = stage.shingles()
        self.marked: list[Marks] = [found for known in self.known for found in known.marks(shingles.of, shingles.shingle)]
        wanted = list(dict.fromkeys(["row_id", "source", "file", "line", *stage._ordering()]))
        tables, keys, sizes, generated = [], [], [], False
        parents: list[str | None] = []
        self.shards: list[tuple[str, int]] = []
        unsigned = [np.empty(0, bool)]
        words: list[np.ndarray] = []
        guards: list[np.ndarray] = []
        lengths: list[np.ndarray] = []
        positions, raw = [], []
        for shard, table in inputs.tables():
            mine = signed.table(shard)
            self.shards.append((shard, table.num_rows))
            tables.append(table.select([*wanted, *(["survived_before"] if "survived_before" in table.column_names else [])]))
            keys.append(_keys(mine["shingle_key"]))
            unsigned.append(np.asarray(mine["shingle_key"].is_null()))
            sizes.append(pc.fill_null(pc.list_value_length(mine["shingle_hashes"]), 0).to_numpy().astype(np.int64))
            for column, name in ((words, "words"), (guards, "guard"), (lengths, "length")):
                column.append(mine[f"shingle_{name}"].fill_null(0).to_numpy())
            positions.append(table["position"].to_numpy())
            is_raw = np.asarray(table["origin"].is_null()) if "origin" in table.column_names else np.ones(table.num_rows, bool)
            raw.append(is_raw)
            generated |= not is_raw.all()
            parents += table["parent_at"].to_pylist() if "parent_at" in table.column_names else [None] * table.num_rows
        try:
            every = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({name: pa.nulls(0) for name in wanted})
        except pa.ArrowException:
            raise UserMistake(
                f"{stage.age or stage.quality}: the files have values of different kinds there: name a column that has one kind"
            ) from None
        self.own = every.num_rows
        self.unsigned = np.concatenate(unsigned)
        self.row_ids, self.sources = (every[name].combine_chunks() for name in ("row_id", "source"))
        self.positions = np.concatenate([np.empty(0, np.int32), *positions])
        self.starts = np.cumsum([0, *(rows for _, rows in self.shards)])
        known_rows = sum(len(part.length) for part in self.marked)
        is_raw = np.concatenate([np.empty(0, bool), *raw, np.ones(known_rows, bool)])
        families = None
        if generated:
            named = [parent or place for parent, place in zip(parents, self.names(np.arange(self.own))[1], strict=True)]
            families = np.concatenate([pa.array(named).dictionary_encode().indices.to_numpy(), -1 - np.arange(known_rows)]).astype(np.int64)
        rank = np.concatenate(
            [_rank(stage, every, is_raw[: self.own], np.concatenate([np.empty(0, np.int32), *lengths])), np.arange(known_rows) - known_rows]
        )
        self.rows = Rows(
            np.concatenate([np.empty((0, 2), np.uint64), *keys, *(part.key for part in self.marked)]),
            np.concatenate([np.empty(0, np.int32), *words, *(part.words for part in self.marked)]),
            np.concatenate([np.empty(0, np.uint64), *guards, *(part.guard for part in self.marked)]),
            np.concatenate([np.empty(0, np.int64), *sizes, *(part.sets.sizes for part in self.marked)]),
            rank, known_rows, is_raw if generated else None, families, *_new(every, known_rows),
        )  # fmt: skip

    def responses(self) -> list[str | None]:
        """Of the rows of other datasets."""
        return [response for one in self.known for response in one.responses()]

    def sets(self) -> Iterator[Sets]:
        yield from stored_sets(self.signed)
        for part in self.marked:
            yield part.sets

    def names(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row_id, place) of rows, as objects; a known row's are its own row_id, where it has one, and its file and place in it."""
        ids, places = np.empty(len(rows), object), np.empty(len(rows), object)
        own = rows < self.own
        ids[own] = self.row_ids.take(pa.array(rows[own])).to_pylist()
        shard = np.searchsorted(self.starts, rows[own], side="right") - 1
        places[own] = [f"{self.shards[s][0]}:{self.positions[row]}" for s, row in zip(shard.tolist(), rows[own].tolist(), strict=True)]
        theirs = [name for known in self.known for name in known.names()] if not own.all() else []
        for at in np.flatnonzero(~own).tolist():
            ids[at], places[at] = theirs[int(rows[at]) - self.own]
        return ids, places


def _keys(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    buffer = array.buffers()[1]
    if buffer is None:
        return np.empty((0, 2), np.uint64)
    keys = np.frombuffer(buffer, np.uint64).reshape(-1, 2)[array.offset : array.offset + len(array)]
    if not array.null_count:
        return keys
    unsigned = np.asarray(array.is_null())[:, None]  # a row that the shingles' step has set aside is no copy of anything
    return np.where(unsigned, np.frombuffer(NO_TEXT, np.uint64), keys)


def _new(rows: pa.Table, known_rows: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """At a refresh (which rows did not survive in the version before, which of these were there); None where that is not known of any.

    A duplicate of yesterday is none of those that may tie others together today: it may have fallen to its best twin and be like another survivor.
    """
    if "survived_before" not in rows.column_names:
        return None, None
    before, theirs = np.asarray(rows["survived_before"].fill_null(-1)), np.zeros(known_rows, bool)
    return np.concatenate([before < 1, theirs]), np.concatenate([before == 0, theirs])


def _rank(stage: Deciding, rows: pa.Table, raw: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Place of every row in the order of survival, int64 (n,)."""
    source = rows["source"].combine_chunks().dictionary_encode()
    priorities = np.array([stage.priority.get(name, 0) for name in source.dictionary.to_pylist()] or [0])
    at = source.indices.fill_null(0).to_numpy(zero_copy_only=False)
    columns: dict[str, Any] = {
        "raw": pa.array(~raw),
        "priority": pa.array(np.where(np.asarray(source.indices.is_null()), 0, priorities[at] if len(at) else 0)),
    }
    keys = [("raw", "ascending"), ("priority", "ascending")]
    if "survived_before" in rows.column_names:  # of a refresh: what stayed yesterday is not dropped for what comes today
        columns["before"] = rows["survived_before"].fill_null(-1)
        keys.insert(1, ("before", "descending"))
    if stage.quality:
        try:
            columns["quality"] = pc.cast(rows[stage.quality], pa.float64())
        except pa.ArrowException:
            raise UserMistake(
                f"quality: column '{stage.quality}' is {rows.schema.field(stage.quality).type}: name a column of numbers"
            ) from None
        keys.append(("quality", "descending"))
    columns["length"] = pa.array(length)
    keys.append(("length", "descending"))
    if stage.age:
        if pa.types.is_nested(kind := rows.schema.field(stage.age).type):
            raise UserMistake(f"age: column '{stage.age}' is {kind}: name a column of dates, numbers or words")
        columns["age"] = rows[stage.age]
        keys.append(("age", "ascending"))
    for name in ("row_id", "file", "line"):
        columns[name] = rows[name]
        keys.append((name, "ascending"))
    order = pc.sort_indices(pa.table(columns), sort_keys=keys).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank
