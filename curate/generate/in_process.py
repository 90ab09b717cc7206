"""Answers from a causal language model in this process: left-padded batches, greedy or sampled.

The batch plan follows from the requests of one shard, sorted by length, under a budget of tokens. Stored responses are
not asked for again, but they do not change the plan: the rows that are missing keep their company.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from curate.generate import _decoding
from curate.generate.cache import Response, ResponseCache, response_key


@dataclass(frozen=True)
class Request:
    """One answer that is wanted. `turns`: role and content of each message so far. `seed` is the row's own."""

    row_id: str
    turns: tuple[dict[str, str], ...]
    prompt_digest: str
    seed: int


class ModelBackend(BaseModel):
    """`batch_tokens`: prompt and answer tokens of a batch together, padding included."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["model"] = "model"
    model: str
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    max_new_tokens: int = Field(512, ge=1)
    batch_tokens: int = Field(16_384, ge=1)

    def identity(self) -> dict[str, Any]:
        """What the answers depend on, apart from the model's content."""
        from curate import hardware

        return {**hardware.execution_identity(self.dtype), **self.model_dump(exclude={"model"})}


class InProcess:
    """The model, loaded once. `label` names it in `generator`; `special_tokens` must not occur in what is shown."""

    def __init__(self, settings: ModelBackend, cache: ResponseCache, temperature: float):
        from curate import models

        self.settings, self.cache, self.temperature = settings, cache, temperature
        self.model, self.tokenizer = models.load_causal_lm(settings.model, settings.dtype)
        _decoding.use(self.model)
        self.identity = models.identity(settings.model)
        self.label = self.identity[:16]
        self.tokens, self.special_tokens = token_counter(self.tokenizer)

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        """One response per request, in order. A prompt that leaves no room for an answer is refused."""
        room = getattr(self.model.config, "max_position_embeddings", None) or 1 << 30
        keys, prompts = [self._key(request) for request in requests], [self._encode(request) for request in requests]
        found: dict[str, Response] = {}
        wanted: dict[str, int] = {}
        for row, key in enumerate(keys):
            if len(prompts[row]) + self.settings.max_new_tokens > room:
                found[key] = Response("", "refused_prompt_too_long")
            else:
                wanted.setdefault(key, row)
        order = sorted(wanted.values(), key=lambda row: (len(prompts[row]), keys[row]))
        for batch in batches([len(prompts[row]) + self.settings.max_new_tokens for row in order], self.settings.batch_tokens):
            rows = [order[place] for place in batch]
            stored = {keys[row]: self.cache.get(keys[row]) for row in rows}
            found.update({key: response for key, response in stored.items() if response is not None})
            missing = [row for row in rows if keys[row] not in found]
            if missing:
                made = self._generate([prompts[row] for row in missing], [requests[row].seed for row in missing])
                fresh = {keys[row]: response for row, response in zip(missing, made, strict=True)}
                self.cache.put(fresh)
                # what another worker stored first is what counts
                found.update({key: self.cache.get(key) or response for key, response in fresh.items()})
        return [found[key] for key in keys]

    def _key(self, request: Request) -> str:
        sampling: dict[str, Any] = {"temperature": self.temperature, "max_new_tokens": self.settings.max_new_tokens, "seed": request.seed}
        return response_key(self.identity, request.prompt_digest, sampling, list(request.turns))

    def _encode(self, request: Request) -> list[int]:
        """Through the model's own chat template, rendered in the sandbox of transformers."""
        text = self.tokenizer.apply_chat_template(list(request.turns), add_generation_prompt=True, tokenize=False)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _generate(self, prompts: list[list[int]], seeds: list[int]) -> list[Response]:
        import torch
        from transformers import GenerationConfig

        stops = self.model.generation_config.eos_token_id
        ends = {*(stops if isinstance(stops, list) else [stops]), self.tokenizer.eos_token_id} - {None}
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else min(ends)
        width = max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=self.model.device)
        sampled = {"do_sample": True, "temperature": self.temperature, "top_k": 0} if self.temperature > 0 else {"do_sample": False}
        # the model's own generation settings (penalties, sampling) are set aside: the recipe says what is done
        config = GenerationConfig(
            max_new_tokens=self.settings.max_new_tokens, eos_token_id=sorted(ends), pad_token_id=pad, use_cache=True, **sampled
        )
        batch_seed = int.from_bytes(hashlib.sha256(repr(seeds).encode()).digest()[:8]) >> 1
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(batch_seed)
            out = self.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, width:].tolist()
        return [self._response(row, ends) for row in out]

    def _response(self, ids: list[int], ends: set[int]) -> Response:
        stop = next((place for place, token in enumerate(ids) if token in ends), None)
        text = self.tokenizer.decode(ids[:stop], skip_special_tokens=True).strip()
        return Response(text, "length" if stop is None else "stop")


def token_counter(tokenizer: Any) -> tuple[Callable[[str], int], tuple[str, ...]]:
    """What counts the tokens of a text, and the tokens that no text may hold."""
    special = {*tokenizer.all_special_tokens, *(token.content for token in tokenizer.added_tokens_decoder.values())}
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]), tuple(sorted(special))


def batches(sizes: Sequence[int], budget: int) -> list[range]:
    """Consecutive places whose padded size (rows x largest) stays within the budget; one row may exceed it alone."""
    found: list[range] = []
    start = largest = 0
    for place, size in enumerate(sizes):
        if place > start and (place - start + 1) * max(largest, size) > budget:
            found.append(range(start, place))
            start, largest = place, 0
        largest = max(largest, size)
    return [*found, range(start, len(sizes))] if len(sizes) else []
