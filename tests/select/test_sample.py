"""A sample is a matter of the row's id and the seed alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from curate.select.sample import Sample, draws

IDS = [f"{row:032x}" for row in range(1000)]


class Inputs:
    def __init__(self, ids: list[str], cut: int):
        self.cuts = [ids[start : start + cut] for start in range(0, len(ids), cut)]

    def tables(self):
        return ((f"{shard:05d}", pa.table({"row_id": ids})) for shard, ids in enumerate(self.cuts))


def kept(folder: Path, ids: list[str], cut: int = 100, fitted_on: list[str] | None = None, **settings: object) -> list[str]:
    stage = Sample.model_validate(settings)
    folder.mkdir(exist_ok=True)
    stage.fit(Inputs(fitted_on or ids, cut), None, folder)  # type: ignore[arg-type]
    verdicts = stage.load(folder)(pa.table({"row_id": ids}))["verdict"].to_pylist()
    for verdict in verdicts:
        assert verdict is None or (verdict["decision"], verdict["rule"], verdict["value"] >= verdict["threshold"]) == (
            "drop",
            "not_sampled",
            True,
        )
    return [row_id for row_id, verdict in zip(ids, verdicts, strict=True) if verdict is None]


@pytest.mark.parametrize("size", [1, 7, 999, 1000])
def test_a_number_is_met_exactly(tmp_path, size):
    assert len(kept(tmp_path, IDS, size=size)) == size


def test_more_than_there_are_is_all(tmp_path):
    assert kept(tmp_path, IDS[:10], size=50) == IDS[:10]
    assert kept(tmp_path, IDS[:10]) == IDS[:10]


def test_a_share_is_about_met(tmp_path):
    assert 240 < len(kept(tmp_path, IDS, size=0.3)) < 360
    assert kept(tmp_path, IDS, size=1.0) == IDS


def test_the_cut_into_shards_and_the_order_decide_nothing(tmp_path):
    one = kept(tmp_path / "one", IDS, cut=100, size=50)
    assert sorted(kept(tmp_path / "two", IDS[::-1], cut=7, size=50)) == one


def test_another_seed_is_another_sample_and_a_larger_one_holds_the_smaller(tmp_path):
    small, large = kept(tmp_path, IDS, size=50), kept(tmp_path, IDS, size=100)
    assert set(small) < set(large)
    assert 0 < len(set(small) & set(kept(tmp_path, IDS, size=50, seed=1))) < 30


def test_new_rows_face_the_bound_that_was_fitted(tmp_path):
    new = [f"{row:032x}" for row in range(1000, 2000)]
    both = kept(tmp_path, IDS + new, fitted_on=IDS, size=100)
    assert [row for row in both if row in set(IDS)] == kept(tmp_path, IDS, size=100)
    assert 60 < len(both) - 100 < 150


def test_draws_are_fixed_numbers():
    """What a seed gives today it gives tomorrow: a changed draw would change every sample that was ever taken."""
    assert draws(["0" * 32, "f" * 32], 0, "sample") == pytest.approx([0.1677219096609152, 0.5835286280646693], abs=1e-12)
    assert draws(["a", "a"], 3, "x")[0] == draws(["a"], 3, "x")[0] != draws(["a"], 3, "y")[0]
    assert all(0 <= draw < 1 for draw in draws(IDS, 0, "sample"))


def test_an_unknown_setting_is_refused():
    with pytest.raises(ValidationError, match="sizes"):
        Sample.model_validate({"sizes": 3})
