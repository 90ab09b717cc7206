"""Depth pruning by block influence (Men et al. 2024, ShortGPT, arXiv 2403.03853): remove the layers that change least.

The result is an ordinary checkpoint, read by plain `from_pretrained`. Its config.json lists what was removed
(`curate_removed_layers`, numbers in the original), curate_pruning.json holds what was measured.
"""

from __future__ import annotations

import heapq
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import models
from curate.algorithms.block_influence import least_influential, turned
from curate.errors import UserMistake
from curate.select.sample import draws
from curate.stage import FitEngine, Inputs, Resources, Stage

# Every eighth calibration text is left out of the measurement and used as the probe for the losses.
PROBE_EVERY = 8


class Depth(Stage):
    """Makes the pruned copy of a model: removes the layers that change their input least on rows of this run."""

    model: str
    layers: int = Field(ge=1, description="how many layers to remove")
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
        return Resources(memory=2 << 30)

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        """The copy is `folder`/model."""
        texts = calibration_texts(inputs.tables(), self.calibration_rows, self.seed)
        prune_depth(self.model, folder / "model", self.layers, texts, self.seed, self.calibration_rows, self.max_tokens)


def calibration_texts(tables: Iterable[tuple[Any, pa.Table]], rows: int, seed: int) -> list[str]:
    """Texts of the `rows` rows with the smallest draws; the same rows whatever the sharding."""
    drawn: list[tuple[float, str, str]] = []
    for _, table in tables:
        found = [
            (row_id, text) for row_id, text in zip(table["row_id"].to_pylist(), table["text"].to_pylist(), strict=True) if text is not None
        ]
        numbers = draws([row_id for row_id, _ in found], seed, "calibration")
        drawn = heapq.nsmallest(rows, [*drawn, *((number, *row) for number, row in zip(numbers, found, strict=True))])
    return [text for _, _, text in drawn]


def prune_depth(
    model_ref: str, out: Path, layers: int, calibration_texts: Sequence[str], seed: int = 0, max_texts: int = 64, max_tokens: int = 256
) -> dict[str, Any]:
    """Write to `out` a copy of the model without the `layers` layers of lowest block influence; return what was measured.

    At most `max_texts` texts are drawn by `seed`, each cut to `max_tokens`. The first and the last layer always
    stay. Equal arguments give equal bytes. `out` must not exist; it appears whole or not at all.

    The dictionary: `removed` (layer numbers), `block_influence` (per layer, in [0, 2]), `parameters_before/after`,
    `loss_before/after` (nats per token on texts not used for the measurement), `calibration_tokens`, `probe_tokens`.
    """
    import torch

    out = Path(out)
    if out.exists():
        raise UserMistake(f"{out} exists: give a folder that does not, or remove it")
    texts = [text for text in calibration_texts if text.strip()]
    if len(texts) < 2:
        raise UserMistake("pruning needs at least 2 calibration texts that are not blank, 32 or more to be of use: give more")
    picked = np.sort(np.random.default_rng(seed).permutation(len(texts))[:max_texts])
    model, tokenizer = models.load_causal_lm(model_ref, "float32")
    encoded = [models.encode_text(tokenizer, texts[i], max_tokens) for i in picked]
    probe, calibration = encoded[::PROBE_EVERY], [row for i, row in enumerate(encoded) if i % PROBE_EVERY]

    influence, tokens = _block_influence(model, calibration)
    try:
        removed = least_influential(influence, layers)
    except ValueError as error:
        raise UserMistake(str(error)) from error
    before, loss_before = model.num_parameters(), _loss(model, probe)
    _remove(model, removed)
    note = {
        "removed": removed,
        "block_influence": [round(float(value), 8) for value in influence],
        "parameters_before": before,
        "parameters_after": model.num_parameters(),
        "loss_before": round(loss_before, 6),
        "loss_after": round(_loss(model, probe), 6),
        "calibration_tokens": tokens,
        "probe_tokens": int(sum(row.scored.sum() for row in probe)),
        "model": models.identity(model_ref),
        "seed": seed,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    attempt = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with torch.inference_mode():
            model.save_pretrained(attempt)
        tokenizer.save_pretrained(attempt)
        (attempt / models.PRUNING_NOTE).write_text(json.dumps(note, indent=2) + "\n")
        attempt.chmod(0o755)
        attempt.rename(out)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return note


def _block_influence(model: Any, encoded: Sequence[models.Encoded]) -> tuple[np.ndarray, int]:
    """Block influence of each layer, float64, and the number of tokens it is the mean over. One text at a time."""
    import torch

    layers = models.decoder_layers(model)
    totals, tokens = np.zeros(len(layers)), 0

    def watch(i: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
            after = output[0] if isinstance(output, tuple) else output
            totals[i] += turned(args[0][0], after[0])

        return hook

    handles = [layer.register_forward_hook(watch(i)) for i, layer in enumerate(layers)]
    try:
        for row in encoded:
            with torch.inference_mode():
                models.hidden_states(model, torch.from_numpy(row.ids)[None].to(models.device()))
            tokens += len(row.ids)
    finally:
        for handle in handles:
            handle.remove()
    return totals / tokens, tokens


def _loss(model: Any, encoded: Sequence[models.Encoded]) -> float:
    """Mean negative log-likelihood over all scored tokens, nats."""
    import torch

    total, tokens = 0.0, 0
    for row in encoded:
        batch = models.collate([row])
        with torch.inference_mode():
            logits = model(input_ids=batch.inputs, use_cache=False).logits[batch.rows, batch.columns].float()
            total += float(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum"))
        tokens += len(batch.targets)
    return total / tokens


def _remove(model: Any, removed: Sequence[int]) -> None:
    """Take the layers out and renumber what is left, so that a key-value cache and the saved names fit."""
    import torch

    kept = [i for i in range(len(models.decoder_layers(model))) if i not in set(removed)]
    model.base_model.layers = torch.nn.ModuleList(models.decoder_layers(model)[i] for i in kept)
    for number, layer in enumerate(model.base_model.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    config = model.config
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in kept]
    # A copy of a copy: the numbers must be those of the model that it was made from here, the one it is compared with.
    config.curate_removed_layers = list(removed)
