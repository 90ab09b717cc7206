"""Texts of a file beside the corpus: a trusted set, a target to resemble."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from curate.errors import UserMistake


def existing(path: str, setting: str, kinds: str = ".jsonl, .parquet or .txt") -> Path:
    """The file at `path`; `setting` names it, and `kinds` what to give, in the message where there is none."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserMistake(f"{setting} {file} does not exist: give a {kinds} file")
    return file


def read_texts(path: str, setting: str) -> list[str]:
    """Column `text` of a .jsonl or .parquet file, or the lines of a .txt file, blank ones left out."""
    file = existing(path, setting)
    if file.suffix == ".txt":
        texts = file.read_text(encoding="utf-8").split("\n")
    elif file.suffix == ".jsonl":  # lines end at a line feed alone: U+2028, say, may stand inside a string
        texts = [json.loads(line).get("text") for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    elif file.suffix == ".parquet" and "text" in pq.read_schema(file).names:
        texts = pq.read_table(file, columns=["text"]).column("text").to_pylist()
    else:
        raise UserMistake(f"{setting} {file} is not a .txt, nor a .jsonl or .parquet file with a column `text`: convert it")
    if not all(isinstance(text, str) for text in texts):
        raise UserMistake(f"{setting}: some rows of {file} have no string in `text`: remove them")
    return [text for text in texts if text.strip()]
