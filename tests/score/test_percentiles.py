"""Percentiles among comparable rows: what share of the text scores at most as high, whatever the shards."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from given import Shards
from pydantic import ValidationError

from curate.errors import UserMistake
from curate.score.percentiles import LEVELS, Percentiles, table_of


def rows(perplexity, tokens=1, **names) -> pa.Table:
    count = len(perplexity)
    given = {
        "perplexity": pa.array(perplexity, pa.float32()),
        "tokens": pa.array(tokens if isinstance(tokens, list) else [tokens] * count, pa.int32()),
    }
    return pa.table(given | {name: pa.array(values) for name, values in names.items()})


def placed(folder: Path, *tables: pa.Table, within=(), later: pa.Table | None = None, **settings) -> list[float | None]:
    stage = Percentiles(**{"columns": {"perplexity": within}, "least": 1} | settings)
    folder.mkdir(exist_ok=True)
    stage.fit(Shards(*tables), None, folder)
    found = [stage.load(folder)(table) for table in ([later] if later is not None else tables)]
    assert all(table.schema == stage.writes() for table in found)
    return [value for table in found for value in table.column(0).to_pylist()]


def info(folder: Path) -> dict:
    return json.loads((folder / "info.json").read_text())


def test_a_percentile_is_the_share_of_the_tokens_that_score_at_most_as_high(tmp_path):
    """Ten tokens; 2 of them score up to 10, 3 up to 20 (two rows share that place), all up to 50."""
    assert placed(tmp_path, rows([50, 10, 20, 20], [7, 2, 0, 1])) == [100, 20, 30, 30]


def test_rows_without_a_score_have_no_percentile_and_weigh_nothing(tmp_path):
    assert placed(tmp_path, rows([2, None, float("nan"), 1], [1, 8, 8, 3])) == [100, None, None, 75]
    assert "remarks" in info(tmp_path) and info(tmp_path)["remarks"] == []
    assert placed(tmp_path, rows([None, None])) == [None, None]
    assert "no row has this score" in info(tmp_path)["remarks"][0]
    assert placed(tmp_path) == []


def test_rows_are_compared_within_their_cluster(tmp_path):
    """What is the lowest of a hard cluster is far above all of an easy one."""
    given = rows([1, 2, 3, 4, 100, 200, 300, 400], cluster=pa.array([0] * 4 + [7] * 4, pa.int32()))
    assert placed(tmp_path, given, within=["cluster"]) == [25, 50, 75, 100] * 2
    assert placed(tmp_path, given) == [12.5, 25, 37.5, 50, 62.5, 75, 87.5, 100]


def test_bins_of_length_hold_equal_shares_of_rows(tmp_path):
    """Lengths 1 to 6 in two bins begin at 1 and 4; in each the scores run the other way."""
    given = rows([9, 8, 7, 3, 2, 1], [1, 2, 3, 4, 5, 6])
    assert placed(tmp_path, given, within=["length"], length_bins=2) == pytest.approx([100, 500 / 6, 50, 100, 1100 / 15, 600 / 15])
    same = rows([1, 2, 3, 4], 5)  # rows of one length stay together, however many bins
    assert placed(tmp_path, same, within=["length"], length_bins=4) == [25, 50, 75, 100]


def test_another_column_can_be_the_length(tmp_path):
    given = rows([1, 2, 3, 4], 5, response_tokens=[1, 1, 9, 9])
    assert placed(tmp_path, given, within=["length"], length_bins=2, length_by="response_tokens") == [50, 100, 50, 100]


def test_small_groups_fall_back_in_the_stated_order(tmp_path):
    """Three German rows of one cluster; one of another cluster, compared within German; one French, compared among all."""
    given = rows([1, 2, 3, 2, 9], lang=["de", "de", "de", "de", "fr"], cluster=[0, 0, 0, 1, 2])
    found = placed(tmp_path, given, within=["lang", "cluster"], least=3)
    assert found == pytest.approx([100 / 3, 200 / 3, 100, 75, 100])
    told = info(tmp_path)
    assert told["columns"]["perplexity"] == {
        "rows": 5, "groups": 3, "groups_with_a_table": 1, "rows_within": {"lang and cluster": 3, "lang": 1, "all rows": 1},
    }  # fmt: skip
    assert told["remarks"] == [
        "perplexity: 2 of 3 groups by lang and cluster have fewer than 3 rows; 2 of 5 rows, of these or without a value, are compared more coarsely: 1 within lang, 1 within all rows"
    ]
    found = placed(tmp_path, given, within=["cluster", "lang"], least=3)  # in the other order no language is left to fall back to
    assert found == pytest.approx([100 / 3, 200 / 3, 100, 60, 100])


def test_all_rows_are_a_group_even_where_they_are_few(tmp_path):
    assert placed(tmp_path, rows([1, 2]), within=["length"], least=50) == [50, 100]


def test_rows_that_come_later_are_placed_by_the_same_tables(tmp_path):
    """The cut at 10, 20, 30 and 40 stays where it is; a new cluster, none, or no such column means all rows."""
    given = rows([10, 20, 30, 40, 1, 2], cluster=[0, 0, 0, 0, 1, 1])
    new = rows([5, 10, 35, 99, 1.5, 25, 25], cluster=[0, 0, 0, 0, 1, 2, None])
    assert placed(tmp_path, given, within=["cluster"], later=new) == pytest.approx([0, 25, 75, 100, 50, 400 / 6, 400 / 6])
    assert placed(tmp_path, given, within=["cluster"], later=rows([25])) == pytest.approx([400 / 6])


def many(count=3000) -> pa.Table:
    random = np.random.default_rng(0)
    lang = [None if value == 3 else f"l{value}" for value in random.integers(0, 4, count)]
    scores = [None if value < 0.1 else value for value in random.lognormal(size=count).astype(np.float32).tolist()]
    return rows(scores, random.integers(1, 500, count).tolist(), lang=lang, cluster=random.integers(0, 40, count))


def test_neither_the_shards_nor_their_order_change_a_byte(tmp_path):
    given, settings = many(), {"within": ["length", "lang", "cluster"], "least": 20}
    whole = placed(tmp_path / "a", given, **settings)
    parts = [given.slice(at, size) for at, size in ((2000, 1000), (0, 1), (1, 0), (1, 1999))]
    again = placed(tmp_path / "b", *parts, **settings)
    assert again == whole[2000:] + whole[:2000]
    for name in ("tables.npz", "info.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert len({value for value in whole if value is not None}) > 100 and whole.count(None) == given["perplexity"].null_count


def test_a_table_has_a_thousand_levels_at_most_and_is_right_to_a_tenth():
    random = np.random.default_rng(1)
    scores, mass = np.sort(random.normal(size=20_000)), random.integers(1, 300, 20_000).astype(float)
    levels, shares = table_of(scores, mass)
    assert len(levels) <= LEVELS and levels[-1] == scores[-1] and shares[-1] == 100
    found = np.concatenate([[0], shares])[np.searchsorted(levels, scores, side="right")]
    true = np.cumsum(mass) / mass.sum() * 100
    assert (true - found).min() >= 0 and (true - found).max() <= 100 / LEVELS + 1e-9


def test_several_columns_each_with_its_own_groups(tmp_path):
    given = rows([1, 2, 3, 4], cluster=[0, 0, 1, 1]).append_column("filter_score", pa.array([4, 3, 2, 1]))
    stage = Percentiles(columns={"perplexity": ["cluster"], "filter_score": []}, least=1)
    stage.fit(Shards(given), None, tmp_path)
    assert stage.load(tmp_path)(given).to_pydict() == {
        "perplexity_percentile": [50, 100, 50, 100],
        "filter_score_percentile": [100, 75, 50, 25],
    }


def test_what_cannot_be_compared_is_said(tmp_path):
    with pytest.raises(UserMistake, match=r"no row has a column 'languag'.*ingest.keep"):
        placed(tmp_path, rows([1], language=["de"]), within=["languag"])
    with pytest.raises(UserMistake, match="not numbers"):
        placed(tmp_path, rows([1], tag=["x"]), columns={"tag": []})
    with pytest.raises(UserMistake, match="nothing to group by"):
        placed(tmp_path, rows([1], vector=[[0.5]]), within=["vector"])


@pytest.mark.parametrize(
    "wrong", [{}, {"columns": {}}, {"columns": {"x": ["a", "a"]}}, {"columns": {"x": []}, "least": 0}, {"columns": {"x": []}, "bins": 3}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        Percentiles.model_validate(wrong)
