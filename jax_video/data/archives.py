"""Archives of arrays from untrusted sources: a few bytes can unpack to any number of bytes."""

import lzma
import os
import tokenize
import zipfile

import numpy as np

from jax_video.errors import UserError

_ALWAYS = 2**30  # bytes to which any archive may unpack
_TIMES = 16  # or to this many times its own size: weights hardly shrink, unless they are all zeros


class ObjectsError(ValueError):
    """An archive holds Python objects: loading them could run code."""

    def __init__(self):
        super().__init__("it holds Python objects, which are not loaded; save arrays, of text with dtype=str")


def check(path: str | os.PathLike, unpacked: int | None = None) -> None:
    """Raise UserError if the content of a zip archive takes far more memory than the archive has bytes.

    Args:
      path: of the archive.
      unpacked: bytes of the content, if known; None: as the archive's directory says, which is never exceeded.

    Raises:
      zipfile.BadZipFile, OSError: it is not a zip archive, or cannot be read.
    """
    size = os.path.getsize(path)
    if unpacked is None:
        try:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        except NotImplementedError as error:  # an unknown version of the format
            raise zipfile.BadZipFile(str(error)) from error
    if unpacked > max(_ALWAYS, _TIMES * size):
        raise UserError(
            f"{path}: refused, as its {size:,} bytes would become {unpacked:,} in memory, more than {_TIMES} times as "
            "many. If that is right, store it without compression, as numpy.savez and torch.save do"
        )


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, by name; Python objects are never loaded (ObjectsError).

    Raises:
      UserError: it would take far more memory than it has bytes.
      ValueError, OSError, zipfile.BadZipFile, zlib.error: it is not an .npz file, or is damaged.
    """
    check(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (MemoryError, SyntaxError, RecursionError, tokenize.TokenError) as error:
        # NumPy trusts any shape, and parses the header of an array as Python.
        raise ValueError(f"an array's header is damaged ({error})") from error
    except (RuntimeError, lzma.LZMAError) as error:  # the former for a password or an unknown compression
        raise ValueError(str(error)) from error
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ObjectsError from error
