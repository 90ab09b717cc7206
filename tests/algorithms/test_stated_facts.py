"""Numbers by value, names by their capitals, and the forms that one fact may take."""

import re

import pytest

from curate.algorithms.stated_facts import compare, facts, prose

SMALL = frozenset(
    re.findall(r"\w+", "the a of in was said met by it he had people rain stones stopped bridge local engineers built opened yesterday")
)


def change(source, output, **settings):
    given = {"small": SMALL, **settings}
    found = compare(facts(source, **given), facts(output, **given))
    return {"new": [*found.new_numbers, *found.new_names], "lost": [*found.lost_numbers, *found.lost_names]}


SAME = {"new": [], "lost": []}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It cost 4,000 pounds.", "It cost 4000 pounds."),
        ("It had twelve stones.", "It had 12 stones."),
        ("Two hundred and five people met.", "205 people met."),
        ("It cost $3.5 million.", "It cost 3,500,000 dollars."),
        ("It cost 2 billion.", "It cost 2bn."),
        ("It was built in 1939-45.", "It was built from 1939 to 1945."),
        ("It cost a million.", "It cost 1,000,000."),
        ("95% met.", "Ninety-five percent met."),
        ("He met the United Nations.", "He met the UN."),
        ("He met the U.N.", "He met the United Nations."),
        ("A UC engineer met people.", "An engineer of the University of California met people."),
        ("He met a Chinese engineer.", "He met an engineer from China."),
        ("It was built in Falluja.", "It was built in Fallujah."),
        ("The county's bridge in Wayne's valley.", "The bridge of the county in the valley of Wayne."),
        ("It opened on Jan. 5.", "It opened on January 5."),
        ("It opened on 02/06/03.", "It opened on 2.6.2003."),
        ("He met Beyoncé.", "He met Beyonce."),
    ],
)
def test_one_fact_in_two_forms(one, other):
    assert change(one, other) == SAME and change(other, one) == SAME


@pytest.mark.parametrize(
    ("source", "output", "expected"),
    [
        ("It opened in 1932.", "It opened in 1933.", {"new": ["1933"], "lost": ["1932"]}),
        ("It cost 3.5 million.", "It cost 3.5 billion.", {"new": ["3.5 billion"], "lost": ["3.5 million"]}),
        ("He met Martin in Iran.", "He met Martha in Iraq.", {"new": ["Martha", "Iraq"], "lost": ["Martin", "Iran"]}),
        ("He met Bill Gates.", "He met Bill Clinton.", {"new": ["Bill Clinton"], "lost": []}),
        ("Obama met people.", "The people met.", {"new": [], "lost": ["Obama"]}),
        ("It had seven stones.", "It had stones.", {"new": [], "lost": ["seven"]}),
        ("In it people met by the Smith County Bridge.", "In it people met by the bridge.", {"new": [], "lost": ["Smith County Bridge"]}),
        ("He met people.", "He met people of Google.", {"new": ["Google"], "lost": []}),
    ],
)
def test_what_is_new_and_what_is_lost_is_named_as_it_is_written(source, output, expected):
    assert change(source, output) == expected


def test_a_date_in_figures_is_one_number_whose_parts_another_cannot_vouch_for():
    source = "He met the 2nd engineer on 02/06/03."
    assert change(source, "He met the 2nd engineer on 6/06/03.") == {"new": ["6/06/03"], "lost": ["02/06/03"]}
    assert change("It opened on 02/06/1903.", "It opened on 02/06/2003.") == {"new": ["02/06/2003"], "lost": ["02/06/1903"]}
    assert change("It opened on 02/06/2003.", "It opened in 1903.") == {"new": ["1903"], "lost": ["02/06/2003"]}
    # an address and a fraction are no dates: their parts count
    assert change("It had 10.2.3.4 there.", "It had 10.2.3.5 there.")["new"] and change("It had 10/12.", "It had 10/13.")["new"] == ["13"]


def test_a_part_of_a_name_stands_for_it_and_not_the_other_way_round():
    assert change("He met Bill Gates.", "He met Gates.") == SAME
    assert change("He met Gates.", "He met Bill Gates.") == {"new": ["Bill Gates"], "lost": []}


def test_a_sentence_may_begin_with_any_known_word_and_with_a_verb():
    source = "Local engineers built it. Rain stopped it."
    assert change(source, "Yesterday it was said. Knead the stones. Add 7 stones. Meanwhile, people met. Surprisingly, it opened.") == {
        "new": ["7"],
        "lost": [],
    }
    assert change(source, "Siemens built it.")["new"] == ["Siemens"]
    assert change(source, "Siemens built it.", small=None)["new"] == []  # no corpus: the beginning of a sentence tells nothing


def test_where_every_noun_has_a_capital_names_are_not_told():
    assert change("Die Brücke in Bonn.", "Der Steg in Köln, 1932.", capitals=False) == {"new": ["1932"], "lost": []}


def test_addresses_and_identifiers_state_no_name():
    assert change("See https://python.org and my_Function for it.", "See it.") == SAME


def test_what_a_text_says_outside_its_sentences_is_not_required():
    page = "Home | About | Contact us\nThe bridge was built in 1932 by the county, and it was repaired twice.\n© 2024 Acme"
    assert prose(page) == "The bridge was built in 1932 by the county, and it was repaired twice."
    assert prose("one line") == "one line"
