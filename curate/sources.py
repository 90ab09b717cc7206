"""Ingest, the first step of a run: source files to shards, and which of them have changed since the last time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.dataset import CANONICAL, LINEAGE, Dataset, Shard, columns_of
from curate.errors import UserMistake
from curate.refresh.mode import Scanned
from curate.stage import Resources
from curate.step import StepFacts
from curate.store import Records, attempt_name, commit, digest, intact, sha256_file
from curate.work import FileJob, FileTask, ingest_file

if TYPE_CHECKING:
    from curate.ingest.find import SourceFile
    from curate.runs import Run


UNREADABLE = "unreadable:"  # in place of a content's digest


def ingest(run: Run, name: str, settings: Any) -> Dataset:
    """Source files to shards. A shard is named by its file's place in the order and its part in the file."""
    from curate.ingest.files import FORMAT_VERSION, find_files
    from curate.ingest.find import passed_over

    started = time.perf_counter()
    facts = StepFacts(name, "Ingest", "other", "Reads the source files and cuts them into shards.", hidden=0)
    run.facts[name], run.touched[name] = facts, set()
    records = run.records_of(name)
    by_fingerprint = {record["fingerprint"]: record for record in records.by_shard.values()}
    kept = {**settings.model_dump(mode="json", exclude={"path", "sources", "quarantine_max"}), **settings.identity()}
    run.lineage |= dict.fromkeys((*CANONICAL.names, *LINEAGE.names, *settings.keep), digest([FORMAT_VERSION, kept]))
    files = run.trial.files if run.trial else find_files(settings, run.folder)
    if others := passed_over(settings, files):
        facts.remarks.append(f"{len(others)} files of other kinds were passed over: {', '.join(others[:3])}{', ...' * (len(others) > 3)}")
    run.scanned = _scan(files, kept, records)
    run.files = len(run.scanned)
    keys = [f"{index:05d}" for index in range(run.files)]
    staying: list[str] = []
    if run.refresh:
        keys, staying = run.refresh.names(run.scanned, records.by_shard)
        run.refresh.check_vanished()
        lost = [key for key in staying if key not in records.by_shard or not _still_there(run, records.by_shard[key])]
        run.refresh.check_staying(lost)
        staying = [key for key in staying if key not in lost]
    run.touched[name].update(keys, staying)
    tasks: list[tuple[FileTask, Mapping[str, Any]]] = []
    moved: list[tuple[FileTask, Mapping[str, Any], dict[str, Any]]] = []
    for key, item in zip(keys, run.scanned, strict=True):
        task = FileTask(item.file, key, item.fingerprint)
        record = by_fingerprint.get(task.fingerprint)
        if record and not record.get("passing") and _still_there(run, record):
            facts.reused += 1
            if record["shard"] != key:  # the file's place in the order changed: same shards under new names
                moved.append((task, item.about, _copied(run, record)))
            elif any(record[field] != value for field, value in item.about.items()):
                records.add({**record, **item.about})
        else:
            tasks.append((task, item.about))
    for task, about, result in moved:
        _commit_file(run, task, result, about, records)
    if tasks:
        run.progress.begin(name, run.files, 0, facts.reused)
        abouts = {task.shard: about for task, about in tasks}
        job = FileJob(settings, str(run.tmp))
        if run.trial:
            job = FileJob(run.trial.settings(settings), str(run.tmp), run.trial.shards)
        for task, result in run.engine.map(ingest_file, job, [task for task, _ in tasks], Resources(memory=2 << 30)):
            _commit_file(run, task, result, abouts[task.shard], records)
            facts.executed += 1
            run.progress.advance(_rows(result))
    run.unread = any(records.by_shard[key].get("passing") for key in keys)
    run.source_rows = {item.name: _rows(records.by_shard[key]) for key, item in zip(keys, run.scanned, strict=True)}
    if run.refresh:
        run.refresh.check_emptied(run.source_rows)
    dataset = _dataset(run, name, sorted([*keys, *staying]), records)
    facts.shards, facts.rows, facts.seconds = len(dataset.shards), dataset.rows, time.perf_counter() - started
    run.decisions.append(name)
    run.verdicts[name] = dataset
    records.merge(step=name, stage="Ingest")
    run.progress.end(name, facts)
    mistakes = [problem for problem in run.problems if problem["mistake"] == "1"]
    if mistakes and len(mistakes) == run.files:
        raise UserMistake("\n".join(problem["reason"] for problem in mistakes))
    return dataset


def _scan(files: Sequence[SourceFile], settings: Mapping[str, Any], records: Records) -> list[Scanned]:
    """What every source file holds now; a file whose size, time and inode are those of its record is not read for that."""
    from curate.ingest.files import FORMAT_VERSION

    stats = {record["path"]: record for record in records.by_shard.values()}
    found = []
    for file in files:
        stat = stat_of(file.path)
        known = stats.get(file.path)
        trusted = known and known["stat"] == stat and stat and not known["content"].startswith(UNREADABLE)
        content = known["content"] if known and trusted else _content(file.path)
        about = {
            "path": file.path,
            "stat": stat,
            "content": content,
            "name": file.name,
            "source": file.source,
            "priority": file.priority,
        }
        found.append(Scanned(file, about, digest([FORMAT_VERSION, settings, file.source, file.name, content])))
    return found


def _dataset(run: Run, name: str, keys: Sequence[str], records: Records) -> Dataset:
    """The shards of these files; what was mended in them and which could not be read is noted."""
    shards = []
    for key in keys:
        record = records.by_shard[key]
        run.mended.update(record["mended"])
        if "problem" in record:
            run.problems.append({"file": record["name"], "reason": record["problem"], "mistake": record["mistake"]})
        for part, shard in enumerate(record["shards"]):
            columns = columns_of(name, f"corpus/{key}-{part:04d}.parquet", shard["columns"])
            shards.append(Shard(f"{key}-{part:04d}", shard["rows"], columns))
    return Dataset(run.folder, tuple(shards), {name: "other"})


def _rows(record: Mapping[str, Any]) -> int:
    return sum(shard["rows"] for shard in record["shards"])


def _corpus_files(run: Run, record: Mapping[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
    return [(run.folder / f"corpus/{record['shard']}-{part:04d}.parquet", shard) for part, shard in enumerate(record["shards"])]


def _still_there(run: Run, record: Mapping[str, Any]) -> bool:
    return all(intact(place, shard) for place, shard in _corpus_files(run, record))


def _copied(run: Run, record: dict[str, Any]) -> dict[str, Any]:
    """Copies of a file's shards in tmp/, to be committed under other names."""
    copies = []
    for place, shard in _corpus_files(run, record):
        attempt = attempt_name(run.tmp, record["fingerprint"])
        shutil.copyfile(place, attempt)
        copies.append({**shard, "attempt": str(attempt)})
    return {**record, "shards": copies}


def _commit_file(run: Run, task: FileTask, result: dict[str, Any], about: Mapping[str, Any], records: Records) -> None:
    if stat_of(task.file.path) != about["stat"]:
        result = {**result, "passing": True}
    shards = []
    for part, shard in enumerate(result["shards"]):
        final = run.folder / f"corpus/{task.shard}-{part:04d}.parquet"
        commit(Path(shard.pop("attempt")), final, shard["sha256"])
        shards.append({**shard, "mtime": final.stat().st_mtime_ns})
    records.add(
        {**result, **about, "shards": shards, "shard": task.shard, "fingerprint": task.fingerprint, "source_of_columns": "executed"}
    )


def stat_of(path: str) -> list[int] | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino] if Path(path).is_file() else None


def _content(path: str) -> str:
    """SHA-256 of a file or of everything in a folder; a hub reference stands for itself."""
    place = Path(path)
    try:
        if place.is_file():
            return sha256_file(place)
        if place.is_dir():
            return digest(
                [[found.relative_to(place).as_posix(), sha256_file(found)] for found in sorted(place.rglob("*")) if found.is_file()]
            )
    except OSError as error:
        return f"{UNREADABLE}{error.errno}"
    return path
