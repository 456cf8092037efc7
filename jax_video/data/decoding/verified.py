"""Frame indices of a fast check, which only counts packets: verified when a process first decodes the file."""

import functools
import os

from jax_video.data.decoding import probing
from jax_video.data.manifest import FrameIndex, Video
from jax_video.errors import UnavailableError, VideoError


def index(path: str | os.PathLike, entry: Video) -> FrameIndex | None:
    """The frame index of a manifest's video; None if there is none.

    Its row has it. If frames were only counted and not decoded, the whole file is decoded here, once in a process.

    Raises:
      VideoError: the file cannot be read, or holds other frames than were counted.
    """
    if entry.index is None or entry.index.verified:
        return entry.index
    try:
        status = os.stat(path)
    except OSError:
        return None  # opening it will tell why
    examined = _examine(os.path.abspath(path), entry.span, status.st_size, status.st_mtime_ns)
    if isinstance(examined, str):
        raise VideoError(path, examined)
    found = examined.info  # whether it is usable was decided when the set was prepared
    if entry.span is None and entry.first:  # a part that is not given in seconds
        right = entry.first + entry.frames <= found.frames
    else:
        right = (found.first, found.frames) == (entry.first, entry.frames)
    if not right:
        reason = examined.fault or (examined.loss and examined.loss.reason)
        raise VideoError(
            path,
            f"miscounted: {found.frames} frames decode from frame {found.first} on, but a fast check counted "
            f"{entry.frames} from {entry.first}{f' ({reason})' if reason else ''}; run prepare with --check=full",
        )
    return found.index


@functools.lru_cache(maxsize=2**17)
def _examine(path: str, span: tuple[float, float] | None, size: int, modified: int) -> probing.Examined | str:
    """What decoding the file finds, or why it cannot be decoded; cached for as many files as most sets have."""
    try:
        return probing.examine(path, span=span)
    except UnavailableError:  # it may be available the next time
        raise
    except VideoError as error:
        return error.reason
