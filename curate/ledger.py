"""The receipt of every row, derived from the verdict columns; never a second truth.

A row's fate is the first verdict in the pipeline's order that says drop or quarantine; a row without one
is kept. `rows_in + generated == kept + dropped + quarantined`, always.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Dataset, Shard, columns_of, read_columns, read_rows
from curate.errors import InternalError, UserMistake
from curate.store import Records, read_json
from curate.verdicts import VERDICT

T = TypeVar("T")

# Columns of numbers that are no scores.
NO_SCORES = {"line", "map_x", "map_y", "cluster", "kmeans_cluster", "depth", "position", "parent_at", "survived_before", "published_before"}

# Columns of a table of fates; "decision" is left out, the fate says it.
FATE = [("fate", pa.string()), ("step", pa.string()), *((part.name, part.type) for part in VERDICT if part.name != "decision")]
PARTS = tuple(name for name, _ in FATE[2:])


def fates(root: Path, shard: Shard, decisions: Sequence[str], parts: Sequence[str] = PARTS) -> pa.Table:
    """One row per row of the shard, columns as in FATE; see `fates_of`. Of the verdicts only `parts` are read."""
    names = judging(shard, decisions)
    table = read_columns(root, shard, [f"{step}.verdict" for step in names], ("decision", *parts))
    return fates_of({step: table[f"{step}.verdict"] for step in names}, shard.rows, parts)


def judging(shard: Shard, decisions: Sequence[str]) -> list[str]:
    """The steps that have something against a row of this shard: a verdict column without a mask has not."""
    return [step for step in decisions if (column := shard.columns.get(f"{step}.verdict")) and any(column.masks.values())]


def fates_of(verdicts: Mapping[str, pa.ChunkedArray], rows: int, parts: Sequence[str] = PARTS) -> pa.Table:
    """Fate of every row (kept, dropped, quarantined), the step that decided it, and `parts` of its verdict (null where kept).

    `verdicts` maps each step, in the pipeline's order, to its verdict column.
    """
    kinds = {"step": pa.string(), **{part.name: part.type for part in VERDICT if part.name in ("decision", *parts)}}
    found: dict[str, pa.Array] = {name: pa.nulls(rows, kind) for name, kind in kinds.items()}
    open_rows = pa.repeat(True, rows)
    for name, column in verdicts.items():
        verdict = column.combine_chunks()
        decision = pc.struct_field(verdict, "decision")
        now = pc.and_(open_rows, pc.fill_null(pc.or_(pc.equal(decision, "drop"), pc.equal(decision, "quarantine")), False))
        if not pc.any(now).as_py():
            continue
        open_rows = pc.and_(open_rows, pc.invert(now))
        found["step"] = pc.if_else(now, name, found["step"])
        for part in ("decision", *parts):
            found[part] = pc.if_else(now, pc.struct_field(verdict, part), found[part])
    dropped, quarantined = (pc.fill_null(pc.equal(found["decision"], word), False) for word in ("drop", "quarantine"))
    fate = pc.if_else(dropped, "dropped", pc.if_else(quarantined, "quarantined", "kept"))
    return pa.table({"fate": fate, **{name: found[name] for name, _ in FATE[1:] if name in found}})


def _fallen(fate: pa.Table, rule: str | None, step: str | None) -> pa.Array:
    """Places of the rows that were not kept, by one rule or step if given."""
    mask = pc.not_equal(fate["fate"], "kept")
    for name, wanted in (("rule", rule), ("step", step)):
        if wanted:
            mask = pc.and_(mask, pc.fill_null(pc.equal(fate[name], wanted), False))
    return pc.indices_nonzero(mask)


def is_generated(shard: Shard) -> bool:
    return "origin" in shard.columns


@dataclass
class Counts:
    """What became of the rows. `dropped` and `quarantine_rules` map a rule to a number of rows."""

    rows_in: int = 0
    generated: int = 0
    kept: int = 0
    kept_generated: int = 0
    dropped: dict[str, int] | None = None
    quarantined: int = 0
    quarantine_rules: dict[str, int] | None = None
    by_step: dict[str, dict[str, int]] | None = None
    sources: dict[str, tuple[int, int]] | None = None  # name -> rows read, rows kept
    tokens_in: int = 0
    tokens_kept: int = 0


def count(dataset: Dataset, decisions: Sequence[str]) -> Counts:
    """Count fates over all shards and check the balance."""
    counts = Counts()
    dropped: Counter[str] = Counter()
    quarantine: Counter[str] = Counter()
    by_step: dict[str, Counter[str]] = {}
    read: Counter[str] = Counter()
    kept_of: Counter[str] = Counter()
    for shard in dataset.shards:
        generated = is_generated(shard)
        counts.generated += shard.rows if generated else 0
        counts.rows_in += 0 if generated else shard.rows
        fate = fates(dataset.root, shard, decisions, ("rule",))
        kept = pc.equal(fate["fate"], "kept")
        number = pc.sum(kept).as_py() or 0
        counts.kept += number
        counts.kept_generated += number if generated else 0
        for group in fate.group_by(["fate", "step", "rule"]).aggregate([([], "count_all")]).to_pylist():
            if group["fate"] == "kept":
                continue
            (dropped if group["fate"] == "dropped" else quarantine)[group["rule"]] += group["count_all"]
            by_step.setdefault(group["step"], Counter())[group["rule"]] += group["count_all"]
        source = read_columns(dataset.root, shard, ["source"]).column(0)
        for counter, among in ((read, source.slice(0, 0) if generated else source), (kept_of, source.filter(kept))):
            counter.update({item["values"]: item["counts"] for item in pc.value_counts(among).to_pylist()})
        if "tokens" in shard.columns:
            tokens = read_columns(dataset.root, shard, ["tokens"]).column(0)
            counts.tokens_in += 0 if generated else (pc.sum(tokens).as_py() or 0)
            counts.tokens_kept += pc.sum(tokens.filter(kept)).as_py() or 0
    counts.dropped, counts.quarantine_rules = dict(sorted(dropped.items())), dict(sorted(quarantine.items()))
    counts.quarantined = sum(quarantine.values())
    counts.by_step = {step: dict(sorted(rules.items())) for step, rules in by_step.items()}
    counts.sources = {name: (read[name], kept_of[name]) for name in sorted({*read, *kept_of})}
    accounted = counts.kept + sum(dropped.values()) + counts.quarantined
    if counts.rows_in + counts.generated != accounted:
        raise InternalError(
            f"the ledger does not balance: {counts.rows_in} rows in + {counts.generated} generated, {accounted} accounted for: please report this"
        )
    return counts


# -- a run folder, read back ---------------------------------------------------------------------------------


@dataclass
class Ledger:
    """A run folder as it stands on the disk, finished or not."""

    folder: Path
    facts: dict[str, Any]
    dataset: Dataset
    decisions: list[str]
    files: Mapping[str, str] = field(default_factory=dict)  # of every shard the source file, by its name

    def find(self, row: str) -> list[tuple[Shard, int]]:
        """Places of a row: by row_id (or an unambiguous beginning of it), or by `file:line`."""
        file, colon, line = row.rpartition(":")

        def look(shard: Shard) -> list[tuple[int, str]]:
            if colon and line.isascii() and line.isdigit() and len(line) < 19:
                name = self.files.get(shard.name)
                if name is not None and name != file and not name.endswith(f"/{file}"):
                    return []
                table = read_columns(self.folder, shard, ["row_id", "file", "line"])
                mask = pc.and_(
                    pc.equal(table["line"], int(line)), pc.or_(pc.equal(table["file"], file), pc.ends_with(table["file"], f"/{file}"))
                )
            else:
                table = read_columns(self.folder, shard, ["row_id"])
                mask = pc.starts_with(table["row_id"], row)
            places = pc.indices_nonzero(pc.fill_null(mask, False))
            return list(zip(places.to_pylist(), table["row_id"].take(places).to_pylist(), strict=True))

        found: list[tuple[Shard, int]] = []
        ids: set[str] = set()
        for shard, hits in self._each(look):
            found += [(shard, position) for position, _ in hits]
            ids |= {name for _, name in hits}
        if not found:
            raise UserMistake(
                f"no row '{row}' in {self.folder}: give a row_id, its first digits, or file:line as `curate drops` prints them"
            )
        if not colon and len(ids) > 1:
            few = ", ".join(sorted(ids)[:4])
            raise UserMistake(f"'{row}' is the beginning of {len(ids)} row ids ({few} ...): give more digits")
        return found

    def _each(self, look: Callable[[Shard], T]) -> Iterator[tuple[Shard, T]]:
        """What `look` says of every shard, in their order: small things, as all are held. On all cores, since arrow lets go of the interpreter."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield from zip(self.dataset.shards, pool.map(look, self.dataset.shards), strict=True)

    def explain(self, shard: Shard, position: int) -> dict[str, Any]:
        """Everything recorded about one row: where it came from, its fate, every verdict, its scores, its twin and children."""
        wanted = [name for name in shard.columns if name != "vector"]
        row = read_rows(self.folder, shard, wanted, [position]).to_pylist()[0]
        fate = self.rows(shard, [position], []).to_pylist()[0]
        verdicts = [
            {"step": step, **row[f"{step}.verdict"]}
            for step in self.decisions
            if f"{step}.verdict" in row and row[f"{step}.verdict"] is not None
        ]
        texts = {name: row.get(name) for name in ("messages", "prompt", "response", "text", "parent_text")}
        where = {name: row.get(name) for name in ("row_id", "source", "source_id", "file", "line")}
        lineage = {name: row[name] for name in ("origin", "parents", "parent_at", "generator", "prompt_digest", "depth") if name in row}
        known = {*texts, *where, *lineage}
        scores = {name: value for name, value in row.items() if name not in known and not name.endswith(".verdict")}
        children = []
        for other in self.dataset.shards:
            if is_generated(other):
                table = read_columns(self.folder, other, ["row_id", "parent_at", "origin"])
                for child in pc.indices_nonzero(pc.fill_null(pc.equal(table["parent_at"], f"{shard.name}:{position}"), False)).to_pylist():
                    outcome = self.rows(other, [child], []).to_pylist()[0]
                    children.append(
                        {"row_id": table["row_id"][child].as_py(), "origin": table["origin"][child].as_py(), "fate": outcome["fate"]}
                    )
        twin = self.at(fate["twin_at"]) if fate.get("twin_at") else None
        return {
            "at": f"{shard.name}:{position}", **where, **fate, "verdicts": verdicts, "scores": scores, "lineage": lineage,
            "children": children, "twin_is": twin, "text": texts,
        }  # fmt: skip

    def at(self, place: str) -> dict[str, Any]:
        """Who is at `shard:position`; a place outside the run (another dataset, a benchmark) as its file."""
        name, _, position = place.rpartition(":")
        shard = next((shard for shard in self.dataset.shards if shard.name == name), None)
        if shard is None or not position.isdigit() or int(position) >= shard.rows:
            return {"row_id": None, "file": place, "line": None, "text": None}
        return read_rows(self.folder, shard, ["row_id", "file", "line", "text"], [int(position)]).to_pylist()[0]

    def rows(self, shard: Shard, at: Sequence[int], names: Sequence[str]) -> pa.Table:
        """Some rows of a shard: these columns, and what became of the row, columns as in FATE."""
        verdicts = {step: f"{step}.verdict" for step in judging(shard, self.decisions)}
        table = read_rows(self.folder, shard, [*names, *verdicts.values()], at)
        fate = fates_of({step: table[name] for step, name in verdicts.items()}, len(at))
        return pa.table({name: table[name] for name in names} | {name: fate[name] for name in fate.column_names})

    def drops(self, rule: str | None, step: str | None = None) -> Iterator[tuple[Shard, pa.Table]]:
        """Per shard, the rows not kept (by one rule, if given): their place, fate and text."""
        for shard in self.dataset.shards:
            fate = fates(self.folder, shard, self.decisions, ("rule",))
            if len(at := _fallen(fate, rule, step)):
                yield shard, self._with_text(shard, at.to_pylist())

    def some_drops(self, rule: str | None, sample: int) -> tuple[dict[str, int], list[tuple[Shard, dict[str, Any]]]]:
        """(rule -> rows, at most `sample` of the rows, spread evenly over the run); text is read of these alone."""

        def look(shard: Shard) -> tuple[dict[str, int], pa.Array]:
            fate = fates(self.folder, shard, self.decisions, ("rule",))
            at = _fallen(fate, rule, None)
            return {item["values"]: item["counts"] for item in pc.value_counts(fate["rule"].take(at)).to_pylist()}, at

        counts: Counter[str] = Counter()
        fallen: list[tuple[Shard, pa.Array]] = []
        for shard, (found, at) in self._each(look):
            counts.update(found)
            fallen.append((shard, at))
        total = sum(counts.values())
        picks = list(range(0, total, max(1, total // sample)))[:sample]
        rows: list[tuple[Shard, dict[str, Any]]] = []
        start = 0
        for shard, at in fallen:
            if mine := [at[pick - start].as_py() for pick in picks if start <= pick < start + len(at)]:
                rows += [(shard, row) for row in self._with_text(shard, mine).to_pylist()]
            start += len(at)
        return dict(counts), rows

    def _with_text(self, shard: Shard, at: Sequence[int]) -> pa.Table:
        found = self.rows(shard, at, ["row_id", "file", "line", "prompt", "response", "text"])
        return found.append_column("position", pa.array(at, pa.int32()))


def open_run(folder: Path) -> Ledger:
    """Read a run folder back from its records."""
    facts = read_json(folder / "run.json")
    if facts is None:
        raise UserMistake(
            f"{folder} is not a run folder (it has no run.json): give the folder that `curate run` printed, for example runs/quickstart"
        )
    columns: dict[str, dict[str, Any]] = {}
    rows: dict[str, int] = {}
    order: list[str] = []
    kinds: dict[str, str] = {}
    files: dict[str, str] = {}
    # First the shards themselves (ingest and generators), then the columns beside them.
    for step in sorted(facts["steps"], key=lambda step: not (step["stage"] == "Ingest" or step["generates"])):
        name = step["name"]
        kinds[name] = step["kind"]
        for record in Records(folder / "stages" / name).by_shard.values():
            if "shards" in record:
                files |= {f"{record['shard']}-{part:04d}": record["name"] for part in range(len(record["shards"]))}
                made = [(f"{record['shard']}-{part:04d}", shard) for part, shard in enumerate(record["shards"])]
            elif step["generates"]:
                made = [(f"{record['shard']}-{name}", record)] if record["rows"] else []
            else:
                made = []
                if record["shard"] in columns and "/" not in name:  # a name with a slash is inside a fit
                    columns[record["shard"]].update(columns_of(name, f"stages/{name}/{record['shard']}.parquet", record["columns"]))
            for key, described in made:
                columns[key] = columns_of(name, f"corpus/{key}.parquet", described["columns"])
                rows[key] = described["rows"]
                order.append(key)
    shards = tuple(Shard(key, rows[key], columns[key]) for key in sorted(order))
    return Ledger(folder, facts, Dataset(folder, shards, kinds), list(facts["decisions"]), files)
