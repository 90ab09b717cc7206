import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate.embed.given import Given
from curate.errors import UserMistake

PIPELINE = """
STEPS = {"ingest": "ingest.settings", "embed": "embed.given", "cluster": "cluster.kmeans", "select": "select.budget",
         "publish": "publish.dataset"}


def road(run, recipe):
    docs = run.step("ingest", recipe.ingest)
    vectors = run.step("embed", recipe.embed, docs)
    clusters = run.step("cluster", recipe.cluster, docs, vectors)
    run.step("select", recipe.select, run.everything(docs))
    run.publish(recipe.publish, docs, clusters)
"""


class Rows:
    def __init__(self, *tables: pa.Table):
        self.given = tables

    def tables(self):
        return ((str(i), table) for i, table in enumerate(self.given))


def check(tmp_path: Path, *values: Any, **settings: Any) -> tuple[list, list]:
    """(vectors, rules) of rows with these values; a string is taken as it is, anything else as JSON, as ingest does."""
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    table = pa.table({"mine": pa.array(texts, pa.large_string())})
    stage = Given(column="mine", **settings)
    stage.fit(Rows(table), None, tmp_path)
    found = stage.load(tmp_path)(table)
    assert found.schema == stage.writes()
    return found.column("vector").to_pylist(), [verdict and verdict["rule"] for verdict in found.column("verdict").to_pylist()]


def test_every_fault_has_its_name_and_the_others_get_unit_vectors(tmp_path):
    vectors, rules = check(
        tmp_path, [3, 4.0], [0, 0], [float("nan"), 1], [float("inf"), 1], [1], [1, 2, 3], None, "words", [1, None], [1, "x"], [[1], [2]]
    )
    assert rules == [
        None, "vector_zero", "vector_not_finite", "vector_not_finite", "vector_wrong_length", "vector_wrong_length",
        "vector_missing", "vector_missing", "vector_not_finite", "vector_missing", "vector_missing",
    ]  # fmt: skip
    np.testing.assert_allclose(vectors[0], [0.6, 0.8])
    assert vectors[1:] == [None] * 10


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_a_direction_does_not_depend_on_the_size_of_the_numbers(tmp_path, size):
    vectors, rules = check(tmp_path, [3 * size, 4 * size])
    assert rules == [None]
    np.testing.assert_allclose(vectors[0], [0.6, 0.8], rtol=1e-6)


def test_the_expected_length_is_the_most_common_or_the_one_stated(tmp_path):
    assert check(tmp_path, [1], [1, 2], [2, 1])[1] == ["vector_wrong_length", None, None]
    assert check(tmp_path, [1], [1, 2])[1] == ["vector_wrong_length", None]
    assert check(tmp_path, [1], [1, 2], [2, 1], dimensions=1)[1] == [None, "vector_wrong_length", "vector_wrong_length"]


def test_a_column_without_any_vector_is_the_users_mistake(tmp_path):
    with pytest.raises(UserMistake, match="'mine'"):
        check(tmp_path, "a", "b", None)


def recipe(project, path: Path, method: str = "kmeans") -> None:
    file = project.folder / "road.py"
    file.write_text(PIPELINE)
    project.recipe(
        pipeline=f"{file}:road",
        ingest={"path": str(path), "keep": ["embedding"], "quarantine_max": 1.0},
        embed={"column": "embedding"},
        cluster={"method": method, "k": 2},
    )


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_bad_vectors_are_found_before_clustering_and_named_by_row(project, shared, engine, request):
    recipe(project, shared / "data" / "dirty" / "embeddings_bad.parquet")
    if engine == "ray":
        request.getfixturevalue("cluster")
    facts = project.run(engine=engine)
    assert facts["quarantine_rules"] == {"vector_zero": 1, "vector_not_finite": 2, "vector_wrong_length": 1, "vector_missing": 1}
    rules = {row: verdict and verdict["rule"] for row, verdict in zip("abcdefgh", project.column("embed.verdict"), strict=True)}
    assert rules == {
        "a": None, "b": "vector_zero", "c": "vector_not_finite", "d": "vector_not_finite", "e": "vector_wrong_length",
        "f": "vector_missing", "g": None, "h": None,
    }  # fmt: skip
    vectors = dict(zip("abcdefgh", project.column("vector"), strict=True))
    assert vectors["a"] == vectors["h"] == [1, 0, 0, 0] and vectors["g"] == [0.5] * 4
    clusters = dict(zip("abcdefgh", project.column("cluster"), strict=True))
    assert clusters["a"] == clusters["h"] == 0 and clusters["g"] == 1 and clusters["b"] is None
    said = project.curate("explain", "run", "embeddings_bad.parquet:2").stdout
    assert "vector_zero" in said


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["diffused", "spectral", "landmarks", "nmf", "kmeans"])
@pytest.mark.parametrize("name", ["identical", "one_row"])
def test_rows_that_are_all_alike_and_one_row_come_through(project, shared, name, method, engine, request):
    import pyarrow.parquet as pq

    table = pq.read_table(shared / "data" / "dirty" / f"{name}.parquet")
    vectors = pa.array([[1.0, 2.0]] * len(table), pa.list_(pa.float32()))
    pq.write_table(table.append_column("embedding", vectors), project.data / "rows.parquet")
    recipe(project, project.data, method)
    if engine == "ray":
        request.getfixturevalue("cluster")
    facts = project.run(engine=engine)
    assert facts["quarantine_rules"] == {}
    assert set(project.column("cluster")) == {0}
