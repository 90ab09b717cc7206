"""Depth pruning by block influence (Men et al. 2024, ShortGPT, arXiv 2403.03853): remove the layers that change least.

config.json of the copy lists what was removed (`curate_removed_layers`, numbers in the original).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from curate import hardware, models
from curate.algorithms.block_influence import least_influential, turned
from curate.encoding import Encoded
from curate.errors import UserMistake
from curate.prune._pruning import Pruning


class Depth(Pruning):
    """Makes the pruned copy of a model: removes the layers that change their input least on rows of this run.

    The first and the last layer always stay. The note adds `removed` (layer numbers) and `block_influence` (per layer, in [0, 2]).
    """

    layers: int = Field(ge=1, description="how many layers to remove")

    def cut(self, model: Any, calibration: Sequence[Encoded]) -> dict[str, Any]:
        influence = _block_influence(model, calibration)
        try:
            removed = least_influential(influence, self.layers)
        except ValueError as error:
            raise UserMistake(str(error)) from error
        _remove(model, removed)
        return {"removed": removed, "block_influence": [round(float(value), 8) for value in influence]}


def _block_influence(model: Any, encoded: Sequence[Encoded]) -> np.ndarray:
    """Block influence of each layer, float64: a mean over all tokens. One text at a time."""
    import torch

    layers = models.decoder_layers(model)
    totals = np.zeros(len(layers))

    def watch(i: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
            after = output[0] if isinstance(output, tuple) else output
            totals[i] += turned(args[0][0], after[0])

        return hook

    handles = [layer.register_forward_hook(watch(i)) for i, layer in enumerate(layers)]
    try:
        for row in encoded:
            with torch.inference_mode():
                models.hidden_states(model, torch.from_numpy(row.ids)[None].to(hardware.device()))
    finally:
        for handle in handles:
            handle.remove()
    return totals / sum(len(row.ids) for row in encoded)


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
