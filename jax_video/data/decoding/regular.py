"""Opening regular files only: reading a pipe could wait forever, and a device may never end."""

import os
import stat
from typing import BinaryIO

from jax_video.errors import VideoError


def opened(path: str | os.PathLike) -> BinaryIO:
    """Open a regular file for reading, without a buffer.

    Raises:
      VideoError: it is not a regular file.
      OSError: there is nothing of this name, or it cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # before it is opened: some devices react to that
        raise VideoError(path, "not a file")
    file = open(path, "rb", buffering=0, opener=_open)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()  # it was replaced in between
    raise VideoError(path, "not a file")


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows does not have it
