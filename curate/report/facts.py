"""What the report says, gathered from a run folder: verdict columns, score columns, artifacts."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import column_types, read_columns
from curate.errors import Damaged
from curate.ledger import NO_SCORES, Ledger, fates, is_generated
from curate.recover.outcome import ARMS, published_version, verdict
from curate.report import generated as made_rows
from curate.report import geometry, names, page
from curate.report.rules import meaning
from curate.store import digest, read_json, write_json, write_text
from curate.versions import Versions

MOST_HISTOGRAMS = 14
BINS = 24
SAMPLES = 6
MIDDLE_FROM = 50  # rows of a cluster, nearest to its mean, of which a few unlike ones are shown
MIDDLE_TEXT = 2000  # characters of each


def write_report(ledger: Ledger) -> Path:
    """Write report/index.html, unless it already tells of exactly this state of the run."""
    folder = ledger.folder / "report"
    folder.mkdir(exist_ok=True)
    version = read_json(ledger.folder / "versions" / f"{(ledger.folder / 'dataset').resolve().name}.json") or {}
    counts = {key: value for key, value in ledger.facts.items() if key not in ("seconds", "steps")}
    state = digest(
        [
            version.get("fingerprint"),
            counts,
            _recovery(ledger),
            _audit(ledger),
            _fairness(ledger),
            _changes(ledger),
            [file.stat().st_mtime_ns for file in sorted(Path(__file__).parent.glob("*.*"))],  # this code and its template
        ]
    )
    target = folder / "index.html"
    if not target.exists() or read_json(folder / "state.json") != state:
        write_text(target, page.render(gather(ledger)))
        write_json(folder / "state.json", state)
    return target


@dataclass
class _Gathered:
    """One pass over the shards."""

    quarantine: list[page.Quarantined] = field(default_factory=list)
    examples: dict[tuple[str, str], tuple[int, float | None, float | None, str]] = field(default_factory=dict)
    sources: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    values: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    kept: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    points: list[tuple[float, float, int, bool]] = field(default_factory=list)
    made: list[made_rows.Made] = field(default_factory=list)
    near: list[page.Sample] = field(default_factory=list)
    # cluster -> (row_id, beginning) of the rows with the smallest ids, which are hashes: a fair sample; and of those in its middle
    read: dict[int, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    middle: dict[int, list[tuple[float, str, str]]] = field(default_factory=lambda: defaultdict(list))
    clusters: dict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0, 0]))  # rows, tokens, kept, tokens kept


def gather(ledger: Ledger) -> page.Facts:
    facts, counts = ledger.facts, ledger.facts["counts"] or {}
    recipe = (ledger.folder / "recipe.yaml").read_text(encoding="utf-8")
    found = _Gathered()
    by = _score_of_select(ledger)
    for shard in ledger.dataset.shards:
        _look(ledger, shard, found, by)
    steps = [step for step in facts["steps"] if "/" not in step["name"]]
    by_step = counts.get("by_step", {})
    dropped_rules = counts.get("dropped", {})
    road = []
    for step in steps:
        rules = by_step.get(step["name"], {})
        quarantined = {rule: number for rule, number in rules.items() if rule not in dropped_rules}
        road.append(
            page.Step(
                step["name"],
                step["about"],
                seen=None if step.get("hidden") is None else step["rows"] - step["hidden"],
                hidden=step.get("hidden"),
                dropped={rule: number for rule, number in rules.items() if rule in dropped_rules},
                quarantined=sum(quarantined.values()),
                generated=step["generated"],
                shards_run=step["executed"],
                shards_reused=step["reused"],
                seconds=step["seconds"],
            )
        )
    budget = _artifact(ledger, "select", "budget.json") or {}
    stability = _stability(ledger)
    card = geometry.card(ledger, geometry.published(ledger))
    order = {column: -place for place, step in enumerate(steps) for column in step["columns"]}  # what was measured last comes first
    return page.Facts(
        run=ledger.folder.name,
        counts=page.Counts(
            rows_in=counts.get("rows_in", 0),
            kept=counts.get("kept", 0),
            dropped=dropped_rules,
            generated=counts.get("generated", 0),
            kept_generated=counts.get("kept_generated", 0),
            quarantined=counts.get("quarantined", 0),
            files_quarantined=counts.get("files_quarantined", 0),
            tokens_in=counts.get("tokens_in"),
            tokens_kept=counts.get("tokens_kept"),
            token_unit=facts.get("token_unit", "tokens"),
            seconds=facts.get("seconds"),
        ),
        road=tuple(road),
        pipeline=facts.get("pipeline", ""),
        folder=str(ledger.folder),
        dataset=str(ledger.folder / "dataset"),
        drops=tuple(
            page.Drop(step, rule, number, meaning=meaning(rule), value=value, threshold=threshold, example=example)
            for (step, rule), (number, value, threshold, example) in sorted(found.examples.items())
        ),
        quarantine=tuple(found.quarantine[:50]),
        sources=tuple(page.Source(name, *numbers) for name, numbers in sorted(found.sources.items())),
        scores=tuple(_histograms(found, by, order)),
        clusters=tuple(_clusters(found, budget)),
        budget_unit=budget.get("unit", "rows"),
        cluster_measures=tuple(_cluster_measures(ledger)),
        stability=stability,
        card=card.lines if card else (),
        card_rows=(card.rows, card.whole) if card else (0, 0),
        drifts=tuple(geometry.drifts(ledger)),
        map=tuple(found.points[:: max(1, -(-len(found.points) // page.MOST_POINTS))]),
        samples=tuple(_samples(found, by)),
        batches=tuple(made_rows.batches(found.made, _artifact(ledger, "batch_gate", "batches.json"))),
        recycled=tuple(made_rows.left_out_sources(ledger, found.made)),
        generated=tuple(made_rows.pairs(found.made)),
        filter_measures=tuple(_filter_measures(ledger)),
        recovery=_recovery(ledger),
        audit=_audit(ledger),
        fairness=_fairness(ledger),
        changes=_changes(ledger),
        identities=tuple(_identities(ledger)),
        recipe=recipe,
    )


def _recovery(ledger: Ledger) -> page.Recovery | None:
    """What `curate recover` wrote, if it was about the rows that are published now."""
    summary = read_json(ledger.folder / "recovery" / "summary.json")
    if summary is None or summary["dataset"] != published_version(ledger.folder):
        return None
    arms = tuple(
        page.Arm(
            name, about, facts["seeds"], facts["rows"], facts["tokens"], facts["response_tokens"], facts["loss"], facts["divergence"],
            tuple(facts["recovered"]) if "recovered" in facts else None,
        )
        for name, about in ARMS.items() if (facts := summary["arms"].get(name))
    )  # fmt: skip
    groups = tuple((name, tuple(summary["groups"][arm.name][name] for arm in arms)) for name in summary["groups"][arms[0].name])
    said = tuple(
        (verdict(control, found), found["interval"][1] >= 0 or found["t_p"] is None) for control, found in summary["differences"].items()
    )
    return page.Recovery(arms, said, groups, summary["unit"])


def _audit(ledger: Ledger) -> page.Audit | None:
    """What `curate audit-filter` wrote, if it was about the filter that the run has now."""
    found = read_json(ledger.folder / "audit" / "filter.json")
    if found is None or not (ledger.folder / "stages" / "filter" / found["filter"]).is_dir():
        return None
    held, told = found["held_out"], found.get("induced", {})
    proofs = tuple(
        page.Proof(
            name,
            arm["loss"],
            arm["epochs"],
            (arm["difference"]["difference"], *arm["difference"]["interval"]) if "difference" in arm else None,
        )
        for name, arm in told.get("arms", {}).items()
    )
    aucs = [
        ("the filter", held["auc"]),
        *held["by_member"].items(),
        *((f"{name}, nothing of it trained on", auc) for name, auc in held["by_source"].items()),
    ]
    aucs += [("length alone", held["length_only"]), ("language alone", held["language_only"])]
    return page.Audit(
        found["purity"]["trusted_rows"], found["purity"]["near_copies_of_pool_rows"], found["purity"]["set_aside_rows"], found["kept"], tuple(aucs),
        tuple((item["share"], item["rows_set_aside"], item["overlap"]) for item in found["pollution"]),
        tuple((item["kind"], item["edit"], item["rows"], item["moved"], item.get("q75"), item["high"], item["crossed"]) for item in found["edits"]),
        proofs, told.get("tokens", 0), told.get("judges", 0), told.get("seeds", 0), tuple(found["remarks"]),
    )  # fmt: skip


def _fairness(ledger: Ledger) -> page.Fairness | None:
    """What `curate audit-fairness` wrote, if it was about the scores of the rows that are published now."""
    found = read_json(ledger.folder / "audit" / "fairness.json")
    if found is None or found["dataset"] != published_version(ledger.folder):
        return None
    names = ("scorer", "column", "attribute", "mean", "q75", "q95", "flips", "deviations")
    return page.Fairness(
        tuple(found["pairs"].items()), tuple(tuple(item[name] for name in names) for item in found["moved"]), tuple(found["remarks"])
    )


def _changes(ledger: Ledger) -> page.Changes | None:
    """What the published version has that the one before it had not; None for a first version."""
    versions = Versions(ledger.folder)
    number = versions.current()
    base = (versions.record(number) or {}).get("base")
    if number is None or base is None or not versions.changes_file(number).exists():
        return None
    try:
        table = versions.changes(number)
    except Damaged:  # `verify` says so; a report without it is better than none
        return None
    counted = Counter(zip(table["change"].to_pylist(), table["why"].to_pylist(), strict=True))
    both = (tuple((why, rows) for (what, why), rows in counted.most_common() if what == change) for change in ("entered", "left"))
    return page.Changes(number, base, *both)


def _look(ledger: Ledger, shard: Any, found: _Gathered, by: str | None) -> None:
    fate = fates(ledger.folder, shard, ledger.decisions)
    kept = pc.equal(fate["fate"], "kept").to_numpy(zero_copy_only=False)
    types = column_types(ledger.folder, shard, [name for name in shard.columns if name not in NO_SCORES and not name.endswith(".verdict")])
    numeric = [name for name, kind in types.items() if pa.types.is_integer(kind) or pa.types.is_floating(kind)]
    extra = [
        name
        for name in ("map_x", "map_y", "cluster", "cluster_similarity", "origin", "parent_text", "parent_at", "generator")
        if name in shard.columns
    ]
    table = read_columns(
        ledger.folder, shard, ["row_id", "source", "file", "line", "prompt", "response", "text", *dict.fromkeys([*numeric, *extra])]
    )
    generated = is_generated(shard)
    tokens = table["tokens"].fill_null(0).to_numpy() if "tokens" in table.column_names else np.zeros(len(kept), int)
    for name in numeric:
        found.values[name].append(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False))
        found.kept[name].append(kept)
    for source in pc.unique(table["source"]).to_pylist():
        mine = pc.equal(table["source"], source).to_numpy(zero_copy_only=False)
        numbers = found.sources[source]
        numbers[0] += 0 if generated else int(mine.sum())
        numbers[1] += int((mine & kept).sum())
        numbers[2] += int(tokens[mine & kept].sum())
    gone = pc.indices_nonzero(pc.equal(fate["fate"], "dropped")).to_numpy()
    steps, rules = fate["step"].to_pylist(), fate["rule"].to_pylist()
    for row in gone.tolist():
        key = (steps[row], rules[row])
        if key in found.examples:
            number, *rest = found.examples[key]
            found.examples[key] = (number + 1, *rest)  # type: ignore[assignment]
        else:
            text = table["prompt"][row].as_py() or table["text"][row].as_py() or ""
            found.examples[key] = (1, fate["value"][row].as_py(), fate["threshold"][row].as_py(), text[:200])
    if len(found.quarantine) < 50:
        for row in pc.indices_nonzero(pc.equal(fate["fate"], "quarantined")).to_pylist()[:50]:
            found.quarantine.append(page.Quarantined(table["file"][row].as_py(), table["line"][row].as_py(), rules[row]))
    if "cluster" in table.column_names:
        _cluster_rows(table, kept, tokens, generated, found)
    if by and by in table.column_names:
        _near_threshold(table, fate, kept, by, found)
    if generated:
        found.made += made_rows.rows(table, fate, kept)


def _cluster_rows(table: pa.Table, kept: np.ndarray, tokens: np.ndarray, generated: bool, found: _Gathered) -> None:
    clusters, ids, prompts, texts = (table[name].to_pylist() for name in ("cluster", "row_id", "prompt", "text"))
    absent: list[Any] = [None] * len(clusters)
    xs, ys, near = (table[name].to_pylist() if name in table.column_names else absent for name in ("map_x", "map_y", "cluster_similarity"))
    for row, (cluster, x, y) in enumerate(zip(clusters, xs, ys, strict=True)):
        if cluster is None:
            continue
        numbers = found.clusters[cluster]
        numbers[0] += not generated
        numbers[1] += 0 if generated else int(tokens[row])
        numbers[2] += bool(kept[row])
        numbers[3] += int(tokens[row]) if kept[row] else 0
        if not generated:
            text = prompts[row] or texts[row] or ""
            found.read[cluster].append((ids[row], text[: names.LONGEST]))
            similarity = near[row]
            if similarity is not None:
                found.middle[cluster].append((similarity, ids[row], text[:MIDDLE_TEXT]))
        if x is not None and not generated:
            found.points.append((round(x, 5), round(y, 5), cluster, bool(kept[row])))
    for cluster in found.read:  # no more than a shard's rows beyond what is needed are ever held
        found.read[cluster] = sorted(found.read[cluster])[: names.MOST_ROWS]
        found.middle[cluster] = sorted(found.middle[cluster], key=lambda row: (-row[0], row[1]))[:MIDDLE_FROM]


def _near_threshold(table: pa.Table, fate: pa.Table, kept: np.ndarray, by: str, found: _Gathered) -> None:
    """Candidates for 'just kept' and 'just dropped': rows that the budget decided."""
    scores = table[by].to_pylist()
    cuts, rules = fate["threshold"].to_pylist(), fate["rule"].to_pylist()
    for row, score in enumerate(scores):
        if score is None or not (kept[row] or rules[row] == "over_budget"):
            continue
        found.near.append(
            page.Sample(
                (table["prompt"][row].as_py() or table["text"][row].as_py() or "")[:600],
                bool(kept[row]),
                by,
                round(float(score), 4),
                cuts[row] if cuts[row] is not None else float("nan"),
                table["row_id"][row].as_py(),
                f"{table['file'][row].as_py()}:{table['line'][row].as_py()}",
            )
        )


def _samples(found: _Gathered, by: str | None) -> list[page.Sample]:
    """Rows on both sides of the cut: every group has its own, so kept rows take the cut that the dropped ones met."""
    dropped = [sample for sample in found.near if not sample.kept and sample.threshold == sample.threshold]
    if not dropped:
        return []
    cut = float(np.median([sample.threshold for sample in dropped]))
    nearest = sorted(found.near, key=lambda sample: (abs(sample.score - cut), sample.row_id, sample.where))
    shown = [sample for sample in nearest if sample.kept][:SAMPLES] + [sample for sample in nearest if not sample.kept][:SAMPLES]
    return [page.Sample(s.text, s.kept, s.column, s.score, round(cut, 4), s.row_id, s.where) for s in shown]


def _histograms(found: _Gathered, by: str | None, order: dict[str, int]) -> list[page.Histogram]:
    shown = []
    most = max(map(len, found.values.values()), default=0)  # what only generated rows have comes last
    rules = {rule for _, rule in found.examples}

    def decided(name: str) -> bool:
        return not rules.isdisjoint((f"below_{name}", f"above_{name}", f"{name}_low", f"{name}_high"))

    names = sorted(found.values, key=lambda name: (name != by, not decided(name), len(found.values[name]) < most, order.get(name, 0), name))
    for name in names:
        values, kept = np.concatenate(found.values[name]), np.concatenate(found.kept[name])
        finite = np.isfinite(values)
        if finite.sum() < 2 or len(np.unique(values[finite])) < 2:
            continue
        low, high = np.quantile(values[finite], [0.005, 0.995])
        if low == high:
            low, high = values[finite].min(), values[finite].max()
        edges = np.linspace(low, high, BINS + 1)
        clipped = np.clip(values, low, high)
        inside = np.histogram(clipped[finite & kept], edges)[0], np.histogram(clipped[finite & ~kept], edges)[0]
        shown.append(
            page.Histogram(
                name,
                tuple(float(edge) for edge in edges),
                tuple(int(number) for number in inside[0]),
                tuple(int(number) for number in inside[1]),
            )
        )
        if len(shown) == MOST_HISTOGRAMS:
            break
    return shown


def _clusters(found: _Gathered, budget: dict[str, Any]) -> list[page.Cluster]:
    given = {group["group"]: group for group in budget.get("groups", [])}
    named = names.names({cluster: [names.words_of(text) for _, text in rows] for cluster, rows in found.read.items()})
    return [
        page.Cluster(
            cluster,
            label=", ".join(named.get(cluster, ())),
            rows=rows,
            tokens=tokens,
            damage=given.get(cluster, {}).get("mean"),
            budget=given.get(cluster, {}).get("given"),
            spent=given.get(cluster, {}).get("spent"),
            kept=kept,
            middle=tuple(names.middle_rows(found.middle.get(cluster, []))),
        )
        for cluster, (rows, tokens, kept, _) in sorted(found.clusters.items())
    ]


def _artifact(ledger: Ledger, step: str, name: str) -> Any:
    record = read_json(ledger.folder / "stages" / step / "artifact.json")
    if record is None:
        return None
    return read_json(ledger.folder / "stages" / step / f"artifact-{record['fingerprint'][:12]}" / name)


def _cluster_measures(ledger: Ledger) -> list[page.Measure]:
    baseline = (_artifact(ledger, "cluster", "info.json") or {}).get("baseline", {})
    names = {"silhouette": "how far rows are from other clusters (-1 to 1)", "within": "cosine of a row to the mean of its cluster"}
    return [
        page.Measure(name, baseline[f"own_{name}"], "k-means on the same vectors", baseline.get(f"kmeans_{name}"), meaning)
        for name, meaning in names.items()
        if baseline.get(f"own_{name}") is not None
    ]


def _stability(ledger: Ledger) -> page.Stability | None:
    info = _artifact(ledger, "cluster", "info.json") or {}
    measured, verdict = info.get("stability") or {}, info.get("verdict") or ""
    return page.Stability(measured.get("own"), measured.get("kmeans"), verdict) if measured or verdict else None


def _filter_measures(ledger: Ledger) -> list[page.Measure]:
    info = _artifact(ledger, "filter", "info.json")
    if info is None:
        return []
    low, high = info["auc_interval"]
    meaning = (
        f"{info['held_out_rows']:,} trusted and pool rows, each scored by a model that did not see it; 95 % interval {low:.3f} to {high:.3f}. A smoke test, "
        f"not a verdict on the filter. {info['like_trusted']:.0%} of the pool scores like trusted rows; {info['set_aside_rows']:,} trusted rows were set aside"
    )
    measures = [page.Measure("held-out AUC", info["auc"], "length alone", info["auc_length_only"], meaning)]
    if len(info["auc_by_member"]) > 1:
        measures += [
            page.Measure(f"member {name}", value, "all members", info["auc"], "the same of one member")
            for name, value in info["auc_by_member"].items()
        ]
    return measures + [
        page.Measure(
            f"source {source}", value, "length alone", info["auc_length_only"], "its trusted rows, by models that saw none of this source"
        )
        for source, value in info["auc_by_source"].items()
    ]


def _score_of_select(ledger: Ledger) -> str | None:
    budget = _artifact(ledger, "select", "budget.json") or {}
    return budget.get("by")


def _identities(ledger: Ledger) -> list[page.Identity]:
    from curate import models

    shown = [page.Identity("library", name, version) for name, version in ledger.facts["versions"].items() if version != "absent"]
    references = sorted({reference for step in ledger.facts["steps"] for reference in step["models"]})
    return [*(page.Identity("model", reference, models.identity(reference)) for reference in references), *shown]
