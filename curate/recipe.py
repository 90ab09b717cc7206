"""A recipe: one YAML file, checked whole before anything heavy is imported.

    pipeline: recovery            names pipelines/recovery.py, or `my_file.py:function`
    seed: 0
    embed: {method: hashed}       every other key is a step of that pipeline; its keys are the step's settings

The pipeline's file says which steps it has: `STEPS = {"embed": "embed.hashed", ...}`, section -> family and
default method. A section `method:` picks another file of the family. Scorers are files of `curate/score/`
or of `scorer_path`, by name.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from curate.errors import UserMistake
from curate.fingerprint import PACKAGE, load_module
from curate.refresh.settings import Refresh
from curate.stage import MADE_BY_PRUNED, Stage

RESERVED = ("pipeline", "seed", "threads", "sample", "pruned", "pair", "scorers", "scorer_path", "store", "refresh")
LARGEST_RECIPE = 1 << 20
DEEPEST = 40


@dataclass
class Problem:
    line: int | None
    text: str


@dataclass
class Recipe:
    """The checked recipe. `recipe.embed` is the settings object (a Stage) of the section `embed`."""

    path: Path
    pipeline: Any
    sections: dict[str, Any]
    seed: int = 0
    threads: int = 1
    sample: int | float | None = None
    pruned: Any = None
    scorers: tuple[str, ...] = ()
    store: str | None = None
    refresh: Refresh = field(default_factory=Refresh)
    written: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["sections"][name]
        except KeyError:
            raise AttributeError(f"the recipe has no section '{name}'") from None

    def has(self, name: str) -> bool:
        """True where the recipe asks for an optional step."""
        return self.sections.get(name) is not None

    def priorities(self) -> dict[str, int]:
        """Source name -> priority, as `ingest.sources` states them."""
        return {source.name: source.priority for source in self.sections["ingest"].sources or ()}

    def gate_of(self, **defaults: Any) -> Stage:
        """The gate, which knows the rewrite's own prompt files; `defaults` for settings that the recipe leaves out."""
        gate = self.sections["gate"]
        known = {"prompts": self.sections["rewrite"].prompts if self.has("rewrite") else None, **defaults}
        return gate.but(**{name: value for name, value in known.items() if name not in gate.model_fields_set})

    def semantic_dedup_of(self) -> Any:
        """Settings of `semantic_dedup`; the encoder is that of `embed`, whose vectors it reads."""
        stage = self.sections["semantic_dedup"]
        encoder = getattr(stage, "encoder", None) or getattr(self.sections.get("embed"), "model", None)
        view = stage.view if "view" in stage.model_fields_set else getattr(self.sections.get("embed"), "view", stage.view)
        return stage.but(priority=self.priorities(), encoder=encoder, view=view)  # letters and vectors of one and the same text

    def token_unit(self) -> str:
        """What `tokens` counts in this recipe: a tokenizer's tokens, or words where no model is named."""
        return "tokens" if getattr(self.sections.get("tokens"), "model", None) else "words"

    def scorers_of(self, kind: str, pruned: str | None = None) -> list[tuple[str, Stage]]:
        """The recipe's scorers that look at text alone ("text") or ask a language model ("language model").

        `pruned` is given to every scorer that compares a model with its pruned copy.
        """
        found = []
        for name in self.scorers:
            stage = self.sections[name]
            if ("sample" in stage.hidden_by) == (kind == "language model"):
                found.append((name, stage.but(pruned=pruned) if pruned and "pruned" in type(stage).model_fields else stage))
        return found

    def text_scorers(self) -> tuple[list[tuple[str, Stage]], list[tuple[str, Stage]]]:
        """The recipe's scorers of text: those whose columns the filter reads (`filter.numbers`, `filter.words_within`), and those that run after it."""
        read = {*getattr(self.sections.get("filter"), "numbers", ()), getattr(self.sections.get("filter"), "words_within", None)}
        found = self.scorers_of("text")
        first = [(name, stage) for name, stage in found if read & set(stage.writes().names)]
        return first, [item for item in found if item not in first]

    def pruned_model(self, run: Any, *inputs: Any) -> str | None:
        """Reference of the pruned copy: the one the recipe names, or one made inside the run."""
        if self.pruned is None or isinstance(self.pruned, str):
            return self.pruned
        return str(run.fit("pruned", self.pruned, *inputs) / "model")

    def look_up(self) -> None:
        """Raise UserMistake with every model and file that settings name and that is not there.

        Else the step that needs it would say so, one at a time, after hours of other steps.
        """
        from curate import models

        stages = {**self.sections, "pruned": self.pruned}
        if self.has("semantic_dedup"):
            stages["semantic_dedup"] = self.semantic_dedup_of()
        if self.has("gate"):
            stages["gate"] = self.gate_of()
        faults: dict[str, None] = {}
        for stage in stages.values():
            try:
                if isinstance(stage, Stage):
                    stage.look_up()
                elif isinstance(stage, str):
                    models.resolve(stage)
            except UserMistake as error:
                faults[str(error)] = None
        if faults:
            raise UserMistake("\n".join(faults))

    @cached_property
    def resolved(self) -> str:
        """The recipe with every default written out, as YAML."""
        import io

        from ruamel.yaml import YAML

        out: dict[str, Any] = dict(self.written)
        for name, stage in {**self.sections, "pruned": self.pruned, "refresh": self.refresh}.items():
            if isinstance(stage, BaseModel):
                asked = out.get(name)
                method = {"method": asked["method"]} if isinstance(asked, Mapping) and "method" in asked else {}
                out[name] = method | stage.model_dump(mode="json")
        yaml = YAML(typ="safe")
        yaml.default_flow_style = False
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
        sink = io.StringIO()
        yaml.dump(out, sink)
        return sink.getvalue()


def load(path: Path, changes: Iterable[str] = ()) -> Recipe:
    """Read, change (`stage.field=value`) and check a recipe; every mistake at once, each with its line."""
    raw = _read(path)
    if not isinstance(raw, Mapping):
        raise UserMistake(f"{path}: a recipe is a mapping of keys to settings; begin with `pipeline: recovery`")
    for change in changes:
        _apply_change(raw, change)
    try:
        return check(raw, path)
    except RecursionError:
        raise UserMistake(f"{path}: a --set is nested without end; write plain values") from None


def check(raw: Any, path: Path) -> Recipe:
    problems: list[Problem] = []
    if "pipeline" not in raw:
        raise UserMistake(f"{path}: key 'pipeline' is missing; add `pipeline: recovery` (or pretraining, ingest, your_file.py:function)")
    pipeline, steps = _pipeline(str(raw["pipeline"]), path, _line(raw, "pipeline"))
    recipe = Recipe(path, pipeline, {})
    simple = _reserved(raw, recipe, problems)
    scorer_path = (path.parent / simple["scorer_path"]).resolve() if simple.get("scorer_path") else None
    scorers = tuple(recipe.scorers)
    known = {**steps, **{name: f"score.{name}" for name in scorers}}
    for key in raw:
        if key not in RESERVED and key not in known:
            problems.append(
                Problem(
                    _line(raw, key),
                    _unknown(f"key '{key}'", str(key), [*RESERVED, *steps, *_catalogue("score", scorer_path)], in_scorers=key),
                )
            )
    for name, target in known.items():
        if name not in raw and target.endswith("?"):
            recipe.sections[name] = None
            continue
        section = raw.get(name)
        recipe.sections[name] = _section(
            name, target.rstrip("?"), section, raw, recipe.seed, scorer_path if name in scorers else None, problems
        )
    problems += _clashes(recipe, raw)
    if problems:
        problems.sort(key=lambda problem: problem.line or 0)
        lines = [f"{path}:{problem.line}: {problem.text}" if problem.line else f"{path}: {problem.text}" for problem in problems]
        raise UserMistake("\n".join(lines))
    recipe.written = _plain(raw)
    return recipe


ASK_THEIR_MODEL = ("curate.embed.transformer", "curate.embed.static")  # for the width of what they write


def _clashes(recipe: Recipe, raw: Any) -> list[Problem]:
    """Columns that `ingest.keep` names and that a step writes beside them; those of an encoder are known only with its model."""
    kept = getattr(recipe.sections.get("ingest"), "keep", ())
    written: dict[str, str] = {}
    for name, stage in recipe.sections.items():
        if kept and isinstance(stage, Stage) and not stage.generates and type(stage).__module__ not in ASK_THEIR_MODEL:
            try:
                written |= dict.fromkeys(stage.writes().names, name)
            except (UserMistake, OSError, ValueError):  # of a user's own stage that asks its model: the run will say so
                continue
    line = _deep_line(raw.get("ingest"), ["keep"])
    said = "keep: '{}' is what step {} writes; rename the column in your data or leave it out"
    return [Problem(line, f"ingest.{said.format(column, written[column])}") for column in kept if column in written]


def _reserved(raw: Any, recipe: Recipe, problems: list[Problem]) -> dict[str, Any]:
    kinds: dict[str, tuple[type, ...]] = {
        "seed": (int,),
        "threads": (int,),
        "sample": (int, float),
        "pruned": (str, Mapping),
        "pair": (str,),
        "scorers": (list,),
        "scorer_path": (str,),
        "store": (str,),
        "refresh": (Mapping,),
    }
    found: dict[str, Any] = {}
    for key, types in kinds.items():
        if raw.get(key) is None:
            continue
        value = raw[key]
        if not isinstance(value, types) or isinstance(value, bool):
            names = " or ".join("mapping" if kind is Mapping else kind.__name__ for kind in types)
            problems.append(Problem(_line(raw, key), f"'{key}' must be {names}, it is {value!r}"))
            continue
        found[key] = tuple(map(str, raw[key])) if key == "scorers" else value
    if found.get("threads", 1) < 1:
        problems.append(Problem(_line(raw, "threads"), "'threads' must be 1 or more"))
    sample = found.get("sample")
    if isinstance(sample, float) and not 0 < sample <= 1:
        problems.append(Problem(_line(raw, "sample"), f"'sample' is a share between 0 and 1 or a whole number of rows, it is {sample}"))
    if isinstance(sample, int) and sample < 1:
        problems.append(Problem(_line(raw, "sample"), f"'sample' must be at least 1 row, it is {sample}"))
    if found.get("pair", "auto") not in ("together", "apart", "auto"):
        problems.append(Problem(_line(raw, "pair"), f"'pair' must be together, apart or auto, it is {found['pair']!r}"))
    for key in ("seed", "threads", "sample", "scorers", "store"):
        if key in found:
            setattr(recipe, key, found[key])
    if recipe.store:
        recipe.store = str((recipe.path.parent / Path(recipe.store).expanduser()).resolve())
    if "pruned" in found:
        if isinstance(found["pruned"], str):
            recipe.pruned = found["pruned"]
        else:
            recipe.pruned = _section("pruned", "prune.depth", found["pruned"], raw, recipe.seed, None, problems)
    if "refresh" in found:
        recipe.refresh = _validated("refresh", Refresh, found["refresh"], dict(found["refresh"]), raw, problems) or Refresh()
    return found


def _section(name: str, target: str, section: Any, raw: Any, seed: int, scorer_path: Path | None, problems: list[Problem]) -> Any:
    """The settings object of a section; problems are added to the list."""
    if section is not None and not isinstance(section, Mapping):
        problems.append(Problem(_line(raw, name), f"'{name}' must be a mapping of settings, it is {section!r}"))
        return None
    settings = dict(section or {})
    family, _, method = target.partition(".")
    method = str(settings.pop("method", method))
    try:
        cls = find_stage(family, method, scorer_path)
    except UserMistake as error:
        where = _line(section, "method") if section and "method" in section else _line(raw, name) or _line(raw, "scorers")
        problems.append(Problem(where, f"{name}: {error}"))
        return None
    if "seed" in cls.model_fields and "seed" not in settings:
        settings["seed"] = seed
    if "pair" in cls.model_fields and raw.get("pair"):
        settings.setdefault("pair", raw["pair"])
    if "pruned" in cls.model_fields and "pruned" not in settings and raw.get("pruned"):
        settings["pruned"] = MADE_BY_PRUNED
    return _validated(name, cls, section, settings, raw, problems)


def _validated(name: str, cls: Any, section: Any, settings: dict[str, Any], raw: Any, problems: list[Problem]) -> Any:
    """The settings object, or None with its problems added to the list."""
    try:
        return cls.model_validate(_plain(settings))
    except ValidationError as invalid:
        seen: set[tuple[str, ...]] = set()
        for fault in invalid.errors():
            place = _written(fault["loc"])
            if tuple(place) in seen:  # a union's alternatives fail one by one; one message is enough
                continue
            seen.add(tuple(place))
            line = _deep_line(section, place) or _line(raw, name)
            if fault["type"] == "extra_forbidden":
                text = _unknown(f"{name}.{'.'.join(place)}", place[-1], _fields_at(cls, place[:-1]))
            elif fault["type"] == "missing":
                text = f"{name}.{'.'.join(place)} is missing; add it"
            else:
                got = f", it is {fault['input']!r}" if not isinstance(fault["input"], Mapping) else ""
                text = f"{'.'.join([name, *place])}: {fault['msg'][0].lower()}{fault['msg'][1:]}{got}"
            problems.append(Problem(line, text))
    return None


def find_stage(family: str, method: str, folder: Path | None = None) -> Any:
    """The settings class in `curate/FAMILY/METHOD.py`, or in `folder/METHOD.py` where that exists."""
    if not method.isidentifier():
        raise UserMistake(f"method {method!r} is not a name; known: {', '.join(_catalogue(family, folder))}")
    if folder is not None and (folder / f"{method}.py").is_file():
        module = load_module("curate_user", folder / f"{method}.py")
    elif (PACKAGE / family / f"{method}.py").is_file():
        module = importlib.import_module(f"curate.{family}.{method}")
    else:
        raise UserMistake(_unknown(f"'{method}'", method, _catalogue(family, folder)))
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.__name__
    ]
    stages: list[type[BaseModel]] = [value for value in own if issubclass(value, Stage)] or [
        value for value in own if value.__name__ == "Ingest"
    ]
    public = [value for value in stages if not value.__name__.startswith("_")]
    if not public:
        raise UserMistake(f"{module.__file__} holds no Stage: see CONTRIBUTING.md, 'add a scorer'")
    return public[-1]  # helpers a stage needs stand above it in its file


def _catalogue(family: str, folder: Path | None) -> list[str]:
    places = [PACKAGE / family, *([folder] if folder else [])]
    return sorted({path.stem for place in places if place.is_dir() for path in place.glob("*.py") if not path.stem.startswith("_")})


def _pipeline(name: str, recipe: Path, line: int | None) -> tuple[Any, dict[str, str]]:
    """The pipeline's function and its steps. Loaded from a file: the library never imports pipelines."""
    function = Path(name).stem if ":" not in name else name.rpartition(":")[2]
    file = name.rpartition(":")[0] if ":" in name else f"{name}.py"
    places = (
        [recipe.parent / file, Path.cwd() / file]
        if ":" in name
        else [folder / "pipelines" / file for folder in (recipe.parent, recipe.parent.parent, Path.cwd(), PACKAGE.parent)]
    )
    found = next((place for place in places if place.is_file()), None)
    where = f"{recipe}:{line}: " if line else f"{recipe}: "
    if found is None:
        known = sorted({path.stem for place in places for path in place.parent.glob("*.py")} - {"__init__"})
        raise UserMistake(where + _unknown(f"pipeline '{name}'", name, known))
    module = load_module("curate_pipeline", found.resolve())
    try:
        return getattr(module, function), dict(module.STEPS)
    except AttributeError as error:
        raise UserMistake(f"{where}{found} must hold a function '{function}' and a mapping STEPS: {error}") from None


def _unknown(what: str, name: str, known: Iterable[str], in_scorers: str = "") -> str:
    choices = sorted(set(known))
    near = difflib.get_close_matches(name, choices, 1, 0.5)
    if in_scorers in _catalogue("score", None) and in_scorers:
        return f"{what} is a scorer that is not used; add it to `scorers: [...]`"
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{what} is not known{hint} Known: {', '.join(choices)}" if hint else f"{what} is not known. Known: {', '.join(choices)}"


def _written(place: Any) -> list[str]:
    """An error's place without the names that pydantic gives to a union's alternatives."""
    kinds = {"str", "int", "float", "bool", "dict", "list", "tuple"}
    parts = [str(part) for part in place]
    return [
        part
        for index, part in enumerate(parts)
        if index == 0
        or not (
            "[" in part
            or part in kinds
            or part[:1].isupper()
            or (parts[index - 1] == "backend" and part in ("model", "endpoint") and index + 1 < len(parts))
        )
    ]


def _fields_at(cls: Any, place: list[str]) -> list[str]:
    """Names of the settings at a place inside a settings class."""
    import typing

    for part in place:
        if part.isdigit() or not hasattr(cls, "model_fields") or part not in cls.model_fields:
            continue
        annotation = cls.model_fields[part].annotation
        options = [annotation, *typing.get_args(annotation)]
        options += [inner for option in options for inner in typing.get_args(option)]
        cls = next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), cls)
    return [*cls.model_fields] if place else [*cls.model_fields, "method"]


# -- YAML ----------------------------------------------------------------------------------------------------


def _read(path: Path) -> Any:
    """YAML 1.2 with line numbers. Duplicate keys, aliases and tags are refused, so is a file above 1 MB."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.tokens import (
        AliasToken,
        BlockEndToken,
        BlockMappingStartToken,
        BlockSequenceStartToken,
        FlowMappingEndToken,
        FlowMappingStartToken,
        FlowSequenceEndToken,
        FlowSequenceStartToken,
        TagToken,
    )

    STARTS = (BlockMappingStartToken, BlockSequenceStartToken, FlowMappingStartToken, FlowSequenceStartToken)
    ENDS = (BlockEndToken, FlowMappingEndToken, FlowSequenceEndToken)

    try:
        size = path.stat().st_size
        if size > LARGEST_RECIPE:
            raise UserMistake(f"{path}: {size:,} bytes is no recipe; the limit is 1 MB")
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise UserMistake(f"{path}: no such recipe; configs/ holds some to start from") from None
    except IsADirectoryError:
        raise UserMistake(f"{path} is a folder; give the recipe file in it") from None
    except UnicodeDecodeError as error:
        raise UserMistake(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    try:
        depth = 0
        for token in YAML(typ="rt").scan(text):
            depth += isinstance(token, STARTS) - isinstance(token, ENDS)
            if depth > DEEPEST:  # the parser's time grows with the square of the depth
                raise UserMistake(f"{path}:{token.start_mark.line + 1}: nested too deeply for a recipe; keep to sections and settings")
            if isinstance(token, (AliasToken, TagToken)):
                what = "an alias" if isinstance(token, AliasToken) else "a tag"
                raise UserMistake(f"{path}:{token.start_mark.line + 1}: {what} is not allowed in a recipe; write the value out")
        return YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserMistake(f"{path}:{line}: {str(error.problem).splitlines()[0]}; keep one of the two") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserMistake(f"{where}: not YAML: {getattr(error, 'problem', error)}; look at the indentation and quotes there") from None
    except RecursionError:
        raise UserMistake(f"{path}: nested too deeply for a recipe; keep to sections and settings") from None


def _apply_change(raw: Any, change: str) -> None:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    name, equals, text = change.partition("=")
    if not equals or not name:
        raise UserMistake(f"--set {change!r}: write it as stage.field=value")
    try:
        value = YAML(typ="safe").load(text)
    except (YAMLError, RecursionError):
        value = text
    place: Any = raw
    *parents, last = name.split(".")
    for parent in parents:
        if not isinstance(place, MutableMapping):
            raise UserMistake(f"--set {change!r}: '{parent}' has no settings to change")
        if place.get(parent) is None:
            place[parent] = {}
        place = place[parent]
    if not isinstance(place, MutableMapping):
        raise UserMistake(f"--set {change!r}: '{parents[-1]}' is not a section")
    place[last] = value


def _plain(value: Any) -> Any:
    """Plain Python values out of ruamel's, which remember their lines."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _line(mapping: Any, key: Any) -> int | None:
    try:
        return mapping.lc.data[key][0] + 1
    except (AttributeError, KeyError, TypeError):
        return None


def _deep_line(section: Any, place: list[str]) -> int | None:
    """Line of the deepest part of a place that the recipe wrote."""
    line = None
    for part in place:
        key: Any = int(part) if part.isdigit() and isinstance(section, list) else part
        found = _line(section, key)
        if found is None:
            break
        line = found
        try:
            section = section[key]
        except (KeyError, IndexError, TypeError):
            break
    return line


def loaded_heavy() -> list[str]:
    """Heavy libraries that are imported by now; checking a recipe must leave this empty."""
    return [name for name in ("torch", "ray", "transformers", "faiss", "sklearn", "datasets") if name in sys.modules]
