"""New rows from a language model: a better text for a document, or the model's own answer to a prompt.

    of a document
    guided_rewrite   edited under guidance (REWIRE, Nguyen et al. 2025, arXiv 2506.04689)
    tidy             the same for small models: the document is a turn of its own, nothing in it asks for fences
    paraphrase, diverse_qa, distil, extract, knowledge_list
                     an encyclopedia's words, questions with answers, less of it, what it teaches, its facts (Nemotron-CC,
                     Su et al. 2024, arXiv 2412.02595: the first for poor documents, the others for good ones)

    of an instruction
    self_answer      the original model answers the prompt itself (Kim and Rush 2016, arXiv 1606.07947)
    self_distill     it sees the given answer and says the same in its own words (self-distillation, Yang et al. 2024,
                     arXiv 2402.13669; for pruned models Thangarasa et al. 2024, arXiv 2410.09982)
    rephrase         the prompt in other words, with the given answer

A task is a prompt file. {text} in it makes new texts for rows without a prompt; {prompt} makes new responses for rows
with one, in a chat after the turns that came before, or a new prompt where the file says so; {response} beside it shows the
given one. Add a file in a folder of yours and name both in the recipe.

A row that the model refused, or answered with nothing, still becomes a row with an empty text: `gate.py` drops it with
its reason, so that no source is lost without a trace.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from curate.algorithms.segments import segments
from curate.generate.cache import Response, ResponseCache
from curate.generate.endpoint import Endpoint, EndpointBackend
from curate.generate.forms import parsed
from curate.generate.in_process import InProcess, ModelBackend, Request, token_counter
from curate.generate.prompt import Prompt, fence_for, neutralise, read_prompt
from curate.generate.rows import GENERATED, PARENT, When, child, draw, generated, parents, with_response
from curate.stage import FitEngine, Inputs, Resources, Stage, TableFunction


class Route(BaseModel):
    """One task, and which rows it is for; `share` of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    task: str
    when: When
    share: float = Field(1.0, gt=0, le=1)


class Rewrite(Stage):
    """Makes new rows with a language model: rewritten texts, or its own answers.

    Settings.

    backend             {kind: model, model: REF, ...} or {kind: endpoint, base_url: URL, model: NAME, revision: R, ...}
    task, prompts       name of a prompt file, and the folder it is in (default: the shipped ones)
    when, share         which rows; `share` of them, drawn by a hash of (seed, row_id)
    routes              several tasks, each {task, when, share}, in place of these three: low documents one way, high ones another
    temperature         0: greedy
    segment_tokens      a longer document is cut at its pauses, and the outputs are put together (tasks that allow it)
    max_source_tokens   what is longer is left out: document, or prompt with the answer where that is shown (for an endpoint,
                        four bytes count as a token)
    budget_tokens       most tokens that the model may read and write, counted before it is asked: each request at what it
                        shows (a chat template's own tokens aside) and `max_new_tokens`. Rows are taken in the order of their draws until the next does not fit
    cache               folder of stored responses; a run sets it
    """

    generates: ClassVar[bool] = True
    fit_makes: ClassVar[str] = "decision"
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers")
    # backend and prompts come back in `identity`, without what only says where or how fast
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"cache", "prompts", "backend"})

    backend: ModelBackend | EndpointBackend = Field(discriminator="kind")
    task: str = "guided_rewrite"
    prompts: str | None = None
    when: When = Field({"nominated": True})
    share: float = Field(1.0, gt=0, le=1)
    routes: tuple[Route, ...] = ()
    temperature: float = Field(0.0, ge=0)
    seed: int = 0
    segment_tokens: int = Field(512, ge=1)
    max_source_tokens: int = Field(2048, ge=1)
    budget_tokens: int | None = Field(None, ge=1)
    cache: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Rewrite:
        defaults = {name: type(self).model_fields[name].default for name in ("task", "when", "share")}
        if self.routes and any(getattr(self, name) != default for name, default in defaults.items()):
            raise ValueError("routes name their own task, when and share: leave these out beside `routes`, or leave `routes` out")
        names = [route.task for route in self.routes]
        if len(set(names)) < len(names):
            raise ValueError("routes: a task is named twice; give its `when` a list of values, or name another prompt file")
        return self

    def ways(self) -> tuple[Route, ...]:
        return self.routes or (Route(task=self.task, when=self.when, share=self.share),)

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*PARENT, *(column for way in self.ways() for column in way.when))))

    def reads_if_present(self) -> tuple[str, ...]:
        return ("origin",)

    def writes(self) -> pa.Schema:
        return GENERATED

    def models(self) -> tuple[str, ...]:
        return (self.backend.model,) if isinstance(self.backend, ModelBackend) else ()

    def identity(self) -> dict[str, Any]:
        prompts = [read_prompt(way.task, self.prompts) for way in self.ways()]
        return {
            "prompts": [[prompt.digest, prompt.makes, prompt.rules.form, prompt.rules.segments] for prompt in prompts],
            "backend": self.backend.identity(),
        }

    def resources(self) -> Resources:
        if isinstance(self.backend, EndpointBackend):
            return Resources(workers=1)  # so that limits hold for the whole run; many requests are in flight all the same
        from curate import hardware, models

        return Resources(gpus=hardware.gpus_wanted(), memory=models.memory(self.backend.model, precision=self.backend.dtype))

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """Which rows the budget reaches: those whose draw is below a bound."""
        folder.mkdir(parents=True, exist_ok=True)
        below, spent, costs = 1.0, 0, list(self._costs(inputs)) if self.budget_tokens else []
        for place, cost in sorted(costs):
            if spent + cost > (self.budget_tokens or 0):
                below = place
                break
            spent += cost
        plan = {"below": below, "tokens": spent, "rows": len({place for place, _ in costs if place < below}) if costs else None}
        (folder / "plan.json").write_text(json.dumps(plan, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def most_tokens(self, inputs: Inputs) -> int:
        """What all requests of these rows would cost at most: what is shown and what may be answered, within the budget."""
        whole = sum(cost for _, cost in self._costs(inputs))
        return min(whole, self.budget_tokens) if self.budget_tokens else whole

    def _costs(self, inputs: Inputs) -> Iterator[tuple[float, int]]:
        """(draw, most tokens) of every row, once per task."""
        ways = [(way, read_prompt(way.task, self.prompts)) for way in self.ways()]
        tokens, special = counter(self.backend)
        for _, table in inputs.tables():
            for way, prompt in ways:
                for row in parents(table, way.when, way.share, self.seed, "rewrite"):
                    if asked := self._requests(row, prompt, tokens, special, Counter()):
                        shown = sum(tokens(turn["content"]) for request in asked.requests for turn in request.turns)
                        yield draw(self.seed, "rewrite", row["row_id"]), shown + len(asked.requests) * self.backend.max_new_tokens

    def load(self, folder: Path) -> TableFunction:
        ways = [(way, read_prompt(way.task, self.prompts)) for way in self.ways()]
        backend = open_backend(self.backend, ResponseCache(self.cache), self.temperature)
        below = 1.0
        if self.budget_tokens:
            below = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["below"]

        def rewrite(table: pa.Table) -> pa.Table:
            counts: Counter[str] = Counter()
            asked: list[tuple[dict[str, Any], Prompt, _Asked]] = []
            for way, prompt in ways:
                for row in parents(table, way.when, way.share, self.seed, "rewrite"):
                    if draw(self.seed, "rewrite", row["row_id"]) >= below:
                        counts["over_budget"] += 1
                    elif found := self._requests(row, prompt, backend.tokens, backend.special_tokens, counts):
                        asked.append((row, prompt, found))
            answers = iter(backend.answer([request for _, _, found in asked for request in found.requests]))
            made = [
                _row(row, _joined([next(answers) for _ in found.requests], found.pauses), prompt, backend.label)
                for row, prompt, found in asked
            ]
            return generated(made, counts)

        return rewrite

    def _requests(
        self, row: dict[str, Any], prompt: Prompt, tokens: Callable[[str], int], special: tuple[str, ...], counts: Counter[str]
    ) -> _Asked | None:
        """What to ask for this row, or None, counted."""
        if (row["prompt"] is None) != (prompt.shows == "text") or row["text"] is None:
            counts["not_for_this_task"] += 1
            return None
        turns = earlier_turns(row)
        if turns is None:
            counts["turns_not_alternating"] += 1
            return None
        if prompt.makes == "prompt" and (len(turns) > 1 or not (row["response"] or "").strip()):
            counts["several_turns" if len(turns) > 1 else "no_answer_to_keep"] += 1
            return None
        answer = neutralise(row["response"] or "", special) if prompt.shows_response else ""
        if prompt.shows_response and not answer.strip():
            counts["no_answer_to_show"] += 1
            return None
        shown = [{"role": turn["role"], "content": neutralise(turn["content"], special)} for turn in turns]
        if sum(map(tokens, [answer, *(turn["content"] for turn in shown)])) > self.max_source_tokens:
            counts["source_too_long"] += 1
            return None
        document = shown[-1]["content"]
        cut = prompt.shows == "text" and prompt.rules.segments
        pieces = segments(document, tokens, self.segment_tokens) if cut else [(document, "")]
        requests = []
        for place, (piece, _) in enumerate(pieces):
            # the first piece is named as the row was before rows were cut: its stored responses stay good
            name = row["row_id"] if place == 0 else f"{row['row_id']}:{place}"
            fence = fence_for(self.seed, name, piece + answer)
            opening = [{"role": "system", "content": prompt.system}] if prompt.system else []
            asked = [*opening, *shown[:-1], {**shown[-1], "content": prompt.fill(piece, fence, answer)}]
            seed = int.from_bytes(hashlib.sha256(f"{self.seed}:{name}".encode()).digest()[:4]) >> 1
            requests.append(Request(row["row_id"], tuple(asked), prompt.digest, seed))
        return _Asked(requests, [pause for _, pause in pieces])


class _Asked(NamedTuple):
    """The requests of one row, and what parted the pieces that they show."""

    requests: list[Request]
    pauses: list[str]


def _joined(responses: list[Response], pauses: list[str]) -> Response:
    """One response of several; how it ended is the worst of how they did."""
    finishes = [response.finish for response in responses]
    refused = next((finish for finish in finishes if finish.startswith("refused_")), None)
    if refused:
        return Response("", refused)
    text = "".join(response.text + ("\n\n" if "\n" in pause else pause and " ") for response, pause in zip(responses, pauses, strict=True))
    return Response(text.strip(), "length" if "length" in finishes else "stop")


def open_backend(settings: ModelBackend | EndpointBackend, cache: ResponseCache, temperature: float) -> InProcess | Endpoint:
    if isinstance(settings, ModelBackend):
        return InProcess(settings, cache, temperature)
    return Endpoint(settings, cache, temperature)


def counter(settings: ModelBackend | EndpointBackend) -> tuple[Callable[[str], int], tuple[str, ...]]:
    """What counts tokens for a backend, and its special tokens, without its weights."""
    if isinstance(settings, EndpointBackend):
        return Endpoint.tokens, Endpoint.special_tokens
    from curate import models

    return token_counter(models.load_tokenizer(settings.model))


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
    new = parsed(response.text, prompt.rules.form)
    new = response.text if new is None else new  # the gate parses it again, and refuses it
    messages, asked, answer, text = None, source["prompt"], source["response"], new
    if prompt.makes == "response":
        answer, text = new, with_response(source, new)
    elif prompt.makes == "prompt":
        asked, text = new, f"{new}\n\n{answer}"
    else:
        answer = None
    if source["prompt"] is not None and source["messages"]:
        turns = list(earlier_turns(source) or ())
        turns = [{"role": "user", "content": new}] if prompt.makes == "prompt" else turns
        messages = [*turns, {"role": "assistant", "content": answer}]
    return child(
        source,
        messages=messages,
        prompt=asked,
        response=answer,
        text=text,
        origin="rewrite",
        generator=f"{prompt.name} {label} {response.finish}",
        prompt_digest=prompt.digest,
    )
