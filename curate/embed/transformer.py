"""Vectors from a sentence encoder: the mean of its last hidden states (Reimers and Gurevych 2019, Sentence-BERT)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from curate import hardware
from curate import models as weights
from curate.algorithms.batches import length_batches
from curate.embed import bert_half
from curate.embed.hashed import vector_column, viewed
from curate.errors import UserMistake
from curate.hardware import Precision
from curate.stage import Resources, Stage, TableFunction

# Characters given to the tokenizer per token of the window: a word of 5 million letters is not read to its end.
_CHARACTERS = 100


class Transformer(Stage):
    """Turns each prompt or text into a vector with a sentence encoder.

    Column `vector`, or the columns named in `prompts`: unit vectors, fixed_size_list<float32>[width of the model].

    model         an encoder in sentence-transformers form, with mean pooling
    view          "prompt": the prompt, and the text of a row that has no prompt (plain documents); "text": the text
    prompts       output column -> what is put before the input, for encoders that were trained with prompts: one vector for
                  clustering, another for duplicates, as in {vector: clustering, vector_same: "search_query: "}. A single
                  word is a name from the model's config_sentence_transformers.json, anything with a space or a colon the
                  text itself, null nothing. Every prompt costs a pass. Default: one column `vector` without a prompt
    max_tokens    longer inputs (prompt included) lose their end; null: the encoder's own limit
    batch_tokens  tokens computed at once, padding included; batches never cross a shard
    dtype         auto: the fastest on this processor (hardware.dtype, bert_half.kernel). The cosine to float32 vectors was
                  at least .9999 for bfloat16 and float16 on 300 instructions. Averages are always in float32.
    """

    model: str
    view: Literal["prompt", "text"] = "prompt"
    prompts: dict[str, str | None] | None = None
    max_tokens: int | None = Field(None, ge=8)
    batch_tokens: int = Field(2048, ge=1)
    dtype: Precision = "auto"

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")

    @field_validator("prompts")
    @classmethod
    def _columns(cls, prompts: dict[str, str | None] | None) -> dict[str, str | None] | None:
        if prompts == {}:
            raise ValueError("prompts names no column: write for instance {vector: null}, or leave it out")
        return prompts

    def columns(self) -> dict[str, str]:
        """Output column -> text put before the input."""
        facts = weights.encoder_facts(self.model)
        return {column: facts.prompt(given) for column, given in (self.prompts or {"vector": None}).items()}

    def reads(self) -> tuple[str, ...]:
        return ("prompt", "text") if self.view == "prompt" else ("text",)

    def writes(self) -> pa.Schema:
        vectors = pa.list_(pa.float32(), weights.encoder_facts(self.model).dimensions)
        return pa.schema([(column, vectors) for column in self.columns()])

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def identity(self) -> dict[str, Any]:
        if kernel := self._kernel():
            return {"device": "cpu", "dtype": "float16", "kernels": kernel}
        return hardware.execution_identity(self.dtype)

    def resources(self) -> Resources:
        return Resources(gpus=hardware.gpus_wanted(), memory=1500 << 20)

    def _kernel(self) -> str:
        """What runs the encoder in float16 where torch has no faster type than float32; "" where torch runs it."""
        wanted = self.dtype == "float16" or (self.dtype == "auto" and hardware.dtype() == "float32")
        return bert_half.kernel(self.model) if wanted else ""

    def load(self, folder: Path) -> TableFunction:
        facts, kernel = weights.encoder_facts(self.model), self._kernel()
        model, tokenizer = weights.load_encoder(self.model, "float32" if kernel else self.dtype)
        limit = self.max_tokens or facts.max_tokens
        if limit > facts.max_tokens:
            raise UserMistake(f"max_tokens is {limit}, but the encoder was made for {facts.max_tokens}: set at most {facts.max_tokens}")
        encoder = bert_half.BertHalf(model) if kernel else Padded(model, self.batch_tokens)

        columns = self.columns()
        skips = {prompt: _tokens_of(prompt, tokenizer, limit) for prompt in columns.values()}

        def unit_means(texts: list[str], prompt: str) -> np.ndarray:
            cut = [(prompt + text)[: limit * _CHARACTERS] for text in texts]
            ids = tokenizer(cut, truncation=True, max_length=limit, split_special_tokens=True)["input_ids"]
            means = encoder.means(ids, 0 if facts.include_prompt else skips[prompt])
            return means / np.linalg.norm(means, axis=1, keepdims=True)

        def encode(table: pa.Table) -> pa.Table:
            texts = viewed(table, self.view)
            found = {prompt: vector_column(unit_means(texts, prompt)) for prompt in skips}
            return pa.table({column: found[prompt] for column, prompt in columns.items()})

        return encode


def _tokens_of(prompt: str, tokenizer: Any, limit: int) -> int:
    """Tokens at the beginning of a row that are the prompt's (and the mark of the beginning, as in sentence-transformers)."""
    if not prompt:
        return 0
    ids = tokenizer(prompt, split_special_tokens=True, verbose=False)["input_ids"]
    if len(ids) >= limit:
        raise UserMistake(f"the prompt {prompt!r} fills the window of {limit} tokens: raise max_tokens or shorten the prompt")
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


class Padded:
    """Any encoder, run by torch in batches of like length, padded to the longest."""

    def __init__(self, model: Any, batch_tokens: int):
        self.model, self.batch_tokens = model, batch_tokens

    def means(self, ids: list[list[int]], skip: int = 0) -> np.ndarray:
        """(rows, width) float32: the mean of each row's last hidden states, its first `skip` tokens left out."""
        found = np.empty((len(ids), self.model.config.hidden_size), np.float32)
        for batch in length_batches([len(row) for row in ids], self.batch_tokens):
            found[batch] = self._means([ids[i] for i in batch], skip)
        return found

    def _means(self, ids: list[list[int]], skip: int) -> np.ndarray:
        import torch

        lengths = np.array([len(row) for row in ids])
        inputs = np.zeros((len(ids), lengths.max()), np.int64)
        mask = np.arange(lengths.max()) < lengths[:, None]
        inputs[mask] = np.concatenate(ids)
        with torch.inference_mode():
            there = torch.from_numpy(mask).to(self.model.device)
            padding = {} if mask.all() else {"attention_mask": there.long()}
            states = self.model(input_ids=torch.from_numpy(inputs).to(self.model.device), **padding).last_hidden_state.float()
            there[:, :skip] = False
            return ((states * there[:, :, None]).sum(1) / there.sum(1, keepdim=True)).cpu().numpy()
