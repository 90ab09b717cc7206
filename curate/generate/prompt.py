"""The prompt around a document: a file with placeholders, fences, and markers made harmless.

A document is hostile material. It is put between two lines that it cannot contain (spotlighting by delimiters, Hines et
al. 2024), and whatever could be taken for a model's own control token is broken up. Neither makes a model immune;
`gate.py` judges what comes out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from curate.errors import UserMistake

PACKAGED = Path(__file__).parent / "prompts"
FENCE = re.compile(r"DRAFT-[0-9a-f]{16}")
# Turn markers of the common chat templates: ChatML, Llama 2 and 3, Gemma, Phi, Mistral, DeepSeek, tool calls.
MARKERS = re.compile(
    r"<\|[^|<>]{1,64}\|>|<｜[^｜<>]{1,64}｜>|</?s>|<<\s*/?SYS\s*>>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
    r"|</?(?:start_of_turn|end_of_turn|bos|eos|pad|unk|tool_call|tool_response|think)>"
)
_TAGS = re.compile("[\U000e0000-\U000e007f]")  # invisible letters, readable to a tokenizer


@dataclass(frozen=True)
class Prompt:
    """One prompt file. `shows` is the field it shows: "text" (a plain document) or "prompt" (an instruction);
    `shows_response`: the given answer to that instruction, too."""

    name: str
    template: str
    shows: str
    shows_response: bool = False

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.template.encode()).hexdigest()[:16]

    def fill(self, document: str, fence: str, response: str = "") -> str:
        """The message to send. One pass: a placeholder inside the document stays what it is."""
        found = {"{fence}": fence, f"{{{self.shows}}}": document, "{response}": response}
        return re.sub(r"\{(?:fence|text|prompt|response)\}", lambda match: found[match[0]], self.template)


def read_prompt(name: str, folder: str | Path | None = None) -> Prompt:
    """The prompt NAME.txt of a folder, by default of those shipped. Raises UserMistake saying what to change.

    A prompt holds either {text}, between two {fence}, or {prompt}, and beside that the given answer as {response}. An answer
    needs no fence: what stands in it can only spoil the new answer to its own prompt, and a small model copies fences
    (SmolLM2-135M: in 43 of 60 rows).
    """
    home = Path(folder).expanduser() if folder is not None else PACKAGED
    path = home / f"{name}.txt"
    if path.parent != home or not path.is_file():
        known = ", ".join(sorted(file.stem for file in home.glob("*.txt"))) or "none"
        raise UserMistake(f"no prompt '{name}' in {home} (there: {known}): name one of these, or add {name}.txt there")
    template = path.read_text(encoding="utf-8").rstrip("\n")
    shows = [field for field in ("text", "prompt") if f"{{{field}}}" in template]
    if len(shows) != 1:
        raise UserMistake(f"{path} must hold exactly one of {{text}} and {{prompt}}: it says what the model is shown")
    if shows == ["text"] and not re.search(r"\{fence\}.*\{text\}.*\{fence\}", template, re.DOTALL):
        raise UserMistake(f"{path} shows a document without fences: put a line {{fence}} before and after {{text}}")
    answered = "{response}" in template
    if answered and shows == ["text"]:
        raise UserMistake(f"{path} holds {{response}} beside {{text}}, and documents have none: put {{prompt}} in place of {{text}}")
    return Prompt(name, template, shows[0], answered)


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
