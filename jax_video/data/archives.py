"""Archives of arrays from strangers: a few bytes of one can unpack to any number."""

import lzma
import os
import tokenize
import zipfile

import numpy as np

from jax_video.errors import UserError

_ALWAYS = 2**30  # bytes, to which any archive may unpack
_TIMES = 16  # and to so many times its own size: weights hardly shrink, but for those that are all zeros


class ObjectsError(ValueError):
    """An archive holds Python objects: loading them could run code."""

    def __init__(self):
        super().__init__("it holds Python objects, which are not loaded; save arrays, of text with dtype=str")


def check(path: str | os.PathLike, unpacked: int | None = None) -> None:
    """Raises UserError where what is in a zip archive takes far more memory than the archive has bytes.

    Args:
      path: of the archive.
      unpacked: bytes that it takes, where that is known; None: as its directory says, which is not exceeded.

    Raises:
      zipfile.BadZipFile, OSError: it is none, or cannot be read.
    """
    size = os.path.getsize(path)
    if unpacked is None:
        try:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        except NotImplementedError as error:  # a version of the format that there is not
            raise zipfile.BadZipFile(str(error)) from error
    if unpacked > max(_ALWAYS, _TIMES * size):
        raise UserError(
            f"{path}: refused, as its {size:,} bytes would become {unpacked:,} in memory, more than {_TIMES} times as "
            "many. If that is right, store it without compression, as numpy.savez and torch.save do"
        )


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name; Python objects are never loaded.

    Raises:
      UserError: it would take far more memory than it has bytes.
      ValueError, OSError, zipfile.BadZipFile, zlib.error: it is none, or damaged.
    """
    check(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (MemoryError, SyntaxError, RecursionError, tokenize.TokenError) as error:
        # NumPy believes any shape, and takes the header of an array for Python.
        raise ValueError(f"an array's header is damaged ({error})") from error
    except (RuntimeError, lzma.LZMAError) as error:  # the former of a password, or of an unknown compression
        raise ValueError(str(error)) from error
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ObjectsError from error
