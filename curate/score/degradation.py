"""What pruning did to a model on each row: divergence of the two models over the response.

JSD over response tokens under teacher forcing is the degradation of PASER (He et al., arXiv 2502.12594), here as a
mean per token, over the full vocabulary, in natural logarithms. `recoverable` weighs each token's divergence by the
probability that the original model gives the answer: damage counts only where there is something to get back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from curate import models as weights
from curate.algorithms.batches import length_batches
from curate.algorithms.jsd import Divergences
from curate.errors import UserMistake
from curate.models import Precision, Template
from curate.stage import Resources, Stage, TableFunction

MEANS = ("jsd", "loss_original", "loss_pruned", "loss_gap", "recoverable")


class Degradation(Stage):
    """Measures how far the pruned model has drifted from the original on each response.

    Means over the response tokens (of a plain text: over all tokens); null where there is none.

    jsd            Jensen-Shannon divergence of the next-token distributions, nats, in [0, ln 2]
    loss_original, loss_pruned   negative log-likelihood of the response, nats per token
    loss_gap       loss_pruned - loss_original; negative where the pruned model is better
    recoverable    jsd x probability of the token under the original model
    response_tokens_scored   tokens that the means are over; null where the chat template refuses the conversation

    model, pruned  references; both must have the same vocabulary
    pair           together (auto): both models in one pass; layers before the first removed one run once
    """

    model: str
    pruned: str
    pair: Literal["together", "apart", "auto"] = "auto"
    template: Template = "chat"
    max_tokens: int = Field(1024, ge=16)
    batch_tokens: int = Field(2048, ge=1)
    chunk: int = Field(64, ge=1)
    dtype: Precision = "auto"

    hidden_by: ClassVar[frozenset[str]] = frozenset({"quarantine", "duplicate", "sample"})
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")

    @field_validator("pair")
    @classmethod
    def _together(cls, pair: str) -> str:
        if pair == "apart":
            raise ValueError("pair: apart arrives with the recovery capability: set pair: together")
        return pair

    def reads(self) -> tuple[str, ...]:
        return tuple(weights.ROW)

    def writes(self) -> pa.Schema:
        return pa.schema([*((name, pa.float32()) for name in MEANS), ("response_tokens_scored", pa.int32())])

    def models(self) -> tuple[str, ...]:
        return (self.model, self.pruned)

    def identity(self) -> dict[str, Any]:
        return weights.execution_identity(self.dtype, compiles=True)

    def resources(self) -> Resources:
        return Resources(gpus=weights.gpus_wanted(), memory=weights.memory(self.model, self.pruned, precision=self.dtype))

    def load(self, folder: Path) -> TableFunction:
        import torch

        original, tokenizer = weights.load_causal_lm(self.model, self.dtype)
        pruned, other = weights.load_causal_lm(self.pruned, self.dtype)
        if tokenizer.get_vocab() != other.get_vocab():
            raise UserMistake(f"'{self.model}' and '{self.pruned}' have different vocabularies: give a pruned copy of the same model")
        for model, reference in ((original, self.model), (pruned, self.pruned)):
            weights.check_window(model, self.max_tokens, reference)
        divergences = Divergences(weights.output_head(original), weights.output_head(pruned), self.chunk, weights.compiled())
        states = pair_states(original, pruned)

        def score(table: pa.Table) -> pa.Table:
            encoded = weights.encode_rows(tokenizer, table, self.template, self.max_tokens)
            rows = [(i, row) for i, row in enumerate(encoded) if row is not None and row.scored.any()]
            means = np.full((len(MEANS), len(encoded)), np.nan)
            for picked in length_batches([len(row.ids) for _, row in rows], self.batch_tokens):
                batch = weights.collate([rows[i][1] for i in picked])
                with torch.inference_mode():
                    a, b = (hidden[batch.rows, batch.columns] for hidden in states(batch.inputs))
                    found = divergences(a, b, batch.targets)
                tokens = np.stack([found.jsd, -found.log_a, -found.log_b, found.log_a - found.log_b, found.jsd * np.exp(found.log_a)])
                means[:, [rows[i][0] for i in picked]] = mean_by_row(tokens, batch.rows.cpu().numpy(), len(picked))
            columns = {name: pa.array(values.astype(np.float32), from_pandas=True) for name, values in zip(MEANS, means, strict=True)}
            counts = pa.array([None if row is None else int(row.scored.sum()) for row in encoded], pa.int32())
            return pa.table({**columns, "response_tokens_scored": counts})

        return score


def mean_by_row(tokens: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Means (measures, count), float64, of `tokens` (measures, n) over the tokens of each row; `rows` int64 (n,)."""
    totals = np.stack([np.bincount(rows, values.astype(np.float64), minlength=count) for values in tokens])
    return totals / np.bincount(rows, minlength=count)


def pair_states(original: Any, pruned: Any) -> Any:
    """A function from inputs to the final hidden states of both models, the common first layers computed once.

    That is done where `curate prune` left the list of removed layers in the pruned model's configuration, the layers
    before the first of them are equal in both to the bit, and a probe gives the pruned model's own states.
    """
    import torch

    def apart(inputs: Any) -> tuple[Any, Any]:
        return weights.hidden_states(original, inputs), weights.hidden_states(pruned, inputs)

    removed = getattr(pruned.config, "curate_removed_layers", None)
    if not removed or not _same_prefix(original, pruned, removed[0]):
        return apart
    shared = SharedPrefix(original, pruned, removed)
    probe = torch.arange(1, 17, device=weights.device()).reshape(2, 8)
    with torch.inference_mode():
        same = torch.equal(shared(probe)[1], weights.hidden_states(pruned, probe))
    return shared if same else apart


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
