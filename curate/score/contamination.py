"""Does a row hold an item of a benchmark that the trained model is to be tested on? By n-grams, and by meaning.

    share of the item's n-grams in the row >= share             contaminated_NAME       verbatim, changed a little, or inside a longer row
    cosine >= cosine and half of the item's words in the row    paraphrased_NAME        said in other words (where `encoder` is set)

n-grams: `algorithms/item_index.py`. A cosine alone would call two questions of one kind the same (Weller et al. 2025, arXiv 2508.21038, on what one
vector can tell apart): so half of the item's words must be there as well, and its numbers.

The verdict names the item. Generated rows are looked at like any others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from curate.algorithms.item_index import ItemIndex, index_of
from curate.algorithms.normal_form import normalise
from curate.algorithms.set_join import Sets, joined
from curate.algorithms.shingles import numbers, shingled
from curate.byte_blocks import BLOCK, byte_blocks
from curate.embed.hashed import unit_vectors
from curate.embed.transformer import Transformer
from curate.errors import UserMistake
from curate.ingest.files import read_beside
from curate.stage import VERDICT, FitEngine, Inputs, Stage, TableFunction, verdict_column
from curate.store import sha256_file

NEAREST = 8  # items that a row's vector is compared with by words


class Contamination(Stage):
    """Drops rows that hold an item of a benchmark, each benchmark by a rule of its own.

    benchmarks   name: file or folder of items (.jsonl, .parquet; read like a corpus). The name is part of the rule: small letters, digits, _
    fields       which of their fields is what, as `ingest.fields`: {instruction: question, output: answer}
    item         prompt: an item's question, where it has one; text: question and answer together
    ngram        words of an n-gram; an item of fewer is one n-gram of all its words
    share        of an item's n-grams, from which a row holds it
    least_words  items of fewer words are not looked for
    common       an n-gram that so many items have is their template's, and counts for none
    encoder      the settings of `embed`, as the recipe has them: rows are compared by their vectors, too
    cosine       from which, with `agreement`, a row says what an item says
    agreement    share of the item's words that such a row must hold
    """

    libraries: ClassVar[tuple[str, ...]] = Transformer.libraries

    benchmarks: dict[str, str]
    fields: dict[str, Any] = Field({})
    item: Literal["prompt", "text"] = "prompt"
    ngram: int = Field(6, ge=2)
    share: float = Field(0.4, gt=0, le=1)
    least_words: int = Field(5, ge=1)
    common: int = Field(4, ge=2)
    encoder: Transformer | None = None
    column: str = "vector"
    cosine: float = Field(0.9, gt=0, le=1)
    agreement: float = Field(0.5, ge=0, le=1)

    @field_validator("benchmarks")
    @classmethod
    def _names(cls, benchmarks: dict[str, str]) -> dict[str, str]:
        if not benchmarks:
            raise ValueError("benchmarks names no file: write for instance {gsm8k: tests/gsm8k.jsonl}")
        for name in benchmarks:
            if not name.isidentifier() or name != name.lower():
                raise ValueError(f"benchmark '{name}' becomes part of a rule's name: use small letters, digits and _")
        return benchmarks

    def reads(self) -> tuple[str, ...]:
        return ("text", *([self.column] if self.encoder else []))

    def writes(self) -> pa.Schema:
        return pa.schema([("contamination", pa.float32()), ("contaminated_by", pa.string()), ("verdict", VERDICT)])

    def models(self) -> tuple[str, ...]:
        return self.encoder.models() if self.encoder else ()

    def identity(self) -> dict[str, Any]:
        files = {}
        for name, path in self.benchmarks.items():
            place = Path(path)
            if not place.exists():
                raise UserMistake(
                    f"contamination: benchmark {name}: {path} does not exist: name a .jsonl or .parquet file, or a folder of them"
                )
            found = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
            files[name] = [sha256_file(file) for file in found]
        return {"benchmarks": files, **(self.encoder.identity() if self.encoder else {})}

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """The index of the items; the corpus is not looked at."""
        tables = [
            (name, table) for name, path in self.benchmarks.items() for table in read_beside(path, (), f"benchmark {name}", self.fields)
        ]
        if empty := sorted(set(self.benchmarks) - {name for name, table in tables if table.num_rows}):
            raise UserMistake(f"contamination: benchmark {empty[0]} holds no items: name a file that does")
        items = [text for _, table in tables for text in self._items(table)]
        places = [
            f"{name}:{line}" if line is not None else name for name, table in tables for line in table.column("line").to_pylist()
        ]  # fmt: skip
        index = index_of(*_block(items), self.ngram, self.least_words, self.common)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "index.npz", grams=index.grams, item=index.item, order=index.order, sizes=index.sizes)
        names = [name for name, table in tables for _ in range(table.num_rows)]
        row_ids = [row_id for _, table in tables for row_id in table.column("row_id").to_pylist()]
        (folder / "items.json").write_text(json.dumps({"names": names, "row_ids": row_ids, "places": places}) + "\n", encoding="utf-8")
        blind = int((index.sizes == 0).sum())
        remarks = []
        if blind:
            remarks.append(
                f"{blind:,} of {len(items):,} items cannot be looked for by n-grams: fewer than {self.least_words} words, or nothing that is not in {self.common} items and more"
            )
        if self.encoder:
            parts = []
            encode = self.encoder.load(Path())
            for _, table in tables:
                parts.append(unit_vectors(encode(table).column(next(iter(self.encoder.columns()))))[0])
            words, figures = shingled(*_block(items), "words", 1).sets, numbers(*_block(items))
            np.savez(
                folder / "meaning.npz", vectors=np.concatenate(parts), words=words.values, begins=words.begins,
                numbers=figures.values, number_begins=figures.begins,
            )  # fmt: skip
        (folder / "info.json").write_text(json.dumps({"items": len(items), "remarks": remarks}) + "\n", encoding="utf-8")

    def _items(self, table: pa.Table) -> list[str]:
        prompts, texts = table.column("prompt").to_pylist(), table.column("text").to_pylist()
        if self.item == "text":
            return [text or "" for text in texts]
        return [prompt if prompt is not None else text or "" for prompt, text in zip(prompts, texts, strict=True)]

    def load(self, folder: Path) -> TableFunction:
        items = json.loads((folder / "items.json").read_text(encoding="utf-8"))
        with np.load(folder / "index.npz") as stored:
            index = ItemIndex(stored["grams"], stored["item"], stored["order"], stored["sizes"])
        meaning = _Meaning(folder, self.cosine, self.agreement) if self.encoder else None

        def look(table: pa.Table) -> pa.Table:
            texts = [text or "" for text in table.column("text").to_pylist()]
            parts = [index.held(*block) for block in _blocks(texts)]
            share = np.concatenate([np.empty(0), *(part[0] for part in parts)])
            best = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
            hit = share >= self.share - 1e-9
            rules = [f"contaminated_{items['names'][at]}" if found else None for at, found in zip(best.tolist(), hit.tolist(), strict=True)]
            values, limits = share.round(4), np.full(len(texts), self.share)
            if meaning is not None:
                cosine, near = meaning.nearest(table.column(self.column), texts)
                for row in np.flatnonzero((near >= 0) & ~hit).tolist():
                    rules[row], best[row] = f"paraphrased_{items['names'][near[row]]}", near[row]
                    values[row], limits[row] = round(float(cosine[row]), 4), self.cosine
            twin = [None if rule is None else at for rule, at in zip(rules, best.tolist(), strict=True)]
            verdict = verdict_column(
                rules, values.tolist(), limits.tolist(),
                twins=[None if at is None else items["row_ids"][at] for at in twin],
                twins_at=[None if at is None else items["places"][at] for at in twin],
                similarities=values.tolist(),
            )  # fmt: skip
            by = [None if at < 0 else items["places"][at] for at in best.tolist()]
            return pa.table([pa.array(share.astype(np.float32)), pa.array(by, pa.string()), verdict], schema=self.writes())

        return look


class _Meaning:
    """Items by vectors and words."""

    def __init__(self, folder: Path, cosine: float, agreement: float):
        with np.load(folder / "meaning.npz") as stored:
            self.items = stored["vectors"]
            self.words, self.numbers = Sets(stored["words"], stored["begins"]), Sets(stored["numbers"], stored["number_begins"])
        self.cosine, self.agreement = cosine, agreement

    def nearest(self, column: pa.ChunkedArray, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(cosine float64 (n,), item int64 (n,) or -1): the nearest item that the row says again."""
        from curate.algorithms.knn import search

        every, bad = unit_vectors(column)
        there = np.setdiff1d(np.arange(len(texts)), bad)
        unit = every[there]
        if len(there) and unit.shape[1] != self.items.shape[1]:
            raise UserMistake(
                f"contamination: the encoder's vectors are {self.items.shape[1]} wide, those of the rows {unit.shape[1]}: give `encoder` the settings of `embed`"
            )
        found, cosines = np.full(len(texts), -1, np.int64), np.full(len(texts), np.nan)
        if not len(there):
            return cosines, found
        own = joined([shingled(*block, "words", 1).sets for block in _blocks(texts)])
        distances, places = search(unit, self.items, min(NEAREST, len(self.items)))
        cosine = 1 - np.square(distances) / 2
        for at in range(places.shape[1] - 1, -1, -1):
            near = np.flatnonzero(cosine[:, at] >= self.cosine)
            rows, items = there[near], places[near, at]
            for row, item, value in zip(rows.tolist(), items.tolist(), cosine[near, at].tolist(), strict=True):
                mine = own.take(np.array([row])).values
                theirs, figures = (sets.take(np.array([item])).values for sets in (self.words, self.numbers))
                held = len(theirs) and np.isin(theirs, mine, assume_unique=True).mean() >= self.agreement
                if held and np.isin(figures, mine).all():
                    found[row], cosines[row] = item, value
        return cosines, found


def _blocks(texts: list[str], size: int = BLOCK) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Normal forms of the texts, as blocks of bytes."""
    return byte_blocks(pa.array([normalise(text) for text in texts], pa.large_string()), fold=False, block=size)


def _block(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """All of them as one: items of benchmarks are few and short."""
    return next(iter(_blocks(texts, 1 << 62)), (np.empty(0, np.uint8), np.zeros(1, np.int64)))
