"""The smoke version of benchmarks/recovery: real models, a small pool, two seeds; every step of the proof from raw rows to a table."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from curate.jobs import Results

ROOT = Path(__file__).parents[2]
ARMS = {"ceiling", "nearest", "nearest_matched", "random"}


def proof(work: Path, *more: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / "recovery" / "proof.py"), *more, "--smoke", "--work", str(work), "--workers", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=2700)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


@pytest.mark.slow
def test_the_proof_goes_from_rows_to_a_table(tmp_path, shared):
    table = proof(tmp_path / "recovery-smoke").partition("## depth6")[2]
    records = Results(tmp_path / "recovery-smoke" / "trials-depth6.jsonl").found.values()
    assert len(records) == 2 + 2 * len(ARMS)  # the untouched pair, and two seeds of every arm
    ordered = sorted(records, key=lambda record: record["seed"])
    by_arm = {arm: [record for record in ordered if record["arm"] == arm] for arm in {"none", "original", *ARMS}}
    assert {arm: len(found) for arm, found in by_arm.items()} == {"none": 1, "original": 1, **dict.fromkeys(ARMS, 2)}
    assert all(None not in record["losses"] for record in records)
    mean = {arm: sum(sum(record["losses"]) for record in found) / len(found) for arm, found in by_arm.items()}
    assert mean["original"] < mean["none"]  # pruning broke something
    assert all(mean["ceiling"] < mean[arm] < mean["none"] for arm in ARMS - {"ceiling"})  # every tuning repaired some of it, and none all
    assert by_arm["original"][0]["divergences"] == [0] * len(by_arm["original"][0]["divergences"])
    for arm in ("nearest", "nearest_matched", "random"):  # equal cost; rows of equal lengths
        assert all(0.9 < record["tokens"] / by_arm["nearest"][0]["tokens"] < 1.1 for record in by_arm[arm]), arm
    for chosen, twin in zip(by_arm["nearest"], by_arm["nearest_matched"], strict=True):
        assert chosen["rows"] == twin["rows"] and abs(chosen["tokens"] / twin["tokens"] - 1) < 0.05
    assert re.search(r"\| nearest - nearest_matched \| [+-][\d.]+ \| [+-][\d.]+ to [+-][\d.]+ \| [\d.]+ \| primary \|", table)
    # A table can be made again from the trials alone, and it is the same one.
    assert proof(tmp_path / "recovery-smoke", "table").partition("## depth6")[2] == table
