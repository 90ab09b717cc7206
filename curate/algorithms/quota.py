"""Give back to every group some of what one cut took from it: arrays in, arrays out."""

from __future__ import annotations

import numpy as np

SLACK = 1e-9  # of a share of whole tokens


def spare(group: np.ndarray, mass: np.ndarray, cut: np.ndarray, order: np.ndarray, share: float) -> np.ndarray:
    """Which of the cut rows come back, bool (n,): of every group the first ones, until with what was never cut it has `share` of its mass.

    group  int (n,) from 0;  mass: float64 (n,) >= 0, whole numbers;  cut: bool (n,)
    order  int (m,): the cut rows, in the order in which they may come back

    A group that has its share gets nothing back; where all its cut rows do not reach the share, all come back. The row that reaches the
    share is the last one, however large: a group with rows to give never ends below it. Time O(n + m log m).
    """
    lacking = share * np.bincount(group, mass) - np.bincount(group, mass * ~cut)
    order = order[np.argsort(group[order], kind="stable")]
    before = np.cumsum(mass[order]) - mass[order]
    of_groups = np.bincount(group, mass * cut)
    before -= (np.cumsum(of_groups) - of_groups)[group[order]]  # now within the group
    back = np.zeros(len(group), bool)
    back[order] = before < lacking[group[order]] - SLACK
    return back
