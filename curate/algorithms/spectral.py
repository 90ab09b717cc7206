"""From spectral coordinates to clusters (Ng, Jordan, Weiss 2001): how many, and what to compare.

Rows of the top eigenvectors are scaled to length 1 and grouped by spherical k-means. Unscaled diffusion
coordinates lose (ARI .38 instead of .60-.65 in our anchors): a few long axes dominate.
"""

from __future__ import annotations

import numpy as np


def eigengap(values: np.ndarray, k_min: int, k_max: int, components: int = 1) -> tuple[int, np.ndarray]:
    """(k, gaps): k clusters where the k-th eigenvalue stands furthest above the next, k_min <= k <= k_max.

    values   descending, eigenvalue 1 once per component at the head; gaps[i] = values[i] - values[i + 1]

    Never fewer than the components, within k_max: each is separate already. Ties: the smaller k.
    """
    values = np.asarray(values, np.float64)
    gaps = values[:-1] - values[1:]
    low = min(max(k_min, components), k_max)
    if low < 1 or k_max < k_min:
        raise ValueError(f"k_min {k_min} and k_max {k_max}: give 1 <= k_min <= k_max")
    allowed = gaps[low - 1 : k_max]
    # Fewer eigenvalues than k_min: every one of them is a cluster.
    return (low + int(np.argmax(allowed)), gaps) if len(allowed) else (max(1, min(low, len(values))), gaps)


def row_normalised(coordinates: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32 (n, m). A row of zeros stays one (it has no place)."""
    lengths = np.sqrt(np.square(coordinates).sum(axis=1, keepdims=True))
    return (coordinates / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def cluster_means(unit: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean direction of each label's rows, unit float32 (k, d); zero where the rows cancel."""
    means = np.zeros((int(labels.max()) + 1, unit.shape[1]))
    for label in range(len(means)):
        means[label] = unit[labels == label].astype(np.float64).mean(axis=0)
    norms = np.sqrt(np.square(means).sum(axis=1, keepdims=True))
    return (means / np.where(norms > 1e-9, norms, np.inf)).astype(np.float32)


def similarity_to_own(unit: np.ndarray, labels: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Cosine of each row to the mean of its label, float32 (n,). Independent of the batch."""
    similarity = np.empty(len(unit), np.float32)
    for start in range(0, len(unit), 4096):
        block = slice(start, start + 4096)
        similarity[block] = (unit[block].astype(np.float64) * means[labels[block]]).sum(axis=1)
    return similarity


def compare(unit: np.ndarray, mine: np.ndarray, baseline: np.ndarray, seed: int, sample: int = 1000) -> dict[str, float]:
    """Agreement of two labelings of the same rows, and two qualities of each that need no truth.

    nmi, ari; *_within: mean cosine to the own cluster's mean; *_silhouette: cosine silhouette on a seeded
    sample of at most `sample` rows (it is quadratic), 0 where a labeling has one cluster or only single rows.
    Both qualities favour k-means, which optimises the first: read them as a check, not as a contest.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

    report = {
        "nmi": float(normalized_mutual_info_score(baseline, mine)),
        "ari": float(adjusted_rand_score(baseline, mine)),
    }
    drawn = np.sort(np.random.default_rng(seed).permutation(len(unit))[:sample])
    for name, labels in (("own", mine), ("kmeans", baseline)):
        report[f"{name}_within"] = float(similarity_to_own(unit, labels, cluster_means(unit, labels)).mean(dtype=np.float64))
        scorable = 1 < len(np.unique(labels[drawn])) < len(drawn)
        report[f"{name}_silhouette"] = float(silhouette_score(unit[drawn], labels[drawn], metric="cosine")) if scorable else 0.0
    return report
