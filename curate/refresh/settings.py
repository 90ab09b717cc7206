"""The recipe's `refresh:` section."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Thresholds(BaseModel):
    """From which figure on new rows count as drifted. Each must also lie beyond what chance alone gives (1 %)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outside: float = Field(
        default=0.05, ge=0, le=1, description="share of new rows farther from their cluster's mean than 99 % of the rows of the fit"
    )
    energy: float = Field(default=0.05, ge=0, description="energy distance between the vectors of new rows and those of the fit")
    shift: float = Field(default=0.2, ge=0, le=1, description="share of rows that would have to change cluster")
    score: float = Field(default=0.25, ge=0, description="population stability index of a score, new rows against the version before")


class Refresh(BaseModel):
    """How `curate refresh` treats what has changed since the last version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_versions: int = Field(default=5, ge=1, description="versions whose rows stay on the disk")
    on_vanish: Literal["drop", "keep"] = Field(default="drop", description="rows of a file that is not there any more")
    most_vanished: float = Field(
        default=0.5, ge=0, le=1, description="share of the files that may vanish; above it exit code 4 until --accept"
    )
    most_recomputed: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="share of a step's shards that changed code, settings or models may run again; above it exit code 4 until --accept",
    )
    budget: Literal["same", "share"] = Field(
        default="same", description="same: a budget given as a share stays the amount that it was at first; share: it grows with the rows"
    )
    drift: Literal["warn", "stop", "refit"] = Field(
        default="warn",
        description="new rows are unlike those that models were fitted on: say so; exit code 4 until --accept; or fit the models anew",
    )
    drift_from: Thresholds = Field(default=Thresholds())
