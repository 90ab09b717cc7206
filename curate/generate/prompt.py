"""The prompt around a document: a file with placeholders, fences, and markers made harmless.

A prompt file is a task. It may begin with what the task makes and what `gate.py` holds its output to, as YAML between two
lines of three dashes; `Rules` lists the keys. The text after that is what the model is shown. A line {turn} in it parts the
system's turn from the user's.

A document is hostile material. It is put between two lines that it cannot contain (spotlighting by delimiters, Hines et
al. 2024), and whatever could be taken for a model's own control token is broken up. Neither makes a model immune;
`gate.py` judges what comes out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curate.errors import UserMistake

PACKAGED = Path(__file__).parent / "prompts"
FENCE = re.compile(r"DRAFT-[0-9a-f]{16}")
# Turn markers of the common chat templates: ChatML, Llama 2 and 3, Gemma, Phi, Mistral, DeepSeek, tool calls.
MARKERS = re.compile(
    r"<\|[^|<>]{1,64}\|>|<｜[^｜<>]{1,64}｜>|</?s>|<<\s*/?SYS\s*>>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
    r"|</?(?:start_of_turn|end_of_turn|bos|eos|pad|unk|tool_call|tool_response|think)>"
)
_TURN = "{turn}"
_TAGS = re.compile("[\U000e0000-\U000e007f]")  # invisible letters, readable to a tokenizer


class Rules(BaseModel):
    """What a task makes, and what its output is held to.

    makes           text, for a document; response or prompt, for an instruction. None: text where the prompt shows {text}, else response
    form            prose; questions: pairs of "Question:" and "Answer:"; list: lines that begin with a dash
    facts           all: the output states every number and name that its source states in prose, and no other; subset: no
                    other; free: not compared
    length_ratio    characters of output per character of source
    copy_max        share of the output's word 5-grams that may stand in the source
    similarity_min  least cosine of the sets of character 5-grams
    segments        a long document may be cut, and the outputs put together
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    makes: Literal["text", "response", "prompt"] | None = None
    form: Literal["prose", "questions", "list"] = "prose"
    facts: Literal["all", "subset", "free"] | None = None
    length_ratio: tuple[float, float] | None = None
    copy_max: float | None = Field(default=None, gt=0, le=1)
    similarity_min: float | None = Field(default=None, ge=0, lt=1)
    segments: bool = True


@dataclass(frozen=True)
class Prompt:
    """One prompt file. `shows` is the field it shows: "text" (a plain document) or "prompt" (an instruction);
    `shows_response`: the given answer to that instruction, too; `makes`: the field that the model's answer becomes."""

    name: str
    template: str
    shows: str
    shows_response: bool = False
    makes: str = "text"
    system: str = ""
    rules: Rules = field(default_factory=Rules)

    @property
    def digest(self) -> str:
        """Of what the model is shown: stored responses stay good when a rule changes."""
        shown = f"{self.system}\n{_TURN}\n{self.template}" if self.system else self.template
        return hashlib.sha256(shown.encode()).hexdigest()[:16]

    def fill(self, document: str, fence: str, response: str = "") -> str:
        """The message to send. One pass: a placeholder inside the document stays what it is."""
        found = {"{fence}": fence, f"{{{self.shows}}}": document, "{response}": response}
        return re.sub(r"\{(?:fence|text|prompt|response)\}", lambda match: found[match[0]], self.template)


def read_prompt(name: str, folder: str | Path | None = None) -> Prompt:
    """The prompt NAME.txt of a folder, by default of those shipped. Raises UserMistake saying what to change.

    A prompt holds either {text}, between two {fence} or as a user's turn of its own, whose end no document can forge, or {prompt}, and beside that the given answer as {response}. An answer
    needs no fence: what stands in it can only spoil the new answer to its own prompt, and a small model copies fences
    (SmolLM2-135M: in 43 of 60 rows).
    """
    home = prompts_folder(folder)
    path = home / f"{name}.txt"
    if path.parent != home or not path.is_file():
        known = ", ".join(sorted(file.stem for file in home.glob("*.txt"))) or "none"
        raise UserMistake(f"no prompt '{name}' in {home} (there: {known}): name one of these, or add {name}.txt there")
    rules, template = _parts(path)
    system, parted, turn = template.partition(f"\n{_TURN}\n")
    system, template = (system.strip(), turn.strip()) if parted else ("", template)
    shows = [field for field in ("text", "prompt") if f"{{{field}}}" in template]
    if len(shows) != 1:
        raise UserMistake(f"{path} must hold exactly one of {{text}} and {{prompt}}: it says what the model is shown")
    alone = system and template == "{text}"
    if shows == ["text"] and not alone and not re.search(r"\{fence\}.*\{text\}.*\{fence\}", template, re.DOTALL):
        raise UserMistake(
            f"{path} shows a document without fences: put a line {{fence}} before and after {{text}}, or {{text}} alone in a turn"
        )
    answered = "{response}" in template
    if answered and shows == ["text"]:
        raise UserMistake(f"{path} holds {{response}} beside {{text}}, and documents have none: put {{prompt}} in place of {{text}}")
    makes = rules.makes or ("text" if shows == ["text"] else "response")
    if (makes == "text") != (shows == ["text"]):
        raise UserMistake(
            f"{path} shows {{{shows[0]}}} and says `makes: {makes}`: {{text}} makes text, {{prompt}} makes response or prompt"
        )
    if system and shows != ["text"]:
        raise UserMistake(f"{path} has a {_TURN} and shows {{prompt}}: an instruction has its own turns; take the line {_TURN} out")
    return Prompt(name, template, shows[0], answered, makes, system, rules)


def prompts_folder(folder: str | Path | None) -> Path:
    return Path(folder).expanduser() if folder is not None else PACKAGED


def _parts(path: Path) -> tuple[Rules, str]:
    """The rules of a prompt file, and its template."""
    whole = path.read_text(encoding="utf-8").rstrip("\n")
    head = re.match(r"---\n(.*?)\n---\n\s*", whole, re.DOTALL)
    if head is None:
        return Rules(), whole
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        settings: Any = YAML(typ="safe").load(head[1])
        return Rules.model_validate(settings or {}), whole[head.end() :]
    except (YAMLError, ValidationError) as error:
        fault = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" if fault else "it is no YAML"
        raise UserMistake(f"{path}, between its lines of dashes: {what}; known there: {', '.join(Rules.model_fields)}") from None


def fence_for(seed: int, row_id: str, document: str) -> str:
    """A delimiter that depends on nothing but seed and row, and that the document does not contain."""
    for attempt in range(1000):
        fence = f"DRAFT-{hashlib.sha256(f'{seed}:{row_id}:{attempt}'.encode()).hexdigest()[:16]}"
        if fence not in document:
            return fence
    raise ValueError(f"no fence for row {row_id}: its text contains 1,000 of them; leave the row out")


def neutralise(document: str, special_tokens: Iterable[str] = ()) -> str:
    """The document with every control marker broken by a space after its first character, and without tag characters.

    `special_tokens`: those of the tokenizer in use, in addition to the usual markers.
    """
    text = _TAGS.sub("", document)
    text = MARKERS.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
    # longest first; a marker of one character, or one that is plain white space, cannot be broken and opens no turn
    for token in sorted({token for token in special_tokens if len(token.strip()) > 1}, key=lambda token: (-len(token), token)):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
