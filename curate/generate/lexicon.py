"""Lexicons of a sensitive attribute: which words name its values, and how one value's words become another's.

A lexicon is a YAML file (see `lexicons/gender.yaml`, which uses every key):

    attribute   name                        values    its values, two or more
    forms       lists as long as `values`: one meaning, a word for each value
    mentions    people | all                people (the default): see `exchange.py`; all: every form counts, whatever the text is about,
                                            for labels that must not depend on the group
    several     swap | skip                 a text that mentions two values: exchange them, or leave the row out
    contextual  word -> {before_noun, otherwise}, and contextual_value: word -> value   (attributes of two values only)
    not_noun, unclear_after, unclear_before   words that decide about `contextual`
    before      where given, a form counts only before one of these words, except the forms in `by_itself`
    stop        words that make the attribute the content of a row; `gender*` matches any ending
    names       first names

Lists of words are strings, separated by white space.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from curate.errors import UserMistake

PACKAGED = Path(__file__).parent / "lexicons"


class ByFollowing(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    before_noun: str
    otherwise: str
    may_be_object: bool = False  # then `unclear_after` is looked at


class Lexicon(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    attribute: str
    values: tuple[str, ...]
    forms: tuple[tuple[str, ...], ...]
    mentions: Literal["people", "all"] = "people"
    several: Literal["swap", "skip"] = "skip"
    contextual: dict[str, ByFollowing] = {}
    contextual_value: dict[str, str] = {}
    not_noun: frozenset[str] = frozenset()
    unclear_after: frozenset[str] = frozenset()
    unclear_before: frozenset[str] = frozenset()
    before: frozenset[str] = frozenset()
    by_itself: frozenset[str] = frozenset()
    stop: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    digest: str = ""

    @field_validator("not_noun", "unclear_after", "unclear_before", "before", "by_itself", "stop", "names", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return value.lower().split() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Lexicon:
        if len(self.values) < 2 or any(len(form) != len(self.values) for form in self.forms):
            raise ValueError("`values` needs two or more, and each line of `forms` one word for each of them")
        if self.contextual.keys() != self.contextual_value.keys() or (self.contextual and len(self.values) != 2):
            raise ValueError("`contextual` and `contextual_value` need the same words, and an attribute of two values")
        if not set(self.contextual_value.values()) <= set(self.values):
            raise ValueError("`contextual_value` names a value that is not in `values`")
        return self

    @cached_property
    def value_of(self) -> dict[str, str]:
        """Lower-case form -> its value."""
        found = {word.lower(): value for form in self.forms for word, value in zip(form, self.values, strict=True)}
        return {**found, **self.contextual_value}

    @cached_property
    def swaps(self) -> dict[tuple[str, str], str]:
        """(lower-case form, target value) -> the form there; the first line that holds a form wins."""
        found: dict[tuple[str, str], str] = {}
        for form in self.forms:
            for word in form:
                for value, other in zip(self.values, form, strict=True):
                    found.setdefault((word.lower(), value), other)
        return found

    @cached_property
    def stop_pattern(self) -> re.Pattern[str]:
        words = (re.escape(word[:-1]) + r"\w*" if word.endswith("*") else re.escape(word) for word in self.stop)
        return re.compile(rf"(?<!\w)(?:{'|'.join(words) or '(?!)'})(?!\w)", re.IGNORECASE)


def read_lexicons(names: tuple[str, ...], folder: str | None) -> tuple[Lexicon, ...]:
    """The named lexicons of a folder, by default of those shipped. Raises UserMistake naming the file and what to change."""
    return tuple(_read(name, Path(folder).expanduser() if folder is not None else PACKAGED) for name in names)


def _read(name: str, home: Path) -> Lexicon:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = home / f"{name}.yaml"
    if path.parent != home or not path.is_file():
        known = ", ".join(sorted(file.stem for file in home.glob("*.yaml"))) or "none"
        raise UserMistake(f"no lexicon '{name}' in {home} (there: {known}): name one of these, or add {name}.yaml there")
    data = path.read_bytes()
    try:
        content = YAML(typ="safe", pure=True).load(data)
        return Lexicon.model_validate({**content, "digest": hashlib.sha256(data).hexdigest()[:16]})
    except (YAMLError, ValidationError, TypeError) as error:
        raise UserMistake(f"lexicon {path} cannot be used: {error}: compare it with curate/generate/lexicons/gender.yaml") from None
