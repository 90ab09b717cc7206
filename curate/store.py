"""Files that are whole or absent: atomic writes, committed records, the run's lock, the shared store.

    worker:  tmp/<fingerprint>-<random>.attempt      driver:  check hash, sync, rename, then write the record
A file under its final name with a record is finished; nobody reads a directory listing to find that out.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curate.errors import DiskFull, InternalError, Locked

ASIDE = re.compile(r"\..+\.[0-9a-f]{8}")  # what an atomic write is called before it is whole
CHECK = "_check"  # key of a JSON mapping's own checksum


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashed(path: Path) -> tuple[str, str]:
    """(SHA-256 of a file, CRC-32 of each of its blocks as hex digits): the first finds harm, the second says where (`bad_byte.py`)."""
    size = block_size(path.stat().st_size)
    whole, blocks = hashlib.sha256(), []
    with path.open("rb") as file:
        while block := file.read(size):
            whole.update(block)
            blocks.append(f"{zlib.crc32(block):08x}")
    return whole.hexdigest(), "".join(blocks)


def noted(path: Path) -> list[Any]:
    """What a record says of a file beside a table: SHA-256, bytes, mtime, blocks."""
    sha256, blocks = hashed(path)
    return [sha256, path.stat().st_size, path.stat().st_mtime_ns, blocks]


def block_size(size: int) -> int:
    """Bytes of a block in a file of `size` bytes: at most 64 blocks, of 4 KiB or more."""
    return max(4096, 1 << max(size - 1, 0).bit_length() - 6 if size > 1 << 6 else 0)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value with sorted keys, 40 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()[:40]


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn 'no space left' into an error that names the path and what is free there."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            there = next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))
            free = shutil.disk_usage(there).free
            raise DiskFull(
                f"no space left writing {path} ({free:,} bytes free): free some space, then run the same command to go on"
            ) from error
        raise


def write_json(path: Path, value: Any, checked: bool = True) -> None:
    """Write aside, sync, rename, sync the folder. A mapping gets a check, by which harm to it is found; not where it is made for a reader."""
    _write_lines(path, [json.dumps(_checked(value) if checked else value, indent=1, sort_keys=True)])


def _checked(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    plain = json.loads(json.dumps(value))  # as it will come back
    return {**plain, CHECK: digest(plain)[:16]}


def _unchecked(value: Any) -> Any:
    """Back from `_checked`; None where the value is not the one that was written."""
    if not isinstance(value, dict):
        return value
    if CHECK not in value:  # of an older version, or made for readers; but harm to the key itself is harm
        return None if any(len(name) == len(CHECK) and sum(map(str.__ne__, name, CHECK)) == 1 for name in value) else value
    check = value.pop(CHECK)
    return value if digest(value)[:16] == check else None


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with disk_errors(path), aside_of(path) as aside:
        with aside.open("w") as file:
            for line in lines:
                file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync(path.parent)


@contextmanager
def aside_of(path: Path) -> Iterator[Path]:
    """A name beside a file under which its next content is written; nothing is left there where that fails."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield aside
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    with disk_errors(path), aside_of(path) as aside:
        aside.write_text(text, encoding="utf-8")
        sync(aside)
        aside.replace(path)


def read_json(path: Path, checked: bool = True) -> Any:
    """The value, or None where there is no such file or it is damaged (it will then be made again). checked=False: whatever JSON is there."""
    try:
        value = json.loads(path.read_bytes())
        return _unchecked(value) if checked else value
    except (FileNotFoundError, ValueError):
        return None


def commit(attempt: Path, final: Path, expected: str) -> None:
    """Put a worker's file under its final name, if its bytes are the ones the worker reported."""
    if (found := sha256_file(attempt)) != expected:
        raise InternalError(
            f"{attempt} has hash {found[:12]}, its worker reported {expected[:12]}: the disk or memory of this machine is at fault"
        )
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        sync(attempt)
        # The folder is not synced: a file that a power cut takes back is missed by `intact` and made again.
        attempt.replace(final)


def commit_folder(attempt: Path, target: Path) -> dict[str, list[Any]]:
    """Put a folder that a fit wrote under its final name; each file's SHA-256, bytes, mtime and blocks, for its record."""
    files = {}
    with disk_errors(target):
        for path in sorted(attempt.rglob("*")):
            if path.is_file():
                sync(path)
                files[path.relative_to(attempt).as_posix()] = noted(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # left by a kill between the rename and the record
        attempt.replace(target)
        sync(target.parent)
    return files


def intact(path: Path, record: Mapping[str, Any]) -> bool:
    """The committed bytes are still there; they are hashed again only where size or time say they were touched."""
    return _same(path, record["sha256"], record["bytes"], record.get("mtime"))


def same_files(folder: Path, files: Mapping[str, list[Any]]) -> bool:
    """The same for every file of a committed folder."""
    return all(_same(folder / name, *about[:3]) for name, about in files.items())


def _same(path: Path, sha256: str, size: int, mtime: int | None) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return stat.st_size == size and (stat.st_mtime_ns == mtime or sha256_file(path) == sha256)


def attempt_name(folder: Path, fingerprint: str) -> Path:
    """A fresh name for a worker to write under; never ends in .parquet."""
    return folder / f"{fingerprint[:16]}-{secrets.token_hex(6)}.attempt"


class Records:
    """What has been committed for one step: one record per shard, merged into a manifest when the step ends.

    The manifest has a line for the step's facts and one for each record, each with its check: harm to a line costs that shard, no other.
    """

    def __init__(self, folder: Path):
        self.folder, self.manifest = folder, folder / "manifest.jsonl"
        self.facts: dict[str, Any] = {}
        self.by_shard: dict[str, dict[str, Any]] = {}
        self.damaged = 0  # lines and loose records that are not what was written
        self.loose: set[Path] = set()
        self._read_manifest()
        if folder.is_dir():
            for path in folder.glob("*.record"):
                record = read_json(path)
                if record is not None:
                    self.by_shard[record["shard"]] = record
                else:
                    self.damaged += 1
                self.loose.add(path)
        self.dirty = bool(self.loose or self.damaged)

    def _read_manifest(self) -> None:
        try:
            lines = self.manifest.read_bytes().splitlines()
        except FileNotFoundError:  # of a run made before manifests had lines
            old = read_json(self.folder / "manifest.json") or {}
            self.by_shard = dict(old.get("records", {}))
            self.facts = {name: value for name, value in old.items() if name != "records"}
            return
        for number, line in enumerate(lines):
            try:
                value = _unchecked(json.loads(line))
            except ValueError:
                value = None
            if not isinstance(value, dict):
                self.damaged += 1
            elif number == 0 and "records" in value:
                self.facts = value
            else:
                self.by_shard[value["shard"]] = value
        there = len(self.by_shard) + self.damaged
        self.damaged += max(0, self.facts.pop("records", there) - there)  # cut at the end

    def add(self, record: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{record['shard']}.record"
        write_json(path, record)
        self.by_shard[record["shard"]] = record
        self.loose.add(path)
        self.dirty = True

    def forget(self, shard: str) -> None:
        self.dirty |= self.by_shard.pop(shard, None) is not None

    def merge(self, **facts: Any) -> None:
        """Write the manifest, then drop the single records: readers take the manifest first."""
        if not self.dirty and self.manifest.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.facts |= facts
        values = [{**self.facts, "records": len(self.by_shard)}, *(self.by_shard[shard] for shard in sorted(self.by_shard))]
        _write_lines(self.manifest, (json.dumps(_checked(value), sort_keys=True) for value in values))
        (self.folder / "manifest.json").unlink(missing_ok=True)
        for path in self.loose:
            path.unlink(missing_ok=True)
        self.loose.clear()
        self.dirty, self.damaged = False, 0


def remove_asides(folder: Path) -> None:
    """Remove what a killed process has left of atomic writes, wherever in the folder."""
    for path in folder.rglob(".*"):
        if ASIDE.fullmatch(path.name):
            path.unlink(missing_ok=True)


class RunLock:
    """One writer per run: an operating-system lock, with the holder's name for whoever comes second."""

    def __init__(self, folder: Path):
        self.path = folder / ".lock"
        self.holder = folder / ".lock.json"

    def __enter__(self) -> RunLock:
        from filelock import FileLock, Timeout

        self.unclean = self.holder.exists()  # whoever held it last did not come to its end
        self.lock = FileLock(self.path)
        try:
            self.lock.acquire(timeout=0)
        except Timeout as error:
            who = read_json(self.holder) or {}
            age = f", started {time.time() - who['started']:.0f} s ago" if "started" in who else ""
            raise Locked(
                f"another run holds {self.path.parent}: process {who.get('pid', '?')} on {who.get('host', '?')}{age}. "
                "Wait for it to end, or give another folder with --run-dir"
            ) from error
        write_json(self.holder, {"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()})
        return self

    def __exit__(self, *exc: object) -> None:
        self.holder.unlink(missing_ok=True)
        self.lock.release()


class SharedStore:
    """Column files shared between runs (`store: DIR`), by fingerprint; each entry committed under a lock."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, fingerprint: str, attempt: Path) -> dict[str, Any] | None:
        """Copy an entry to `attempt`; its record, or None where the store has none or only a damaged one."""
        note = self.folder / f"{fingerprint}.record"
        record = read_json(note)
        if record is None:
            return None
        try:
            shutil.copyfile(self.folder / f"{fingerprint}.columns", attempt)
            if sha256_file(attempt) == record["sha256"]:
                return record
        except FileNotFoundError:
            pass
        attempt.unlink(missing_ok=True)
        note.unlink(missing_ok=True)  # computed again, and put back whole
        return None

    def put(self, fingerprint: str, file: Path, record: dict[str, Any]) -> None:
        """A copy, not a link: harm to a run's file must not spread to the others."""
        from filelock import FileLock

        with FileLock(self.folder / ".lock"), disk_errors(self.folder):
            if not (self.folder / f"{fingerprint}.record").exists():
                aside = attempt_name(self.folder, fingerprint)
                shutil.copyfile(file, aside)
                sync(aside)
                aside.replace(self.folder / f"{fingerprint}.columns")
                write_json(self.folder / f"{fingerprint}.record", record)
