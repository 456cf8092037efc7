"""A video with what a network says about it drawn in: the label of the moment, and the whole timeline as a bar."""

import bisect
import os
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from jax_video import pictures
from jax_video.data import encoding, reader
from jax_video.timeline import Segment, Timeline

_BAR = 1 / 20  # of a frame's height
_MOST = 5  # the bar takes at most 1 / _MOST of a frame's height
_LINE = 1 / 12  # of a frame's height, for the label


def write(out: str | os.PathLike, path: str | os.PathLike, timeline: Timeline, *, fps: float = 0.0) -> None:
    """Write a video anew with its timeline drawn in; its sound is kept.

    Args:
      out: the file to write, named as one of encoding.SUFFIXES.
      path: the video file, or folder of pictures, that the timeline is of.
      fps: the one that the timeline was made with, in frames per second.

    Raises:
      UserError: `out` does not have the name of a video.
      VideoError: the video cannot be read.
    """
    frames, _ = reader.timed(path, short_side=None, fps=fps)
    encoding.write(out, drawn(frames, timeline), sound_of=path)


def drawn(frames: Iterable[tuple[float, np.ndarray]], timeline: Timeline) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, frame), labelled; a bar at the bottom has a colour for each class, and a mark for the time.

    Where several classes may hold at once, the bar has a lane for each class that holds at some time. It takes at most
    a fifth of the picture; if that has fewer rows than there are lanes, neighbouring lanes are mixed.
    """
    segments = timeline.segments
    begin, end = float(timeline.starts[0]), float(timeline.ends[-1])
    names = list(dict.fromkeys(part.name for part in segments))
    lanes = {name: 0 if timeline.thresholds is None else place for place, name in enumerate(names)}
    count = max(lanes.values(), default=0) + 1
    starts, ends = (np.array([getattr(part, name) for part in segments]) for name in ("start", "end"))

    def now(seconds: float) -> list[Segment]:
        """The segments at a moment; with one label at a time, the first that has not ended."""
        if timeline.thresholds is None:
            return [segments[min(bisect.bisect_right(ends, seconds), len(segments) - 1)]]
        return [segments[place] for place in np.flatnonzero((starts <= seconds) & (seconds < ends))]

    shown, label, bar = "", np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0, 3), np.uint8)
    for seconds, image in frames:
        high, wide = image.shape[:2]
        if not bar.size:
            most = max(1, high // _MOST)
            lane = max(4, round(high * _BAR)) // (1 if timeline.thresholds is None else 2)
            lane = max(1, min(lane, most // count))
            bar = np.zeros((lane * count, wide, 3), np.uint8)
            for part in segments:
                left, right = (round(wide * (time - begin) / (end - begin or 1)) for time in (part.start, part.end))
                top = lane * lanes[part.name]
                bar[top : top + lane, left:right] = pictures.color(timeline.classes.index(part.name))
            if len(bar) > most:
                bar = cv2.resize(bar, (wide, most), interpolation=cv2.INTER_AREA).astype(np.uint8)
        if (text := ", ".join(f"{part.name}  {part.probability:.0%}" for part in now(seconds))) != shown:
            shown, label = text, label[:0]
            if text:
                label = pictures.text(text, max(1, round(high * _LINE)))
        image = image.copy()
        pictures.write_on(image, label)
        image[-len(bar) :] = bar
        mark = round((wide - 1) * (seconds - begin) / (end - begin or 1))
        image[-len(bar) :, max(0, mark - 1) : max(0, mark + 2)] = 255
        yield seconds, image
