"""Labels with times: the windows of a long video, and what a network says of them."""

import collections
import csv
import dataclasses
import io
import itertools
import math
import numbers
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_video.errors import UserError, shown

_GROUP = 2**28  # bytes of the windows of one batch, unless a single one is larger
_LARGEST = 2**31  # bytes of a window, at most
_FASTEST = 1000.0  # frames per second
ROUNDING = 1e-6  # seconds
_FORMULA = tuple("=+-@\t\r\n")  # what a spreadsheet's formula begins with, and what it skips before one
_PLAIN = str.maketrans("<>{}\\", "‹›()/")  # in place of what is markup in subtitles, which has no way to escape it
Frame = tuple[float, np.ndarray]  # seconds from the video's start, and uint8 [H, W, 3]


class Segment(NamedTuple):
    """A part of a video in which one class is the best; or, where several may hold at once, in which it holds."""

    start: float  # seconds
    end: float
    name: str  # of the class
    probability: float  # mean over its windows


@dataclasses.dataclass(frozen=True)
class Timeline:
    """What a network says of a video's windows."""

    classes: tuple[str, ...]
    starts: np.ndarray  # [N] seconds, ascending
    ends: np.ndarray  # [N] seconds
    probabilities: np.ndarray  # [N, K]
    note: str = ""  # what a user should know about it
    thresholds: np.ndarray | None = None  # [K]: probabilities from which on classes hold; None: just the best one holds
    hop: float | None = None  # seconds that were asked for from one start to the next; None: the median of those

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Neighbouring windows of one best class, joined; a border is half way between the middles of two windows.

        Where several classes may hold at once, each class has segments of the windows in which it holds, and segments
        may overlap. Where the video has no frames, there is no segment.
        """
        best = self.probabilities.argmax(axis=1)
        if self.thresholds is None:
            return self._joined(best)
        each = (np.where(holds, k, -1) for k, holds in enumerate(self.holding.T))
        return tuple(sorted(segment for where in each for segment in self._joined(where)))

    @property
    def holding(self) -> np.ndarray:
        """Whether each class holds in each window: bool [N, K]; for single labels, whether it is the best."""
        if self.thresholds is None:
            return self.probabilities.argmax(axis=1)[:, None] == np.arange(len(self.classes))
        return self.probabilities >= self.thresholds

    def _joined(self, which: np.ndarray) -> tuple[Segment, ...]:
        """Segments, from the class of each window [N]; -1: no class."""
        gaps = self._gaps()
        changes = np.flatnonzero((np.diff(which) != 0) | gaps) + 1
        middles = (self.starts + self.ends) / 2
        between, is_gap = (middles[changes - 1] + middles[changes]) / 2, gaps[changes - 1]
        begins = [self.starts[0], *np.where(is_gap, self.starts[changes], between)]
        ends = [*np.where(is_gap, self.ends[changes - 1], between), self.ends[-1]]
        parts = np.split(np.arange(len(which)), changes)
        found = []
        for part, start, end in zip(parts, begins, ends, strict=True):
            label = int(which[part[0]])
            if label < 0:
                continue
            probability = float(self.probabilities[part, label].mean())
            found.append(Segment(float(start), float(end), self.classes[label], probability))
        return tuple(found)

    def _gaps(self) -> np.ndarray:
        """Whether there is a gap without frames between a window and the next: bool [N - 1]."""
        hops = np.diff(self.starts)
        hop = self.hop or (np.median(hops) if len(hops) else 0.0)
        return (self.starts[1:] > self.ends[:-1] + ROUNDING) & (hops > 1.5 * hop)

    def table(self) -> str:
        """The segments, a line each: start, end, probability and class."""
        return "\n".join(
            f"  {clock(start)}  {clock(end)}  {probability:8.4f}  {shown(name)}"
            for start, end, name, probability in self.segments
        )

    def csv(self) -> str:
        """The windows as a table of comma-separated values: start, end, the best class, every class's probability.

        Where several classes may hold at once, all that hold are in place of the best class, with semicolons; a name
        that has one itself is in quotation marks, as in a CSV. A name that begins with = + - or @, which spreadsheets
        would take for a formula, gets an apostrophe before it.
        """
        names = [f"'{name}" if name.startswith(_FORMULA) else name for name in self.classes]
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("start", "end", "best" if self.thresholds is None else "labels", *names))
        for start, end, row, holds in zip(self.starts, self.ends, self.probabilities, self.holding, strict=True):
            held = [names[k] for k in np.flatnonzero(holds)]
            labels = held[0] if self.thresholds is None else _cell(held)
            writer.writerow((f"{start:.3f}", f"{end:.3f}", labels, *(f"{p:.6f}" for p in row)))
        return text.getvalue()

    def srt(self) -> str:
        """The segments as subtitles, in the form of SubRip; characters of names that players obey are replaced."""
        return "\n".join(
            f"{number}\n{clock(start, ',')} --> {clock(end, ',')}\n"
            f"{' '.join(name.split()).translate(_PLAIN)} ({probability:.0%})\n"
            for number, (start, end, name, probability) in enumerate(self.segments, 1)
        )

    def json(self) -> dict[str, Any]:
        """Segments and windows, as values of JSON."""
        windows = zip(self.starts.tolist(), self.ends.tolist(), self.probabilities.tolist(), strict=True)
        return {
            "classes": list(self.classes),
            "segments": [segment._asdict() for segment in self.segments],
            "windows": [{"start": start, "end": end, "probabilities": row} for start, end, row in windows],
            **({} if self.thresholds is None else {"thresholds": self.thresholds.tolist()}),
        }


def _cell(names: Sequence[str]) -> str:
    """Names in one cell of a table: a row of a CSV whose delimiter is a semicolon."""
    row = io.StringIO(newline="")
    csv.writer(row, delimiter=";").writerow(names)
    return row.getvalue().removesuffix("\r\n")


def clock(seconds: float, point: str = ".") -> str:
    """Seconds as hours, minutes, seconds and thousandths: 00:01:02.500."""
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{thousandths:03}"


class Window(NamedTuple):
    """The frames of a part of a video."""

    start: float  # seconds
    end: float
    images: list[np.ndarray]  # uint8 [H, W, 3] each
    rate: float = 0.0  # frames per second, from their times by `rate_of`


def rate_of(times: Sequence[float], within: float = 0.0) -> float:
    """Frames per second of frames at these times, ascending, at most 1000; 0 if they do not say.

    Frames that all have one time, as in some streams, count as spread over `within` seconds.
    """
    seconds = times[-1] - times[0] if len(times) else 0.0
    rate = (len(times) - 1) / seconds if seconds > 0 else len(times) / within if within > 0 else 0.0
    return min(rate, _FASTEST)


def windows(frames: Iterable[Frame], window: float, hop: float) -> Iterator[Window]:
    """Cut a video into windows; only the frames of the last one and of what follows it are in memory.

    Window i holds the frames from `i * hop` seconds to before `i * hop + window`. A last one ends with the video, so
    that all of it is seen; a video that is no longer than `window` is one. A window without frames is left out, such as
    the first ones where the picture begins later than the sound.

    Args:
      frames: (seconds, uint8 [H, W, 3]) of each, ascending.
      window, hop: seconds.

    Raises:
      UserError: a window of a longer video has fewer than two frames, or more than 2 GiB; or there are no frames.
    """
    check_seconds(window=window, hop=hop)
    kept: collections.deque[Frame] = collections.deque()
    number, size, last, before, step, begun = 0, 0, 0.0, 0.0, 0.0, False
    for time, image in frames:
        time = max(time, last)  # if a file's times run back, later frames are shown later all the same
        before, step, last = step, time - last if kept else step, time
        while time >= number * hop + window - ROUNDING:
            start, end = number * hop, number * hop + window
            inside = _between(kept, start, end)
            if inside and not begun:
                _check_first(kept, window, hop, step)
            if inside:
                begun = True
                yield _window(start, end, inside)
                number += 1
            else:
                number = max(number, math.floor((time - window + ROUNDING) / hop)) + 1  # the first that ends after this
        while kept and kept[0][0] < min(number * hop, time - window) - ROUNDING:
            size -= kept.popleft()[1].nbytes
        kept.append((time, image))
        size += image.nbytes
        check_size(window, size)
    if not kept:
        raise UserError("the video has no frames")
    step = before if 0 < 2 * before < step else step
    last += step  # the last frame is shown as long as the one before it, but not as long as a pause
    if not begun or last > (number - 1) * hop + window + step / 2:
        start = max(0.0, last - window)
        inside = _between(kept, start, last) or [kept[-1]]
        if not begun and len(inside) < 2:
            raise UserError("the video has 1 frame: expected at least 2, of which something could be seen to move")
        yield _window(start, last, inside)


def _check_first(kept: Sequence[Frame], window: float, hop: float, step: float) -> None:
    """Raise UserError if the first frames of a video show that `window` or `hop` is too short for them.

    The first window may hold only some of its frames, or one, where the picture begins within it.
    """
    apart = (kept[-1][0] - kept[0][0]) / (len(kept) - 1) if len(kept) > 1 else step  # on average
    if window + ROUNDING < 2 * apart:
        raise UserError(too_short(window, 1, apart))
    if hop < apart / 10:
        raise UserError(f"a hop of {hop:g} s, where the video's frames are {apart:.3g} s apart: take a longer one")


def check_seconds(**given: float) -> None:
    """Raise UserError, with the name of the argument, unless all are finite numbers of seconds above 0."""
    for name, value in given.items():
        if not (isinstance(value, numbers.Real) and 0 < value < math.inf):
            raise UserError(f"{name} is {value!r}: expected seconds, more than 0")


def too_short(window: float, frames: int, step: float) -> str:
    """The message for a window that is too short to show a motion."""
    return (
        f"a window of {window:g} s has {frames} of the video's frames, which are {step:.3g} s apart: "
        "expected at least 2; take a longer one"
    )


def check_size(window: float, size: int) -> None:
    """Raise UserError if the frames of a window take too many bytes."""
    if size > _LARGEST:
        raise UserError(
            f"the frames of a window of {window:g} s take more than {_LARGEST / 2**30:g} GiB; take a shorter one"
        )


def _between(kept: Iterable[Frame], start: float, end: float) -> list[Frame]:
    return [frame for frame in kept if start - ROUNDING <= frame[0] < end - ROUNDING]


def _window(start: float, end: float, frames: Sequence[Frame]) -> Window:
    times, images = zip(*frames, strict=True)
    return Window(start, end, list(images), rate_of(times, end - start))


def groups(parts: Iterator[Window], most: int) -> Iterator[list[Window]]:
    """Windows in lists of equal length, except the last: of `most`, or fewer if the first window is large."""
    first = next(parts)
    size = sum(image.nbytes for image in first.images)
    count = max(1, min(most, _GROUP // size))
    parts = itertools.chain([first], parts)
    while group := list(itertools.islice(parts, count)):
        yield group
