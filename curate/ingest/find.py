"""Which files a recipe's paths stand for. They are only ever read."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from curate.errors import UserMistake
from curate.ingest import hub, streams
from curate.ingest.settings import Ingest

LINES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
SUFFIXES = (*LINES, ".parquet", ".arrow", *(form + packed for form in LINES for packed in streams.COMPRESSIONS))
OF_A_RUN = frozenset(
    ("corpus", "stages", "versions", "dataset", "tmp", "report", "responses", "recovery", "audit", "run.json", "plan.json", "refresh.json")
)
WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class SourceFile:
    source: str
    priority: int
    path: str  # absolute, or a hub address
    name: str  # shown to the user: relative to the source, with /


def find_files(settings: Ingest, run_folder: Path | None = None) -> list[SourceFile]:
    """Every input file in order of (priority, source, name); a path with nothing to read is a UserMistake.

    In folders and behind wildcards, files with other suffixes, hidden ones and linked folders are passed over, and so is what a run
    writes in `run_folder`: it does not read itself. A file found twice under one source counts once.
    """
    origins = [(origin, *_outside(origin.path, *_find(origin.path), run_folder)) for origin in settings.origins()]
    if not settings.sources:  # several paths are one source: its files are named from where the paths meet
        meet = os.path.commonpath([str(base) for _, base, _ in origins if base] or ["/"])
        origins = [(origin, base and Path(meet), paths) for origin, base, paths in origins]
    files: dict[str, dict[str, SourceFile]] = {}
    for origin, base, paths in origins:
        for path in paths:
            name = os.fsencode(path.relative_to(base)).decode(errors="backslashreplace").replace(os.sep, "/") if base else origin.path
            whole = str(path) if base else origin.path
            files.setdefault(origin.name, {}).setdefault(whole, SourceFile(origin.name, origin.priority, whole, name))
    return [file for group in files.values() for file in sorted(group.values(), key=lambda file: (file.name, file.path))]


def passed_over(settings: Ingest, files: Sequence[SourceFile]) -> list[str]:
    """Files of kinds that are not read, beside those that are in folders which the recipe names: a `.bz2` is easily missed. Pages are not meant."""
    tops = [str(Path(origin.path).expanduser().absolute()) for origin in settings.origins() if not origin.path.startswith(hub.PREFIX)]
    folders = {Path(file.path).parent for file in files if any(file.path.startswith(f"{top}/") for top in tops)}
    names = (path for folder in sorted(folders) for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path.name for path in names if path.suffix not in ("", ".md") and not suffix_of(path.name) and path.is_file()]


def suffix_of(name: str) -> str | None:
    """The longest suffix of ours that the name ends in, in lower case."""
    return max((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), key=len, default=None)


def _find(given: str) -> tuple[Path | None, list[Path]]:
    """(folder that names are relative to, absolute paths); no folder for a hub address."""
    if given.startswith(hub.PREFIX):
        return None, [Path(given)]
    try:
        base, found = _found(given, Path(given).expanduser().absolute())
    except PermissionError as error:
        _refuse(error)
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, a user who is not there, a zero byte
        reason = getattr(error, "strerror", None) or error
        raise UserMistake(f"{given}: cannot be looked up ({reason}); check ingest.path") from None
    if not found:
        raise UserMistake(f"{given}: nothing to read there; check the path, files of these kinds are read: {', '.join(SUFFIXES)}")
    return base, found


def _found(given: str, path: Path) -> tuple[Path, list[Path]]:
    if path.is_file():
        if not suffix_of(path.name):
            raise UserMistake(f"{given}: files of this kind are not read; give one of {', '.join(SUFFIXES)}")
        return path.parent, [path]
    if path.is_dir():
        return path, _walk(path)
    if not WILDCARD.search(str(path)):
        raise UserMistake(f"{given}: there is no such file or folder; check ingest.path")
    fixed = next(i for i, part in enumerate(path.parts) if WILDCARD.search(part))
    base = Path(*path.parts[:fixed])
    return base, [file for file in _matching(base, path.parts[fixed:]) if _is_input(file, base)] if base.is_dir() else []


def _matching(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """As Path.glob, but a folder that cannot be listed is refused: its rows would be missing without a word."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        for at, folders, _ in os.walk(folder, onerror=_refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from _matching(Path(at), rest or ("*",))
        return
    try:
        names = fnmatch.filter(sorted(path.name for path in folder.iterdir()), part) if WILDCARD.search(part) else [part]
    except OSError as error:
        _refuse(error)
    for name in names:
        path = folder / name
        if name.startswith(".") and not part.startswith("."):
            continue
        if not rest:
            yield path
        elif path.is_dir():
            yield from _matching(path, rest)


def _outside(given: str, base: Path | None, found: list[Path], run_folder: Path | None) -> tuple[Path | None, list[Path]]:
    """Without what a run writes in its folder."""
    if base is None or run_folder is None:
        return base, found
    run = run_folder.resolve()
    folders = {folder: folder.resolve() for folder in {path.parent for path in found}}  # once for each, not for each file

    def own(path: Path) -> bool:
        folder = folders[path.parent]
        return folder.is_relative_to(run) and (folder / path.name).relative_to(run).parts[0] in OF_A_RUN

    others = [path for path in found if not own(path)]
    if not others:
        raise UserMistake(f"{given}: is what this run itself writes, in {run_folder}: name another path, or give another --run-dir")
    return base, others


def _is_input(path: Path, base: Path) -> bool:
    # A link that leads nowhere is named as unreadable rather than passed over.
    hidden = any(part.startswith(".") for part in path.relative_to(base).parts)
    return suffix_of(path.name) is not None and not hidden and (path.is_file() or (path.is_symlink() and not path.exists()))


def _walk(folder: Path) -> list[Path]:
    found = []
    for at, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if {"state.json", "dataset_info.json"} <= set(names):
            found += [Path(at, name) for name in _saved_files(Path(at, "state.json"))]
        else:
            paths = [Path(at, name) for name in names if name != "dataset_dict.json"]
            found += [path for path in paths if _is_input(path, folder)]
    return found


def _saved_files(state: Path) -> list[str]:
    """The data files of a folder written by `datasets.save_to_disk`; what else lies there is its cache."""
    try:
        names = [entry["filename"] for entry in json.loads(state.read_bytes())["_data_files"]]
        if any(Path(name).name != name for name in names):
            raise ValueError("a file name in it leads out of the folder")
    except (ValueError, KeyError, TypeError) as error:
        raise UserMistake(f"{state}: is not what datasets.save_to_disk writes ({error}); save the data set again") from error
    return names


def _refuse(error: OSError) -> NoReturn:
    raise UserMistake(f"{error.filename}: cannot be listed ({error.strerror}); give yourself the right to read it, or name another path")
