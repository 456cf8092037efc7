"""Any number of single videos: what a network says of each, as soon as it is known, in constant memory."""

import collections
import contextlib
import dataclasses
import numbers
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh

from jax_video import sharding
from jax_video.data import isolated, pipeline
from jax_video.data.manifest import in_memory
from jax_video.errors import UserError, VideoError, listed, shown
from jax_video.scoring import ClipStep

_KINDS = "a file, a folder of numbered pictures, or frames as an array uint8 [T, H, W, 3], RGB"
Video = str | os.PathLike | np.ndarray
"""A file, a folder of numbered pictures, or frames: uint8 [T, H, W, 3], RGB."""


def several(videos: Video | Iterable[Video]) -> tuple[list[Video], bool]:
    """(videos as a list, whether it was a single one). Raises UserError for what is no video."""
    if isinstance(videos, np.ndarray) and videos.dtype.kind in "UO" and videos.ndim < 2:  # names
        videos = videos.tolist()
    single = isinstance(videos, str | os.PathLike) or hasattr(videos, "__array__")
    if not single and (not isinstance(videos, Iterable) or isinstance(videos, bytes | Mapping)):
        raise UserError(f"got {type(videos).__name__}: expected a video, or a list of several; a video is {_KINDS}")
    several: list[Any] = [videos] if single else [*cast(Iterable[Any], videos)]
    for place, video in enumerate(several):
        if isinstance(video, str):
            several[place] = str(video)  # also of NumPy's, which is an array, too
        elif hasattr(video, "__array__"):
            several[place] = np.asarray(video)
        elif not isinstance(video, os.PathLike):
            raise UserError(f"video {place} is of type {type(video).__name__}: expected {_KINDS}")
    return several, single


def one(video: Video) -> Video:
    """The video, if it is a single one. Raises UserError for several, and for what is no video."""
    found, single = several(video)
    if not single:
        raise UserError(f"got {len(found)} videos: expected one; frames are one array, np.stack(frames)")
    return found[0]


def refuse(faults: Mapping[int, str], videos: Sequence[Video]) -> None:
    """Raise UserError with the reason of each video that cannot be read, if any."""
    if faults:
        names = {place: "frames" if isinstance(videos[place], np.ndarray) else videos[place] for place in faults}
        lines = [f"{shown(names[place])}: {reason}" for place, reason in faults.items()]
        raise UserError(f"{len(faults)} of {len(videos)} videos cannot be read:\n{listed(lines)}")


def at_least_one(name: str, value: Any) -> int:
    """The value, if it is a number of clips. Raises UserError, with its name, if not."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} is {value!r}: expected a number of clips, at least 1")
    return int(value)


def checked_fps(fps: Any, zero: str = "where they are not known") -> float:
    """The frame rate. Raises UserError if it is none; `zero` is the part of the message that says what 0 is for."""
    if not (isinstance(fps, numbers.Real) and 0 <= float(fps) < float("inf")):
        raise UserError(f"fps is {fps!r}: expected frames per second, or 0 {zero}")
    return float(fps)


def with_clips(protocol: pipeline.Protocol, clips: int) -> pipeline.Protocol:
    """A protocol with `clips` clips of each video, evenly spread. Raises UserError if it cannot have them."""
    if protocol.clips == "segments":
        raise UserError(f"clips is {clips!r}: this network takes the clips of a video together, as many as in training")
    return dataclasses.replace(protocol, clips="uniform", number=at_least_one("clips", clips))


def in_order(found: Iterable[tuple[int, np.ndarray | str]]) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """({place: what a network says of a video}, {place: why it cannot be read}), both in the order of the videos."""
    rows: dict[int, np.ndarray] = {}
    faults: dict[int, str] = {}
    for place, each in found:
        if isinstance(each, str):
            faults[place] = each
        else:
            rows[place] = each
    return dict(sorted(rows.items())), dict(sorted(faults.items()))


def name(video: Video, place: int) -> str:
    """What a message calls a video; `place` is its index among the videos given."""
    return f"video {place}" if isinstance(video, np.ndarray) else os.fspath(video)


def seen(
    videos: Sequence[Video],
    sampling: pipeline.Sampling,
    protocol: pipeline.Protocol,
    *,
    fps: float,
    timeout: float | None,
) -> Generator[isolated.Seen, None, None]:
    """Yield what a test sees of videos: of files and folders as `isolated.clips` does, then the same of arrays.

    Raises:
      UserError: an argument is out of range, or an array is no video.
    """
    fps = checked_fps(fps)
    arrays = {place: video for place, video in enumerate(videos) if isinstance(video, np.ndarray)}
    paths = {place: os.fspath(video) for place, video in enumerate(videos) if not isinstance(video, np.ndarray)}
    if arrays:
        in_memory({name(frames, place): frames for place, frames in arrays.items()})  # raises if one is no video
    with contextlib.closing(isolated.clips(paths, sampling, protocol, fps=fps, timeout=timeout)) as found:
        yield from found
    for place, frames in arrays.items():
        try:
            looked_at = isolated.clips_of_frames(frames, sampling, protocol, fps=fps)
        except VideoError as error:
            yield isolated.Seen(place, error.reason)
            continue
        for clip in looked_at:
            yield isolated.Seen(place, clip)
        yield isolated.Seen(place, None)


_PATIENCE = 16  # batches of a call, from which on larger ones are worth a compilation
_SHAPES = 4  # batches of clips that wait for others of their shape, at most


@dataclasses.dataclass
class BatchSize:
    """How many clips are in a batch: as few as the first call has, so that one video costs no more than itself, and
    `most` once there are many. What is compiled for a size serves the next calls."""

    now: int = 0  # 0: nothing is compiled

    def fit(self, clips: int, most: int, mesh: Mesh) -> int:
        """The batch size for a call that has had `clips` clips, or is known to have them."""
        if clips > _PATIENCE * self.now:
            self.now = sharding.multiple_of_devices(min(clips, most), mesh)
        return self.now


class _Sum:
    """The sum of a network's outputs over the clips of one video."""

    def __init__(self) -> None:
        self.values: Any = 0.0  # float64 [D]
        self.clips = self.given = 0  # clips that are in the sum; clips that have come
        self.is_whole = False  # whether all clips have come

    @property
    def is_done(self) -> bool:
        return self.is_whole and self.clips == self.given


def means(
    step: ClipStep,
    weights: tuple[dict, dict],
    seen: Iterable[isolated.Seen],
    mesh: Mesh,
    *,
    most: int,
    size: BatchSize,
) -> Generator[tuple[int, np.ndarray | str], None, None]:
    """Run a step on clips as they come; those of several videos fill a batch together.

    Args:
      weights: (params, batch_stats).
      seen: clips and other events of videos, as `isolated.clips` yields them.
      most: clips at once.
      size: is adapted to the number of clips.

    Yields:
      (place of a video, mean over its clips [D] float64, or why it cannot be read), each as soon as it is known.

    Raises:
      UserError: the devices have too little memory.
    """
    sums: dict[int, _Sum] = {}
    waiting: dict[tuple, list[tuple[_Sum, dict[str, np.ndarray]]]] = collections.defaultdict(list)  # by shape
    running: list[tuple[list[_Sum], jax.Array]] = []  # is read while the next batch is gathered
    clips = 0
    if size.now > sharding.multiple_of_devices(most, mesh):  # an earlier call was allowed more
        size.now = 0

    def look(shape: tuple, at_once: int) -> None:
        owners, parts = zip(*waiting.pop(shape), strict=True)
        batch: Any = pipeline.batch_of(parts, at_once)
        running.append((list(owners), step(*weights, sharding.place_batch(batch, mesh))["values"]))

    def add(most_running: int) -> Iterator[tuple[int, np.ndarray]]:
        while len(running) > most_running:
            owners, values = running.pop(0)
            for owner, row in zip(owners, np.asarray(values, np.float64), strict=False):
                owner.values, owner.clips = owner.values + row, owner.clips + 1
        for place in [place for place, found in sums.items() if found.is_done]:
            found = sums.pop(place)
            yield place, found.values / found.clips

    with sharding.enough_memory():
        for place, what in seen:
            match what:
                case dict():
                    clips += 1
                    owner = sums.setdefault(place, _Sum())
                    owner.given += 1
                    shape = tuple(frames.shape for frames in what.values())
                    waiting[shape].append((owner, what))
                    at_once = size.fit(clips, most, mesh) if size.now else sharding.multiple_of_devices(most, mesh)
                    is_full = len(waiting[shape]) >= at_once
                    if is_full or sum(map(len, waiting.values())) > _SHAPES * at_once:
                        size.fit(clips, most, mesh)
                        look(max(waiting, key=lambda each: len(waiting[each])), at_once)
                        yield from add(1)
                case isolated.Again():
                    sums[place] = _Sum()
                case str():
                    sums.pop(place, None)
                    yield place, what
                case None:
                    sums[place].is_whole = True
                    yield from add(len(running))
        while waiting:
            longest = max(waiting, key=lambda each: len(waiting[each]))
            look(longest, size.now or size.fit(len(waiting[longest]), most, mesh))
            yield from add(1)
        yield from add(0)
