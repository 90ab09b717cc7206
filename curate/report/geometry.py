"""What the vectors of a run say: the report card of a subset, and drift against the rows that the clusters were fitted on.

Vectors are read shard by shard and sampled on the way, so that a run of any size needs the same memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Shard, column_types, read_columns
from curate.errors import UserMistake
from curate.ledger import Ledger, fates, is_generated
from curate.report import page
from curate.store import read_json

if TYPE_CHECKING:
    from curate.algorithms.drift import Reference

CLUSTER = "cluster"
MOST_WHOLE, MOST_SUBSET, MOST_DRIFT = 20_000, 4_000, 4_000  # rows whose vectors are held, about

# What a measure is called, what it says in a sentence, and what it means to lie below or above random subsets.
WORDS: dict[str, tuple[str, str, str, str]] = {
    "vendi": ("Directions", "How many different directions the rows point in (Vendi score).", "narrower", "wider"),
    "rank_me": ("Directions, faint ones too", "The same with rare directions counting more (RankMe).", "narrower", "wider"),
    "diffusion_entropy": ("Structure", "Bits needed to tell the groups of near rows apart (diffusion entropy).", "narrower", "wider"),
    "dimension": ("Dimension", "In how many directions one can go from a row and meet another (TwoNN).", "flatter", "rounder"),
    "tree_length": (
        "Distance of neighbours",
        "Mean edge of the tree that joins all rows by short edges.",
        "closer together",
        "further apart",
    ),
    "separability": ("Separate clumps", "0: one even cloud; towards 1: clumps with gaps between.", "more even", "more clumped"),
    "clusters_kept": ("Clusters with a row", "Share of all clusters that have at least one row.", "clusters lost", "more clusters held"),
    "cluster_shift": (
        "Shift of the shares",
        "Bits by which the clusters' shares differ from those of all rows.",
        "shares held",
        "shares moved",
    ),
    "coverage_radius": ("Reach", "95 of 100 rows have a row of the subset nearer than this (0 to 2).", "reaches everywhere", "leaves gaps"),
}

Choose = Callable[[Shard], np.ndarray]  # bool (rows,): which rows of a shard are meant


@dataclass(frozen=True)
class Card:
    """`rows`: of the subset and of the whole that have a vector; `lines`: one per measure."""

    rows: int
    whole: int
    lines: tuple[page.CardLine, ...]

    def text(self) -> str:
        """A table for a terminal."""
        said = [f"{self.rows:,} rows against {self.whole:,} read; random subsets have the same number of rows", ""]
        said.append(f"  {'':<26} {'subset':>8}  {'95 %':<18} {'random':>8}  {'99 %':<18} {'whole':>8}")
        for line in self.lines:
            mine, chance = (f"{low:.4g} to {high:.4g}" for low, high in (line.interval, line.random_interval))
            verdict = f"  {line.said}" if line.outside else ""
            said.append(f"  {line.name:<26} {line.subset:>8.4g}  {mine:<18} {line.random:>8.4g}  {chance:<18} {line.whole:>8.4g}{verdict}")
        return "\n".join([*said, "", *(f"  {line.name:<26} {line.meaning}" for line in self.lines)])

    def facts(self) -> dict[str, Any]:
        return {"rows": self.rows, "whole": self.whole, "measures": {line.key: asdict(line) for line in self.lines}}


def published(ledger: Ledger) -> Choose:
    """The rows of the dataset."""
    return lambda shard: _mask(pc.equal(fates(ledger.folder, shard, ledger.decisions, ())["fate"], "kept"))


def fallen_to(ledger: Ledger, step: str) -> Choose:
    """The rows that a step left out: their first verdict against them is its own."""
    if step not in ledger.decisions:
        raise UserMistake(f"no step '{step}' decides in this run; steps that do: {', '.join(ledger.decisions) or 'none'}")
    return lambda shard: _mask(pc.equal(fates(ledger.folder, shard, ledger.decisions, ())["step"], step))


def where(ledger: Ledger, condition: str) -> Choose:
    """The rows of which COLUMN=VALUE holds."""
    name, equals, value = condition.partition("=")
    if not equals:
        raise UserMistake(f"'{condition}' is no condition: write COLUMN=VALUE, for example source=alpaca or cluster=3")
    if name not in ledger.dataset.names() and name not in ("shard", "position"):
        known = [column for column in ledger.dataset.names() if not column.endswith(".verdict") and column != _vectors(ledger)]
        raise UserMistake(f"no column '{name}' in this run; columns: {', '.join(known)}")

    def choose(shard: Shard) -> np.ndarray:
        if name in shard.columns and pa.types.is_nested(column_types(ledger.folder, shard, [name])[name]):
            raise UserMistake(f"column '{name}' holds lists or structs: name a column of numbers, words or true and false")
        if name not in (*shard.columns, "shard", "position"):
            return np.zeros(shard.rows, bool)
        column = read_columns(ledger.folder, shard, [name]).column(0)
        try:
            wanted = pa.scalar(value).cast(column.type)
        except pa.ArrowInvalid:
            raise UserMistake(f"'{value}' is no {column.type}, which column '{name}' holds: give a value of that kind") from None
        return _mask(pc.equal(column, wanted))

    return choose


def _mask(found: Any) -> np.ndarray:
    return pc.fill_null(found, False).to_numpy(zero_copy_only=False)


def required_card(ledger: Ledger, choose: Choose) -> Card:
    """`card`, or what keeps it from being made."""
    found = card(ledger, choose)
    if found is None:
        if not any(_vectors(ledger) in shard.columns for shard in ledger.dataset.shards):
            raise UserMistake(f"this run has no vectors: add a section `embed` to its recipe and run it again ({ledger.folder})")
        raise UserMistake(
            "too few rows, or all of them: a report card takes at least 20 rows with a vector, and not everything that was read; choose another subset with --where"
        )
    return found


def card(ledger: Ledger, choose: Choose) -> Card | None:
    """Report card of the chosen rows (read or generated) against all rows that were read.

    None without vectors, with too few rows, and where nothing was left out: all rows lie as all rows do.
    """
    column = _vectors(ledger)
    shards = [shard for shard in ledger.dataset.shards if column in shard.columns]
    if not shards:
        return None
    from curate.algorithms.report_card import FEWEST, Moments, moments, report_card

    chosen = {shard.name: choose(shard) for shard in shards}
    subset_rows, whole_rows = (
        sum(int(mask.sum()) for mask in chosen.values()),
        sum(shard.rows for shard in shards if not is_generated(shard)),
    )
    all_of_the_whole = all(not chosen[shard.name].any() if is_generated(shard) else chosen[shard.name].all() for shard in shards)
    if min(subset_rows, whole_rows) < FEWEST or all_of_the_whole:
        return None
    rng = np.random.default_rng(0)
    parts: list[np.ndarray] = []
    flags: list[np.ndarray] = []  # chosen, of the whole
    second: Moments | None = None
    seen = 0
    counted: list[tuple[np.ndarray, np.ndarray]] = []  # clusters of the subset's rows, of the whole's
    for shard in shards:
        unit, usable, cluster = _unit(ledger, shard, column)
        mine, raw = chosen[shard.name] & usable, usable & (not is_generated(shard))
        if raw.any():
            second = moments(unit[raw]) if second is None else second + moments(unit[raw])
        seen += int(mine.sum())
        draw = rng.random((2, shard.rows))
        held = np.stack([mine & (draw[0] * subset_rows < MOST_SUBSET), raw & (draw[1] * whole_rows < MOST_WHOLE)])
        rows = held.any(axis=0)
        if rows.any():  # a shard without a vector (all of it set aside) has no width either
            parts.append(unit[rows])
            flags.append(held[:, rows])
        counted.append((cluster[mine & (cluster >= 0)], cluster[raw & (cluster >= 0)]))
    if not flags:
        return None
    held = np.concatenate(flags, axis=1)
    if held.sum(axis=1).min() < FEWEST:
        return None
    subset, whole = (np.concatenate([pair[side] for pair in counted]) for side in (0, 1))
    size = int(max(subset.max(initial=-1), whole.max(initial=-1))) + 1
    counts = (np.bincount(subset, minlength=size), np.bincount(whole, minlength=size)) if len(subset) and len(whole) else None
    found = report_card(np.concatenate(parts), held[0], None, 0, held[1], counts, second)
    lines = tuple(
        page.CardLine(
            measure.name,
            *WORDS[measure.name][:2],
            {"below": WORDS[measure.name][2], "within": "as by chance", "above": WORDS[measure.name][3]}[measure.verdict],
            measure.verdict != "within",
            measure.subset,
            measure.interval,
            measure.random,
            measure.random_interval,
            measure.whole,
            measure.rows,
            measure.whole_rows,
        )
        for measure in found
        if math.isfinite(measure.subset) and math.isfinite(measure.random)  # TwoNN has no value for copies of a few rows
    )
    return Card(seen, second.rows if second else 0, lines)


def _vectors(ledger: Ledger) -> str:
    """The column that the rows were clustered on."""
    record = read_json(ledger.folder / "stages" / CLUSTER / "artifact.json")
    info = record and read_json(ledger.folder / "stages" / CLUSTER / f"artifact-{record['fingerprint'][:12]}" / "info.json")
    return (info or {}).get("column", "vector")


def _unit(ledger: Ledger, shard: Shard, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(unit rows, which of them have a direction, cluster or -1) of a shard."""
    from curate.algorithms.knn import unit_rows
    from curate.cluster._clustering import vector_rows

    table = read_columns(ledger.folder, shard, [name for name in (column, CLUSTER) if name in shard.columns])
    unit, bad = unit_rows(vector_rows(table[column], column))
    usable = np.ones(shard.rows, bool)
    usable[bad] = False
    cluster = table[CLUSTER].fill_null(-1).to_numpy() if CLUSTER in table.column_names else np.full(shard.rows, -1)
    return unit, usable, cluster


# -- drift ---------------------------------------------------------------------------------------------------


def drifts(ledger: Ledger) -> list[page.Drift]:
    """Rows that the clusters were not fitted on, against those they were: raw shards that came later, and each kind of generated rows.

    Needs the reference in the cluster artifact; which raw shards were fitted is `fitted_shards` of its info.json.
    """
    record = read_json(ledger.folder / "stages" / CLUSTER / "artifact.json")
    if record is None:
        return []
    folder = ledger.folder / "stages" / CLUSTER / f"artifact-{record['fingerprint'][:12]}"
    if not (folder / "clusters.npz").exists():
        return []
    from curate.algorithms.drift import Reference

    with np.load(folder / "clusters.npz", allow_pickle=False) as stored:
        reference = Reference.of_arrays(stored)
    if reference is None:
        return []
    fitted = (read_json(folder / "info.json") or {}).get("fitted_shards")
    column = _vectors(ledger)
    groups: dict[str, list[Shard]] = {}
    for shard in ledger.dataset.shards:
        if column not in shard.columns or CLUSTER not in shard.columns:
            continue
        if is_generated(shard):
            origins = pc.unique(read_columns(ledger.folder, shard, ["origin"]).column(0)).to_pylist()
            groups.setdefault(f"generated by {', '.join(sorted(map(str, origins)))}", []).append(shard)
        elif fitted is not None and shard.name not in fitted:
            groups.setdefault("read after the fit", []).append(shard)
    found = [_drift(ledger, name, shards, reference, column) for name, shards in sorted(groups.items())]
    return [drift for drift in found if drift is not None]


def _drift(ledger: Ledger, name: str, shards: list[Shard], reference: Reference, column: str) -> page.Drift | None:
    from curate.algorithms.drift import ALARM, drift

    rng, total = np.random.default_rng(0), sum(shard.rows for shard in shards)
    parts, labels = [], []
    for shard in shards:
        unit, usable, cluster = _unit(ledger, shard, column)
        rows = usable & (cluster >= 0) & (rng.random(shard.rows) * total < MOST_DRIFT)
        if rows.any():
            parts.append(unit[rows])
            labels.append(cluster[rows])
    if not parts:
        return None
    unit, label = np.concatenate(parts), np.concatenate(labels)
    if len(unit) < 2:
        return None
    found = drift(reference, unit, label)
    beyond = [word for word, p in (("radius", found.p_outside), ("distance", found.p_energy), ("shares", found.p_shift)) if p <= ALARM]
    said = f"Beyond chance: {', '.join(beyond)}." if found.alarm else "Nothing beyond chance."
    return page.Drift(
        name,
        found.rows,
        found.alarm,
        said,
        (
            page.Measure(
                "outside",
                found.outside,
                "rows like those of the fit",
                found.outside_expected,
                "share of rows outside their cluster's radius",
            ),
            page.Measure(
                "energy", found.energy, "at most by chance", found.energy_chance, "energy distance: how far apart the two sets of rows are"
            ),
            page.Measure("shift", found.shift, "at most by chance", found.shift_chance, "share of rows that would have to change cluster"),
        ),
        tuple(page.Moved(change.cluster, change.before, change.now, change.outside) for change in found.changes),
    )
