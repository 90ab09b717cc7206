import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from given import Shards

from curate.errors import UserMistake
from curate.score.dsir import Dsir

WIKI = ["treaty", "river", "empire", "fossil", "planet", "theory"]
SPAM = ["buy", "now", "free", "click", "winner", "casino"]


def corpus() -> pa.Table:
    """300 advertisements, then 100 rows about history."""
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(words, 12)) for words in [SPAM] * 300 + [WIKI] * 100]
    return pa.table({"row_id": [f"{i:032x}" for i in range(400)], "text": pa.array(texts, pa.large_string())})


@pytest.fixture
def target(tmp_path: Path) -> str:
    generator = np.random.default_rng(1)
    path = tmp_path / "target.jsonl"
    path.write_text("".join(json.dumps({"text": " ".join(generator.choice(WIKI, 12))}) + "\n" for _ in range(50)))
    return str(path)


def scored(stage: Dsir, folder: Path, *tables: pa.Table) -> np.ndarray:
    stage.fit(Shards(*tables), None, folder)
    found = stage.load(folder)(pa.concat_tables(tables))
    assert found.schema == stage.writes()
    return found["dsir"].to_numpy()


def test_rows_like_the_target_score_above_the_rest(target, tmp_path):
    scores = scored(Dsir(target=target), tmp_path / "a", corpus())
    assert scores[300:].min() > scores[:300].max()


def test_noise_follows_from_the_row_and_the_seed(target, tmp_path):
    table = corpus()
    bare = scored(Dsir(target=target, sample=False), tmp_path / "a", table)
    one, again, other = (scored(Dsir(target=target, seed=seed), tmp_path / "a", table) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    noise = one - bare
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=0.2) and noise.std() == pytest.approx(np.pi / 6**0.5, abs=0.2)
    assert abs(np.corrcoef(noise, other - bare)[0, 1]) < 0.2


@pytest.mark.parametrize("cut", [1, 222, 399])
def test_the_artifact_does_not_depend_on_how_the_corpus_is_cut(target, tmp_path, cut):
    table, stage = corpus(), Dsir(target=target)
    whole = scored(stage, tmp_path / "a", table)
    np.testing.assert_array_equal(whole, scored(stage, tmp_path / "b", table.slice(0, cut), table.slice(cut)))
    assert (tmp_path / "a" / "log_ratio.npy").read_bytes() == (tmp_path / "b" / "log_ratio.npy").read_bytes()


def test_the_target_is_known_by_its_content(target, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(target).read_bytes())
    assert Dsir(target=target).identity() == Dsir(target=str(copy)).identity() and "target" in Dsir.unfingerprinted
    copy.write_text(json.dumps({"text": "a line\u2028with a separator in it"}, ensure_ascii=False) + "\n")
    assert Dsir(target=target).identity() != Dsir(target=str(copy)).identity()
    assert np.isfinite(scored(Dsir(target=str(copy)), tmp_path / "a", corpus())).all()


def test_mistakes_end_with_the_remedy(target, tmp_path):
    with pytest.raises(UserMistake, match="does not exist: give"):
        Dsir(target=str(tmp_path / "absent.txt")).identity()
    (tmp_path / "blank.txt").write_text("\n \n")
    with pytest.raises(UserMistake, match="no words"):
        scored(Dsir(target=str(tmp_path / "blank.txt")), tmp_path / "a", corpus())
    with pytest.raises(UserMistake, match="the pool has no words"):
        scored(Dsir(target=target), tmp_path / "a", corpus().slice(0, 1).set_column(1, "text", pa.array([" "], pa.large_string())))
    (tmp_path / "odd.csv").write_text("text\nx\n")
    with pytest.raises(UserMistake, match="convert it"):
        scored(Dsir(target=str(tmp_path / "odd.csv")), tmp_path / "a", corpus())
