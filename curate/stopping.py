"""The polite stop: set by the first Ctrl-C or SIGTERM, looked at between shards. Imports nothing heavy."""

from __future__ import annotations

import threading

from curate.errors import Stopped

stop = threading.Event()


def check_stop() -> None:
    """Raise Stopped where a stop was asked for."""
    if stop.is_set():
        raise Stopped("stopped on request; everything finished so far is kept: run the same command to go on")
