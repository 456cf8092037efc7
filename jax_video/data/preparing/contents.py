"""What tells the content of one video from that of another: a checksum of some of its bytes."""

import hashlib
import os

from jax_video.data.decoding import pictures
from jax_video.errors import VideoError, unreadable

_BLOCK = 2**16  # bytes at the beginning, in the middle and at the end of a file that tell it from most others


def digest(path: str | os.PathLike, span: tuple[float, float] | None = None) -> str:
    """16 digits that differ for most files that differ, and for the parts of one, wherever the file lies.

    Of a folder of pictures they are of all names, and of the beginnings of its first, middle and last picture.

    Raises:
      VideoError: it cannot be read.
    """
    try:
        if os.path.isdir(path):
            names = pictures.files(path)
            found = hashlib.blake2b(repr((names, span)).encode(errors="surrogateescape"), digest_size=8)
            for name in (names[0], names[len(names) // 2], names[-1]):
                with open(os.path.join(path, name), "rb") as file:
                    found.update(file.read(_BLOCK))
            return found.hexdigest()
        size = os.path.getsize(path)
        found = hashlib.blake2b(repr((size, span)).encode(), digest_size=8)
        with open(path, "rb") as file:
            for place in (0, size // 2, max(0, size - _BLOCK)):
                file.seek(place)
                found.update(file.read(_BLOCK))
        return found.hexdigest()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VideoError(path, "no such file") from error
    except OSError as error:
        raise unreadable(path, error) from error
