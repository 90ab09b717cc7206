"""What a person sees while a run works: one live table on a terminal, plain lines elsewhere.

embed       3/11 shards   14,200 rows     212 rows/s   ETA 1m 40s
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO


class Silent:
    """No output at all (tests, and `curate.run` from Python unless asked)."""

    def begin(self, step: str, shards: int, rows: int, reused: int) -> None: ...

    def note(self, step: str, text: str) -> None: ...

    def advance(self, rows: int) -> None: ...

    def end(self, step: str, facts: Any) -> None: ...

    def close(self) -> None: ...


class Lines(Silent):
    """Plain lines to stderr: one when a step ends, one every few seconds while it works."""

    EVERY = 10.0

    def __init__(self, out: TextIO | None = None):
        self.out = out or sys.stderr
        self.step, self.shards, self.done, self.rows, self.to_do = "", 0, 0, 0, 0
        self.started = self.said = time.monotonic()

    def begin(self, step: str, shards: int, rows: int, reused: int) -> None:
        self.step, self.shards, self.done, self.rows, self.to_do = step, shards, reused, 0, rows
        self.started = self.said = time.monotonic()
        self.announce()

    def announce(self) -> None:
        """Say what begins: a shard of a language-model stage can take minutes."""
        still = f", {self.done} done already" if self.done else ""
        self.out.write(f"{self.step:<16} begins: {self.shards} shard{'s' if self.shards != 1 else ''}{still}\n")
        self.out.flush()

    def note(self, step: str, text: str) -> None:
        self.out.write(f"{step:<16} {text}\n")
        self.out.flush()

    def advance(self, rows: int) -> None:
        self.done, self.rows = self.done + 1, self.rows + rows
        if time.monotonic() - self.said >= self.EVERY:
            self.said = time.monotonic()
            self.out.write(self.line() + "\n")
            self.out.flush()

    def line(self) -> str:
        seconds = max(time.monotonic() - self.started, 1e-6)
        rate = self.rows / seconds
        eta = f"   ETA {duration((self.to_do - self.rows) / rate)}" if rate and self.to_do > self.rows else ""
        return f"{self.step:<16} {self.done:>4}/{self.shards} shards  {self.rows:>10,} rows  {rate:>9,.0f} rows/s{eta}"

    def end(self, step: str, facts: Any) -> None:
        what = did(facts)
        extra = f", {facts.generated:,} new rows" if facts.generated else ""
        self.out.write(f"{step:<16} {what:<20} {facts.rows:>10,} rows  {duration(facts.seconds):>8}{extra}\n")
        self.out.flush()


class Live(Lines):
    """One table on a terminal, redrawn in place."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live as RichLive

        self.ended: dict[str, Any] = {}
        self.noted = ""
        self.live = RichLive(console=Console(stderr=True), refresh_per_second=4, get_renderable=self._table)
        self.live.start()

    def _table(self) -> Any:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for name, side in (
            ("stage", "left"),
            ("shards", "right"),
            ("rows", "right"),
            ("rows/s", "right"),
            ("time", "right"),
            ("ETA", "right"),
        ):
            table.add_column(name, justify=side)  # type: ignore[arg-type]
        for name, facts in self.ended.items():
            shards = f"{facts.executed}/{facts.executed + facts.reused}"
            rate = f"{facts.rows / facts.seconds:,.0f}" if facts.executed and facts.seconds > 0.001 else ""
            table.add_row(name, shards, f"{facts.rows:,}", rate, duration(facts.seconds), "done", style="dim" if not facts.executed else "")
        if self.step and self.step not in self.ended:
            seconds = max(time.monotonic() - self.started, 1e-6)
            rate_now = self.rows / seconds
            eta = duration((self.to_do - self.rows) / rate_now) if rate_now and self.to_do > self.rows else self.noted
            table.add_row(
                self.step, f"{self.done}/{self.shards}", f"{self.rows:,}", f"{rate_now:,.0f}", duration(seconds), eta, style="bold"
            )
        return table

    def announce(self) -> None:
        """The table shows it."""

    def begin(self, step: str, shards: int, rows: int, reused: int) -> None:
        super().begin(step, shards, rows, reused)
        self.ended.pop(step, None)
        self.noted = ""

    def note(self, step: str, text: str) -> None:
        if self.step != step:
            self.begin(step, 0, 0, 0)
        self.noted = text

    def advance(self, rows: int) -> None:
        self.done, self.rows = self.done + 1, self.rows + rows

    def end(self, step: str, facts: Any) -> None:
        self.ended[step] = facts

    def close(self) -> None:
        self.live.stop()


def did(facts: Any) -> str:
    """What a step did, in a few words; ingest counts source files."""
    if not facts.executed:
        return "fitted" if facts.fitted == "fitted" else "nothing to do"
    unit = "files" if facts.stage == "Ingest" else "shards"
    return f"{facts.executed} of {facts.executed + facts.reused} {unit}"


def duration(seconds: float) -> str:
    """3.2 s, 2m 05s, 1h 20m."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def every_few_seconds(every: float = 5.0) -> Callable[[Callable[[], str]], None]:
    """A function that writes a line to stderr, but not more often than that."""
    said = time.monotonic()

    def say(line: Callable[[], str]) -> None:
        nonlocal said
        if time.monotonic() - said >= every:
            said = time.monotonic()
            sys.stderr.write(line() + "\n")
            sys.stderr.flush()

    return say


def best() -> Silent:
    """A live table where someone watches a terminal, plain lines elsewhere."""
    return Live() if sys.stderr.isatty() else Lines()
