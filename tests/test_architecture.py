"""Who may import whom, and what may be loaded when."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "curate").rglob("*.py"))
HEAVY = ("torch", "ray", "transformers", "faiss", "sklearn", "datasets")
ALGORITHMS_MAY_IMPORT = {"numpy", "scipy", "sklearn", "faiss", "torch", "threadpoolctl"} | set(sys.stdlib_module_names)


def imports(path: Path) -> set[str]:
    """Full names of what a file imports, at any depth of the code."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively: the fingerprint of code follows full names only"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def importers(package: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in MODULES if any(name.split(".")[0] == package for name in imports(path))}


def in_fresh_process(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_the_engine_imports_ray():
    assert importers("ray") == {"curate/engine.py"}


def test_the_library_never_imports_the_pipelines_nor_the_tests():
    assert importers("pipelines") == importers("tests") == set()


def test_only_models_calls_from_pretrained():
    def calls(path: Path) -> bool:
        return any(isinstance(node, ast.Attribute) and node.attr == "from_pretrained" for node in ast.walk(ast.parse(path.read_text())))

    assert {path.relative_to(ROOT).as_posix() for path in MODULES if calls(path)} == {"curate/models.py"}


@pytest.mark.parametrize("path", sorted((ROOT / "curate" / "algorithms").glob("*.py")), ids=lambda path: path.stem)
def test_algorithms_are_arrays_in_arrays_out(path):
    foreign = {name for name in imports(path) if name.split(".")[0] not in ALGORITHMS_MAY_IMPORT}
    ours = {name for name in foreign if name.startswith("curate.algorithms")}  # one kernel may build on another
    assert foreign == ours
    assert not {name for name in imports(path) if name in ("pathlib", "io", "shutil", "tempfile", "sqlite3")}


def test_stages_know_nothing_of_runs_and_engines():
    spine = {
        "curate.runs",
        "curate.sources",
        "curate.step",
        "curate.publishing",
        "curate.engine",
        "curate.cli",
        "curate.studies",
        "curate.console",
        "curate.pipeline",
        "curate.recipe",
    }
    families = ("embed", "cluster", "score", "select", "generate", "dedup", "ingest")
    found = {
        path.relative_to(ROOT).as_posix(): imports(path) & spine for family in families for path in (ROOT / "curate" / family).glob("*.py")
    }
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("statement", ["import curate", "import curate.cli", "import curate.pipeline, curate.runs, curate.ledger"])
def test_importing_is_light(statement):
    assert in_fresh_process(f"{statement}; import sys; print([name for name in {HEAVY} if name in sys.modules])").strip() == "[]"


def test_checking_every_recipe_is_light():
    code = f"""
import sys
from pathlib import Path
from curate import recipe
from curate.errors import UserMistake
for path in sorted(Path("configs").glob("*.yaml")):
    recipe.load(path)
    print(path.stem, [name for name in {HEAVY} if name in sys.modules])
"""
    lines = in_fresh_process(code).splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    assert [line for line in lines if not line.endswith("[]")] == []


def test_help_lists_the_commands_there_are():
    from curate.cli import app

    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names == {
        "run",
        "status",
        "explain",
        "drops",
        "report",
        "geometry",
        "prune",
        "recover",
        "audit-filter",
        "audit-fairness",
        "calibrate-dedup",
        "refresh",
        "plan",
        "diff",
        "verify",
        "rollback",
    }
    text = in_fresh_process("from curate.cli import main; main(['--help'])")
    assert all(f"\n  {name} " in text for name in names)
    assert "Exit codes" in text


@pytest.mark.slow
def test_what_is_installed_without_the_repository_runs_a_recipe(tmp_path):
    """The wheel holds the pipelines, prompts and pages that are found by name, not by import."""
    source, installed, elsewhere = tmp_path / "source", tmp_path / "installed", tmp_path / "elsewhere"
    for name in ("curate", "pipelines"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        installed,
        source,
    ]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    kept = {
        path.relative_to(ROOT / "curate") for path in (ROOT / "curate").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path for path in kept if not (installed / "curate" / path).is_file()} == set()
    elsewhere.mkdir()
    (elsewhere / "words.jsonl").write_text('{"text": "a hen sat on her eggs"}\n')
    (elsewhere / "words.yaml").write_text("pipeline: ingest\ningest: {path: words.jsonl}\n")
    code = "import curate, sys; from curate.cli import main; print(curate.__file__); main(['run', 'words.yaml', '--engine', 'inline'])"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed)) and (elsewhere / "runs" / "words" / "dataset" / "data").is_dir()
