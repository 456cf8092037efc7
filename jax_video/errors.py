"""The exceptions that a user is meant to read."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence

# Control characters, and those that change the direction of writing: what a terminal obeys and does not show.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def shown(text: object, *, kept: str = "") -> str:
    r"""Text, such as a stranger's name of a file, with control characters escaped: `\x1b`, `\u202e`.

    Args:
      text: a string; any other object is converted by `str`.
      kept: control characters that stay, such as the ends of lines.
    """

    def escaped(match: re.Match) -> str:
        code = ord(match[0])
        if match[0] in kept:
            return match[0]
        return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}"  # the second form is JSON's, too

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
        super().__init__(str(path), reason)  # both in args, so that the exception survives pickling between processes
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


DISK_ERRORS = {  # what to do where a disk takes no more
    errno.ENOSPC: "Make room there",
    errno.EDQUOT: "Your quota there is used up: free some of it",
    errno.EFBIG: "Files may not become as large there: raise the limit (ulimit -f)",
    errno.EROFS: "It can only be read: choose another folder",
}


@contextlib.contextmanager
def writing(folder: str | os.PathLike, again: str = "the same command goes on where it was") -> Iterator[None]:
    """Turn the system's errors about a full or read-only disk into one message for the user.

    Args:
      folder: what is written to, for errors that do not name the file.
      again: what holds once the error is mended.

    Raises:
      UserError: in place of such an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise UserError(unwritable(error.filename or folder, error, again)) from error


def unwritable(path: str | os.PathLike, error: OSError, again: str = "") -> str:
    """The message for a file or folder that cannot be written: why, and what to do."""
    then = f"; {again}" if again else ""
    return f"cannot write to {os.fspath(path)} ({error.strerror}). {mended(error.errno)}{then}."


def mended(number: int | None) -> str:
    """Advice for an error of this number (errno) while something was written."""
    return DISK_ERRORS.get(number or 0, "Make room there, or mend what is wrong with it")


class Stopped(Exception):
    """The user asked to stop; the message says what is saved and how to go on. Commands exit with code 130."""


def listed(lines: Sequence[str], most: int = 10) -> str:
    """The lines of a message, indented: the first `most` of them, and how many more there are."""
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join(f"  {line}" for line in [*lines[:most], *more])
