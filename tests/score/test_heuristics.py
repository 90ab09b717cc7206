import numpy as np
import pyarrow as pa
import pytest

from curate.score.heuristics import MEASURES, SETS, Heuristics, measures

PROSE = (
    "The committee met on Tuesday to discuss the state of the river. It found that the water had risen by a metre, and that most of the "
    "bridges in the valley would have to be closed for a week.\nNobody was hurt. The mayor said that she would ask for help with the repairs, "
    "which are expected to take until the spring of next year at least, and thanked those who had been out in the rain."
)
MENU = "\n".join(["Home", "About us", "Products", "Contact", "Log in"] * 12)


def table(*texts: str, response: list[str | None] | None = None, **columns) -> pa.Table:
    prompts = [None if given is None else "Why?" for given in response] if response else [None] * len(texts)
    return pa.table(
        {
            "text": pa.array(texts, pa.large_string()),
            "prompt": pa.array(prompts, pa.large_string()),
            "response": pa.array(response or [None] * len(texts), pa.large_string()),
            **columns,
        }
    )


def rules(stage: Heuristics, given: pa.Table, folder) -> list[str | None]:
    found = stage.load(folder)(given)
    assert found.schema == stage.writes()
    return [verdict and verdict["rule"] for verdict in found.column("verdict").to_pylist()]


@pytest.mark.parametrize(
    ("sets", "menu"),
    [
        (("gopher",), "stop_words_low"),
        (("gopher_repetition",), "duplicate_lines_high"),
        (("fineweb",), "unfinished_lines_high"),
        (("c4",), None),
        (("c4", "fineweb", "gopher", "gopher_repetition"), "stop_words_low"),
    ],
)
def test_published_sets_let_prose_pass_and_name_what_is_wrong_with_a_menu(tmp_path, sets, menu):
    assert rules(Heuristics(rules=sets), table(PROSE, MENU), tmp_path) == [None, menu]


def test_a_threshold_of_the_recipe_goes_before_that_of_a_set(tmp_path):
    assert rules(Heuristics(rules=("gopher",), min_word_count=500), table(PROSE), tmp_path) == ["word_count_low"]
    assert rules(Heuristics(rules=("gopher",), min_stop_words=0), table(MENU), tmp_path) == [None]


def test_every_set_names_settings_there_are():
    for limits in SETS.values():
        assert set(limits) <= set(Heuristics.model_fields)
    assert {name[4:] for name in Heuristics.model_fields if name[:4] in ("min_", "max_")} == set(MEASURES)


def test_only_rows_that_when_names_are_judged(tmp_path):
    given = table(MENU, MENU, filter_bin=pa.array([3, 15], pa.uint8()))
    stage = Heuristics(rules=("gopher",), when={"filter_bin": {"max": 9}})
    assert "filter_bin" in stage.reads()
    assert rules(stage, given, tmp_path) == ["stop_words_low", None]


def test_a_blank_answer_is_no_answer_and_a_document_needs_none(tmp_path):
    given = table(*[PROSE] * 4, response=["Because.", "", " \u2003\n", None])
    assert rules(Heuristics(), given, tmp_path) == [None, "empty_response", "empty_response", None]
    assert rules(Heuristics(empty_response=False), given, tmp_path) == [None] * 4


def test_a_verdict_says_what_was_measured_and_against_what(tmp_path):
    found = Heuristics(min_word_count=4).load(tmp_path)(table("Too short.")).column("verdict").to_pylist()[0]
    assert (found["decision"], found["rule"], found["value"], found["threshold"]) == ("drop", "word_count_low", 2, 4)


def test_phrases_of_pages_are_counted_whatever_their_case(tmp_path):
    found = measures(pa.array(["Our Privacy Policy and our TERMS OF USE.", "Prose.", None], pa.large_string()))
    np.testing.assert_array_equal(found["boilerplate_phrases"], [2, 0, 0])
    assert tuple(found) == MEASURES
