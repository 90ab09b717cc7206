"""`curate diff`: two states of datasets side by side, each a run as it stands or one of its versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from curate.algorithms.shift import stability_index
from curate.dataset import read_columns
from curate.errors import UserMistake
from curate.ledger import Ledger, open_run
from curate.refresh.changes import MOST_CLUSTERS, Files, compared, counted, shares_moved
from curate.store import read_json
from curate.versions import ROWS, Versions, described, rows_of


@dataclass(frozen=True)
class State:
    """rows: columns as `versions.ROWS`;  like: as `versions.described`;  clusters: what the clusters were fitted as, "" without any"""

    name: str
    rows: pa.Table
    like: Mapping[str, Any]
    recipe: Mapping[str, Any]
    clusters: str
    ledger: Ledger  # of the run, and `dataset`, where it was published: for texts
    dataset: Path


def state_of(name: str) -> State:
    """`runs/pool`: the run as it stands; `runs/pool@3`: its version 3."""
    place, at, number = name.rpartition("@") if "@" in name and not Path(name).is_dir() else (name, "", "")
    ledger = open_run(Path(place))
    if at:
        versions = Versions(Path(place))
        record = versions.record(int(number)) if number.isdigit() else None
        if record is None or "like" not in record:
            raise UserMistake(f"{place} has no version '{number}' to compare; it has {', '.join(map(str, versions.numbers())) or 'none'}")
        return State(
            name,
            versions.rows(int(number)),
            record["like"],
            _settings(record["recipe"]),
            record["clusters"],
            ledger,
            versions.place(int(number)),
        )
    rows = pa.concat_tables([ROWS.empty_table(), *rows_of(ledger.dataset, ledger.decisions)])
    recipe = (ledger.folder / "recipe.yaml").read_text(encoding="utf-8")
    return State(
        name, rows, described(ledger.dataset, rows), _settings(recipe), clusters_of(ledger.folder), ledger, ledger.folder / "dataset"
    )


def clusters_of(folder: Path) -> str:
    """What a run's clusters were fitted as; those of two fits have nothing in common but their numbers."""
    return str((read_json(folder / "stages" / "cluster" / "artifact.json") or {}).get("fingerprint", ""))


def compare(before: State, after: State, sample: int = 3) -> dict[str, Any]:
    """Everything that `curate diff` says, as one mapping."""
    changes = compared(before.rows, after.rows, Files(gone=frozenset(_files(before.rows) - _files(after.rows))))
    counts = {name: (before.like[name], after.like[name]) for name in ("read", "kept", "kept_generated", "tokens_kept")}
    rules = [_rules(side.rows) for side in (before, after)]
    scores = {}
    for name in sorted(set(before.like["scores"]) & set(after.like["scores"])):
        old, new = (side.like["scores"][name] for side in (before, after))
        shift = stability_index(np.array(old["quantiles"]), old["rows"], np.array(new["quantiles"]), new["rows"])
        if shift is not None:
            scores[name] = asdict(shift)
    same = before.clusters == after.clusters != ""
    moved, most = shares_moved(before.like["clusters"], after.like["clusters"]) if same else (None, ())
    return {
        "names": [before.name, after.name],
        "settings": {key: [_short(a), _short(b)] for key, (a, b) in _differing(before.recipe, after.recipe).items()},
        "counts": counts,
        "rules": {name: (rules[0].get(name, 0), rules[1].get(name, 0)) for name in sorted({*rules[0], *rules[1]})},
        "entered": counted(changes, "entered"),
        "left": counted(changes, "left"),
        "rows": _examples(changes, before, after, sample),
        "scores": scores,
        "clusters": {"shift": moved, "most": list(most[:MOST_CLUSTERS])} if moved is not None else None,
        "clusters_said": "clusters were fitted anew: their numbers cannot be compared" if before.clusters and after.clusters and not same else "",
    }  # fmt: skip


def _files(rows: pa.Table) -> set[tuple[str, str]]:
    return {(row["source"], row["file"]) for row in rows.group_by(["source", "file"]).aggregate([]).to_pylist()}


def _rules(rows: pa.Table) -> dict[str, int]:
    fallen = rows.filter(pc.not_equal(rows["fate"], "kept"))
    return Counter(f"{step}: {rule}" for step, rule in zip(fallen["step"].to_pylist(), fallen["rule"].to_pylist(), strict=True))


def _settings(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict) and value:
            for name, item in value.items():
                walk(item, f"{key}.{name}" if key else str(name))
        else:
            found[key] = value

    walk(YAML(typ="safe").load(text), "")
    return found


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return {key: (before.get(key), after.get(key)) for key in keys}


def _short(value: Any) -> str:
    return "not set" if value is None else str(value)


def _examples(changes: pa.Table, before: State, after: State, sample: int) -> list[dict[str, Any]]:
    """Some rows of each reason, with their text where a run or a published version still has it."""
    found: list[dict[str, Any]] = []
    seen: Counter[tuple[str, str]] = Counter()
    for row in changes.to_pylist():
        if seen[row["change"], row["why"]] < sample:
            seen[row["change"], row["why"]] += 1
            found.append(row)
    texts: dict[str, str] = {}
    for side in (after, before):
        for tables in (_in_run, _published):
            wanted = {row["row_id"] for row in found} - set(texts)
            for table in tables(side, pa.array(sorted(wanted), pa.string())) if wanted else ():
                texts |= {row["row_id"]: row["prompt"] or row["text"] for row in table.to_pylist()}
    return [{**row, "text": texts.get(row["row_id"])} for row in found]


def _in_run(state: State, wanted: pa.Array) -> Iterator[pa.Table]:
    for shard in state.ledger.dataset.shards:
        ids = read_columns(state.ledger.folder, shard, ["row_id"]).column(0)
        if len(at := pc.indices_nonzero(pc.is_in(ids, value_set=wanted))):
            yield read_columns(state.ledger.folder, shard, ["row_id", "prompt", "text"]).take(at)


def _published(state: State, wanted: pa.Array) -> Iterator[pa.Table]:
    for file in sorted((state.dataset / "data").glob("*.parquet")):
        names = [name for name in ("row_id", "prompt", "text") if name in pq.read_schema(file).names]
        if "row_id" not in names:
            return
        table = pq.read_table(file, columns=names)
        for name in {"prompt", "text"} - set(names):  # left out of what is published
            table = table.append_column(name, pa.nulls(table.num_rows, pa.large_string()))
        yield table.filter(pc.is_in(table["row_id"], value_set=wanted))
