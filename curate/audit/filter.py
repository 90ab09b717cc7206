"""Is the trained filter of a run worth its cut? `curate audit-filter RUN` asks what an AUC cannot say.

purity     rows of the trusted set that are near copies of rows of the pool, and those that were set aside
held out   AUC of sources not trained on, beside what length alone and language alone reach (a smoke test, no more)
pollution  a few rows of the pool among the trusted: how much of what the filter would choose stays the same, with rows set aside
           before training and without (Data Filtering Networks, arXiv 2309.17425: a little pollution ruins a filter)
edits      what moves when only the looks of a text change, or the group of its people
induced    small language models trained on what each way of choosing keeps, judged on text that none saw (`proxy.py`)
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.algorithms import roc
from curate.algorithms.overlap import near_repeats
from curate.algorithms.unfairness import unfairness
from curate.algorithms.word_hashes import word_hashes
from curate.audit import edits
from curate.audit.corpus import Corpus, Tables, highest, read_corpus, settings_of
from curate.audit.induced import CUTS, induced
from curate.byte_blocks import byte_blocks
from curate.errors import UserMistake
from curate.generate.lexicon import read_lexicons
from curate.ledger import Ledger
from curate.score._texts import read_texts
from curate.score._trusted import draw
from curate.score.filter import FOLDS, Filter, Judge
from curate.score.language import identifier
from curate.store import write_json

TRUSTED = "trusted_by_audit"  # column of the tables that filters are trained on again
SHARES = (0.0, 0.01, 0.05, 0.1)  # of pool rows in a polluted trusted set
HALF = 0.5  # what is looked at where the recipe has no bound
FEWEST = 10  # rows that an edit must change to be told of
LEXICONS = ("gender", "origin", "religion", "orientation", "age")
Say = Callable[[str], None]


# ---- purity and baselines ---------------------------------------------------------------------------------------


def purity(corpus: Corpus, threshold: float = 0.8) -> dict[str, Any]:
    """Trusted rows that are near copies of pool rows (Jaccard of word 5-grams): either the pool holds good text, or the trusted set holds pool."""
    text = corpus.table.column("text")
    trusted, pool = np.flatnonzero(corpus.trusted), np.flatnonzero(corpus.pool)
    left, right = ([word_hashes(*block) for block in byte_blocks(text.take(pa.array(rows)))] for rows in (trusted, pool))
    pairs, alike = near_repeats(left, right, threshold)
    nearest = {int(a): (int(b), float(j)) for (a, b), j in sorted(zip(pairs.tolist(), alike, strict=True), key=lambda pair: pair[1])}
    shown = sorted(nearest.items(), key=lambda item: -item[1][1])[:10]
    return {
        "trusted_rows": len(trusted), "near_copies_of_pool_rows": len(nearest), "threshold": threshold,
        "examples": [
            {"similarity": round(j, 3), "trusted": text[int(trusted[a])].as_py()[:200], "pool": text[int(pool[b])].as_py()[:200]} for a, (b, j) in shown
        ],
    }  # fmt: skip


def repeated(corpus: Corpus, judges: Sequence[str], least: float = 0.3) -> np.ndarray:
    """bool (rows,): pool rows that hold `least` or more of a judge's word 5-grams, such as the raw page of a clean text."""
    pool = np.flatnonzero(corpus.pool)
    judged = [word_hashes(*block) for block in byte_blocks(pa.array(judges, pa.large_string()))]
    rows = [word_hashes(*block) for block in byte_blocks(corpus.table.column("text").take(pa.array(pool)))]
    pairs, _ = near_repeats(judged, rows, least, contained=True)
    found = np.zeros(len(corpus.trusted), bool)
    found[pool[pairs[:, 1]]] = True
    return found


def language_auc(corpus: Corpus, seed: int, most: int = 2000) -> float:
    """AUC of trusted against pool rows by language alone: the share of trusted rows among those of the language, counted in the other folds."""
    texts, identify = corpus.texts(), identifier()
    rows = np.concatenate([np.flatnonzero(mask)[:most] for mask in (corpus.trusted, corpus.pool)])
    names, code = np.unique([identify(texts[i][:2000])[0] for i in rows], return_inverse=True)
    fold = np.array([draw(seed, "language", texts[i]) % FOLDS for i in rows])
    counts = np.zeros((2, len(names), FOLDS))
    np.add.at(counts, (corpus.trusted[rows].astype(int), code, fold), 1)
    elsewhere = counts.sum(2, keepdims=True) - counts
    trusted, pool = elsewhere[1] + 1e-9, elsewhere[0] + 1e-9  # of a language seen in this fold alone nothing is known: half
    return roc.auc((trusted / (trusted + pool))[code, fold], corpus.trusted[rows])


# ---- pollution -----------------------------------------------------------------------------------------------------


def pollution(corpus: Corpus, settings: Filter, kept: float, shares: Sequence[float], seed: int, say: Say) -> list[dict[str, Any]]:
    """For each share of pool rows in the trusted set, with rows set aside and without: what part of the text chosen from clean ones is chosen still.

    Chosen are the rows with the highest filter_score that hold `kept` of the pool's bytes; rows that pollute anywhere are not counted.
    """
    table = corpus.table.filter(pa.array(~corpus.judge))
    trusted, texts = corpus.trusted[~corpus.judge], table.column("text").to_pylist()
    order = sorted(np.flatnonzero(~trusted).tolist(), key=lambda i: draw(seed, "pollution", texts[i]))
    most = max(shares)
    counted = ~trusted
    counted[order[: round(most / (1 - most) * trusted.sum())]] = False
    mass = pc.binary_length(table.column("text")).to_numpy().astype(np.float64)
    found = []
    careless = settings.but(set_aside=0.0, like_pool=0.0)
    careful = settings if settings != careless else settings.but(set_aside=_default("set_aside"), like_pool=_default("like_pool"))
    for audited, trained in ((True, careful), (False, careless)):
        clean: np.ndarray | None = None
        for share in shares:
            polluted = trusted.copy()
            polluted[order[: round(share / (1 - share) * trusted.sum())]] = True
            scores, info = _trained(table, polluted, trained)
            chosen = highest(scores, mass, counted, kept)
            clean = chosen if clean is None else clean
            overlap = float(mass[clean & chosen].sum() / mass[clean].sum())
            found.append(
                {"share": share, "audited": audited, "overlap": overlap, "auc": info["auc"], "rows_set_aside": info["set_aside_rows"]}
            )
            say(f"pollution {share:.0%}, {info['set_aside_rows']:,} rows set aside: {overlap:.1%} of the choice stays")
    return found


def _default(setting: str) -> Any:
    return Filter.model_fields[setting].default


def _trained(table: pa.Table, trusted: np.ndarray, settings: Filter) -> tuple[np.ndarray, dict[str, Any]]:
    """(filter_score float64 of every row by a filter trained on these trusted rows, the fit's info)."""
    marked = table.append_column(TRUSTED, pa.array(trusted))
    stage = settings.but(trusted={"where": {TRUSTED: True}}, held_out_by=None, labels=None)
    with tempfile.TemporaryDirectory() as folder:
        stage.fit(Tables(marked), None, Path(folder))
        scores = stage.load(Path(folder))(marked).column("filter_score").to_numpy()
        return scores.astype(np.float64), json.loads((Path(folder) / "info.json").read_text())


# ---- edits ---------------------------------------------------------------------------------------------------------


def edited(corpus: Corpus, settings: Filter, fitted: Path, kept: float, seed: int, most: int = 1000) -> list[dict[str, Any]]:
    """How far filter_percentile moves by each edit, over at most `most` rows of trusted and pool that it changes; original and edit by the same model.

    shift  mean of the change, points of 100;  moved  mean of its size;  q75, high  its third quartile and 95th percentile;
    crossed  share of rows that change sides of the cut
    """
    judge, texts = settings.judge(fitted), corpus.texts()
    order = sorted(range(len(texts)), key=lambda i: draw(seed, "edits", texts[i]))[: 5 * most]
    some, given = [texts[i] for i in order], corpus.table.take(pa.array(order, pa.int64()))
    fold = settings.folds(some)
    before = _percentiles(judge, given, fold)
    cut = 100 * (1 - kept)
    found = []
    made = [
        *(("style", *item) for item in edits.styled(some[:most])),
        *(("identity", *item) for item in edits.exchanged(some, read_lexicons(LEXICONS, None))),
    ]
    for kind, name, changed in made:
        if changed:
            rows = [i for i, _ in changed[:most]]
            text = pa.array([text for _, text in changed[:most]], pa.large_string())
            # `again` tells what another model would say: the text is the same
            models = settings.folds(text.to_pylist()) if name == "again" else fold[rows]
            after = _percentiles(judge, given.take(pa.array(rows, pa.int64())).set_column(0, "text", text), models)
            gap = unfairness(before[rows], after, cut)
            found.append({
                "kind": kind, "edit": name, "rows": len(rows), "shift": float((after - before[rows]).mean()), "moved": gap.mean, "q75": gap.q75, "high": gap.q95,
                "crossed": gap.flips,
            })  # fmt: skip
    return found


def _percentiles(judge: Judge, table: pa.Table, fold: np.ndarray) -> np.ndarray:
    return judge(table, fold)["filter_percentile"].astype(np.float64)


# ---- all of it -------------------------------------------------------------------------------------------------------


def audit(
    ledger: Ledger, *, judge: Path | None = None, judge_where: tuple[str, str] | None = None, choose_by: Sequence[str] = (), cuts: Sequence[float] = CUTS,
    seeds: int = 5, tokens: int | None = None, most: int = 20_000, workers: int = 1, seed: int = 0, say: Say = print,
) -> dict[str, Any]:  # fmt: skip
    """Ask everything of the filter of a run; written to RUN/audit/filter.json. Stopped, the trainings that are done are not done again."""
    settings, fitted, bound = settings_of(ledger)
    kept = HALF if bound is None else bound
    if judge and judge_where:
        raise UserMistake("--judge and --judge-where both name texts to judge by: give one of them")
    corpus = read_corpus(ledger, settings, choose_by, judge_where, most, seed)
    say(
        f"{int(corpus.trusted.sum()):,} trusted rows, {int(corpus.pool.sum()):,} of the pool, {int(corpus.judge.sum()):,} judges; kept is {kept:.0%}"
    )
    info = json.loads((fitted / "info.json").read_text())
    found: dict[str, Any] = {
        "filter": fitted.name, "kept": kept, "pool_rows": int(corpus.pool.sum()), "purity": {**purity(corpus), "set_aside_rows": info["set_aside_rows"], "set_aside": info["set_aside"]},
        "held_out": {
            "auc": info["auc"], "interval": info["auc_interval"], "length_only": info["auc_length_only"], "language_only": language_auc(corpus, seed),
            "by_member": info["auc_by_member"], "by_source": info["auc_by_source"], "like_trusted": info["like_trusted"],
        },
        "pollution": pollution(corpus, settings, kept, SHARES, seed, say), "edits": [], "remarks": [],
    }  # fmt: skip
    if bound is None:
        found["remarks"].append(
            "the recipe has no bound on filter_percentile: pollution and edits are told for the better half of the pool"
        )
    if judge_where:
        found["remarks"].append(
            "the judges are rows of the run, which the filter was trained on (as pool rows, or as trusted ones): --judge FILE is fairer"
        )
    if settings.stored():
        found["remarks"].append(
            f"no edits were tried: the filter reads stored columns ({', '.join(settings.stored())}), and an edited text has none"
        )
    else:
        tried = edited(corpus, settings, fitted, kept, seed)
        found["edits"] = [item for item in tried if item["rows"] >= FEWEST]
        if few := len(tried) - len(found["edits"]):
            found["remarks"].append(f"{few} edits change fewer than {FEWEST} rows, too few to say something: they are left out")
    judges = read_texts(str(judge), "--judge") if judge else [text for text, one in zip(corpus.texts(), corpus.judge, strict=True) if one]
    seen = set(corpus.texts()) if judge else set()
    judges = [text for text in dict.fromkeys(judges) if text not in seen]
    if judges:
        repeats = repeated(corpus, judges)
        if repeats.any():
            found["remarks"].append(
                f"{int(repeats.sum()):,} rows of the pool hold a text that is judged by, or much of it: they are in no training"
            )
        corpus = Corpus(corpus.table, corpus.trusted, corpus.judge | repeats, corpus.scores)
        length = pc.binary_length(corpus.table.column("text")).to_numpy().astype(np.float64)
        scored = Corpus(corpus.table, corpus.trusted, corpus.judge, {**corpus.scores, "length": length})
        folder = ledger.folder / "audit"
        found["induced"] = induced(scored, judges, folder, cuts, seeds, tokens, workers, seed, say)
    else:
        found["remarks"].append(
            "no models were trained: give --judge FILE or --judge-where COLUMN=VALUE, texts that are neither trusted nor in the pool"
        )
    path = ledger.folder / "audit" / "filter.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, found, checked=False)
    return found


def table(found: Mapping[str, Any]) -> str:
    """The audit as text for a terminal."""
    held, pure = found["held_out"], found["purity"]
    low, high = held["interval"]
    out = [
        f"purity     {pure['near_copies_of_pool_rows']} of {pure['trusted_rows']:,} trusted rows nearly repeat a row of the pool; {pure['set_aside_rows']} set aside before training",
        f"held out   AUC {held['auc']:.3f} ({low:.3f} to {high:.3f}); length alone {held['length_only']:.3f}, language alone {held['language_only']:.3f}",
    ]  # fmt: skip
    out += [f"           {name:<24} {value:.3f}, nothing of it trained on" for name, value in held["by_source"].items()]
    out += [
        f"           about {held['like_trusted']:.0%} of the pool is like the trusted set",
        "",
        "pollution  share    set aside   choice that stays   AUC",
    ]
    out += [
        f"{'':11}{item['share']:5.0%}{item['rows_set_aside']:8,} rows{item['overlap']:20.1%}{item['auc']:6.3f}"
        for item in found["pollution"]
    ]
    if found["edits"]:
        out += ["", f"{'edits':<11}{'':32}{'rows':>6}{'shift':>8}{'moved':>8}{'75 %':>8}{'95 %':>8}{'change sides':>14}"]
        out += [
            f"{item['kind']:<11}{item['edit']:<32}{item['rows']:>6}{item['shift']:+8.1f}{item['moved']:8.1f}{item['q75']:8.1f}{item['high']:8.1f}{item['crossed']:14.1%}"
            for item in found["edits"]
        ]
    if "induced" in found:
        told = found["induced"]
        out += ["", f"induced    {told['tokens']:,} tokens each, {told['seeds']} seeds, {told['judges']} judges; nats per byte, below 0: better than random rows",
                f"{'':11}{'':28}{'loss':>8}{'epochs':>8}   less random (95 %)"]  # fmt: skip
        for name, arm in told["arms"].items():
            difference = arm.get("difference")
            tail = (
                f"   {difference['difference']:+.4f} ({difference['interval'][0]:+.4f} to {difference['interval'][1]:+.4f})"
                if difference
                else ""
            )
            out.append(f"{'':11}{name:<28}{arm['loss']:8.4f}{arm['epochs']:8.2f}{tail}")
    return "\n".join([*out, *(f"note: {remark}" for remark in found["remarks"])])
