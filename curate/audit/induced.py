"""What does a filter's choice teach? Every way of choosing trains small models, and these are judged on text that none saw (`proxy.py`).

All arms read equally many tokens; arms of one seed begin from the same weights. Differences from random rows are paired by seed and by judge.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from curate import hardware
from curate.algorithms import paired
from curate.audit import proxy
from curate.audit.corpus import Corpus, highest
from curate.errors import UserMistake
from curate.jobs import Results, run_jobs
from curate.score._trusted import draw
from curate.training import train_pieces

CUTS = (0.05, 0.1, 0.2)  # of the pool's tokens
JUDGES, JUDGED = 400, 4  # so many texts are judged by, a draw of them; of each the first four windows
Say = Callable[[str], None]


def induced(
    corpus: Corpus, judges: Sequence[str], folder: Path, cuts: Sequence[float], seeds: int, tokens: int | None,
    workers: int, seed: int, say: Say, model: proxy.ProxyModel | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Models trained on what each score keeps at each cut, and on random rows; their loss on `judges`, and its difference from random.

    Every arm reads as many tokens: `tokens`, or as many as the smallest cut of the pool holds.
    """
    model = model or proxy.ProxyModel()
    texts = corpus.texts()
    pool = np.flatnonzero(corpus.pool)
    sample = sorted(pool.tolist(), key=lambda i: draw(seed, "pieces", texts[i]))[:2000]
    tokenizer = train_pieces([texts[i][:8000] for i in sample], model.vocabulary)
    read = proxy.encode(tokenizer, [texts[i] for i in pool])
    judges = sorted(judges, key=lambda text: draw(seed, "judges", text))[:JUDGES]
    judged = [ids[: JUDGED * model.context] for ids in proxy.encode(tokenizer, judges)]
    judged_bytes = np.array([len(text.encode()) for text in proxy.decode(tokenizer, judged)])
    mass = np.array([len(ids) + 1 for ids in read], np.float64)
    budget = tokens or int(min(cuts) * mass.sum())
    if budget < 20 * model.context * model.batch_blocks:
        raise UserMistake(
            f"the smallest cut of the pool holds {budget:,} tokens, too few to train on: audit a larger run, or give larger --cuts"
        )
    arms = []
    everything = np.ones(len(pool), bool)
    for number in range(seeds):
        for name, scores in corpus.scores.items():
            for cut in cuts:
                arms.append(_arm(f"{name} {cut:.0%}", number, highest(scores[pool], mass, everything, cut), seed))
        arms.append(_arm("random", number, everything, seed))
    basis = [_settings(model), budget, _digest([text[:8000] for text in judges]), _digest([tokenizer])]
    keys = [_digest([*map(str, basis), str(arm.seed), *(texts[pool[row]] for row in arm.rows)]) for arm in arms]
    results = Results(folder / "trials.jsonl")
    # Two arms of the same rows are one training.
    waiting = {key: arm for key, arm in zip(keys, arms, strict=True) if key not in results.found}
    if waiting:
        say(f"{len(waiting)} small models to train on {budget:,} tokens each")
    for done, record in enumerate(run_jobs(waiting, proxy.Trainer, (model, read, judged, judged_bytes, budget), results, workers), 1):
        say(
            f"{done:>3}/{len(waiting)}  {record['arm']:<28} seed {record['seed']}  {np.mean(record['losses']):.4f} nats per byte  {record['cpu_seconds']:.0f} CPU-s"
        )
    records = [{**results.found[key], "arm": arm.name, "seed": arm.seed} for key, arm in zip(keys, arms, strict=True)]
    return {"tokens": budget, "pool_tokens": int(mass.sum()), "judges": len(judges), "seeds": seeds, **_outcome(records)}


def _arm(name: str, number: int, chosen: np.ndarray, seed: int) -> proxy.Arm:
    rows = np.random.default_rng([seed, number]).permutation(len(chosen))
    return proxy.Arm(name, number, tuple(rows[chosen[rows]].tolist()))


def _outcome(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and differences from random rows, paired by seed and by judge."""
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        by_arm.setdefault(record["arm"], []).append(record)
    losses = {arm: np.array([record["losses"] for record in found]) for arm, found in by_arm.items()}
    one = np.zeros(losses["random"].shape[1], np.int64)
    arms: dict[str, dict[str, Any]] = {}
    for arm, found in sorted(by_arm.items(), key=lambda item: float(losses[item[0]].mean())):
        arms[arm] = {
            "loss": float(losses[arm].mean()),
            "epochs": float(np.mean([record["epochs"] for record in found])),
            "rows": float(np.mean([record["rows"] for record in found])),
        }
        if arm != "random":
            arms[arm]["difference"] = paired.contrast(losses[arm], losses["random"], one)
    return {"arms": arms}


def _settings(model: proxy.ProxyModel) -> str:
    return _digest(
        [
            repr(model),
            json.dumps(hardware.execution_identity()),
            *(metadata.version(name) for name in ("torch", "transformers", "tokenizers")),
        ]
    )


def _digest(parts: Sequence[str]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part.encode())
    return found.hexdigest()[:16]
