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
    height, width = frames.shape[1:3]
    short = min(height, width)
    if short == size:
        return frames
    shape = (round(width * size / short), round(height * size / short))
    return np.stack([_resize(frame, shape) for frame in frames])


def _resize(frame: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """[H, W, 3] -> [shape[1], shape[0], 3]."""
    while frame.shape[1] >= 2 * shape[0] and frame.shape[0] >= 2 * shape[1]:
        frame = cv2.resize(frame, (frame.shape[1] // 2, frame.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(frame, shape, interpolation=cv2.INTER_LINEAR)


def crop(frames: np.ndarray, size: int, where: str, rng: np.random.Generator | None = None) -> np.ndarray:
    """Cuts the same square from every frame: [T, H, W, 3] -> [T, size, size, 3], a view.

    Args:
      frames: uint8 [T, H, W, 3].
      size: side of the square in pixels.
      where: "center"; "corners": one of the four corners or the centre, each with probability 1/5 (STC §4);
        "random": anywhere.
      rng: needed for "corners" and "random".

    Raises:
      UserError: the frames are smaller than the square.
    """
    height, width = frames.shape[1:3]
    if min(height, width) < size:
        raise UserError(f"cannot crop {size}x{size} from frames of {width}x{height}; resize to a short side >= {size}")
    bottom, right = height - size, width - size
    center = (bottom // 2, right // 2)
    match where:
        case "center":
            top, left = center
        case "corners":
            top, left = [center, (0, 0), (0, right), (bottom, 0), (bottom, right)][rng.integers(5)]
        case "random":
            top, left = rng.integers(bottom + 1), rng.integers(right + 1)
        case _:
            raise UserError(f'unknown crop {where!r}; known: "center", "corners", "random"')
    return frames[:, top : top + size, left : left + size]


def flip(frames: np.ndarray) -> np.ndarray:
    """Mirrors left and right: [T, H, W, 3] -> [T, H, W, 3], a view."""
    return frames[:, :, ::-1]
