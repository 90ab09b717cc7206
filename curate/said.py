"""What the commands print for people."""

from __future__ import annotations

from typing import Any


def counts_text(facts: dict[str, Any]) -> str:
    dropped = sum(facts["dropped"].values())
    lines = [
        f"  {facts['rows_in']:>10,} rows in" + (f", {facts['generated']:,} generated" if facts["generated"] else ""),
        f"  {facts['kept']:>10,} kept"
        + (f" ({facts['kept_generated']:,} of them generated)" if facts["kept_generated"] else "")
        + f", {facts['tokens_kept']:,} tokens",
        f"  {dropped:>10,} dropped",
    ]
    lines += [f"  {count:>14,}  {rule}" for rule, count in sorted(facts["dropped"].items(), key=lambda item: -item[1])]
    if facts["quarantined"] or facts["files_quarantined"]:
        lines.append(f"  {facts['quarantined']:>10,} rows set aside (quarantine), {facts['files_quarantined']} files unreadable")
        lines += [f"  {count:>14,}  {rule}" for rule, count in sorted(facts.get("quarantine_rules", {}).items(), key=lambda item: -item[1])]
    return "\n".join(lines)


def run_text(facts: dict[str, Any]) -> str:
    lines = [counts_text(facts), ""]
    lines += [f"  unreadable: {visible(problem['file'])}: {visible(problem['reason'])}" for problem in facts["problems"]]
    lines += [f"  note     {visible(remark, 400)}" for remark in facts["remarks"]]
    if planned := facts.get("planned"):
        low, high, took = planned["seconds"]
        lines.append(f"  planned  {low:,.0f} to {high:,.0f} s; it took {took:,.0f} s")
    lines += [f"  dataset  {facts['dataset']}", f"  report   {facts['report']}"]
    if facts["exit_code"] == 3:
        lines.append(
            "  exit code 3: more was set aside than ingest.quarantine_max allows, a whole file could not be read, or a note above says that too much was removed; "
            "the dataset is written without it"
        )
    return "\n".join(lines)


def visible(text: Any, most: int = 160) -> str:
    """Text of a document made safe for a terminal: control and direction marks shown, length cut."""
    from curate.report.visible import visible as shown

    return shown(str(text), most)


def explain_text(item: dict[str, Any]) -> str:
    lines = [
        f"{item['row_id']}  at {item['at']}",
        f"  from       {visible(item['source'])}, {visible(item['file'])}:{item['line']}"
        + (f", id {visible(item['source_id'], 60)}" if item["source_id"] is not None else ""),
        f"  fate       {item['fate']}" + (f" by {item['step']}: {item['rule']}" if item["step"] else ""),
    ]
    for verdict in item["verdicts"]:
        held = (
            f"  ({verdict['value']:g} against {verdict['threshold']:g})"
            if verdict["value"] is not None and verdict["threshold"] is not None
            else ""
        )
        lines.append(f"  verdict    {verdict['step']}: {verdict['decision']} {verdict['rule']}{held}")
    if item["twin_is"]:
        twin = item["twin_is"]
        similarity = f", similarity {item['similarity']:.3f}" if item["similarity"] is not None else ""
        lines.append(f"  survivor   {twin['row_id']} at {visible(twin['file'])}:{twin['line']}{similarity}")
        lines.append(f"             {visible(twin['text'])}")
    if item["lineage"].get("origin"):
        lineage = item["lineage"]
        lines.append(
            f"  made by    {lineage['origin']} ({visible(lineage['generator'])}), from {', '.join(lineage['parents'] or [])}, depth {lineage['depth']}"
        )
    for child in item["children"]:
        lines.append(f"  child      {child['row_id']} ({child['origin']}): {child['fate']}")
    shown = [
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={visible(value, 40)}"
        for name, value in item["scores"].items()
        if value is not None
    ]
    if shown:
        lines.append("  scores     " + ", ".join(shown))
    for name, text in item["text"].items():
        if text is not None and name != "messages" and not (name == "text" and item["text"]["prompt"] is not None):
            lines.append(f"  {name:<10} {visible(text, 300)}")
    return "\n".join(lines)


def drop_line(row: dict[str, Any]) -> str:
    held = f" ({row['value']:g} against {row['threshold']:g})" if row["value"] is not None and row["threshold"] is not None else ""
    text = row["prompt"] or row["text"] or ""
    twin = f", of {row['twin'][:12]}" if row["twin"] else ""
    alike = f", similarity {row['similarity']:.3f}" if row["similarity"] is not None else ""
    return f"{row['row_id'][:12]}  {visible(row['file'], 40)}:{row['line']}  {row['step']}: {row['rule']}{held}{twin}{alike}\n    {visible(text, 140)}"


def refresh_text(facts: dict[str, Any]) -> str:
    """The part of a refresh's output that a run has not."""
    lines = [f"  version  {facts['version']}" + (f", after {facts['after']}" if facts["after"] is not None else "") + f": {facts['said']}"]
    lines += [f"  {name:<8} {', '.join(visible(file, 60) for file in files[:5])}{f' and {len(files) - 5} more' if len(files) > 5 else ''}" for name, files in facts["files"].items() if files]  # fmt: skip
    if facts["changed"]:
        lines += [changed_text(facts["entered"], "entered"), changed_text(facts["left"], "left"), f"  changes  {facts['changes']}"]
    return "\n".join(line for line in lines if line)


def changed_text(reasons: dict[str, int], change: str) -> str:
    if not reasons:
        return ""
    return "\n".join(
        [f"  {sum(reasons.values()):>10,} rows {change}", *(f"  {count:>14,}  {visible(why)}" for why, count in reasons.items())]
    )


def diff_text(found: dict[str, Any]) -> str:
    before, after = found["names"]
    lines = [f"{before}  ->  {after}", ""]
    lines += [f"  {key:<40} {visible(old, 50)}  ->  {visible(new, 50)}" for key, (old, new) in found["settings"].items()] or [
        "  same settings"
    ]
    lines += ["", f"  {'':<40} {'before':>12} {'after':>12}"]
    lines += [f"  {name:<40} {old:>12,} {new:>12,}" for name, (old, new) in found["counts"].items()]
    lines += [f"  {visible(rule, 40):<40} {old:>12,} {new:>12,}" for rule, (old, new) in found["rules"].items() if old != new]
    for change in ("entered", "left"):
        lines += ["", changed_text(found[change], change) or f"  no row {change}"]
        lines += [f"      {row['why']}: {visible(row['file'], 40)}:{row['line']}  {visible(row['text'] or '', 100)}" for row in found["rows"] if row["change"] == change]  # fmt: skip
    if found["scores"]:
        lines += [
            "",
            f"  {'score':<24} {'median before':>14} {'after':>10} {'index':>8}   (population stability index; below {'chance':<6} is no shift)",
        ]
        lines += [f"  {name:<24} {shift['old']:>14.4g} {shift['new']:>10.4g} {shift['index']:>8.3f}   chance {shift['chance']:.3f}" for name, shift in found["scores"].items()]  # fmt: skip
    if found["clusters"] is not None:
        lines += ["", f"  clusters: {found['clusters']['shift']:.1%} of the rows read moved"]
        lines += [f"  {'cluster ' + name:<24} {old:>14.1%} {new:>10.1%}" for name, old, new in found["clusters"]["most"]]
    elif found["clusters_said"]:
        lines += ["", f"  {found['clusters_said']}"]
    return "\n".join(lines)
