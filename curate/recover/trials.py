"""One trial of a recovery experiment: fine-tune a model on some rows, then examine it on rows it has not seen.

A trial is named by the content of the models, rows, answers and settings that decide it (not by our code), and a finished one is a line of a JSONL file: an experiment
goes on where it was stopped, in as many sittings as it needs, and rows picked twice are trained on once.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from curate import encoding, hardware, models
from curate.algorithms.jsd import Divergences
from curate.jobs import Results, run_jobs
from curate.score.degradation import Pair, row_means
from curate.score.perplexity import MeanLoss
from curate.training import Tuning, tune

Row = Mapping[str, Any]  # with the columns of encoding.ROW


@dataclass(frozen=True)
class Exam:
    """What a model is examined on.

    rows    held-out rows with reference answers: mean loss of each response
    own     held-out prompts that the original model itself answered: divergence of the two models on that answer.
            It measures the return to the original's behaviour, whatever the style of the references
    """

    rows: tuple[Row, ...]
    own: tuple[Row, ...]
    max_tokens: int = 256
    template: encoding.Template = "chat"

    def digest(self) -> str:
        return _digest([_content(self.rows), _content(self.own), self.max_tokens, self.template])


@dataclass(frozen=True)
class Trial:
    """`rows` to fine-tune `model` on; none: the model is examined as it is. `tuning`: where it is not that of the others."""

    arm: str
    seed: int
    model: str
    rows: tuple[Row, ...]
    tuning: Tuning | None = None

    def key(self, original: str, tuning: Tuning, exam: str) -> str:
        """Equal for trials that must give equal results on this code; `exam` is the digest of the exam."""
        settings = (self.tuning or tuning).model_dump()
        if not settings["prompt_weight"]:  # younger than the first results, which stay what they were
            del settings["prompt_weight"]
        trained = [settings, self.seed, _content(self.rows)] if self.rows else None
        runs_on = [hardware.execution_identity(), *(metadata.version(name) for name in ("torch", "transformers"))]
        return _digest([models.identity(self.model), models.identity(original), trained, exam, runs_on])


def _content(rows: Sequence[Row]) -> list[list[Any]]:
    return [[row[name] for name in encoding.ROW] for row in rows]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


class Examiner:
    """A process that runs trials. `original` is the model whose behaviour is to be got back."""

    def __init__(self, original: str, tuning: Tuning, exam: Exam):
        self.tuning, self.exam = tuning, exam
        self.original, self.tokenizer = models.load_causal_lm(original)
        self.rows, self.own = ([self._encoded(row) for row in rows] for rows in (exam.rows, exam.own))
        self.states: dict[int, Any] = {}  # of the original on each batch of `own`, kept: it never changes

    def _encoded(self, row: Row) -> encoding.Encoded:
        return encoding.encode_row(self.tokenizer, row, self.exam.template, self.exam.max_tokens)

    def run(self, trial: Trial, tick: Any = None) -> dict[str, Any]:
        """A record for the results: what was trained on, and per row of the exam `losses` and `divergences` (nats)."""
        began = time.process_time()
        model, _ = models.load_causal_lm(trial.model, "float32")
        tuning = trial.tuning or self.tuning
        encoded = [encoding.encode_row(self.tokenizer, row, tuning.template, tuning.max_tokens, ends=True) for row in trial.rows]
        steps = tune(model, encoded, tuning, trial.seed, tick) if encoded else np.zeros(0)
        trained = time.process_time()
        model = models.in_dtype(model)  # trained in float32, examined in the type that is fastest here, as every scorer does
        losses = MeanLoss(model, batch_tokens=2048, chunk=512)([*self.rows])
        divergences = row_means([*self.own], [None] * len(self.own), self._pair(model), self._divergences(model), 2048)[0]
        return {
            "arm": trial.arm,
            "seed": trial.seed,
            "rows": len(encoded),
            "tokens": int(sum(len(row.ids) for row in encoded)),
            "response_tokens": int(sum(row.scored.sum() for row in encoded)),
            "steps": len(steps),
            "training_loss": [round(float(part.mean()), 4) for part in np.array_split(steps, 4) if len(part)],
            "losses": _rounded(losses),
            "divergences": _rounded(divergences),
            "cpu_seconds": [round(trained - began, 1), round(time.process_time() - trained, 1)],
        }

    def _pair(self, model: Any) -> Pair:
        def states(rows: list[encoding.Encoded], stored: list[bytes | None]) -> tuple[Any, Any]:
            batch, place = models.collate(rows), id(rows[0])  # `own` lives as long as this object, and so do its batches
            if place not in self.states:
                self.states[place] = models.hidden_states(self.original, batch.inputs)[batch.rows, batch.columns]
            return self.states[place], models.hidden_states(model, batch.inputs)[batch.rows, batch.columns]

        return states

    def _divergences(self, model: Any) -> Divergences:
        return Divergences(models.output_head(self.original), models.output_head(model), compiled=hardware.compiled())


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if value != value else round(float(value), 5) for value in values]


def run_trials(
    trials: Sequence[Trial], original: str, tuning: Tuning, exam: Exam, results: Results, workers: int = 1
) -> Iterator[dict[str, Any]]:
    """Records of all trials, finished ones first; each new one is on the disk before it is given.

    `workers` processes of one thread each. Trials that must give the same result are run once; each gets its record,
    with its own arm.
    """
    digest = exam.digest()
    keys = [trial.key(original, tuning, digest) for trial in trials]
    waiting: dict[str, list[Trial]] = {}
    for trial, key in zip(trials, keys, strict=True):
        if key in results.found:
            yield {**results.found[key], "arm": trial.arm, "seed": trial.seed, "reused": True}
        else:
            waiting.setdefault(key, []).append(trial)
    jobs = {key: same[0] for key, same in waiting.items()}
    for record in run_jobs(jobs, Examiner, (original, tuning, exam), results, workers):
        for trial in waiting[record["key"]]:
            yield {**record, "arm": trial.arm, "seed": trial.seed}
