"""New rows from a language model: a better text for a document, or the model's own answer to a prompt.

    guided_rewrite   a plain document, edited under guidance (REWIRE, Nguyen et al. 2025, arXiv 2506.04689)
    self_answer      the original model answers the prompt itself (Kim and Rush 2016, arXiv 1606.07947)
    self_distill     it sees the given answer and says the same in its own words (self-distillation, Yang et al. 2024,
                     arXiv 2402.13669; for pruned models Thangarasa et al. 2024, arXiv 2410.09982)

A task is a prompt file. {text} in it makes new texts for rows without a prompt; {prompt} makes new responses for rows
with one, in a chat after the turns that came before; {response} beside it shows the given one. Add a file in a folder
of yours and name both in the recipe.

A row that the model refused, or answered with nothing, still becomes a row with an empty text: `gate.py` drops it with
its reason, so that no source is lost without a trace.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from curate.generate.cache import Response, ResponseCache
from curate.generate.endpoint import Endpoint, EndpointBackend
from curate.generate.in_process import InProcess, ModelBackend, Request
from curate.generate.prompt import Prompt, fence_for, neutralise, read_prompt
from curate.generate.rows import GENERATED, PARENT, When, child, generated, parents, with_response
from curate.stage import Resources, Stage, TableFunction


class Rewrite(Stage):
    """Makes new rows with a language model: rewritten texts, or its own answers.

    Settings.

    backend             {kind: model, model: REF, ...} or {kind: endpoint, base_url: URL, model: NAME, revision: R, ...}
    task, prompts       name of a prompt file, and the folder it is in (default: the shipped ones)
    when, share         which rows; `share` of them, drawn by a hash of (seed, row_id)
    temperature         0: greedy
    max_source_tokens   what is longer is left out: document, or prompt with the answer where that is shown (for an endpoint,
                        four bytes count as a token)
    cache               folder of stored responses; a run sets it
    """

    generates: ClassVar[bool] = True
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers")
    # backend and prompts come back in `identity`, without what only says where or how fast
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"cache", "prompts", "backend"})

    backend: ModelBackend | EndpointBackend = Field(discriminator="kind")
    task: str = "guided_rewrite"
    prompts: str | None = None
    when: When = Field({"nominated": True})
    share: float = Field(1.0, gt=0, le=1)
    temperature: float = Field(0.0, ge=0)
    seed: int = 0
    max_source_tokens: int = Field(2048, ge=1)
    cache: str | None = None

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*PARENT, *self.when)))

    def reads_if_present(self) -> tuple[str, ...]:
        return ("origin",)

    def writes(self) -> pa.Schema:
        return GENERATED

    def models(self) -> tuple[str, ...]:
        return (self.backend.model,) if isinstance(self.backend, ModelBackend) else ()

    def identity(self) -> dict[str, Any]:
        return {"prompt": read_prompt(self.task, self.prompts).digest, "backend": self.backend.identity()}

    def resources(self) -> Resources:
        if isinstance(self.backend, EndpointBackend):
            return Resources()
        from curate import models

        return Resources(gpus=models.gpus_wanted(), memory=models.memory(self.backend.model, precision=self.backend.dtype))

    def load(self, folder: Path) -> TableFunction:
        prompt = read_prompt(self.task, self.prompts)
        backend = open_backend(self.backend, ResponseCache(self.cache), self.temperature)

        def rewrite(table: pa.Table) -> pa.Table:
            counts: Counter[str] = Counter()
            sources, requests = [], []
            for row in parents(table, self.when, self.share, self.seed, "rewrite"):
                request = self._request(row, prompt, backend, counts)
                if request is not None:
                    sources.append(row)
                    requests.append(request)
            responses = backend.answer(requests)
            made = [_row(source, response, prompt, backend.label) for source, response in zip(sources, responses, strict=True)]
            return generated(made, counts)

        return rewrite

    def _request(self, row: dict[str, Any], prompt: Prompt, backend: InProcess | Endpoint, counts: Counter[str]) -> Request | None:
        """What to ask for this row, or None, counted."""
        if (row["prompt"] is None) != (prompt.shows == "text") or row["text"] is None:
            counts["not_for_this_task"] += 1
            return None
        turns = earlier_turns(row)
        if turns is None:
            counts["turns_not_alternating"] += 1
            return None
        answer = neutralise(row["response"] or "", backend.special_tokens) if prompt.shows_response else ""
        if prompt.shows_response and not answer.strip():
            counts["no_answer_to_show"] += 1
            return None
        shown = [{"role": turn["role"], "content": neutralise(turn["content"], backend.special_tokens)} for turn in turns]
        if sum(map(backend.tokens, [answer, *(turn["content"] for turn in shown)])) > self.max_source_tokens:
            counts["source_too_long"] += 1
            return None
        document = shown[-1]["content"]
        fence = fence_for(self.seed, row["row_id"], document + answer)
        shown[-1]["content"] = prompt.fill(document, fence, answer)
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}:{row['row_id']}".encode()).digest()[:4]) >> 1
        return Request(row["row_id"], tuple(shown), prompt.digest, seed)


def open_backend(settings: ModelBackend | EndpointBackend, cache: ResponseCache, temperature: float) -> InProcess | Endpoint:
    if isinstance(settings, ModelBackend):
        return InProcess(settings, cache, temperature)
    return Endpoint(settings, cache, temperature)


def earlier_turns(row: dict[str, Any]) -> list[dict[str, str]] | None:
    """The turns that end in the user turn to answer; None for a chat that most templates refuse.

    Accepted: an optional system turn, then user and assistant in turn, and nothing after the last answer.
    """
    if not row["messages"]:
        return [{"role": "user", "content": row["text"] if row["prompt"] is None else row["prompt"]}]
    turns = row["messages"][:-1] if row["messages"][-1]["role"] == "assistant" else row["messages"]
    roles = [turn["role"] for turn in turns]
    if len(turns) == len(row["messages"]) and "assistant" in roles:  # something was said after the last answer
        return None
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    alternate = [("user", "assistant")[place % 2] for place in range(len(spoken))]
    return list(turns) if spoken and spoken == alternate and len(spoken) % 2 else None


def _row(source: dict[str, Any], response: Response, prompt: Prompt, label: str) -> dict[str, Any]:
    messages = None
    if source["prompt"] is None:
        answer, text = None, response.text
    else:
        answer, text = response.text, with_response(source, response.text)
        if source["messages"]:
            messages = [*(earlier_turns(source) or ()), {"role": "assistant", "content": answer}]
    return child(
        source,
        messages=messages,
        prompt=source["prompt"],
        response=answer,
        text=text,
        origin="rewrite",
        generator=f"{prompt.name} {label} {response.finish}",
        prompt_digest=prompt.digest,
    )
