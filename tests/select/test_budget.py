"""How a budget is spent: within bounds, best first, over groups, with rows that were generated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import UserMistake
from curate.select.budget import Budget

COLUMNS = {
    "row_id": pa.string(), "file": pa.string(), "line": pa.int64(), "position": pa.int32(), "tokens": pa.int32(), "score": pa.float64(),
    "group": pa.string(), "harm": pa.float64(), "origin": pa.string(), "parent_at": pa.string(), "nominated": pa.bool_(), "language": pa.string(), "gain": pa.float64(), "text": pa.string(),
}  # fmt: skip

LINEAGE = ("origin", "parent_at", "nominated")  # only some shards have them


class Inputs:
    """Rows typed by hand, as one shard each list; `shard:position` is their place."""

    def __init__(self, shards: list[list[dict[str, Any]]]):
        self.by_name = {}
        for number, rows in enumerate(shards):
            full = [
                {"row_id": f"{number}{row:03d}", "file": "f", "line": row, "position": row, "tokens": 1, **values}
                for row, values in enumerate(rows)
            ]
            named = [name for name in COLUMNS if any(name in row for row in full)] or [name for name in COLUMNS if name not in LINEAGE]
            self.by_name[f"{number}"] = pa.table({name: pa.array([row.get(name) for row in full], COLUMNS[name]) for name in named})

    @property
    def shards(self) -> list[str]:
        return list(self.by_name)

    @property
    def rows(self) -> int:
        return sum(table.num_rows for table in self.by_name.values())

    def table(self, shard: str) -> pa.Table:
        return self.by_name[shard]

    def tables(self) -> Any:
        return iter(self.by_name.items())


def decide(folder: Path, *shards: list[dict[str, Any]], **options: Any) -> list[list[Any]]:
    """Per shard and row: "kept", or the rule; or what `nominated` says."""
    stage = Budget.model_validate(options)
    folder.mkdir(exist_ok=True)
    inputs = Inputs(list(shards))
    stage.fit(inputs, None, folder)  # type: ignore[arg-type]
    found: list[list[Any]] = []
    for name, table in inputs.tables():
        columns = (
            stage.load(folder)(table.append_column("shard", pa.array([name] * table.num_rows, pa.string()))) if table.num_rows else None
        )
        if columns is None:
            found.append([])
        elif options.get("nominate"):
            found.append(columns["nominated"].to_pylist())
        else:
            found.append([verdict["rule"] if verdict else "kept" for verdict in columns["verdict"].to_pylist()])
    return found


def scored(*scores: float | None, **more: Any) -> list[dict[str, Any]]:
    return [{"score": score, **more} for score in scores]


def test_the_best_are_kept_over_all_shards(tmp_path):
    found = decide(tmp_path, scored(5, 1, 9), scored(7, 3), budget=3, by="score")
    assert found == [["kept", "over_budget", "kept"], ["kept", "over_budget"]]
    assert decide(tmp_path, scored(5, 1, 9), scored(7, 3), budget=2, by="score", order="lowest") == [
        ["over_budget", "kept", "over_budget"],
        ["over_budget", "kept"],
    ]


@pytest.mark.parametrize(("budget", "kept"), [(None, 10), (0, 0), (4, 4), (10, 10), (99, 10), (0.5, 5), (1.0, 10), (1, 1)])
def test_a_budget_is_a_number_or_a_share(tmp_path, budget, kept):
    (found,) = decide(tmp_path, scored(*range(10)), budget=budget, by="score")
    assert found.count("kept") == kept


def test_rows_that_count_nothing_of_the_unit_are_told_and_never_the_whole_pool(tmp_path):
    assert decide(tmp_path / "a", scored(30, 20, 10, tokens=None), scored(9, 8), budget=1, unit="tokens", by="score") == [
        ["kept", "kept", "kept"],
        ["kept", "over_budget"],
    ]
    assert json.loads((tmp_path / "a" / "info.json").read_text())["remarks"] == ["3 of 5 rows count no tokens and cost the budget nothing"]
    with pytest.raises(UserMistake, match="no row counts any tokens"):
        decide(tmp_path / "b", scored(3, 2, 1, tokens=None), budget=2, unit="tokens", by="score")


def test_rows_without_a_score_come_last(tmp_path):
    (found,) = decide(tmp_path, scored(None, 1, float("nan"), -5), budget=2, by="score")
    assert found == ["over_budget", "kept", "over_budget", "kept"]
    (found,) = decide(tmp_path, scored(None, 1, float("nan"), -5), budget=3, by="score")
    assert found.count("kept") == 3


def test_equal_scores_are_told_apart_by_row_id_and_by_nothing_else(tmp_path):
    rows = scored(1, 1, 1, 1 + 1e-9)
    (found,) = decide(tmp_path, [{**row, "row_id": name} for row, name in zip(rows, "dbca", strict=True)], budget=2, by="score")
    assert found == ["over_budget", "kept", "over_budget", "kept"]
    one, two = decide(
        tmp_path,
        [{**rows[0], "row_id": "d"}, {**rows[1], "row_id": "b"}],
        [{**rows[2], "row_id": "c"}, {**rows[3], "row_id": "a"}],
        budget=2,
        by="score",
    )
    assert one + two == found


def test_without_a_score_the_draw_is_fixed_by_the_seed(tmp_path):
    (one,) = decide(tmp_path, scored(*[None] * 10), budget=5)
    assert decide(tmp_path, scored(*[None] * 10), budget=5) == [one]
    assert one.count("kept") == 5
    assert any(decide(tmp_path, scored(*[None] * 10), budget=5, seed=seed) != [one] for seed in (1, 2, 3))


def test_bounds_come_before_the_budget(tmp_path):
    rows: list[dict[str, Any]] = [
        {"score": 0.1, "language": "en"}, {"score": 0.5, "language": "en"}, {"score": 0.9, "language": "de"}, {"score": 0.95, "language": "en"},
        {"score": None, "language": "en"}, {"score": 0.6, "language": None},
    ]  # fmt: skip
    where = {"score": {"min": 0.5, "max": 0.9, "null": "drop"}, "language": {"is": ["en"]}}
    assert decide(tmp_path, rows, where=where) == [["below_score", "kept", "other_language", "above_score", "no_score", "kept"]]
    assert decide(tmp_path, rows, where=where, budget=1, by="score") == [
        ["below_score", "over_budget", "other_language", "above_score", "no_score", "kept"]
    ]


def test_a_row_that_keeps_the_other_bounds_is_not_held_to_one_with_unless(tmp_path):
    """What is untypical falls only where the filter finds it bad as well; a null in `unless` keeps its bound."""
    rows = [{"score": score, "harm": harm} for score, harm in ((0.1, 80.0), (0.1, 20.0), (0.9, 20.0), (0.1, None), (None, 20.0))]
    where: dict[str, Any] = {"score": {"min": 0.5, "null": "drop", "unless": {"harm": {"min": 70}}}}
    assert decide(tmp_path, rows, where=where) == [["kept", "below_score", "kept", "kept", "no_score"]]
    where["score"]["unless"]["harm"]["null"] = "drop"
    assert decide(tmp_path, rows, where=where) == [["kept", "below_score", "kept", "below_score", "no_score"]]
    assert set(Budget(where=where).reads()) >= {"score", "harm"}


def test_a_value_at_its_bound_is_within(tmp_path):
    rows = scored(0.3, 0.1 + 0.2, 0.2999)
    assert decide(tmp_path, rows, where={"score": {"max": 0.3}}) == [["kept", "kept", "kept"]]
    assert decide(tmp_path, rows, where={"score": {"min": 0.3}}) == [["kept", "kept", "below_score"]]


def test_groups_share_by_size_and_what_one_cannot_use_goes_to_the_others(tmp_path):
    """Budget 8 over groups of 2, 5 and 5 rows by harm 6:4:2 gives 4, 2.67, 1.33; the first holds 2 only, and the six left are shared 4:2."""
    rows = [
        *scored(*range(2), group="a", harm=3.0),
        *scored(*range(5), group="b", harm=2.0),
        *scored(*range(5), group="c", harm=1.0),
    ]
    (found,) = decide(tmp_path, rows, budget=8, by="score", groups="group", share_by="harm")
    kept = {name: sum(fate == "kept" and row["group"] == name for fate, row in zip(found, rows, strict=True)) for name in "abc"}
    assert kept == {"a": 2, "b": 4, "c": 2}
    (found,) = decide(tmp_path, rows, budget=6, by="score", groups="group")
    kept = {name: sum(fate == "kept" and row["group"] == name for fate, row in zip(found, rows, strict=True)) for name in "abc"}
    assert kept == {"a": 1, "b": 2, "c": 3} or kept == {"a": 1, "b": 3, "c": 2}  # shares of 1, 2.5 and 2.5; the odd row to the best score
    report = json.loads((tmp_path / "budget.json").read_text())
    assert (report["spent"], [group["rows"] for group in report["groups"]]) == (6, [2, 5, 5])


def test_a_group_that_is_not_harmed_gets_nothing_while_others_have_rows(tmp_path):
    rows = [*scored(9, 9, group="whole", harm=-1.0), *scored(1, 2, 3, group="harmed", harm=0.5)]
    (found,) = decide(tmp_path, rows, budget=3, by="score", groups="group", share_by="harm")
    assert found == ["over_budget"] * 2 + ["kept"] * 3
    (found,) = decide(tmp_path, rows, budget=4, by="score", groups="group", share_by="harm")
    assert found.count("kept") == 4


def kept_by_group(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> list[int]:
    (found,) = decide(tmp_path, rows, by="score", groups="group", **options)
    return [sum(fate == "kept" and row["group"] == name for fate, row in zip(found, rows, strict=True)) for name in "abc"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [4, 16, 36]),  # size, 1:4:9
        ({"allocation": "uniform"}, [10, 23, 23]),  # a third each is 18.7; what the first cannot hold goes to the others
        (
            {"share_by": "harm"},
            [10, 30, 16],
        ),  # mean, 6:2:1; 30.7 and 15.3, and the odd row to the best score, which is in the largest group
        ({"share_by": "harm", "allocation": "size_mean"}, [10, 21, 25]),  # 6:8:9
        ({"share_by": "harm", "allocation": "sqrt_size_mean"}, [10, 26, 20]),  # 6:4:3
        ({"share_by": "harm", "allocation": "mean", "gain_by": "gain"}, [0, 28, 28]),  # 6:2:1 times 0:1:2
        ({"share_by": "harm", "allocation": "uniform"}, [10, 23, 23]),  # the mean is reported, and weighs nothing
    ],
)
def test_how_groups_share(tmp_path, options, expected):
    """56 rows out of groups of 10, 40 and 90 with harm 6, 2, 1 and gain -1 (counts as 0), 1, 2."""
    of = {"a": (10, 6.0, -1.0), "b": (40, 2.0, 1.0), "c": (90, 1.0, 2.0)}
    rows = [
        {"score": float(row), "group": name, "harm": harm, "gain": gain} for name, (size, harm, gain) in of.items() for row in range(size)
    ]
    assert kept_by_group(tmp_path, rows, budget=56, **options) == expected


def test_rows_without_a_value_are_left_out_of_the_mean_and_a_group_without_any_weighs_nothing(tmp_path):
    rows = [
        *scored(1, 2, 3, 4, group="a", harm=None),
        *scored(1, 2, 3, 4, group="b", harm=1.0),
        *scored(1, 2, group="c", harm=None),
        *scored(3, 4, group="c", harm=1.0),
    ]
    assert kept_by_group(tmp_path, rows, budget=4, share_by="harm") == [0, 2, 2]


def test_where_no_group_has_a_weight_all_weigh_the_same_and_the_run_says_so(tmp_path):
    rows = [{"score": 1.0, "group": name, "harm": -1.0} for name in "aabbbbbb"]
    assert kept_by_group(tmp_path, rows, budget=4, share_by="harm") == [2, 2, 0]
    assert "no group has a positive mean of harm" in json.loads((tmp_path / "info.json").read_text())["remarks"][0]


def test_stratified_random_takes_as_many_from_every_group(tmp_path):
    rows = [{"group": name} for name in "a" * 5 + "b" * 50 + "c" * 500]
    (found,) = decide(tmp_path, rows, budget=30, groups="group", allocation="uniform")
    kept = [row["group"] for row, fate in zip(rows, found, strict=True) if fate == "kept"]
    assert [kept.count(name) for name in "abc"] in ([5, 13, 12], [5, 12, 13])


def test_a_column_of_words_is_no_score(tmp_path):
    with pytest.raises(UserMistake, match="not numbers"):
        decide(tmp_path, [{"language": "en"}], budget=1, by="language")


CLASHING = [
    {"score": 9, "text": "red apple, green pear"},
    {"score": 8, "text": "blue plum, yellow lemon"},
    {"score": 7, "text": "red apple, yellow lemon"},  # both are known, and never met
    {"score": 6, "text": "red apple, white grape"},  # one is new
    {"score": 5, "text": "green pear, white grape"},  # both are known, the second through the row before
    {"score": 4, "text": "red apple"},
]


def test_the_concept_graph_refuses_what_it_has_not_seen_together(tmp_path):
    (found,) = decide(tmp_path, CLASHING, by="score", conflicts="concepts")
    assert found == ["kept", "kept", "conflicts_with_concepts", "kept", "conflicts_with_concepts", "kept"]


def test_a_refused_row_names_one_that_holds_one_concept_without_the_other_and_its_share_goes_to_the_next(tmp_path):
    (found,) = decide(tmp_path, CLASHING, by="score", budget=3, conflicts="concepts")
    assert found == ["kept", "kept", "conflicts_with_concepts", "kept", "conflicts_with_concepts", "over_budget"]
    verdicts = Budget.model_validate({}).load(tmp_path)(pa.table({"shard": ["0"]}))["verdict"].to_pylist()
    assert (verdicts[2]["twin"], verdicts[2]["twin_at"]) == ("0001", "0:1")
    assert json.loads((tmp_path / "budget.json").read_text())["conflicts"] == 2


def test_the_free_variant_is_the_same_in_every_order(tmp_path):
    """Ten rows of apple and pear, twelve of plum and lemon: by chance apple would meet lemon in six; one row alone joins them."""
    rows = [{"text": text} for text in ["apple; pear"] * 10 + ["plum; lemon"] * 12 + ["apple; lemon"]]
    rows = [{**row, "row_id": f"{number:03d}"} for number, row in enumerate(rows)]
    (found,) = decide(tmp_path, rows, conflicts="concepts_any_order")
    assert found == ["kept"] * 22 + ["conflicts_with_concepts"]
    verdict = Budget.model_validate({}).load(tmp_path)(pa.table({"shard": ["0"]}))["verdict"].to_pylist()[-1]
    assert verdict["twin"] == "000"
    first, second = decide(tmp_path, rows[:9:-1], rows[9::-1], conflicts="concepts_any_order", budget=23)
    assert first + second == ["conflicts_with_concepts"] + ["kept"] * 22
    (found,) = decide(tmp_path, [*rows, {"text": "lemon, apple", "row_id": "z"}], conflicts="concepts_any_order")
    assert found == ["kept"] * 24  # two rows join them


def test_spending_ends_at_the_best_row_that_does_not_fit_and_does_not_go_on_to_shorter_ones(tmp_path):
    rows = [
        {"score": 9, "tokens": 60},
        {"score": 8, "tokens": 50},
        {"score": 7, "tokens": 30},
        {"score": 6, "tokens": 10},
        {"score": 5, "tokens": 5},
    ]
    (found,) = decide(tmp_path, rows, budget=100, unit="tokens", by="score")
    assert found == ["kept", "over_budget", "over_budget", "over_budget", "over_budget"]
    (found,) = decide(tmp_path, rows, budget=110, unit="tokens", by="score")
    assert found == ["kept", "kept", "over_budget", "over_budget", "over_budget"]


def raw_and_children() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    raw = scored(5, 4, 3, 2, origin=None, nominated=True)
    return raw, [{"score": 9.0 - row, "origin": "rewrite", "parent_at": f"0:{row}"} for row in range(4)]


def test_generated_rows_take_their_share_and_no_more(tmp_path):
    raw, children = raw_and_children()
    mine, made = decide(tmp_path, raw, children, budget=5, by="score", generated_max_share=0.4)
    assert (made.count("kept"), mine.count("kept")) == (2, 3)
    assert made == ["kept", "kept", "over_budget", "over_budget"]  # the best of them
    mine, made = decide(tmp_path, raw, children, budget=5, by="score", generated_max_share=0.0)
    assert (made.count("kept"), mine.count("kept")) == (0, 4)


def test_a_published_child_replaces_its_source_and_an_unpublished_one_does_not(tmp_path):
    raw, children = raw_and_children()
    mine, made = decide(tmp_path, raw, children, budget=4, by="score", generated_max_share=0.5, replaces=["rewrite"])
    assert made == ["kept", "kept", "over_budget", "over_budget"]
    assert mine == ["replaced", "replaced", "kept", "kept"]
    mine, made = decide(tmp_path, raw, children, budget=8, by="score", generated_max_share=1.0)
    assert (mine, made) == (["kept"] * 4, ["kept"] * 4)  # an antidote stands beside its source


def test_rows_that_were_not_nominated_are_the_reserve(tmp_path):
    rows = [
        {"score": 9, "nominated": False},
        {"score": 1, "nominated": True},
        {"score": 2, "nominated": True},
        {"score": 8, "nominated": False},
    ]
    assert decide(tmp_path, rows, budget=2, by="score") == [["over_budget", "kept", "kept", "over_budget"]]
    assert decide(tmp_path, rows, budget=3, by="score") == [["kept", "kept", "kept", "over_budget"]]


def test_nominating_writes_a_column_and_no_verdict(tmp_path):
    assert decide(tmp_path, scored(5, 1, 9), budget=2, by="score", nominate=True) == [[True, False, True]]
    assert Budget.model_validate({"nominate": True}).writes().names == ["nominated"]


RARE = {"where": {"score": {"max": 10}}, "quota": {"column": "score", "share": 0.25, "groups": "group"}}


def quota_of(folder: Path) -> dict[Any, dict[str, Any]]:
    return {group["group"]: group for group in json.loads((folder / "budget.json").read_text())["quota"]["by_group"]}


def test_a_quota_gives_back_to_each_group_what_the_bound_took_too_much_of(tmp_path):
    """Of eight rows a keeps six, more than a quarter; b keeps none of eight and gets two back; c keeps one of eight and gets one back."""
    rows = [
        *scored(1, 2, 3, 4, 5, 6, 11, 12, group="a"),
        *scored(11, 12, 13, 14, 15, 16, 17, 18, group="b"),
        *scored(1, 11, 12, 13, 14, 15, 16, 17, group="c"),
    ]
    (found,) = decide(tmp_path, rows, **RARE)
    assert found[:8] == ["kept"] * 6 + ["above_score"] * 2
    assert [found[8:16].count(fate) for fate in ("kept", "above_score")] == [2, 6]
    assert found[16] == "kept" and found[17:].count("kept") == 1
    told = quota_of(tmp_path)
    assert told["b"] == {"group": "b", "rows": 8, "tokens": 8, "cut": {"rows": 6, "tokens": 6}, "spared": {"rows": 2, "tokens": 2}}
    assert [told[name]["cut"]["rows"] for name in "ac"] == [2, 6] and [told[name]["spared"]["rows"] for name in "ac"] == [0, 1]
    (remark,) = json.loads((tmp_path / "info.json").read_text())["remarks"]
    assert remark == (
        "the bound on score alone takes 17 rows, of which the quota spares 3; most of their tokens lose: group b (75%, 6 rows), c (75%, 6 rows), a (25%, 2 rows)"
    )


def test_spared_rows_are_marked_and_have_no_verdict(tmp_path):
    stage = Budget.model_validate(RARE)
    inputs = Inputs([scored(*[20] * 4, group="a"), scored(1, 2, group="b")])
    stage.fit(inputs, None, tmp_path)  # type: ignore[arg-type]
    first, second = (stage.load(tmp_path)(pa.table({"shard": [name]})) for name in inputs.shards)
    assert first.schema == second.schema == stage.writes() and stage.writes().names == ["verdict", "spared"]
    assert sorted(first["spared"].to_pylist()) == [False, False, False, True] and second["spared"].to_pylist() == [False, False]
    assert [verdict is None for verdict in first["verdict"].to_pylist()] == first["spared"].to_pylist()
    cut = next(verdict for verdict in first["verdict"].to_pylist() if verdict)
    assert (cut["decision"], cut["rule"], cut["value"], cut["threshold"]) == ("drop", "above_score", 20, 10)


def test_which_rows_are_spared_is_a_draw_and_not_the_next_best(tmp_path):
    """Of ten rows beyond the bound a fifth comes back: another fifth for another seed, the same one in any sharding."""
    rows = [{"score": 11.0 + row, "group": "a", "row_id": f"r{row}", "line": row} for row in range(10)]
    quota = {"where": RARE["where"], "quota": {"column": "score", "share": 0.2, "groups": "group"}}
    drawn = {tuple(row for row, fate in enumerate(decide(tmp_path, rows, seed=seed, **quota)[0]) if fate == "kept") for seed in range(8)}
    assert {len(rows) for rows in drawn} == {2} and len(drawn) > 4
    assert {row for rows in drawn for row in rows} - {0, 1, 8, 9}, "neither the least nor the most extreme"
    (whole,) = decide(tmp_path, rows, **quota)
    late, early = decide(tmp_path, rows[6:], rows[:6], **quota)
    assert early + late == whole


def test_only_rows_that_break_no_other_bound_are_spared_and_counted(tmp_path):
    """Four English rows, one passes: of a quota of two another one comes back. German ones and those without a score are out of it."""
    rows = [
        *scored(1, 20, 30, 40, group="a", language="en"),
        *scored(1, 20, 30, 40, 50, 60, 70, 80, group="a", language="de"),
        *scored(None, None, None, group="a", language="en"),
    ]
    where = {"score": {"max": 10, "null": "drop"}, "language": {"is": ["en"]}}
    (found,) = decide(tmp_path, rows, where=where, quota={"column": "score", "share": 0.5, "groups": "group"})
    assert found[0] == "kept" and sorted(found[1:4]) == ["above_score", "above_score", "kept"]
    assert found[4:] == ["other_language"] + ["above_score"] * 7 + ["no_score"] * 3
    assert quota_of(tmp_path)["a"]["rows"] == 4
    (found,) = decide(tmp_path, rows, where=where, quota={"column": "score", "share": 0.25, "groups": "group"})
    assert found.count("kept") == 1  # the one that passes is a quarter


def test_a_quota_is_counted_in_the_unit_of_the_budget(tmp_path):
    """One row of 60 tokens passes, four of 10 do not: in tokens more than half is there, in rows a fifth."""
    rows = [{"score": 1, "tokens": 60, "group": "a"}, *scored(20, 30, 40, 50, group="a", tokens=10)]
    quota = {"where": RARE["where"], "quota": {"column": "score", "share": 0.5, "groups": "group"}}
    assert decide(tmp_path, rows, unit="tokens", **quota)[0].count("kept") == 1
    assert decide(tmp_path, rows, unit="rows", **quota)[0].count("kept") == 3
    assert quota_of(tmp_path)["a"]["spared"] == {"rows": 2, "tokens": 20}


def test_spared_rows_take_part_in_the_budget_like_any_other(tmp_path):
    rows = [*scored(1, 2, group="a", gain=9.0), *scored(20, 30, group="b", gain=5.0)]
    options = {"where": RARE["where"], "quota": {"column": "score", "share": 0.5, "groups": "group"}, "by": "gain"}
    (found,) = decide(tmp_path, rows, budget=2, **options)
    assert sorted(found) == ["above_score", "kept", "kept", "over_budget"] and found[:2] == ["kept", "kept"]
    (found,) = decide(tmp_path, rows, budget=3, **options)
    assert sorted(found[2:]) == ["above_score", "kept"]


def test_the_nominating_call_spares_the_same_rows_and_writes_no_further_column(tmp_path):
    rows = [*scored(1, 2, 3, group="a"), *scored(*range(20, 28), group="b")]
    (found,) = decide(tmp_path, rows, **RARE)
    (nominated,) = decide(tmp_path, rows, nominate=True, **RARE)
    assert nominated == [fate == "kept" for fate in found] and sum(nominated) == 5
    stage = Budget.model_validate({**RARE, "nominate": True})
    assert stage.load(tmp_path)(pa.table({"shard": ["0"]})).column_names == stage.writes().names == ["nominated"]


def test_generated_rows_are_neither_spared_nor_counted(tmp_path):
    raw = scored(20, 30, 40, 50, group="a", origin=None)
    made = scored(1, 2, 3, 20, 30, 40, group="a", origin="rewrite", parent_at="0:0")
    mine, theirs = decide(tmp_path, raw, made, generated_max_share=1.0, **RARE)
    assert mine.count("kept") == 1 and theirs == ["kept"] * 3 + ["above_score"] * 3
    assert mine == decide(tmp_path, raw, **RARE)[0]


def test_without_a_quota_nothing_is_written_about_one(tmp_path):
    decide(tmp_path, scored(1, 20, group="a"), where=RARE["where"])
    assert "quota" not in json.loads((tmp_path / "budget.json").read_text()) and not (tmp_path / "info.json").exists()
    assert Budget.model_validate({"where": RARE["where"]}).writes().names == ["verdict"]
    assert "tokens" not in Budget.model_validate({"where": RARE["where"]}).reads()
    assert decide(tmp_path / "none", **RARE) == [] and decide(tmp_path / "some", [], scored(20.0, group=None), **RARE) == [[], ["kept"]]


def test_an_empty_corpus_and_an_empty_shard(tmp_path):
    assert decide(tmp_path, budget=3) == []
    assert decide(tmp_path, [], scored(1.0), budget=3, by="score") == [[], ["kept"]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget": -1},
        {"budget": -0.5},
        {"unit": "words"},
        {"generated_max_share": 2},
        {"where": {"x": {"least": 3}}},
        {"allocation": "fair", "groups": "g"},
        {"allocation": "uniform"},
        {"allocation": "size_mean", "groups": "g"},
        {"conflicts": "answers"},
        {"quota": {"column": "x", "share": 0.1}},
        {"quota": {"column": "x", "share": 0.1}, "where": {"x": {"is": ["a"]}}},
        {"quota": {"column": "x", "share": 0}, "where": {"x": {"max": 1}}},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        Budget.model_validate(wrong)


RAW = st.fixed_dictionaries(
    {"score": st.floats(0, 1) | st.none(), "tokens": st.integers(1, 9), "group": st.sampled_from("abc"), "nominated": st.booleans()}
)
CHILD = st.fixed_dictionaries(
    {"score": st.floats(0, 1), "tokens": st.integers(1, 9), "group": st.sampled_from("abc"), "parent": st.integers(0, 5)}
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.lists(RAW, min_size=1, max_size=12), st.lists(CHILD, max_size=5), st.integers(0, 40), st.sampled_from([0.0, 0.3, 1.0]), st.booleans()
)
def test_a_budget_is_spent_to_within_one_row_and_never_overspent(tmp_path_factory, raw, children, budget, most, replace):
    folder = tmp_path_factory.getbasetemp() / "budget"
    made = [{**child, "origin": "rewrite", "parent_at": f"0:{child['parent'] % len(raw)}"} for child in children]
    options = {
        "budget": budget,
        "unit": "tokens",
        "by": "score",
        "groups": "group",
        "generated_max_share": most,
        "replaces": ["rewrite"] if replace else [],
    }
    mine, theirs = decide(folder, raw, made, **options)
    spent = sum(
        row["tokens"] for rows, fates in ((raw, mine), (made, theirs)) for row, fate in zip(rows, fates, strict=True) if fate == "kept"
    )
    spent_on_made = sum(row["tokens"] for row, fate in zip(made, theirs, strict=True) if fate == "kept")
    assert spent <= budget
    assert spent_on_made <= most * budget + 1e-6
    left = [row for row, fate in zip(raw, mine, strict=True) if fate == "over_budget"]
    left += [
        {**row, "nominated": True}
        for row, fate in zip(made, theirs, strict=True)
        if fate == "over_budget" and spent_on_made + row["tokens"] <= most * budget
    ]
    if left:  # within one row: the best of those left out is longer than what is left over

        def rank(row):
            return (not row["nominated"], row["score"] is None, -round(row["score"] or 0.0, 6))

        best = min(map(rank, left))
        assert max(row["tokens"] for row in left if rank(row) == best) > budget - spent
    children_of = {row["parent_at"] for row, fate in zip(made, theirs, strict=True) if fate == "kept"}
    assert {f"0:{row}" for row, fate in enumerate(mine) if fate == "replaced"} == (children_of if replace else set())
    assert json.loads((folder / "budget.json").read_text())["spent"] == spent
