"""Opening what is a file: never a pipe, which would be waited for, or a device, which never ends."""

import os
import stat
from typing import BinaryIO

from jax_video.errors import VideoError


def opened(path: str | os.PathLike) -> BinaryIO:
    """A regular file, open for reading, without a buffer.

    Raises:
      VideoError: it is none.
      OSError: there is nothing of this name, or it cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # before it is opened: some devices do something then
        raise VideoError(path, "not a file")
    file = open(path, "rb", buffering=0, opener=_open)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()  # put there in between
    raise VideoError(path, "not a file")


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # there is none on Windows
