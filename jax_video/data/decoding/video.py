"""Video files in, upright RGB frames out: exactly the frames asked for, and a reason when a file cannot give them.

A frame's index is its place in the order in which the decoder hands frames out, which is presentation order. Timestamps
never enter a result, so a variable frame rate needs no special case.
"""

import bisect
import contextlib
import dataclasses
import itertools
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import av
import numpy as np

from jax_video.data import transforms
from jax_video.data.decoding import packets, pictures
from jax_video.data.decoding.packets import Packets
from jax_video.data.manifest import FrameIndex
from jax_video.errors import VideoError

# What may give other frames, or other verdicts, where it changes.
DECODER = f"PyAV {av.__version__}, " + ", ".join(
    f"{name} {'.'.join(map(str, version))}"
    for name, version in sorted(av.library_versions.items())
    if name in ("libavcodec", "libavformat")
)

# Headers are trusted to this many frames: HMDB51's AVI files promise one that does not exist (packed B-frames).
_TOLERATED_MISSING_FRAMES = 2
_REORDERED = 16  # Frames by which a timestamp may come too early, at most.
_NO_FRAME = 8  # Bytes of a packet that only says that the frame before it stays, as of DivX, which packs two into one.


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
      path: a video file, or a folder of picture files (`pictures.py`).
      span: start and end, in seconds, of the part that counts; None: all of it. What comes after it need not decode.
      full: False looks at the packets and the first frame only, and takes every packet for a frame; but for files whose
        packets show that they are none.

    Raises:
      VideoError: the file is missing, empty, truncated or damaged, has no video stream, or no frame in that part.
    """
    if os.path.isdir(path):
        return VideoInfo(*pictures.probe(path, full=full))
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
        for packet in packets.demux(container, stream):
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
                _check_size(path, frame, one, len(times))
                if not times:
                    height, width, _ = _rgb(frame, av.video.reformatter.VideoReformatter()).shape
                times.append(packets.MISSING if frame.pts is None else frame.pts)
                seconds.append(math.nan if frame.time is None else frame.time - start)
                past += past > 0 or seconds[-1] >= end
                corrupt |= frame.is_corrupt
                prints.take(frame)
        duration = (container.duration or 0) / av.time_base
        promised = stream.frames  # 0 where the container does not say
        rate = stream.average_rate or stream.guessed_rate
        intra_only = stream.codec_context.codec.intra_only
        table = np.array(rows, packets.ROW)
        listed = Packets.sorted(table)
        if not full and times:
            packs = stream.codec_context.name == "mpeg4" and table["place"][:, 1].min() <= _NO_FRAME
            if packs or listed is None or not table["keyframe"][0]:
                return probe(path, span=span)
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
    if promised <= 0 and latest < min(end, 0.9 * duration - 1):  # Matroska says how long; sound may last a little more.
        raise VideoError(path, f"truncated: the header promises {duration:.1f} s, the frames end at {latest:.1f} s")
    # The frames are in order also where their timestamps are not, as in AVI files with B-frames.
    first, count = (0, len(times)) if span is None else _part(path, np.sort(seconds), *span)
    index: FrameIndex | None = FrameIndex(len(rows), size=os.path.getsize(path))
    if full:
        index = None
        if listed is not None and np.array_equal(listed.times[: len(times)], times):
            if (span or len(times) == len(rows)) and not corrupt:  # each packet gave one frame
                index = _verified(path, listed, len(times), prints, every=intra_only)
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


_COMPARED = 4  # frames after a keyframe: those that could still need what stands before it
_APART = 8  # frames: nearer keyframes are not sought, as trying them all would take longer than decoding the file


class _Prints:
    """Checksums of the images at keyframes, as decoding in order gives them, and of a few images after each."""

    def __init__(self):
        self._keyframes = set()
        self._left = 0  # images to take before the next keyframe
        self._image = _image_of(None)
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


def _verified(path: str | os.PathLike, listed: Packets, decoded: int, prints: _Prints, *, every: bool) -> FrameIndex:
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
            with contextlib.suppress(av.FFmpegError):  # Some files cannot be sought in at all.
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


def decode(
    path: str | os.PathLike,
    indices: Sequence[int],
    *,
    index: FrameIndex | None = None,
    short_side: int | None = None,
) -> np.ndarray:
    """Decodes the frames at `indices`, which may repeat and come in any order.

    Args:
      path: a video file, or a folder of picture files (`pictures.py`).
      indices: places in presentation order, counted from 0.
      index: what `probe` found. With a verified one only what lies between a keyframe and a wanted frame is decoded,
        and of that only what a wanted frame may refer to. Without one everything before the last wanted frame is
        decoded. The result is the same to the bit (but for what a decoder makes up for lost parts of a damaged stream).
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
        return pictures.decode(path, indices, short_side=short_side)
    _check_same(path, index)
    image = _image_of(short_side)
    images = _decode_by_seeking(path, wanted, index, image) if index and index.verified else None
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
        yield from itertools.islice(pictures.frames_in_order(path, short_side=short_side), first, None)
        return
    _check_same(path, index)
    image = _image_of(short_side)
    place = first
    if first and index and index.verified and index.step and index.keyframes and first >= index.keyframes[0]:
        for frame in _from_keyframe(path, index, first):
            if frame.pts != index.start + index.step * place:
                break
            yield image(frame)
            place += 1
        if place == index.frames:
            return
        if place > first:
            raise VideoError(path, f"damaged: frame {place} does not follow; run prepare again")
    with packets.opened(path) as (container, stream):
        yield from map(image, itertools.islice(_of_one_size(path, packets.decode_all(container, stream)), first, None))


def _from_keyframe(path: str | os.PathLike, index: FrameIndex, first: int) -> Iterator[av.VideoFrame]:
    """The frames from the `first` on, decoded from the keyframe before it."""
    keyframe = index.keyframes[bisect.bisect_right(index.keyframes, first) - 1]
    time = index.start + index.step * first
    with packets.opened(path) as (container, stream):
        decoded = packets.decode_from(container, stream, index.start + index.step * keyframe, Packets.of(index), None)
        for frame in _of_one_size(path, decoded):
            if frame.pts is None or frame.pts >= time:
                yield frame


def _of_one_size(path: str | os.PathLike, decoded: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same frames, as long as they are."""
    first = None
    for count, frame in enumerate(decoded):
        first = first or frame
        _check_size(path, frame, first, count)
        yield frame


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
    images: dict[int, np.ndarray] = {}
    count = 0
    with packets.opened(path) as (container, stream):
        for count, frame in enumerate(_of_one_size(path, packets.decode_all(container, stream)), start=1):
            if count - 1 == wanted[len(images)]:
                images[count - 1] = image(frame)
                if len(images) == len(wanted):
                    return images
    raise VideoError(path, f"no frame {wanted[len(images)]}: only {count} frames decode")


def _decode_by_seeking(
    path: str | os.PathLike, wanted: list[int], index: FrameIndex, image: Callable[[av.VideoFrame], np.ndarray]
) -> dict[int, np.ndarray] | None:
    """Decodes from the keyframe before each wanted frame; None where that cannot be shown to give the same frames."""
    if wanted[-1] >= index.frames or not index.keyframes or wanted[0] < index.keyframes[0]:
        return None  # The last of a file that was cut between two keyframes.
    images: dict[int, np.ndarray] = {}
    first = None
    try:
        with packets.opened(path, **packets.STRICT) as (container, stream):
            listed = Packets.of(index) if index.step else packets.known(path).read(packets.demux(container, stream))
            if listed is None or len(listed.times) != index.frames:
                return None
            for keyframe, places in _runs(wanted, index.keyframes):
                missing = {int(listed.times[place]): place for place in places}
                for frame in packets.decode_from(
                    container, stream, int(listed.times[keyframe]), listed, missing.keys()
                ):
                    first = first or frame
                    _check_size(path, frame, first, 0)
                    if frame.is_corrupt:
                        return None
                    if frame.pts in missing:
                        images[missing.pop(frame.pts)] = image(frame)
                if missing:
                    return None
    except VideoError:
        return None  # Decoding in order meets the same fault, if it matters, and knows where.
    return images


def _runs(wanted: list[int], keyframes: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Wanted frames, ascending, by the keyframe to seek; none is sought that decoding comes to anyway."""
    runs: list[tuple[int, list[int]]] = []
    for place in wanted:
        keyframe = keyframes[bisect.bisect_right(keyframes, place) - 1]
        if runs and keyframe <= runs[-1][1][-1] + 1:
            runs[-1][1].append(place)
        else:
            runs.append((keyframe, [place]))
    return runs


_ONE_THREAD = {"threads": 1} if packets.PYAV >= 17 else {}  # before there was no choice


def _rgb(frame: av.VideoFrame, reformatter: av.video.reformatter.VideoReformatter) -> np.ndarray:
    """Any pixel format to upright RGB, uint8 [H, W, 3]."""
    image = reformatter.reformat(frame, format="rgb24", **_ONE_THREAD).to_ndarray()
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")  # a buffer
    return image if matrix is None else _displayed(image, np.frombuffer(matrix, np.int32).reshape(3, 3))


def _displayed(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """An image [H, W, 3] turned by quarters and mirrored as its display matrix [3, 3] says, in fixed point.

    (x, y), y down, goes to (a x + c y, b x + d y), where a b are in the first row and c d in the second.
    """
    (a, b), (c, d) = matrix[:2, :2].astype(np.int64).tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _check_size(path: str | os.PathLike, frame: av.VideoFrame, first: av.VideoFrame, index: int) -> None:
    if frame is first:
        pictures.check_shape(path, frame.width, frame.height)
    if (frame.width, frame.height) != (first.width, first.height):
        raise VideoError(
            path,
            f"frames change size: from {first.width}x{first.height} to {frame.width}x{frame.height} at frame {index}",
        )
