"""Perplexity under a KenLM model that you bring, such as CCNet's models of Wikipedia: the score that many published corpora were cut by.

CCNet (Wenzek et al. 2020, arXiv 1911.00359): each line is normalised, cut into pieces and scored; over the lines of a text
    perplexity = 10 ^ (-sum of log10 p / sum of (pieces + 1))          the one is the end of the line
KenLM (Heafield 2011) is no dependency: it has no wheel and is built from source, `pip install kenlm sentencepiece` with a C++ compiler. Without it,
`ngram_perplexity` trains a model on the trusted texts itself.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import models
from curate.errors import UserMistake
from curate.score._texts import existing
from curate.score.perplexity import nullable
from curate.stage import Stage, TableFunction

_PUNCTUATION = {
    **dict.fromkeys("，、٬", ","), **dict.fromkeys("。．｡", "."), **dict.fromkeys("„”“«»「」『』《》", '"'), **dict.fromkeys("‘’‚´｀", "'"),
    **dict.fromkeys("–—―−─", "-"), "：": ":", "；": ";", "？": "?", "！": "!", "（": "(", "）": ")", "…": "...", "～": "~", "％": "%", "【": "[", "】": "]",
}  # fmt: skip


class Kenlm(Stage):
    """Asks a KenLM model how well it foretells the lines of a text.

    kenlm_perplexity  of a piece, the ends of lines counted; null for a text without any

    model       .arpa or KenLM's binary
    pieces      a sentencepiece model that cuts lines as the text that the model was trained on was cut; without it white space does
    normalise   lower case, no accents, every digit a 0, plain punctuation, no control characters: as CCNet's models want it
    characters  no more than the first so many of a text are read
    """

    model: str
    pieces: str | None = None
    normalise: bool = True
    characters: int = Field(20_000, ge=100)

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine"})
    libraries: ClassVar[tuple[str, ...]] = ("kenlm",)
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"model", "pieces"})  # by content, see `identity`

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([("kenlm_perplexity", pa.float32())])

    def identity(self) -> dict[str, Any]:
        files = {"model": self.model, **({"pieces": self.pieces} if self.pieces else {})}
        return {name: models.file_digest(existing(path, f"kenlm: {name}", "KenLM")) for name, path in files.items()}

    def load(self, folder: Path) -> TableFunction:
        ask, cut = self._model(), self._pieces()

        def score(table: pa.Table) -> pa.Table:
            losses = [_loss(ask, cut, text[: self.characters], self.normalise) for text in table.column("text").to_pylist()]
            with np.errstate(over="ignore"):  # beyond 10^38 it is infinite in float32
                return pa.table([nullable(np.power(10.0, losses))], schema=self.writes())

        return score

    def _model(self) -> Any:
        try:
            import kenlm
        except ImportError:
            raise UserMistake(
                "scorer kenlm needs KenLM, which is built from source: pip install kenlm (and a C++ compiler). "
                "`ngram_perplexity` needs neither"
            ) from None
        try:
            return kenlm.Model(self.model)
        except (OSError, RuntimeError) as error:
            raise UserMistake(f"kenlm: {self.model} is no model that KenLM reads ({error}): give an .arpa file or a KenLM binary") from None

    def _pieces(self) -> Any:
        """A function: line -> its pieces, separated by spaces."""
        if self.pieces is None:
            return lambda line: " ".join(line.split())
        try:
            import sentencepiece
        except ImportError:
            raise UserMistake("kenlm: `pieces` needs sentencepiece: pip install sentencepiece") from None
        cutter = sentencepiece.SentencePieceProcessor(model_file=self.pieces)
        return lambda line: " ".join(cutter.encode(line, out_type=str))


def _loss(model: Any, cut: Any, text: str, normalise: bool) -> float:
    """-log10 p per piece, ends of lines counted; NaN for a text without pieces."""
    lost, count = 0.0, 0
    for line in text.split("\n"):
        pieces = cut(normalised(line) if normalise else line)
        if pieces:
            lost -= model.score(pieces)
            count += pieces.count(" ") + 2
    return lost / count if count else np.nan


def normalised(line: str) -> str:
    """A line as CCNet's models were trained on."""
    kept = [(char, kind) for char in unicodedata.normalize("NFD", line.lower()) if (kind := unicodedata.category(char)) not in ("Mn", "Cc")]
    return "".join("0" if kind == "Nd" else _PUNCTUATION.get(char, char) for char, kind in kept).strip()
