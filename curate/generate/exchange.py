"""The people of a text exchanged for people of another group: which words, whether it may be done, and the new text.

All forms of an attribute change at once. Everything else stays letter by letter, apart from `a` and `an` before an
exchanged word. A row where the attribute is content must not be exchanged. It is left out when, in this order of counting:

    attribute         no_span               no word of the attribute
    task              surface_task          it is about words or letters, a translation, or code
    lexicon's stop    attribute_is_content  a word of `stop`, or a form that does not stand before a person
    names             name_in_text          a first name, a capitalised word beside a form, or (lexicons with names) any
                                            word that is capitalised inside a sentence or, at its beginning,
                                            stands alone before a verb
                      names_not_visible     the line is written without capitals
    answer            answer_is_attribute   the response consists of forms of the attribute
    several values    several_values        (lexicons with `several: skip`)
    grammar           unclear_grammar       "make her happy", "his or her turn": which form?
                      quoted                a form in quotation marks or joined by a hyphen is mentioned, not used

The tests are plain word tests and err on the side of leaving out. They see no world knowledge: "the first man on the
moon" would pass.

Two uses need less. A label or a score that must not depend on the group (is this post hateful, is this page well
written?) holds for the exchanged text even where the group is what it is about: a lexicon with `mentions: all` exchanges
every mention (`no_span` is its only reason), and `variants` with `of_people=False` does so with any lexicon, to train on
or to measure by, never to publish.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from curate.generate.lexicon import Lexicon

# A backslash and n, r or t before a word is an escape that someone forgot to undo: "\\nHe said".
_WORD = re.compile(r"(?<!\\)(?<!\\[^\Wnrt])[^\W\d_]+(?:['’][^\W\d_]+)?")
# Texts about their own letters, about another language, or for a machine: exchanging a word changes the right answer.
_SURFACE = re.compile(
    r"\b(?:translat\w*|synonym\w*|antonym\w*|rhym\w*|palindrom\w*|anagram\w*|spell\w*|letters?|vowels?|consonants?|syllables?"
    r"|alphabet\w*|uppercase|lowercase|acronym\w*|plural\w*|singular|coreference|refers? to|part[s]? of speech|conjugat\w*"
    r"|grammatical\w*|adjectives?|nouns?|verbs?|adverbs?|pronouns?|word count|number of words|how many words|sql|json|regex|html|python"
    r"|javascript|java|function|code)\b|^[MW]:|```|[{};]\s*$|</\w+>|\w+\(\w*\)",
    re.IGNORECASE | re.MULTILINE,
)
# Capitalised, and no name: beginnings of sentences are seen by their place.
_NOT_NAMES = frozenset(
    re.findall(
        r"\S+",
        "i i'm i'd i'll i've monday tuesday wednesday thursday friday saturday sunday january february march april may june july august"
        " september october november december ok tv dvd ceo q a the",
    )
)
# "Kiki made", "Sunny bakes": at the beginning of a sentence only the verb tells a name from "Two sisters go".
_VERB = re.compile(
    r"\s+(?:(?:also|then|just|only|originally|normally|usually|finally)\s+)?(?:is|was|has|had|does|did|will|would|can|could|should|makes?|made|buys|bought"
    r"|gets?|got|gives|gave|goes|went|grew|grows|wants|needs|takes|took|sells|sold|eats|ate|bakes|runs|ran|rode|rides|drives|drove|reads?|wrote"
    r"|writes|spends|spent|saves|owns|keeps|kept|finds|found|sees|saw|knows|knew|thinks|thought|says|said|tells|told|loves|likes|uses|works|plays"
    r"|lives|plans|starts|puts|cuts|earns|pays|paid|leaves|left|brings|brought|catches|caught|builds|built|collects|counts|decides|feels|felt|and"
    r"|\w{3,}ed)\b"
)
_NOT_SUBJECTS = frozenset(
    re.findall(
        r"\S+",
        "it it's that that's this there there's he he's she she's who who's what what's which where where's when why how how's here here's"
        " one everyone everybody everything someone somebody something anyone nobody nothing each let let's today tonight both all some many"
        " most another neither either they we you i first second third last next and but if the a",
    )
)
_QUOTES = "\"'“”‘’`«»"
# An initial vowel letter without a vowel sound, and the other way round.
_CONSONANT_SOUND = re.compile(r"(?:eu|ew|one|once|u(?:ni|se|su|ti|k|r[aeiou])|ur[aeiou])", re.IGNORECASE)
_VOWEL_SOUND = re.compile(r"(?:hour|honest|hono|heir)", re.IGNORECASE)


@dataclass(frozen=True)
class Span:
    """A form of the attribute: text[start:end], and the value it names."""

    start: int
    end: int
    form: str
    value: str


def attribute_of(prompt: str | None, response: str | None, text: str, lexicon: Lexicon) -> tuple[str | None, str]:
    """The value that the row's people have, and "" - or None and the reason why the row must not be exchanged.

    Of several values (`several: swap`) it is the one named most often; ties go by the order of `values`.
    """
    found = spans(text, lexicon)
    if not found:
        return None, "no_span"
    if lexicon.mentions == "all":
        return _most_named(found, lexicon), ""
    if _SURFACE.search(text):
        return None, "surface_task"
    if lexicon.stop_pattern.search(text) or any(not _is_person(text, span, lexicon) for span in found):
        return None, "attribute_is_content"
    if _has_name(text, found, lexicon):
        return None, "name_in_text"
    if lexicon.names and any(_without_capitals(text, span) for span in found):
        return None, "names_not_visible"
    if (
        response is not None
        and (answer := _WORD.findall(response.lower()))
        and all(word in lexicon.value_of or word in ("a", "an", "the") for word in answer)
    ):
        return None, "answer_is_attribute"
    if len({span.value for span in found}) > 1 and lexicon.several == "skip":
        return None, "several_values"
    if any(_mentioned(text, span) for span in found):
        return None, "quoted"
    parts = [part for part in (prompt, response) if part is not None] or [text]
    if any(_unclear(part, span, lexicon) for part in parts for span in spans(part, lexicon)):
        return None, "unclear_grammar"
    return _most_named(found, lexicon), ""


def variants(text: str, lexicons: Sequence[Lexicon], of_people: bool = True) -> Iterator[tuple[str, str]]:
    """(attribute:value>other, the text with that exchange), every other value of every attribute that the text's people have.

    of_people  False: every mention counts, whatever the text is about; the result is to be scored, not to be read
    """
    for lexicon in lexicons:
        if of_people:
            value, _ = attribute_of(None, None, text, lexicon)
        else:
            value = _most_named(found, lexicon) if (found := spans(text, lexicon)) else None
        for other in lexicon.values if value is not None else ():
            if other != value:
                yield f"{lexicon.attribute}:{value}>{other}", swap(text, lexicon, str(value), other)


def _most_named(found: Sequence[Span], lexicon: Lexicon) -> str:
    named = Counter(span.value for span in found)
    return max(lexicon.values, key=lambda value: named[value])


def spans(text: str, lexicon: Lexicon) -> list[Span]:
    """Every form of the attribute, in order. `Sam's`: the possessive ending is not part of the form."""
    found = []
    for match in _WORD.finditer(text):
        form = match[0].lower().replace("’", "'")
        end = match.end()
        if form not in lexicon.value_of and form.endswith("'s"):
            form, end = form[:-2], end - 2
        if form in lexicon.value_of:
            found.append(Span(match.start(), end, form, lexicon.value_of[form]))
    return found


def swap(text: str, lexicon: Lexicon, value: str, other: str) -> str:
    """The text with the forms of two values exchanged, their case kept, and `a` or `an` before them set right."""
    parts: list[str] = []
    at = 0
    for span in spans(text, lexicon):
        target = {value: other, other: value}.get(span.value)
        if target is None:
            continue
        new = _cased(_form(text, span, lexicon, target), text[span.start : span.end], span.start, text)
        parts += [_article(text[at : span.start], new), new]
        at = span.end
    return "".join([*parts, text[at:]])


def _form(text: str, span: Span, lexicon: Lexicon, target: str) -> str:
    rule = lexicon.contextual.get(span.form)
    if rule is None:
        return lexicon.swaps[span.form, target]
    return rule.before_noun if _noun_follows(text, span, lexicon) else rule.otherwise


def _noun_follows(text: str, span: Span, lexicon: Lexicon) -> bool:
    """Whether a word that may begin a noun phrase follows, with nothing but white space (or an opening quote) between."""
    match = re.match(r"[ \t\n]+[\"“‘(]?([\w'’-]+)", text[span.end : span.end + 80])
    return match is not None and match[1].lower() not in lexicon.not_noun


def _unclear(text: str, span: Span, lexicon: Lexicon) -> bool:
    rule = lexicon.contextual.get(span.form)
    if rule is None or rule.before_noun == rule.otherwise:
        return False
    after = re.match(r"\s*(\w+)", text[span.end : span.end + 40])
    if after is None or after[1].lower() in lexicon.unclear_before or after[1].startswith("_"):
        return True
    if not rule.may_be_object:
        return False
    before = _WORD.findall(text[max(0, span.start - 40) : span.start].lower())
    return bool(before) and before[-1] in lexicon.unclear_after and _noun_follows(text, span, lexicon)


def _is_person(text: str, span: Span, lexicon: Lexicon) -> bool:
    if not lexicon.before or span.form in lexicon.by_itself:
        return True
    following = re.match(r"\s+([\w'-]+)", text[span.end : span.end + 60])
    return following is not None and following[1].lower().removesuffix("'s") in lexicon.before


def _mentioned(text: str, span: Span) -> bool:
    before, after = text[span.start - 1 : span.start], text[span.end : span.end + 1]
    quoted = before != "" and after != "" and before in _QUOTES and after in _QUOTES
    return quoted or before in ("-", "_", "/", "#", "@") or after in ("-", "_", "/")


def _has_name(text: str, found: Sequence[Span], lexicon: Lexicon) -> bool:
    """A first name of the lexicon; a capitalised word beside a form; for lexicons with names, any word that is capitalised
    inside a sentence and nowhere in lower case (a name, or a place: a pronoun does not say which)."""
    forms = {span.start for span in found}
    words = list(_WORD.finditer(text))
    small = {match[0] for match in words if match[0].islower()}
    end, was_name, was_form = -1, False, False
    for match in words:
        word, is_form = match[0], match.start() in forms
        bare = word.replace("’", "'").removesuffix("'s")
        if bare[0].isupper() and bare.lower() in lexicon.names:
            return True
        name = bare[0].isupper() and not is_form and bare.lower() not in _NOT_NAMES and not _begins_sentence(text, match.start())
        if lexicon.names and not is_form and not bare.isupper() and bare.lower() not in small and (name or _is_subject(text, match)):
            return True
        if end >= 0 and not text[end : match.start()].strip() and ((name and was_form) or (is_form and was_name)):
            return True
        end, was_name, was_form = match.end(), name, is_form
    return False


def _is_subject(text: str, word: re.Match[str]) -> bool:
    """Whether a capitalised word, at the beginning of a sentence, stands alone before a verb of the third person."""
    after = text[word.end() : word.end() + 40]
    return word[0][0].isupper() and word[0].lower() not in _NOT_SUBJECTS and (_VERB.match(after) is not None or "'s" in word[0])


def _without_capitals(text: str, span: Span) -> bool:
    """Whether the line up to a form is in lower case, a label like "Title:" aside: names could not be told."""
    line = text[text.rfind("\n", 0, span.start) + 1 : span.end]
    line = line.partition(": ")[2] or line
    return line == line.lower()


def _begins_sentence(text: str, start: int) -> bool:
    before = text[:start].rstrip(" \t" + _QUOTES + "([*-")
    return not before or before[-1] in ".!?:\n…"


def _cased(new: str, old: str, start: int, text: str) -> str:
    if len(old) > 1 and old.isupper():
        return new.upper()
    # a form that is a proper adjective (Muslim) keeps its capital anywhere
    return new[0].upper() + new[1:] if old[0].isupper() else new


def _article(before: str, word: str) -> str:
    """`before`, with a final `a` or `an` set right for the word that now follows."""
    match = re.search(r"\b([Aa])[Nn]?(\s+)$", before)
    if match is None or re.search(r"\b[Aa]n?\s+$", before) is None:
        return before
    vowel = (word[0].lower() in "aeiou" and not _CONSONANT_SOUND.match(word)) or _VOWEL_SOUND.match(word) is not None
    return f"{before[: match.start()]}{match[1]}{'n' if vowel else ''}{match[2]}"
