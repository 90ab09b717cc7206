"""What can go wrong, and how a command ends. Every message says what happened and ends with the remedy."""

from __future__ import annotations

from typing import ClassVar


class CurateError(Exception):
    """Base of every error that is shown as one message, without a traceback; `exit_code` is the command's."""

    exit_code: ClassVar[int] = 1


class InternalError(CurateError):
    """A promise of ours does not hold (an unbalanced ledger, for one): never the user's fault."""


class OutOfMemory(CurateError):
    """A shard does not fit, with the smallest batches of its stage."""


class Damaged(InternalError):
    """A committed file cannot be read any more. Its only argument is the path; a run that meets it removes the file."""

    def __str__(self) -> str:
        return f"{self.args[0]} is damaged: run the same command again, it is computed anew"


class UserMistake(CurateError):
    """The recipe or the input is not what it has to be: a missing column, a wrong type, a path with nothing in it."""

    exit_code = 2


class UnreadableFile(CurateError):
    """An input file cannot be read whole: the run goes on without it and says so at the end.

    passing   the reason may be gone tomorrow while the file is the same (rights, a mount, the network): the next run tries again
    """

    exit_code = 3

    def __init__(self, message: str, passing: bool = False):
        super().__init__(message)
        self.passing = passing


class NeedsDecision(CurateError):
    """Drift, a large recompute or most files gone: the user has to say yes (`--accept`) before the next version is published."""

    exit_code = 4


class Locked(CurateError):
    """Another run holds the lock of this run folder."""

    exit_code = 5


class DiskFull(CurateError):
    """No space left where the run writes; what is committed stays, the run resumes after space is freed."""

    exit_code = 6


class EndpointUnavailable(CurateError):
    """A model endpoint or a store does not answer; everything so far is stored: try again later."""

    exit_code = 75


class EngineUnavailable(CurateError):
    """Ray does not start, or its cluster does not answer: nothing was computed, try again later."""

    exit_code = 75


class Stopped(CurateError):
    """Stopped on request (SIGINT, SIGTERM) at a point from which the same command resumes."""

    exit_code = 130
