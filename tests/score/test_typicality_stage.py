"""How typical rows are of trusted ones: outliers come last, whatever the shards, and no row vouches for itself."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from given import Shards
from pydantic import ValidationError

from curate.algorithms.prdc import prdc
from curate.errors import UserMistake
from curate.score._trusted import Trusted, draw
from curate.score.typicality import Half, Typicality, log_density, mixture

WIDTH = 12
CENTERS = np.eye(WIDTH)[:4] * 3  # four topics
STAGE = Typicality(trusted=Trusted(where={"source": "good"}))


def table(seed: int, count: int, source: str, centers: np.ndarray = CENTERS, spread: float = 0.4) -> pa.Table:
    """`count` rows around the centers in turn, with a text of their own each."""
    generator = np.random.default_rng(seed)
    vectors = centers[np.arange(count) % len(centers)] + spread * generator.normal(size=(count, WIDTH))
    return rows(vectors, [f"{source} {seed} {i}" for i in range(count)], source)


def rows(vectors: np.ndarray, texts: list[str], source: str) -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float32).ravel()), WIDTH)
    return pa.table({"text": pa.array(texts, pa.large_string()), "source": [source] * len(texts), "vector": column})


def strangers(count: int) -> pa.Table:
    """Rows around a direction that no trusted row has."""
    return table(7, count, "web", centers=np.eye(WIDTH)[8:9] * 3)


def corpus() -> pa.Table:
    """160 trusted rows of four topics; of the pool 40 more of the same topics and 20 strangers."""
    return pa.concat_tables([table(0, 160, "good"), table(1, 40, "web"), strangers(20)])


def scored(stage: Typicality, folder: Path, *tables: pa.Table, later: pa.Table | None = None) -> dict[str, np.ndarray]:
    folder.mkdir()
    stage.fit(Shards(*tables), None, folder)
    function = stage.load(folder)
    found = pa.concat_tables([function(one) for one in ((later,) if later is not None else tables)])
    assert found.schema == stage.writes()
    return {name: found.column(name).to_numpy() for name in found.column_names}


@pytest.mark.parametrize("density", ["left_out", "gmm", "none"])
def test_planted_outliers_are_less_typical_than_rows_of_the_same_topics(tmp_path, density):
    found = scored(STAGE.but(density=density), tmp_path / "a", corpus())
    for name in ("typicality", "typicality_knn"):
        assert found[name][160:200].min() > found[name][200:].max(), name
    for name in ("typicality_precision", "typicality_density", "typicality_coverage", "typicality_recall"):
        assert found[name][160:200].mean() > found[name][200:].mean() + 0.2, name
    assert found["typicality"][200:].max() < 0.05 and 0 <= found["typicality"].min() <= found["typicality"].max() <= 1
    # New rows of the same kind are spread over the percentiles of the trusted ones.
    assert 0.3 < found["typicality"][160:200].mean() < 0.7


def test_columns_are_the_measures_of_the_halves_that_do_not_hold_the_row(tmp_path):
    whole = corpus()
    found = scored(STAGE, tmp_path / "a", whole)
    with np.load(tmp_path / "a" / "halves.npz", allow_pickle=False) as stored:
        halves = [Half.of_arrays({name[2:]: stored[name] for name in stored.files if name[0] == str(h)}) for h in (0, 1)]
    assert len(halves[0].keys) + len(halves[1].keys) == 160 and not set(halves[0].keys) & set(halves[1].keys)
    vectors = np.array(whole.column("vector").to_pylist(), np.float32)
    unit = (vectors / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)).astype(np.float32)
    judged = [prdc(unit, half.rows, half.radii, STAGE.k) for half in halves]
    side = np.array([draw(0, "half", text) % 2 for text in whole.column("text").to_pylist()])
    trusted = np.arange(220) < 160
    for name, sign in (("distance", -1), ("density", 1), ("coverage", 1), ("precision", 1), ("recall", 1)):
        a, b = (sign * getattr(one, name) for one in judged)
        expected = np.where(trusted, np.where(side == 0, b, a), (a + b) / 2)
        column = "typicality_knn" if name == "distance" else f"typicality_{name}"
        np.testing.assert_allclose(found[column], expected, atol=1e-5, err_msg=name)


def test_a_trusted_row_that_is_like_no_other_does_not_vouch_for_itself(tmp_path):
    """Nor for copies of its text in the pool; a text that is only near to it does lean on it."""
    loner = np.eye(WIDTH)[10:11] * 3
    lonely = rows(np.repeat(loner, 2, axis=0), ["alone", "alone"], "web")
    whole = pa.concat_tables([table(0, 160, "good"), rows(loner, ["alone"], "good"), lonely, rows(loner, ["another"], "web")])
    found = scored(STAGE.but(k=1), tmp_path / "a", whole)
    distance = -found["typicality_knn"]
    assert distance[160] == distance[161] == distance[162] > 1
    assert found["typicality"][160] < 0.02
    assert distance[163] == pytest.approx(distance[160] / 2, rel=1e-5)  # the mean of 0 and the same distance, whose halves differ little


@pytest.mark.parametrize("density", ["left_out", "gmm"])
@pytest.mark.parametrize("cut", [1, 77, 219])
def test_scores_and_artifact_do_not_depend_on_how_the_corpus_is_cut(tmp_path, cut, density):
    whole, stage = corpus(), STAGE.but(density=density, max_reference=100)
    one = scored(stage, tmp_path / "a", whole)
    other = scored(stage, tmp_path / "b", whole.slice(0, cut), whole.slice(cut))
    for name, values in one.items():
        assert values.tobytes() == other[name].tobytes(), name
    for name in ("halves.npz", "info.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_each_row_alone_has_the_bytes_it_has_among_others(tmp_path):
    whole = corpus()
    found = scored(STAGE, tmp_path / "a", whole)
    function = STAGE.load(tmp_path / "a")
    alone = pa.concat_tables([function(whole.slice(i, 1)) for i in range(100, 220, 7)])
    for name, values in found.items():
        assert alone.column(name).to_numpy().tobytes() == values[100:220:7].tobytes(), name


def test_the_order_of_rows_changes_nothing(tmp_path):
    whole = corpus()
    order = np.random.default_rng(3).permutation(len(whole))
    one, other = scored(STAGE, tmp_path / "a", whole), scored(STAGE, tmp_path / "b", whole.take(order))
    assert one["typicality"][order].tobytes() == other["typicality"].tobytes()


def test_rows_without_a_vector_have_no_score_and_are_no_reference(tmp_path):
    whole = corpus()
    vectors = whole.column("vector").to_pylist()
    vectors[3] = vectors[170] = None  # a trusted row and one of the pool
    vectors[180] = [0.0] * WIDTH
    column = pa.array(vectors, pa.list_(pa.float32(), WIDTH))
    found = scored(STAGE, tmp_path / "a", whole.set_column(2, "vector", column))
    for name, values in found.items():
        assert np.flatnonzero(np.isnan(values)).tolist() == [3, 170, 180], name
    assert json.loads((tmp_path / "a" / "info.json").read_text())["reference"] == 159


def test_of_many_trusted_texts_those_with_the_smallest_draws_are_compared_with(tmp_path):
    whole = corpus()
    found = scored(STAGE.but(max_reference=60), tmp_path / "a", whole)
    info = json.loads((tmp_path / "a" / "info.json").read_text())
    assert info["reference"] == sum(info["halves"]) == 60 and info["trusted_texts"] == 160
    assert "of 160 trusted texts the others" in info["remarks"][0]
    with np.load(tmp_path / "a" / "halves.npz", allow_pickle=False) as stored:
        keys = sorted([*stored["0_keys"].tolist(), *stored["1_keys"].tolist()])
    assert keys == sorted(draw(0, "reference", text) for text in whole.column("text").to_pylist()[:160])[:60]
    assert np.median(found["typicality"][160:200]) > 0.3 > found["typicality"][200:].max()


def test_rows_that_come_later_need_no_column_that_says_who_is_trusted(tmp_path):
    whole = corpus()
    known = scored(STAGE, tmp_path / "a", whole)
    again = STAGE.load(tmp_path / "a")(whole.drop_columns("source"))
    assert again.column("typicality").to_numpy().tobytes() == known["typicality"].tobytes()
    assert STAGE.reads() == ("text", "vector") and STAGE.reads_if_present() == ("source",)


def test_how_far_counts_by_how_sparse_the_reference_is_there(tmp_path):
    """At one distance, a row among scattered trusted rows is more typical than one beside a dense heap."""
    centers = np.eye(WIDTH)[np.arange(600) % 8] * 3  # eight topics, scattered and dense in turn
    spread = np.where(np.arange(600) % 2, 0.1, 0.5)[:, None]
    noise = np.random.default_rng(0).normal(size=(680, WIDTH))
    good = rows(centers + spread * noise[:600], [f"good {i}" for i in range(600)], "good")
    judged = rows(centers[:80] + 0.3 * noise[600:], [f"web {i}" for i in range(80)], "web")
    with_density = scored(STAGE, tmp_path / "a", good, later=judged)["typicality"]
    distance_alone = scored(STAGE.but(density="none"), tmp_path / "b", good, later=judged)["typicality"]
    gain = with_density - distance_alone
    assert gain[::2].mean() > 0.05 > -0.02 > gain[1::2].mean()


def test_log_density_is_that_of_scikit_learn():
    from sklearn.mixture import GaussianMixture

    given = np.concatenate([np.random.default_rng(0).normal(size=(200, 2)), 4 + 0.3 * np.random.default_rng(1).normal(size=(90, 2))])
    found = mixture(given, 0)
    model = GaussianMixture(len(found["shares"]), reg_covar=1e-3, max_iter=300, random_state=0).fit(given)
    assert len(found["shares"]) == 2
    np.testing.assert_allclose(log_density(given, **found), model.score_samples(given), rtol=1e-9)


def test_mistakes_end_with_the_remedy(tmp_path):
    with pytest.raises(ValidationError, match=r"name trusted rows of the corpus by trusted\.where"):
        Typicality(trusted=Trusted(path="trusted.txt"))
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        STAGE.but(k=0)
    with pytest.raises(UserMistake, match=r"check the value, and that ingest\.keep lists the column"):
        STAGE.but(trusted={"where": {"source": "absent"}}).fit(Shards(corpus()), None, tmp_path)
    with pytest.raises(UserMistake, match="too few for k 5: give 50 or more, or lower k"):
        STAGE.fit(Shards(table(0, 12, "good")), None, tmp_path)
    with pytest.raises(UserMistake, match="embed them, or name the column of vectors"):
        empty = pa.nulls(60, pa.list_(pa.float32(), WIDTH))
        STAGE.fit(Shards(table(0, 60, "good").set_column(2, "vector", empty)), None, tmp_path)
    with pytest.raises(UserMistake, match="embed all rows with one model"):
        narrow = pa.array(np.ones((60, 3), np.float32).tolist(), pa.list_(pa.float32(), 3))
        STAGE.fit(Shards(table(0, 60, "good"), table(1, 60, "good").set_column(2, "vector", narrow)), None, tmp_path)
    with pytest.raises(UserMistake, match="set density: none"):
        STAGE.fit(Shards(rows(np.ones((90, WIDTH)), [f"text {i}" for i in range(90)], "good")), None, tmp_path)
