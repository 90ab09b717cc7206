"""Do antidotes make a judge fairer, at what cost, and more than copies of the same rows do?

    python benchmarks/antidote/run.py text embedding filter table comparables lm --out benchmarks/results/antidote.md

text       posts with identity terms (fair_wiki_toxicity), toxic or not: words and pairs of words, logistic regression; five-fold, ten seeds
embedding  the same with MiniLM vectors under the logistic regression
filter     the pretraining filter on web_docs, `antidote: true`: what moves when people are exchanged
table      UCI Adult, income: rows of the table's own generators, "anti" and "anti + worst case"
comparables  how many rows are already the same but for whom they are about
lm         SmolLM2, pruned and tuned on rows about people with and without antidotes: the loss of crows_pairs and of exchanged rows; resumable in --work

Unfairness is mean |f(x) - f(x')| over comparable pairs that no training saw, never of the templates or exchanges of training where a line says so.
Every table has the controls: none, copies of the same rows, and as many rows with a random change. Differences are against `none`, with a 95 % interval
over seeds and items together. Needs ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from curate.engine import set_threads

sys.path.insert(0, str(Path(__file__).parent))
from adult import of_table
from comparables import of_comparables
from language_model import of_lm
from pages import of_filter
from posts import of_posts

SEEDS, VARIANTS = 10, 2

PARTS: dict[str, Callable[[argparse.Namespace], list[str]]] = {
    "text": lambda args: of_posts("text", args.seeds, args.variants, args.work),
    "embedding": lambda args: of_posts("embedding", args.seeds, args.variants, args.work),
    "filter": lambda args: of_filter(args.seeds),
    "table": lambda args: of_table(args.seeds),
    "comparables": lambda args: of_comparables(),
    "lm": lambda args: of_lm(args.seeds, args.work, args.workers),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--variants", type=int, default=VARIANTS, help="exchanges of a post that training may see")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/bench-antidote"), help="where the trainings of `lm` and the fluency of posts are kept"
    )
    parser.add_argument("--workers", type=int, default=2, help="trainings of `lm` at a time, one thread each")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    set_threads(1)
    lines = ["# Antidotes", ""]
    for part in args.parts:
        started = time.process_time()
        lines += [f"## {part}", "", *PARTS[part](args), "", f"{time.process_time() - started:.0f} CPU-s of this process.", ""]
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
