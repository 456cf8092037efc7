"""Videos that are read in separate processes, which a hostile file may crash, fill or hang: it costs only itself.

A file is decoded once, from its start to its end, as headers lie. Meanwhile the wanted frames come over a pipe, so that
any length fits in memory, and a killed process leaves no shared memory behind.
"""

import contextlib
import multiprocessing
import os
import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from jax_video.data import reader, samples, transforms
from jax_video.data.clips import is_rate
from jax_video.data.decoding import packets, pictures, probing, video, workers
from jax_video.data.manifest import MISSING, Manifest, Video
from jax_video.data.samples import Protocol, Sampling
from jax_video.data.sources import finding
from jax_video.errors import UserError, VideoError

TIMEOUT = 300.0  # seconds within which the reading of a file must make progress
_AT_ONCE = 262144  # bytes of frames that are handed over together, at least
_MOST_PROCESSES = 32
_MOST_PROMISED = 2**20  # frames, at most, that a file's promise is trusted for
Give = Callable[..., None]  # takes a value and arrays by name, as `workers.give`


class Again:
    """The clips that have come of a video are to be forgotten: it does not have as many frames as it promised."""


class Seen(NamedTuple):
    """What was read of a video."""

    place: int  # its number in `paths`
    what: dict[str, np.ndarray] | Again | str | None  # the streams of a clip; or why it cannot be read; None: all came


def clips(
    paths: Mapping[int, str],
    sampling: Sampling,
    protocol: Protocol,
    *,
    fps: float = 0.0,
    timeout: float | None = TIMEOUT,
) -> Generator[Seen, None, None]:
    """What a test sees of video files: all of their clips, cropped, in their order, as `samples.cut` gives them.

    A file is decoded once, unless its number of frames is not as promised and clips depend on it. Several files are
    read at a time, so their clips alternate.

    Args:
      paths: of files and of folders of pictures, each under a number of the caller's choice.
      fps: frames per second of those that do not say it; 0: not known.
      timeout: seconds within which a file must make progress; None: read in this process, without any limit.

    Raises:
      UserError: an impossible `protocol` or `timeout`, or this process may not start others.
    """
    _Plan("", sampling, protocol, 1, fps, *(sampling.short_side,) * 2)  # raises if the protocol is impossible
    places = list(paths)
    tasks = (_Look(os.path.abspath(paths[place]), sampling, protocol, fps) for place in places)
    with contextlib.closing(_done(tasks, len(places), timeout)) as results:
        for index, result in results:
            if isinstance(result, workers.Piece):
                result = result.arrays or Again()
            yield Seen(places[index], result)


def clips_of_frames(
    frames: np.ndarray, sampling: Sampling, protocol: Protocol, *, fps: float = 0.0
) -> Iterator[dict[str, np.ndarray]]:
    """The same for frames in memory, uint8 [T, H, W, 3]: the streams of each clip.

    Raises:
      VideoError: `sampling` has a frame rate, and there is no `fps`.
    """
    number, height, width, _ = frames.shape
    plan = _Plan("frames", sampling, protocol, number, fps, height, width, memory=frames)
    return (samples.cut(plan.manifest, clip, sampling) for clip in plan.clips)


def timed(
    video_: str | os.PathLike | np.ndarray,
    *,
    short_side: int | None,
    fps: float = 0.0,
    own: bool = False,
    timeout: float | None = TIMEOUT,
) -> tuple[Generator[tuple[float, np.ndarray], None, None], float]:
    """The frames of a video in order with their seconds, and its duration: `reader.timed` in a separate process.

    Args:
      video_, short_side, fps, own: as in `reader.timed`; frames in memory need no other process.
      timeout: seconds within which a file must make progress; None: read in this process, without any limit.

    Raises:
      UserError: an impossible `timeout`, or this process may not start others; frames in memory without `fps`.
      VideoError: the file cannot be read.
    """
    if isinstance(video_, np.ndarray) or timeout is None:
        if not isinstance(video_, np.ndarray):
            _check_whole(video_)
        return reader.timed(video_, short_side=short_side, fps=fps, own=own)
    results = _done(iter([_Frames(os.path.abspath(video_), short_side, fps, own)]), 1, timeout)

    def next_piece() -> workers.Piece | None:
        _, result = next(results)
        if isinstance(result, str):
            raise VideoError(video_, result)
        return result

    def frames() -> Generator[tuple[float, np.ndarray], None, None]:
        with contextlib.closing(results):
            while (piece := next_piece()) is not None:
                yield from zip(piece.value, piece.arrays["frames"], strict=True)

    first = next_piece()
    assert first is not None
    return frames(), first.value


@contextlib.contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """At Ctrl-C, end the processes that read files, so that no thread waits for them."""
    try:
        yield
    except KeyboardInterrupt:
        _READERS.kill()
        raise


def start_reader() -> None:
    """Start the process in which a file will be read, so that other work need not wait for it."""
    _READERS.start()


def _check_timeout(timeout: float | None) -> None:
    """Raise UserError if the timeout is impossible, or this process may not start others."""
    if timeout is None:
        return
    if not (isinstance(timeout, int | float) and 0 < timeout <= threading.TIMEOUT_MAX):
        raise UserError(f"timeout is {timeout!r}: expected seconds in which a file must go on, or None")
    if multiprocessing.current_process().daemon:
        raise UserError("a daemonic process may not start the processes in which files are read: give timeout=None")


class _Look(NamedTuple):
    """A task: give what a test sees of a file, clip by clip; an empty piece says that all clips come again."""

    path: str
    sampling: Sampling
    protocol: Protocol
    fps: float

    def do(self, give: Give) -> None:
        _check(self.path)
        watcher = _Clips(self, give)
        watcher.end(probing.probe(self.path, seekable=False, watcher=watcher))


class _Frames(NamedTuple):
    """A task: give the duration that a file claims, in seconds, and then its frames with their seconds."""

    path: str
    short_side: int | None
    fps: float
    own: bool

    def do(self, give: Give) -> None:
        _check(self.path)
        _check_whole(self.path)
        frames, seconds = reader.timed(self.path, short_side=self.short_side, fps=self.fps, own=self.own)
        give(seconds)
        times: list[float] = []
        images: list[np.ndarray] = []
        for time, image in frames:
            workers.go_on()
            times.append(time)
            images.append(image)
            if len(images) * image.nbytes >= _AT_ONCE:
                give(times, frames=images)
                times, images = [], []
        if images:
            give(times, frames=images)


class _Alive(pictures.Watcher):
    """Tells that a process makes progress."""

    def go_on(self) -> None:
        workers.go_on()


def _check_whole(path: str | os.PathLike) -> None:
    """Raise VideoError for a file that is cut: no part of it is labelled, as in `clips`. Its frames are not decoded."""
    held = probing.examine(path, full=False, watcher=_Alive())
    if reason := probing.verdict(held.loss, held.fault, packets.MAX_DAMAGE):
        raise VideoError(path, reason)


def _check(path: str) -> None:
    """Raise VideoError for what is neither a file nor a folder."""
    if (reason := finding.fault(path)) is not None and reason != MISSING:
        raise VideoError(path, reason)


class _Clips(pictures.Watcher):
    """An observer that gives a file's clips while it is probed, planned for the frames and the rate that it promises.

    `see` plans by these promises, and `end` anew by what was found.
    """

    def __init__(self, task: _Look, give: Give):
        self._task, self._give = task, give
        self._image = video.image_of(task.sampling.short_side)
        self._rate = task.fps
        self._promised = self._frames = 0
        self._size = (0, 0)
        self._plan: _Plan | None = None

    def at_rate(self, fps: float) -> None:
        self._rate = fps if is_rate(fps) else self._task.fps or fps

    def begin(self, frames: int) -> None:
        self._promised = frames

    def go_on(self) -> None:
        workers.go_on()

    def see(self, frame: Any) -> None:
        if not self._frames:
            self._size = (frame if isinstance(frame, np.ndarray) else video.image_of(None)(frame)).shape[:2]
            rate, fps = self._rate, self._task.sampling.fps
            slower = min(1.0, rate / fps) if fps and is_rate(rate) else 1.0  # then frames are repeated
            believed = 0 < self._promised <= _MOST_PROMISED * slower
            self._plan = self._planned(self._promised) if believed else None
        if self._plan is not None and self._frames in self._plan:
            if isinstance(frame, np.ndarray):
                image = transforms.resize_short(frame[None], self._task.sampling.short_side)[0]
            else:
                image = self._image(frame)
            self._plan.take(self._frames, image, self._give)
        self._frames += 1

    def end(self, info: probing.VideoInfo) -> None:
        """Give the clips that are missing if the promise was wrong; the file is decoded once more for them."""
        self.at_rate(info.fps)
        plan = self._plan
        if plan is None or (plan.frames, plan.rate) != (info.frames, self._rate):
            plan = self._planned(info.frames)
            if self._plan is not None and not plan.goes_on_from(self._plan):
                self._give(None)
        if plan.is_done:
            return
        path, short_side = self._task.path, self._task.sampling.short_side
        for place, image in enumerate(video.frames_in_order(path, index=info.index, short_side=short_side)):
            workers.go_on()
            if place in plan:
                plan.take(place, image, self._give)
            if plan.is_done:
                return
        raise VideoError(path, "changed while it was read")

    def _planned(self, frames: int) -> "_Plan":
        return _Plan(self._task.path, self._task.sampling, self._task.protocol, frames, self._rate, *self._size)


class _Plan:
    """The clips of a video of `frames` frames, and the frames that they still need."""

    def __init__(
        self,
        path: str,
        sampling: Sampling,
        protocol: Protocol,
        frames: int,
        fps: float,
        height: int,
        width: int,
        memory: np.ndarray | None = None,
    ):
        entry = Video(path, None, "test", frames, float(fps), width, height, None, path)
        self.frames, self.rate = frames, fps
        self._kept = Kept(frames)
        kept = cast(Any, self._kept if memory is None else memory)
        self.manifest = Manifest("files", (), "", (entry,), memory={path: kept})
        self._sampling = sampling
        self.clips = samples.cropped_clips(self.manifest, "test", sampling, protocol)
        self._needed = [samples.needed(clip, frames, sampling.streams) for clip in self.clips]
        self._last = {place: number for number, needed in enumerate(self._needed) for place in needed.tolist()}
        self._given = 0

    def __contains__(self, place: int) -> bool:
        return self._last.get(place, -1) >= self._given

    @property
    def is_done(self) -> bool:
        return self._given == len(self.clips)

    def goes_on_from(self, other: "_Plan") -> bool:
        """Whether the clips that another plan has given are the same here; if so, they count as given."""
        given = other._given
        same = given <= len(self.clips) and all(
            np.array_equal(mine.frames, theirs.frames) and np.array_equal(needed, others)
            for mine, theirs, needed, others in zip(
                self.clips[:given], other.clips[:given], self._needed[:given], other._needed[:given], strict=True
            )
        )  # crops are the same anyway
        self._given = given if same else 0
        return same

    def take(self, place: int, image: np.ndarray, give: Give) -> None:
        """Take the next frame that is needed, and give the clips that it completes."""
        self._kept[place] = image
        while not self.is_done and self._needed[self._given].max() <= place:
            clip, needed = self.clips[self._given], self._needed[self._given]
            give(None, **samples.cut(self.manifest, clip, self._sampling))
            for each in np.unique(needed).tolist():
                if self._last[each] == self._given:
                    del self._kept[each]
            self._given += 1


class Kept(dict[int, np.ndarray]):
    """Some frames of a video, by their places; it is indexed like an array of all frames."""

    def __init__(self, frames: int):
        super().__init__()
        self._frames = frames

    def __len__(self) -> int:
        return self._frames

    def __getitem__(self, places: Any) -> np.ndarray:
        return np.stack([dict.__getitem__(self, place) for place in places.tolist()])


def _do(task: _Look | _Frames) -> None:
    task.do(workers.give)


_READERS = workers.Pool(_do)


def _done(
    tasks: Iterator[_Look | _Frames], number: int, timeout: float | None
) -> Generator[tuple[int, Any], None, None]:
    """(index of a task, what it gives; at its end None, or why it failed) of all tasks."""
    if not number:
        return
    _check_timeout(timeout)
    if timeout is None:
        for index, task in enumerate(tasks):
            with contextlib.closing(_here(task)) as pieces:
                for piece in pieces:
                    yield index, piece
        return
    told: set[str] = set()
    count = min(number, _cores(), _MOST_PROCESSES)
    try:
        with contextlib.closing(_READERS.run(tasks, workers=count, timeout=timeout)) as results:
            for index, result in results:
                if (trace := getattr(result, "traceback", "")) and trace not in told:  # of an unexpected error
                    told.add(trace)
                    print(trace, end="", file=sys.stderr)
                yield index, result
    finally:
        _READERS.close(keep=1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(task: _Look | _Frames) -> Generator[Any, None, None]:
    """Run a task in a thread: what it gives, and then None or why it failed. The thread waits until that is taken."""
    given: queue.Queue[Any] = queue.Queue(2)
    closed = threading.Event()

    def put(item: Any) -> None:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                given.put(item, timeout=0.1)
                return
        raise VideoError(task.path, "not wanted any more")

    def work() -> None:
        end: Any = None
        try:
            task.do(lambda value, **arrays: put(workers.Piece(value, arrays)))
        except VideoError as error:
            end = error.reason
        except BaseException as error:
            end = error
        with contextlib.suppress(VideoError):
            put(end)

    threading.Thread(target=work, daemon=True).start()
    try:
        while isinstance(item := given.get(), workers.Piece):
            yield item
        if isinstance(item, BaseException):
            raise item
        yield item
    finally:
        closed.set()
