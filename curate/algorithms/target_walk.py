"""Share a ranking between targets: each in turn takes its nearest row that is still free.

The round robin of RDS+ (Ivison et al. 2025, "Large-Scale Data Selection for Instruction Tuning", arXiv 2503.01807): ranking rows by their
nearest target alone would give the first places to the targets that the pool is full of. Here groups of targets take
turns first, then the targets of a group, so that a task with five examples gets as much as one with fifty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def target_walk(nearest: Sequence[np.ndarray], groups: Sequence[str], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(rows int64 (m,), in the order in which they are taken, none twice; the target int64 (m,) that took each).

    nearest  for each target its rows, nearest first, int
    groups   the group of each target
    seed     draws the order of groups in each round, and of targets in a group

    A target whose rows are used up leaves the walk; it ends when all have. Time O(sum of the lengths).
    """
    random = np.random.default_rng(seed)
    names = sorted(set(groups))
    turns = {name: [int(i) for i in random.permutation([i for i, group in enumerate(groups) if group == name])] for name in names}
    at = [0] * len(nearest)
    taken: set[int] = set()
    rows: list[int] = []
    targets: list[int] = []
    while names:
        for name in (names[i] for i in random.permutation(len(names))):
            queue = turns[name]
            while queue:
                target = queue.pop(0)
                mine = nearest[target]
                while at[target] < len(mine) and int(mine[at[target]]) in taken:
                    at[target] += 1
                if at[target] < len(mine):
                    row = int(mine[at[target]])
                    taken.add(row)
                    rows.append(row)
                    targets.append(target)
                    queue.append(target)
                    break
        names = [name for name in names if turns[name]]
    return np.array(rows, np.int64), np.array(targets, np.int64)
