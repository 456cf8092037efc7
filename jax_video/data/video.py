"""Video files in, upright RGB frames out: exactly the frames asked for, and a reason when a file cannot give them.

A frame's index is its place in the order in which the decoder hands frames out, which is presentation order. Timestamps
never enter a result, so a variable frame rate needs no special case.
"""

import bisect
import contextlib
import dataclasses
import functools
import itertools
import math
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence

import av
import numpy as np

from jax_video.data import frames, transforms
from jax_video.errors import VideoError

# Headers are trusted to this many frames: HMDB51's AVI files promise one that does not exist (packed B-frames).
_TOLERATED_MISSING_FRAMES = 2
_NO_FRAME = 8  # Bytes of a packet that only says that the frame before it stays.


@dataclasses.dataclass(frozen=True, slots=True)
class FrameIndex:
    """Where the frames of a file are: enough to decode from the keyframe before a wanted one, and no more.

    It is trusted: only of a file of another size it is noticed that it is not the one that was probed.
    """

    frames: int  # in the file, each in a packet of its own
    start: int = 0  # timestamp of frame 0, in the stream's time base
    step: int = 0  # timestamps from a frame to the next; 0: uneven, or not known, so that the file is asked
    keyframes: tuple[int, ...] = ()  # ascending; known where `step` is
    size: int = 0  # of the file, in bytes; 0: not known

    @classmethod
    def from_json(cls, values: dict) -> "FrameIndex":
        """The inverse of `dataclasses.asdict`, after JSON, which has no tuples."""
        return cls(**values | {"keyframes": tuple(values["keyframes"])})


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What `probe` found."""

    frames: int  # that truly decode, of the part that was asked for
    fps: float  # 0 if unknown
    width: int  # upright, in pixels
    height: int
    first: int = 0  # the frame of the file at which that part starts
    index: FrameIndex | None = None  # None where a frame is found only by decoding all before it


def probe(path: str | os.PathLike, *, span: tuple[float, float] | None = None, full: bool = True) -> VideoInfo:
    """Decodes the whole file and counts, since headers lie.

    Args:
      path: a video file, or a folder of picture files (`frames.py`).
      span: start and end, in seconds, of the part that counts; None: all of it. What comes after it need not decode.
      full: False looks at the packets and the first frame only, and takes every packet for a frame.

    Raises:
      VideoError: the file is missing, empty, truncated or damaged, has no video stream, or no frame in that part.
    """
    if os.path.isdir(path):
        return VideoInfo(*frames.probe(path, full=full))
    end = span[1] if span else math.inf
    rows = []  # of the packets that are shown
    hidden = 0  # packets before a cut, which only help to decode what comes after it
    times, seconds = [], []  # of the frames that were decoded: timestamps, and what they mean
    with _opened(path) as (container, stream):
        for packet in _demux(container, stream):
            if packet.is_discard:
                hidden += 1
            elif packet.size > 0:  # The last packet is empty: it flushes the decoder.
                rows.append(_packet_row(packet))
            if times and (not full or seconds[-1] >= end):
                continue
            try:
                decoded = packet.decode()
            except av.FFmpegError as error:
                reason = f"damaged: undecodable from frame {len(times)} ({error.strerror})"
                raise VideoError(path, reason) from error
            for frame in decoded:
                if not times:
                    first = frame
                _check_size(path, frame, first, len(times))
                if not times:
                    height, width, _ = _rgb(frame, av.video.reformatter.VideoReformatter()).shape
                times.append(_MISSING if frame.pts is None else frame.pts)
                seconds.append(frame.time or 0.0)
        duration = (container.duration or 0) / av.time_base
        promised = stream.frames  # 0 where the container does not say.
        rate = stream.average_rate or stream.guessed_rate
        packets = _sorted_packets(np.array(rows, _PACKET))
        index = packets and _frame_index(container, stream, packets, os.path.getsize(path))
        if not full and times:
            times = np.sort([time for time, *_ in rows]) if packets is None else packets.times
            if stream.codec_context.name == "mpeg4" and min(size for _, (_, size), _ in rows) <= _NO_FRAME:
                times = times[:-1]  # DivX puts two frames into one packet, and one packet without any at the end.
            seconds = (times * float(stream.time_base)).tolist()
    promised -= hidden
    if promised - len(rows) > _TOLERATED_MISSING_FRAMES:
        raise VideoError(path, f"truncated: the header promises {promised} frames, the file holds {len(rows)}")
    if not len(times):
        raise VideoError(path, "no frames: the video stream is empty")
    if full and span is None and promised - len(times) > _TOLERATED_MISSING_FRAMES:
        raise VideoError(path, f"damaged: only {len(times)} frames decode of {promised} that the header promises")
    latest = max(seconds)
    if promised <= 0 and latest < min(end, 0.9 * duration - 1):  # Matroska says how long; sound may last a little more.
        raise VideoError(path, f"truncated: the header promises {duration:.1f} s, the frames end at {latest:.1f} s")
    if index and not (np.array_equal(packets.times[: len(times)], times) and (span or len(times) == len(rows))):
        index = None  # Not every packet gives one frame.
    first, count = (0, len(times)) if span is None else _part(path, np.array(seconds), *span)
    return VideoInfo(count, float(rate or 0), width, height, first, index)


def _part(path: str | os.PathLike, seconds: np.ndarray, start: float, end: float) -> tuple[int, int]:
    """(the first, how many) of the frames from `start` on and before `end`."""
    inside = np.flatnonzero((seconds >= start) & (seconds < end))
    if not len(inside):
        raise VideoError(path, f"too short: no frame from {start:g} to {end:g} s, the last is at {seconds.max():.1f} s")
    return int(inside[0]), len(inside)


def _frame_index(
    container: av.container.InputContainer, stream: av.VideoStream, packets: "_Packets", size: int
) -> FrameIndex:
    """The index of packets that give one frame each, with keyframes where they can be sought without the packets."""
    steps = np.diff(packets.times)
    if not len(steps) or np.any(steps != steps[0]) or not _is_reached(container, stream, packets):
        return FrameIndex(len(packets.times), size=size)
    start, step = int(packets.times[0]), int(steps[0])
    return FrameIndex(len(packets.times), start, step, tuple(packets.keyframes.tolist()), size)


def _is_reached(container: av.container.InputContainer, stream: av.VideoStream, packets: "_Packets") -> bool:
    """Whether a seek to each keyframe comes to it, and packets after a seek are those of a file read from its start.

    An AVI file's timestamps come from its index, and after a seek from another part of it, which may disagree.
    """
    times = packets.times[packets.keyframes].tolist()
    for time, end in itertools.pairwise([*times, None]):
        container.seek(time, stream=stream)
        arrived = False
        for packet in _demux(container, stream):
            if packet.size == 0:
                break
            if not packets.holds(packet) or (not arrived and packet.pts != time):
                return False
            arrived = True
            if packet.pts == end:
                break
        if not arrived:
            return False
    return bool(times)


def decode(
    path: str | os.PathLike,
    indices: Sequence[int],
    *,
    index: FrameIndex | None = None,
    short_side: int | None = None,
) -> np.ndarray:
    """Decodes the frames at `indices`, which may repeat and come in any order.

    Args:
      path: a video file, or a folder of picture files (`frames.py`).
      indices: places in presentation order, counted from 0.
      index: what `probe` found. With it only what lies between a keyframe and a wanted frame is decoded, and of that
        only what a wanted frame may refer to: that every packet gives one frame, so that places follow from
        timestamps, is what a full probe finds, and a fast one takes for granted. Without it everything before the last
        wanted frame is decoded. The result is the same to the bit (but for what a decoder makes up for lost parts of a
        damaged stream).
      short_side: if given, each frame is resized to it as it is decoded, so that no large frame waits in memory.

    Returns:
      uint8 [len(indices), H, W, 3], RGB, upright.

    Raises:
      VideoError: the file cannot be read, or has no frame at an index.
    """
    wanted = sorted({int(place) for place in indices})
    if not wanted or wanted[0] < 0:
        raise ValueError(f"frame indices must be at least one and not negative, got {list(indices)}")

    if os.path.isdir(path):
        return frames.decode(path, indices, short_side=short_side)
    _check_same(path, index)
    image = _image_of(short_side)
    images = None if index is None else _decode_by_seeking(path, wanted, index, image)
    if images is None:
        images = _decode_in_order(path, wanted, image)
    return np.stack([images[int(place)] for place in indices])


def frames_in_order(
    path: str | os.PathLike, *, first: int = 0, index: FrameIndex | None = None, short_side: int | None = None
) -> Iterator[np.ndarray]:
    """The frames of a video from the `first` on, one at a time, so that any length fits in memory.

    Each is uint8 [H, W, 3], upright RGB: what `decode` gives, and so is the meaning of `index` and `short_side`.

    Raises:
      VideoError: the file cannot be read, or is damaged after the frames already given.
    """
    if os.path.isdir(path):
        yield from itertools.islice(frames.frames_in_order(path, short_side=short_side), first, None)
        return
    _check_same(path, index)
    image = _image_of(short_side)
    skipped = first
    with _opened(path) as (container, stream):
        if first and index is not None and index.step and first >= index.keyframes[0]:
            keyframe = index.keyframes[bisect.bisect_right(index.keyframes, first) - 1]
            time = index.start + index.step * keyframe
            decoded = _decode_from(container, stream, time, _packets_of(index), None)
            decoded = (frame for frame in decoded if frame.pts >= time)  # Not those that need what stands before.
            skipped = first - keyframe
        else:
            decoded = _decode_all(container, stream)
        for count, frame in enumerate(decoded):
            if count == 0:
                start = frame
            _check_size(path, frame, start, count)
            if count >= skipped:
                yield image(frame)


def _check_same(path: str | os.PathLike, index: FrameIndex | None) -> None:
    """Raises VideoError where a file has been replaced since it was probed: frames would be others, without a word."""
    if index is None or not index.size:
        return
    with contextlib.suppress(FileNotFoundError):  # which opening it says better
        size = os.path.getsize(path)
        if size != index.size:
            raise VideoError(path, f"changed: {size:,} bytes, where prepare saw {index.size:,}; run prepare again")


def _image_of(short_side: int | None) -> Callable[[av.VideoFrame], np.ndarray]:
    """The function from a decoded frame to the image that users get."""
    reformatter = av.video.reformatter.VideoReformatter()  # Keeps its tables from frame to frame.

    def image(frame: av.VideoFrame) -> np.ndarray:
        rgb = _rgb(frame, reformatter)
        return rgb if short_side is None else transforms.resize_short(rgb[None], short_side)[0]

    return image


def _decode_in_order(
    path: str | os.PathLike, wanted: list[int], image: Callable[[av.VideoFrame], np.ndarray]
) -> dict[int, np.ndarray]:
    """Decodes from the start up to the last wanted frame; defines what `_decode_by_seeking` must give."""
    images = {}
    count = 0
    with _opened(path) as (container, stream):
        for frame in _decode_all(container, stream):
            if count == 0:
                first = frame
            _check_size(path, frame, first, count)
            if count == wanted[len(images)]:
                images[count] = image(frame)
                if len(images) == len(wanted):
                    return images
            count += 1
    raise VideoError(path, f"no frame {wanted[len(images)]}: only {count} frames decode")


def _decode_by_seeking(
    path: str | os.PathLike, wanted: list[int], index: FrameIndex, image: Callable[[av.VideoFrame], np.ndarray]
) -> dict[int, np.ndarray] | None:
    """Decodes from the keyframe before each wanted frame; None where that cannot be shown to give the same frames."""
    if wanted[-1] >= index.frames:
        return None
    images, first = {}, None
    try:
        # A decoder hides damage behind what it decoded before, so after a seek it would hide it differently: explode.
        with _opened(path, err_detect="explode") as (container, stream):
            packets = _packets_of(index) if index.step else _known_packets_of(path).read(container, stream)
            if packets is None or len(packets.times) != index.frames:
                return None
            if not len(packets.keyframes) or wanted[0] < packets.keyframes[0]:
                return None  # As in a file that was cut between two keyframes.
            for keyframe, places in _runs(wanted, packets.keyframes.tolist()):
                missing = {int(packets.times[place]): place for place in places}
                for frame in _decode_from(container, stream, int(packets.times[keyframe]), packets, missing.keys()):
                    first = first or frame
                    _check_size(path, frame, first, 0)
                    if (place := missing.pop(frame.pts, None)) is not None:
                        images[place] = image(frame)
                if missing:
                    return None
    except VideoError:
        return None  # Decoding in order meets the same fault, if it matters, and knows where.
    return images


def _runs(wanted: list[int], keyframes: list[int]) -> list[tuple[int, list[int]]]:
    """Wanted frames, ascending, by the keyframe to seek; none is sought that decoding comes to anyway."""
    runs = []
    for place in wanted:
        keyframe = keyframes[bisect.bisect_right(keyframes, place) - 1]
        if runs and keyframe <= runs[-1][1][-1] + 1:
            runs[-1][1].append(place)
        else:
            runs.append((keyframe, [place]))
    return runs


# Decoders of FFmpeg that leave out, packet by packet, what no other frame refers to (B-frames, mostly).
_SKIPPING = ("h264", "mpeg4")


def _decode_from(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    time: int,
    packets: "_Packets",
    wanted: Collection[int] | None,
) -> Iterator[av.VideoFrame]:
    """Frames from the keyframe at `time` on, the `wanted` timestamps among them, until nothing is wanted any more.

    Where `wanted` is None, all are. Ends early where the packets are not at their places.
    """
    decoder = stream.codec_context
    skips = wanted is not None and decoder.name in _SKIPPING
    container.seek(time, stream=stream)
    arrived = False
    for packet in _demux(container, stream):
        if packet.size > 0:
            if packet.pts is None or not packets.holds(packet) or (not arrived and packet.pts > time):
                return
            arrived = True
            if skips:
                decoder.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        yield from packet.decode()
        if wanted is not None and not wanted:
            return


@dataclasses.dataclass(frozen=True)
class _Packets:
    """The packets of a video stream in presentation order, one for each frame; without their data."""

    times: np.ndarray  # [P] int64, ascending
    keyframes: np.ndarray  # ascending indices into the P packets
    places: np.ndarray | None = None  # [P, 2] int64: position in the file, size; None where `probe` has seen to them

    def holds(self, packet: av.Packet) -> bool:
        if self.places is None:
            return True
        if packet.pts is None:
            return False
        index = min(np.searchsorted(self.times, packet.pts), len(self.times) - 1)
        return (self.times[index], *self.places[index]) == (packet.pts, *_place(packet))


def _packets_of(index: FrameIndex) -> _Packets:
    return _Packets(index.start + index.step * np.arange(index.frames), np.array(index.keyframes))


class _KnownPackets:
    """The packets of one file, read once, when its first clip is: a clip of a long video costs only its own frames."""

    def __init__(self):
        self._lock = threading.Lock()  # Grain reads in several threads.
        self._known = False
        self._packets = None

    def read(self, container: av.container.InputContainer, stream: av.VideoStream) -> _Packets | None:
        """The packets; None where timestamps do not put them in order."""
        with self._lock:
            if not self._known:
                rows = (
                    _packet_row(packet)
                    for packet in _demux(container, stream)
                    if packet.size > 0 and not packet.is_discard
                )
                self._packets = _sorted_packets(np.fromiter(rows, _PACKET))
                self._known = True
            return self._packets


def _known_packets_of(path: str | os.PathLike) -> _KnownPackets:
    status = os.stat(path)
    with _KNOWING:
        return _known_packets(os.path.abspath(path), status.st_size, status.st_mtime_ns)


_KNOWING = threading.Lock()


@functools.lru_cache(maxsize=4)  # Of the files read last: two hours of video have 5 MB of them.
def _known_packets(path: str, size: int, modified: int) -> _KnownPackets:
    return _KnownPackets()


_MISSING = np.iinfo(np.int64).min  # For a timestamp or position that a packet does not have.
_PACKET = np.dtype([("time", np.int64), ("place", np.int64, 2), ("keyframe", np.bool_)])


def _packet_row(packet: av.Packet) -> tuple:
    """A packet as _PACKET."""
    return _MISSING if packet.pts is None else packet.pts, _place(packet), packet.is_keyframe


def _place(packet: av.Packet) -> tuple[int, int]:
    return _MISSING if packet.pos is None else packet.pos, packet.size


def _sorted_packets(rows: np.ndarray) -> _Packets | None:
    """Rows of _PACKET in the order in which they are shown; None where timestamps do not say it."""
    rows = rows[np.argsort(rows["time"])]
    times = rows["time"].copy()  # In one piece of memory, for a search to be quick.
    if not len(times) or times[0] == _MISSING or not np.all(np.diff(times)):
        return None
    return _Packets(times, np.flatnonzero(rows["keyframe"]), rows["place"].copy())


_LIMITS = {"max_pixels": str(frames.MOST_PIXELS)}  # Of decoders, which may find another size than the header's.


@contextlib.contextmanager
def _opened(
    path: str | os.PathLike, **decoder_options: str
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens a file at its best video stream; whatever goes wrong inside the block becomes a VideoError."""
    if not os.path.exists(path):
        raise VideoError(path, "no such file")
    if not os.path.isfile(path):
        raise VideoError(path, "not a file")
    if os.path.getsize(path) == 0:
        raise VideoError(path, "empty file")
    try:
        # `file:` keeps a colon in a name from being read as a protocol; the whitelist keeps a playlist that calls
        # itself .mp4 from reaching into the network.
        with av.open(
            f"file:{os.fspath(path)}", metadata_errors="ignore", options={"protocol_whitelist": "file", **_LIMITS}
        ) as container:
            stream = container.streams.best("video")
            if stream is None:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
                raise VideoError(path, f"no video stream (streams found: {kinds})")
            if stream.codec_context is None:
                raise VideoError(path, "its video codec is unknown")
            stream.codec_context.thread_count = 1  # Parallel over videos: more threads here would fight over cores.
            stream.codec_context.options = _LIMITS | decoder_options
            yield container, stream
    except av.FFmpegError as error:
        raise VideoError(path, f"not a readable video ({error.strerror})") from error
    except (OSError, MemoryError) as error:
        raise VideoError(path, f"cannot be read ({error})") from error


def _demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets of a stream."""
    # Where other streams begin in the middle of a file, PyAV may look for one that it does not have, after our last.
    with contextlib.suppress(IndexError):
        yield from container.demux(stream)


def _decode_all(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    for packet in _demux(container, stream):
        yield from packet.decode()


def _rgb(frame: av.VideoFrame, reformatter: av.video.reformatter.VideoReformatter) -> np.ndarray:
    """Any pixel format to upright RGB, uint8 [H, W, 3]."""
    image = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return np.rot90(image, round(frame.rotation / 90))  # Both counter-clockwise.


def _check_size(path: str | os.PathLike, frame: av.VideoFrame, first: av.VideoFrame, index: int) -> None:
    if frame is first:
        frames.check_shape(path, frame.width, frame.height)
    if (frame.width, frame.height) != (first.width, first.height):
        raise VideoError(
            path,
            f"frames change size: from {first.width}x{first.height} to {frame.width}x{frame.height} at frame {index}",
        )
