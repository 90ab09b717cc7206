"""Weight pruning by magnitude times input norm (Sun et al. 2024, Wanda, arXiv 2306.11695).

As in the paper and its code: the layers are walked in order, and each is judged on what the layers before it, already
pruned, give it. Linear maps of the decoder layers lose weights; embeddings, norms and the output head do not. The copy
is dense with zeros in it: it says what such a model has lost, it does not run faster by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from curate import hardware, models
from curate.algorithms.wanda import zeroed
from curate.encoding import Encoded
from curate.errors import UserMistake
from curate.prune._pruning import Pruning


class Wanda(Pruning):
    """Makes the pruned copy of a model: sets to zero the weights that count least on rows of this run.

    sparsity  share of the weights of every output row that become zero
    pattern   "2:4" (or "4:8"): two of every four (four of every eight) neighbouring weights instead, which some hardware can use

    The note adds `pruned_weights` (weights that could be pruned) and `sparsity_reached` among them.
    """

    sparsity: float = Field(default=0.5, gt=0, lt=1)
    pattern: Literal["2:4", "4:8"] | None = None

    @model_validator(mode="after")
    def _half(self) -> Wanda:
        if self.pattern and self.sparsity != 0.5:
            raise ValueError(f"pattern {self.pattern} means sparsity 0.5: leave out one of the two")
        return self

    def cut(self, model: Any, calibration: Sequence[Encoded]) -> dict[str, Any]:
        import torch

        layers = models.decoder_layers(model)
        linears = [[module for module in layer.modules() if isinstance(module, torch.nn.Linear)] for layer in layers]
        matrices = sum(weight.ndim > 1 for layer in layers for weight in layer.parameters())
        if matrices != sum(map(len, linears)):
            raise UserMistake(f"{type(model).__name__} keeps weights outside of linear maps (experts?): use a dense Llama-like model")
        with torch.inference_mode():
            texts, calls = _entering(model, layers, calibration)
            for i, layer in enumerate(layers):
                squares: dict[Any, Any] = dict.fromkeys(linears[i], 0.0)
                handles = [linear.register_forward_pre_hook(_adding(squares)) for linear in linears[i]]
                for text, call in zip(texts, calls, strict=True):
                    _run(layer, text, call[i])
                for handle in handles:
                    handle.remove()
                for linear, total in squares.items():
                    linear.weight[self._zeros(linear.weight, total)] = 0.0
                texts = [_run(layer, text, call[i]) for text, call in zip(texts, calls, strict=True)]
        weights = [linear.weight for row in linears for linear in row]
        count = sum(weight.numel() for weight in weights)
        zeros = sum(int((weight == 0).sum()) for weight in weights)
        return {"pruned_weights": count, "sparsity_reached": round(zeros / count, 6)}

    def _zeros(self, weight: Any, squares: Any) -> Any:
        """Mask of the weights to be zeroed; `squares` float64 (inputs,): sums of the squared inputs over all tokens."""
        inputs = weight.shape[1]
        zeros, group = map(int, self.pattern.split(":")) if self.pattern else (int(inputs * self.sparsity), inputs)
        if inputs % group:
            raise UserMistake(f"a linear map has {inputs} inputs, which pattern {self.pattern} does not divide: leave pattern out")
        return zeroed(weight, squares.sqrt().to(weight.dtype), zeros, group)


Call = tuple[tuple[Any, ...], dict[str, Any]]  # what a layer is given besides the states


def _entering(model: Any, layers: Any, encoded: Sequence[Encoded]) -> tuple[list[Any], list[list[Call]]]:
    """For each text the states that enter the first layer, and what each layer is given besides (masks, positions).

    The layers pass their input on while the model is run for this, which costs next to nothing.
    """
    import torch

    texts: list[Any] = []
    calls: list[list[Call]] = []

    def see(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is layers[0]:
            texts.append(args[0])
            calls.append([])
        calls[-1].append((args[1:], kwargs))

    handles = [layer.register_forward_pre_hook(see, with_kwargs=True) for layer in layers]
    for layer in layers:
        layer.forward = lambda states, *args, **kwargs: states
    try:
        for row in encoded:
            models.hidden_states(model, torch.from_numpy(row.ids)[None].to(hardware.device()))
    finally:
        for layer, handle in zip(layers, handles, strict=True):
            del layer.forward  # the class's own shows again
            handle.remove()
    return texts, calls


def _run(layer: Any, states: Any, call: Call) -> Any:
    found = layer(states, *call[0], **call[1])
    return found[0] if isinstance(found, tuple) else found


def _adding(squares: dict[Any, Any]) -> Any:
    """A hook that adds the squares of a linear map's inputs, summed over tokens, to its entry."""
    import torch

    def hook(module: Any, args: tuple[Any, ...]) -> None:
        squares[module] = squares[module] + args[0].square().sum((0, 1), dtype=torch.float64)

    return hook
