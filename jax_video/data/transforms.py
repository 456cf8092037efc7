"""Spatial transforms of a clip, uint8 [T, H, W, 3]: one decision for all its frames, so that motion stays motion."""

import cv2
import numpy as np

from jax_video.errors import UserError

# The pipeline runs one process per core: OpenCV's own threads would fight over them.
cv2.setNumThreads(0)


def resize_short(frames: np.ndarray, size: int) -> np.ndarray:
    """Resizes so that the short side is `size`, keeping the aspect ratio: [T, H, W, 3] -> [T, H', W', 3].

    Linear interpolation reads two pixels along each axis. What it skips where a frame shrinks by more than that comes
    back as flicker, which a network for motion would see: such a frame is first halved, by averages over 2x2 pixels,
    as often as needed.
    """
    height, width = resized(frames.shape[1], frames.shape[2], size)
    if (height, width) == frames.shape[1:3]:
        return frames
    return np.stack([_resize(frame, (width, height)) for frame in frames])


def resized(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of frames whose short side has become `size`."""
    short = min(height, width)
    return round(height * size / short), round(width * size / short)


def _resize(frame: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """[H, W, 3] -> [shape[1], shape[0], 3]."""
    while frame.shape[1] >= 2 * shape[0] and frame.shape[0] >= 2 * shape[1]:
        frame = cv2.resize(frame, (frame.shape[1] // 2, frame.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(frame, shape, interpolation=cv2.INTER_LINEAR)


def crop(
    frames: np.ndarray, size: int | tuple[int, int], where: str, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Cuts the same square, or rectangle, from every frame: [T, H, W, 3] -> [T, size, size, 3], a view.

    Args:
      frames: uint8 [T, H, W, 3].
      size: side of the square in pixels, or height and width.
      where: "center"; "first" and "last": at the top left and the bottom right; "corners": one of the four corners or
        the centre, each with probability 1/5 (STC §4); "random": anywhere.
      rng: needed for "corners" and "random".

    Raises:
      UserError: the frames are smaller than that.
    """
    height, width = frames.shape[1:3]
    high, wide = (size, size) if isinstance(size, int) else size
    if height < high or width < wide:
        raise UserError(f"cannot crop {wide}x{high} from frames of {width}x{height}; resize them to larger ones")
    bottom, right = height - high, width - wide
    center = (bottom // 2, right // 2)
    match where:
        case "center":
            top, left = center
        case "first":
            top, left = 0, 0
        case "last":
            top, left = bottom, right
        case "corners":
            top, left = [center, (0, 0), (0, right), (bottom, 0), (bottom, right)][rng.integers(5)]
        case "random":
            top, left = rng.integers(bottom + 1), rng.integers(right + 1)
        case _:
            raise UserError(f'unknown crop {where!r}; known: "center", "first", "last", "corners", "random"')
    return frames[:, top : top + high, left : left + wide]


def flip(frames: np.ndarray) -> np.ndarray:
    """Mirrors left and right: [T, H, W, 3] -> [T, H, W, 3], a view."""
    return frames[:, :, ::-1]
