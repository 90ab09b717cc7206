"""Attention for one new token at a time, on CPU.

PyTorch's fused attention is made for many queries: on this CPU (EPYC, bfloat16, SmolLM2-135M, 16 rows with 300 tokens each)
a step of `generate` takes 322 ms with it and 88 ms with plain products. So prompts go through the fused kernel, whose memory
does not grow with the square of their length, and single tokens through products over the shared keys and values.

The head gets the last position of each prompt as a slice of all of them. As it is not contiguous, PyTorch multiplies it as a
batch and copies the head's weights once for each row (57 MB each: 12 of 43 s at 64 rows); made contiguous, it does not.
"""

from __future__ import annotations

from typing import Any

NAME = "curate_decoding"


def use(model: Any) -> None:
    """Let a model on CPU attend in this way; models elsewhere, and those that bring their own attention, stay as they are."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    if model.device.type != "cpu" or model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    model.get_output_embeddings().register_forward_pre_hook(lambda head, given: (given[0].contiguous(),))


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **settings: Any
) -> tuple[Any, None]:
    """query (rows, heads, queries, width), key and value (rows, groups, keys, width); returns (rows, queries, heads, width)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, heads, queries, width = query.shape
    if queries > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **settings)
    groups = key.shape[1]
    scores = query.reshape(rows, groups, heads // groups, width) @ key.transpose(2, 3)
    scores = scores.float() * (width**-0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    mixed = scores.softmax(-1).to(value.dtype) @ value
    return mixed.reshape(rows, 1, heads, width), None
