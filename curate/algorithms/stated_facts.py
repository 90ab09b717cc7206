"""Which numbers and names a text states, and which of them another text adds or loses.

Numbers are compared by value: 4,000 is 4000, "twelve" 12, "3.5 million" 3500000, "1939-45" 1939 and 1945. Number
words from two on are numbers; "one", ordinals, "twice", "both" only vouch for one.

Names are words that begin with a capital where a small letter would stand: inside a sentence always, at its beginning only
if the word is not known in small letters (`small`: words that a corpus writes so; truecasing, Lita et al. 2003,
doi:10.3115/1075096.1075116). Words in a row are one name. Names of one people or country stand for each other where their
endings are regular (China, Chinese), so do initials and what they stand for (UN, United Nations), and any part of a longer
name stands for all of it: after "Bill Gates", "Gates" is nothing new and nothing lost.

What it cannot see: two numbers exchanged, a name used for another person's deed, facts that are neither; names in scripts
without capitals; and where every noun has one (German) capitals tell nothing: there `facts` is told to give no names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

_ACRONYM = 5  # letters; a longer word in capitals is shouted
_LINKS = (" of ", " and ", " & ", " for ", " of the ", " for the ")
_LONG = 7  # letters; of shorter names one letter makes another one: Iran, Iraq


def _listed(words: str) -> list[str]:
    return words.split()


# A title or a menu: most of its words begin with a capital.
_TITLE = 0.6

_UNITS = _listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TENS = _listed("twenty thirty forty fifty sixty seventy eighty ninety")
_WORDS = {word: value for value, word in enumerate(_UNITS)} | {word: 10 * value for value, word in enumerate(_TENS, 2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SHORT = {"k": 1000, "mn": 10**6, "mln": 10**6, "bn": 10**9, "tn": 10**12}
_VOUCH = {
    "one": 1, "once": 1, "single": 1, "twice": 2, "both": 2, "pair": 2, "couple": 2, "double": 2, "half": 0.5, "quarter": 0.25,
    "dozen": 12, "decade": 10, "century": 100, "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "thirds": 3, "quarters": 4, "triple": 3,
}  # fmt: skip
_MONTHS = _listed("january february march april may june july august september october november december")
_SHORTER = {
    **{month[:3]: month for month in _MONTHS if month != "may"}, "sept": "september",
    **{day[:3]: day for day in _listed("monday tuesday wednesday thursday friday saturday sunday")}, "tues": "tuesday", "thurs": "thursday",
    "mr": "mister", "dr": "doctor", "st": "saint", "mt": "mount",
}  # fmt: skip
_NUMBER = re.compile(
    r"(?<![\w.,])(?:[$€£¥]\s?)?(?P<figure>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?P<suffix>st|nd|rd|th|s|k|mn|mln|bn|tn)?(?![\w])"
    r"(?:[\s-](?P<scale>hundred|thousand|million|billion|trillion)s?\b)?|(?P<glued>\d+)",
    re.IGNORECASE,
)
_YEARS = re.compile(r"\b(1\d|20)(\d\d)\s?[-–/]\s?(\d\d)\b(?![-–/\d])")
# A date in figures is one number: of its parts, alone, another may hold in the text ("02/06/03 ... the 2nd attempt").
_DATE = re.compile(r"(?<![\d/.-])(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{2})(?![\d/-]|\.\d)")
_SPOKEN = re.compile(
    rf"\b(?:an?\s+(?={'|'.join(_SCALES)}))?(?:(?:{'|'.join([*_WORDS, *(f'{scale}s?' for scale in _SCALES), 'and'])})(?:[\s-]+|\b))+",
    re.IGNORECASE,
)
# A word, an abbreviation with dots, or words joined by hyphens, each looked at by itself.
_WORD = re.compile(r"(?:[^\W\d_]\.){2,}|[^\W\d_]+(?:['’][^\W\d_]+)*")
# Addresses, paths and identifiers say a word without stating it.
_ADDRESS = re.compile(r"\S*(?:://|www\.|[\w-]\.(?:com|org|net|io|edu|gov)\b|\w[_/\\@]\w|``)\S*")
_OPENING = "\"'“”‘’`«»([{*_#>•·|-–—"
_NEVER = frozenset(_listed("i i'm i've i'd i'll ok"))
# Closed classes and sentence openers: no corpus need be large enough to show them in small letters.
_OPENERS = frozenset(
    _listed("""a about above according accordingly across actually additionally after afterwards again against all almost along already also although altogether always
    am amid among an and another any anyone anything anyway apart apparently are arguably around as aside at back basically be because been before
    being below beneath beside besides better between beyond both briefly but by can certainly clearly consequently conversely could currently
    curiously despite did do does doing down due during each earlier either else elsewhere especially essentially even eventually ever every everyone
    everything everywhere evidently except few finally first firstly following for fortunately from further furthermore generally given had has have
    having he hence her here hers him his historically hopefully how however i if importantly in incidentally including indeed initially inside instead
    interestingly into is it its itself just last lastly later least less let like likewise many maybe me meanwhile might mine more moreover most much
    must my namely nearly neither never nevertheless next no nobody none nonetheless nor normally not notably nothing notwithstanding now nowadays
    obviously occasionally of off often on once one only onto opposite or originally other others otherwise our ours out outside over overall own
    particularly per perhaps please possibly presumably previously primarily prior probably quite rather really recently regardless regarding same second
    secondly several shall she should similarly simply since so some somebody someone something sometimes somewhere soon specifically still strangely
    subsequently such supposedly surely surprisingly than thank thanks that the their theirs them then there thereafter thereby therefore these they third
    this those though through throughout thus till to today together tomorrow too toward towards traditionally typically ultimately under
    underneath unfortunately unless unlike until unto up upon usually very via was we well were what whatever when whenever where whereas wherever
    whether which whichever while who whoever whole whom whose why will with within without would yes yesterday yet you your yours""")
)  # fmt: skip
# "Knead the dough", "Add 7 grams": before these an unknown word at the beginning of a sentence is a verb.
_OBJECT = re.compile(
    r"\s+(?:\d|(?:the|a|an|your|this|these|that|those|it|them|some|all|each|every|any|its|their|his|her|my|our|up|in|into|with)\b)"
)
_ADVERB = re.compile(r"\w{4,}(?:ly|ing)")  # a verb or an adverb, where a sentence begins with it
_TITLES = frozenset(_listed("mr mrs ms miss mister dr doctor prof professor sir lady lord president"))
# What a country, its people and its language add to one stem.
_ENDINGS = frozenset(["", "a", "e", "y", "an", "ian", "ean", "n", "ese", "i", "is", "ish", "nish", "ain", "in", "any", "ans", "ians", "s", "es", "land", "ic", "ist", "ists", "ism"])  # fmt: skip
_PEOPLE = frozenset(["an", "ian", "ean", "ese", "ish", "nish", "ans", "ians", "ic", "ist", "ists", "ism", "i", "is"])
_SAME: dict[str, frozenset[str]] = {}
for _group in (
    "france french", "netherlands dutch holland", "greece greek", "switzerland swiss", "wales welsh", "ireland irish", "england english",
    "usa us american americans america", "uk british britain", "germany german germans", "iraq iraqi", "eu european europe",
):  # fmt: skip
    for _word in _group.split():
        _SAME[_word] = frozenset(_group.split()) - {_word}
_ABBREVIATED = frozenset(_listed("st mt no vs gen sen rep gov lt col jr inc corp co ltd"))


@dataclass(frozen=True)
class Facts:
    """What a text states.

    numbers   values that it states;  vouched: those, and values that it only hints at
    names     of each name its words, folded, in the order of the text; None: capitals do not tell
    words     every word of the text, folded, whatever its case
    weak      words of names that may be plain words at the beginning of a sentence ("Pilot Mike Mevill")
    initials  of each name of several words, alone and with its neighbours ("University of California")
    """

    numbers: dict[float, str]
    vouched: frozenset[float]
    names: tuple[tuple[str, ...], ...] | None
    words: frozenset[str]
    weak: frozenset[str] = frozenset()
    initials: tuple[frozenset[str], ...] = ()
    shown: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What an output states that its source does not, and the other way round, as it is written there."""

    new_numbers: tuple[str, ...]
    lost_numbers: tuple[str, ...]
    new_names: tuple[str, ...]
    lost_names: tuple[str, ...]


def compare(source: Facts, output: Facts, required: Facts | None = None) -> Change:
    """The change from a source to an output. `required`: what must not be lost, where that is not all of the source."""
    required = source if required is None else required
    new_numbers = [shown for value, shown in output.numbers.items() if value not in source.vouched]
    lost_numbers = [shown for value, shown in required.numbers.items() if value not in output.vouched]
    new_names: list[str] = []
    lost_names: list[str] = []
    if source.names is not None and output.names is not None and required.names is not None:
        knows, _ = _knowers(source)
        for name, initials in zip(output.names, output.initials, strict=True):
            if not (all(knows(word) or word in output.weak for word in name) or initials & source.words):
                new_names.append(_shown(output, name))
        keeps, keeps_named = _knowers(output)
        for name, initials in zip(required.names, required.initials, strict=True):
            words = [word for word in name if len(word) > 1 or len(name) == 1]
            if not (any(map(keeps_named, words)) or all(map(keeps, words)) or any(map(keeps, initials))):
                lost_names.append(_shown(required, name))
    return Change(tuple(new_numbers), tuple(lost_numbers), _once(new_names), _once(lost_names))


def facts(text: str, small: Collection[str] | None = None, known_names: Collection[str] = frozenset(), capitals: bool = True) -> Facts:
    """What a text states.

    small        words that a corpus writes in small letters; None: no such corpus, the beginning of a sentence tells no names
    known_names  names, in small letters, that are names at the beginning of a sentence as well
    capitals     whether the text's language writes names, and not every noun, with a capital
    """
    numbers, vouched = _numbers(text)
    found, links, weak, words = _names(text, small, known_names)
    shown = {fold(word): word for name in found for word in name}
    names = tuple(tuple(fold(word) for word in name) for name in found)
    initials = [{"".join(word[0] for word in name)} if len(name) > 1 else set() for name in names]
    for place in links:  # the name there goes on in the next one
        both = "".join(word[0] for word in (*names[place], *names[place + 1]))
        initials[place].add(both)
        initials[place + 1].add(both)
    if not capitals:
        return Facts(numbers, vouched, None, words)
    return Facts(numbers, vouched, names, words, frozenset(weak), tuple(map(frozenset, initials)), shown)


def prose(text: str, words: int = 8) -> str:
    """The lines of a text that are sentences: at least so many words, and an end in . ! ? or a quotation mark after one.

    All of it where no line is: then lines tell nothing.
    """
    lines = text.split("\n")
    found = [line for line in lines if len(line.split()) >= words and re.search(r"[.!?…][\"'”’)\]]*\s*$", line)]
    return "\n".join(found) if found else text


def small_words(text: str) -> Iterable[str]:
    """Words that a text writes in small letters, folded."""
    return (fold(match[0]) for match in _WORD.finditer(_ADDRESS.sub(" ", text)) if match[0].islower())


def fold(word: str) -> str:
    """A word without case, accents, dots and possessive ending."""
    word = word.replace("’", "'")
    if word[-2:] in ("'s", "'S"):
        word = word[:-2]
    decomposed = unicodedata.normalize("NFKD", word.replace(".", "").replace("'", ""))
    return "".join(char for char in decomposed if not unicodedata.combining(char)).casefold()


def _numbers(text: str) -> tuple[dict[float, str], frozenset[float]]:
    found: dict[float, str] = {}
    vouched: set[float] = set()
    text = _YEARS.sub(lambda match: f"{match[1]}{match[2]} {match[1]}{match[3]}", text)
    for match in _DATE.finditer(text):
        first, second, year = int(match[1]), int(match[3]), int(match[4])
        if len(match[4]) == 2:
            year += 2000 if year < 69 else 1900  # as POSIX reads it
        found.setdefault(-float(first * 10**6 + second * 10**4 + year), match[0])  # below 0, where no other number is
        vouched.update(map(float, (first, second, year)))
    for match in _NUMBER.finditer(_DATE.sub(" ", text)):
        if match["glued"]:
            found.setdefault(float(match["glued"]), match[0])
            continue
        value = float(match["figure"].replace(",", ""))
        scale = _SCALES.get((match["scale"] or "").lower(), 1) * _SHORT.get((match["suffix"] or "").lower(), 1)
        found.setdefault(_rounded(value * scale), match[0])
    for match in _SPOKEN.finditer(text):
        spoken, words = _spoken(match[0].lower())
        if spoken is not None:
            vouched.add(spoken)
            if spoken > 1:
                found.setdefault(spoken, match[0].strip())
            vouched.update(float(_WORDS[word]) for word in words if word in _WORDS)
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in _VOUCH:
            vouched.add(float(_VOUCH[word]))
    return found, frozenset(vouched | set(found))


def _rounded(value: float) -> float:
    return float(f"{value:.12g}")


def _spoken(phrase: str) -> tuple[float | None, list[str]]:
    """The value of number words in a row, and the words: "two hundred and five" is 205. None where only "and" or "hundred" stand."""
    words = [word.removesuffix("s") if word[:-1] in _SCALES else word for word in re.split(r"[\s-]+", phrase) if word]
    words = [word if word not in ("a", "an") else "one" for word in words]
    while words and words[-1] == "and":
        words.pop()
    while words and (words[0] == "and" or words[0] in _SCALES):
        words.pop(0)
    total = part = 0.0
    for word in words:
        if word in _WORDS:
            part += _WORDS[word]
        elif word == "hundred":
            part *= 100
        elif word in _SCALES:
            total, part = total + part * _SCALES[word], 0.0
    return (total + part if words else None), words


def _names(text: str, small: Collection[str] | None, known: Collection[str]) -> tuple[list[list[str]], list[int], set[str], frozenset[str]]:
    """Names in the order of the text; places of those that go on in the next one; weak words; all words of the text."""
    words: set[str] = set()
    mine = set(small_words(text))
    found: list[list[str]] = []
    links: list[int] = []
    weak: set[str] = set()
    strong: set[str] = set()
    for line in _ADDRESS.sub("_", text).split("\n"):
        tokens = list(_WORD.finditer(line))
        long = [token[0] for token in tokens if len(token[0]) > 3]
        titled = (
            len(tokens) > 1 and line.rstrip()[-1:] not in ".!?" and sum(word[0].isupper() for word in long) > _TITLE * max(len(long), 1)
        )
        shouted = len(tokens) > 3 and line.upper() == line
        end, waiting = -1, ""  # end of the last name's last word; a plain word that may begin a name
        for token in tokens:
            word, folded = token[0], fold(token[0])
            words.add(folded)
            gap = line[end : token.start()] if end >= 0 else "\n"
            before, waiting = waiting, ""
            if not _may_be_name(word, folded, line[token.end() : token.end() + 1]):
                continue
            starts = _starts(line, token.start())
            acronym = 1 < len(folded) <= _ACRONYM and word.isupper() and not shouted and folded not in _OPENERS
            plain = small is None or folded in small or folded in mine or folded in _OPENERS
            plain = plain or bool(starts and (_ADVERB.fullmatch(folded) or (word[1:].islower() and _OBJECT.match(line, token.end()))))
            if (starts or titled or shouted) and not acronym and plain and folded not in known:
                waiting = word if starts and folded not in _OPENERS and not _ADVERB.fullmatch(folded) else ""
                if waiting:
                    end = token.end()
                continue
            if before and gap == " ":
                found.append([before, word])
                weak.add(fold(before))
            elif found and (gap in (" ", "-") or (gap == ". " and len(found[-1][-1]) == 1)):
                found[-1].append(word)
            else:
                if found and gap in _LINKS:
                    links.append(len(found) - 1)
                found.append([word])
            strong.add(folded)
            end = token.end()
    return found, links, weak - strong, frozenset(words)


def _may_be_name(word: str, folded: str, after: str) -> bool:
    if not word[0].isupper() or not folded or word.lower().replace("’", "'") in _NEVER:
        return False
    if folded in _TITLES or folded in _WORDS or folded in _SCALES or (folded in _OPENERS and not word.isupper()):
        return False
    return len(folded) > 1 or after == "."


def _starts(line: str, place: int) -> bool:
    """Whether a sentence begins here."""
    before = line[:place].rstrip(" \t" + _OPENING)
    if not before or before[-1] in "!?:;…|":
        return True
    if before[-1] != ".":
        return False
    last = before[before.rfind(" ") + 1 :].rstrip(".").lower().strip(_OPENING)
    return not (last in _TITLES or last in _ABBREVIATED or (len(last) == 1 and last.isalpha()))


def _knowers(facts: Facts) -> tuple[Callable[[str], bool], Callable[[str], bool]]:
    """Whether a word of a name stands in a text, in one of its forms: anywhere, and in a name."""
    named = frozenset(word for name in facts.names or () for word in name)
    initials = frozenset().union(*facts.initials)

    def knower(words: frozenset[str]) -> Callable[[str], bool]:
        stems: dict[str, list[str]] = {}
        for word in words:
            stems.setdefault(word[:3], []).append(word)
        spelled = words | initials | {_SHORTER[word] for word in words & set(_SHORTER)}

        def knows(word: str) -> bool:
            if word in spelled or _SHORTER.get(word) in spelled or _SAME.get(word, frozenset()) & spelled:
                return True
            return any(_kin(word, other) for other in stems.get(word[:3], ()))

        return knows

    return knower(facts.words), knower(named)


def _kin(one: str, other: str) -> bool:
    """China and Chinese; Gates and Gate's; Falluja and Fallujah; not Martin and Martha."""
    if min(len(one), len(other)) >= _LONG and _one_apart(one, other):
        return True
    length = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    if length < 3:
        return False
    for stem in range(length, max(2, length - 2), -1):
        left, right = one[stem:], other[stem:]
        if {left, right} in ({"", "s"}, {"", "es"}, {"y", "ies"}):
            return True
        if stem >= 3 and left in _ENDINGS and right in _ENDINGS and (left in _PEOPLE or right in _PEOPLE):
            return True
    return False


def _one_apart(one: str, other: str) -> bool:
    """Whether one letter more, less or changed turns one word into the other: two spellings of a long name."""
    if len(one) > len(other):
        one, other = other, one
    if len(other) - len(one) > 1:
        return False
    at = next((place for place in range(len(one)) if one[place] != other[place]), len(one))
    return one[at + (len(one) == len(other)) :] == other[at + 1 :]


def _shown(facts: Facts, name: tuple[str, ...]) -> str:
    return " ".join(facts.shown.get(word, word) for word in name)


def _once(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
