"""Rows that a generator makes: which rows it may start from, and the table it returns.

A generated row is a canonical row with its lineage. Where it came from (`source`, `file`, `line`) is where its parent
came from. Three conventions hold for every generator, because the gates rely on them:

- a row with a prompt ends in its response: `text[: -len(response)]` is the same in parent and child, so the parent's
  response is `parent_text[len(text) - len(response) :]`;
- `generator` is "METHOD MODEL FINISH", where FINISH is how the model stopped: stop, length, or refused_REASON;
- counts of what was left out, and why, travel as JSON in the schema metadata of the table, under the key `counts`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from curate.dataset import CANONICAL, LINEAGE

GENERATED = pa.schema([*CANONICAL, *LINEAGE])
# What a generator reads of the rows it may start from, besides the columns of its `when`.
PARENT = ("row_id", "shard", "position", "source", "file", "line", "messages", "prompt", "response", "text")

Scalar = bool | int | float | str


class Range(BaseModel):
    """A closed interval; an end left out is open."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    min: float | None = None
    max: float | None = None

    def holds(self, value: Any) -> bool:
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


When = dict[str, Range | tuple[Scalar, ...] | Scalar]


def parents(table: pa.Table, when: When, share: float, seed: int, stage: str, beside: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows a generator starts from, as dictionaries, in table order, with the columns `beside`.

    A row counts when each column of `when` holds its value (one of several, or within a range; null never holds), when
    its draw is below `share`, and when it was not itself generated: `depth` stays 1.
    """

    def holds(value: Any, wanted: Range | tuple[Scalar, ...] | Scalar) -> bool:
        if value is None:
            return False
        if isinstance(wanted, Range):
            return wanted.holds(value)
        return value in wanted if isinstance(wanted, tuple) else value == wanted

    columns = [table.column(name).to_pylist() for name in when]
    wanted = list(when.values())
    origins = table.column("origin").to_pylist() if "origin" in table.column_names else [None] * table.num_rows
    row_ids = table.column("row_id").to_pylist()
    chosen = [
        row
        for row, row_id in enumerate(row_ids)
        if origins[row] is None
        and all(holds(column[row], value) for column, value in zip(columns, wanted, strict=True))
        and (share >= 1 or draw(seed, stage, row_id) < share)
    ]
    return table.select(tuple(dict.fromkeys((*PARENT, *beside)))).take(pa.array(chosen, pa.int64())).to_pylist()


def draw(seed: int, *key: str) -> float:
    """A number in [0, 1) that depends on nothing but the seed and the key."""
    digest = hashlib.sha256("\x1f".join((str(seed), *key)).encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53


def child(
    parent: Mapping[str, Any],
    *,
    messages: list[dict[str, str]] | None,
    prompt: str | None,
    response: str | None,
    text: str,
    origin: str,
    generator: str,
    prompt_digest: str,
) -> dict[str, Any]:
    """One generated row, complete; `parent` is a row of `parents`."""
    from curate.ingest.canonical import row_id

    return {
        "row_id": row_id(messages, prompt, response, text),
        "source": parent["source"],
        "source_id": None,
        "file": parent["file"],
        "line": parent["line"],
        "messages": messages,
        "prompt": prompt,
        "response": response,
        "text": text,
        "origin": origin,
        "parents": [parent["row_id"]],
        "parent_at": f"{parent['shard']}:{parent['position']}",
        "parent_text": parent["text"],
        "generator": generator,
        "prompt_digest": prompt_digest,
        "depth": 1,
    }


def with_response(parent: Mapping[str, Any], response: str) -> str:
    """The parent's text with another response at its end."""
    text, old = parent["text"], parent["response"] or ""
    if old and text.endswith(old):
        return text[: len(text) - len(old)] + response
    return f"{parent['prompt']}\n\n{response}"


def generated(rows: Sequence[dict[str, Any]], counts: Mapping[str, int], schema: pa.Schema = GENERATED) -> pa.Table:
    """The table a generator returns; `counts` (reason -> rows left out) go into its schema metadata."""
    table = pa.Table.from_pylist(list(rows), schema=schema)
    return table.replace_schema_metadata({"counts": json.dumps(counts, sort_keys=True)})
