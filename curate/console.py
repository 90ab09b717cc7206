"""What all commands share: options that mean the same everywhere, and how a result is said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line of stdout.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, for example runs/quickstart.", show_default=False)]


def say(facts: dict[str, Any], as_json: bool, text: str) -> None:
    """Text for people; with --json one object on one line, the last of stdout."""
    if as_json:
        print(as_line(facts), flush=True)
    else:
        print(text, flush=True)


def as_line(value: Any) -> str:
    """One line of strict JSON: NaN and infinities, which it does not know, become null."""
    try:
        return json.dumps(value, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
