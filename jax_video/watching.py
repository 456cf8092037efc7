"""Labels of a stream as they change: its newest windows, one after the other, and what a network says of them.

A thread reads the stream and keeps its newest window. If the network falls behind, windows are skipped, so that labels
are always of what has just been seen.
"""

import atexit
import collections
import contextlib
import dataclasses
import datetime
import math
import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jax_video import timeline, videos
from jax_video.data import pipeline
from jax_video.data.decoding import live
from jax_video.errors import UserError, shown

_WINDOW = 2.0  # seconds of a window, if a stream does not say its frame rate
_FIRST = 1.0  # seconds in which most errors of a source show, and in which a reader that is not blocked ends
_LOOK = 0.2  # seconds between looks whether to stop, while waiting for a window
_SILENCE = 10.0  # seconds without a frame, after which the user is told
_MOST = 1000  # windows that end with one frame, where they are closer than frames are: no more are made
_FEW = 10  # frames of a stream, after which a window with less than two is too short


class Moment(NamedTuple):
    """What a network says of one window of a stream, and what has become of the stream so far."""

    start: float  # seconds since the stream's first frame
    end: float
    probabilities: dict[str, float]  # of the classes, best first
    arrived: datetime.datetime  # when the window's last frame came
    latency: float  # seconds from then until the label was known
    frames: int  # that have come so far
    dropped: int  # of these: those of skipped windows, which the network has not seen
    skipped: int  # windows that the network has not seen
    reconnections: int
    holding: tuple[str, ...] | None = None  # the classes that hold, where several may at once; None: one does

    @property
    def labels(self) -> tuple[str, ...]:
        """The best class; or, where several may hold at once, those that do, if any."""
        return (next(iter(self.probabilities)),) if self.holding is None else self.holding

    @property
    def label(self) -> str:
        """The labels in one line."""
        return ", ".join(self.labels) or "–"

    @property
    def probability(self) -> float:
        """The probability of the best class."""
        return next(iter(self.probabilities.values()))

    def line(self) -> str:
        """One line: time, probability and label."""
        return f"{timeline.clock(self.end)}  {self.probability:8.4f}  {shown(self.label)}"

    def status(self) -> str:
        """The line, and how the network keeps up."""
        again = f", {_count(self.reconnections, 'reconnection')}" if self.reconnections else ""
        return f"{self.line()}  ({self.latency:.2f} s ago; {_count(self.dropped, 'frame')} dropped{again})"

    def json(self, top: int) -> dict[str, Any]:
        """The moment as values of JSON, with the `top` best classes."""
        best = list(self.probabilities.items())[:top]
        return {
            "time": round(self.end, 3),
            "label": self.label,
            "probability": self.probability,
            "classes": [{"name": name, "score": score} for name, score in best],
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "arrived": self.arrived.isoformat(timespec="milliseconds"),
            "latency": round(self.latency, 3),
            "frames": self.frames,
            "dropped": self.dropped,
            "skipped": self.skipped,
            "reconnections": self.reconnections,
            **({} if self.holding is None else {"labels": list(self.holding)}),
        }


@dataclasses.dataclass
class Summary:
    """What was seen of a stream."""

    seconds: float = 0.0  # that were watched, by the clock
    windows: int = 0  # that the network has looked at
    skipped: int = 0  # windows that it has not
    frames: int = 0  # that have come
    dropped: int = 0  # of these: those of skipped windows, which the network has not seen
    reconnections: int = 0
    labels: dict[str, float] = dataclasses.field(default_factory=dict)  # seconds of each, in the order of their coming

    def table(self) -> str:
        """The summary in words, and a line for each label."""
        lines = [
            f"{self.seconds:.1f} s watched: {_count(self.windows, 'window')} ({self.skipped:,} skipped), "
            f"{_count(self.frames, 'frame')} ({self.dropped:,} dropped), {_count(self.reconnections, 'reconnection')}"
        ]
        for name, seconds in sorted(self.labels.items(), key=lambda item: -item[1]):
            lines.append(f"  {timeline.clock(seconds)}  {shown(name)}")
        return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a stream is cut into windows. Raises UserError for seconds out of range, and for optical flow."""

    window: float | None  # seconds of one; None: as long as a clip, or 2 s if that is not known
    hop: float | None  # seconds from one to the next; None: a quarter of a window
    sampling: pipeline.Sampling  # of clips

    def __post_init__(self):
        given = {"window": self.window, "hop": self.hop}
        timeline.check_seconds(**{name: value for name, value in given.items() if value is not None})
        if "flow" in self.sampling.streams:
            raise UserError(
                f"the run's network looks at streams {', '.join(self.sampling.streams)}: optical flow takes many times "
                "as long to compute as a stream leaves for it. Take a run whose network looks at rgb alone"
            )

    @property
    def span(self) -> int | None:
        """Frames that a clip spans, at the clips' rate where they have one; None: several clips are spread over a
        window of any length."""
        return None if self.sampling.segments else self.sampling.span

    def chosen(self, rate: float) -> tuple[float, float]:
        """(window, hop) in seconds, for a stream with `rate` frames per second; 0: unknown."""
        span, rate = self.span or 0, rate if 1 <= rate <= 1000 else self.sampling.fps or 0.0
        known = span > 1 and rate > 0
        window = self.window or (math.ceil(span * self.sampling.step(rate)) / rate if known else _WINDOW)
        return window, self.hop or window / 4


class Watch:
    """An iterator of a stream's moments, which ends with the stream or when it is closed; what `Run.watch` returns.

    Attributes:
      summary: what was seen so far.
    """

    def __init__(
        self,
        source: str | os.PathLike | int,
        classes: tuple[str, ...],
        look: Callable[[timeline.Window], np.ndarray],
        windows: Windows,
        *,
        fps: float = 0.0,
        interrupted: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda _: None,
        thresholds: np.ndarray | None = None,
    ):
        """Open the stream, and compile the network for its windows.

        Args:
          look: what the network says of a window, [K].
          thresholds: [K], probabilities from which on classes hold, several at once; None: just the best one holds.
          All else is as in `Run.watch`.
        """
        fps = videos.checked_fps(fps, "for the stream's own times")
        self._source, side = live.find(source), windows.sampling.short_side
        self._newest, self._notes = _Newest(windows), collections.deque[str]()
        self._classes, self._look, self._say, self._interrupted = classes, look, say, interrupted
        self._thresholds = thresholds
        self._stream = live.Stream(self._source, short_side=side, fps=fps, say=self._notes.append)
        self._silent, self._closed, self._end, self.summary = False, False, 0.0, Summary()
        self._thread = threading.Thread(target=self._read, name=f"reads {self._source}", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        self._began = time.monotonic()
        try:
            self._stream.opened.wait(_FIRST)
            self._newest.check()
            blank = np.zeros((side, side, 3), np.uint8)
            images, rate = [blank] * (windows.span or 2), windows.sampling.fps or 0.0
            look(timeline.Window(0, 0, images, rate))  # compiled before a frame has to wait for it
        except BaseException:
            self.close()
            raise
        self._began = time.monotonic()
        self._stream.begin()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the stream."""
        if not self._closed:
            self._closed = True
            self._sum_up()
            self._stream.stop()
            self._newest.close()
            # If the interpreter ended while OpenCV reads, it would abort the process. A thread that waits may go on.
            self._thread.join(_FIRST)
            atexit.unregister(self.close)

    def __iter__(self) -> "Watch":
        return self

    def __next__(self) -> Moment:
        try:
            while not (self._closed or self._interrupted()):
                ended = self._newest.ended
                part = self._newest.take(_LOOK)
                self._tell()
                if part is not None:
                    return self._moment(part)
                if ended:
                    self._newest.check()
                    break
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    def _read(self) -> None:
        """Read the stream: all that the thread does."""
        failure: Exception | None = None
        try:
            with contextlib.closing(self._stream.frames()) as frames:
                for frame in frames:
                    for note in self._newest.add(frame):
                        self._notes.append(note)
            self._newest.finish()
        except Exception as error:
            failure = error
        self._newest.close(failure)
        self._stream.opened.set()

    def _tell(self) -> None:
        """Pass on the notes about the stream, and say if it has fallen silent."""
        while self._notes:
            self._say(self._notes.popleft())
        last = max(self._newest.arrived, self._began)
        silent = self._stream.connected and time.monotonic() > last + _SILENCE
        if silent and not self._silent:
            self._say(f"{self._source}: no frame for {_SILENCE:g} s")
        self._silent = silent

    def _moment(self, part: "_Part") -> Moment:
        row = self._look(part.window)
        best = np.argsort(-row, kind="stable")
        holding = None
        if self._thresholds is not None:
            holding = tuple(self._classes[k] for k in np.flatnonzero(row >= self._thresholds))
        now = time.monotonic()
        found = Moment(
            part.window.start,
            part.window.end,
            {self._classes[k]: float(row[k]) for k in best},
            datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=now - part.arrived),
            now - part.arrived,
            self._newest.frames,
            self._newest.dropped,
            self._newest.skipped,
            self._stream.reconnections,
            holding,
        )
        self.summary.windows += 1
        seconds = found.end - max(found.start, self._end)
        for label in found.labels:
            self.summary.labels[label] = self.summary.labels.get(label, 0.0) + max(0.0, seconds)
        self._end = found.end
        self._sum_up()
        return found

    def _sum_up(self) -> None:
        """Bring the summary up to date."""
        self.summary.seconds = time.monotonic() - self._began
        self.summary.frames, self.summary.skipped = self._newest.frames, self._newest.skipped
        self.summary.dropped, self.summary.reconnections = self._newest.dropped, self._stream.reconnections


class _Kept(NamedTuple):
    number: int  # of the frame
    seconds: float  # since the last break
    image: np.ndarray


class _Part(NamedTuple):
    """A window, and what is known when it is made."""

    window: timeline.Window
    arrived: float  # when its last frame came, by time.monotonic()
    frames: range  # numbers of its frames
    offered: int  # frames that were in a window so far


class _Newest:
    """The newest window of a stream that nobody has taken yet; one thread adds frames, another takes windows.

    Windows lie like those of `timeline.windows`, counted from the first frame, or from the first one after a break.
    """

    def __init__(self, windows: Windows):
        self._windows, self._span = windows, windows.span
        self._window = self._hop = 0.0  # chosen when the first frame comes
        self._kept, self._size = collections.deque[_Kept](), 0
        self._origin, self._number, self._step = 0.0, 0, 0.0  # s of the break; next window; s between frames
        self._steps = collections.deque[float](maxlen=99)  # s between the last frames
        self._since = 0  # frames since the last break
        self._offered, self._offered_to, self._taken, self._taken_to = 0, 0, 0, 0  # frames, and the last one's number
        self._part: _Part | None = None
        self._condition = threading.Condition()
        self._failure: Exception | None = None
        self.frames = self.skipped = self.dropped = 0
        self.arrived = 0.0  # when the last frame came, by time.monotonic(); 0: there was none
        self.ended = False

    def add(self, frame: live.Frame) -> list[str]:
        """Add a frame; return notes for the user. Raises UserError for a window that is too short or too large."""
        notes = []
        if not self.frames:
            self._window, self._hop = self._windows.chosen(frame.rate)
            notes = [f"windows of {self._window:.3g} s, one every {self._hop:.3g} s"]
        if not frame.follows:
            self._kept.clear()
            self._origin, self._number, self._size, self._since = frame.seconds, 0, 0, 0
        seconds = frame.seconds - self._origin
        if self._kept:
            self._step = seconds - self._kept[-1].seconds
            self._steps.append(self._step)
        newest = math.floor((seconds - self._window + timeline.ROUNDING) / self._hop)
        if newest >= self._number:
            held = math.floor(self._kept[-1].seconds / self._hop) if self._kept else -1  # the last with a frame in it
            held = min(newest, held)
            for number in sorted({*range(max(self._number, held - _MOST), held + 1), newest}):
                notes += self._offer(number * self._hop, number * self._hop + self._window)
            self._number = newest + 1
        while (
            self._kept
            and self._kept[0].seconds < min(self._number * self._hop, seconds - self._window) - timeline.ROUNDING
        ):
            self._size -= self._kept.popleft().image.nbytes
        self._kept.append(_Kept(self.frames, seconds, frame.image))
        self.frames, self._since, self.arrived = self.frames + 1, self._since + 1, frame.arrived
        self._size += frame.image.nbytes
        timeline.check_size(self._window, self._size)
        return notes

    def finish(self) -> None:
        """End the last window with the stream. Raises UserError if no window had two frames."""
        if not self._kept:
            return
        with self._condition:  # nothing newer will come, so there is time
            self._condition.wait_for(lambda: self._part is None or self.ended)
        end = self._kept[-1].seconds + self._step
        if self._number == 0 or end > (self._number - 1) * self._hop + self._window + self._step / 2:
            self._offer(max(0.0, end - self._window), end)
        if not self._offered:
            raise UserError(timeline.too_short(self._window, min(1, len(self._kept)), self._step))

    def take(self, seconds: float) -> _Part | None:
        """Wait at most `seconds` for the newest window that nobody has taken; None if there is none."""
        with self._condition:
            self._condition.wait_for(lambda: self._part is not None or self.ended, seconds)
            part, self._part = self._part, None
            if part is not None:
                self._taken += len(part.frames) - max(0, self._taken_to - part.frames.start)
                self._taken_to = part.frames.stop
                self.dropped = part.offered - self._taken
                self._condition.notify_all()
            return part

    def close(self, failure: Exception | None = None) -> None:
        """Say that nothing more comes; `failure` is the reason, if it is an error."""
        with self._condition:
            self._failure = self._failure or failure
            self.ended = True
            self._condition.notify_all()

    def check(self) -> None:
        """Raise the error that has ended the stream, if any."""
        if self._failure is not None:
            raise self._failure

    def _offer(self, start: float, end: float) -> list[str]:
        """Offer a window to be taken, in place of one that was not taken; return notes for the user."""
        first, last = start - timeline.ROUNDING, end - timeline.ROUNDING
        kept = [frame for frame in self._kept if first <= frame.seconds < last]
        if len(kept) < 2:  # a gap
            if not self._offered and self._since >= _FEW and self._window < 2 * statistics.median(self._steps or [0]):
                raise UserError(timeline.too_short(self._window, len(kept), self._step))
            return []
        frames = range(kept[0].number, kept[-1].number + 1)
        images, rate = [frame.image for frame in kept], timeline.rate_of([frame.seconds for frame in kept], end - start)
        count = self._windows.sampling.frames_of(len(images), rate).count
        note = f"clips span {self._span} frames and windows have {count}: clips are looped, as in training"
        notes = [note] if not self._offered and self._span and count < self._span else []
        self._offered += len(frames) - max(0, self._offered_to - frames.start)
        self._offered_to = frames.stop
        window = timeline.Window(self._origin + start, self._origin + end, images, rate)
        with self._condition:
            self.skipped += self._part is not None
            self._part = _Part(window, self.arrived, frames, self._offered)
            self._condition.notify_all()
        return notes
