"""Is everything that a run folder holds still as it was committed? Every file is read and hashed again, and the ledger counted again.

What reads files in the course of a run trusts size and time, so that a run with nothing to do ends at once; this does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.bad_byte import first_bad_byte
from curate.dataset import Dataset
from curate.errors import CurateError
from curate.generate.cache import ResponseCache
from curate.ledger import Ledger, count, open_run
from curate.refresh.mode import STATE
from curate.store import Records, read_json, sha256_file
from curate.versions import Versions, rows_of


@dataclass(frozen=True)
class Fault:
    """`at`: the file, relative to the run; `remove`: whether the next run makes it anew once it is gone; `remade`: it does so as it is."""

    at: str
    what: str
    remove: bool = True
    remade: bool = False


def verify(folder: Path, say: Callable[[int, int], None] = lambda files, size: None) -> Iterator[Fault]:
    """What is wrong, file by file. `say` is told how many files and bytes were read so far. Nothing is changed."""
    found = 0
    for fault in _files(folder, _Checked(folder, say)):
        found += 1
        yield fault
    if not found:  # else it would be counted from what is damaged
        yield from _ledger(folder)


def remove(folder: Path, faults: Iterable[Fault]) -> None:
    """Remove what is damaged and can be made again; the next run does so."""
    for fault in faults:
        if fault.remove:
            (folder / fault.at).unlink(missing_ok=True)


def _files(folder: Path, checked: _Checked) -> Iterator[Fault]:
    yield from _steps(folder, checked)
    yield from _versions(folder, checked)
    for name in ("run.json", STATE):
        if (folder / name).exists() and read_json(folder / name) is None:
            yield Fault(name, "is not what was written", name == STATE, remade=True)
    for key in ResponseCache(folder / "responses").damaged() if (folder / "responses").is_dir() else ():
        yield Fault(f"responses/{key}", "is not what was stored: once it is gone the row is asked again")


class _Checked:
    def __init__(self, folder: Path, say: Callable[[int, int], None]):
        self.folder, self.say, self.files, self.bytes = folder, say, 0, 0

    def file(self, path: Path, sha256: str, size: int, blocks: str, remove: bool = True) -> Iterator[Fault]:
        at = path.relative_to(self.folder).as_posix()
        if not path.exists():
            yield Fault(at, "is missing", remove)
            return
        if path.stat().st_size != size or sha256_file(path) != sha256:
            yield Fault(at, f"is not what was committed, first at {first_bad_byte(path, size, blocks)}", remove)
        self.files, self.bytes = self.files + 1, self.bytes + path.stat().st_size
        self.say(self.files, self.bytes)

    def record(self, path: Path, record: Mapping[str, Any]) -> Iterator[Fault]:
        return self.file(path, record["sha256"], record["bytes"], record.get("blocks", ""))

    def folder_of(self, folder: Path, files: Mapping[str, list[Any]], remove: bool = True) -> Iterator[Fault]:
        for name, about in sorted(files.items()):
            yield from self.file(folder / name, about[0], about[1], about[3] if len(about) > 3 else "", remove)


def _steps(folder: Path, checked: _Checked) -> Iterator[Fault]:
    for place in sorted(
        {path.parent for pattern in ("manifest.json*", "artifact.json", "*.record") for path in (folder / "stages").rglob(pattern)}
    ):
        name = place.relative_to(folder / "stages").as_posix()
        records = Records(place)
        if records.damaged:
            yield Fault(
                f"stages/{name}/manifest.jsonl", f"has {records.damaged} damaged lines: those shards are made again", False, remade=True
            )
        for shard, record in sorted(records.by_shard.items()):
            if "shards" in record:
                for part, about in enumerate(record["shards"]):
                    yield from checked.record(folder / f"corpus/{shard}-{part:04d}.parquet", about)
            else:
                generated = folder / f"corpus/{shard}-{name}.parquet"
                path = generated if generated.exists() else place / f"{shard}.parquet"
                if path.exists() or "/" not in name:  # what is inside of a fit is made when it is needed
                    yield from checked.record(path, record)
        if (place / "artifact.json").exists():
            record = read_json(place / "artifact.json")
            if record is None:
                yield Fault(f"stages/{name}/artifact.json", "is not what was written: it is fitted again")
            else:
                yield from checked.folder_of(place / f"artifact-{record['fingerprint'][:12]}", record["files"])


def _versions(folder: Path, checked: _Checked) -> Iterator[Fault]:
    versions = Versions(folder)
    there = sorted(int(path.stem) for path in versions.folder.glob("*.json") if path.stem.isdigit())
    for number in there:
        record = versions.record(number)
        if record is None:
            yield Fault(f"versions/{number}.json", "is not what was written", number == there[-1])
            continue
        # Of what an old version held nothing can be made again.
        if versions.place(number).exists():
            yield from checked.folder_of(versions.place(number), record["files"], number == there[-1])
        elif number == versions.current():
            yield Fault(f"versions/{number}", "is what `dataset` points at, and is missing", False)
        beside = {
            name: about
            for name, about in record.get("beside", {}).items()
            if (versions.folder / name).exists() or versions.place(number).exists()
        }
        yield from checked.folder_of(versions.folder, beside, False)
    if versions.pointer.is_symlink() and versions.current() not in there:
        yield Fault("dataset", f"points at {versions.pointer.readlink()}, which is no version", False)


def _ledger(folder: Path) -> Iterator[Fault]:
    """Counts of the verdict columns against run.json, and published rows against their fates."""
    facts = read_json(folder / "run.json")
    if facts is None or facts["state"] != "done":
        return
    try:
        ledger = open_run(folder)
        counts = count(ledger.dataset, ledger.decisions)
        for name in ("rows_in", "generated", "kept", "quarantined", "dropped", "by_step"):
            if getattr(counts, name) != facts["counts"][name]:
                yield Fault("run.json", f"says {name} {facts['counts'][name]}, the verdicts say {getattr(counts, name)}", False)
        yield from _published(folder, ledger)
    except (CurateError, OSError, KeyError, pa.ArrowException) as error:
        yield Fault("stages", f"the ledger cannot be counted: {error}", False)


def _published(folder: Path, ledger: Ledger) -> Iterator[Fault]:
    """The rows of the last version are the kept rows."""
    versions = Versions(folder)
    last = versions.numbers()[-1:]
    if not last or last[0] != versions.current():
        return
    files = sorted((versions.place(last[0]) / "data").glob("*.parquet"))
    if files and "row_id" not in pq.read_schema(files[0]).names:  # publish.leave_out: only their number can be told
        if sum(pq.read_metadata(file).num_rows for file in files) != sum(1 for _ in _kept(ledger.dataset, ledger.decisions)):
            yield Fault(f"versions/{last[0]}", "has another number of rows than the verdicts keep", False)
        return
    published = sorted(row for file in files for row in pq.read_table(file, columns=["row_id"])["row_id"].to_pylist())
    if published != sorted(_kept(ledger.dataset, ledger.decisions)):
        yield Fault(f"versions/{last[0]}", "its rows are not the rows that the verdicts keep", False)


def _kept(dataset: Dataset, decisions: list[str]) -> Iterator[str]:
    for table in rows_of(dataset, decisions):
        yield from (row for row, fate in zip(table["row_id"].to_pylist(), table["fate"].to_pylist(), strict=True) if fate == "kept")
