"""Spatial transforms of a clip, uint8 [T, H, W, C]: the same for all its frames, so that motion is preserved.

C is 3 for RGB, 20 or 2 for flow. Resizing does not rescale the values of flow.
"""

from typing import NamedTuple

import cv2
import numpy as np

from jax_video.errors import UserError

# The pipeline runs one process per core: OpenCV's own threads would fight over them.
cv2.setNumThreads(0)

CROPS = ("center", "corners", "random", "scales", "sizes")  # for training
_SCALES = np.array([256, 224, 192, 168]) / 224  # of a crop's sides, for a motion stream
_STRETCH = 0.25  # part by which a crop's sides are longer or shorter, at most, for an appearance stream
_BORDER = 0.25  # part of the free space that lies between a crop and the nearer border, at most


def resize_short(frames: np.ndarray, size: int) -> np.ndarray:
    """Resize so that the short side is `size`, keeping the aspect ratio: [T, H, W, C] -> [T, H', W', C].

    Linear interpolation reads two pixels along each axis. If a frame shrinks to less than half, it skips pixels, and
    edges flicker from frame to frame, which a network for motion would see. So such a frame is first halved, by the
    mean over 2x2 pixels, as often as needed.
    """
    return resize(frames, resized(frames.shape[1], frames.shape[2], size))


def resized(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of frames whose short side has become `size`."""
    short = min(height, width)
    return round(height * size / short), round(width * size / short)


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to height and width, whatever the aspect ratio: [T, H, W, C] -> [T, *size, C]."""
    if frames.shape[1:3] == size:
        return frames
    return np.stack([_resize(frame, size[::-1]) for frame in frames])


def _resize(frame: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """[H, W, C] -> [shape[1], shape[0], C]."""
    while frame.shape[1] >= 2 * shape[0] and frame.shape[0] >= 2 * shape[1]:
        frame = cv2.resize(frame, (frame.shape[1] // 2, frame.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(frame, shape, interpolation=cv2.INTER_LINEAR)


class Box(NamedTuple):
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


def draw_box(
    height: int, width: int, size: int | tuple[int, int], where: str, rng: np.random.Generator | None = None
) -> Box:
    """Choose the rectangle that is cut out of every frame of a clip; it lies inside the frame.

    Args:
      height, width: of the frames.
      size: side of the square in pixels, or height and width.
      where: "center"; "first" and "last": at the top left and the bottom right; "corners": one of the four corners or
        the centre, each with probability 1/5 (STC §4); "random": anywhere; "scales": as "corners", height and width
        drawn from 256, 224, 192 and 168 for a size of 224, in proportion for others (ST-ResNet §4, motion); "sizes":
        height and width each within 25 % of the size, at most a quarter of the free space away from a border of the
        frame (ST-ResNet §4, appearance). The last two are no larger than the frame, and must still be resized.
      rng: needed for "corners", "random", "scales" and "sizes".

    Raises:
      UserError: the frames are smaller than `size`, or there is no such crop.
      ValueError: `rng` is needed and missing.
    """
    high, wide = (size, size) if isinstance(size, int) else size
    if height < high or width < wide:
        raise UserError(f"cannot crop {wide}x{high} from frames of {width}x{height}; resize them to larger ones")
    bottom, right = height - high, width - wide
    match where:
        case "center":
            return Box(bottom // 2, right // 2, high, wide)
        case "first":
            return Box(0, 0, high, wide)
        case "last":
            return Box(bottom, right, high, wide)
    if where not in CROPS:
        raise UserError(f"unknown crop {where!r}; known: {', '.join(CROPS)}, first, last")
    if rng is None:
        raise ValueError(f"the crop {where!r} is drawn: it needs a generator of random numbers")
    return _random_box(height, width, high, wide, where, rng)


def _random_box(height: int, width: int, high: int, wide: int, where: str, rng: np.random.Generator) -> Box:
    match where:
        case "scales":
            high, wide = (round(high * _SCALES[rng.integers(4)]), round(wide * _SCALES[rng.integers(4)]))
        case "sizes":
            high, wide = (round(side * rng.uniform(1 - _STRETCH, 1 + _STRETCH)) for side in (high, wide))
    high, wide = min(high, height), min(wide, width)
    bottom, right = height - high, width - wide
    match where:
        case "random":
            top, left = int(rng.integers(bottom + 1)), int(rng.integers(right + 1))
        case "sizes":
            top, left = _near_a_border(bottom, rng), _near_a_border(right, rng)
        case _:  # corners and scales
            center = (bottom // 2, right // 2)
            top, left = [center, (0, 0), (0, right), (bottom, 0), (bottom, right)][rng.integers(5)]
    return Box(top, left, high, wide)


def _near_a_border(slack: int, rng: np.random.Generator) -> int:
    """Draw an offset from 0 to `slack`, in the first or the last quarter of this range."""
    distance = rng.integers(int(slack * _BORDER) + 1)
    return int(rng.choice((distance, slack - distance)))


def crop(frames: np.ndarray, box: Box) -> np.ndarray:
    """Cut the same rectangle from every frame: [T, H, W, C] -> [T, box.height, box.width, C], a view."""
    return frames[:, box.top : box.top + box.height, box.left : box.left + box.width]


def flip(frames: np.ndarray) -> np.ndarray:
    """Mirror left and right: [T, H, W, C] -> [T, H, W, C], a view."""
    return frames[:, :, ::-1]
