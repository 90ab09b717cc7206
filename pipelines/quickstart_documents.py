"""Documents for the pretraining road, from what every installation of Python carries.

    OUT_FOLDER/documents.jsonl    id, text, quality_label, doc_type

    high     reference    the language reference behind `help()`, in pieces of up to 2,000 characters
    medium   readme       long descriptions of the installed packages, as they stand in their metadata
    medium   docstring    docstrings with their parameter lists and markup
    low      licence      licence texts, mostly copies of one another
    low      code         the beginnings of source files: tables, constants, imports

`quality_label` says what kind of text it is, not how true it is. The same environment gives the same bytes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

PIECE = 2000  # characters
MOST = {"reference": 450, "readme": 250, "docstring": 400, "licence": 200, "code": 300}
LABEL = {"reference": "high", "readme": "medium", "docstring": "medium", "licence": "low", "code": "low"}


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """Whole paragraphs, joined up to `size` characters; what is left over below a fifth of it is let go."""
    here: list[str] = []
    for paragraph in text.split("\n\n"):
        if here and sum(map(len, here)) + len(paragraph) > size:
            yield "\n\n".join(here)
            here = []
        here.append(paragraph[:size])
    if sum(map(len, here)) > size / 5:
        yield "\n\n".join(here)


def _reference() -> Iterator[tuple[str, str]]:
    file = Path(sysconfig.get_paths()["stdlib"]) / "pydoc_data" / "topics.py"
    if file.is_file():
        tree = ast.parse(file.read_bytes())
        topics = ast.literal_eval(next(node.value for node in tree.body if isinstance(node, ast.Assign)))
        for name, text in sorted(topics.items()):
            for number, piece in enumerate(pieces(text.strip())):
                yield f"topics:{name}:{number}", piece


def _packages() -> list[metadata.Distribution]:
    found = {str(package.metadata["Name"]).lower(): package for package in metadata.distributions() if package.metadata["Name"]}
    return [found[name] for name in sorted(found)]


def _readme() -> Iterator[tuple[str, str]]:
    for package in _packages():
        text = package.metadata.get_payload() or package.metadata["Description"] or ""  # type: ignore[attr-defined]
        for number, piece in enumerate(list(pieces(str(text).strip()))[:4]):
            yield f"{package.metadata['Name']}:readme:{number}", piece


def _licence() -> Iterator[tuple[str, str]]:
    for package in _packages():
        for file in sorted(map(str, package.files or [])):
            if "licen" in file.lower().rsplit("/", 1)[-1] and not file.endswith(".py"):
                path = Path(str(package.locate_file(file)))
                if path.is_file():
                    for number, piece in enumerate(list(pieces(path.read_text(encoding="utf-8", errors="replace").strip()))[:3]):
                        yield f"{package.metadata['Name']}:{file}:{number}", piece


def _sources() -> list[Path]:
    return sorted(
        path
        for path in Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")
        if "site-packages" not in path.parts and "test" not in path.parts
    )


def _docstring() -> Iterator[tuple[str, str]]:
    for path in _sources():
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if (
                isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
                and (text := ast.get_docstring(node))
                and len(text.split()) >= 60
            ):
                yield f"{path.name}:{getattr(node, 'lineno', 1)}", text[:PIECE]


def _code() -> Iterator[tuple[str, str]]:
    for path in _sources():
        text = path.read_text(encoding="utf-8", errors="replace")
        if len(text) > 1500:
            yield f"{path.parent.name}/{path.name}", text[1000 : 1000 + PIECE].partition("\n")[2]


def write(folder: Path) -> tuple[Path, dict[str, int]]:
    """Write documents.jsonl; its path and the number of rows per kind."""
    kinds = {"reference": _reference, "readme": _readme, "docstring": _docstring, "licence": _licence, "code": _code}
    lines: list[str] = []
    counts: dict[str, int] = {}
    for kind, read in kinds.items():
        rows = list(read())
        # Which rows, by hash; in what order, by place: no kind is all from the beginning of the alphabet.
        chosen = {name for name, _ in sorted(rows, key=lambda row: hashlib.sha256(row[0].encode()).digest())[: MOST[kind]]}
        for name, text in rows:
            if name in chosen:
                lines.append(json.dumps({"id": name, "text": text, "quality_label": LABEL[kind], "doc_type": kind}, ensure_ascii=False))
                counts[kind] = counts.get(kind, 0) + 1
    content = "\n".join(lines) + "\n"
    path = folder / "documents.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != content:
        aside = folder / ".documents.tmp"
        aside.write_text(content, encoding="utf-8", newline="\n")
        aside.replace(path)
    return path, counts
