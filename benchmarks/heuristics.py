"""Do our rules of thumb say what datatrove's say, and how much faster? Same rows, same thresholds.

    python benchmarks/heuristics.py --peer PYTHON [--out benchmarks/results/heuristics.md]

PYTHON is that of an environment with datatrove (`pip install datatrove spacy nltk tldextract ftfy regex pyarrow`), which is no dependency of the project. For
each set of rules: how many of web_docs each of the two drops, how many both do, and what the disagreements are. CPU seconds of one thread, best of three, texts
in memory; ours computes every measure of every set in each of its lines, whether or not a rule of the line uses it. Needs ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SETS = ("gopher", "gopher_repetition", "fineweb")
REPEATS = 3
LONG = 50  # words: Gopher's least; shorter texts are counted apart

WHY = (
    "Why they differ, from reading disagreements (`--examples 5`):", "",
    "- Words. datatrove's are spaCy's, which keeps addresses, paths and `<unk>` in one piece; ours parts them at every mark, so such texts have a smaller",
    "  share of words with a letter and more n-grams that stand earlier. Ours folds case before it looks for stop words, datatrove does not.",
    "- The commonest n-gram. datatrove counts one that occurs once: two words of a short message are a fifth of it, and it is dropped as repetitive.",
    "  Ours must occur twice. This is nearly all of the difference in the repetition set.",
    "- Ends of lines. datatrove's marks hold no quotation mark: a line that ends in `.\"` is unfinished to it; ours looks at what stands inside the quotes.",
    "- Duplicate n-grams. datatrove jumps over a repeat that it counted; ours counts each character that lies in any repeat, once.",
    "- Lines. Blank ones count in datatrove's Gopher rules, not in ours. C4's rules edit texts in datatrove (lines are taken out) and are not compared.",
)  # fmt: skip

PEER = r"""
import json, sys, time
import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

texts = pq.read_table(sys.argv[1], columns=["text"]).column("text").to_pylist()
out = {}
for name, kind in (("gopher", GopherQualityFilter), ("gopher_repetition", GopherRepetitionFilter), ("fineweb", FineWebQualityFilter)):
    rule = kind()
    rule.filter(Document(text="The tokenizer is loaded before the clock starts.", id="0"))
    started = time.process_time()
    said = []
    for text in texts:
        try:
            found = rule.filter(Document(text=text, id="0"))
        except ZeroDivisionError:
            found = (False, "ZeroDivisionError")
        said.append(None if found is True else found[1])
    out[name] = {"seconds": time.process_time() - started, "said": said}
import importlib.metadata
print(json.dumps({"version": importlib.metadata.version("datatrove"), "sets": out}))
"""


def ours(file: Path) -> dict[str, dict]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.score.heuristics import Heuristics

    text = pq.read_table(file, columns=["text"]).column("text")
    nothing = pa.nulls(len(text), pa.large_string())
    table = pa.table({"text": text, "prompt": nothing, "response": nothing})
    found = {}
    for name in SETS:
        judge = Heuristics(rules=(name,)).load(Path())
        times = []
        for _ in range(REPEATS):
            started = time.process_time()
            verdicts = judge(table).column("verdict").to_pylist()
            times.append(time.process_time() - started)
        found[name] = {"seconds": min(times), "said": [verdict and verdict["rule"] for verdict in verdicts]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="the Python of an environment with datatrove")
    parser.add_argument("--data", type=Path, default=DATA / "web_docs.parquet")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--examples", type=int, default=0, help="print so many disagreements of each set")
    args = parser.parse_args()
    import pyarrow.parquet as pq

    texts = pq.read_table(args.data, columns=["text"]).column("text").to_pylist()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(PEER)
        script.flush()
        done = subprocess.run([args.peer, script.name, str(args.data)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"datatrove did not run:\n{done.stderr[-2000:]}")
    longer = [len(text.split()) >= LONG for text in texts]
    peer = json.loads(done.stdout.split("\n")[-2])
    mine = ours(args.data)
    out = [
        "# Rules of thumb, beside datatrove's", "",
        f"| set | datatrove drops | ours drops | both | same verdict | of {LONG} words and more | MB per CPU second: datatrove | ours | ratio |", "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    detail = []
    for name in SETS:
        theirs, said = peer["sets"][name]["said"], mine[name]["said"]
        both = sum(a is not None and b is not None for a, b in zip(theirs, said, strict=True))
        agree = [(a is None) == (b is None) for a, b in zip(theirs, said, strict=True)]
        same, same_long = sum(agree) / len(agree), sum(a for a, long in zip(agree, longer, strict=True) if long) / sum(longer)
        speed, other = megabytes / mine[name]["seconds"], megabytes / peer["sets"][name]["seconds"]
        drops = [sum(value is not None for value in values) for values in (theirs, said)]
        out.append(
            f"| {name} | {drops[0]:,} | {drops[1]:,} | {both:,} | {same:.2%} | {same_long:.2%} | {other:.2f} | {speed:.2f} | {speed / other:.1f}x |"
        )
        apart = Counter((a, b) for a, b in zip(theirs, said, strict=True) if (a is None) != (b is None))
        detail += [f"| {name} | {a or 'keeps'} | {b or 'keeps'} | {count} |" for (a, b), count in apart.most_common(6)]
        shown = [(i, a, b) for i, (a, b) in enumerate(zip(theirs, said, strict=True)) if (a is None) != (b is None)][: args.examples]
        for i, a, b in shown:
            print(f"--- {name}: datatrove {a}, ours {b}\n{texts[i][:400]!r}")
    out += ["", "| set | datatrove | ours | rows |", "|---|---|---|---|", *detail]
    out += ["", *WHY]
    out += ["", f"{len(texts):,} documents, {megabytes:.1f} MB. datatrove {peer['version']}, Python {platform.python_version()}. load average {os.getloadavg()[0]:.1f}."]  # fmt: skip
    print("\n".join(out))
    if args.out:
        args.out.write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
