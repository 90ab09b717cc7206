"""What pruning did to a model on each row: divergence of the two models over the response.

JSD over response tokens under teacher forcing is the degradation of PASER (He et al., arXiv 2502.12594), here as a
mean per token, over the full vocabulary, in natural logarithms. `recoverable` weighs each token's divergence by the
probability that the original model gives the answer: damage counts only where there is something to get back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate import encoding, hardware
from curate import models as weights
from curate.algorithms.batches import length_batches
from curate.algorithms.jsd import Divergences
from curate.encoding import Encoded, Template
from curate.errors import UserMistake
from curate.hardware import Precision
from curate.score import llama_half
from curate.score.states import as_loaded, as_states, half_identity, scored_states, stored_type
from curate.stage import Resources, Stage, TableFunction

MEANS = ("jsd", "kl_forward", "kl_backward", "loss_original", "loss_pruned", "loss_gap", "confident_gap", "recoverable")
RELEASED = ("jsd_instruction", "ies_released")


class Degradation(Stage):
    """Measures how far the pruned model has drifted from the original on each response.

    Teacher forcing, full vocabulary, nats. Means over the response tokens (of a plain text: over all tokens); null
    where there is none (empty answer) or where the chat template refuses the conversation. A row longer than
    `max_tokens` is scored on what is left of it (see encoding.encode_messages). P: original, Q: pruned, y: the given token.

    jsd            Jensen-Shannon divergence, in [0, ln 2]
    kl_forward     KL(P || Q);  kl_backward: KL(Q || P)
    loss_original, loss_pruned   -log P(y), -log Q(y)
    loss_gap       loss_pruned - loss_original; negative where the pruned model is better
    confident_gap  P(y) (log P(y) - log Q(y)): the gap where the original was sure of the answer
    recoverable    P(y) jsd
    ies            efficiency score of PASER, its eq. 7: jsd / log((|x| + |y|)^2), |x| + |y| the tokens that the model reads
    response_tokens_scored   tokens that the means are over; null where the chat template refuses the conversation

    With `released_code`, for comparison only, what PASER's released program computes instead:
    jsd_instruction  SUM of JSD over the tokens of the prompt by itself, without template; null for a plain text
    ies_released     that sum / log((prompt tokens + response characters)^2)

    model, pruned  references; both must have the same vocabulary
    pair           together: both models in one pass; layers before the first removed one run once
                   apart: the original's final states are read from `original_states` (score/states.py), its head is applied to them
                   auto: together where both fit this machine, else apart (the pipeline asks `apart` and runs states first)
    dtype          auto: bfloat16 where that is fast, else float16 by llama_half where the processor and the model fit, else float32
    """

    model: str
    pruned: str
    pair: Literal["together", "apart", "auto"] = "auto"
    template: Template = "chat"
    max_tokens: int = Field(1024, ge=16)
    batch_tokens: int = Field(2048, ge=1)
    chunk: int = Field(128, ge=1)
    dtype: Precision = "auto"
    released_code: bool = False

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate", "sample"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")

    @model_validator(mode="after")
    def _original_at_hand(self) -> Degradation:
        if self.released_code and self.pair == "apart":
            raise ValueError("released_code runs the original on prompts, whose states are not stored: set pair: together")
        return self

    def reads(self) -> tuple[str, ...]:
        return (*encoding.ROW, *(["original_states"] if self.pair == "apart" else []))

    def writes(self) -> pa.Schema:
        names = (*MEANS, "ies", *(RELEASED if self.released_code else ()))
        return pa.schema([*((name, pa.float32()) for name in names), ("response_tokens_scored", pa.int32())])

    def models(self) -> tuple[str, ...]:
        return (self.model, self.pruned)

    def identity(self) -> dict[str, Any]:
        return half_identity(self.dtype, self.model, self.pruned) or hardware.execution_identity(self.dtype, compiles=True)

    def resources(self) -> Resources:
        if self.pair == "apart":
            memory = weights.memory(self.pruned, self.pruned, precision=as_loaded(self.dtype)) + 2 * weights.head_bytes(self.model)
        else:
            # Once more the larger of the two: while layers are packed for llama_half both forms are held.
            memory = weights.memory(self.model, self.model, self.pruned, precision=as_loaded(self.dtype))
        return Resources(gpus=hardware.gpus_wanted(), memory=memory)

    def load(self, folder: Path) -> TableFunction:
        half = bool(half_identity(self.dtype, self.model, self.pruned))
        tokenizer, pair, divergences = _stored_pair(self, half) if self.pair == "apart" else _pair(self, half)
        budget = llama_half.TOKENS if half else self.batch_tokens

        def measured(encoded: list[Encoded | None], stored: list[bytes | None] | None = None) -> np.ndarray:
            return row_means(encoded, stored or [None] * len(encoded), pair, divergences, budget)

        def score(table: pa.Table) -> pa.Table:
            encoded = encoding.encode_rows(tokenizer, table, self.template, self.max_tokens)
            means = measured(encoded, table.column("original_states").to_pylist() if self.pair == "apart" else None)
            read = np.array([0 if row is None else len(row.ids) for row in encoded])
            columns = dict(zip(MEANS, means, strict=True)) | {"ies": means[0] / log_cost(read)}
            if self.released_code:
                columns |= dict(zip(RELEASED, released_scores(tokenizer, table, self.max_tokens, measured), strict=True))
            counts = pa.array([None if row is None else int(row.scored.sum()) for row in encoded], pa.int32())
            return pa.table(
                {name: pa.array(values.astype(np.float32), from_pandas=True) for name, values in columns.items()}
                | {"response_tokens_scored": counts}
            )

        return score


# Rows and, where the models are apart, their stored states -> final hidden states of both models at the scored tokens.
Pair = Callable[[list[Encoded], list[bytes | None]], tuple[Any, Any]]


def apart(stage: Degradation) -> bool:
    """Whether the original's states are to be stored first (score/states.py): asked for, or both models do not fit this machine."""
    if stage.pair != "auto":
        return stage.pair == "apart"
    return not stage.released_code and stage.resources().memory > 0.8 * hardware.device_memory()


def _pair(stage: Degradation, half: bool) -> tuple[Any, Pair, Any]:
    """(tokenizer, pair, divergences) with both models in memory."""
    import torch

    dtype = "float32" if half else stage.dtype
    original, tokenizer = weights.load_causal_lm(stage.model, dtype)
    pruned, other = weights.load_causal_lm(stage.pruned, dtype)
    _check(stage, tokenizer, other, original, pruned)
    heads = weights.output_head(original), weights.output_head(pruned)
    if half:
        both = llama_half.PairHalf(original, pruned, stage.max_tokens, shared_layers(original, pruned))
        return tokenizer, lambda rows, _: both(rows), llama_half.DivergencesHalf(heads[0].weight, heads[1].weight)
    states = pair_states(original, pruned)

    def pair(rows: list[Encoded], stored: list[bytes | None]) -> tuple[Any, Any]:
        batch = weights.collate(rows)
        with torch.inference_mode():
            a, b = (hidden[batch.rows, batch.columns] for hidden in states(batch.inputs))
        return a, b

    return tokenizer, pair, Divergences(*heads, stage.chunk, hardware.compiled())


def _stored_pair(stage: Degradation, half: bool) -> tuple[Any, Pair, Any]:
    """(tokenizer, pair, divergences) with the pruned model and, of the original, its output head."""
    dtype = "float32" if half else stage.dtype
    pruned, tokenizer = weights.load_causal_lm(stage.pruned, dtype)
    _check(stage, weights.load_tokenizer(stage.model), tokenizer, pruned)
    head, own = weights.load_head(stage.model, dtype), weights.output_head(pruned)
    if head is None:
        warnings.warn(f"'{stage.model}': its output head is not one matrix in its files: the whole model is loaded", stacklevel=2)
        head = weights.output_head(weights.load_causal_lm(stage.model, dtype)[0])
    run = scored_states(pruned, half, stage.max_tokens)
    kind, width = stored_type(stage.dtype, stage.model), head.weight.shape[1]

    def pair(rows: list[Encoded], stored: list[bytes | None]) -> tuple[Any, Any]:
        states = as_states(stored, rows, width, kind)
        return states.half().numpy() if half else states.to(own.weight.dtype), run(rows)

    if half:
        return tokenizer, pair, llama_half.DivergencesHalf(head.weight, own.weight)
    return tokenizer, pair, Divergences(head, own, stage.chunk, hardware.compiled())


def _check(stage: Degradation, tokenizer: Any, other: Any, *models: Any) -> None:
    if tokenizer.get_vocab() != other.get_vocab():
        raise UserMistake(f"'{stage.model}' and '{stage.pruned}' have different vocabularies: give a pruned copy of the same model")
    for model in models:
        weights.check_window(model, stage.max_tokens, stage.model)


def row_means(encoded: list[Encoded | None], stored: list[bytes | None], pair: Pair, divergences: Any, batch_tokens: int) -> np.ndarray:
    """MEANS of each row's scored tokens, float64 (len(MEANS), rows); NaN for a row without any, and only there."""
    import torch

    rows = [(i, row) for i, row in enumerate(encoded) if row is not None and row.scored.any()]
    means = np.full((len(MEANS), len(encoded)), np.nan)
    for picked in length_batches([len(row.ids) for _, row in rows], batch_tokens):
        numbers, batch = [rows[i][0] for i in picked], [rows[i][1] for i in picked]
        with torch.inference_mode():
            a, b = pair(batch, [stored[number] for number in numbers])
            found = divergences(a, b, np.concatenate([row.ids[row.scored] for row in batch]))
        if not all(np.isfinite(values).all() for values in found):
            raise UserMistake("a model gives logits that are not finite: set dtype: float32, or mend its weights")
        gap, given = found.log_a - found.log_b, np.exp(found.log_a)
        tokens = [found.jsd, found.kl_forward, found.kl_backward, -found.log_a, -found.log_b, gap, given * gap, given * found.jsd]
        of_row = np.repeat(np.arange(len(batch)), [row.scored.sum() for row in batch])
        means[:, numbers] = mean_by_row(np.stack(tokens), of_row, len(batch))
    return means


def mean_by_row(tokens: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Means (measures, count), float64, of `tokens` (measures, n) over the tokens of each row; `rows` int64 (n,)."""
    totals = np.stack([np.bincount(rows, values.astype(np.float64), minlength=count) for values in tokens])
    return totals / np.bincount(rows, minlength=count)


def log_cost(size: np.ndarray) -> np.ndarray:
    """log(size^2), PASER's cost of a row; a size below 2 counts as 2, where the logarithm would vanish."""
    return 2 * np.log(np.maximum(size, 2.0))


def released_scores(tokenizer: Any, table: pa.Table, max_tokens: int, measured: Any) -> np.ndarray:
    """RELEASED of each row, float64 (2, rows): what paser.py of PASER's repository computes, natural logarithms there too.

    It feeds the prompt alone and adds up the JSD of every position, the last included; its cost adds characters to tokens.
    """
    prompts, responses = table.column("prompt").to_pylist(), table.column("response").to_pylist()
    encoded: list[Encoded | None] = []
    for prompt in prompts:
        ids = encoding.content_ids(tokenizer, prompt or "")[:max_tokens]
        # One more token, which is not fed to the models: each position before it is scored.
        encoded.append(Encoded(np.array(ids + ids[-1:], np.int64), np.arange(len(ids) + 1) > 0, False) if ids else None)
    lengths = np.array([0 if row is None else len(row.ids) - 1 for row in encoded], np.float64)
    size = lengths + [len(response or "") for response in responses]
    jsd = measured(encoded)[0] * lengths
    return np.stack([jsd, jsd / log_cost(size)])


def pair_states(original: Any, pruned: Any) -> Any:
    """A function from inputs to the final hidden states of both models, the common first layers computed once.

    That is done where `curate prune` left the list of removed layers in the pruned model's configuration, the layers
    before the first of them are equal in both to the bit, and a probe gives the pruned model's own states.
    """
    import torch

    def separately(inputs: Any) -> tuple[Any, Any]:
        return weights.hidden_states(original, inputs), weights.hidden_states(pruned, inputs)

    first = shared_layers(original, pruned)
    if not first:
        return separately
    shared = SharedPrefix(original, pruned, pruned.config.curate_removed_layers)
    probe = torch.arange(1, 17, device=hardware.device()).reshape(2, 8)
    with torch.inference_mode():
        same = torch.equal(shared(probe)[1], weights.hidden_states(pruned, probe))
    return shared if same else separately


def shared_layers(original: Any, pruned: Any) -> int:
    """How many first layers both have in common to the bit, embeddings too: those before the first one that `curate prune` removed."""
    removed = getattr(pruned.config, "curate_removed_layers", None)
    if not removed or len(weights.decoder_layers(original)) - len(removed) != len(weights.decoder_layers(pruned)):
        return 0  # of a copy of a copy the list counts layers of the copy between
    return removed[0] if _same_prefix(original, pruned, removed[0]) else 0


def _same_prefix(original: Any, pruned: Any, first: int) -> bool:
    import torch

    pairs = [(original.get_input_embeddings(), pruned.get_input_embeddings())]
    pairs += zip(weights.decoder_layers(original)[:first], weights.decoder_layers(pruned)[:first], strict=True)
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in ((left.state_dict(), right.state_dict()) for left, right in pairs)
    )


class SharedPrefix:
    """Runs the original model and, from the states that enter its first removed layer, the rest of the pruned one."""

    def __init__(self, original: Any, pruned: Any, removed: list[int]):
        self.original = original
        self.norm = pruned.base_model.norm
        layers = weights.decoder_layers(original)
        kept = [i for i in range(len(layers)) if i not in set(removed)]
        self.suffix = list(weights.decoder_layers(pruned)[removed[0] :])
        self.seen: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        # Each layer of the suffix gets the masks and positions that its counterpart in the original was given.
        self.counterparts = kept[removed[0] :]
        self.first = removed[0]
        for i in (self.first, *self.counterparts):
            layers[i].register_forward_pre_hook(self._keep(i), with_kwargs=True)

    def _keep(self, layer: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # Only the first removed layer's states are needed: the others' must not be kept alive.
            self.seen[layer] = (args if layer == self.first else args[1:], kwargs)

        return hook

    def __call__(self, inputs: Any) -> tuple[Any, Any]:
        original = weights.hidden_states(self.original, inputs)
        states = self.seen[self.first][0][0]
        for layer, counterpart in zip(self.suffix, self.counterparts, strict=True):
            args, kwargs = self.seen[counterpart]
            states = layer(states, *args, **kwargs)
            states = states[0] if isinstance(states, tuple) else states
        self.seen.clear()
        return original, self.norm(states)
