"""A video with what a network says of it drawn in: the label of the moment, and the whole timeline as a bar."""

import os
from collections.abc import Iterable, Iterator

import numpy as np

from jax_video import pictures
from jax_video.data import encoding, reader
from jax_video.timeline import Timeline

_BAR = 1 / 20  # of a frame's height
_LINE = 1 / 12  # of a frame's height, for the label


def write(out: str | os.PathLike, path: str | os.PathLike, timeline: Timeline, *, fps: float = 0.0) -> None:
    """Writes a video anew with its timeline drawn in; its sound is kept.

    Args:
      out: the file to write, named as one of encoding.SUFFIXES.
      path: the video file, or folder of pictures, that the timeline is of.
      fps: as the timeline was made with.

    Raises:
      UserError: the name of `out` is none of a video.
      VideoError: the video cannot be read.
    """
    frames, _ = reader.timed(path, short_side=None, fps=fps)
    encoding.write(out, drawn(frames, timeline), sound_of=path)


def drawn(frames: Iterable[tuple[float, np.ndarray]], timeline: Timeline) -> Iterator[tuple[float, np.ndarray]]:
    """Frames with their seconds, labelled; a bar at the bottom has a colour for each class, and a mark for the time."""
    segments = timeline.segments
    begin, end = segments[0].start, segments[-1].end
    colors = {name: pictures.color(timeline.classes.index(name)) for name in {part.name for part in segments}}
    labels: dict[int, np.ndarray] = {}
    number, bar = 0, np.zeros((0, 0, 3), np.uint8)
    for seconds, image in frames:
        high, wide = image.shape[:2]
        if not bar.size:
            bar = np.zeros((max(4, round(high * _BAR)), wide, 3), np.uint8)
            for part in segments:
                left, right = (round(wide * (time - begin) / (end - begin or 1)) for time in (part.start, part.end))
                bar[:, left:right] = colors[part.name]
        while number + 1 < len(segments) and seconds >= segments[number].end:
            number += 1
        if number not in labels:
            part = segments[number]
            labels = {number: pictures.text(f"{part.name}  {part.probability:.0%}", round(high * _LINE))}
        label, image = labels[number][:high, :wide], image.copy()
        corner = image[: label.shape[0], : label.shape[1]]
        corner[:] = corner // 3 + label // 3 * 2  # white on what is darkened
        image[-len(bar) :] = bar
        mark = round((wide - 1) * (seconds - begin) / (end - begin or 1))
        image[-len(bar) :, max(0, mark - 1) : mark + 2] = 255
        yield seconds, image
