"""The quick start: build the corpus, run configs/quickstart.yaml, show what was kept and why.

python -m pipelines.quickstart            (what `make quickstart` does)
"""

from __future__ import annotations

import sys
from pathlib import Path

import curate
from curate import said
from curate.errors import CurateError
from curate.ledger import Ledger, fates
from pipelines import quickstart_corpus

CORPUS = Path("runs/quickstart-corpus")


def main() -> int:
    print("1. A corpus from the documentation that this Python carries\n", flush=True)
    quickstart_corpus.main([str(CORPUS)])
    print("\n2. configs/quickstart.yaml: measure, choose, rewrite, publish\n", flush=True)
    try:
        run = curate.run("configs/quickstart.yaml", progress=True)
    except CurateError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return error.exit_code
    show(run)
    return 0


def show(run: Ledger) -> None:
    """What was kept and why, where it is, and three rows explained."""
    counts = run.facts["counts"]
    print("\n3. What came out\n")
    print(said.counts_text(counts))
    made: dict[str, int] = {}
    for step in run.facts["steps"]:
        if step["generates"]:
            made[step["name"]] = step["generated"]
    for name, number in made.items():
        print(f"  {number:>10,} rows from {name}" + ("" if number else " (it found no nominated row to work on)"))
    folder = run.folder
    print(f"\n  dataset   {folder / 'dataset'}   (datasets.load_dataset reads it)")
    print(f"  report    {folder / 'report/index.html'}   (open it in a browser)\n")
    print("4. Three rows explained\n")
    for title, row in examples(run):
        print(f"$ curate explain {folder} {row['row_id'][:12]}        # {title}\n")
        print(said.explain_text(row) + "\n")


def examples(run: Ledger) -> list[tuple[str, dict]]:
    """The first kept, the first near duplicate, and the first generated row (else the first left out by the budget)."""
    wanted = {"kept": ("fate", "kept"), "a near duplicate": ("rule", "near_duplicate"), "left out by the budget": ("rule", "over_budget")}
    found: dict[str, tuple] = {}
    for shard in run.dataset.shards:
        fate = fates(run.folder, shard, run.decisions)
        if "origin" in shard.columns:
            kept = [index for index, value in enumerate(fate["fate"].to_pylist()) if value == "kept"]
            if kept and "a generated row that is kept" not in found:
                found["a generated row that is kept"] = (shard, kept[0])
            found.setdefault("a generated row", (shard, 0))
            continue
        for title, (column, value) in wanted.items():
            values = fate[column].to_pylist()
            if title not in found and value in values:
                found[title] = (shard, values.index(value))
    made = "a generated row that is kept" if "a generated row that is kept" in found else "a generated row"
    order = ["kept", "a near duplicate", made, "left out by the budget"]
    return [(title, run.explain(*found[title])) for title in order if title in found][:3]


if __name__ == "__main__":
    sys.exit(main())
