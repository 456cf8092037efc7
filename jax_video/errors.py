"""The exceptions that a user is meant to read."""

import os
import re
from collections.abc import Sequence

# Control characters, and those that turn the direction of writing: what a terminal obeys and does not show.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def shown(text: object, *, kept: str = "") -> str:
    r"""Text, as of a name that a stranger gave, with what a terminal would obey as `\x1b` or `\u202e`.

    Args:
      text: any; of another object what `str` says.
      kept: control characters that stay, such as the ends of lines.
    """

    def escaped(match: re.Match) -> str:
        code = ord(match[0])
        if match[0] in kept:
            return match[0]
        return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}"  # the second one is JSON's, too

    return _OBEYED.sub(escaped, str(text))


class UserError(ValueError):
    """A mistake that the user can mend.

    The message says what was found, what was expected and what to do next. Commands print it without a traceback and
    exit with code 2.
    """

    def __str__(self) -> str:
        return shown(super().__str__(), kept="\n\t")


class VideoError(UserError):
    """A video file that cannot be used: `path`, and `reason` in plain words."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(str(path), reason)  # Both in args, so that the exception survives pickling between processes.
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        reason = shown(self.reason, kept="\n")
        return f"{shown(self.path)}: {reason}"


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
