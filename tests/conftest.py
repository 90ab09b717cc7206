"""What all tests share: a small project in a temporary folder, and one Ray for the whole session."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
SCORERS = ROOT / "tests" / "scorers_for_tests"
SHARED = ROOT.parent / "shared"
CURATE = (sys.executable, "-m", "curate.cli")


def tree(run: Path) -> dict[str, str]:
    """Path -> SHA-256 of everything that "same bytes" speaks of: Parquet under corpus/, stages/ and the published dataset/."""
    files = {
        f"{top}/{path.relative_to(run / top)}": path for top in ("corpus", "stages", "dataset") for path in (run / top).rglob("*.parquet")
    }
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(files.items())}


class Project:
    """A recipe, its data and its runs under one folder. `run` works in this process, `curate` is the real command."""

    def __init__(self, folder: Path):
        self.folder, self.data, self.path = folder, folder / "data", folder / "recipe.yaml"
        self.data.mkdir()
        self.written: dict[str, Any] = {}

    def file(self, name: str, *rows: Any) -> Path:
        """A JSONL file; a row is a text or a dictionary."""
        path = self.data / name
        path.write_text("".join(json.dumps({"text": row} if isinstance(row, str) else row) + "\n" for row in rows))
        return path

    def recipe(self, **sections: Any) -> Path:
        """Write the recipe: pipeline `ingest` over data/, heuristics and embedding off, unless stated otherwise."""
        self.written = {"pipeline": "ingest", "scorers": [], "ingest": {}, **sections}
        self.written["ingest"] = {"path": str(self.data), "quarantine_max": 1.0, **self.written["ingest"]}
        with self.path.open("w") as file:
            YAML(typ="safe").dump(self.written, file)
        return self.path

    def run(self, name: str = "run", engine: str = "inline", changes: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
        from curate.pipeline import execute

        return execute(self.path, self.folder / name, engine, changes, **options)

    def with_engine(self, engine: Any, name: str = "run") -> dict[str, Any]:
        """Run the recipe on an engine object that the test has made."""
        from curate import recipe
        from curate.pipeline import finish
        from curate.progress import Silent
        from curate.runs import Run

        checked = recipe.load(self.path)
        (self.folder / name).mkdir(exist_ok=True)
        (self.folder / name / "recipe.yaml").write_text(checked.resolved)
        run = Run(self.folder / name, checked, engine, Silent())
        checked.pipeline(run, checked)
        return finish(run, 0.0)

    def ledger(self, name: str = "run") -> Any:
        from curate.ledger import open_run

        return open_run(self.folder / name)

    def executed(self, name: str = "run") -> dict[str, int]:
        """Step -> shards that its last run computed; steps that computed none are left out."""
        facts = json.loads((self.folder / name / "run.json").read_text())
        return {step["name"]: step["executed"] for step in facts["steps"] if step["executed"]}

    def column(self, column: str, name: str = "run") -> list[Any]:
        """A column's values over all shards, in order (None for shards without it)."""
        ledger = self.ledger(name)
        return [
            value
            for shard in ledger.dataset.shards
            for value in (ledger.dataset.read(shard, [column]).column(0).to_pylist() if column in shard.columns else [None] * shard.rows)
        ]

    def fates(self, name: str = "run") -> dict[str, str]:
        """Text as it was read -> "kept", or the rule that the row fell to. Texts must be distinct."""
        from curate.ledger import fates

        ledger = self.ledger(name)
        found = []
        for shard in ledger.dataset.shards:
            fate = fates(ledger.folder, shard, ledger.decisions)
            found += [rule or "kept" for rule in fate["rule"].to_pylist()]
        texts = self.column("text", name)
        assert len(set(texts)) == len(texts), "the test's texts must be distinct"
        return dict(zip(texts, found, strict=True))

    def published(self, name: str = "run") -> list[dict[str, Any]]:
        """The kept rows, as a reader of the dataset sees them."""
        import pyarrow.parquet as pq

        files = sorted((self.folder / name / "dataset" / "data").glob("*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]

    def tree(self, name: str = "run") -> dict[str, str]:
        return tree(self.folder / name)

    def curate(self, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        return curate(*arguments, cwd=self.folder, **options)


def curate(*arguments: Any, cwd: Path, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})}
    command = [*CURATE, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, errors="replace", timeout=300, **options)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # half the time of a small run, and no test cuts the power
    return Project(tmp_path)


@pytest.fixture
def new_project(tmp_path: Path) -> Any:
    """Further projects of one test, each in a folder of its own."""

    def make(name: str) -> Project:
        folder = tmp_path / name
        folder.mkdir()
        return Project(folder)

    return make


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of public data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared is not beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def tree_of() -> Any:
    """See `tree`."""
    return tree


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One local Ray for all tests, started as a run starts it; runs that find it do not shut it down."""
    from curate.engine import OnRay

    owner = OnRay(num_cpus=2)
    owner._start()
    yield
    owner.close()


@pytest.fixture(autouse=True)
def _go() -> Iterator[None]:
    """No test inherits a stop that another one asked for."""
    yield
    stopping = sys.modules.get("curate.stopping")
    if stopping:
        stopping.stop.clear()
