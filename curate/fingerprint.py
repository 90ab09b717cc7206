"""What a result depends on, reduced to one hash: settings, code, libraries, models, inputs.

Nothing here imports torch or ray: a run with nothing to do must end in a second or two.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from curate.errors import UserMistake
from curate.stage import Stage
from curate.store import read_json, write_text

PACKAGE = Path(__file__).parent
# Changing how shards are scheduled, recorded or shown changes no value in them.
REMEMBERED = 3  # raise it when `_parse` or SPINE changes
SPINE = {
    "dataset",
    "stage",
    "runs",
    "step",
    "sources",
    "publishing",
    "engine",
    "recipe",
    "ledger",
    "cli",
    "store",
    "fingerprint",
    "errors",
    "progress",
    "pipeline",
    "work",
    "stopping",
    "versions",
}


def of_stage(stage: Stage, threads: int) -> dict[str, Any]:
    """Everything about a stage, apart from its inputs and its artifact, that its result depends on."""
    from curate import models

    settings = stage.model_dump(mode="json", exclude=set(stage.unfingerprinted) or None)
    identities = {reference: models.identity(reference) for reference in stage.models()}
    return {
        "stage": type(stage).__name__,
        "settings": _by_content(settings, identities),
        "code": code_hash(Path(sys.modules[type(stage).__module__].__file__ or "")),
        "models": list(identities.values()),
        "identity": stage.identity(),
        "libraries": {name: _version(name) for name in ("pyarrow", *stage.libraries)},
        "python": sys.version_info[:2],
        "threads": threads,
    }


def _by_content(value: Any, identities: dict[str, str]) -> Any:
    """Settings with every model reference replaced by what it refers to: a moved folder is the same model."""
    if isinstance(value, dict):
        return {key: _by_content(item, identities) for key, item in value.items()}
    if isinstance(value, list):
        return [_by_content(item, identities) for item in value]
    return identities.get(value, value) if isinstance(value, str) else value


@lru_cache
def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"


def versions() -> dict[str, str]:
    """Versions of what a run computes with, for run.json."""
    names = ("curate", "pyarrow", "numpy", "torch", "transformers", "tokenizers", "ray", "faiss-cpu", "scikit-learn", "scipy")
    return {"python": ".".join(map(str, sys.version_info[:3])), **{name: _version(name) for name in names}}


@lru_cache
def package_digest() -> str:
    """SHA-256 over every file of this package, comments included."""
    files = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".yaml", ".cpp", ".txt"))
    return hashlib.sha256(b"".join(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes() for path in files)).hexdigest()


_READ: dict[Path, str] = {}  # hash of the syntax tree of each of our own files when this process first looked


def code_hash(file: Path) -> str:
    """Hash of the syntax trees, without comments and docstrings, of a file and of the modules of ours it imports."""
    seen: dict[Path, str] = {}
    todo = [file.resolve()]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen[path], imported = _parsed(path)
            todo += imported
    parts = sorted(
        (path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name, tree) for path, tree in seen.items()
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _parsed(path: Path) -> tuple[str, tuple[Path, ...]]:
    """Hash of a file's syntax tree and the files of ours it imports.

    Remembered on the disk by the file's place and content, since parsing takes 5 ms a file. Not by its time: two versions
    with one time would let results of the old code pass for results of the new. For that reason a file of this package must not
    change while a process is at work: what it has imported is the old code.
    """
    from curate.models import cache_folder

    key = hashlib.sha256(repr((str(path), sys.version_info[:2], REMEMBERED)).encode() + path.read_bytes()).hexdigest()
    note = cache_folder() / "code" / key[:2] / key
    known = read_json(note)
    if known is None:
        tree, imported = _parse(path)
        known = [tree, [str(file) for file in imported]]
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps(known))
    if path.is_relative_to(PACKAGE) and _READ.setdefault(path, known[0]) != known[0]:
        raise UserMistake(f"{path} changed while the run was at work: what is finished is kept, run the same command again")
    return known[0], tuple(Path(file) for file in known[1])


def _parse(path: Path) -> tuple[str, tuple[Path, ...]]:
    tree = ast.parse(path.read_bytes())
    imported = tuple(sorted({found for node in ast.walk(tree) for found in _ours(node, path)}))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imported


def _ours(node: ast.AST, path: Path) -> list[Path]:
    """Files of this package (or beside a user's file) that an import statement names."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    found = []
    for name in names:
        parts = name.split(".")
        if parts[0] == "curate":
            if len(parts) > 1 and parts[1] in SPINE:
                continue
            base = PACKAGE.joinpath(*parts[1:])
        else:
            base = path.parent.joinpath(*parts)
            if not base.with_suffix(".py").is_file():
                continue
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file() and candidate != PACKAGE / "__init__.py":
                found.append(candidate.resolve())
    return found


def load_module(prefix: str, file: Path) -> Any:
    """Import a file that is not part of the package, under a name that follows from its place and its text.

    An edited file is another module, also in one process; files beside it can be imported by it.
    """
    text = file.read_bytes()
    name = f"{prefix}_{file.stem}_{hashlib.sha256(str(file).encode() + text).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserMistake(f"{file} is not a Python file; give one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserMistake(f"{file} cannot be loaded: {type(error).__name__}: {error}; mend it") from error
    finally:
        sys.path.remove(str(file.parent))
    return module
