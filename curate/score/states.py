"""Final hidden states of the original model, stored so that pruned copies of it can be measured without it.

Logits follow from them exactly, by the output head alone, and are tens to hundreds of times larger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import encoding, hardware
from curate import models as weights
from curate.algorithms.batches import length_batches
from curate.encoding import Encoded, Template
from curate.errors import UserMistake
from curate.hardware import Precision
from curate.score import llama_half
from curate.stage import Resources, Stage, TableFunction


class States(Stage):
    """Stores what the original model's output head is applied to, for `pair: apart` of the degradation scores.

    original_states  raw bytes, C order (tokens, hidden), in the type that the model runs in (little-endian); null where
                     nothing is scored (see degradation)

    positions  response: the tokens whose prediction is scored; all: every token but the row's first
    The other settings must be those of the degradation step that reads the column.
    """

    model: str
    positions: Literal["response", "all"] = "response"
    template: Template = "chat"
    max_tokens: int = Field(1024, ge=16)
    batch_tokens: int = Field(2048, ge=1)
    dtype: Precision = "auto"

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate", "sample"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")

    def reads(self) -> tuple[str, ...]:
        return tuple(encoding.ROW)

    def writes(self) -> pa.Schema:
        return pa.schema([("original_states", pa.large_binary())])

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def identity(self) -> dict[str, Any]:
        return half_identity(self.dtype, self.model) or hardware.execution_identity(self.dtype)

    def resources(self) -> Resources:
        return Resources(gpus=hardware.gpus_wanted(), memory=weights.memory(self.model, self.model, precision=as_loaded(self.dtype)))

    def load(self, folder: Path) -> TableFunction:
        half = bool(half_identity(self.dtype, self.model))
        model, tokenizer = weights.load_causal_lm(self.model, "float32" if half else self.dtype)
        weights.check_window(model, self.max_tokens, self.model)
        weights.output_head(model)  # refuses a model whose logits are more than the head's
        run, budget = scored_states(model, half, self.max_tokens), llama_half.TOKENS if half else self.batch_tokens
        del model

        def store(table: pa.Table) -> pa.Table:
            encoded = encoding.encode_rows(tokenizer, table, self.template, self.max_tokens)
            found: list[bytes | None] = [None] * len(encoded)
            rows = [
                (i, every_token(row) if self.positions == "all" else row)
                for i, row in enumerate(encoded)
                if row is not None and row.scored.any()
            ]
            for picked in length_batches([len(row.ids) for _, row in rows], budget):
                states = as_bytes(run([rows[i][1] for i in picked]))
                ends = np.cumsum([rows[i][1].scored.sum() for i in picked])
                for i, part in zip(picked, np.split(states, ends[:-1]), strict=True):
                    found[rows[i][0]] = part.tobytes()
            return pa.table({"original_states": pa.array(found, pa.large_binary())})

        return store


def half_identity(dtype: Precision, *references: str) -> dict[str, str]:
    """For a fingerprint: that llama_half runs these models, where torch has no faster type than float32; {} where torch runs them."""
    wanted = dtype == "float16" or (dtype == "auto" and hardware.dtype() == "float32")
    kernel = llama_half.kernel(*references) if wanted else ""
    return {"device": "cpu", "dtype": "float16", "kernels": kernel} if kernel else {}


def as_loaded(dtype: Precision) -> Precision:
    """The type that weights have when they are read, before llama_half packs them."""
    return "float32" if dtype == "float16" and hardware.device() == "cpu" else dtype


def stored_type(dtype: Precision, model: str) -> Any:
    """The torch type of `original_states`."""
    import torch

    return torch.float16 if half_identity(dtype, model) else getattr(torch, hardware.resolved(dtype))


def scored_states(model: Any, half: bool, max_tokens: int) -> Callable[[Sequence[Encoded]], Any]:
    """A function from rows to final hidden states (scored tokens of all rows, hidden): float16 array if `half`, else tensor."""
    if half:
        return llama_half.LlamaHalf(model, max_tokens).hidden
    import torch

    def run(rows: Sequence[Encoded]) -> Any:
        batch = weights.collate(rows)
        with torch.inference_mode():
            return weights.hidden_states(model, batch.inputs)[batch.rows, batch.columns]

    return run


def every_token(row: Encoded) -> Encoded:
    """The same row, every token but the first scored."""
    return row._replace(scored=np.arange(len(row.ids)) > 0)


def as_bytes(states: Any) -> np.ndarray:
    """uint8 (tokens, bytes of one state)."""
    import torch

    tensor = torch.as_tensor(states).cpu().contiguous()
    return tensor.view(torch.uint8).numpy()


def as_states(stored: Sequence[bytes | None], rows: Sequence[Encoded], width: int, kind: Any) -> Any:
    """Tensor (scored tokens of all rows, width) of torch type `kind`, on `hardware.device()`, from `original_states` at either positions."""
    import torch

    parts = []
    for data, row in zip(stored, rows, strict=True):
        tensor = torch.frombuffer(bytearray(data or b""), dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)
        whole, size = int(row.scored.sum()), width * kind.itemsize
        if len(tensor) == size * whole:
            parts.append(tensor.view(kind).reshape(whole, width))
        elif len(tensor) == size * (len(row.ids) - 1):
            parts.append(tensor.view(kind).reshape(-1, width)[np.flatnonzero(row.scored) - 1])
        else:
            raise UserMistake(
                "original_states do not fit their row: give states and degradation the same model, template, max_tokens and dtype"
            )
    return torch.cat(parts).to(hardware.device())
