"""How well a language model predicts a row: loss, perplexity, and instruction-following difficulty.

Perplexity as in Ankner et al. 2024 (arXiv 2405.20541); IFD is Li et al. 2024 (arXiv 2308.12032), with a small model
as in Superfiltering (arXiv 2402.00530): ppl(response | prompt) / ppl(response). From 1 on, the prompt does not help.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import encoding, hardware
from curate import models as weights
from curate.algorithms.batches import length_batches, padded_chunks
from curate.encoding import Template
from curate.hardware import Precision
from curate.stage import Resources, Stage, TableFunction


class Perplexity(Stage):
    """Asks a language model how well it predicts each response (of a plain document: the whole text).

    Rows with a response: the response given what comes before it. Plain texts: the whole text.

    perplexity_loss  mean negative log-likelihood, nats per token
    perplexity       exp(perplexity_loss)
    ifd              exp(loss - loss of the same response tokens alone); null for plain texts
    scored_tokens    tokens that the means are over
    truncated        part of the row was left unscored: it was longer than `max_tokens`, a plain text than its windows
    The first three are null where nothing is to be scored (blank response); all are where the chat template
    refuses the conversation.

    windows  a plain text longer than `max_tokens` is read in so many pieces of that length, the first at its beginning, the last at its
             end, the others evenly between, none over another; in fewer where they hold all of it, then end to end. The means are over the
             tokens of all. Each is read as a text of its own, so its first words are as hard as those of any text. Instruction rows have one.
    """

    model: str
    template: Template = "chat"
    max_tokens: int = Field(1024, ge=16)
    windows: int = Field(1, ge=1)
    batch_tokens: int = Field(2048, ge=1)
    chunk: int = Field(256, ge=1)
    dtype: Precision = "auto"

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate", "sample"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")

    def reads(self) -> tuple[str, ...]:
        return tuple(encoding.ROW)

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
        return hardware.execution_identity(self.dtype, compiles=True)

    def resources(self) -> Resources:
        return Resources(gpus=hardware.gpus_wanted(), memory=weights.memory(self.model, precision=self.dtype))

    def load(self, folder: Path) -> TableFunction:
        model, tokenizer = weights.load_causal_lm(self.model, self.dtype)
        weights.check_window(model, self.max_tokens, self.model)
        losses = MeanLoss(model, self.batch_tokens, self.chunk, hardware.compiled())

        def score(table: pa.Table) -> pa.Table:
            encoded = encoding.encode_rows(tokenizer, table, self.template, self.max_tokens)
            plain = table.column("messages").is_null().to_numpy() & table.column("prompt").is_null().to_numpy()
            alone = [
                None if row is None or is_plain else encoding.answer_alone(tokenizer, row)
                for row, is_plain in zip(encoded, plain, strict=True)
            ]
            long = [
                [row, *self._further(tokenizer, text)] if row is not None and is_plain and row.truncated and self.windows > 1 else []
                for text, row, is_plain in zip(table.column("text").to_pylist(), encoded, plain, strict=True)
            ]
            means = losses([*encoded, *alone, *(window for windows in long for window in windows[1:])])
            loss, loss_alone, rest = np.split(means, [len(encoded), 2 * len(encoded)])
            tokens = [None if row is None else int(row.scored.sum()) for row in encoded]
            truncated = [None if row is None else row.truncated for row in encoded]
            for i, windows in enumerate(long):
                if windows:
                    sizes = [int(window.scored.sum()) for window in windows]
                    further, rest = np.split(rest, [len(windows) - 1])
                    loss[i] = np.average([loss[i], *further], weights=sizes)
                    tokens[i], truncated[i] = sum(sizes), windows[-1].truncated
            with np.errstate(over="ignore"):  # a loss above 88 nats is an infinite perplexity in float32
                perplexity, ifd = np.exp(loss), np.exp(loss - loss_alone)
            return pa.table(
                {
                    "perplexity_loss": nullable(loss),
                    "perplexity": nullable(perplexity),
                    "ifd": nullable(ifd),
                    "scored_tokens": pa.array(tokens, pa.int32()),
                    "truncated": pa.array(truncated, pa.bool_()),
                }
            )

        return score

    def _further(self, tokenizer: Any, text: str) -> list[encoding.Encoded]:
        """The windows of a long text after the first one; `truncated` says that something lies between them."""
        whole = encoding.encode_text(tokenizer, text, sys.maxsize).ids
        start, ids = whole[:1], whole[1:]
        width = self.max_tokens - 1  # a window begins with the token that stands before a text
        count = min(self.windows, -(-len(ids) // width))
        left_out = count * width < len(ids)
        begins = [number * (len(ids) - width) // (count - 1) if left_out else number * width for number in range(1, count)]
        parts = [np.concatenate([start, ids[begin : begin + width]]) for begin in begins]
        return [encoding.Encoded(part, np.arange(len(part)) > 0, left_out) for part in parts]


def nullable(values: np.ndarray) -> pa.Array:
    """float32; NaN, the mean of no tokens, becomes null."""
    return pa.array(values.astype(np.float32), pa.float32(), from_pandas=True)


class MeanLoss:
    """Mean negative log-likelihood of each row's scored tokens (nats, float64); NaN for a row without any.

    chunk  tokens whose logits are held at a time, always as many (the last are filled up). Compiled, a chunk costs half as much.
    """

    def __init__(self, model: Any, batch_tokens: int, chunk: int, compiled: bool = False):
        import torch

        self.model, self.batch_tokens, self.chunk = model, batch_tokens, chunk
        self.head = weights.output_head(model)
        self.kernel = torch.compile(token_losses, dynamic=False) if compiled else token_losses

    def __call__(self, encoded: list[encoding.Encoded | None]) -> np.ndarray:
        import torch

        means = np.full(len(encoded), np.nan)
        rows = [(i, row) for i, row in enumerate(encoded) if row is not None and row.scored.any()]
        for picked in length_batches([len(row.ids) for _, row in rows], self.batch_tokens):
            batch = weights.collate([rows[i][1] for i in picked])
            with torch.inference_mode():
                states = weights.hidden_states(self.model, batch.inputs)[batch.rows, batch.columns]
                losses = [
                    self.kernel(self.head(part), target)[:count] for count, part, target in padded_chunks(self.chunk, states, batch.targets)
                ]
            totals = np.bincount(batch.rows.cpu(), torch.cat(losses).double().cpu(), minlength=len(picked))
            means[[rows[i][0] for i in picked]] = totals / np.bincount(batch.rows.cpu(), minlength=len(picked))
        return means


def token_losses(logits: Any, targets: Any) -> Any:
    """Negative log-likelihood of each target, nats, float32 (tokens,). logits (tokens, vocabulary), targets int64 (tokens,)."""
    import torch

    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
