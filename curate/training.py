"""The training loops of the library. Each is deterministic: same arrays in, same weights out, on one thread."""

from __future__ import annotations

from typing import Any

import numpy as np


def fit_logistic(features: Any, positive: np.ndarray, strength: float = 1.0) -> tuple[np.ndarray, float]:
    """Weights float64 (columns,) and bias of an L2-regularised logistic regression, classes weighted equally.

    features  (n, columns), dense or scipy sparse; positive  bool (n,); strength  inverse of the regularisation
    """
    from sklearn.linear_model import LogisticRegression

    if positive.all() or not positive.any():
        raise ValueError("a logistic regression needs rows of both classes: check what is marked as trusted")
    # L-BFGS: no random numbers, unlike liblinear and saga.
    head = LogisticRegression(C=strength, class_weight="balanced", solver="lbfgs", max_iter=300, tol=1e-5)
    head.fit(features, positive.astype(np.int8))
    return head.coef_[0].astype(np.float64), float(head.intercept_[0])


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order; ties count half."""
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))
