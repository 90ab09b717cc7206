"""PASER's selection as the paper describes it (He et al. 2025, arXiv 2502.12594), for comparison and for who wants it.

Budgets by the mean JSD of a cluster (eq. 6), rows by JSD over the logarithm of their cost (eq. 7), and the concept
consistency graph against conflicts. Two things differ, both to the paper's advantage: a budget above what a cluster
holds goes to the others, and so does the rest of rounding. The released program does something else (it sums JSD over
instruction tokens): `degradation.released_code: true` writes that score, `by: ies_released` ranks by it.

On the instruction pool measured here the concept graph ends a selection early: benchmarks/results/conflicts.md.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curate.select.budget import Budget


class Paser(Budget):
    """Budgets by mean divergence, rows by divergence over log cost, concepts kept consistent: PASER as published."""

    by: str | None = Field("ies", description="score column, best first")
    groups: str | None = Field("cluster", description="column whose values share the budget")
    allocation: Literal["size", "uniform", "mean", "size_mean", "sqrt_size_mean"] | None = "mean"
    share_by: str | None = Field("jsd", description="column whose mean over a group is the group's weight")
    conflicts: Literal["none", "concepts", "concepts_any_order"] = "concepts"

    @model_validator(mode="after")
    def _best_first(self) -> Paser:
        if self.order == "lowest":
            raise ValueError("paser takes the rows with the highest `ies` first: leave out `order: lowest`, and the `by` that came with it")
        return self
