"""Rows ranked by turns of a target's examples: by task and wording, whatever the shards, and for rows that come later."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from given import SPAM, WIKI, Shards, sentence

from curate.errors import UserMistake
from curate.score.nearest import Nearest

# Two tasks that the target has, and one that it lacks: every row of a task begins and ends alike.
TASKS = {"history": "Say when it was: {}", "shop": "Write an advertisement for {}", "other": "Translate {} into French"}
WORDS = {"history": WIKI, "shop": SPAM, "other": ["garden", "window", "kettle", "pillow", "ladder", "basket", "candle", "mirror"]}


def rows(count: int, seed: int = 0, shard: str | None = None) -> pa.Table:
    generator = np.random.default_rng(seed)
    names = [list(TASKS)[i % 3] for i in range(count)]
    texts = [TASKS[name].format(sentence(WORDS[name], generator)) for name in names]
    table = pa.table({"row_id": [f"{seed:08x}{i:024x}" for i in range(count)], "text": pa.array(texts, pa.large_string())})
    return table if shard is None else table.append_column("shard", pa.array([shard] * count))


@pytest.fixture
def target(tmp_path: Path) -> str:
    """Eight examples of history, two of shops."""
    generator = np.random.default_rng(9)
    path = tmp_path / "target.jsonl"
    tasks = ["history"] * 8 + ["shop"] * 2
    given = [{"instruction": TASKS[t].format(sentence(WORDS[t], generator)), "output": "x", "task": t} for t in tasks]
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return str(path)


def scored(target: str, folder: Path, *tables: pa.Table, later: pa.Table | None = None, **settings) -> pa.Table:
    named = [table.append_column("shard", pa.array([f"{i:05d}"] * len(table))) for i, table in enumerate(tables)]
    stage = Nearest(target=target, group_by="task", **settings)
    folder.mkdir()
    stage.fit(Shards(*named), None, folder)
    function = stage.load(folder)
    found = pa.concat_tables([function(table) for table in named])
    assert found.schema == stage.writes()
    return found if later is None else function(later)


def test_the_tasks_of_the_target_come_first_and_get_equal_turns(target, tmp_path):
    found = scored(target, tmp_path / "a", rows(90))
    rank = np.array(found["target_rank"].to_pylist(), float)
    first = np.argsort(rank)[:40]
    assert np.bincount(first % 3, minlength=3).tolist() == [20, 20, 0]
    assert sorted(rank[~np.isnan(rank)]) == list(range(1, int(np.nanmax(rank)) + 1))  # an order: no rank twice, none left out
    similarity = found["target_similarity"].to_numpy()
    assert similarity[[0, 1, 3, 4]].min() > similarity[2::3].max()
    info = json.loads((tmp_path / "a" / "info.json").read_text())
    assert info["examples"] == 10 and sum(info["ranked_by_group"].values()) == info["ranked"]


@pytest.mark.parametrize("cut", [1, 44, 89])
def test_ranks_do_not_depend_on_how_the_corpus_is_cut(target, tmp_path, cut):
    whole = scored(target, tmp_path / "a", rows(90))
    assert scored(target, tmp_path / "b", rows(90).slice(0, cut), rows(90).slice(cut)).equals(whole)
    assert (tmp_path / "a" / "walk.npz").read_bytes() == (tmp_path / "b" / "walk.npz").read_bytes()


def test_an_example_comes_to_its_nearest_rows_alone(target, tmp_path):
    found = scored(target, tmp_path / "a", rows(90), depth=2)
    ranked = [i for i, value in enumerate(found["target_rank"].to_pylist()) if value is not None]
    assert 2 <= len(ranked) <= 20 and {i % 3 for i in ranked} <= {0, 1}
    assert "are ranked last" in json.loads((tmp_path / "a" / "info.json").read_text())["remarks"][0]


def test_rows_that_come_later_stand_where_their_like_stands(target, tmp_path):
    pool = rows(90)
    known = scored(target, tmp_path / "a", pool)["target_rank"].to_pylist()
    again = scored(target, tmp_path / "b", pool, later=pool.append_column("shard", pa.array(["99999"] * 90)))["target_rank"].to_pylist()
    # A copy of a row is never behind it: another example may have come to it sooner, had it been there.
    assert all(new is not None and new <= old for new, old in zip(again, known, strict=True) if old is not None)
    assert np.mean([new == old for new, old in zip(again, known, strict=True) if old is not None]) > 0.8
    strange = pa.table({"row_id": ["0"], "text": pa.array(["zzz qqq"], pa.large_string()), "shard": ["99999"]})
    assert scored(target, tmp_path / "c", pool, later=strange).to_pylist() == [{"target_rank": None, "target_similarity": 0.0}]


def test_another_seed_is_another_walk_over_the_same_likenesses(target, tmp_path):
    one, other = scored(target, tmp_path / "a", rows(90)), scored(target, tmp_path / "b", rows(90), seed=1)
    assert one["target_similarity"].equals(other["target_similarity"]) and not one["target_rank"].equals(other["target_rank"])


def test_the_target_is_known_by_its_content_and_mistakes_end_with_the_remedy(target, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(target).read_bytes())
    assert Nearest(target=target).identity() == Nearest(target=str(copy)).identity() and "target" in Nearest.unfingerprinted
    with pytest.raises(UserMistake, match=r"does not exist: give a \.parquet or \.jsonl file"):
        Nearest(target=str(tmp_path / "absent.jsonl")).identity()
    copy.write_text(json.dumps({"instruction": "zzz", "output": "qqq", "task": "t"}) + "\n")
    with pytest.raises(UserMistake, match="give examples of what the pool is about"):
        scored(str(copy), tmp_path / "a", rows(9))
    with pytest.raises(UserMistake, match="group_by 'skill' is not in"):
        Nearest(target=target, group_by="skill").fit(Shards(rows(9, shard="00000")), None, tmp_path)
