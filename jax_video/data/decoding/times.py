"""What the times of a file's frames tell: how many there are to a second, and which of them are a part of it."""

import os

import numpy as np

from jax_video.data.clips import is_rate
from jax_video.errors import VideoError

_UNEVEN = 0.05  # part of the duration by which the header's rate may miss it


def rate(promised: float, seconds: np.ndarray, tick: float) -> float:
    """Frames per second: as the header has it, to the digit, unless the frames come at another mean rate.

    The header counts, too, where the times tell none: they are unknown or do not ascend, most of all is one pause, or
    it would be impossible.

    Args:
      promised: by the header; 0: it does not say.
      seconds: of the frames, in their order: float [N].
      tick: to which these are rounded, in seconds.
    """
    steps = np.diff(seconds)
    lasting = float(steps.sum())
    if not len(steps) or not (steps > 0).all() or 2 * steps.max() > lasting:
        return promised
    if promised and abs(len(steps) / promised - lasting) <= _UNEVEN * lasting + tick:
        return promised
    return len(steps) / lasting if is_rate(len(steps) / lasting) else promised


def part(path: str | os.PathLike, seconds: np.ndarray, start: float, end: float) -> tuple[int, int]:
    """(the first, how many) of the frames from `start` on and before `end`; `seconds` of all frames, ascending.

    Raises:
      VideoError: there is none.
    """
    if np.isnan(seconds).any():
        raise VideoError(path, f"has no timestamps: which frames are from {start:g} to {end:g} s cannot be told")
    seconds = np.round(seconds, 6)  # removes errors of floats: most times are no binary fractions
    inside = np.flatnonzero((seconds >= start) & (seconds < end))
    if not len(inside):
        raise VideoError(path, f"too short: no frame from {start:g} to {end:g} s, the last is at {seconds.max():.1f} s")
    return int(inside[0]), len(inside)
