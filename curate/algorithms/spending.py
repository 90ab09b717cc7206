"""Take the best rows of every group until its share is used up, then the best anywhere: arrays in, arrays out."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

SLACK = 1e-9  # of sums of whole tokens


class Conflicts(Protocol):
    """What may stand against a row, given the rows accepted so far."""

    def against(self, row: int) -> int:
        """An accepted row that this one conflicts with; -1: none."""

    def accept(self, row: int) -> None: ...


class Spent(NamedTuple):
    chosen: np.ndarray  # bool (n,)
    refused: dict[int, int]  # row -> the accepted row it conflicts with


def spend(
    order: np.ndarray,
    group: np.ndarray,
    cost: np.ndarray,
    shares: np.ndarray,
    budget: float,
    *,
    barred: np.ndarray | None = None,
    made: np.ndarray | None = None,
    source: np.ndarray | None = None,
    made_room: float = 0.0,
    conflicts: Conflicts | None = None,
) -> Spent:
    """The chosen rows. Never more than `budget`; to within one row of it, while rows last.

    order      int (n,): row numbers, best first
    group      int (n,) in 0..K-1;  cost: float (n,) >= 0, in the unit of `shares` (K,) and `budget`
    barred     bool (n,): rows that are never taken
    made       bool (n,): generated rows, which together take at most `made_room`
    source     int (n,): the row whose place a row takes (it leaves, and what it cost comes back); -1: none
    conflicts  asked about every row before it is taken; a refused row's share stays with its group

    A group ends at the first row that does not fit. Going on to smaller ones would fill the last tokens, and would
    prefer short rows over better ones. What whole rows leave over goes to the best rows anywhere, again until one
    does not fit. Time O(n + chosen), without the conflicts.
    """
    n = len(order)
    chosen, gone = np.zeros(n, bool), np.zeros(n, bool) if barred is None else barred.copy()
    refused: dict[int, int] = {}
    spent_by_group, spent, spent_made = np.zeros(len(shares)), 0.0, 0.0

    def walk(rows: np.ndarray, limit: float, of: int | None) -> None:
        nonlocal spent, spent_made
        for row in rows:
            if chosen[row] or gone[row]:
                continue
            price = float(cost[row])
            if made is not None and made[row] and spent_made + price > made_room + SLACK:
                continue
            if conflicts is not None and (twin := conflicts.against(row)) >= 0:
                refused[int(row)], gone[row] = twin, True
                continue
            if (spent if of is None else spent_by_group[of]) + price > limit + SLACK:
                break
            if source is not None and (replaced := source[row]) >= 0:
                gone[replaced] = True
                if chosen[replaced]:
                    chosen[replaced] = False
                    spent -= float(cost[replaced])
                    spent_by_group[group[replaced]] -= cost[replaced]
            chosen[row] = True
            spent += price
            spent_by_group[group[row]] += price
            if made is not None and made[row]:
                spent_made += price
            if conflicts is not None:
                conflicts.accept(row)

    by_group = order[np.argsort(group[order], kind="stable")]
    ends = np.cumsum(np.bincount(group, minlength=len(shares)))
    for number, end in enumerate(ends):
        walk(by_group[ends[number - 1] if number else 0 : end], float(shares[number]), number)
    walk(order, budget, None)
    return Spent(chosen, refused)
