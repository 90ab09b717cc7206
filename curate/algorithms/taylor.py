"""First-order Taylor importance of feed-forward neurons (Ma et al. 2023, LLM-Pruner, arXiv 2305.11627, "param_first")."""

from __future__ import annotations

from typing import Any

import numpy as np


def neuron_importance(gate: tuple[Any, Any], up: tuple[Any, Any], down: tuple[Any, Any]) -> np.ndarray:
    """Sum of |weight x gradient| over each neuron's gate row, up row and down column, float64 (neurons,).

    Each argument is (weight, gradient of the loss), tensors as torch.nn.Linear keeps them: gate and up (neurons, hidden),
    down (hidden, neurons). |w g| is the first-order change of the loss when that one weight becomes zero.
    """
    (gate_weight, gate_gradient), (up_weight, up_gradient), (down_weight, down_gradient) = gate, up, down
    total = (gate_weight * gate_gradient).abs().double().sum(1) + (up_weight * up_gradient).abs().double().sum(1)
    return (total + (down_weight * down_gradient).abs().double().sum(0)).cpu().numpy()


def most_important(importance: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` highest, int64 ascending; ties go to the earlier one."""
    if not 1 <= count <= len(importance):
        raise ValueError(f"cannot keep {count} of {len(importance)} neurons: give 1 to {len(importance)}")
    return np.sort(np.argsort(-importance, kind="stable")[:count])
