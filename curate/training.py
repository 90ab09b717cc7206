"""The training loops of the library. Each is deterministic: same arrays in, same weights out, on one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from curate import encoding, hardware, models
from curate.errors import UserMistake


def fit_logistic(
    features: Any, positive: np.ndarray, strength: float = 1.0, scaled: bool = False, weight: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Weights float64 (columns,) and bias of an L2-regularised logistic regression, classes weighted equally.

    features  (n, columns), dense or scipy sparse; positive  bool (n,); strength  inverse of the regularisation
    scaled    dense columns of different units: regularised as if each had mean 0 and deviation 1; the weights are for the columns as given
    weight    (n,) what each row counts; None: 1. A row and its copies that share a weight of 1 leave the regularisation what it is: copies at full
              weight weaken it, and what that does to the scores is easily taken for the effect of the copies
    """
    from sklearn.linear_model import LogisticRegression

    if positive.all() or not positive.any():
        raise ValueError("a logistic regression needs rows of both classes: check what is marked as trusted")
    mean, deviation = 0.0, 1.0
    if scaled:
        mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
        deviation[deviation == 0] = 1.0  # a column that is the same everywhere says nothing
        features = (features - mean) / deviation
    # L-BFGS: no random numbers, unlike liblinear and saga.
    head = LogisticRegression(C=strength, class_weight="balanced", solver="lbfgs", max_iter=300, tol=1e-5)
    head.fit(features, positive.astype(np.int8), sample_weight=weight)
    weights = head.coef_[0].astype(np.float64) / deviation
    return weights, float(head.intercept_[0] - (weights * mean).sum())


class Tuning(BaseModel):
    """Settings of a supervised fine-tuning on responses.

    method         full: every weight; lora: low-rank adapters on all linear maps of the layers (Hu et al. 2021, arXiv 2106.09685)
    learning_rate  peak; rises over the first `warmup` of the steps, then falls along a half cosine to 0
    batch_rows     rows per step; rows of like length are put together, which saves padding
    clip           largest norm of the gradient
    max_tokens     a longer row loses its beginning
    prompt_weight  what the mean loss of the prompt tokens counts beside that of the response tokens (instruction modelling, Shi et al. 2024,
                   arXiv 2405.14394): 0 trains on responses alone

    Weights and optimizer are float32 always; on hardware that is faster in bfloat16 the products are (autocast).
    Half precision weights are not offered: float16 fine-tuning of Llama models is known to diverge (issues of LLM-Pruner).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: Literal["full", "lora"] = "full"
    learning_rate: float = Field(default=1e-4, gt=0)
    warmup: float = Field(default=0.1, ge=0, le=1)
    batch_rows: int = Field(default=4, ge=1)
    clip: float = Field(default=1.0, gt=0)
    epochs: int = Field(default=1, ge=1)
    max_tokens: int = Field(default=256, ge=16)
    template: encoding.Template = "chat"
    lora_rank: int = Field(default=8, ge=1)
    lora_alpha: int = Field(default=16, ge=1)
    prompt_weight: float = Field(default=0.0, ge=0)


def tune(
    model: Any, rows: Sequence[encoding.Encoded], settings: Tuning, seed: int, tick: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Fine-tune `model` in place on the scored tokens of `rows`; the loss of each step, float64 (steps,), nats per token.

    The order of rows follows from `seed`. `tick(step, steps)` is called after each step.
    """
    import torch

    if not rows:
        raise UserMistake("there is no row with a response to train on: choose more rows")
    with torch.random.fork_rng(devices=[hardware.device()] if hardware.device() == "cuda" else []):
        torch.manual_seed(seed)
        weights = _trainable(model, settings)
        optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0, fused=True)
        rng = np.random.default_rng(seed)
        batches = [
            batch for _ in range(settings.epochs) for batch in shuffled_batches([len(row.ids) for row in rows], settings.batch_rows, rng)
        ]
        model.train()
        losses = np.zeros(len(batches))
        with models.attention_for_training(model):
            for step, batch in enumerate(batches):
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * schedule(step, len(batches), settings.warmup)
                loss = _loss(model, [rows[i] for i in batch], settings.prompt_weight)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, settings.clip, foreach=True)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                losses[step] = float(loss.detach())
                if not np.isfinite(losses[step]):
                    raise UserMistake(f"training diverged at step {step + 1} of {len(batches)}: set a smaller learning rate")
                if step % 10 == 9:
                    hardware.give_back_freed_memory()
                if tick:
                    tick(step + 1, len(batches))
    model.eval().requires_grad_(False)
    return losses


END = "<end>"  # of a document, id 0 of `train_pieces`


def train_pieces(texts: Sequence[str], vocabulary: int) -> str:
    """A byte-level BPE of these texts (Sennrich et al. 2016, arXiv 1508.07909), as the JSON of `tokenizers`: it spells any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[END], initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def train_on_blocks(
    model: Any,
    blocks: np.ndarray,
    learning_rate: float,
    batch_blocks: int,
    warmup: float = 0.1,
    tick: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Train `model` in place to foretell the next token, on blocks in their order, once; the loss of each step, float64, nats per token.

    blocks  int64 (n, context): token ids. AdamW as for GPT-3 (beta 0.9 and 0.95, weight decay 0.1, clip 1), half a cosine to a tenth.
    """
    import torch

    model.train().requires_grad_(True)
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    steps = -(-len(blocks) // batch_blocks)
    losses = np.zeros(steps)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (0.1 + 0.9 * schedule(step, steps, warmup))
        batch = torch.from_numpy(blocks[step * batch_blocks : (step + 1) * batch_blocks]).to(hardware.device())
        with _autocast():
            logits = model(input_ids=batch).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses[step] = float(loss.detach())
        if tick:
            tick(step + 1, steps)
    model.eval().requires_grad_(False)
    return losses


def shuffled_batches(lengths: Sequence[int], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every index once, in batches of `size` rows of like length: sorted inside windows of 16 shuffled batches, then shuffled."""
    order = rng.permutation(len(lengths))
    batches = []
    for first in range(0, len(order), 16 * size):
        window = order[first : first + 16 * size]
        window = window[np.argsort(np.asarray(lengths)[window], kind="stable")]
        batches += [window[i : i + size] for i in range(0, len(window), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at `step` of `steps`: linear rise, half cosine to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + float(np.cos(np.pi * (step - rise) / max(1, steps - rise))))


def _loss(model: Any, rows: list[encoding.Encoded], prompt_weight: float) -> Any:
    """Mean loss over the response tokens of a batch, and `prompt_weight` times that over its prompt tokens; the head is applied at these alone."""
    import torch

    asked = [row._replace(scored=np.arange(len(row.ids)) > 0) for row in rows] if prompt_weight else rows
    # Every shape of a product is prepared once and kept: with as many shapes as lengths they crowd each other out and leave the heap in splinters (docs/log.md, 2026-11-29).
    batch = models.collate(asked, 16, getattr(model.config, "max_position_embeddings", None))
    with _autocast():
        states = models.hidden_states(model, batch.inputs)[batch.rows, batch.columns]
        logits = model.get_output_embeddings()(states).float()
        if not prompt_weight:
            return torch.nn.functional.cross_entropy(logits, batch.targets)
        each = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
        response = torch.from_numpy(np.concatenate([row.scored[1:] for row in rows])).to(each.device)
        prompt = each[~response].mean() if not response.all() else 0.0
        return each[response].mean() + prompt_weight * prompt


def _autocast() -> Any:
    import torch

    return torch.autocast(hardware.device(), torch.bfloat16, enabled=hardware.dtype() == "bfloat16")


def _trainable(model: Any, settings: Tuning) -> list[Any]:
    if settings.method == "full":
        model.requires_grad_(True)
    else:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise UserMistake("method lora needs peft: pip install peft") from None
        config = LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules="all-linear", bias="none")
        inject_adapter_in_model(config, model.base_model)
        for name, weight in model.named_parameters():
            weight.requires_grad_("lora_" in name)
    return [weight for weight in model.parameters() if weight.requires_grad]
