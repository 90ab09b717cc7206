"""What trials of a recovery experiment say: means, recovered fractions, differences, each with its interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curate.algorithms import paired
from curate.store import read_json

ARMS = {
    "selection": "the rows that the run chose",
    "length_matched": "as many random rows, each of the length of a chosen one",
    "stratified": "random rows of the same cost, every cluster the same share",
    "ceiling": "the original model, tuned on random rows of the same cost",
    "none": "the pruned model as it is",
    "original": "the original model as it is",
}
CONTROLS = ("length_matched", "stratified")


def published_version(run: Path) -> str | None:
    """Fingerprint of the dataset that a run has published; an outcome belongs to one of them."""
    return (read_json(run / "versions" / f"{(run / 'dataset').resolve().name}.json") or {}).get("fingerprint")


def summarise(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Means, recovered fractions and paired differences, each with its 95 % interval, from finished trials.

    `names`: group of each test row. Differences are selection minus control: below 0 the selection is better.
    """
    groups = np.unique(names, return_inverse=True)[1]
    by_arm: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record["seed"]):
        by_arm[record["arm"]].append(record)
    losses = {arm: np.array([record["losses"] for record in found], np.float64) for arm, found in by_arm.items()}
    summary: dict[str, Any] = {"arms": {}, "differences": {}, "groups": {}}
    for arm, found in by_arm.items():
        means = paired.macro(losses[arm], groups)
        facts: dict[str, Any] = {
            "seeds": len(found), "rows": float(np.mean([record["rows"] for record in found])),
            "tokens": float(np.mean([record["tokens"] for record in found])),
            "response_tokens": float(np.mean([record["response_tokens"] for record in found])),
            "loss": float(means.mean()), "loss_sd": float(means.std(ddof=1)) if len(means) > 1 else None,
            "divergence": float(np.nanmean(np.array([record["divergences"] for record in found], np.float64))) if found[0]["divergences"] else None,
        }  # fmt: skip
        if arm not in ("none", "ceiling", "original") and {"none", "ceiling"} <= losses.keys():
            fraction = paired.recovered_fraction(losses["none"], losses[arm], losses["ceiling"], groups)
            facts["recovered"] = [fraction.value, fraction.low, fraction.high]
        summary["arms"][arm] = facts
        summary["groups"][arm] = {
            name: float(losses[arm][:, groups == number].mean()) for number, name in enumerate(np.unique(names).tolist())
        }
    for control in CONTROLS:
        if control in losses and "selection" in losses:
            summary["differences"][control] = paired.contrast(losses["selection"], losses[control], groups)
    return summary


def table(summary: Mapping[str, Any]) -> str:
    """The summary as text for a terminal."""
    lines = [f"{'arm':<16}{'seeds':>6}{'rows':>8}{'tokens':>9}{'response':>9}{'loss':>8}{'recovered':>11}   95 % interval   divergence"]
    for arm in ARMS:
        if arm not in summary["arms"]:
            continue
        facts = summary["arms"][arm]
        tuned = f"{facts['rows']:8,.0f}{facts['tokens']:9,.0f}{facts['response_tokens']:9,.0f}" if facts["rows"] else f"{'':26}"
        part = facts.get("recovered")
        fraction = f"{part[0]:11.0%}   {part[1]:5.0%} to {part[2]:4.0%}" if part else f"{'':11}   {'':13}"
        divergence = f"{facts['divergence']:12.4f}" if facts["divergence"] is not None else ""
        lines.append(f"{arm:<16}{facts['seeds']:>6}{tuned}{facts['loss']:8.3f}{fraction} {divergence}")
    lines.append("")
    for control, found in summary["differences"].items():
        lines.append(verdict(control, found))
    return "\n".join([*lines, *(f"note: {remark}" for remark in summary.get("remarks", ()))])


def verdict(control: str, found: Mapping[str, Any]) -> str:
    """One sentence on the selection and a control, from `contrast`."""
    low, high = found["interval"]
    if found["t_p"] is None:
        return (
            f"selection less {control.replace('_', '-')}: {found['difference']:+.4f} nats per token ({low:+.4f} to {high:+.4f} by test rows alone); "
            "another seed may say otherwise: give --seeds 3 or more"
        )
    what = "better than" if high < 0 else "worse than" if low > 0 else "not told apart from"
    seen = f"; four times in five a true difference of {found['visible']:.3f} would be found" if found["visible"] is not None else ""
    return f"selection is {what} {control.replace('_', '-')}: {found['difference']:+.4f} nats per token ({low:+.4f} to {high:+.4f}){seen}"
