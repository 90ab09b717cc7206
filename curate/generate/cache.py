"""Stored responses: what a model once answered is not asked for again.

    FOLDER/3f/3f9a...c1.json     {"text": ..., "finish": "stop", "digest": ...}      one file per response

The name is the SHA-256 of everything the answer depends on. A file is written aside, synced and then linked to its name,
so that it appears whole, survives a power cut, and the first of two writers wins. The bytes of generated rows rest on
this store: a model may answer otherwise tomorrow (another batch, another server), a stored response does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.errors import InternalError
from curate.store import sync


@dataclass(frozen=True)
class Response:
    """`finish` is stop, length, or refused_REASON; a refused request has the text ''."""

    text: str
    finish: str


def response_key(model: str, prompt_digest: str, sampling: Mapping[str, Any], payload: Any) -> str:
    """Hex SHA-256 over the model's identity, the prompt file, the sampling settings and what was sent."""
    asked = {"model": model, "prompt": prompt_digest, "sampling": dict(sampling), "payload": payload}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class ResponseCache:
    """Responses under `folder` (made with mode 700), or nowhere when `folder` is None."""

    def __init__(self, folder: str | Path | None):
        self.folder = Path(folder) if folder is not None else None
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for batch in sorted(self.folder.glob("batch-*.json")):
                self._spread(batch)

    def get(self, key: str) -> Response | None:
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            stored = json.loads(path.read_bytes())
            if stored["digest"] != _digest(stored["text"], stored["finish"]):
                raise ValueError("digest")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise InternalError(f"stored response {path} is damaged: delete this file and run again") from None
        return Response(stored["text"], stored["finish"])

    def damaged(self) -> list[str]:
        """Paths, relative to the folder, of stored responses that are not what was stored."""
        found = []
        for path in sorted(self.folder.glob("??/*.json")) if self.folder else ():
            try:
                self.get(path.stem)
            except InternalError:
                found.append(path.relative_to(self.folder or path).as_posix())
        return found

    def put(self, responses: Mapping[str, Response]) -> None:
        """Store responses that were made together; either all of them or none survive a kill.

        They go to one file first: a batch of which a part was stored would be asked again in other company, and a model
        answers differently in another batch.
        """
        if self.folder is None or not responses:
            return
        if len(responses) == 1:
            ((key, response),) = responses.items()
            self._link(key, response)
            return
        content = {key: [response.text, response.finish] for key, response in responses.items()}
        batch = self.folder / f"batch-{secrets.token_hex(8)}.json"
        aside = self._write_aside(json.dumps(content))
        aside.rename(batch)
        sync(self.folder)
        self._spread(batch)

    def _spread(self, batch: Path) -> None:
        try:
            content = json.loads(batch.read_bytes())
        except FileNotFoundError:  # another worker finished it
            return
        for key, (text, finish) in content.items():
            self._link(key, Response(text, finish))
        batch.unlink(missing_ok=True)

    def _link(self, key: str, response: Response) -> None:
        path = self._path(key)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        aside = self._write_aside(
            json.dumps({"text": response.text, "finish": response.finish, "digest": _digest(response.text, response.finish)})
        )
        try:
            os.link(aside, path)
        except FileExistsError:
            return
        finally:
            aside.unlink()
        sync(path.parent)

    def _write_aside(self, content: str) -> Path:
        assert self.folder is not None
        aside = self.folder / f"aside-{secrets.token_hex(8)}"
        with aside.open("x", encoding="ascii") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return aside

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.json"


def _digest(text: str, finish: str) -> str:
    return hashlib.sha256(f"{finish}\n{text}".encode()).hexdigest()
