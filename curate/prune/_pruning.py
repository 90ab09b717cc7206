"""What all pruning methods share: calibration texts, the probe, the note and the card, and a folder that appears whole.

A method is a settings class with `cut`, which changes the loaded model in place. The result is an ordinary checkpoint,
read by plain `from_pretrained`; curate_pruning.json beside it holds what was measured, README.md says it in words.
"""

from __future__ import annotations

import heapq
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from curate import encoding, models
from curate.encoding import Encoded
from curate.errors import UserMistake
from curate.select.sample import draws
from curate.stage import FitEngine, Inputs, Resources, Stage

# Every eighth calibration text is kept from the method and used as the probe for the losses.
PROBE_EVERY = 8

CARD = """# A pruned copy

Made by `curate prune`, method {method}, from `{model}`. Plain `from_pretrained` loads it.

| | before | after |
|---|---|---|
| parameters | {parameters_before:,} | {parameters_after:,} |
| of these not zero | {nonzero_before:,} | {nonzero_after:,} |
| loss on {probe_tokens:,} probe tokens, nats per token | {loss_before:.3f} | {loss_after:.3f} |

Settings: {settings}. All that was measured: `{note}`.
"""


class Pruning(Stage):
    """Makes the pruned copy of a model, calibrated on rows of this run. Everything is computed in float32.

    model             reference of the model to prune
    calibration_rows  rows to draw; one in eight is the probe on which both losses are measured, the method sees the others
    max_tokens        a calibration text is cut to so many
    """

    model: str
    calibration_rows: int = Field(default=64, ge=2)
    max_tokens: int = Field(default=256, ge=16)
    seed: int = 0

    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")
    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})

    def reads(self) -> tuple[str, ...]:
        return ("row_id", "text")

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def resources(self) -> Resources:
        return Resources(memory=models.memory(self.model, precision="float32"))

    def cut(self, model: Any, calibration: Sequence[Encoded]) -> dict[str, Any]:
        """Prune the model in place; return what belongs in the note. The method itself."""
        raise NotImplementedError

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """The copy is `folder`/model."""
        self.prune(self.calibration_texts(inputs.tables()), folder / "model")

    def calibration_texts(self, tables: Iterable[tuple[Any, pa.Table]]) -> list[str]:
        """Texts of the `calibration_rows` rows with the smallest draws (columns row_id, text), equal rows once; the same whatever the sharding."""
        drawn: list[tuple[float, str, str]] = []
        for _, table in tables:
            pairs = zip(table["row_id"].to_pylist(), table["text"].to_pylist(), strict=True)
            found = [(row_id, text) for row_id, text in pairs if text is not None]
            numbers = draws([row_id for row_id, _ in found], self.seed, "calibration")
            mine = [(number, *row) for number, row in zip(numbers, found, strict=True)]
            drawn = heapq.nsmallest(self.calibration_rows, {*drawn, *mine})  # else the probe would hold copies of what the method saw
        return [text for _, _, text in drawn]

    def prune(self, texts: Sequence[str], out: Path) -> dict[str, Any]:
        """Write the pruned copy to `out`, calibrated on `texts`; return what was measured (the note).

        Equal arguments give equal bytes. `out` must not exist; it appears whole or not at all.

        The note: `method`, `settings`, `model` (by content), `parameters_before/after`, `nonzero_before/after`,
        `loss_before/after` (nats per token on texts that the method did not see), `calibration_tokens`, `probe_tokens`,
        and what the method itself adds.
        """
        out = Path(out)
        if out.exists():
            raise UserMistake(f"{out} exists: give a folder that does not, or remove it")
        texts = [text for text in texts if text.strip()]
        if len(texts) < 2:
            raise UserMistake("pruning needs at least 2 calibration texts that are not blank, 32 or more to be of use: give more")
        model, tokenizer = models.load_causal_lm(self.model, "float32")
        encoded = [encoding.encode_text(tokenizer, text, self.max_tokens) for text in texts]
        probe, calibration = encoded[::PROBE_EVERY], [row for i, row in enumerate(encoded) if i % PROBE_EVERY]
        before = measured(model, probe)
        found = self.cut(model, calibration)
        after = measured(model, probe)
        note = {
            "method": type(self).__module__.rpartition(".")[2],
            "settings": self.model_dump(mode="json", exclude={"model"}),
            "model": models.identity(self.model),
            **{f"{name}_{when}": facts[name] for name in before for when, facts in (("before", before), ("after", after))},
            "calibration_tokens": sum(len(row.ids) for row in calibration),
            "probe_tokens": sum(int(row.scored.sum()) for row in probe),
            **found,
        }
        write_checkpoint(model, tokenizer, note, out)
        return note


def measured(model: Any, probe: Sequence[Encoded]) -> dict[str, Any]:
    """Parameters (tied ones once), how many are not zero, and the mean loss over the probe's tokens in nats."""
    import torch

    total, tokens = 0.0, 0
    for row in probe:
        batch = models.collate([row])
        with torch.inference_mode():
            logits = model(input_ids=batch.inputs, use_cache=False).logits[batch.rows, batch.columns].float()
            total += float(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum"))
        tokens += len(batch.targets)
    nonzero = sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters())
    return {"parameters": model.num_parameters(), "nonzero": nonzero, "loss": round(total / tokens, 6)}


def write_checkpoint(model: Any, tokenizer: Any, note: dict[str, Any], out: Path) -> None:
    """Written aside and renamed. Only a copy that lost layers may carry their numbers, for the stages that compare the two."""
    import torch

    if "removed" not in note and hasattr(model.config, "curate_removed_layers"):  # pruned from a copy that had lost layers
        del model.config.curate_removed_layers
    out.parent.mkdir(parents=True, exist_ok=True)
    attempt = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with torch.inference_mode():
            models.save(model, tokenizer, attempt)
        (attempt / models.PRUNING_NOTE).write_text(json.dumps(note, indent=2) + "\n")
        settings = ", ".join(f"{name} {value}" for name, value in note["settings"].items() if value is not None)
        (attempt / "README.md").write_text(CARD.format_map({**note, "settings": settings, "note": models.PRUNING_NOTE}))
        attempt.chmod(0o755)
        attempt.rename(out)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
