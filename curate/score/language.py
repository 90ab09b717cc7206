"""The language of a text, by py3langid: naive Bayes over byte n-grams, 97 languages (Lui, Baldwin 2012, "langid.py")."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.stage import Stage, TableFunction


class Language(Stage):
    """Names the language of each text.

    language       code of two letters, such as en; null for a text without a letter
    language_sure  probability that the identifier gives it, 0 to 1: high for most texts, low for short ones and for lists of names

    characters  the first so many of a text are read: with 2,000 it reads 1,500 documents per second and core
    """

    characters: int = Field(2000, ge=20)

    libraries: ClassVar[tuple[str, ...]] = ("py3langid", "numpy")

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([("language", pa.string()), ("language_sure", pa.float32())])

    def load(self, folder: Path) -> TableFunction:
        identify = identifier()

        def name(table: pa.Table) -> pa.Table:
            texts = [text[: self.characters] for text in table.column("text").to_pylist()]
            found = [identify(text) if any(map(str.isalpha, text)) else (None, None) for text in texts]
            codes, sure = zip(*found, strict=True)
            return pa.table({"language": pa.array(codes, pa.string()), "language_sure": pa.array(sure, pa.float32())})

        return name


def identifier() -> Callable[[str], tuple[str, float]]:
    """A function: (code of the language, its probability) of a text."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def identify(text: str) -> tuple[str, float]:
        code, probability = model.classify(text)
        return str(code), float(np.float32(probability))

    return identify
