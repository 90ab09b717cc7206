"""Soft clusters: non-negative factors of the landmark graph, started from its spectral clusters.

PASER (arXiv 2502.12594) clusters by NMF of a dense affinity from a random start; here the graph is sparse, the start is a
clustering already found, and a row outside the fit gets its memberships from its own ties (algorithms/nmf.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.algorithms import knn, landmarks, nmf
from curate.algorithms.kmeans import spherical_kmeans, stable_order
from curate.cluster._clustering import COLUMNS, vector_rows
from curate.cluster.landmarks import Landmarks, LandmarkSpace
from curate.stage import TableFunction

MEMBERSHIPS = [
    pa.field("cluster_memberships", pa.list_(pa.float32())),  # share of the row in each cluster, summing to 1
    pa.field("cluster_entropy", pa.float32()),  # of the memberships, nats: 0 in one cluster, ln 2 half and half
]


class Nmf(Landmarks):
    """Groups rows by non-negative factors of a landmark graph, each row a member of several clusters to some share.

    Columns as in `_clustering.COLUMNS` (`cluster` is the largest share), and `cluster_memberships`, `cluster_entropy`.
    Settings as in `landmarks.Landmarks`.
    """

    def writes(self) -> pa.Schema:
        return pa.schema([*COLUMNS, *MEMBERSHIPS])

    def group(
        self, space: LandmarkSpace, unit: np.ndarray, spots: np.ndarray, k: int, seed: int, restarts: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        start = spherical_kmeans(spots, k, seed, restarts)[1]
        distances, indices = space.ties(unit)
        ties = landmarks.sparse(landmarks.weights(distances, indices, space.placed), indices, len(space.points))
        half = nmf.to_landmarks(ties)
        factors = nmf.symmetric_nmf(lambda x: ties @ half(x), nmf.start_from(start, int(start.max()) + 1))
        products = half(factors.factor)
        shares = nmf.memberships(ties @ products, factors.gram, factors.mass)
        # A factor may end as nobody's largest: then it is no cluster.
        order, labels = stable_order(shares.argmax(axis=1))
        groups = {"products": products[:, order], "gram": factors.gram[np.ix_(order, order)], "mass": factors.mass[order]}
        if len(order) < shares.shape[1]:
            labels = _shares(space, unit, groups).argmax(axis=1).astype(np.int32)
        return labels, groups

    def labelling(self, space: LandmarkSpace, groups: Mapping[str, np.ndarray]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        return lambda unit, spots: _shares(space, unit, groups).argmax(axis=1).astype(np.int32)

    def load(self, folder: Path) -> TableFunction:
        hard = super().load(folder)
        with np.load(folder / "clusters.npz", allow_pickle=False) as stored:
            groups = {name: stored[name] for name in stored.files}
        space = self.stored(groups)

        def assign(table: pa.Table) -> pa.Table:
            labels = hard(table)
            unit, bad = knn.unit_rows(vector_rows(table.column(self.column), self.column, groups["means"].shape[1]))
            shares = _shares(space, unit, groups)
            none = np.zeros(len(unit), bool)
            none[bad] = True
            rows = pa.array(
                [None if empty else row for empty, row in zip(none, shares.astype(np.float32).tolist(), strict=True)], MEMBERSHIPS[0].type
            )
            entropy = pa.array(nmf.entropy(shares), MEMBERSHIPS[1].type, mask=none)
            return pa.Table.from_arrays([*labels.columns, rows, entropy], schema=self.writes())

        return assign


def _shares(space: LandmarkSpace, unit: np.ndarray, groups: Mapping[str, np.ndarray]) -> np.ndarray:
    """Memberships float64 (n, k), rows summing to 1."""
    distances, indices = space.ties(unit)
    ties, products = landmarks.weights(distances, indices, space.placed), groups["products"]
    total = np.zeros((len(unit), products.shape[1]))
    for nearest in range(ties.shape[1]):  # one order of summation, whatever the batch
        total += ties[:, nearest, None] * products[indices[:, nearest]]
    return nmf.memberships(total, groups["gram"], groups["mass"])
