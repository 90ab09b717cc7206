"""Answers from an OpenAI-compatible chat endpoint: bounded, retried, stored; what is no answer never becomes text.

    2xx with a chat completion        the answer (finish: stop, length; content_filter is a refusal)
    400, 413, 422                     this row is refused: Response("", "refused_http_400")
    401, 403, 404, 3xx                the recipe is wrong: UserMistake
    408, 409, 429, 5xx, no or half    retried, Retry-After honoured; then EndpointUnavailable, after the requests
    an answer, HTML or no JSON        in flight have been stored

Errors name the row and the status, never the text, the key, or what the server said.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from curate.errors import EndpointUnavailable, UserMistake
from curate.generate.cache import Response, ResponseCache, response_key
from curate.generate.in_process import Request

_REFUSED = {400, 413, 422}
_MISTAKE = {401, 403, 404, 405}


class EndpointBackend(BaseModel):
    """Limits hold for a run: one worker asks. The key is read from the environment variable `api_key_env`, when one is named.

    `revision`: what the operator says the model is; part of the identity, because an endpoint cannot be hashed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["endpoint"]
    base_url: str = Field(pattern=r"^https?://[^\s@/]+(/\S*)?$")
    model: str
    revision: str
    api_key_env: str | None = None
    max_new_tokens: int = Field(1024, ge=1)
    max_concurrency: int = Field(8, ge=1)
    requests_per_second: float | None = Field(None, gt=0)
    timeout_seconds: float = Field(120.0, gt=0)
    max_retries: int = Field(5, ge=0)

    def identity(self) -> dict[str, Any]:
        """What the answers depend on, as far as an endpoint tells."""
        declared = self.model_dump(include={"kind", "base_url", "model", "revision", "max_new_tokens"})
        return {**declared, "content_identified": False}


class Endpoint:
    """`label` names it in `generator`."""

    special_tokens: tuple[str, ...] = ()

    def __init__(self, settings: EndpointBackend, cache: ResponseCache, temperature: float):
        self.settings, self.cache, self.temperature = settings, cache, temperature
        self.identity = f"{settings.base_url} {settings.model} {settings.revision}"
        self.label = f"{settings.model}@{settings.revision}".replace(" ", "_")
        self._key_value = "none"  # local servers ask for no key, the client insists on one
        if settings.api_key_env is not None:
            if settings.api_key_env not in os.environ:
                raise UserMistake(f"the environment variable {settings.api_key_env} is not set: export {settings.api_key_env}=...")
            self._key_value = os.environ[settings.api_key_env]

    @staticmethod
    def tokens(text: str) -> int:
        """A server keeps its tokenizer to itself: four bytes count as a token."""
        return -(-len(text.encode()) // 4)

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        """One response per request, in order; each is stored as soon as it is there."""
        keys = [response_key(self.identity, request.prompt_digest, self._sampling(request), list(request.turns)) for request in requests]
        found = {key: stored for key in set(keys) if (stored := self.cache.get(key)) is not None}
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in found}
        if missing:
            found.update(asyncio.run(self._ask_all(missing)))
        return [found[key] for key in keys]

    def _sampling(self, request: Request) -> dict[str, Any]:
        return {"temperature": self.temperature, "max_tokens": self.settings.max_new_tokens, "seed": request.seed}

    async def _ask_all(self, missing: dict[str, Request]) -> dict[str, Response]:
        import openai

        found: dict[str, Response] = {}
        failures: list[Exception] = []
        queue = iter(missing.items())
        pace = _Pace(self.settings.requests_per_second)
        client = openai.AsyncOpenAI(
            base_url=self.settings.base_url,
            api_key=self._key_value,
            max_retries=self.settings.max_retries,
            timeout=self.settings.timeout_seconds,
            # a redirect could carry text and key to another host
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=self.settings.timeout_seconds),
        )

        async def work() -> None:
            for key, request in queue:
                if failures:  # the others finish what they have in flight
                    return
                await pace.wait()
                try:
                    response = await self._ask(client, request)
                except (EndpointUnavailable, UserMistake) as error:
                    failures.append(error)
                    return
                self.cache.put({key: response})
                found[key] = self.cache.get(key) or response  # what another worker stored first is what counts

        async with client:
            await asyncio.gather(*(work() for _ in range(self.settings.max_concurrency)))
        if failures:
            raise failures[0]
        return found

    async def _ask(self, client: Any, request: Request) -> Response:
        import openai
        from openai.types.chat import ChatCompletion

        where = f"{self.settings.base_url} (row {request.row_id})"
        later = "what was answered is stored: run again later, or lower max_concurrency and requests_per_second"
        for attempt in range(self.settings.max_retries + 1):
            try:
                # the client itself retries 408, 409, 429, 5xx, time-outs and broken connections
                completion = await client.chat.completions.create(
                    model=self.settings.model, messages=list(request.turns), **self._sampling(request)
                )
            except openai.APIStatusError as error:
                status = error.status_code
                if status in _REFUSED:
                    return Response("", f"refused_http_{status}")
                if status in _MISTAKE or 300 <= status < 400:
                    raise UserMistake(f"{where} answered {status}: check base_url, model and the key in api_key_env") from None
                raise EndpointUnavailable(f"{where} answered {status} {self.settings.max_retries + 1} times: {later}") from None
            except openai.APIConnectionError as error:
                raise EndpointUnavailable(f"{where} does not answer ({type(error).__name__}): {later}") from None
            except (ValueError, openai.APIResponseValidationError):
                completion = None  # a 2xx whose body is no JSON
            if isinstance(completion, ChatCompletion) and (response := _read(completion)) is not None:
                return response
            await asyncio.sleep(min(0.5 * 2**attempt, 8.0))
        raise EndpointUnavailable(f"{where} answers 2xx without a chat completion: check that base_url ends in /v1; {later}") from None


def _read(completion: Any) -> Response | None:
    """The answer in a completion, or None where it holds none (a server of another kind)."""
    if not completion.choices or completion.choices[0].message is None:
        return None
    choice = completion.choices[0]
    if choice.finish_reason == "content_filter" or choice.message.refusal:
        return Response("", "refused_content_filter")
    if choice.finish_reason not in ("stop", "length") or not isinstance(choice.message.content, str):
        return None
    try:
        choice.message.content.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return Response("", "refused_invalid_text")
    return Response(choice.message.content.strip(), choice.finish_reason)


class _Pace:
    """At most `rate` starts a second, evenly spaced."""

    def __init__(self, rate: float | None):
        self.gap, self.next = (1 / rate if rate else 0.0), 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        start = max(now, self.next)
        self.next = start + self.gap
        if start > now:
            await asyncio.sleep(start - now)
