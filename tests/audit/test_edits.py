"""Edits of looks and of people: each changes what it says, and nothing else."""

from curate.audit.edits import STYLE, exchanged, styled
from curate.generate.lexicon import read_lexicons

TEXT = 'He said "no" to us. Then\nhe left.\n\nThe end – of it.'


def test_style_edits_change_looks_alone():
    made = {name: edit(TEXT) for name, edit in STYLE.items()}
    assert made["curly quotes"] == TEXT.replace('"no"', "“no”")
    assert made["straight quotes"] == TEXT.replace("–", "-")
    assert made["paragraphs joined"] == 'He said "no" to us. Then he left.\n\nThe end – of it.'
    assert made["a line a sentence"] == TEXT.replace("us. Then", "us.\nThen")
    assert made["no blank lines"] == TEXT.replace("\n\n", "\n")
    assert made["no stop at the end of lines"] == 'He said "no" to us. Then\nhe left\n\nThe end – of it'
    assert made["again"].strip() == TEXT

    def letters(text):
        return "".join(filter(str.isalnum, text.lower()))

    assert {letters(text) for text in made.values()} == {letters(TEXT)}


def test_only_texts_that_an_edit_changes_are_given():
    found = dict(styled(["plain", TEXT]))
    assert [i for i, _ in found["curly quotes"]] == [1] and [i for i, _ in found["again"]] == [0, 1]
    assert [i for i, _ in found["lower case"]] == [1]


def test_people_are_exchanged_as_antidotes_are_made():
    texts = ["The old man went home with his dog.", "A line about nobody.", "Feminism and the woman question, an essay."]
    found = dict(exchanged(texts, read_lexicons(("gender",), None)))
    assert found == {"gender: male > female": [(0, "The old woman went home with her dog.")]}
