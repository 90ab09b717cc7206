"""What a recovery is measured on: held-out rows, and answers of the original model to held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curate.errors import UserMistake
from curate.generate.cache import ResponseCache
from curate.generate.in_process import InProcess, ModelBackend, Request
from curate.ingest.files import read_shards
from curate.ingest.find import find_files
from curate.ingest.settings import Ingest


def read_rows(path: Path, keep: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of a file or folder beside the corpus, as canonical rows; `keep`: further columns of it."""
    reader = Ingest.model_validate({"path": str(path), "keep": tuple(keep)})
    rows = [row for file in find_files(reader) for table in read_shards(reader, file) for row in table.to_pylist()]
    if bad := sum(row["verdict"] is not None for row in rows):
        raise UserMistake(f"{bad} of {len(rows)} rows in {path} cannot be read as rows: mend or remove them")
    return [row for row in rows if row["response"] or row["messages"]]


def own_answers(original: str, rows: Sequence[Mapping[str, Any]], max_new_tokens: int, cache: Path | None = None) -> list[dict[str, Any]]:
    """The rows with the response that the original model gives to their prompts, greedily; rows it has no answer to are left out.

    `cache`: folder of answers that were given before.
    """
    backend = InProcess(
        ModelBackend(kind="model", model=original, max_new_tokens=max_new_tokens, dtype="float32", batch_tokens=8192),
        ResponseCache(str(cache) if cache else None),
        0.0,
    )
    requests = [Request(str(row["row_id"]), ({"role": "user", "content": row["prompt"]},), "own", 0) for row in rows if row["prompt"]]
    asked = [row for row in rows if row["prompt"]]
    answers = backend.answer(requests)
    return [{**row, "messages": None, "response": answer.text} for row, answer in zip(asked, answers, strict=True) if answer.text.strip()]
