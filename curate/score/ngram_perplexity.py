"""How well an n-gram model of the trusted texts foretells a row, and how much better than one of the pool does: perplexity without a neural model.

Perplexity as in CCNet (Wenzek et al. 2020, arXiv 1911.00359), the difference as in Moore and Lewis 2010 ("Intelligent selection of language model
training data"), with models that the fit trains itself and no compiler: `algorithms/ngram_lm.py`. A low perplexity is the trusted texts' language and kind; a
high one is another language, code, tables, or knowledge that is rare in them. The difference leaves out what is hard for any model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.algorithms import ngram_lm
from curate.algorithms.hash_table import HashTable
from curate.byte_blocks import byte_blocks
from curate.errors import UserMistake
from curate.score._trusted import Trusted, draw
from curate.stage import FitEngine, Inputs, Resources, Stage, TableFunction

HALVES = 2  # each model is trained on the texts of the other half: no text is foretold by a model that saw it


class NgramPerplexity(Stage):
    """Trains n-gram models on the trusted texts and on a sample of the pool, and asks them about every row. No row is asked of a model that saw it.

    ngram_loss        mean cost of a word in nats under the trusted texts' model, words outside its vocabulary spelled out; null for a text without words
    ngram_perplexity  exp(ngram_loss)
    ngram_gain        the same cost under the pool's model, less ngram_loss: above 0 the row is more like the trusted texts than like the pool
    ngram_unknown     share of the words that are outside the vocabulary of the trusted texts

    order       words of an n-gram
    least       how often a word must occur in the texts of a model to be in its vocabulary
    characters  no more than the first so many of a text are read
    most        texts that are trained on, of the trusted and of the pool: where there are more, a random choice
    """

    trusted: Trusted
    order: int = Field(3, ge=1, le=6)
    least: int = Field(2, ge=1)
    characters: int = Field(20_000, ge=100)
    most: int = Field(50_000, ge=2)
    seed: int = Field(0, ge=0)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine"})
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"trusted"})  # part of `identity`

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def reads_if_present(self) -> tuple[str, ...]:
        return tuple(name for name in self.trusted.columns() if name != "text")

    def writes(self) -> pa.Schema:
        return pa.schema([(name, pa.float32()) for name in ("ngram_loss", "ngram_perplexity", "ngram_gain", "ngram_unknown")])

    def identity(self) -> dict[str, Any]:
        return self.trusted.identity("ngram_perplexity")

    def resources(self) -> Resources:
        return Resources(memory=2 << 30)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Writes trusted-HALF.npz and pool-HALF.npz (the tables, see NgramLM) and info.json."""
        trusted = self._drawn(self.trusted.texts(inputs, "ngram_perplexity"), frozenset())
        if not trusted:
            raise self.trusted.none_found("ngram_perplexity")
        known = frozenset(trusted)
        pool = self._drawn(
            (
                text
                for table, mask in self.trusted.marked(inputs, "ngram_perplexity")
                for text in table.column("text").filter(pa.array(~mask)).to_pylist()
            ),
            known,
        )
        folder.mkdir(parents=True, exist_ok=True)
        info: dict[str, Any] = {"order": self.order}
        for name, texts in (("trusted", trusted), ("pool", pool)):
            halves = self._halves(texts)
            info[f"{name}_texts"] = len(texts)
            for half in range(HALVES):
                counter = ngram_lm.Counter()
                others = [text for text, its in zip(texts, halves, strict=True) if its != half]
                for block in byte_blocks(pa.array(others, pa.large_string())):
                    counter.add(*block)
                if not counter.words:
                    raise UserMistake(f"ngram_perplexity: half of the {name} texts hold no words: give more of them")
                model = counter.model(self.order, self.least)
                info[f"{name}_words"] = info.get(f"{name}_words", 0) + counter.words
                _save(model, folder / f"{name}-{half}.npz")
        (folder / "info.json").write_text(json.dumps(info, indent=2, sort_keys=True) + "\n")

    def load(self, folder: Path) -> TableFunction:
        found = {name: [_load(folder / f"{name}-{half}.npz", self.order) for half in range(HALVES)] for name in ("trusted", "pool")}

        def score(table: pa.Table) -> pa.Table:
            column = table.column("text")
            halves = self._halves([text[: self.characters] for text in column.to_pylist()])
            columns = {name: np.full(table.num_rows, np.nan) for name in self.writes().names}
            for half in range(HALVES):
                rows = np.flatnonzero(halves == half)
                nats, words, unknown = found["trusted"][half].losses_of(byte_blocks(column.take(pa.array(rows)), self.characters))
                others, _, _ = found["pool"][half].losses_of(byte_blocks(column.take(pa.array(rows)), self.characters))
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # NaN, of no words, becomes null
                    columns["ngram_loss"][rows] = nats / words
                    columns["ngram_perplexity"][rows] = np.exp(nats / words)
                    columns["ngram_gain"][rows] = (others - nats) / words
                    columns["ngram_unknown"][rows] = unknown / words
            return pa.table({name: pa.array(values.astype(np.float32), from_pandas=True) for name, values in columns.items()})

        return score

    def _halves(self, texts: list[str]) -> np.ndarray:
        """Which model is asked about each text: the one that was trained on the others."""
        return np.array([draw(self.seed, "held out", text) % HALVES for text in texts], np.int64)

    def _drawn(self, texts: Iterable[str], left_out: frozenset[str]) -> list[str]:
        """At most `most` different texts, cut to what is read, sorted: how the corpus is cut or ordered changes nothing."""
        drawn: dict[str, int] = {}
        for text in texts:
            read = text[: self.characters]
            if read not in left_out:
                drawn.setdefault(read, draw(self.seed, "n-gram", read))
            if len(drawn) > 2 * self.most:
                drawn = self._smallest(drawn)
        return sorted(self._smallest(drawn))

    def _smallest(self, drawn: dict[str, int]) -> dict[str, int]:
        return dict(sorted(drawn.items(), key=lambda item: (item[1], item[0]))[: self.most])


def _save(model: ngram_lm.NgramLM, path: Path) -> None:
    arrays: dict[str, Any] = {"known": model.known.keys, "spelling": model.spelling, "floor": np.array(model.floor)}
    for kind, tables in (("gram", model.grams), ("rest", model.rests)):
        for n, table in enumerate(tables):
            arrays |= {f"{kind}{n}_keys": table.keys, f"{kind}{n}_values": table.values}
    np.savez(path, **arrays)


def _load(path: Path, order: int) -> ngram_lm.NgramLM:
    with np.load(path) as found:
        known = HashTable.stored(found["known"], (found["known"] != 0).astype(np.float32))
        grams, rests = (
            [HashTable.stored(found[f"{kind}{n}_keys"], found[f"{kind}{n}_values"]) for n in range(count)]
            for kind, count in (("gram", order), ("rest", order - 1))
        )
        return ngram_lm.NgramLM(order, known, grams, rests, float(found["floor"]), found["spelling"])
