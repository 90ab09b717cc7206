"""Which weights of a linear map count least: magnitude times the norm of the input (Sun et al. 2024, Wanda, arXiv 2306.11695)."""

from __future__ import annotations

from typing import Any


def zeroed(weight: Any, norms: Any, zeros: int, group: int) -> Any:
    """Mask, bool (outputs, inputs): in every `group` neighbouring inputs of a row the `zeros` with the lowest |weight| x norm.

    weight  tensor (outputs, inputs); norms  tensor (inputs,), L2 norm of each input over the calibration tokens.
    `group` = inputs compares whole rows, as the unstructured form does; ties go to the earlier input.
    """
    import torch

    outputs, inputs = weight.shape
    if inputs % group or not 0 <= zeros <= group:
        raise ValueError(f"cannot zero {zeros} of every {group} of {inputs} inputs: give a group that divides them and no more zeros")
    score = (weight.abs() * norms).reshape(outputs, inputs // group, group)
    lowest = score.argsort(dim=-1, stable=True)[..., :zeros]
    return torch.zeros_like(score, dtype=torch.bool).scatter_(-1, lowest, True).reshape(outputs, inputs)
