"""What a network looks at, drawn over what it saw: a video, and a filmstrip of some of its frames."""

import os
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from jax_video import pictures
from jax_video.data import encoding, remote
from jax_video.errors import UserError
from jax_video.explanation import Explanation, shape

_TILE = 128  # height of a filmstrip's frames, in pixels
_LEAST = 224  # height of a video's frames, at least: smaller ones are enlarged
_LINE = 1 / 12  # of a video's height, for the label
_TITLE, _CAPTION = 24, 16  # height of a filmstrip's lines, in pixels
_GAP = 2


def overlaid(frames: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Frames, uint8 [..., 3], under maps [...] from 0 to 1: what counts is coloured, the rest is left as it is."""
    opacity = 0.7 * maps[..., None]
    return np.round(frames * (1 - opacity) + pictures.heat(maps) * opacity).astype(np.uint8)


def filmstrip(explanation: Explanation, columns: int = 8) -> np.ndarray:
    """A picture of an explanation, uint8 [H, W, 3]: a title, frames from the first to the last, and below them the same
    frames under the map, for two streams also under the map of motion.

    Args:
      columns: how many frames, unless there are fewer.
    """
    if columns < 1:
        raise UserError(f"columns is {columns!r}: expected how many frames a filmstrip has, at least 1")
    count = len(explanation.frames)
    chosen = np.unique(np.round(np.linspace(0, count - 1, min(columns, count))).astype(int))
    rows = [explanation.frames[chosen], *_overlays(explanation, chosen)]
    tiles = np.concatenate([_beside([_resized(tile, _TILE) for tile in row]) for row in rows])
    times, wide = explanation.seconds, (tiles.shape[1] + _GAP) // len(chosen)
    captions = [f"{explanation.indices[place]}" if times is None else f"{times[place]:.2f} s" for place in chosen]
    below = np.concatenate([_fitted(pictures.text(caption, _CAPTION), wide) for caption in captions], axis=1)
    above = [_fitted(pictures.text(line, _TITLE), tiles.shape[1]) for line in _title(explanation)]
    return np.concatenate([*above, tiles, _fitted(below, tiles.shape[1])])


def describe(explanation: Explanation) -> str:
    """What was explained, in a line."""
    found = explanation  # its last frame is not the latest where a short video is looped
    when = f"frames {found.indices.min()} to {found.indices.max()}"
    if found.seconds is not None:
        when = f"{found.seconds.min():.2f} to {found.seconds.max():.2f} s"
    views = [f"{view} {share:.3f}" for view, share in (found.views or {}).items()]
    parts = [f"explained: {found.label}", f"{found.layer} of {shape(found.places)} places"]
    parts.append(f"surest ({found.probability:.1%}) from {when}")
    return "; ".join([*parts, *([f"views: {', '.join(views)}"] if views else [])])


def write(
    out: str | os.PathLike,
    explanations: Iterable[Explanation],
    *,
    strip: str | os.PathLike | None = None,
    sound_of: str | os.PathLike | None = None,
) -> Explanation:
    """Write explanations as a video: every frame as the network saw it, beside the same frame under the map.

    Args:
      out: the file to write, named as one of encoding.SUFFIXES.
      explanations: of a video's clips, in their order. Frames that were seen before are left out.
      strip: a picture to write: the filmstrip of the clip with the highest probability of its label.
      sound_of: the video, whose sound is kept; None: there is none.

    Returns:
      The explanation of that clip.

    Raises:
      UserError: `out` does not have the name of a video, or there is no explanation.
      OSError: a file cannot be written.
    """
    surest: list[Explanation] = []

    def watched() -> Iterator[Explanation]:
        for found in explanations:
            if not surest or found.probability > surest[0].probability:
                surest[:] = [found]
            yield found

    encoding.write(out, drawn(watched()), sound_of=sound_of)
    if strip is not None:
        _, data = cv2.imencode(".png", filmstrip(surest[0])[..., ::-1])
        remote.write_whole(strip, [data.tobytes()])
    return surest[0]


def drawn(explanations: Iterable[Explanation]) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, frames beside their overlays, uint8 [H, W, 3]), labelled; each frame of the video once.

    A video whose frame rate is not known is taken to have 25 frames per second.
    """
    last, label = -1, np.zeros((0, 0, 3), np.uint8)
    named = ""
    for found in explanations:
        seconds = found.indices / 25 if found.seconds is None else found.seconds
        everything = np.arange(len(found.frames))
        rows = [found.frames, *_overlays(found, everything)]
        for place in everything:
            if found.indices[place] <= last:
                continue
            last = int(found.indices[place])
            high = max(_LEAST, found.frames.shape[1])
            image = _beside([_resized(row[place], high) for row in rows])
            if (name := f"{found.label}  {found.probability:.0%}") != named:
                named, label = name, pictures.text(name, round(high * _LINE))
            pictures.write_on(image, label)
            yield float(seconds[place]), image


def _overlays(explanation: Explanation, chosen: np.ndarray) -> list[np.ndarray]:
    maps = [explanation.maps, *([] if explanation.flow_maps is None else [explanation.flow_maps])]
    return [overlaid(explanation.frames[chosen], values[chosen]) for values in maps]


def _title(explanation: Explanation) -> list[str]:
    lines = [f"{explanation.label}  {explanation.probability:.0%}   {explanation.layer}, {shape(explanation.places)}"]
    if explanation.views is not None:
        lines.append("   ".join(f"{view} {share:.2f}" for view, share in explanation.views.items()))
    return lines


def _beside(images: list[np.ndarray]) -> np.ndarray:
    """Images of one size in a row, with a gap between them."""
    gap = np.zeros((len(images[0]), _GAP, 3), np.uint8)
    return np.concatenate([part for image in images for part in (gap, image)][1:], axis=1)


def _resized(image: np.ndarray, height: int) -> np.ndarray:
    high, wide = image.shape[:2]
    how = cv2.INTER_AREA if height < high else cv2.INTER_CUBIC
    return cv2.resize(image, (max(1, round(wide * height / high)), height), interpolation=how)


def _fitted(image: np.ndarray, width: int) -> np.ndarray:
    """An image cut, or filled up with black, to a width."""
    image = image[:, :width]
    return np.pad(image, ((0, 0), (0, width - image.shape[1]), (0, 0)))
