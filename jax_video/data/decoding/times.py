"""What the times of a file's frames tell: how many there are to a second, and which of them are a part of it."""

import os

import numpy as np

from jax_video.data.clips import is_rate
from jax_video.errors import VideoError

_UNEVEN = 0.05  # part of the duration by which the header's rate may miss it
_BACK, _REORDERED = 1.0, 16  # seconds, or usual steps, by which times may run back: AVI files may be out of order


def rate(promised: float, seconds: np.ndarray, tick: float) -> float:
    """Frames per second: as the header has it, to the digit, unless the frames come at another mean rate.

    A pause that takes more than half of the time does not count. The header counts, too, where the times tell none:
    they are unknown, the same, or run back, or the rate would be impossible.

    Args:
      promised: by the header; 0: it does not say.
      seconds: of the frames, in their order: float [N].
      tick: to which these are rounded, in seconds.
    """
    steps = np.diff(np.sort(seconds) if runs_back(seconds) is None else seconds)
    if len(steps) and 2 * steps.max() > steps.sum():
        steps = np.delete(steps, steps.argmax())
    lasting = float(steps.sum())
    if not len(steps) or not (steps > 0).all():
        return promised
    if promised and abs(len(steps) / promised - lasting) <= _UNEVEN * lasting + tick:
        return promised
    return len(steps) / lasting if is_rate(len(steps) / lasting) else promised


def runs_back(seconds: np.ndarray) -> int | None:
    """The first frame whose time is much earlier than that of the one before it, as in joined recordings, or None."""
    steps = np.diff(seconds)
    back = np.flatnonzero(steps < -max(_BACK, _REORDERED * float(np.median(np.abs(steps))))) if len(steps) else steps
    return int(back[0]) + 1 if len(back) else None


def check_forward(path: str | os.PathLike, frame: int, time: float, before: float) -> None:
    """Raise VideoError for a frame whose time is much earlier than `before`, the latest of those before it."""
    if time < before - max(_BACK, _REORDERED * before / max(1, frame)):
        raise VideoError(
            path,
            f"its times run back at frame {frame}, from {before:.1f} to {time:.1f} s, as in joined recordings: say how "
            "many frames there are to a second, fps=25 or --fps=25, or convert it",
        )


def part(path: str | os.PathLike, seconds: np.ndarray, start: float, end: float) -> tuple[int, int]:
    """(the first, how many) of the frames from `start` on and before `end`; `seconds` of all frames, in their order.

    Raises:
      VideoError: there is none, or the times run back.
    """
    if (frame := runs_back(seconds)) is not None:
        reason = f"its times run back at frame {frame}, as in joined recordings: which frames are"
        raise VideoError(path, f"{reason} from {start:g} to {end:g} s cannot be told; convert it")
    seconds = np.sort(seconds)
    if np.isnan(seconds).any():
        raise VideoError(path, f"has no timestamps: which frames are from {start:g} to {end:g} s cannot be told")
    seconds = np.round(seconds, 6)  # removes errors of floats: most times are no binary fractions
    inside = np.flatnonzero((seconds >= start) & (seconds < end))
    if not len(inside):
        raise VideoError(path, f"too short: no frame from {start:g} to {end:g} s, the last is at {seconds.max():.1f} s")
    return int(inside[0]), len(inside)
