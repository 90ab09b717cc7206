"""Random rows of the same lengths as the chosen ones: the control that tells choosing rows from choosing lengths.

A selection that prefers short rows gets more rows, and more training steps, out of a budget of tokens. The random
control must share that: for every chosen row one random row of nearly the same prompt and response length
(nearest-neighbour matching without replacement, Rubin 1973, with a random one of the nearest instead of the nearest).
"""

from __future__ import annotations

import numpy as np

_NEAREST = 10  # a random one of so many: enough for another seed to be another control, few enough for the lengths to agree


def length_matched(
    prompt_tokens: np.ndarray, response_tokens: np.ndarray, chosen: np.ndarray, eligible: np.ndarray, seed: int
) -> np.ndarray:
    """Row numbers, int64 (len(chosen),): place i holds the row drawn for chosen[i]; none twice, none of them chosen.

    prompt_tokens, response_tokens   int (n,) >= 0, tokens of every row
    chosen, eligible                 int (m,), (e,): row numbers; chosen rows among the eligible are passed over
    seed                             another seed draws other rows; the same inputs and seed draw the same

    Nearest in (log(1 + prompt), log(1 + response)), so that 4 tokens against 8 count as 400 against 800. The chosen are
    served in random order: where rows of a length run out, no part of the chosen is always the one served last.
    """
    from scipy.spatial import cKDTree

    chosen, eligible = np.asarray(chosen), np.asarray(eligible)
    for name, rows in (("chosen", chosen), ("eligible", eligible)):
        if rows.size and not np.issubdtype(rows.dtype, np.integer):
            raise ValueError(f"{name} holds {rows.dtype}: give row numbers (np.flatnonzero of a mask)")
    free = np.setdiff1d(eligible, chosen).astype(np.int64)
    if len(np.unique(chosen)) != len(chosen):
        raise ValueError("chosen names a row twice: give every row once")
    if len(free) < len(chosen):
        raise ValueError(
            f"{len(chosen)} rows to match and {len(free)} to draw from: choose at most half of the rows, or give a larger pool"
        )
    if not len(chosen):
        return np.empty(0, np.int64)
    random = np.random.default_rng(seed)
    points = np.log1p(np.column_stack([prompt_tokens, response_tokens]).astype(np.float64))
    # Lengths are whole numbers, so many rows share a place: noise far below one token makes the order among them random.
    places = points[free] + random.uniform(0, 1e-6, (len(free), 2))
    used = np.zeros(len(free), bool)
    drawn = np.empty(len(chosen), np.int64)
    left = np.arange(len(free))
    tree, dead = cKDTree(places), 0
    for place in random.permutation(len(chosen)):
        if 2 * dead > len(left):  # the tree is mostly used rows: plant it anew
            left = np.flatnonzero(~used)
            tree, dead = cKDTree(places[left]), 0
        wanted = min(_NEAREST, len(left) - dead)
        look = _NEAREST
        while True:
            look = min(2 * look, len(left))
            nearest = left[np.atleast_1d(tree.query(points[chosen[place]], look)[1])]
            nearest = nearest[~used[nearest]][:wanted]
            if len(nearest) == wanted:
                break
        taken = nearest[random.integers(wanted)]
        used[taken], dead = True, dead + 1
        drawn[place] = free[taken]
    return drawn


def deviation(prompt_tokens: np.ndarray, response_tokens: np.ndarray, chosen: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    """How well `drawn` matches `chosen`, in tokens: mean absolute difference of a pair, and drawn minus chosen in total.

    Keys: `mean_prompt`, `mean_response`; `total_prompt`, `total_response`; `tokens`, `response_tokens` (the total as a
    share of what the chosen hold; 0 for a perfect match).
    """
    if not len(chosen):
        return dict.fromkeys(("mean_prompt", "mean_response", "total_prompt", "total_response", "tokens", "response_tokens"), 0.0)
    prompt, response = np.asarray(prompt_tokens, np.float64), np.asarray(response_tokens, np.float64)
    by_prompt, by_response = prompt[drawn] - prompt[chosen], response[drawn] - response[chosen]
    return {
        "mean_prompt": float(np.abs(by_prompt).mean()),
        "mean_response": float(np.abs(by_response).mean()),
        "total_prompt": float(by_prompt.sum()),
        "total_response": float(by_response.sum()),
        "tokens": float((by_prompt + by_response).sum() / max((prompt + response)[chosen].sum(), 1)),
        "response_tokens": float(by_response.sum() / max(response[chosen].sum(), 1)),
    }
