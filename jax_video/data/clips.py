"""Which frames make a clip: pure functions from a video's number of frames to frame indices.

With `clip.fps` the video is resampled to that rate: frames are counted in the resampled video, and `Frames` maps them
to stored frames.

A clip is `length` frames, `stride` apart; its span is `(length - 1) * stride + 1`. A video shorter than the span is
looped: stride and start stay, indices wrap around. With `reflect` the largest stride that fits is used instead, and if
not even 1 fits, frames run forth and back (ST-ResNet §4). Only a video without frames is an error.
"""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from jax_video.errors import UserError

SLOWEST, FASTEST = 0.01, 1000.0  # frames per second; a rate outside of these is taken for a mistake
_FINEST = 10**6  # the largest denominator of a ratio of rates: 29.97002997 / 15 becomes 2000 / 1001


def is_rate(rate: float) -> bool:
    """Whether a number can be frames per second."""
    return SLOWEST <= rate <= FASTEST


def step(rate: float, fps: float | None) -> Fraction:
    """The step from one frame at `fps` to the next, in stored frames of a video of `rate` frames per second.

    `fps` None leaves the video as it is.
    """
    return Fraction(1) if fps is None else Fraction(rate / fps).limit_denominator(_FINEST)


@dataclasses.dataclass(frozen=True, slots=True)
class Frames:
    """The frames that clips are cut from: a video's stored frames, or the video resampled to another rate.

    At `fps`, frame i is shown at i / fps seconds. It is the stored frame that is nearest in time, the later one of two:
    round(i * rate / fps), halves upwards. Times in files are rounded, and so are the rates that are computed from them.
    Such errors do not change which frame is nearest; the last frame before that time (torchvision's floor) would change
    wherever the ratio of the rates is whole. Frames are repeated if `fps` is larger than the video's rate. As with
    FFmpeg's filter fps, there are round(frames * fps / rate) frames.

    Frames are taken to be evenly spaced: a file of variable frame rate counts at its mean rate.
    """

    first: int  # the stored frame at which they begin
    stored: int  # how many stored frames they span
    step: Fraction = Fraction(1)  # from one to the next, in stored frames

    @property
    def count(self) -> int:
        """How many there are, at least 1."""
        up, down = self.step.numerator, self.step.denominator
        return max(1, (2 * self.stored * down + up) // (2 * up))

    def places(self, indices: np.ndarray) -> np.ndarray:
        """The stored frames at these `indices`, int64 of any shape, each in [0, count): int64 of the same shape."""
        up, down = self.step.numerator, self.step.denominator
        return self.first + np.minimum((2 * indices * up + down) // (2 * down), self.stored - 1)


def random_clip(
    frames: int, length: int, stride: int, rng: np.random.Generator, *, reflect: bool = False
) -> np.ndarray:
    """Draw a training clip from all starts that fit: int64 [length], each in [0, frames)."""
    stride = _fitting(frames, length, stride) if reflect else stride
    start = int(rng.integers(_last_start(frames, length, stride) + 1))
    return _inside(_clip(start, length, stride), frames, reflect)


def test_clips(
    frames: int, length: int, stride: int, *, clips: str = "nonoverlap", number: int = 10, reflect: bool = False
) -> list[np.ndarray]:
    """The clips of a video in a test, which takes the mean over their scores. Raises UserError for impossible values.

    Args:
      frames: frames in the video, at least 1.
      length: frames in a clip.
      stride: distance between the frames of a clip.
      clips: "nonoverlap": one after the other from the start; a partial last clip is dropped unless it is the only one
        (STC §4, T3D §4). "uniform": `number` clips whose starts are spread evenly from the first to the last that fits
        (CoST §4); a single one is the middle of the video. In a short video they may coincide. "spread": a single clip
        of `number` frames from the first to the last of the video (ST-ResNet §4).
      number: for "uniform" and "spread".
      reflect: whether a short video is seen at a smaller stride, and then forth and back, instead of looped.

    Returns:
      A list of int64 [length] ([number] for "spread"), each in [0, frames).
    """
    stride = _fitting(frames, length, stride) if reflect else stride
    last = _last_start(frames, length, stride)
    starts: Sequence[int]
    match clips:
        case "nonoverlap":
            starts = range(0, last + 1, length * stride)
        case "uniform" if number == 1:
            starts = [last // 2]
        case "uniform" if number > 1:
            starts = [(2 * last * i + number - 1) // (2 * (number - 1)) for i in range(number)]  # rounded half up
        case "spread" if number > 1:
            return [(2 * (frames - 1) * np.arange(number, dtype=np.int64) + number - 1) // (2 * (number - 1))]
        case "spread":
            raise UserError(f"a spread test clip: expected a number of at least 2 frames, got {number}")
        case "uniform":
            raise UserError(f"uniform test clips: expected a number of at least 1, got {number}")
        case _:
            raise UserError(f'unknown test clips {clips!r}; known: "nonoverlap", "uniform", "spread"')
    return [_inside(_clip(start, length, stride), frames, reflect) for start in starts]


def segment_clips(
    frames: int,
    length: int,
    stride: int,
    number: int,
    rng: np.random.Generator | None = None,
    *,
    reflect: bool = False,
) -> np.ndarray:
    """One clip from each of `number` equal parts of a video (T3D+TSN; Wang et al. 2016), int64 [number, length].

    The starts that fit are divided into parts: each clip starts at random in its part, or without `rng` in the middle
    of its part. In a video with fewer starts than parts, clips coincide.
    """
    stride = _fitting(frames, length, stride) if reflect else stride
    starts = _last_start(frames, length, stride) + 1
    if number < 1:
        raise UserError(f"segments: expected at least 1, got {number}")
    clips = []
    for part in range(number):
        first = part * starts // number
        last = max(first, (part + 1) * starts // number - 1)
        start = (first + last) // 2 if rng is None else rng.integers(first, last + 1)
        clips.append(_clip(int(start), length, stride))
    return _inside(np.stack(clips), frames, reflect)


def _last_start(frames: int, length: int, stride: int) -> int:
    if min(frames, length, stride) < 1:
        raise UserError(f"frames, clip length and stride must be at least 1, got {frames}, {length}, {stride}")
    return max(0, frames - (length - 1) * stride - 1)


def _fitting(frames: int, length: int, stride: int) -> int:
    """The largest stride up to `stride` at which a clip fits into the video; at least 1."""
    return min(stride, max(1, (frames - 1) // (length - 1))) if length > 1 else stride


def _clip(start: int, length: int, stride: int) -> np.ndarray:
    return start + stride * np.arange(length, dtype=np.int64)


def _inside(indices: np.ndarray, frames: int, reflect: bool) -> np.ndarray:
    """Wrap indices past a video's end: for three frames 0 1 2 0 1 2 0, with `reflect` 0 1 2 2 1 0 0."""
    if not reflect:
        return indices % frames
    turned = indices % (2 * frames)
    return np.minimum(turned, 2 * frames - 1 - turned)
