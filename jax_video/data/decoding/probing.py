"""What a video file holds: how many frames decode, and from which of them decoding may start.

Headers lie, so the whole file is decoded; its keyframes are tried, since decoding from them need not give the frames
that decoding in order gives.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import zlib
from collections.abc import Sequence

import av
import numpy as np

from jax_video.data.decoding import packets, pictures, video
from jax_video.data.decoding.packets import Packets
from jax_video.data.manifest import FrameIndex
from jax_video.errors import VideoError

# Headers are trusted to this many frames: HMDB51's AVI files promise one that does not exist (packed B-frames).
_TOLERATED_MISSING_FRAMES = 2
_REORDERED = 16  # frames by which a timestamp may come too early, at most
_NO_FRAME = 8  # bytes of a packet that only says that the frame before it stays, as of DivX, which packs two into one
_COMPARED = 4  # frames after a keyframe: those that could still need what stands before it
_APART = 8  # frames: nearer keyframes are not sought, as trying them all would take longer than decoding the file


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What `probe` finds of a file, or of the part of it that was asked for."""

    frames: int  # that truly decode, of the part that was asked for
    fps: float  # 0 if unknown
    width: int  # upright, in pixels
    height: int
    first: int = 0  # the frame of the file at which that part starts
    index: FrameIndex | None = None  # None where a frame is found only by decoding all before it


def probe(
    path: str | os.PathLike,
    *,
    span: tuple[float, float] | None = None,
    full: bool = True,
    watcher: pictures.Watcher = pictures.Watcher(),  # noqa: B008, without a state
) -> VideoInfo:
    """Counts the frames of a file by decoding all of it, since headers lie.

    Args:
      path: a video file, or a folder of picture files (`pictures.py`).
      span: start and end, in seconds, of the part that counts; None: all of it. What comes after it need not decode.
      full: False decodes the first frame only and counts packets. A file whose packets are visibly not one frame each
        is decoded all the same.
      watcher: is shown the frames as they are decoded.

    Raises:
      VideoError: the file is missing, empty, truncated or damaged, has no video stream, or no frame in that part.
    """
    if os.path.isdir(path):
        return VideoInfo(*pictures.probe(path, full=full, watcher=watcher))
    end = span[1] if span else math.inf
    rows = []  # of the packets that are shown
    hidden = 0  # packets before a cut, which only help to decode what comes after it
    times: list[int] = []  # timestamps of the frames that were decoded
    seconds: list[float] = []  # of each from the file's start
    corrupt = False  # whether the decoder made up a part of one, as it does otherwise after a seek
    past: float = 0  # how many of them from the first on that comes after the part
    prints = _Prints()
    with packets.opened(path) as (container, stream):
        start = (container.start_time or 0) / av.time_base
        watcher.begin(stream.frames or round((container.duration or 0) / av.time_base * (stream.average_rate or 0)))
        for packet in packets.demux(container, stream):
            watcher.go_on()
            if packets.is_shown(packet):
                rows.append(packets.row(packet))
                if full and packet.is_keyframe:
                    prints.expect(packet)
            elif packet.is_discard:
                hidden += 1
            if (times and not full) or past > _REORDERED:
                continue
            try:
                decoded = packet.decode()
            except av.FFmpegError as error:
                if past:
                    past = math.inf
                    continue
                reason = f"damaged: undecodable from frame {len(times)} ({error.strerror})"
                raise VideoError(path, reason) from error
            for frame in decoded:
                if not times:
                    one = frame
                video.check_size(path, frame, one, len(times))
                if not times:
                    height, width, _ = video.rgb(frame, av.video.reformatter.VideoReformatter()).shape
                times.append(packets.MISSING if frame.pts is None else frame.pts)
                seconds.append(math.nan if frame.time is None else frame.time - start)
                past += past > 0 or seconds[-1] >= end
                corrupt |= frame.is_corrupt
                prints.take(frame)
                watcher.see(frame)
        duration = (container.duration or 0) / av.time_base
        promised = stream.frames  # 0 where the container does not say
        rate = stream.average_rate or stream.guessed_rate
        intra_only = stream.codec_context.codec.intra_only
        table = np.array(rows, packets.ROW)
        listed = Packets.sorted(table)
        if not full and times:
            packs = stream.codec_context.name == "mpeg4" and table["place"][:, 1].min() <= _NO_FRAME
            if packs or listed is None or not table["keyframe"][0]:
                return probe(path, span=span, watcher=watcher)
            assert stream.time_base is not None  # of a stream that was demuxed
            times = listed.times.tolist()
            seconds = (listed.times * float(stream.time_base) - start).tolist()
    promised -= hidden
    if promised - len(rows) > _TOLERATED_MISSING_FRAMES:
        raise VideoError(path, f"truncated: the header promises {promised} frames, the file holds {len(rows)}")
    if not len(times):
        raise VideoError(path, "no frames: the video stream is empty")
    if full and span is None and promised - len(times) > _TOLERATED_MISSING_FRAMES:
        raise VideoError(path, f"damaged: only {len(times)} frames decode of {promised} that the header promises")
    latest = max(seconds)
    if promised <= 0 and latest < min(end, 0.9 * duration - 1):  # Matroska says how long; sound may last a little more
        raise VideoError(path, f"truncated: the header promises {duration:.1f} s, the frames end at {latest:.1f} s")
    # The frames are in order also where their timestamps are not, as in AVI files with B-frames.
    first, count = (0, len(times)) if span is None else _part(path, np.sort(seconds), *span)
    index: FrameIndex | None = FrameIndex(len(rows), size=os.path.getsize(path))
    if full:
        index = None
        if listed is not None and np.array_equal(listed.times[: len(times)], times):
            if (span or len(times) == len(rows)) and not corrupt:  # each packet gave one frame
                index = _verified(path, listed, len(times), prints, watcher, every=intra_only)
    return VideoInfo(count, float(rate or 0), width, height, first, index)


def _part(path: str | os.PathLike, seconds: np.ndarray, start: float, end: float) -> tuple[int, int]:
    """(the first, how many) of the frames from `start` on and before `end`."""
    if np.isnan(seconds).any():
        raise VideoError(path, f"has no timestamps: which frames are from {start:g} to {end:g} s cannot be told")
    seconds = np.round(seconds, 6)  # differences of times that are no binary fractions
    inside = np.flatnonzero((seconds >= start) & (seconds < end))
    if not len(inside):
        raise VideoError(path, f"too short: no frame from {start:g} to {end:g} s, the last is at {seconds.max():.1f} s")
    return int(inside[0]), len(inside)


class _Prints:
    """Checksums of the images at keyframes, as decoding in order gives them, and of a few images after each."""

    def __init__(self):
        self._keyframes = set()
        self._left = 0  # images to take before the next keyframe
        self._image = video.image_of(None)
        self._sums = {}  # timestamp -> checksum

    def expect(self, keyframe: av.Packet) -> None:
        """A keyframe's packet has been read; its image is among those that follow."""
        self._keyframes.add(keyframe.pts)

    def take(self, frame: av.VideoFrame) -> None:
        """The next frame of the file."""
        if frame.pts in self._keyframes:
            self._keyframes.remove(frame.pts)
            self._left = _COMPARED
        if self._left and frame.pts is not None:
            self._left -= 1
            self._sums[frame.pts] = self._sum(frame)

    def are_of(self, decoded: Sequence[av.VideoFrame]) -> bool:
        """Whether frames are those that were taken."""
        return all(self._sums.get(frame.pts) == self._sum(frame) for frame in decoded)

    def _sum(self, frame: av.VideoFrame) -> int:
        if not frame.format.is_planar or frame.format.is_rgb:
            return zlib.crc32(np.ascontiguousarray(self._image(frame)).data)
        total = 0
        for plane in frame.planes:  # of YCbCr, whose conversion takes longer than all else here
            lines = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
            total = zlib.crc32(np.ascontiguousarray(lines[:, : plane.width]).data, total)
        return total


def _verified(
    path: str | os.PathLike,
    listed: Packets,
    decoded: int,
    prints: _Prints,
    watcher: pictures.Watcher,
    *,
    every: bool,
) -> FrameIndex:
    """The index of a file whose packets give one frame each, with the keyframes from which decoding gives them too.

    Not all do: a keyframe of intra-refresh is none until all of the picture was refreshed, some containers call every
    frame one, and an AVI file's timestamps come after a seek from another part of it than in order.

    Args:
      decoded: how many of the frames were.
      every: whether each frame is decoded by itself, so that all is well where it is found.
    """
    tried: list[int] = []
    reached = []
    for place in listed.keyframes[listed.keyframes < decoded].tolist():
        if every or not tried or place >= tried[-1] + _APART:
            tried.append(place)
    with packets.opened(path, **packets.STRICT) as (container, stream):
        for place, following in itertools.pairwise([*tried, len(listed.times)]):
            watcher.go_on()
            with contextlib.suppress(av.FFmpegError):  # some files cannot be sought in at all
                is_there = _is_reached(container, stream, listed, place, following)
                if is_there and (every or _is_keyframe(container, stream, listed, place, decoded, prints)):
                    reached.append(place)
    steps = np.diff(listed.times)
    even = len(steps) > 0 and np.all(steps == steps[0]) and reached == tried
    start, step = (int(listed.times[0]), int(steps[0])) if even else (0, 0)
    return FrameIndex(len(listed.times), start, step, tuple(reached), os.path.getsize(path), verified=True)


def _is_reached(
    container: av.container.InputContainer, stream: av.VideoStream, listed: Packets, place: int, following: int
) -> bool:
    """Whether a seek comes to a keyframe, and then to the packets up to the following one as they stand in the file."""
    missing = set(listed.times[place:following].tolist())
    container.seek(int(listed.times[place]), stream=stream)
    for packet in packets.demux(container, stream):
        if packet.size > 0:
            if not listed.holds(packet) or (packet.pts > listed.times[place] and listed.times[place] in missing):
                return False
            missing.discard(packet.pts)
        if not missing:
            return True
    return False


def _is_keyframe(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    listed: Packets,
    place: int,
    decoded: int,
    prints: _Prints,
) -> bool:
    """Whether decoding from a keyframe gives its image, and those after it, as decoding in order does."""
    time = int(listed.times[place])
    expected = listed.times[place : min(place + _COMPARED, decoded)].tolist()
    found = []
    for frame in packets.decode_from(container, stream, time, listed, None):
        if frame.pts is None or frame.is_corrupt:
            return False
        if frame.pts >= time:
            found.append(frame)
        if len(found) == len(expected):
            break
    return [frame.pts for frame in found] == expected and prints.are_of(found)
