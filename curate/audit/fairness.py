"""Do the scores of a run depend on whom a text is about? `curate audit-fairness RUN` exchanges the people of rows and scores both.

The measure is `algorithms/unfairness.py`: mean, third quartile and 95th percentile of |f(x) - f(x')| over pairs of a row and its exchange, and the share
that changes sides of a cut. A language model's score is its loss: nats per token of the response (or of a plain text), the difference of which is
what a model finds more natural to say of one group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import recipe as recipes
from curate.algorithms.unfairness import unfairness
from curate.audit.corpus import fitted_folder
from curate.errors import UserMistake
from curate.generate.antidote import swapped
from curate.generate.exchange import attribute_of
from curate.generate.lexicon import read_lexicons
from curate.ledger import Ledger, is_generated
from curate.recover.outcome import published_version
from curate.score._trusted import draw
from curate.score.filter import LEXICONS, Filter
from curate.stage import Stage
from curate.store import write_json

CONTENT = ("messages", "prompt", "response", "text")
FEWEST = 10  # pairs of an attribute of which something is told
# Columns that count or place, and do not judge.
_NO_JUDGE = frozenset({"scored_tokens", "truncated"})
Say = Callable[[str], None]


def audit(
    ledger: Ledger, *, models: Sequence[str] = (), lexicons: Sequence[str] = LEXICONS, folder: str | None = None, most: int = 500, seed: int = 0, say: Say = print
) -> dict[str, Any]:  # fmt: skip
    """Ask every scorer of a run, and further language models; written to RUN/audit/fairness.json.

    models     references of language models, beside those that the recipe's scorers ask
    lexicons   names, and the `folder` they are in;  most  rows for each attribute, those with the lowest draw
    """
    recipe = recipes.load(ledger.folder / "recipe.yaml")
    asked = {name: recipe.sections[name] for name in dict.fromkeys([*recipe.scorers, *(["filter"] if recipe.has("filter") else [])])}
    beside = _beside(ledger, asked.values())
    before, after, attributes = _pairs(ledger, lexicons, folder, most, seed, beside)
    counts = {name: int((attributes == name).sum()) for name in dict.fromkeys(attributes.tolist())}
    say("exchanged: " + ", ".join(f"{count} rows by {name}" for name, count in counts.items()))
    scorers: list[tuple[str, Stage, Path]] = []
    left: list[str] = []
    for name, stage in asked.items():
        fitted = fitted_folder(ledger, name)
        if set(stage.reads()) <= {*CONTENT, *beside} and (fitted is not None or not type(stage).fits()):
            scorers.append((name, stage, fitted or Path()))
        else:
            left.append(name)
    from curate.score.perplexity import Perplexity

    scorers += [(f"perplexity of {model}", Perplexity.model_validate({"model": model, "max_tokens": 512}), Path()) for model in models]
    told: list[dict[str, Any]] = []
    for name, stage, fitted in scorers:
        told += _moved(name, stage, fitted, before, after, attributes)
        say(f"{name}: {sum(item['scorer'] == name for item in told)} columns move")
    found: dict[str, Any] = {
        "dataset": published_version(ledger.folder), "pairs": counts, "moved": sorted(told, key=lambda item: -item["deviations"]), "remarks": [],
    }  # fmt: skip
    if few := [name for name, count in counts.items() if count < FEWEST]:
        found["remarks"].append(f"fewer than {FEWEST} pairs, too few to say something: {', '.join(few)}")
    if left:
        found["remarks"].append(f"not asked, as they read vectors, or what the run does not hold: {', '.join(left)}")
    path = ledger.folder / "audit" / "fairness.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, found, checked=False)
    return found


def _beside(ledger: Ledger, stages: Iterable[Stage]) -> list[str]:
    """Stored columns of words or single numbers that scorers read beside the text, such as the language: an exchange leaves them what they are."""
    shard = next(shard for shard in ledger.dataset.shards if not is_generated(shard))
    wanted = dict.fromkeys(name for stage in stages for name in stage.reads() if name not in CONTENT and name in shard.columns)
    types = ledger.dataset.read(shard, list(wanted)).schema if wanted else pa.schema([])
    return [field.name for field in types if not pa.types.is_nested(field.type)]


def _pairs(
    ledger: Ledger, lexicons: Sequence[str], folder: str | None, most: int, seed: int, beside: Sequence[str]
) -> tuple[pa.Table, pa.Table, np.ndarray]:
    """(rows, the same rows exchanged, the attribute of each pair)."""
    known = read_lexicons(tuple(lexicons), folder)
    found: dict[str, list[tuple[float, str, dict[str, Any], dict[str, Any]]]] = {lexicon.attribute: [] for lexicon in known}
    seen: set[str] = set()
    for shard in ledger.dataset.shards:
        if is_generated(shard):
            continue
        table = ledger.dataset.read(shard, ["row_id", *CONTENT, *beside])
        for row in table.filter(pc.is_valid(table.column("text"))).to_pylist():
            if row["row_id"] in seen:
                continue
            seen.add(row["row_id"])
            for lexicon in known:
                value, _ = attribute_of(row["prompt"], row["response"], row["text"], lexicon)
                for other in lexicon.values if value is not None else ():
                    if other != value:
                        at = draw(seed, "fairness", f"{row['row_id']} {lexicon.attribute} {other}")
                        found[lexicon.attribute].append((at, row["row_id"], row, swapped(row, lexicon, str(value), other)))
            for name, pairs in found.items():
                if len(pairs) > 4 * most:
                    found[name] = sorted(pairs, key=lambda pair: pair[:2])[:most]
    chosen = [(name, *pair[2:]) for name, pairs in found.items() for pair in sorted(pairs, key=lambda pair: pair[:2])[:most]]
    if not chosen:
        raise UserMistake(
            f"no row of {ledger.folder} has people that {', '.join(lexicons)} could exchange: give other lexicons (--lexicon, --lexicon-folder)"
        )
    raw = next(shard for shard in ledger.dataset.shards if not is_generated(shard))
    schema = ledger.dataset.read(raw, [*CONTENT, *beside]).schema
    before = [{name: row[name] for name in schema.names} for _, row, _ in chosen]
    after = [row | other for row, (*_, other) in zip(before, chosen, strict=True)]
    return pa.Table.from_pylist(before, schema=schema), pa.Table.from_pylist(after, schema=schema), np.array([name for name, *_ in chosen])


def _moved(name: str, stage: Stage, fitted: Path, before: pa.Table, after: pa.Table, attributes: np.ndarray) -> list[dict[str, Any]]:
    """Of each numeric column and attribute what the exchange moves. Flips are about the median of the originals."""
    if isinstance(stage, Filter):
        judge, folds = stage.judge(fitted), stage.folds(before.column("text").to_pylist())
        scores, others = (
            pa.table({column: pa.array(values) for column, values in judge(table, folds).items()}) for table in (before, after)
        )
    else:
        score = stage.load(fitted)
        columns = [column for column in dict.fromkeys((*stage.reads(), *stage.reads_if_present())) if column in before.column_names]
        scores, others = score(before.select(columns)), score(after.select(columns))
    found = []
    for column in scores.column_names:
        kind = scores.schema.field(column).type
        if column in _NO_JUDGE or column.endswith("_bin") or not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            continue
        left, right = (table.column(column).cast(pa.float64()).fill_null(np.nan).to_numpy() for table in (scores, others))
        known = np.isfinite(left) & np.isfinite(right)
        if not known.any() or not np.any(left[known] != right[known]):
            continue
        deviation = float(np.std(left[known])) or 1.0
        for attribute in dict.fromkeys(attributes.tolist()):
            mine = known & (attributes == attribute)
            if mine.sum() >= FEWEST:
                gap = unfairness(left[mine], right[mine], float(np.median(left[known])))
                found.append({
                    "scorer": name, "column": column, "attribute": attribute, "pairs": int(mine.sum()), **gap._asdict(), "shift": float((right - left)[mine].mean()),
                    "deviations": gap.mean / deviation,
                })  # fmt: skip
    return found


def table(found: dict[str, Any]) -> str:
    """The audit as text for a terminal: what moves most first."""
    out = [
        f"{'scorer':<24}{'column':<26}{'attribute':<13}{'pairs':>6}{'mean gap':>10}{'75 %':>9}{'95 %':>9}{'flips':>8}{'deviations':>12}",
        *(
            f"{item['scorer'][-23:]:<24}{item['column']:<26}{item['attribute']:<13}{item['pairs']:>6}{item['mean']:10.4f}{item['q75']:9.4f}{item['q95']:9.4f}{item['flips']:8.1%}{item['deviations']:12.3f}"
            for item in found["moved"]
        ),
    ]
    if not found["moved"]:
        out = ["no score moves when the people of a text are exchanged"]
    return "\n".join([*out, *(f"note: {remark}" for remark in found["remarks"])])
