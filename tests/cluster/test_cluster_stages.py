"""The cluster stages on vectors typed by hand or drawn: columns, nulls, bytes, what the fit tells."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from given import Shards
from pydantic import ValidationError

from curate.cluster._clustering import vector_rows
from curate.cluster.diffused import Diffused
from curate.cluster.kmeans import KMeans
from curate.cluster.landmarks import Landmarks
from curate.cluster.nmf import Nmf
from curate.cluster.spectral import Spectral
from curate.errors import UserMistake

STAGES = [
    Diffused(k=4, nearest=15, resamples=3),
    Spectral(k=4, resamples=3),
    Spectral(k=4, resamples=0, scaling="diffusion", alpha=1.0),
    Landmarks(k=4, landmarks=80, resamples=3),
    Nmf(k=4, landmarks=80, resamples=0),
    KMeans(k=4, resamples=3),
]
IDS = ["diffused", "spectral", "diffusion map", "landmarks", "nmf", "k-means"]


def table_of(vectors, fixed=True):
    vectors = np.asarray(vectors, np.float32)
    flat = pa.array(vectors.ravel(), pa.float32())
    if fixed:
        return pa.table({"vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})
    return pa.table({"vector": pa.array(vectors.tolist(), pa.list_(pa.float32()))})


def groups(sizes=(160, 120, 80, 40), d=32, noise=0.08, seed=0):
    truth = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return 3 * np.eye(d)[truth] + noise * 3 * np.random.default_rng(seed + 1).normal(size=(len(truth), d)), truth


def fitted(stage, tables, folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    stage.fit(Shards(*tables), None, folder)
    return stage.load(folder), json.loads((folder / "info.json").read_text())


@pytest.mark.parametrize("stage", STAGES, ids=IDS)
def test_groups_become_clusters_the_largest_is_0(stage, tmp_path):
    vectors, truth = groups()
    function, info = fitted(stage, [table_of(vectors)], tmp_path)
    result = function(table_of(vectors))
    assert result.schema == stage.writes()
    assert result["cluster"].to_numpy().tolist() == truth.tolist()
    assert result["kmeans_cluster"].to_numpy().tolist() == truth.tolist()
    assert info["k"] == 4 and info["sizes"] == [160, 120, 80, 40]
    # Cosine to the mean of the group, by hand for the first row.
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    mean = unit[truth == truth[0]].mean(axis=0)
    assert result["cluster_similarity"][0].as_py() == pytest.approx(unit[0] @ mean / np.linalg.norm(mean), abs=1e-5)


@pytest.mark.parametrize("stage", STAGES, ids=IDS)
def test_rows_alone_and_in_lists_of_any_kind_get_the_same_bytes(stage, tmp_path):
    vectors, _ = groups(noise=0.3, d=384)
    function, _ = fitted(stage, [table_of(vectors)], tmp_path)
    whole = function(table_of(vectors))
    for part in (function(table_of(vectors[7:8])), function(table_of(vectors, fixed=False).slice(7, 1))):
        assert part.equals(whole.slice(7, 1))


@pytest.mark.parametrize("stage", STAGES, ids=IDS)
def test_the_sharding_of_the_fit_changes_nothing_and_the_artifact_has_no_clock(stage, tmp_path):
    vectors, _ = groups(noise=0.3)
    stage = stage.but(max_fit_rows=300)
    fitted(stage, [table_of(vectors)], tmp_path / "one")
    fitted(stage, [table_of(part) for part in np.split(vectors, [3, 130, 131])], tmp_path / "four")
    assert (tmp_path / "one" / "clusters.npz").read_bytes() == (tmp_path / "four" / "clusters.npz").read_bytes()
    one, four = (json.loads((tmp_path / name / "info.json").read_text()) for name in ("one", "four"))
    assert len(one.pop("fitted_shards")) == 1 and len(four.pop("fitted_shards")) == 4
    assert one == four and one["fitted_on"] == 300
    with zipfile.ZipFile(tmp_path / "one" / "clusters.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("stage", STAGES, ids=IDS)
def test_vectors_without_direction_are_null_and_reported(stage, tmp_path):
    vectors, _ = groups()
    vectors[5], vectors[9, 3] = 0, np.nan
    function, info = fitted(stage, [table_of(vectors[:8]), table_of(vectors[8:])], tmp_path)
    assert info["unusable_at"] == ["00000:5", "00001:1"] and info["unusable"] == 2 and info["fitted_on"] == 398
    result = function(table_of(vectors))
    for name in result.column_names:
        assert [i for i, value in enumerate(result[name].to_pylist()) if value is None] == [5, 9]
    assert function(table_of(vectors[5:6]))["cluster"].to_pylist() == [None]


@pytest.mark.parametrize("stage", STAGES, ids=IDS)
def test_a_null_row_is_null(stage, tmp_path):
    vectors, truth = groups()
    function, _ = fitted(stage, [table_of(vectors)], tmp_path)
    column = pa.array([vectors[0].tolist(), None], pa.list_(pa.float32(), 32))
    assert function(pa.table({"vector": column}))["cluster"].to_pylist() == [truth[0], None]


@pytest.mark.parametrize("stage", STAGES, ids=IDS)
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_fewer_rows_than_clusters_or_neighbours(stage, rows, tmp_path):
    vectors = np.eye(8)[:rows]
    function, info = fitted(stage, [table_of(vectors)], tmp_path)
    result = function(table_of(vectors))
    assert result["cluster"].null_count == 0 and info["k"] <= min(4, rows)
    assert rows >= 4 or any(note.startswith("k from 4") for note in info["lowered"])


@pytest.mark.parametrize("stage", STAGES, ids=IDS)
def test_identical_rows_are_one_cluster(stage, tmp_path):
    vectors = np.tile(np.arange(1, 9.0), (50, 1))
    function, info = fitted(stage, [table_of(vectors)], tmp_path)
    result = function(table_of(vectors))
    assert info["k"] == 1 and set(result["cluster"].to_pylist()) == {0}
    assert np.isfinite(result["map_x"].to_numpy()).all()
    assert result["cluster_similarity"].to_numpy() == pytest.approx(1)


def test_k_by_eigengap_and_the_baseline_is_reported(tmp_path):
    vectors, _ = groups((100, 90, 80, 70, 60, 50))
    function, info = fitted(Landmarks(k_min=2, k_max=20), [table_of(vectors)], tmp_path)
    assert info["k"] == 6 and info["k_by"] == "eigengap" and info["components"] >= 1
    assert info["baseline"]["nmi"] == pytest.approx(1) and info["baseline"]["kmeans_within"] > 0.8
    assert info["eigengap"] > 0 and info["eigenvalues"][0] == pytest.approx(1)
    assert any(note.startswith("landmarks from 1000") for note in info["lowered"])
    assert set(function(table_of(vectors))["cluster"].to_pylist()) == set(range(6))


def test_rings_that_kmeans_cuts_are_kept_whole(tmp_path):
    rng = np.random.default_rng(0)
    angles, truth = rng.uniform(0, 2 * np.pi, 900), np.repeat([0, 1, 2], 300)
    radius = np.array([0.2, 0.6, 1.0])[truth]
    vectors = np.stack([radius * np.cos(angles), radius * np.sin(angles), np.ones(900)], axis=1)
    function, info = fitted(Landmarks(k=3, nearest=3), [table_of(vectors)], tmp_path)
    result = function(table_of(vectors))
    cluster, plain = result["cluster"].to_numpy(), result["kmeans_cluster"].to_numpy()
    assert all(len(set(cluster[truth == ring])) == 1 for ring in range(3)) and len(set(cluster)) == 3
    assert any(len(set(plain[truth == ring])) > 1 for ring in range(3))
    assert info["baseline"]["ari"] < 0.5


def test_mistakes_end_with_the_remedy(tmp_path):
    with pytest.raises(ValidationError, match="lower k_min"):
        Landmarks(k_min=9, k_max=3)
    with pytest.raises(UserMistake, match="embed step"):
        fitted(KMeans(), [table_of(np.zeros((3, 4)))], tmp_path)
    with pytest.raises(UserMistake, match="one model"):
        fitted(KMeans(), [table_of(np.ones((3, 4))), table_of(np.ones((3, 5)))], tmp_path)
    with pytest.raises(UserMistake, match="not vectors"):
        vector_rows(pa.array(["text"]), "text")
    function, _ = fitted(KMeans(k=2), [table_of(np.eye(4))], tmp_path)
    with pytest.raises(UserMistake, match="one model"):
        function(table_of(np.ones((3, 5))))


@pytest.mark.parametrize("stage", STAGES, ids=IDS)
def test_rotation_and_permutation_change_nothing_but_names(stage, tmp_path):
    from sklearn.metrics import adjusted_rand_score

    vectors, _ = groups(noise=0.25)
    plain = fitted(stage, [table_of(vectors)], tmp_path / "plain")[0](table_of(vectors))["cluster"].to_numpy()
    assert len(set(plain)) == 4
    turned = vectors @ np.linalg.qr(np.random.default_rng(1).normal(size=(32, 32)))[0]
    found = fitted(stage, [table_of(turned)], tmp_path / "turned")[0](table_of(turned))["cluster"].to_numpy()
    assert adjusted_rand_score(plain, found) == 1
    order = np.random.default_rng(2).permutation(len(vectors))
    found = fitted(stage, [table_of(vectors[order])], tmp_path / "permuted")[0](table_of(vectors[order]))["cluster"].to_numpy()
    assert adjusted_rand_score(plain[order], found) == 1


def test_a_note_says_where_kmeans_is_better(tmp_path):
    """Rows tied to one landmark each: the graph falls apart, and k-means on the vectors is better. With a fair graph there is no note."""
    vectors, truth = groups(noise=0.15)
    table = table_of(vectors).append_column("class", pa.array([f"class {label}" for label in truth]))
    stage = Landmarks(k=4, landmarks=8, nearest=1, resamples=0, truth="class")
    _, info = fitted(stage, [table], tmp_path / "poor")
    worse = [name for name in ("nmi", "ari") if info["truth"][f"own_{name}"] < info["truth"][f"kmeans_{name}"]]
    assert worse and "verdict" in info and any("consider method: kmeans" in remark for remark in info["remarks"])
    _, info = fitted(Diffused(k=4, nearest=15, resamples=5, truth="class"), [table], tmp_path / "good")
    assert info["truth"]["own_ari"] == pytest.approx(1) and "verdict" not in info
    assert info["stability"]["own"] >= info["stability"]["kmeans"] and info["stability"]["resamples"] == 5
    _, info = fitted(KMeans(k=4, restarts=1, resamples=3, truth="class"), [table], tmp_path / "plain")
    assert info["remarks"] == [] and info["stability"]["own"] == info["stability"]["kmeans"]
    with pytest.raises(UserMistake, match=r"ingest\.keep"):
        fitted(Diffused(k=4, truth="kind"), [table], tmp_path / "none")


def test_memberships_are_shares_and_a_row_between_two_groups_is_half_of_each(tmp_path):
    vectors, _ = groups((100, 100), d=8, noise=0.1)
    between = np.zeros((6, 8))
    between[:, :2] = 3.0
    between += 0.1 * np.random.default_rng(3).normal(size=between.shape)
    table = table_of(np.concatenate([vectors, between]))
    function, _ = fitted(Nmf(k=2, landmarks=40, resamples=0), [table], tmp_path)
    result = function(table)
    shares = np.array(result["cluster_memberships"].to_pylist())
    assert shares.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (shares.argmax(axis=1) == result["cluster"].to_numpy()).all()
    assert shares[:200].max(axis=1).mean() > 0.9 and np.median(shares[200:].max(axis=1)) < 0.9
    assert result["cluster_entropy"].to_numpy()[200:].mean() > result["cluster_entropy"].to_numpy()[:200].mean()
