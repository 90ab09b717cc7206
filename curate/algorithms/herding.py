"""Put rows in an order whose every beginning stands for the whole: kernel herding.

Welling (ICML 2009) and Chen, Welling and Smola (UAI 2010, arXiv 1203.3472): each row is the one that brings the mean of
those taken so far nearest to the mean of all. The best-scored rows of a heap resemble each other (one answer of two, one
template of five); a beginning of this order has them in proportion, with less chance in it than a random draw. On
gradients it is the idea of CRAIG (Mirzasoleiman et al. 2020, arXiv 1906.01827): train on few rows whose gradients add up
like those of all.
"""

from __future__ import annotations

import numpy as np


def herding_order(unit: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Row numbers, int64 (n,), in the order of herding; of equal rows the first comes first.

    unit  float32 (n, d), rows of length 1;  mean: (d,) that the beginnings are to come near, usually the rows' own

    Time O(n^2 d), memory O(n^2): give blocks of some thousand rows.
    """
    unit = np.asarray(unit, np.float32)
    alike, wanted = unit @ unit.T, unit @ np.asarray(mean, np.float32)
    order, taken = np.empty(len(unit), np.int64), np.zeros(len(unit))
    left = np.zeros(len(unit))  # -inf once a row is placed
    for place in range(len(unit)):
        order[place] = row = int(np.argmax(wanted - taken / (place + 1) + left))
        taken += alike[row]
        left[row] = -np.inf
    return order
