"""Frame indices that a fast check has only counted: they are verified when a process first decodes the file."""

import functools
import os

from jax_video.data.decoding import probing
from jax_video.data.manifest import FrameIndex, Video
from jax_video.errors import UnavailableError, VideoError


def index(path: str | os.PathLike, entry: Video) -> FrameIndex | None:
    """Where the frames of a manifest's video are.

    Its row says so. If the row was only counted and not decoded, the whole file is decoded here, once in a process.

    Raises:
      VideoError: the file cannot be read, or holds other frames than were counted.
    """
    if entry.index is None or entry.index.verified:
        return entry.index
    try:
        status = os.stat(path)
    except OSError:
        return None  # opening it says more
    found = _probe(os.path.abspath(path), entry.span, status.st_size, status.st_mtime_ns)
    if isinstance(found, str):
        raise VideoError(path, found)
    if entry.span is None and entry.first:  # a part that is not told by seconds
        right = entry.first + entry.frames <= found.frames
    else:
        right = (found.first, found.frames) == (entry.first, entry.frames)
    if not right:
        raise VideoError(
            path,
            f"miscounted: {found.frames} frames decode from frame {found.first} on, but a fast check counted "
            f"{entry.frames} from {entry.first}; run prepare with --check=full",
        )
    return found.index


@functools.lru_cache(maxsize=2**17)
def _probe(path: str, span: tuple[float, float] | None, size: int, modified: int) -> probing.VideoInfo | str:
    """What decoding the file finds, or why it cannot be decoded; kept for as many files as most sets have."""
    try:
        return probing.probe(path, span=span)
    except UnavailableError:  # it may be there again the next time
        raise
    except VideoError as error:
        return error.reason
