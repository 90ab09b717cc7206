"""What the report says of generated rows: how many of each task were published, why the others were not, beside what they stand."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from curate.ledger import Ledger, fates
from curate.report import page

PAIRS = 8
_MEASURES = {
    "opening": "texts that begin with the same five words",
    "distinct": "distinct among all runs of three words",
    "compressed": "size after compression, of 1",
    "spread": "different nearest sources per text",
    "separable": "AUC of telling texts from their sources by their words",
}


class Made(NamedTuple):
    """One generated row: what made it, what became of it, its source."""

    batch: str
    kept: bool
    step: str
    rule: str
    parent_at: str
    pair: page.Pair

    @property
    def passed(self) -> bool:
        """Whether nothing but the final choice is against it."""
        return self.kept or self.step == "select"


def rows(table: pa.Table, fate: pa.Table, kept: np.ndarray) -> list[Made]:
    """The rows of one shard of generated rows."""
    found = []
    for row in range(table.num_rows):
        generator, rule = table["generator"][row].as_py() or "", fate["rule"][row].as_py() or ""
        pair = page.Pair(
            (table["parent_text"][row].as_py() or "")[:800],
            (table["text"][row].as_py() or "")[:800],
            bool(kept[row]),
            rule,
            generator,
            table["row_id"][row].as_py(),
        )
        batch, step = generator.rpartition(" ")[0], fate["step"][row].as_py() or ""
        found.append(Made(batch, bool(kept[row]), step, rule, table["parent_at"][row].as_py() or "", pair))
    return found


def pairs(made: list[Made]) -> list[page.Pair]:
    """Accepted and refused ones, spread over generators and reasons."""
    groups: dict[tuple[bool, str, str], list[page.Pair]] = defaultdict(list)
    for pair in (row.pair for row in made):
        groups[(pair.accepted, pair.generator, pair.reason)].append(pair)
    shown: list[page.Pair] = []
    depth = 0
    while len(shown) < PAIRS and any(len(group) > depth for group in groups.values()):
        shown += [group[depth] for _, group in sorted(groups.items(), key=lambda item: (not item[0][0], item[0][1:])) if len(group) > depth]
        depth += 1
    return sorted(shown[:PAIRS], key=lambda pair: not pair.accepted)


def batches(made: list[Made], judged: list[dict[str, Any]] | None) -> list[page.Batch]:
    """One for each task and model, or each exchange of an attribute; `judged`: what the batch gate measured."""
    by_batch: dict[str, list[Made]] = defaultdict(list)
    for row in made:
        by_batch[row.batch].append(row)
    measured = {batch["batch"]: batch for batch in judged or ()}
    found = []
    for name, group in sorted(by_batch.items(), key=lambda item: (-len(item[1]), item[0])):
        reasons = Counter((row.step, row.rule) for row in group if not row.kept)
        batch = measured.get(name)
        found.append(
            page.Batch(
                name,
                len(group),
                sum(row.passed for row in group),
                sum(row.kept for row in group),
                tuple((step, rule, count) for (step, rule), count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
                tuple((key, _MEASURES[key], *batch[key], key in batch["alarms"]) for key in _MEASURES) if batch and batch["judged"] else (),
                batch["said"] if batch and "opening" in batch["alarms"] else "",
            )
        )
    return found


def left_out_sources(ledger: Ledger, made: list[Made]) -> list[tuple[str, int]]:
    """(rule, rows): of the generated rows that passed, those whose source a rule left out; that a rewrite took its place is no such rule."""
    wanted: dict[str, list[int]] = defaultdict(list)
    for row in made:
        if row.passed and row.parent_at:
            name, _, position = row.parent_at.rpartition(":")
            wanted[name].append(int(position))
    rules: Counter[str] = Counter()
    for shard in ledger.dataset.shards:
        if shard.name in wanted:
            rule = fates(ledger.folder, shard, ledger.decisions, ("rule",))["rule"].take(pa.array(wanted[shard.name], pa.int64()))
            rules.update(one for one in rule.to_pylist() if one is not None and one != "replaced")
    return sorted(rules.items(), key=lambda item: (-item[1], item[0]))
