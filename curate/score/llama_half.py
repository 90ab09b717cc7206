"""Runs a Llama model in float16 through llama_half.cpp, compiled once on the machine, as torch.compile would.

For processors that compute in float16 but have no matrix unit (avx512_fp16 without amx_bf16), where torch gains nothing
from 16 bits: it widens them to float32 first. One thread. A row's values do not depend on the rows beside it.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curate import half
from curate import models as weights
from curate.algorithms.jsd import Divergence
from curate.encoding import Encoded
from curate.errors import UserMistake

SOURCE = Path(__file__).with_suffix(".cpp")
# Tokens at once: activations and one layer's weights fit the second-level cache.
TOKENS = 512
_BLOCK = 192  # tokens whose logits are held at once; a multiple of the kernel's 12
_GAP = 80  # the kernel's GAP


def kernel(*references: str) -> str:
    """What would run these models here (source and compiler), for a fingerprint; "" where processor, compiler or a model do not fit."""
    found = half.runs_here(SOURCE)  # first: a model's configuration may have to be fetched or converted
    fits = found and all(
        _fits(json.loads((weights.folder(reference, weights=False) / "config.json").read_text())) for reference in references
    )
    return found if fits else ""


def _fits(config: dict[str, Any]) -> bool:
    rope = config.get("rope_parameters") or {"rope_type": "default"} | (config.get("rope_scaling") or {})
    depth = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    sizes = (config["hidden_size"], depth, 2 * config["intermediate_size"], config["vocab_size"])
    return (
        config.get("model_type") == "llama"
        and config.get("hidden_act") == "silu"
        and not config.get("attention_bias")
        and not config.get("mlp_bias")
        and rope.get("rope_type") in ("default", "linear", "llama3")  # tables that do not depend on the row's length
        and all(size % 32 == 0 for size in sizes)
    )


class _Layer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("qkv", "out", "gate_up", "down", "norm1", "norm2")]


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("width", "heads", "kv_heads", "depth", "inner")),
        ("epsilon", ctypes.c_float),
        ("cosine", ctypes.c_void_p),
        ("sine", ctypes.c_void_p),
    ]


class LlamaHalf:
    """`model`: a transformers LlamaForCausalLM in float32, for rows of at most `max_tokens`; its layers are copied.

    With `prefix`, another such object, the first `shared` layers are taken from there.
    """

    def __init__(self, model: Any, max_tokens: int, prefix: LlamaHalf | None = None, shared: int = 0):
        import torch

        config = model.config
        self._arrays: list[Any] = []  # what the pointers point to
        positions = torch.arange(max_tokens)[None]
        cosine, sine = model.base_model.rotary_emb(torch.zeros(1, dtype=torch.float32), positions)
        self.width, self.max_tokens = config.hidden_size, max_tokens
        depth = getattr(config, "head_dim", None) or self.width // config.num_attention_heads
        self._shape = _Shape(
            self.width,
            config.num_attention_heads,
            config.num_key_value_heads,
            depth,
            config.intermediate_size,
            config.rms_norm_eps,
            self._pointer(cosine[0]),
            self._pointer(sine[0]),
        )
        self._layers: list[_Layer] = [
            prefix._layers[i] if prefix and i < shared else self._layer(layer, depth)
            for i, layer in enumerate(weights.decoder_layers(model))
        ]
        self._prefix = prefix
        self._words = model.get_input_embeddings().weight.numpy()
        self._norm = self._pointer(model.base_model.norm.weight)
        self._code = half.library(SOURCE, "layers", "final_norm", "divergences")

    def embedded(self, rows: Sequence[Encoded]) -> tuple[np.ndarray, np.ndarray]:
        """What enters the first layer, float32 (tokens, width), rows one after the other, and the rows' lengths, int32.

        A row's last token only is a target: it is not among them.
        """
        lengths = np.array([len(row.ids) - 1 for row in rows], np.int32)
        return self._words[np.concatenate([row.ids[:-1] for row in rows])].astype(np.float32), lengths

    def run(self, states: np.ndarray, lengths: np.ndarray, first: int = 0, last: int | None = None) -> None:
        """Runs layers `first` to `last` (exclusive; default: all) over the states, in place."""
        some = self._layers[first:last]
        pointers = (_Layer * len(some))(*some)
        self._code.layers(ctypes.byref(self._shape), pointers, len(some), half.at(lengths), len(lengths), half.at(states))

    def final(self, states: np.ndarray, picked: np.ndarray) -> np.ndarray:
        """float16 (n, width): final hidden states, what the head is applied to, at the places `picked`."""
        chosen = np.ascontiguousarray(states[picked])
        found = np.empty(chosen.shape, np.float16)
        self._code.final_norm(
            half.at(chosen), ctypes.c_void_p(self._norm), ctypes.c_float(self._shape.epsilon), *chosen.shape, half.at(found)
        )
        if not np.isfinite(found).all():
            raise UserMistake("a model leaves the range of float16: set dtype: float32")
        return found

    def hidden(self, rows: Sequence[Encoded]) -> np.ndarray:
        """float16 (scored tokens of all rows, width)."""
        states, lengths = self.embedded(rows)
        self.run(states, lengths)
        return self.final(states, scored_places(rows))

    def _layer(self, layer: Any, depth: int) -> _Layer:
        import torch

        attention, mlp = layer.self_attn, layer.mlp
        qkv = torch.cat([attention.q_proj.weight * depth**-0.5, attention.k_proj.weight, attention.v_proj.weight])
        gate, up = (part.weight.reshape(-1, 16, self.width) for part in (mlp.gate_proj, mlp.up_proj))
        gate_up = torch.stack([gate, up], 1).reshape(-1, self.width)
        matrices = (qkv, attention.o_proj.weight, gate_up, mlp.down_proj.weight)
        norms = (layer.input_layernorm.weight, layer.post_attention_layernorm.weight)
        return _Layer(*(self._keep(half.panels(matrix.float().numpy())) for matrix in matrices), *(self._pointer(norm) for norm in norms))

    def _pointer(self, tensor: Any) -> int:
        return self._keep(np.array(tensor.numpy(), np.float32))

    def _keep(self, array: np.ndarray) -> int:
        self._arrays.append(array)
        return array.ctypes.data


class PairHalf:
    """Final hidden states of both models at the scored tokens; their first `shared` layers are run once."""

    def __init__(self, original: Any, pruned: Any, max_tokens: int, shared: int):
        self.original, self.shared = LlamaHalf(original, max_tokens), shared
        self.pruned = LlamaHalf(pruned, max_tokens, self.original, shared)

    def __call__(self, rows: Sequence[Encoded]) -> tuple[np.ndarray, np.ndarray]:
        states, lengths = self.original.embedded(rows)
        self.original.run(states, lengths, 0, self.shared)
        other = states.copy() if self.shared else self.pruned.embedded(rows)[0]
        self.original.run(states, lengths, self.shared)
        self.pruned.run(other, lengths, self.shared)
        picked = scored_places(rows)
        return self.original.final(states, picked), self.pruned.final(other, picked)


class DivergencesHalf:
    """`jsd.divergence` from float16 hidden states and two heads, weights (vocabulary, width) of any float type."""

    def __init__(self, head_a: Any, head_b: Any):
        import torch

        self.vocabulary = len(head_a)
        self._a = half.panels(head_a.float().numpy())
        self._b = self._a if torch.equal(head_a, head_b) else half.panels(head_b.float().numpy())
        self._logits = np.empty((2, _BLOCK, self.vocabulary + _GAP), np.float32)
        self._code = half.library(SOURCE, "layers", "final_norm", "divergences")

    def __call__(self, a: np.ndarray, b: np.ndarray, targets: np.ndarray) -> Divergence:
        """Hidden states float16 (tokens, width), target ids (tokens,)."""
        tokens, width = a.shape
        found = np.empty((5, tokens), np.float32)
        a, b = (np.concatenate([part, np.zeros((12, width), np.float16)]) for part in (a, b))  # read in whole blocks of 12
        target = targets.astype(np.int32)
        heads = (half.at(self._a), half.at(self._b), self.vocabulary, half.at(target))
        self._code.divergences(half.at(a), half.at(b), width, *heads, tokens, _BLOCK, half.at(self._logits), half.at(found))
        return Divergence(*found)


def scored_places(rows: Sequence[Encoded]) -> np.ndarray:
    """Places, int64, of the states that predict the scored tokens, where rows follow one another without their last tokens."""
    starts = np.cumsum([0, *(len(row.ids) - 1 for row in rows)])
    return np.concatenate([start + np.flatnonzero(row.scored) - 1 for start, row in zip(starts, rows, strict=False)])
