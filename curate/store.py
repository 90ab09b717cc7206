"""Files that are whole or absent: atomic writes, committed records, the run's lock, the shared store.

    worker:  tmp/<fingerprint>-<random>.attempt      driver:  check hash, sync, rename, then write the record
A file under its final name with a record is finished; nobody reads a directory listing to find that out.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curate.errors import DiskFull, InternalError, Locked


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def write_json(path: Path, value: Any) -> None:
    """Write aside, sync, rename, sync the folder."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with disk_errors(path):
        with aside.open("w") as file:
            json.dump(value, file, indent=1, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync(path.parent)


def write_text(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with disk_errors(path):
        aside.write_text(text, encoding="utf-8")
        sync(aside)
        aside.replace(path)


def read_json(path: Path) -> Any:
    """The value, or None where there is no such file or it is damaged (it will then be made again)."""
    try:
        return json.loads(path.read_bytes())
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
    """Put a folder that a fit wrote under its final name; each file's SHA-256, bytes and mtime, for its record."""
    files = {}
    with disk_errors(target):
        for path in sorted(attempt.rglob("*")):
            if path.is_file():
                sync(path)
                files[path.relative_to(attempt).as_posix()] = [sha256_file(path), path.stat().st_size, path.stat().st_mtime_ns]
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
    return all(_same(folder / name, *about) for name, about in files.items())


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
    """What has been committed for one step: one record per shard, merged into a manifest when the step ends."""

    def __init__(self, folder: Path):
        self.folder = folder
        manifest = read_json(folder / "manifest.json") or {}
        self.by_shard: dict[str, dict[str, Any]] = dict(manifest.get("records", {}))
        self.loose: set[Path] = set()
        if folder.is_dir():
            for path in folder.glob("*.record"):
                record = read_json(path)
                if record is not None:
                    self.by_shard[record["shard"]] = record
                    self.loose.add(path)
        self.dirty = bool(self.loose)

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
        if not self.dirty and (self.folder / "manifest.json").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "manifest.json", {**facts, "records": self.by_shard})
        for path in self.loose:
            path.unlink(missing_ok=True)
        self.loose.clear()
        self.dirty = False


class RunLock:
    """One writer per run: an operating-system lock, with the holder's name for whoever comes second."""

    def __init__(self, folder: Path):
        self.path = folder / ".lock"
        self.holder = folder / ".lock.json"

    def __enter__(self) -> RunLock:
        from filelock import FileLock, Timeout

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
