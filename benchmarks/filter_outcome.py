"""What does a filter's choice teach? The audit of the pretraining filter on web_docs, judged by text that nobody saw.

    python benchmarks/filter_outcome.py [--work runs/filter-outcome] [--seeds 5] [--cuts 0.05,0.1,0.2] [--out benchmarks/results/filter_outcome.md]

Trusted: WikiText-2 validation sections and half of the PEPs. Judges: news articles and WikiText-2 test sections, never trained on, never trusted; pool
rows that hold much of a judged text (the raw pages of the news articles) are in no training. Pool: the rest, its high-quality rows thinned to a tenth of the
text. `curate run` trains the filter, `curate audit-filter` asks the rest: pollution, edits, and small models trained on equally many tokens of what
the filter, its members, an n-gram model's perplexity, length and chance choose. Resumable. Needs ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import curate
from curate.audit import corpus
from curate.audit import filter as audits
from curate.engine import set_threads
from curate.ledger import open_run
from curate.score.language import identifier

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
HIGH = 0.1  # of the pool's text
CUT = 73  # percentile: what the recipe drops is below it

RECIPE = """pipeline: ingest
scorers: [length, language, filter, ngram_perplexity]
ingest: {{path: {folder}/rows.jsonl, kind: text, keep: [role, quality_label, doc_type], fields: {{id: id}}, shard_rows: 1000}}
filter:
  trusted: {{where: {{role: trusted}}}}
  held_out_by: doc_type
  words_within: language
ngram_perplexity: {{trusted: {{where: {{role: trusted}}}}}}
select: {{where: {{filter_percentile: {{min: {cut}}}}}}}
"""


def prepare(folder: Path) -> None:
    """rows.jsonl (trusted and pool) and judges.jsonl, unless they are there."""
    if (folder / "judges.jsonl").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = pq.read_table(DATA / "web_docs.parquet").to_pylist()
    chance = np.random.default_rng(0)
    half, thin = chance.random(len(rows)) < 0.5, chance.random(len(rows))

    def role(row: dict, in_half: bool) -> str:
        if row["doc_type"] == "news_article" or (row["doc_type"] == "encyclopedia" and "test" in row["source"]):
            return "judge"
        return "trusted" if row["doc_type"] == "encyclopedia" or (row["doc_type"] == "technical" and in_half) else "pool"

    roles = [role(row, bool(in_half)) for row, in_half in zip(rows, half, strict=True)]
    sizes = np.array([len(row["text"]) for row in rows])
    high = np.array([row["quality_label"] == "high" for row in rows])
    pool = np.array(roles) == "pool"
    share = HIGH / (1 - HIGH) * sizes[pool & ~high].sum() / sizes[pool & high].sum()
    kept = ~pool | ~high | (thin < share)
    names = ("id", "text", "quality_label", "doc_type")
    for file, wanted in (("rows", {"trusted", "pool"}), ("judges", {"judge"})):
        lines = [
            {name: row[name] for name in names} | {"role": r} for row, r, k in zip(rows, roles, kept, strict=True) if k and r in wanted
        ]
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def dropped(run: Path, judges: Path) -> list[str]:
    """What the cut drops of each kind of document; of the judges, by models of which none saw them."""
    ledger = open_run(run)
    settings, fitted, _ = corpus.settings_of(ledger)
    columns = ["filter_percentile", "filter_words", "filter_lines"]
    found: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    languages: dict[str, list[list[float]]] = defaultdict(list)
    for shard in ledger.dataset.shards:
        for row in ledger.dataset.read(shard, ["role", "doc_type", "language", *columns]).to_pylist():
            found[row["role"], row["doc_type"]].append([row[name] for name in columns])
            if row["doc_type"] == "page_with_boilerplate":
                languages[f"pages in {row['language']}"].append([row[name] for name in columns])
    identify = identifier()
    rows = [json.loads(line) for line in judges.read_text().split("\n") if line]
    language = [identify(row["text"])[0] for row in rows]
    scored = settings.load(fitted)(pa.table({"text": pa.array([row["text"] for row in rows], pa.large_string()), "language": language}))
    for row, percentiles in zip(rows, scored.select(columns).to_pylist(), strict=True):
        found["judge, never seen", row["doc_type"]].append(list(percentiles.values()))
    most = sorted(languages.items(), key=lambda item: -len(item[1]))[:4]
    lines = [f"| role | kind | rows | below percentile {CUT} | by words alone | by lines alone |", "|---|---|---|---|---|---|"]
    for (role, kind), percentiles in [*sorted(found.items()), *((("pool", language), values) for language, values in most)]:
        below = " | ".join(f"{share:.1%}" for share in np.mean(np.array(percentiles) < CUT, axis=0))
        lines.append(f"| {role} | {kind} | {len(percentiles):,} | {below} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/filter-outcome"))
    parser.add_argument("--cuts", default="0.05,0.1,0.2")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tokens", type=int, help="that each small model reads [default: the smallest cut, once]")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    set_threads(1)
    prepare(args.work)
    (args.work / "recipe.yaml").write_text(RECIPE.format(folder=args.work.absolute(), cut=CUT))
    curate.run(args.work / "recipe.yaml", args.work / "run", engine="inline")
    found = audits.audit(
        open_run(args.work / "run"), judge=args.work / "judges.jsonl", choose_by=("-ngram_loss",), cuts=tuple(map(float, args.cuts.split(","))),
        seeds=args.seeds, tokens=args.tokens, workers=args.workers, say=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "scikit-learn", "numpy"))
    text = (
        f"# What a filter's choice teaches\n\n`python benchmarks/filter_outcome.py --seeds {args.seeds} --cuts {args.cuts}{f' --tokens {args.tokens}' if args.tokens else ''}`\n\n"
        f"```\n{audits.table(found)}\n```\n\n"
        + "\n".join(dropped(args.work / "run", args.work / "judges.jsonl"))
        + f"\n\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}.\n"
    )
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
