"""Width pruning of the feed-forward blocks by first-order Taylor importance (Ma et al. 2023, LLM-Pruner, arXiv 2305.11627).

A neuron is a row of the gate, the same row of the up and the same column of the down projection. Two departures from
LLM-Pruner: attention is left alone (with 3 key-value heads a whole group is a third of it), and every layer loses the
same number of neurons, so that `intermediate_size` describes the copy; LLM-Pruner spares the first and last layers and
needs a loader of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from curate import models
from curate.algorithms.taylor import most_important, neuron_importance
from curate.encoding import Encoded
from curate.errors import UserMistake
from curate.prune._pruning import Pruning
from curate.stage import Resources

PARTS = ("gate_proj", "up_proj", "down_proj")


class Ffn(Pruning):
    """Makes the pruned copy of a model: removes the feed-forward neurons that the loss on rows of this run depends on least.

    share     share of the neurons to remove from every layer
    multiple  what is left is rounded down to a multiple of this, for kernels that like such widths

    The note adds `width_before` and `width_after`.
    """

    share: float = Field(gt=0, lt=1)
    multiple: int = Field(default=8, ge=1)

    def resources(self) -> Resources:
        return Resources(memory=2 * models.memory(self.model, precision="float32"))  # gradients and stored activations

    def cut(self, model: Any, calibration: Sequence[Encoded]) -> dict[str, Any]:
        blocks = _blocks(model)
        before = model.config.intermediate_size
        # Without the small term 0.9 of 40 neurons would be 35.999...
        width = math.floor(before * (1 - self.share) + 1e-9) // self.multiple * self.multiple
        if width < 1:
            raise UserMistake(f"share {self.share} of {before} neurons leaves less than {self.multiple}: give a smaller share or multiple")
        for block, importance in zip(blocks, _importance(model, blocks, calibration), strict=True):
            _keep(block, most_important(importance, width))
        model.config.intermediate_size = width
        return {"width_before": before, "width_after": width}


def _blocks(model: Any) -> list[Any]:
    """The feed-forward block of each layer."""
    found: list[Any] = [getattr(layer, "mlp", None) for layer in models.decoder_layers(model)]
    if not all(hasattr(block, name) for block in found for name in PARTS):
        raise UserMistake(f"{type(model).__name__} has no gated feed-forward block in every layer: use a dense Llama-like model")
    if {block.up_proj.out_features for block in found} != {model.config.intermediate_size}:
        raise UserMistake(f"the layers of {type(model).__name__} have different widths: use a model with one intermediate_size")
    return found


def _importance(model: Any, blocks: Sequence[Any], encoded: Sequence[Encoded]) -> list[np.ndarray]:
    """Importance of each block's neurons under the mean loss per token; the gradient is summed text by text."""
    import torch

    weights = [[getattr(block, name).weight for name in PARTS] for block in blocks]
    for weight in (weight for three in weights for weight in three):
        weight.requires_grad_(True)
    tokens = sum(int(row.scored.sum()) for row in encoded)
    for row in encoded:
        batch = models.collate([row])
        logits = model(input_ids=batch.inputs, use_cache=False).logits[batch.rows, batch.columns].float()
        (torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum") / tokens).backward()
    importance = [neuron_importance(*((weight.detach(), weight.grad) for weight in three)) for three in weights]
    for weight in (weight for three in weights for weight in three):
        weight.requires_grad_(False)
        weight.grad = None
    return importance


def _keep(block: Any, neurons: np.ndarray) -> None:
    """Cut the three projections to these neurons, in place."""
    import torch

    kept = torch.from_numpy(neurons).to(block.up_proj.weight.device)

    def parameter(values: Any) -> Any:
        return torch.nn.Parameter(values.detach().clone(), requires_grad=False)

    for layer in (block.gate_proj, block.up_proj):
        layer.weight, layer.out_features = parameter(layer.weight[kept]), len(neurons)
        if layer.bias is not None:
            layer.bias = parameter(layer.bias[kept])
    block.down_proj.weight, block.down_proj.in_features = parameter(block.down_proj.weight[:, kept]), len(neurons)
    block.intermediate_size = len(neurons)
