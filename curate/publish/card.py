"""The card of a published version: README.md, whose YAML header makes `datasets.load_dataset(folder)` work.

    what is published (`Published`) --card--> Markdown        (croissant.py makes its JSON-LD from the same facts)

It carries no clock time: the same version gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curate.report.visible import visible

# What the columns we make mean. The recipe's own kept columns are described by `Published.meanings`.
MEANINGS = {
    "row_id": "identity of the row: 32 hex digits of SHA-256 over its messages, prompt, response and text",
    "source": "name of the source in the recipe",
    "source_id": "the source's own id, if it has one",
    "file": "file the row was read from, as found under the source",
    "line": "line (text formats) or row (Parquet, Arrow) in that file, from 1",
    "messages": "the conversation, if the source has one",
    "prompt": "what the model is asked",
    "response": "what the model should answer",
    "text": "the whole text",
    "origin": "step that generated the row; null for rows that were read",
    "parents": "row_ids of the rows it was generated from",
    "parent_at": "place of the first parent in the run (shard:position)",
    "parent_text": "what the generator was shown",
    "generator": "model and method that generated the row",
    "prompt_digest": "digest of the prompt that the generator was given",
    "depth": "generations since a row that was read: 1 is made from such a row",
    "step": "step that decided the row's fate",
    "rule": "rule that left the row out",
    "value": "what the rule measured",
    "threshold": "what the value was held against",
    "twin": "row_id of the row that was kept in its place",
    "twin_at": "place of that row: shard:position in the run, or a file and row of another dataset or benchmark",
    "similarity": "similarity to that row, 0 to 1",
}


@dataclass(frozen=True)
class PublishedFile:
    """`path` relative to the card, with forward slashes; `sha256` in hex; `size` in bytes."""

    path: str
    sha256: str
    size: int
    rows: int


@dataclass(frozen=True)
class Config:
    """A table of the dataset: `name` is what `load_dataset(folder, name)` takes; the first one is the default."""

    name: str
    files: tuple[PublishedFile, ...]
    schema: pa.Schema
    about: str = ""

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def pattern(self) -> str:
        """The glob that all its files match: data/train-00000-of-00002.parquet gives data/train-*.parquet."""
        patterns = {re.sub(r"-\d+-of-\d+\.parquet$", "-*.parquet", file.path) for file in self.files}
        if len(patterns) != 1:
            raise ValueError(
                f"the files of config '{self.name}' have {len(patterns)} patterns {sorted(patterns)}: "
                "name them FOLDER/train-00000-of-0000N.parquet, in one folder"
            )
        return patterns.pop()


@dataclass(frozen=True)
class SourceNote:
    """Where rows come from. Empty strings are printed as "not stated"."""

    name: str
    rows_in: int
    kept: int
    licence: str = ""
    location: str = ""


@dataclass(frozen=True)
class Published:
    """A published version. `digest`: of the resolved recipe; `models`, `libraries`: name to identity; `dropped`: rule to rows."""

    name: str
    version: int
    configs: tuple[Config, ...]
    rows_in: int
    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    generated: int = 0
    kept_generated: int = 0
    quarantined: int = 0
    tokens_kept: int | None = None
    token_unit: str = "tokens"
    pipeline: str = ""
    digest: str = ""
    sources: tuple[SourceNote, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    personal_data: str = ""
    limitations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.configs:
            raise ValueError("a version without a config cannot be loaded: publish one file even where no row was kept")
        if self.configs[0].rows != self.kept:
            raise ValueError(
                f"the files of '{self.configs[0].name}' hold {self.configs[0].rows} rows, {self.kept} were kept: publish again"
            )

    def meaning(self, column: str) -> str:
        return self.meanings.get(column) or MEANINGS.get(column, "as in the source")

    def licence(self) -> str:
        """The one licence that all sources state, or nothing."""
        stated = {source.licence for source in self.sources}
        return stated.pop() if len(stated) == 1 else ""

    def description(self) -> str:
        synthetic = (
            f"; {self.kept_generated:,} of them were generated by a model" if self.kept_generated else "; none of them was generated"
        )
        return f"{self.kept:,} rows for training language models, chosen from {self.rows_in:,}{synthetic}."


def card(facts: Published) -> str:
    """README.md of the version, ending in a newline."""
    parts = [
        _header(facts),
        f"# {_md(facts.name)}\n\n{facts.description()} Version {facts.version}.\n",
        _use(facts),
        _counts(facts),
        *(_columns(facts, config) for config in facts.configs),
        _sources(facts),
        _synthetic(facts),
        _made(facts),
        _limitations(facts),
    ]
    return "\n".join(part for part in parts if part)


def features(schema: pa.Schema) -> list[dict[str, Any]]:
    """The schema as `dataset_info.features` spells it."""
    return [{"name": column.name, **_feature(column.type)} for column in schema]


def dtype(kind: pa.DataType) -> str:
    """The name that `datasets` gives to a scalar Arrow type."""
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return "float16" if pa.types.is_float16(kind) else names.get(str(kind), str(kind))


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if is_list(kind):
        length = {"length": kind.list_size} if pa.types.is_fixed_size_list(kind) else {}
        item = _feature(kind.value_type)
        if "dtype" in item:
            return {"list": item["dtype"], **length}
        return {"list": item.get("struct", item), **length}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": part.name, **_feature(part.type)} for part in kind]}
    return {"dtype": dtype(kind)}


def _header(facts: Published) -> str:
    tags = ["curate"] + (["synthetic"] if facts.kept_generated else [])
    header: dict[str, Any] = {"pretty_name": facts.name}
    if facts.licence():
        header["license"] = facts.licence()
    header["tags"] = tags
    header["size_categories"] = [_size_category(facts.kept)]
    header["configs"] = [
        {
            "config_name": config.name,
            **({"default": True} if index == 0 else {}),
            "data_files": [{"split": "train", "path": config.pattern}],
        }
        for index, config in enumerate(facts.configs)
    ]
    header["dataset_info"] = [
        {
            "config_name": config.name,
            "features": features(config.schema),
            "splits": [{"name": "train", "num_bytes": sum(file.size for file in config.files), "num_examples": config.rows}],
            "download_size": sum(file.size for file in config.files),
        }
        for config in facts.configs
    ]
    return "---\n" + "\n".join(_yaml(header)) + "\n---\n"


def _yaml(value: Any, indent: str = "") -> list[str]:
    """Block YAML of dictionaries, lists and scalars.

    Every string is quoted as JSON does: a column named `no` or `1e3` stays a name for readers of YAML 1.1 and 1.2 alike.
    """
    lines: list[str] = []
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict | list) and item:
                lines += [f"{indent}{key}:", *_yaml(item, indent + ("  " if isinstance(item, dict) else ""))]
            else:
                lines.append(f"{indent}{key}: {_scalar(item)}")
        return lines
    for item in value:
        if isinstance(item, dict | list):
            first, *rest = _yaml(item, indent + "  ")
            lines += [f"{indent}- {first.strip()}", *rest]
        else:
            lines.append(f"{indent}- {_scalar(item)}")
    return lines


def _scalar(value: Any) -> str:
    return json.dumps(visible(value) if isinstance(value, str) else value, ensure_ascii=False)


def _size_category(rows: int) -> str:
    bounds = (("n<1K", 1_000), ("1K<n<10K", 10_000), ("10K<n<100K", 100_000), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))
    larger = (("10M<n<100M", 10**8), ("100M<n<1B", 10**9), ("1B<n<10B", 10**10))
    return next((name for name, bound in bounds + larger if rows < bound), "10B<n<100B")


def _md(text: object) -> str:
    """Text of unknown origin as one line of plain Markdown, also inside a table cell."""
    line = " ".join(visible(str(text), 300).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!$])", r"\\\1", line).replace("://", ":&#8203;//")


def _table(heads: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """Numbers are set to the right."""
    right = [bool(rows) and isinstance(rows[0][i], int) for i in range(len(heads))]
    lines = ["| " + " | ".join(heads) + " |", "|" + "|".join("---:" if r else "---" for r in right) + "|"]
    lines += ["| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else _md(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _use(facts: Published) -> str:
    lines = ["from datasets import load_dataset", "", 'rows = load_dataset("PATH_TO_THIS_FOLDER", split="train")']
    lines += [
        f'{re.sub(r"[^0-9a-zA-Z]", "_", config.name)} = load_dataset("PATH_TO_THIS_FOLDER", {_scalar(config.name)}, split="train")'
        for config in facts.configs[1:]
    ]
    note = (
        ""
        if facts.kept
        else "\nNo row was kept. `datasets` refuses a split without rows unless it is streamed: `load_dataset(..., streaming=True)`.\n"
    )
    return "```python\n" + "\n".join(lines) + "\n```\n" + note


def _counts(facts: Published) -> str:
    rows: list[tuple[object, ...]] = [("read", facts.rows_in)]
    rows += [("generated", facts.generated)] if facts.generated else []
    rows += [("**kept**", facts.kept)]
    rows += [(f"dropped: {rule}", count) for rule, count in sorted(facts.dropped.items(), key=lambda item: (-item[1], item[0]))]
    rows += [("quarantined", facts.quarantined)] if facts.quarantined else []
    table = _table(("what became of the rows", "rows"), rows).replace(r"\*\*kept\*\*", "**kept**")
    tokens = f"\nThe kept rows hold {facts.tokens_kept:,} {_md(facts.token_unit)}.\n" if facts.tokens_kept is not None else ""
    return "## Counts\n\n" + table + tokens


def _columns(facts: Published, config: Config) -> str:
    rows: list[tuple[object, ...]] = [(column.name, str(column.type), facts.meaning(column.name)) for column in config.schema]
    about = f"{_md(config.about)} " if config.about else ""
    files = f"{len(config.files)} file{'s' if len(config.files) != 1 else ''}"
    head = (
        f"## Columns of `{re.sub(r'[`|]', '', visible(config.name))}`\n\n{about}{config.rows:,} rows in {files} (`{config.pattern}`).\n\n"
    )
    return head + _table(("column", "type", "meaning"), rows)


def _sources(facts: Published) -> str:
    if not facts.sources:
        return "## Sources and licences\n\nNot stated.\n"
    rows: list[tuple[object, ...]] = [
        (source.name, source.rows_in, source.kept, source.licence or "not stated", source.location or "not stated")
        for source in facts.sources
    ]
    note = "\nLicences are repeated as the recipe gives them; nobody has checked them.\n"
    return "## Sources and licences\n\n" + _table(("source", "rows read", "rows kept", "licence", "from"), rows) + note


def _synthetic(facts: Published) -> str:
    share = f"{100 * facts.kept_generated / facts.kept:.1f} %" if facts.kept else "0.0 %"
    lines = f"{facts.kept_generated:,} of {facts.kept:,} kept rows ({share}) were written by a model in this pipeline."
    if facts.kept_generated:
        lines += " Their `origin`, `generator` and `parents` say how; in all other rows these are null."
    return f"## Synthetic share\n\n{lines} Whether the sources themselves hold synthetic text is not known.\n"


def _made(facts: Published) -> str:
    text = f"Pipeline {_md(facts.pipeline) or 'not stated'}, recipe digest `{re.sub('[^0-9a-zA-Z:]', '', facts.digest) or 'not stated'}`.\n"
    rows: list[tuple[object, ...]] = [("model", name, identity) for name, identity in sorted(facts.models.items())]
    rows += [("library", name, identity) for name, identity in sorted(facts.libraries.items())]
    return "## How it was made\n\n" + text + ("\n" + _table(("kind", "name", "identity"), rows) if rows else "")


def _limitations(facts: Published) -> str:
    standard = [
        "Rules and scores were chosen for one purpose; a row that was left out is not a bad row.",
        f"Personal data: {facts.personal_data or 'what was done about it is not stated'}.",
        "Facts in the texts were not checked; views in them are those of their authors.",
    ]
    return "## Limitations\n\n" + "\n".join(f"- {_md(line)}" for line in [*facts.limitations, *standard]) + "\n"
