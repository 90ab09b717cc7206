r"""Our clusters beside scikit-learn's at 20,000 rows, and beside the published reference algorithm at up to 4,000.

    OMP_NUM_THREADS=1 python benchmarks/cluster_peers.py --data ../shared/data --run RUN --cache DIR \
        --methods diffused landmarks kmeans --out benchmarks/results/cluster_peers.md

Rows: the instruct pool without near duplicates (see cluster_scale.py for RUN), a seeded draw; truth: the capability of
each row; k is the number of capabilities drawn. The peers are

- `SpectralClustering(affinity="nearest_neighbors", n_neighbors=15)` of scikit-learn, all else its default;
- S2RIC of PASER (arXiv 2502.12594), written anew from its description: Gaussian kernel of all pairs with the median
  distance as bandwidth, L = I - D^-1 A with the inverse of D computed as a dense matrix, `eigsh` for the k smallest of
  L (which is not symmetric), S = |Psi Psi^T|, NMF of S from a random start with seed 0, label = largest entry.

Each clustering runs in its own process: CPU seconds, and peak memory beyond the vectors and the libraries. Ours are the
stages: the fit, which labels its rows as the peers do and includes the k-means baseline beside, not stability over
resamples; and the labels of all rows, where the fit saw a part of them. Labelling the rows of a whole fit again by the
out-of-sample rule, which the peers have not, is shown apart.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from cluster_scale import Shards, in_a_process, machine, peak_gb, pool, stage_of, write_shard

ROWS = 20_000
REFERENCE_ROWS = (1000, 2000, 4000)
SCIKIT, REFERENCE = "scikit-learn SpectralClustering", "reference algorithm (PASER, S2RIC)"


def by_sklearn(unit: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import SpectralClustering

    return SpectralClustering(k, affinity="nearest_neighbors", n_neighbors=15, random_state=seed, n_jobs=1).fit_predict(unit)


def by_reference(unit: np.ndarray, k: int, seed: int) -> np.ndarray:
    from scipy.sparse.linalg import eigsh
    from scipy.spatial.distance import cdist
    from sklearn.decomposition import NMF

    distances = cdist(unit, unit)
    sigma = np.median(distances)
    affinity = np.exp(-np.square(distances) / (2 * sigma**2))
    laplacian = np.eye(len(unit)) - np.linalg.inv(np.diag(affinity.sum(axis=1))) @ affinity
    _, psi = eigsh(laplacian, k=k, which="SM")
    similarity = np.abs(psi @ psi.T)
    return NMF(n_components=k, init="random", random_state=0).fit_transform(similarity).argmax(axis=1)


def measure(file: Path, method: str, k: int, seed: int) -> dict[str, Any]:
    """In a fresh process: labels, CPU seconds, and peak GB beyond what vectors and libraries take."""
    for library in ("scipy.sparse.linalg", "scipy.spatial.distance", "sklearn.cluster", "sklearn.decomposition", "faiss"):
        importlib.import_module(library)  # so that neither its time nor its memory is counted
    peers = {SCIKIT: by_sklearn, REFERENCE: by_reference}
    rows = pq.read_metadata(file).num_rows
    if method in peers:
        unit = pq.read_table(file)["vector"].combine_chunks().flatten().to_numpy().reshape(rows, -1)
        before, begin = peak_gb(), time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "the graph is not fully connected", "maximum number of iterations"
            labels = peers[method](unit, k, seed)
    else:
        stage, inputs = stage_of(method, k, seed), Shards(file.parent, rows)
        table = inputs.table(file.stem)
        before, begin = peak_gb(), time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            stage.fit(inputs, None, Path(folder))
            fitted = time.process_time()
            labels = stage.load(Path(folder))(table)["cluster"].to_numpy()
            labelled = time.process_time()
            part = json.loads((Path(folder) / "info.json").read_text())["fitted_on"] < rows
        # A fit on a part of the rows has not labelled the others: then labelling all of them counts as well.
        return {
            "seconds": (labelled if part else fitted) - begin,
            "label": 0.0 if part else labelled - fitted,
            "extra": peak_gb() - before,
            "labels": labels.tolist(),
        }
    return {"seconds": time.process_time() - begin, "label": 0.0, "extra": peak_gb() - before, "labels": labels.tolist()}


def compare(unit: np.ndarray, truth: np.ndarray, methods: list[str], seeds: dict[str, int], scratch: Path) -> dict[str, dict[str, float]]:
    """Means over seeds for each method on these rows: nmi, ari, CPU seconds; the highest extra memory."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    scratch.mkdir(parents=True, exist_ok=True)
    file = (scratch / "00000.parquet").resolve()
    write_shard(unit, file)
    found = {}
    for method in methods:
        runs = [in_a_process(__file__, file=str(file), method=method, k=len(set(truth)), seed=seed) for seed in range(seeds.get(method, 3))]
        found[method] = {
            "nmi": float(np.mean([normalized_mutual_info_score(truth, run["labels"]) for run in runs])),
            "ari": float(np.mean([adjusted_rand_score(truth, run["labels"]) for run in runs])),
            "seconds": float(np.mean([run["seconds"] for run in runs])),
            "label": float(np.mean([run["label"] for run in runs])),
            "extra": max(run["extra"] for run in runs),
        }
        print(len(unit), method, {name: round(value, 3) for name, value in found[method].items()}, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="our clusters beside scikit-learn's and the published reference algorithm")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--run", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "curate-bench-pool")
    parser.add_argument("--methods", nargs="+", default=["diffused", "landmarks", "kmeans"], help="files of curate/cluster, without .py")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--reference-rows", type=int, nargs="+", default=REFERENCE_ROWS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        wanted = json.loads(arguments.one)
        print(json.dumps(measure(Path(wanted["file"]), wanted["method"], wanted["k"], wanted["seed"])))
        return
    unit, truth = pool(arguments.data, arguments.run, arguments.cache)
    order = np.random.default_rng(0).permutation(len(unit))

    def drawn(rows: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.sort(order[:rows])
        return unit[chosen], truth[chosen]

    large = compare(*drawn(arguments.rows), [*arguments.methods, SCIKIT], {SCIKIT: 1}, arguments.cache / "peers")
    peer = large[SCIKIT]
    lines = [
        "# Clusters beside the peers",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/cluster_peers.py --data ../shared/data --run RUN --cache DIR --out FILE`",
        "",
        "Instruct pool without near duplicates, truth: capability, k as many as there are. Mean of 3 seeds (peers: one). Memory beyond the",
        "vectors and the libraries. CPU-s until all rows have labels, the k-means baseline beside included, stability over resamples not;",
        "labelling again: rows that the fit has labelled, by the out-of-sample rule, which the peers have not.",
        machine("numpy", "scipy", "scikit-learn", "faiss-cpu"),
        "",
        f"## {arguments.rows:,} rows, {len(set(drawn(arguments.rows)[1]))} capabilities",
        "",
        "| method | NMI | ARI | CPU-s | labelling again | memory, GB | the peer's CPU time over this one's |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {method} | {one['nmi']:.3f} | {one['ari']:.3f} | {one['seconds']:.1f} | {one['label']:.1f} | {one['extra']:.2f} | {peer['seconds'] / one['seconds']:.1f} |"
            for method, one in large.items()
        ),
        "",
        "## The published reference algorithm",
        "",
        "Each cell: NMI / ARI / CPU-s / memory, GB.",
        "",
        "| method | " + " | ".join(f"{rows:,} rows" for rows in arguments.reference_rows) + " | its CPU time over this one's, most rows |",
        "|---|" + "---:|" * (len(arguments.reference_rows) + 1),
    ]
    methods = [*arguments.methods, REFERENCE]
    small = [compare(*drawn(rows), methods, {REFERENCE: 1}, arguments.cache / "peers") for rows in arguments.reference_rows]
    for method in methods:
        cells = [
            f"{one[method]['nmi']:.3f} / {one[method]['ari']:.3f} / {one[method]['seconds']:.2f} / {one[method]['extra']:.2f}"
            for one in small
        ]
        ratio = small[-1][REFERENCE]["seconds"] / small[-1][method]["seconds"]
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {ratio:.1f} |")
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
