"""How well an n-gram model of the trusted texts foretells a row: perplexity without a neural model.

As in CCNet (Wenzek et al. 2020, arXiv 1911.00359), with a model that the fit trains itself and no compiler: `algorithms/ngram_lm.py`. A low
perplexity is the trusted texts' language and kind; a high one is another language, code, tables, or knowledge that is rare in them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.algorithms import ngram_lm
from curate.algorithms.hash_table import HashTable
from curate.errors import UserMistake
from curate.score._bytes import byte_blocks
from curate.score._trusted import Trusted, draw
from curate.stage import FitEngine, Inputs, Resources, Stage, TableFunction


class NgramPerplexity(Stage):
    """Trains an n-gram model on the trusted texts and asks it about every row.

    ngram_loss        mean cost of a word in nats, words outside the vocabulary spelled out; null for a text without words
    ngram_perplexity  exp(ngram_loss)
    ngram_unknown     share of the words that are outside the vocabulary

    Trusted rows are foretold by a model that was trained on them, and so score lower than they would as strangers.

    order       words of an n-gram
    least       how often a word must occur in the trusted texts to be in the vocabulary
    characters  no more than the first so many of a text are read
    most        trusted texts that are trained on: where there are more, a random choice
    """

    trusted: Trusted
    order: int = Field(3, ge=1, le=6)
    least: int = Field(2, ge=1)
    characters: int = Field(20_000, ge=100)
    most: int = Field(100_000, ge=1)
    seed: int = Field(0, ge=0)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine"})
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"trusted"})  # part of `identity`

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def reads_if_present(self) -> tuple[str, ...]:
        return tuple(name for name in self.trusted.columns() if name != "text")

    def writes(self) -> pa.Schema:
        return pa.schema([("ngram_loss", pa.float32()), ("ngram_perplexity", pa.float32()), ("ngram_unknown", pa.float32())])

    def identity(self) -> dict[str, Any]:
        return self.trusted.identity("ngram_perplexity")

    def resources(self) -> Resources:
        return Resources(memory=1 << 30)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Writes model.npz (the tables, see NgramLM) and info.json."""
        drawn: dict[str, int] = {}
        for text in self.trusted.texts(inputs, "ngram_perplexity"):
            drawn.setdefault(text[: self.characters], draw(self.seed, "n-gram", text))
            if len(drawn) > 2 * self.most:
                drawn = self._smallest(drawn)
        if not drawn:
            raise self.trusted.none_found("ngram_perplexity")
        # Sorted: the model does not depend on how the corpus is cut or ordered.
        texts = sorted(self._smallest(drawn))
        counter = ngram_lm.Counter()
        for block in byte_blocks(pa.array(texts, pa.large_string())):
            counter.add(*block)
        if not counter.words:
            raise UserMistake("ngram_perplexity: the trusted texts hold no words: check trusted")
        model = counter.model(self.order, self.least)
        arrays: dict[str, Any] = {"known": model.known.keys, "spelling": model.spelling, "floor": np.array(model.floor)}
        for kind, tables in (("gram", model.grams), ("rest", model.rests)):
            for n, table in enumerate(tables):
                arrays |= {f"{kind}{n}_keys": table.keys, f"{kind}{n}_values": table.values}
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "model.npz", **arrays)
        info = {"texts": len(texts), "words": counter.words, "vocabulary": int((model.known.keys != 0).sum()), "order": self.order}
        (folder / "info.json").write_text(json.dumps(info, indent=2, sort_keys=True) + "\n")

    def load(self, folder: Path) -> TableFunction:
        with np.load(folder / "model.npz") as found:
            known = HashTable.stored(found["known"], (found["known"] != 0).astype(np.float32))
            grams, rests = (
                [HashTable.stored(found[f"{kind}{n}_keys"], found[f"{kind}{n}_values"]) for n in range(count)]
                for kind, count in (("gram", self.order), ("rest", self.order - 1))
            )
            model = ngram_lm.NgramLM(self.order, known, grams, rests, float(found["floor"]), found["spelling"])

        def score(table: pa.Table) -> pa.Table:
            parts = [model.losses(*block) for block in byte_blocks(table.column("text"), self.characters)]
            nats, words, unknown = (np.concatenate(part) for part in zip(*parts, strict=True))
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                loss, share = nats / words, unknown / words  # NaN, of no words, becomes null
                columns = {"ngram_loss": loss, "ngram_perplexity": np.exp(loss), "ngram_unknown": share}
            return pa.table({name: pa.array(values.astype(np.float32), from_pandas=True) for name, values in columns.items()})

        return score

    def _smallest(self, drawn: dict[str, int]) -> dict[str, int]:
        return dict(sorted(drawn.items(), key=lambda item: (item[1], item[0]))[: self.most])
