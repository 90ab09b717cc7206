"""Runs a BERT encoder in float16 through bert_half.cpp, compiled once on the machine, as torch.compile would.

For processors that compute in float16 but have no matrix unit (avx512_fp16 without amx_bf16), where torch gains nothing
from 16 bits: it widens them to float32 first. One thread. A row's vector does not depend on the rows beside it.
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
from curate.algorithms.batches import length_batches
from curate.errors import UserMistake

SOURCE = Path(__file__).with_suffix(".cpp")
# Tokens at once: activations and one layer's weights fit the second-level cache (512 tokens 333, 1020 tokens 285 GFLOP/s).
_TOKENS = 512


def kernel(reference: str) -> str:
    """What would run this encoder here (source and compiler), for a fingerprint; "" where processor, compiler or encoder do not fit."""
    config = json.loads((weights.folder(reference, weights=False) / "config.json").read_text())
    fits = (
        config.get("model_type") == "bert"
        and config.get("hidden_act") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and config["hidden_size"] // config["num_attention_heads"] % 32 == config["intermediate_size"] % 32 == 0
    )
    return half.runs_here(SOURCE) if fits else ""


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("qkv", "out", "up", "down", "qkv_bias", "out_bias", "up_bias", "down_bias")),
        *((name, ctypes.c_void_p) for name in ("norm1", "norm1_bias", "norm2", "norm2_bias")),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("width", "heads", "inner", "layers")),
        ("epsilon", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("words", "positions", "norm", "norm_bias")),
        ("layer", ctypes.POINTER(_Layer)),
    ]


class BertHalf:
    """`model`: a transformers BertModel in float32; its weights are copied, so it can be let go."""

    def __init__(self, model: Any):
        self._arrays: list[np.ndarray] = []  # what the pointers point to
        config = model.config
        embeddings = model.embeddings
        positions = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
        layers = (_Layer * config.num_hidden_layers)(*(self._layer(layer, config) for layer in model.encoder.layer))
        self.width = config.hidden_size
        self._model = _Model(
            self.width,
            config.num_attention_heads,
            config.intermediate_size,
            config.num_hidden_layers,
            config.layer_norm_eps,
            self._pointer(embeddings.word_embeddings.weight),
            self._pointer(positions),
            self._pointer(embeddings.LayerNorm.weight),
            self._pointer(embeddings.LayerNorm.bias),
            layers,
        )
        self._encode = half.library(SOURCE, "encode").encode

    def means(self, ids: Sequence[list[int]], skip: int = 0) -> np.ndarray:
        """(rows, width) float32: the mean of each row's last hidden states, its first `skip` tokens left out."""
        found = np.empty((len(ids), self.width), np.float32)
        for batch in length_batches([len(row) for row in ids], _TOKENS):
            tokens = np.concatenate([np.asarray(ids[i], np.int32) for i in batch])
            lengths = np.array([len(ids[i]) for i in batch], np.int32)
            part = np.empty((len(batch), self.width), np.float32)
            self._encode(ctypes.byref(self._model), half.at(tokens), half.at(lengths), len(batch), skip, half.at(part))
            found[batch] = part
        if not np.isfinite(found).all():
            raise UserMistake("the encoder leaves the range of float16: set dtype: float32 (or bfloat16)")
        return found

    def _layer(self, layer: Any, config: Any) -> _Layer:
        import torch

        attention, output = layer.attention, layer.attention.output
        parts = [getattr(attention.self, name) for name in ("query", "key", "value")]
        scale = (config.hidden_size // config.num_attention_heads) ** -0.5  # of the scores, put into the queries
        qkv = torch.cat([parts[0].weight * scale, parts[1].weight, parts[2].weight])
        qkv_bias = torch.cat([parts[0].bias * scale, parts[1].bias, parts[2].bias])
        packed = (qkv, output.dense.weight, layer.intermediate.dense.weight, layer.output.dense.weight)
        norms = (output.LayerNorm, layer.output.LayerNorm)
        biases = (qkv_bias, output.dense.bias, layer.intermediate.dense.bias, layer.output.dense.bias)
        plain = [*biases, *(array for norm in norms for array in (norm.weight, norm.bias))]
        return _Layer(*(self._keep(half.panels(matrix.numpy())) for matrix in packed), *(self._pointer(array) for array in plain))

    def _pointer(self, tensor: Any) -> int:
        return self._keep(np.array(tensor.numpy(), np.float32))

    def _keep(self, array: np.ndarray) -> int:
        self._arrays.append(array)
        return array.ctypes.data
