"""What every clustering has in common: rows in, labels and their baseline out, and an account of both.

fit     vectors -> unit rows -> a space (see `Space`) -> spherical k-means in it -> labels, 0 the largest
load    a row's place in the space -> the nearest center: one formula for rows that the fit saw and for others

Beside every method runs k-means on the vectors themselves, and both are held against bootstrap resamples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate.algorithms import cluster_map, drift, knn, spectral, stability
from curate.algorithms.kmeans import spherical_kmeans
from curate.errors import UserMistake
from curate.stage import FitEngine, Inputs, Stage, TableFunction

COLUMNS = pa.schema(
    [
        ("cluster", pa.int32()),  # 0 is the largest at the fit; null: the vector has no direction
        ("cluster_similarity", pa.float32()),  # cosine of the vector to the mean vector of its cluster
        ("cluster_outside", pa.bool_()),  # farther from that mean than 99 % of the cluster's rows at the fit
        ("kmeans_cluster", pa.int32()),  # the baseline's label for the same row
        ("map_x", pa.float32()),  # place on the map of clusters (algorithms/cluster_map.py): for pictures only
        ("map_y", pa.float32()),
    ]
)
LIBRARIES = ("numpy", "scipy", "scikit-learn", "faiss-cpu", "faiss-gpu")

# Starts of the baseline: enough that it is an honest rival, few enough to cost less than the method beside it.
_BASELINE_RESTARTS = 3
# Rows that stability is measured on, and starts of each of its many small k-means.
_STABILITY_ROWS = 3000
_STABILITY_RESTARTS = 2
# Numbers of clusters that are tried between k_min and k_max, in equal ratios.
_CANDIDATES = 9


class Space(Protocol):
    """Where rows are grouped, made from the rows of a fit."""

    def coordinates(self, unit: np.ndarray) -> np.ndarray:
        """float32 (n, m) of unit rows (n, d), each by itself: the costly part, the same for every k."""

    def spots(self, coordinates: np.ndarray, k: int) -> np.ndarray:
        """Unit rows float32 (n, m') to be grouped into k clusters."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What the artifact has to hold."""

    def about(self) -> dict[str, Any]:
        """What info.json tells of it; notes on settings that had to be lowered under `lowered`."""


class Clustering(Stage):
    """Settings of every clustering. A method overrides `space` and `stored`."""

    column: str = "vector"
    k: int | None = Field(default=None, ge=1)
    k_min: int = Field(default=4, ge=1)
    k_max: int = Field(default=64, ge=1)
    restarts: int = Field(default=5, ge=1)
    resamples: int = Field(default=10, ge=0)
    max_fit_rows: int = Field(default=200_000, ge=1)
    truth: str | None = None
    seed: int = 0

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate"})
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    @model_validator(mode="after")
    def _ranges(self) -> Any:
        if self.k_min > self.k_max:
            raise ValueError(f"k_min {self.k_min} is above k_max {self.k_max}: lower k_min, or set k")
        if 0 < self.resamples < 3:
            raise ValueError(f"resamples {self.resamples} tell nothing: give at least 3, or 0 to leave stability out")
        return self

    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    def reads_if_present(self) -> tuple[str, ...]:
        return (self.truth,) if self.truth else ()

    def writes(self) -> pa.Schema:
        return COLUMNS

    def space(self, unit: np.ndarray, seed: int) -> Space:
        raise NotImplementedError

    def stored(self, arrays: Mapping[str, np.ndarray]) -> Space:
        raise NotImplementedError

    def choose_k(self, unit: np.ndarray, space: Space) -> tuple[int, dict[str, Any]]:
        """(k, what info.json says of the choice): by bootstrap stability, unless a method knows better."""
        candidates = np.unique(np.geomspace(self.k_min, self.k_max, _CANDIDATES).round().astype(int)).tolist()
        found = stability.k_by_stability(self._labels_for(candidates), unit, candidates, self.seed, 6, _STABILITY_ROWS)
        tried = [
            {"k": k, "stability": own, "without_clusters": null, "score": score}
            for k, own, null, score in zip(
                found.candidates, *(x.tolist() for x in (found.stability.mean, found.null.mean, found.score)), strict=True
            )
        ]
        return found.k, {"k_by": "stability", "k_tried": tried}

    def fit(self, inputs: Inputs, engine: FitEngine, folder: Path) -> None:
        unit, truth, rows = fit_rows(inputs, self.column, self.max_fit_rows, self.seed, self.truth)
        space = self.space(unit, self.seed)
        k, choice = (self.k, {"k_by": "recipe"}) if self.k else self.choose_k(unit, space)
        spots = space.spots(space.coordinates(unit), k)
        labels, groups = self.group(space, unit, spots, k, self.seed, self.restarts)
        middles = spectral.cluster_means(spots, labels)
        found = int(labels.max()) + 1
        lowered = [*space.about().get("lowered", ())]
        if found < k:
            lowered.append(f"k from {k} to {found}: no more distinct places")
        baseline, plain = spherical_kmeans(unit, found, self.seed, _BASELINE_RESTARTS)
        arrays = {
            **space.arrays(),
            **groups,
            "k": np.array(k),
            "baseline": baseline,
            "means": spectral.cluster_means(unit, labels),
            "middles": middles,
            "layout": cluster_map.layout(middles),
            **drift.fit_reference(unit, labels, self.seed).arrays(),
        }
        np.savez(folder / "clusters.npz", **arrays)  # type: ignore[arg-type]
        held = self.held_against_kmeans(unit, labels, plain, truth, k)
        info = {
            "method": type(self).__module__.rsplit(".", 1)[-1],
            "column": self.column,
            **rows,
            **space.about(),
            "k": found,
            **choice,
            "lowered": lowered,
            "remarks": [*lowered, *([held["verdict"]] if "verdict" in held else [])],
            "sizes": np.bincount(labels).tolist(),
            "baseline": spectral.compare(unit, labels, plain, self.seed),
            **held,
        }
        (folder / "info.json").write_text(json.dumps(info, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def group(
        self, space: Any, unit: np.ndarray, spots: np.ndarray, k: int, seed: int, restarts: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(labels int32 (n,) of the rows of the fit, 0 the largest, none empty; arrays for `labelling`). `spots`: where the rows are."""
        centers, labels = spherical_kmeans(spots, k, seed, restarts)
        return labels, {"centers": centers}

    def labelling(self, space: Any, groups: Mapping[str, np.ndarray]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Unit rows and their spots -> labels, each row by itself."""
        return lambda unit, spots: nearest_center(spots, groups["centers"])

    def held_against_kmeans(
        self, unit: np.ndarray, labels: np.ndarray, plain: np.ndarray, truth: np.ndarray | None, k: int
    ) -> dict[str, Any]:
        """Stability of both over bootstrap resamples, agreement of both with known labels, and a sentence where k-means is better."""
        found: dict[str, Any] = {}
        worse: list[str] = []
        if self.resamples and len(unit) > k > 1:
            some = unit[np.sort(np.random.default_rng(self.seed).permutation(len(unit))[:_STABILITY_ROWS])]
            own = stability.resample_stability(self._labels_for([k]), some, self.seed, self.resamples)
            kmeans = stability.resample_stability(_kmeans_labels(k), some, self.seed, self.resamples)
            found["stability"] = {
                "own": float(own.mean[0]),
                "kmeans": float(kmeans.mean[0]),
                "rows": len(some),
                "resamples": self.resamples,
            }
            if own.mean[0] < kmeans.mean[0]:
                worse.append(f"less stable over resamples of the rows ({own.mean[0]:.3f} against {kmeans.mean[0]:.3f})")
        if truth is not None:
            from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

            found["truth"] = {}
            for name, score in (("nmi", normalized_mutual_info_score), ("ari", adjusted_rand_score)):
                ours, theirs = float(score(truth, labels)), float(score(truth, plain))
                found["truth"] |= {f"own_{name}": ours, f"kmeans_{name}": theirs}
                if ours < theirs:
                    worse.append(f"farther from the labels in '{self.truth}' by {name.upper()} ({ours:.3f} against {theirs:.3f})")
        if worse:
            found["verdict"] = f"These clusters are {' and '.join(worse)} than k-means on the same vectors: consider method: kmeans."
        return found

    def load(self, folder: Path) -> TableFunction:
        arrays = np.load(folder / "clusters.npz", allow_pickle=False)
        model = {name: arrays[name] for name in arrays.files}
        space, k = self.stored(model), int(model["k"])
        label = self.labelling(space, model)
        baseline, means, reference = model["baseline"], model["means"], drift.Reference.of_arrays(model)
        assert reference is not None

        def assign(table: pa.Table) -> pa.Table:
            unit, bad = knn.unit_rows(vector_rows(table.column(self.column), self.column, means.shape[1]))
            spots = space.spots(space.coordinates(unit), k)
            labels = label(unit, spots)
            flat = cluster_map.place(spots, model["middles"], model["layout"]).T
            none = np.zeros(len(unit), bool)
            none[bad] = True
            outside = drift.outside(reference, unit, labels)
            values = (labels, spectral.similarity_to_own(unit, labels, means), outside, nearest_center(unit, baseline), flat[0], flat[1])
            arrays = [pa.array(column, field.type, mask=none) for column, field in zip(values, COLUMNS, strict=True)]
            return pa.Table.from_arrays(arrays, schema=COLUMNS)

        return assign

    def _labels_for(self, candidates: list[int]) -> stability.Cluster:
        def cluster(sample: np.ndarray, every: np.ndarray, seed: int) -> list[np.ndarray]:
            space = self.space(sample, seed)
            mine, theirs = space.coordinates(sample), space.coordinates(every)
            found = []
            for k in candidates:
                groups = self.group(space, sample, space.spots(mine, k), k, seed, _STABILITY_RESTARTS)[1]
                found.append(self.labelling(space, groups)(every, space.spots(theirs, k)))
            return found

        return cluster


def _kmeans_labels(k: int) -> stability.Cluster:
    return lambda sample, every, seed: [nearest_center(every, spherical_kmeans(sample, k, seed, _STABILITY_RESTARTS)[0])]


def fit_rows(
    inputs: Inputs, column: str, most: int, seed: int, truth: str | None = None
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """(unit rows float32 (n, d), their labels in the column `truth` or None, what was read).

    At most `most` rows, drawn by seed whatever the sharding. Rows without a known label are left out of the labels' account
    only if no row has one: otherwise they are a class of their own, "".
    """
    chosen = None
    if inputs.rows > most:  # an upper bound: count what is visible
        visible = sum(len(table) for _, table in inputs.tables())
        if visible > most:
            chosen = np.sort(np.random.default_rng(seed).permutation(visible)[:most])
    parts: list[np.ndarray] = []
    known: list[str] = []
    unusable: list[str] = []
    start = 0
    for shard, table in inputs.tables():
        unit, bad = knn.unit_rows(vector_rows(table.column(column), column))
        places = table.column("position").to_numpy() if "position" in table.column_names else np.arange(len(table))
        unusable += [f"{shard}:{place}" for place in places[bad]]
        wanted = np.ones(len(table), bool)
        if chosen is not None:
            wanted = np.isin(np.arange(start, start + len(table)), chosen, assume_unique=True)
        wanted[bad] = False
        parts.append(unit[wanted])
        if truth:
            labels = table.column(truth).to_pylist() if truth in table.column_names else [None] * len(table)
            known += ["" if labels[row] is None else str(labels[row]) for row in np.flatnonzero(wanted)]
        start += len(table)
    widths = {part.shape[1] for part in parts if len(part)}
    if not widths:
        raise UserMistake(f"no row to cluster has a vector in '{column}': check what hides the rows (`curate status`), and the embed step")
    if len(widths) > 1:
        raise UserMistake(f"vectors of widths {sorted(widths)} in '{column}': embed all rows with one model")
    if truth and not any(known):
        raise UserMistake(f"no row has a label in '{truth}': name a column of the corpus under `truth`, and list it in ingest.keep")
    unit = np.concatenate([part for part in parts if len(part)])
    rows = {"rows": start, "fitted_on": len(unit), "unusable": len(unusable), "unusable_at": unusable[:100], "fitted_shards": inputs.shards}
    return unit, np.array(known) if truth else None, rows


def vector_rows(column: pa.ChunkedArray | pa.Array, name: str, width: int | None = None) -> np.ndarray:
    """(n, d) float32 from a list column; a null row becomes NaN. `width`: the d that is expected."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not isinstance(array, pa.FixedSizeListArray | pa.ListArray | pa.LargeListArray):
        raise UserMistake(f"'{name}' holds {array.type}, not vectors: name a column of lists of float32 under `column`")
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    # drop_null first: a null list of fixed size still has values under it
    lengths = set(array.value_lengths().drop_null().to_pylist()) | ({width} if width else set())
    if len(lengths) > 1:
        raise UserMistake(f"vectors of widths {sorted(lengths)} in '{name}': embed all rows with one model")
    d = lengths.pop() if lengths else 0
    rows = np.full((len(array), d), np.nan, np.float32)
    rows[valid] = array.drop_null().flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, d) if d else 0
    return rows


def nearest_center(unit: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """int32 (n,). The lower label wins a tie."""
    return knn.search(unit, centers, 1)[1][:, 0].astype(np.int32)
