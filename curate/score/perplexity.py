"""How well a language model predicts a row: loss, perplexity, and instruction-following difficulty.

Perplexity as in Ankner et al. 2024 (arXiv 2405.20541); IFD is Li et al. 2024 (arXiv 2308.12032), with a small model
as in Superfiltering (arXiv 2402.00530): ppl(response | prompt) / ppl(response). From 1 on, the prompt does not help.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import models as weights
from curate.algorithms.batches import length_batches
from curate.models import Precision, Template
from curate.stage import Resources, Stage, TableFunction


class Perplexity(Stage):
    """Asks a language model how well it predicts each response (of a plain document: the whole text).

    Rows with a response: the response given what comes before it. Plain texts: the whole text.

    perplexity_loss  mean negative log-likelihood, nats per token
    perplexity       exp(perplexity_loss)
    ifd              exp(loss - loss of the same response tokens alone); null for plain texts
    scored_tokens    tokens that the means are over
    truncated        the row was longer than `max_tokens`
    The first three are null where nothing is to be scored (blank response); all are where the chat template
    refuses the conversation.
    """

    model: str
    template: Template = "chat"
    max_tokens: int = Field(1024, ge=16)
    batch_tokens: int = Field(2048, ge=1)
    chunk: int = Field(64, ge=1)
    dtype: Precision = "auto"

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate", "sample"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")

    def reads(self) -> tuple[str, ...]:
        return tuple(weights.ROW)

    def writes(self) -> pa.Schema:
        return pa.schema(
            [
                ("perplexity_loss", pa.float32()),
                ("perplexity", pa.float32()),
                ("ifd", pa.float32()),
                ("scored_tokens", pa.int32()),
                ("truncated", pa.bool_()),
            ]
        )

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def identity(self) -> dict[str, Any]:
        return weights.execution_identity(self.dtype)

    def resources(self) -> Resources:
        return Resources(gpus=weights.gpus_wanted(), memory=weights.memory(self.model, precision=self.dtype))

    def load(self, folder: Path) -> TableFunction:
        model, tokenizer = weights.load_causal_lm(self.model, self.dtype)
        weights.check_window(model, self.max_tokens, self.model)
        losses = MeanLoss(model, self.batch_tokens, self.chunk)

        def score(table: pa.Table) -> pa.Table:
            encoded = weights.encode_rows(tokenizer, table, self.template, self.max_tokens)
            plain = table.column("messages").is_null().to_numpy() & table.column("prompt").is_null().to_numpy()
            alone = [
                None if row is None or is_plain else weights.answer_alone(tokenizer, row)
                for row, is_plain in zip(encoded, plain, strict=True)
            ]
            loss, loss_alone = np.split(losses([*encoded, *alone]), 2)
            with np.errstate(over="ignore"):  # a loss above 88 nats is an infinite perplexity in float32
                perplexity, ifd = np.exp(loss), np.exp(loss - loss_alone)
            return pa.table(
                {
                    "perplexity_loss": nullable(loss),
                    "perplexity": nullable(perplexity),
                    "ifd": nullable(ifd),
                    "scored_tokens": pa.array([None if row is None else int(row.scored.sum()) for row in encoded], pa.int32()),
                    "truncated": pa.array([None if row is None else row.truncated for row in encoded], pa.bool_()),
                }
            )

        return score


def nullable(values: np.ndarray) -> pa.Array:
    """float32; NaN, the mean of no tokens, becomes null."""
    return pa.array(values.astype(np.float32), pa.float32(), from_pandas=True)


class MeanLoss:
    """Mean negative log-likelihood of each row's scored tokens (nats, float64); NaN for a row without any."""

    def __init__(self, model: Any, batch_tokens: int, chunk: int):
        self.model, self.batch_tokens, self.chunk = model, batch_tokens, chunk
        self.head = weights.output_head(model)

    def __call__(self, encoded: list[weights.Encoded | None]) -> np.ndarray:
        import torch

        means = np.full(len(encoded), np.nan)
        rows = [(i, row) for i, row in enumerate(encoded) if row is not None and row.scored.any()]
        for picked in length_batches([len(row.ids) for _, row in rows], self.batch_tokens):
            batch = weights.collate([rows[i][1] for i in picked])
            with torch.inference_mode():
                states = weights.hidden_states(self.model, batch.inputs)[batch.rows, batch.columns]
                losses = [
                    torch.nn.functional.cross_entropy(self.head(part).float(), target, reduction="none")
                    for part, target in zip(states.split(self.chunk), batch.targets.split(self.chunk), strict=True)
                ]
            totals = np.bincount(batch.rows.cpu(), torch.cat(losses).double().cpu(), minlength=len(picked))
            means[[rows[i][0] for i in picked]] = totals / np.bincount(batch.rows.cpu(), minlength=len(picked))
        return means
