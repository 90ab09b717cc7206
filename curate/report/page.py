"""The report of a run: one HTML file that needs nothing else.

    facts (counted from the ledger by the caller) --render--> str (HTML)

The texts shown come from the corpus, which anybody may have written. Four walls, each enough alone for the usual attacks:
every expression of the template is escaped; hidden characters are shown as signs; the page has no script and no inline style; its
content policy forbids all but its own style sheet, known by hash. A section appears only where there is something to say.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from curate.models import cache_folder
from curate.report import pictures
from curate.report.visible import visible

LONGEST = 900  # characters of one text that are shown
MOST_POINTS = 5_000  # dots on the map
MOST_QUARANTINED = 50  # quarantined rows listed one by one


@dataclass(frozen=True)
class Counts:
    """Rows of the run. `kept` includes `kept_generated`; `dropped` counts each row once, under the rule that decided its fate.

    Raises:
        ValueError: rows_in + generated != kept + dropped + quarantined.
    """

    rows_in: int
    kept: int
    dropped: Mapping[str, int]
    generated: int = 0
    kept_generated: int = 0
    quarantined: int = 0
    files_quarantined: int = 0
    tokens_in: int | None = None
    tokens_kept: int | None = None
    token_unit: str = "tokens"
    seconds: float | None = None

    def __post_init__(self) -> None:
        went = self.kept + self.left + self.quarantined
        if went != self.rows_in + self.generated:
            raise ValueError(
                f"{self.rows_in + self.generated} rows came in or were generated, {went} are accounted for: "
                "run `curate verify RUN` to find the step whose verdicts do not add up"
            )

    @property
    def left(self) -> int:
        """Rows dropped, by all rules."""
        return sum(self.dropped.values())

    @property
    def rows(self) -> int:
        """Rows that were judged: read or generated."""
        return self.rows_in + self.generated


@dataclass(frozen=True)
class Step:
    """One step of the pipeline. `dropped`, `quarantined`: rows whose fate was decided here; `hidden`: rows it was not shown, None where that is not known."""

    name: str
    does: str = ""
    seen: int | None = None
    hidden: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    quarantined: int = 0
    generated: int = 0
    shards_run: int | None = None
    shards_reused: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Drop:
    """One reason. `meaning`: the rule in words; `value`, `threshold`, `example`: one row that it caught."""

    step: str
    rule: str
    count: int
    meaning: str = ""
    value: float | None = None
    threshold: float | None = None
    example: str = ""


@dataclass(frozen=True)
class Quarantined:
    file: str
    line: int | None
    rule: str


@dataclass(frozen=True)
class Source:
    name: str
    rows_in: int
    kept: int
    tokens_kept: int | None = None


@dataclass(frozen=True)
class Histogram:
    """A score's distribution: n + 1 ascending `edges`, n counts of kept rows, n counts of rows left out."""

    column: str
    edges: tuple[float, ...]
    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    meaning: str = ""
    threshold: float | None = None
    baseline: float | None = None
    baseline_name: str = "baseline"


@dataclass(frozen=True)
class Measure:
    """A number with what it is to be held against: a baseline measured on the same rows."""

    name: str
    value: float
    baseline_name: str = ""
    baseline: float | None = None
    meaning: str = ""


@dataclass(frozen=True)
class Cluster:
    """One cluster's part of the budget. `budget` and `spent` are in the unit of `Facts.budget_unit`."""

    cluster: int
    label: str = ""
    rows: int | None = None
    tokens: int | None = None
    damage: float | None = None
    budget: float | None = None
    spent: float | None = None
    kept: int | None = None
    middle: tuple[tuple[str, str], ...] = ()  # (row_id, text) of rows in its middle


@dataclass(frozen=True)
class Stability:
    """Mean agreement (ARI) of a clustering with itself on resampled rows, and of k-means; `verdict`: what follows, in a sentence."""

    own: float | None = None
    kmeans: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class CardLine:
    """One measure of the kept rows beside random subsets of as many rows; intervals are (low, high).

    `said`: what its place means, `outside`: no random subset lies there.
    """

    key: str
    name: str
    meaning: str
    said: str
    outside: bool
    subset: float
    interval: tuple[float, float]
    random: float
    random_interval: tuple[float, float]
    whole: float
    rows: int
    whole_rows: int


@dataclass(frozen=True)
class Moved:
    """A cluster's share of the rows at the fit and now, and the share of its new rows outside its radius."""

    cluster: int
    before: float
    now: float
    outside: float


@dataclass(frozen=True)
class Drift:
    """New rows against those that the clusters were fitted on. `moved`: the clusters that differ most, the first most."""

    name: str
    rows: int
    alarm: bool
    said: str
    measures: tuple[Measure, ...] = ()
    moved: tuple[Moved, ...] = ()


@dataclass(frozen=True)
class Sample:
    """A row near a threshold: `kept` says on which side."""

    text: str
    kept: bool
    column: str
    score: float
    threshold: float
    row_id: str = ""
    where: str = ""


@dataclass(frozen=True)
class Pair:
    """A generated row beside what it was made from. `reason`: the gate that refused it, or why it was accepted."""

    before: str
    after: str
    accepted: bool
    reason: str = ""
    generator: str = ""
    row_id: str = ""


@dataclass(frozen=True)
class Batch:
    """What one task made with one model. `passed`: rows that no step but the final choice is against; `refused`: (step, rule, rows).

    measures   (name, meaning, of the texts, of their sources or None, whether it raises an alarm);  said: the common opening of an alarm
    """

    name: str
    made: int
    passed: int
    published: int
    refused: tuple[tuple[str, str, int], ...] = ()
    measures: tuple[tuple[str, str, float, float | None, bool], ...] = ()
    said: str = ""

    def alarms(self) -> list[str]:
        return [name for name, *_, alarm in self.measures if alarm]


@dataclass(frozen=True)
class Arm:
    """One arm of the recovery experiment. `recovered`: fraction of the damage that was repaired, with its 95 % interval."""

    name: str
    about: str
    seeds: int
    rows: float
    tokens: float
    response_tokens: float
    loss: float
    divergence: float | None = None
    recovered: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Recovery:
    """What `curate recover` found. `said`: a sentence for each control, and whether the selection lost to it or was not told apart."""

    arms: tuple[Arm, ...]
    said: tuple[tuple[str, bool], ...]
    groups: tuple[tuple[str, tuple[float, ...]], ...]  # group of test rows -> loss by arm, in the order of `arms`
    unit: str

    def range(self) -> tuple[float, float]:
        """Ends of the axis of recovered fractions: 0 to 1, or as far as the fractions and finite intervals go."""
        marks = [mark for arm in self.arms if arm.recovered for mark in arm.recovered if -2 < mark < 3]
        return min([0.0, *marks]), max([1.0, *marks])


@dataclass(frozen=True)
class Proof:
    """A small model trained on what one way of choosing keeps. `difference`: from random rows, nats per byte, with its 95 % interval."""

    name: str
    loss: float
    epochs: float
    difference: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Audit:
    """What `curate audit-filter` found. Shares are 0 to 1.

    held_out    what the AUC is of, and it;  pollution  share of pool rows in the trusted set, rows set aside, part of the choice that stays
    edits       kind, edit, rows, mean size of the change in points of 100, its third quartile (None: of an older audit) and 95th percentile, share that changes sides
    """

    trusted_rows: int
    near_copies: int
    set_aside: int
    kept: float
    held_out: tuple[tuple[str, float], ...]
    pollution: tuple[tuple[float, int, float], ...]
    edits: tuple[tuple[str, str, int, float, float | None, float, float], ...]
    proofs: tuple[Proof, ...]
    tokens: int
    judges: int
    seeds: int
    remarks: tuple[str, ...]

    def range(self) -> tuple[float, float]:
        """Ends of the axis of differences: 0 and all intervals."""
        marks = [mark for proof in self.proofs if proof.difference for mark in proof.difference]
        return min([0.0, *marks]), max([0.0, *marks])


@dataclass(frozen=True)
class Fairness:
    """What `curate audit-fairness` found.

    pairs    attribute and how many rows were scored with their people exchanged
    moved    scorer, column, attribute, then of |f(x) - f(x')|: mean, third quartile, 95th percentile; share of pairs on both sides of the median;
             mean gap in standard deviations of the score
    """

    pairs: tuple[tuple[str, int], ...]
    moved: tuple[tuple[str, str, str, float, float, float, float, float], ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """What version `number` has and version `after` had not, and the other way round: why, and how many rows."""

    number: int
    after: int
    entered: tuple[tuple[str, int], ...]
    left: tuple[tuple[str, int], ...]

    @property
    def most(self) -> int:
        return max((count for _, count in (*self.entered, *self.left)), default=0)


@dataclass(frozen=True)
class Identity:
    """Something that the result depends on and how it is known: a model and its hash, a library and its version, a seed."""

    kind: str
    name: str
    identity: str


@dataclass(frozen=True)
class Facts:
    """Everything the page says. Only `counts` and `road` must be filled; what is empty is not mentioned.

    Raises:
        ValueError: the steps, or the listed drops, do not add up to the counts.
    """

    run: str
    counts: Counts
    road: tuple[Step, ...]
    pipeline: str = ""
    folder: str = "RUN"  # of the run, as a shell would be given it
    dataset: str = ""
    drops: tuple[Drop, ...] = ()
    quarantine: tuple[Quarantined, ...] = ()
    sources: tuple[Source, ...] = ()
    scores: tuple[Histogram, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    budget_unit: str = "rows"
    cluster_measures: tuple[Measure, ...] = ()
    stability: Stability | None = None
    card: tuple[CardLine, ...] = ()
    card_rows: tuple[int, int] = (0, 0)  # kept and read rows that have a vector
    drifts: tuple[Drift, ...] = ()
    map: tuple[tuple[float, float, int, bool], ...] = ()  # x, y, cluster, kept
    samples: tuple[Sample, ...] = ()
    batches: tuple[Batch, ...] = ()
    recycled: tuple[tuple[str, int], ...] = ()  # (rule, rows): generated rows that passed, by the rule that left their source out
    generated: tuple[Pair, ...] = ()
    filter_measures: tuple[Measure, ...] = ()
    recovery: Recovery | None = None
    audit: Audit | None = None
    fairness: Fairness | None = None
    changes: Changes | None = None
    identities: tuple[Identity, ...] = ()
    recipe: str = ""

    def __post_init__(self) -> None:
        counts = self.counts
        by_rule: dict[str, int] = {}
        for step in self.road:
            for rule, count in step.dropped.items():
                by_rule[rule] = by_rule.get(rule, 0) + count
        found = (by_rule, sum(step.quarantined for step in self.road), sum(step.generated for step in self.road))
        told = ({rule: count for rule, count in counts.dropped.items() if count}, counts.quarantined, counts.generated)
        by_rule = {rule: count for rule, count in by_rule.items() if count}
        if (by_rule, *found[1:]) != told:
            raise ValueError(f"the steps say {(by_rule, *found[1:])}, the counts {told}: derive both from the same verdicts")
        if self.drops and sum(drop.count for drop in self.drops) != counts.left:
            raise ValueError(
                f"the listed drops sum to {sum(drop.count for drop in self.drops)}, the counts to {counts.left}: list every (step, rule)"
            )
        if len(self.map) > MOST_POINTS:
            raise ValueError(f"{len(self.map)} points on the map: draw a sample of at most {MOST_POINTS}")


def render(facts: Facts) -> str:
    """The page. Same facts, same bytes; writing it is the caller's (UTF-8)."""
    from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined

    compiled = cache_folder() / "report"
    compiled.mkdir(parents=True, exist_ok=True)

    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        bytecode_cache=FileSystemBytecodeCache(str(compiled)),  # compiling takes longer than rendering
        autoescape=True,  # not by suffix
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(policy_hash=_policy_hash, percent=pictures.percent, whole=lambda text: Markup.escape(visible(text)))
    pages.globals.update(
        facts=facts,
        counts=facts.counts,
        reasons=_reasons(facts),
        road=_road(facts),
        thresholds=_thresholds(facts),
        histograms=[_histogram(score) for score in facts.scores],
        most_quarantined=MOST_QUARANTINED,
        pictures=pictures,
        names={cluster.cluster: cluster.label for cluster in facts.clusters},
    )
    return pages.get_template("template.html").render()


def _shown(value: Any) -> Any:
    """What becomes of every expression of the template before it is escaped."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, int | float):
        return pictures.number(value)
    return visible(str(value), LONGEST)


def _policy_hash(block: str) -> Markup:
    digest = hashlib.sha256(block.encode()).digest()
    return Markup(f"'sha256-{base64.b64encode(digest).decode()}'")


def _reasons(facts: Facts) -> list[Drop]:
    """Every (step, rule) that left rows out, most rows first."""
    drops = facts.drops or tuple(Drop(step.name, rule, count) for step in facts.road for rule, count in step.dropped.items())
    return sorted((drop for drop in drops if drop.count), key=lambda drop: (-drop.count, drop.step, drop.rule))


def _road(facts: Facts) -> list[dict[str, Any]]:
    """Each step with its piece of river and the rows that go on after it."""
    rows, flows = facts.counts.rows_in, []
    for step in facts.road:
        gone = sum(step.dropped.values())
        flows.append((rows, step.generated, gone, step.quarantined))
        rows += step.generated - gone - step.quarantined
    pieces = pictures.river(flows, facts.counts.rows_in)
    return [
        {
            "step": step,
            "piece": piece,
            "after": before + generated - gone - quarantined,
            "quiet": not (generated or gone or quarantined),
            "dropped": sorted(((rule, count) for rule, count in step.dropped.items() if count), key=lambda item: (-item[1], item[0])),
        }
        for step, piece, (before, generated, gone, quarantined) in zip(facts.road, pieces, flows, strict=True)
    ]


def _histogram(score: Histogram) -> tuple[Histogram, Markup]:
    marks = []
    if score.threshold is not None:
        marks.append((score.threshold, f"threshold {pictures.number(score.threshold)}", "limit"))
    if score.baseline is not None:
        marks.append((score.baseline, f"{score.baseline_name} {pictures.number(score.baseline)}", "base"))
    return score, pictures.histogram(score.edges, score.kept, score.dropped, marks, score.column)


def _thresholds(facts: Facts) -> list[tuple[str, float, list[Sample], list[Sample]]]:
    """Samples by (column, threshold): those just kept and those just dropped, nearest to the threshold first."""
    groups: dict[tuple[str, float], list[Sample]] = {}
    for sample in facts.samples:
        groups.setdefault((sample.column, sample.threshold), []).append(sample)

    def side(group: list[Sample], kept: bool) -> list[Sample]:
        return sorted((s for s in group if s.kept is kept), key=lambda s: (abs(s.score - s.threshold), s.row_id, s.where))

    return [(column, threshold, side(group, True), side(group, False)) for (column, threshold), group in groups.items()]
