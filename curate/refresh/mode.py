"""What a refresh knows beside the recipe: which version it follows, which shard names files keep, what is frozen and what needs a decision.

Its state is RUN/refresh.json, written before any work: a refresh that was killed goes on from the same version with the same names, so that it
comes to the same bytes. The state is made anew when the source files, the recipe, our code or a library have changed since; then the version that
`dataset` points at is the one to follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate import fingerprint
from curate.errors import NeedsDecision, UserMistake
from curate.refresh.before import COLUMNS, Before
from curate.refresh.changes import Files
from curate.refresh.settings import Refresh
from curate.stage import Stage
from curate.store import digest, read_json, sha256_file, write_json
from curate.versions import Versions

STATE = "refresh.json"
MOST_KEYS = 100_000  # shard names have five digits for the file
BEFORE = frozenset(COLUMNS.names)


@dataclass(frozen=True)
class Scanned:
    """A source file as it is now; `fingerprint` is that of its shards."""

    file: Any
    about: Mapping[str, Any]
    fingerprint: str

    @property
    def name(self) -> tuple[str, str]:
        return self.file.source, self.file.name


def inputs_of(scanned: Sequence[Scanned], recipe: Any) -> str:
    """Digest of everything that a version is made of: source files, the recipe with the files and models it names, its pipeline, our code and libraries."""
    files = sorted((*item.name, item.fingerprint) for item in scanned)
    sections = {**recipe.sections, "pruned": recipe.pruned}
    stages = {name: _described(stage, recipe.threads) for name, stage in sections.items() if isinstance(stage, Stage)}
    pipeline = Path(recipe.pipeline.__code__.co_filename).read_bytes().hex()
    return digest([files, recipe.resolved, stages, pipeline, fingerprint.package_digest(), fingerprint.versions()])


def _described(stage: Stage, threads: int) -> Any:
    try:
        return fingerprint.of_stage(stage, threads)
    except UserMistake:  # it compares with a pruned copy that the run has still to make: that is described by the section `pruned`
        return stage.model_dump(mode="json")


def _renamed(gone: Sequence[tuple[str, str]], sources: Mapping[tuple[str, str], Sequence[Any]], scanned: Sequence[Scanned]) -> list[str]:
    """OLD -> NEW of the files that are gone, gave rows, and are there byte for byte under a name that is new. For a message alone: whether
    the rows come out the same is known when the files are read.

    sources   (source, name) -> fingerprint, rows, content, of the version that is followed
    """
    there = {item.about["content"]: item.name[1] for item in scanned if item.name not in sources}
    contents = {key: sources[key][2] for key in gone if len(sources[key]) > 2 and sources[key][1]}
    return [f"{name} -> {there[content]}" for (_, name), content in contents.items() if content in there]


class Refreshing:
    """One refresh of a run folder."""

    def __init__(self, folder: Path, recipe: Any, accept: bool = False, refit: bool = False):
        self.folder, self.recipe, self.settings = folder, recipe, recipe.refresh or Refresh()
        self.accept, self.asked_refit = accept, refit
        self.versions = Versions(folder)
        self.state: dict[str, Any] = {}
        self.followed: dict[str, Any] = {}  # the record of the version that is followed

    # -- files ---------------------------------------------------------------------------------------------------

    def names(self, scanned: Sequence[Scanned], records: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[str]]:
        """(shard name of every file, shard names of vanished files whose rows stay).

        A file that has not changed keeps its name, so that nothing is copied and what models have stored of its shards stays true; a new or
        changed one gets a name that was never used.
        """
        inputs = inputs_of(scanned, self.recipe)
        old = read_json(self.folder / STATE) or {}
        if old.get("inputs") == inputs and (old["refit"] or not self.asked_refit):
            self.state = old
            if self.accept and not old["accepted"]:
                self._save(accepted=True)
        else:
            self._begin(inputs, old, scanned, records)
        self.followed = self.versions.record(self.state["base"]) or {}
        return [self.state["names"][item.fingerprint] for item in scanned], list(self.state["staying"])

    def _begin(self, inputs: str, old: Mapping[str, Any], scanned: Sequence[Scanned], records: Mapping[str, Mapping[str, Any]]) -> None:
        base = published = self.versions.current()
        current = self.versions.record(base) or {}
        if base is not None and not current and not self.accept:
            raise NeedsDecision(
                f"{self.versions.folder / f'{base}.json'} is damaged: without it this refresh does not know what version {base} was made of. `curate verify {self.folder}` says "
                "more; `curate rollback` goes back to a version that is whole; --accept begins anew, as a first run does"
            )
        if current.get("inputs") == inputs and not self.asked_refit:
            base = current["after"]  # nothing has changed: come to the same rows by the same road
        followed = self.versions.record(base) or {}
        if base is not None and "beside" not in followed:
            base = None  # published before there were rows files: this refresh has nothing to follow
        if base is not None and not self.versions.beside(base):
            self._ask_about_damaged_rows(base)
            base = None
        names = {record["fingerprint"]: key for key, record in records.items()}
        following = max([old.get("next", 0), current.get("next", 0), *(int(key) + 1 for key in records)])
        for item in scanned:
            if item.fingerprint not in names:
                names[item.fingerprint] = f"{following:05d}"
                following += 1
        if following > MOST_KEYS:
            raise UserMistake(f"{self.folder}: shard names are used up after {MOST_KEYS:,} files: `curate run` once, it names them anew")
        sources = {(source, name): rest for source, name, *rest in followed.get("sources", ())}
        was, now = {key: rest[0] for key, rest in sources.items()}, {item.name: item.fingerprint for item in scanned}
        gone = [key for key in was if key not in now]
        keep = self.settings.on_vanish == "keep"
        held = {key for key, rest in sources.items() if len(rest) < 2 or rest[1]}  # of a file that gave no row nothing can stay
        staying = {key: names[was[key]] for key in gone if keep and was[key] in names and key in held}
        cut_anew = sum(
            item.fingerprint != was.get(item.name) and item.about["content"] == sources[item.name][-1]
            for item in scanned
            if item.name in sources
        )
        if cut_anew > self.settings.most_recomputed * max(len(was), 1) and not (self.accept or self.asked_refit):
            raise NeedsDecision(
                f"settings of `ingest` have changed: {cut_anew:,} of {len(was):,} files would be cut anew although they have not changed, and every step would run over them again. "
                f"That is above refresh.most_recomputed: {self.settings.most_recomputed:g}. Give --accept to do it, `curate plan` says what it costs"
            )
        self.state = {
            "inputs": inputs, "base": base, "accepted": self.accept, "refit": self.asked_refit, "next": following, "encoders": {},
            "names": {item.fingerprint: names[item.fingerprint] for item in scanned}, "staying": sorted(staying.values()),
            "staying_sources": [[*key, *sources[key]] for key in staying], "gone": [list(key) for key in gone if key not in staying], "published": published,
            "rows": [[*key, rest[1]] for key, rest in sources.items() if len(rest) > 2 and rest[1] and key in now],
            "files": {
                "new": [name for source, name in now if (source, name) not in was] if was else [],
                "changed": [key[1] for key in now if was.get(key, now[key]) != now[key]],
                "vanished": [key[1] for key in gone if key not in staying], "kept": [key[1] for key in staying],
            },
            "vanished": len(gone) / len(was) if was else 0.0, "renamed": _renamed(gone, sources, scanned),
        }  # fmt: skip
        self._save()

    def _ask_about_damaged_rows(self, base: int) -> None:
        if not self.accept:
            raise NeedsDecision(
                f"{self.versions.rows_file(base)} is damaged: without it this refresh does not know which rows were published in version {base}. "
                f"`curate verify {self.folder}` says more; `curate rollback` goes back to a version that is whole; --accept goes on without it"
            )

    def check_staying(self, lost: Sequence[str]) -> None:
        """Ask where rows that are to stay, although their file is gone, cannot be read any more."""
        if lost and not self.state["accepted"]:
            raise NeedsDecision(
                f"the rows of {len(lost)} vanished files (shards {', '.join(lost[:3])}) were to stay, and are damaged: there is nothing to make them from. "
                "Bring the files or the shards back, or give --accept: then these rows leave"
            )

    def check_emptied(self, rows: Mapping[tuple[str, str], int]) -> None:
        """Ask before most of a dataset leaves because its files were emptied or cut short; `rows`: what each file gives now."""
        had = {(source, name) for source, name, _ in self.state["rows"]}
        empty = sorted(name for source, name in had if not rows.get((source, name)))
        if len(empty) > self.settings.most_vanished * max(len(had), 1) and not self.state["accepted"]:
            raise NeedsDecision(
                f"{len(empty)} of {len(had)} source files that had rows in version {self.state['base']} give none now ({', '.join(empty[:3])} ...), above refresh.most_vanished: "
                f"{self.settings.most_vanished:g}. If they were cut or emptied by mistake, write them again; if their rows are to leave, give --accept"
            )

    def check_vanished(self) -> None:
        """Ask before most of a dataset leaves because a disk was not there."""
        share = self.state["vanished"]
        if share > self.settings.most_vanished and not self.state["accepted"] and self.settings.on_vanish == "drop":
            names, renamed = self.state["files"]["vanished"], self.state["renamed"]
            remedy = (
                f"{len(renamed)} of them are there under another name, byte for byte ({', '.join(renamed[:3])}{', ...' * (len(renamed) > 3)}): names are relative to where the paths "
                "of the recipe meet, so one more path may change them all. Give --accept to read them under their new names"
                if renamed
                else "If their rows are to leave, give --accept; if not, bring the files back, or set `refresh: {on_vanish: keep}`"
            )
            raise NeedsDecision(
                f"{share:.0%} of the source files have vanished since version {self.state['base']} ({', '.join(names[:3])} ...), above refresh.most_vanished: "
                f"{self.settings.most_vanished:g}. {remedy}"
            )

    @property
    def files(self) -> Files:
        return Files(**{kind: tuple(names) for kind, names in self.state["files"].items()}, gone=frozenset(map(tuple, self.state["gone"])))

    # -- the version before --------------------------------------------------------------------------------------

    def before(self) -> Before | None:
        """The stage that looks rows up in the version that is followed."""
        if self.state["base"] is None:
            return None
        path = self.versions.rows_file(self.state["base"])
        found = sha256_file(path)
        if found != self.followed["beside"][path.name][0]:  # read whole here: a lost bit changes neither size nor time
            self._ask_about_damaged_rows(self.state["base"])
            return None
        return Before(rows=str(path), digest=found)

    def filled(self, name: str, stage: Any) -> Any:
        """The stage with a budget that was given as a share set to the amount that it was at first."""
        known = self.followed.get("budgets", {}).get(name)
        if known and self.settings.budget == "same" and known["asked"] == stage.budget and known["unit"] == stage.unit:
            return stage.but(budget=int(known["amount"]))
        return stage

    # -- what needs a decision -----------------------------------------------------------------------------------

    @property
    def frozen(self) -> bool:
        """Whether models stay as they were fitted."""
        return not self.state["refit"]

    def refit(self) -> None:
        self._save(refit=True)

    def ask_before_running_again(self, step: str, shards: int, of: int, why: str) -> None:
        """Stop with exit code 4 where a change of ours or of a model would run too many shards again."""
        if self.state["accepted"] or self.state["refit"] or shards <= self.settings.most_recomputed * of:
            return
        raise NeedsDecision(
            f"step '{step}' would run {shards:,} of {of:,} shards again that have not changed themselves: {why}. That is above refresh.most_recomputed: "
            f"{self.settings.most_recomputed:g}. Version {self.state['published']} stays as it is; give --accept to do it, `curate plan` says what it costs"
        )

    def ask_about_drift(self, said: Sequence[str]) -> None:
        """Stop with exit code 4, unless the drift was accepted."""
        if not self.state["accepted"]:
            raise NeedsDecision(
                f"new rows have drifted: {'; '.join(said)}. Version {self.state['published']} stays the published one; everything new is computed and kept. "
                "Give --accept to publish with the models as they are, or --refit to fit them anew"
            )

    def encoder(self, step: str) -> dict[str, Any] | None:
        """What the cross-test of a changed encoder said, if there was one in this refresh."""
        return self.state["encoders"].get(step)

    def note_encoder(self, step: str, found: Mapping[str, Any]) -> None:
        self._save(encoders={**self.state["encoders"], step: dict(found)})

    def _save(self, **changes: Any) -> None:
        self.state = {**self.state, **changes}
        write_json(self.folder / STATE, self.state)
