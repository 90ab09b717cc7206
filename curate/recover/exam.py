"""What a recovery is measured on: held-out rows, and answers of the original model to held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curate import encoding
from curate.dataset import CANONICAL
from curate.generate.cache import ResponseCache
from curate.generate.in_process import InProcess, ModelBackend, Request
from curate.ingest.files import read_beside


def read_rows(path: Path, keep: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Test rows from a file or folder, as canonical rows; `keep`: further columns of it."""
    return [row for table in read_beside(path, tuple(keep), "the test") for row in table.to_pylist()]


def trained_tokens(tokenizer: Any, rows: Sequence[Mapping[str, Any]], template: encoding.Template, max_tokens: int) -> np.ndarray:
    """What a training reads of each row, int64 (n, 2): all tokens, and those of its answers; with the chat template, cut to `max_tokens`.

    (0, 0): the row has no answer to train or to be examined on, or the template refuses its conversation.
    """
    import pyarrow as pa

    given = [{name: row[name] for name in encoding.ROW} for row in rows]
    table = pa.Table.from_pylist(given, CANONICAL.empty_table().select(encoding.ROW).schema)
    asked = encoding.encode_rows(tokenizer, table, template, max_tokens)
    whole = encoding.encode_rows(tokenizer, table, template, max_tokens, ends=True)
    found = [
        (len(row.ids), int(row.scored.sum())) if row is not None and answered is not None and answered.scored.any() else (0, 0)
        for row, answered in zip(whole, asked, strict=True)
    ]
    return np.array(found, np.int64).reshape(-1, 2)


def own_answers(original: str, rows: Sequence[Mapping[str, Any]], max_new_tokens: int, cache: Path | None = None) -> list[dict[str, Any]]:
    """The rows with the response that the original model gives to their prompts, greedily; rows it has no answer to are left out.

    `cache`: folder of answers that were given before.
    """
    backend = InProcess(
        ModelBackend(kind="model", model=original, max_new_tokens=max_new_tokens, dtype="float32", batch_tokens=8192),
        ResponseCache(str(cache) if cache else None),
        0.0,
    )
    asked = [row for row in rows if row["prompt"]]
    answers = backend.answer([Request(row["row_id"], ({"role": "user", "content": row["prompt"]},), "own", 0) for row in asked])
    return [{**row, "messages": None, "response": answer.text} for row, answer in zip(asked, answers, strict=True) if answer.text.strip()]
