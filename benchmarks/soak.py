"""The long proof: deaths at every storage operation, a disk that is full at every one, `kill -9` of the real command in chains, lost bits and cuts.

    python benchmarks/soak.py --minutes 60 --work W --out benchmarks/results/soak.md

Two jobs at a time: points (forks, in memory) in one, kills of the real command in the other. Each finished unit is a line of W/soak.jsonl; run again with
the same W, it goes on with new seeds; the table adds up, and says how much of it was done with which code.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "faults"))

from crash_points import WAYS, command, project, state
from kills import kill_until, start

from curate.fingerprint import package_digest

ROOT = Path(__file__).resolve().parents[1]
KILLS_IN_A_UNIT = {"inline": 100, "ray": 20}  # a command on Ray takes ten times as long
WRITING = threading.Lock()


def of_points(work: Path, seed: int) -> Iterator[dict[str, Any]]:
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else work
    for name, way in itertools.product(("run", "refresh"), (*WAYS, "full")):
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            began = time.monotonic()
            script = ROOT / "tests" / "faults" / "crash_points.py"
            done = subprocess.run([sys.executable, str(script), folder, name, way, str(seed)], capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"points": 0, "wrong": [done.stderr[-2000:]]}
        kind = "disk full at every operation" if way == "full" else f"death {way} every operation"
        yield {
            "kind": f"{kind}, {name}",
            "points": found["points"],
            "wrong": found["wrong"],
            "seed": seed,
            "seconds": time.monotonic() - began,
        }


def of_kills(work: Path, seed: int) -> Iterator[dict[str, Any]]:
    """A chain of kills over a first run, and one over a refresh, with either engine."""
    for engine, name in itertools.product(("inline", "ray"), ("run", "refresh")):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=work) as place:
            folder = Path(place)
            project(folder, seed)
            bigger(folder, seed)
            first = folder / "first"
            if name == "refresh":
                command(folder, False)(first)
                (folder / "data" / "3.jsonl").write_text(json.dumps({"text": "a third file has come with some more words in it"}) + "\n")
            run = folder / "run"

            def again(_: int = 0, run: Path = run, first: Path = first) -> None:
                shutil.rmtree(run, ignore_errors=True)
                if first.exists():
                    shutil.copytree(first, run, symlinks=True)

            again()
            arguments = [name, str(folder / "recipe.yaml"), "--run-dir", "run", "--engine", engine]
            began_once = time.monotonic()
            ended = start(folder, arguments).wait(timeout=300)
            usual, expected = time.monotonic() - began_once, state(run)
            again()
            draw = random.Random(f"{seed} {engine} {name}")
            found = kill_until(
                folder, arguments, KILLS_IN_A_UNIT[engine], usual, draw, lambda run=run, expected=expected: state(run) == expected, again
            )  # type: ignore[misc]
            wrong = [*found.wrong, *([f"the undisturbed command ended with {ended}"] if ended else [])]
        yield {
            "kind": f"kill -9, chains of 5, {engine}, {name}",
            "points": found.kills,
            "wrong": wrong,
            "seed": seed,
            "seconds": time.monotonic() - began,
        }


def bigger(folder: Path, seed: int) -> None:
    """Some more shards, so that a command takes a second or two of work and not only of imports."""
    draw = random.Random(seed)
    for number in range(4, 10):
        rows = [" ".join(f"w{draw.randrange(500)}" for _ in range(40)) for _ in range(400)]
        (folder / "data" / f"{number}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))


def of_harm(work: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Lost bits and cuts in every committed file: tests/test_verify.py, which draws 400 and 100."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "test_verify.py")],
        capture_output=True,
        text=True,
    )
    wrong = [] if done.returncode == 0 else [done.stdout[-2000:]]
    yield {
        "kind": "lost bits (400) and cuts (100), found and made again",
        "points": 500,
        "wrong": wrong,
        "seed": seed,
        "seconds": time.monotonic() - began,
    }


def forever(unit: Callable[[Path, int], Iterator[dict[str, Any]]], work: Path, until: float, first_seed: int) -> None:
    for seed in itertools.count(first_seed):
        for found in unit(work, seed):
            with WRITING, (work / "soak.jsonl").open("a") as file:
                file.write(json.dumps({**found, "code": package_digest()[:12]}) + "\n")
            print(
                f"{found['kind']}: {found['points']} ({found['seconds']:.0f} s){' WRONG' if found['wrong'] else ''}",
                file=sys.stderr,
                flush=True,
            )
            if time.monotonic() > until:
                return


def table(work: Path) -> str:
    lines = [json.loads(line) for line in (work / "soak.jsonl").read_text().splitlines()]
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    codes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for line in lines:
        total = sums[line["kind"]]
        total[0] += line["points"]
        total[1] += 1
        total[2] += len(line["wrong"])
        total[3] += line["seconds"]
        kill = line["kind"].startswith("kill")
        codes[line["code"]][kill] += line["points"] if kill or "operation" in line["kind"] else 0
    rows = [
        f"| {kind} | {points:,.0f} | {units} | {wrong} | {seconds / 60:.0f} |"
        for kind, (points, units, wrong, seconds) in sorted(sums.items())
    ]
    crash, kills = (sum(found[which] for found in codes.values()) for which in (0, 1))
    return "\n".join([
        "# Soak", "", "`make soak`. After every one the same command is run again, and its bytes are held against an undisturbed run's.", "",
        f"**{crash:,} crash points, {kills:,} kills of the real command, {sum(int(total[2]) for total in sums.values())} mismatches.**", "",
        "| what | how many | units | mismatches | minutes |", "|---|---:|---:|---:|---:|", *rows, "",
        *(f"- code {code}: {points:,} points, {kills:,} kills" for code, (points, kills) in codes.items() if points or kills),
        *(f"- seed {line['seed']}, {line['kind']}, code {line['code']}: {text}" for line in lines for text in line["wrong"]),
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--work", type=Path, default=Path("runs/soak"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * args.minutes
    done = (args.work / "soak.jsonl").read_text().count("\n") if (args.work / "soak.jsonl").exists() else 0
    for found in of_harm(args.work, done):
        with (args.work / "soak.jsonl").open("a") as file:
            file.write(json.dumps({**found, "code": package_digest()[:12]}) + "\n")
    jobs = [threading.Thread(target=forever, args=(unit, args.work, until, done)) for unit in (of_points, of_kills)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    text = table(args.work)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
