"""The bound refuses about alpha of real rows, refuses what lies far off, and ignores the parent."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from given import Shards

from curate.errors import UserMistake
from curate.generate.manifold_gate import ManifoldGate

RNG = np.random.default_rng(0)


def manifold(rows):
    """Points near a curve in 16 dimensions, unit length."""
    angle = RNG.uniform(0, 1.5, rows)
    points = np.zeros((rows, 16))
    points[:, 0], points[:, 1] = np.cos(angle), np.sin(angle)
    points += RNG.normal(0, 0.02, points.shape)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def shard(vectors, names, **columns):
    vector = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors, np.float32).ravel()), vectors.shape[1])
    return pa.table({"row_id": names, "vector": vector, **columns})


REAL = manifold(600)
NAMES = [f"row{number:04d}" for number in range(600)]


def fitted(folder, *tables, **settings):
    stage = ManifoldGate(**settings)
    stage.fit(Shards(*(tables or (shard(REAL[:300], NAMES[:300]), shard(REAL[300:], NAMES[300:])))), None, folder)
    return stage.load(folder)


def antidotes(vectors, parents):
    rows = len(vectors)
    return shard(vectors, [f"new{n}" for n in range(rows)], origin=["antidote"] * rows, parents=pa.array([[parent] for parent in parents]))


def test_new_real_rows_are_refused_at_about_alpha(tmp_path):
    judge = fitted(tmp_path, alpha=0.1)
    verdicts = judge(antidotes(manifold(500), ["elsewhere"] * 500)).column("verdict")
    assert 0.05 <= 1 - verdicts.null_count / 500 <= 0.16


def test_a_row_off_the_manifold_is_refused_with_value_and_threshold(tmp_path):
    off = np.zeros((1, 16), np.float32)
    off[0, 9] = 1
    made = fitted(tmp_path)(antidotes(off, ["row0000"]))
    verdict = made.column("verdict")[0].as_py()
    assert made.schema.equals(ManifoldGate().writes())
    assert (verdict["decision"], verdict["rule"]) == ("drop", "off_manifold") and verdict["value"] > verdict["threshold"]
    assert verdict["threshold"] == json.loads((tmp_path / "info.json").read_text())["bound"]


def test_the_parent_does_not_vouch_for_its_child(tmp_path):
    """An outlier's copy: near to its parent only."""
    lonely = np.zeros((1, 16), np.float32)
    lonely[0, 5] = 1
    judge = fitted(tmp_path, shard(np.vstack([REAL, lonely]), [*NAMES, "lonely"]), k=1)
    with_parent, without = judge(antidotes(np.vstack([lonely, lonely]), ["lonely", "elsewhere"])).column("manifold_ratio").to_pylist()
    assert without == 0.0 and with_parent > 5


def test_other_rows_get_nothing_and_a_row_is_judged_alone(tmp_path):
    judge = fitted(tmp_path)
    raw = judge(shard(REAL[:3], NAMES[:3]))
    assert raw.column("manifold_ratio").null_count == raw.column("verdict").null_count == 3
    many = antidotes(manifold(20), NAMES[:20])
    assert judge(many).slice(7, 1).equals(judge(many.slice(7, 1)))
    rewritten = many.set_column(many.column_names.index("origin"), "origin", pa.array(["rewrite"] * 20))
    assert judge(rewritten).column("manifold_ratio").equals(judge(many).column("manifold_ratio"))


def test_the_artifact_depends_on_the_rows_not_on_their_order_and_holds_no_generated_row(tmp_path):
    fitted(tmp_path / "a", max_reference=100)
    turned = [shard(REAL[300:][::-1], NAMES[300:][::-1]), shard(REAL[:300], NAMES[:300]), antidotes(REAL[:5], NAMES[:5])]
    fitted(tmp_path / "b", *turned, max_reference=100)
    for file in ("reference.npy", "radii.npy", "row_ids.npy", "info.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert json.loads((tmp_path / "a" / "info.json").read_text())["rows"] == 100


def test_few_rows_lower_k_and_too_few_say_so(tmp_path):
    judge = fitted(tmp_path / "few", shard(REAL[:5], NAMES[:5]))
    info = json.loads((tmp_path / "few" / "info.json").read_text())
    assert (info["k"], info["bound"]) == (3, None)  # five rows promise nothing at 5 %: every antidote passes
    assert judge(antidotes(REAL[:2], NAMES[:2])).column("verdict").null_count == 2
    with pytest.raises(UserMistake, match="give more rows"):
        fitted(tmp_path / "none", shard(REAL[:2], NAMES[:2]))


def test_a_row_that_moved_among_rows_of_another_label_is_refused(tmp_path):
    """Labels are the two halves of the curve; what is made of a row of one half and lies in the other is refused, in its own it is not."""
    labels = ["left" if x > np.cos(0.75) else "right" for x in REAL[:, 0]]
    judge = fitted(tmp_path, shard(REAL, NAMES, kind=labels), label="kind", alpha=0.05)
    bounds = json.loads((tmp_path / "info.json").read_text())["label_bounds"]
    assert set(bounds) == {"left", "right"} and all(bound < 2 for bound in bounds.values())
    new = manifold(200)
    own = ["left" if x > np.cos(0.75) else "right" for x in new[:, 0]]
    wrong = [{"left": "right", "right": "left"}[label] for label in own]
    rules = {}
    for name, given in (("own", own), ("wrong", wrong)):
        made = judge(antidotes(new, ["row0000"] * 200).append_column("kind", pa.array(given)))
        assert made.schema.equals(ManifoldGate(label="kind").writes())
        rules[name] = [verdict["rule"] if verdict else None for verdict in made.column("verdict").to_pylist()]
    assert rules["own"].count("in_another_label") <= 24 and rules["wrong"].count("in_another_label") >= 150
    with pytest.raises(UserMistake, match=r"add `keep: \[kind\]` to the antidote section"):
        judge(antidotes(new[:5], ["row0000"] * 5))
    assert judge(shard(new[:5], NAMES[:5], kind=own[:5])).column("label_ratio").null_count == 5  # real rows are not asked


def test_a_label_that_no_row_has(tmp_path):
    with pytest.raises(UserMistake, match="no raw row has a value in label 'kind'"):
        fitted(tmp_path, label="kind")
