"""How well a small language model that knows nothing but the trusted texts foretells a row.

A model with random weights is trained on the trusted texts alone, and its perplexity is the score. A pretrained model has read the unknown too, and is not
surprised by it (Wu et al. 2023, "Multi-Level Knowledge Distillation for Out-of-Distribution Detection in Text", arXiv 2211.11300: AUROC on SST 92.7 for a model
tuned from pretrained weights, 96.6 for one from random ones, 98.0 where such a one also learns from the tuned one). Here is the second of these, with pieces of its own.
Low perplexity says typical; high says junk or rare knowledge: nothing is dropped for it alone.

Measured (benchmarks/results/typicality.md): AUROC .873 on CLINC150, where n-gram perplexity has .895 and distance of vectors .961; averaged with `typicality` it takes .02 from
that. So no recipe of ours has it. It is a second view of text where vectors say little.

The trusted texts are cut in two by a hash, and each half trains a model. A row is asked of the models that did not see its text: a trusted row of one, others of both, mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate import encoding, hardware, models, training
from curate.errors import UserMistake
from curate.score._trusted import Trusted, draw
from curate.score.perplexity import MeanLoss, nullable
from curate.stage import FitEngine, Inputs, Resources, Stage, TableFunction

HALVES = 2
LEAST = 20  # trusted texts of each half


class Student(Stage):
    """Trains two small Llamas on the trusted texts, and asks them about every row. No row is asked of a model that saw it.

    student_loss        mean negative log-likelihood, nats per piece; null for a text without any
    student_perplexity  exp(student_loss)

    most           trusted texts that are trained on; of more, those with the smallest draws
    vocabulary     pieces of the byte-level BPE that is made of these texts; it spells any text
    width, layers, heads   of the models
    max_tokens     no more than the first so many pieces of a text are read
    epochs, batch_rows, learning_rate   how the models are trained
    """

    trusted: Trusted
    most: int = Field(20_000, ge=2 * LEAST)
    vocabulary: int = Field(4096, ge=300, le=1 << 16)
    width: int = Field(128, ge=16)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    max_tokens: int = Field(128, ge=8)
    epochs: int = Field(5, ge=1)
    batch_rows: int = Field(32, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    seed: int = Field(0, ge=0)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"trusted"})  # part of `identity`

    @model_validator(mode="after")
    def _sound(self) -> Student:
        if self.width % (2 * self.heads):
            raise ValueError(f"width is {self.width}: give a multiple of {2 * self.heads}, twice the number of heads")
        return self

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def reads_if_present(self) -> tuple[str, ...]:
        return tuple(name for name in self.trusted.columns() if name != "text")

    def writes(self) -> pa.Schema:
        return pa.schema([("student_loss", pa.float32()), ("student_perplexity", pa.float32())])

    def identity(self) -> dict[str, Any]:
        # Asked in float32; trained in the type that is fastest here (training.py), which the weights depend on.
        return {**self.trusted.identity("student"), **hardware.execution_identity("float32", compiles=True), "trained_in": hardware.dtype()}

    def resources(self) -> Resources:
        return Resources(gpus=hardware.gpus_wanted(), memory=1 << 30)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Writes the models of the two halves as checkpoints, half-0 and half-1, seen.npz (draws of the texts of each, uint64) and info.json."""
        found = {self._key(text): text for text in self.trusted.texts(inputs, "student") if text.strip()}
        if not found:
            raise self.trusted.none_found("student")
        keys = np.array(sorted(found)[: self.most], np.uint64)
        side = (keys % HALVES).astype(int)
        if min(np.bincount(side, minlength=HALVES)) < LEAST:
            raise UserMistake(f"student: {len(keys)} trusted texts are too few to train a language model on: give {4 * LEAST} or more")
        texts = [found[int(key)] for key in keys]
        pieces = training.train_pieces(texts, self.vocabulary)
        folder.mkdir(parents=True, exist_ok=True)
        info: dict[str, Any] = {"trusted_texts": len(found), "trained_on": len(keys), "training_loss": []}
        for half in range(HALVES):
            tokenizer = models.own_tokenizer(pieces, training.END)
            model = models.fresh_causal_lm(len(tokenizer), self.width, self.layers, self.heads, self.max_tokens, self.seed + half)
            rows = [self._encoded(tokenizer, text) for text, its in zip(texts, side, strict=True) if its == half]
            losses = training.tune(model, [row for row in rows if row.scored.any()], self._tuning(), self.seed + half)
            info["training_loss"].append(round(float(losses[-len(losses) // self.epochs :].mean()), 4))
            models.save(model, tokenizer, folder / f"half-{half}")
        np.savez(folder / "seen.npz", **{f"half_{half}": keys[side == half] for half in range(HALVES)})
        (folder / "info.json").write_text(json.dumps(info, indent=1, sort_keys=True) + "\n")

    def load(self, folder: Path) -> TableFunction:
        loaded = [models.load_causal_lm(str(folder / f"half-{half}"), "float32") for half in range(HALVES)]
        tokenizer, asked = loaded[0][1], [MeanLoss(model, 4096, 512, hardware.compiled()) for model, _ in loaded]
        with np.load(folder / "seen.npz", allow_pickle=False) as artifact:
            seen = [artifact[f"half_{half}"] for half in range(HALVES)]

        def score(table: pa.Table) -> pa.Table:
            texts = table.column("text").to_pylist()
            keys = np.array([self._key(text) for text in texts], np.uint64)
            rows = [self._encoded(tokenizer, text) for text in texts]
            sums, count = np.zeros(len(rows)), np.zeros(len(rows))
            for losses, known in zip(asked, seen, strict=True):
                mine = np.flatnonzero(~np.isin(keys, known))
                sums[mine] += losses([rows[i] for i in mine])
                count[mine] += 1
            with np.errstate(over="ignore"):
                return pa.table([nullable(sums / count), nullable(np.exp(sums / count))], schema=self.writes())

        return score

    def _encoded(self, tokenizer: Any, text: str) -> encoding.Encoded:
        return encoding.encode_text(tokenizer, text[: 100 * self.max_tokens], self.max_tokens)  # nobody reads the rest

    def _key(self, text: str) -> int:
        return draw(self.seed, "student", text)

    def _tuning(self) -> training.Tuning:
        return training.Tuning(
            learning_rate=self.learning_rate, batch_rows=self.batch_rows, epochs=self.epochs, max_tokens=max(16, self.max_tokens)
        )
