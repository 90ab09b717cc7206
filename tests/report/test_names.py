"""Names of clusters and the rows that stand for them."""

from __future__ import annotations

from curate.report.names import middle_rows, names, words_of


def rows(*texts: str) -> list[frozenset[str]]:
    return [words_of(text) for text in texts]


RECIPES = [f"Please write a recipe for {dish} with what you have" for dish in ("soup", "bread", "pasta", "salad", "cake", "stew")]
CODE = [f"Please write a python function that {does} a list" for does in ("sorts", "reverses", "sums", "filters", "counts", "copies")]


def test_a_name_is_what_the_other_clusters_do_not_say():
    found = names({0: rows(*RECIPES), 1: rows(*CODE)})
    assert found[0][0] == "recipe"
    assert set(found[1][:3]) == {"function", "list", "python"}
    assert not {"please", "write", "what", "you", "have", "with"} & {*found[0], *found[1]}


def test_forms_of_one_word_are_named_once():
    some = rows(*(f"function functions functional river{i}" for i in range(12)))
    assert sum(word.startswith("funct") for word in names({0: some, 1: rows(*RECIPES)})[0]) == 1


def test_a_cluster_of_two_kinds_is_named_by_both():
    some = rows(*["translate this french sentence today"] * 8, *["solve an equation quickly"] * 7)
    name = names({0: some, 1: rows(*RECIPES)})[0]
    assert {"equation", "quickly", "solve"} & set(name) and {"french", "sentence", "translate", "today"} & set(name)


def test_one_cluster_no_words_and_no_rows_are_defined():
    assert names({0: rows("a b", "12 34")}) == {0: ()}
    assert names({}) == {} and middle_rows([]) == []
    assert names({3: rows("only one row here")})[3]


def test_names_do_not_depend_on_the_order_of_the_rows():
    assert names({0: rows(*RECIPES), 1: rows(*CODE)}) == names({1: rows(*CODE[::-1]), 0: rows(*RECIPES[::-1])})


def test_middle_rows_are_the_nearest_that_differ():
    given = [
        (0.7, "d", "How tall is the highest mountain?"),
        (0.9, "a", "What is the capital of France?"),
        (0.8, "b", "What is the capital of Spain?"),
        (0.8, "c", "Name three rivers in Asia."),
    ]
    assert middle_rows(given, 3) == [(i, text) for i, text in (("a", given[1][2]), ("c", given[3][2]), ("d", given[0][2]))]


def test_of_a_template_only_the_first_row_is_given_whole():
    template = "You have access to a shell that executes commands in a terminal. The input should be a valid command.\n"
    given = [(0.9, "a", f"{template}List all files."), (0.8, "b", f"{template}Show the date."), (0.7, "c", f"{template}List all files!")]
    assert middle_rows(given) == [("a", given[0][2]), ("b", "… Show the date."), ("c", "… files!")]
