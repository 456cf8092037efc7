"""The exceptions that a user is meant to read."""

import os
from collections.abc import Sequence


class UserError(ValueError):
    """A mistake that the user can mend.

    The message says what was found, what was expected and what to do next. Commands print it without a traceback and
    exit with code 2.
    """


class VideoError(UserError):
    """A video file that cannot be used: `path`, and `reason` in plain words."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(str(path), reason)  # Both in args, so that the exception survives pickling between processes.
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message says why."""


class UnavailableError(VideoError):
    """A video file that the system cannot read now, as on a lost disk. The file itself may be sound."""


def unreadable(path: str | os.PathLike, error: OSError, what: str = "cannot be read") -> VideoError:
    """The error to raise for a file that cannot be read.

    VideoError if its permissions forbid it: a fault of the file. UnavailableError for any other reason: a fault of the
    system.
    """
    kind = VideoError if isinstance(error, PermissionError) else UnavailableError
    return kind(path, f"{what} ({error.strerror})")


class Stopped(Exception):
    """The user asked to stop; the message says what is saved and how to go on. Commands exit with code 130."""


def listed(lines: Sequence[str], most: int = 10) -> str:
    """The lines of a message, indented: the first `most` of them, and how many more there are."""
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join(f"  {line}" for line in [*lines[:most], *more])
