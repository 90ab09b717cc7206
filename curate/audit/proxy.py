"""What does a filter's choice teach? Small language models from random weights, each trained on what one way of choosing keeps, judged on other text.

Data Filtering Networks (Fang et al. 2023, arXiv 2309.17425) rank filters by the model that their data induces and not by their own accuracy. Here the model is
a Llama of 0.9 million weights over bytes joined to 2,048 pieces: half a minute on one core. All arms train on equally many tokens from the same
weights of a seed, and are judged by nats per byte on documents that are neither trained on nor trusted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate import hardware, models
from curate.algorithms.batches import length_batches
from curate.training import train_on_blocks


@dataclass(frozen=True)
class ProxyModel:
    """The model that is trained. context  tokens of a block; batch_blocks  blocks of a step."""

    vocabulary: int = 2048
    width: int = 128
    layers: int = 3
    heads: int = 4
    context: int = 128
    batch_blocks: int = 4
    learning_rate: float = 3e-3


@dataclass(frozen=True)
class Arm:
    """One training: `rows` of the pool (int64), in the order in which they are read, as often as `tokens` need."""

    name: str
    seed: int
    rows: tuple[int, ...]


def encode(tokenizer: str, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of each text, uint16."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_str(tokenizer)
    found.no_truncation()
    return [np.array(found.encode(text, add_special_tokens=False).ids, np.uint16) for text in texts]


def decode(tokenizer: str, ids: Sequence[np.ndarray]) -> list[str]:
    from tokenizers import Tokenizer

    found = Tokenizer.from_str(tokenizer)
    return [found.decode(one.tolist()) for one in ids]


class Trainer:
    """A process that trains arms and judges them.

    pool, judged   token ids of each document, uint16;  judged_bytes   its bytes, int64
    tokens         that every arm trains on
    """

    def __init__(self, settings: ProxyModel, pool: list[np.ndarray], judged: list[np.ndarray], judged_bytes: np.ndarray, tokens: int):
        self.settings, self.pool, self.judged, self.bytes, self.tokens = settings, pool, judged, judged_bytes, tokens

    def run(self, arm: Arm) -> dict[str, Any]:
        """A record: `losses` of each judged document (nats per byte), and what was trained on."""
        began = time.process_time()
        s = self.settings
        stream, rounds = self.stream(arm.rows)
        model = models.fresh_causal_lm(s.vocabulary, s.width, s.layers, s.heads, s.context, arm.seed)
        steps = train_on_blocks(model, stream, s.learning_rate, s.batch_blocks)
        losses = self.judge(model)
        return {
            "arm": arm.name, "seed": arm.seed, "rows": len(arm.rows), "tokens": int(stream.size), "epochs": round(rounds, 3),
            "training_loss": [round(float(part.mean()), 4) for part in np.array_split(steps, 4) if len(part)],
            "losses": [round(float(loss), 6) for loss in losses], "cpu_seconds": round(time.process_time() - began, 1),
        }  # fmt: skip

    def stream(self, rows: Sequence[int]) -> tuple[np.ndarray, float]:
        """(blocks int64 (n, context) of `tokens` tokens, each document begun by the end of the one before; how often all rows were read)."""
        whole = np.concatenate([np.concatenate([[0], self.pool[row]]) for row in rows]).astype(np.int64)
        blocks = self.tokens // self.settings.context
        wanted = blocks * self.settings.context
        return np.resize(whole, wanted).reshape(blocks, self.settings.context), wanted / len(whole)

    def judge(self, model: Any) -> np.ndarray:
        """Nats per byte of each document, float64: in windows of the context, each begun by the end of a document."""
        import torch

        width = self.settings.context - 1
        windows = [(i, ids[at : at + width].astype(np.int64)) for i, ids in enumerate(self.judged) for at in range(0, len(ids), width)]
        nats = np.zeros(len(self.judged))
        for batch in length_batches([len(ids) for _, ids in windows], 8192):
            longest = max(len(windows[i][1]) for i in batch)
            inputs = np.zeros((len(batch), longest + 1), np.int64)
            target = np.full((len(batch), longest), -100, np.int64)
            for place, i in enumerate(batch):
                ids = windows[i][1]
                inputs[place, 1 : len(ids) + 1] = target[place, : len(ids)] = ids
            with torch.inference_mode():
                logits = model(input_ids=torch.from_numpy(inputs).to(hardware.device())).logits[:, :-1].float()
                loss = torch.nn.functional.cross_entropy(
                    logits.transpose(1, 2), torch.from_numpy(target).to(logits.device), reduction="none"
                )
            np.add.at(nats, [windows[i][0] for i in batch], loss.double().sum(1).cpu().numpy())
        return nats / np.maximum(self.bytes, 1)
