"""Block influence: how much a layer turns the hidden states that pass through it (Men et al. 2024, ShortGPT, arXiv 2403.03853)."""

from __future__ import annotations

from typing import Any

import numpy as np


def turned(before: Any, after: Any) -> float:
    """Sum over tokens of 1 - cosine(before, after); both tensors (tokens, width). Computed in float64."""
    import torch

    cosine = torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1)
    return float((1.0 - cosine).sum())


def least_influential(influence: np.ndarray, layers: int) -> list[int]:
    """The `layers` layers of lowest block influence, ascending by index; the first and the last always stay.

    Ties go to the later layer.
    """
    count = len(influence)
    if not 1 <= layers <= count - 2:
        raise ValueError(f"cannot remove {layers} of {count} layers: the first and the last stay, so give 1 to {count - 2}")
    inner = np.arange(1, count - 1)
    order = np.lexsort((-inner, influence[1:-1]))
    return sorted(int(layer) for layer in inner[order[:layers]])
