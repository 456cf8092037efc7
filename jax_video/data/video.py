"""Video files in, upright RGB frames out: exactly the frames asked for, and a reason when a file cannot give them.

A frame's index is its place in the order in which the decoder hands frames out, which is presentation order. Timestamps
never enter a result, so a variable frame rate needs no special case.
"""

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence

import av
import numpy as np

from jax_video.data import transforms
from jax_video.errors import UserError

# Headers are trusted to this many frames: HMDB51's AVI files promise one that does not exist (packed B-frames).
_TOLERATED_MISSING_FRAMES = 2


class VideoError(UserError):
    """A video file that cannot be used: `path`, and `reason` in plain words."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(str(path), reason)  # Both in args, so that the exception survives pickling between processes.
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What `probe` found: frames that truly decode, frames per second (0 if unknown), upright size in pixels."""

    frames: int
    fps: float
    width: int
    height: int


def probe(path: str | os.PathLike) -> VideoInfo:
    """Decodes the whole file and counts, since headers lie.

    Raises:
      VideoError: the file is missing, empty, truncated or damaged, has no video stream or no frame.
    """
    frames = packets = 0
    end = 0.0  # Seconds.
    with _opened(path) as (container, stream):
        for packet in container.demux(stream):
            packets += packet.size > 0  # The last packet is empty: it flushes the decoder.
            try:
                decoded = packet.decode()
            except av.FFmpegError as error:
                raise VideoError(path, f"damaged: decoding fails after {frames} frames ({error.strerror})") from error
            for frame in decoded:
                if frames == 0:
                    first = frame
                    height, width, _ = _rgb(frame, av.video.reformatter.VideoReformatter()).shape
                _check_size(path, frame, first, frames)
                frames += 1
                end = max(end, frame.time or 0.0)
        seconds = (container.duration or 0) / av.time_base
        promised = stream.frames  # 0 where the container does not say.
        rate = stream.average_rate or stream.guessed_rate
    if promised - packets > _TOLERATED_MISSING_FRAMES:
        raise VideoError(path, f"truncated: the header promises {promised} frames, the file holds {packets}")
    if promised == 0 and end < 0.9 * seconds - 1:  # Matroska says how long it is; sound may last a little longer.
        raise VideoError(path, f"truncated: the header promises {seconds:.1f} s, the frames end at {end:.1f} s")
    if frames == 0:
        raise VideoError(path, "no frames: the video stream is empty")
    return VideoInfo(frames=frames, fps=float(rate or 0), width=width, height=height)


def decode(
    path: str | os.PathLike, indices: Sequence[int], *, frames: int | None = None, short_side: int | None = None
) -> np.ndarray:
    """Decodes the frames at `indices`, which may repeat and come in any order.

    Args:
      path: a video file.
      indices: places in presentation order, counted from 0.
      frames: the number of frames as counted by `probe`. With it only what lies between a keyframe and a wanted frame
        is decoded: that every packet gives one frame, so that places follow from timestamps, can be known only from
        such a count. Without it everything before the last wanted frame is decoded. The result is the same to the bit
        (but for what a decoder makes up for lost parts of a damaged stream).
      short_side: if given, each frame is resized to it as it is decoded, so that no large frame waits in memory.

    Returns:
      uint8 [len(indices), H, W, 3], RGB, upright.

    Raises:
      VideoError: the file cannot be read, or has no frame at an index.
    """
    wanted = sorted({int(index) for index in indices})
    if not wanted or wanted[0] < 0:
        raise ValueError(f"frame indices must be at least one and not negative, got {list(indices)}")

    image = _image_of(short_side)
    images = _decode_by_seeking(path, wanted, frames, image) if frames is not None else None
    if images is None:
        images = _decode_in_order(path, wanted, image)
    return np.stack([images[int(index)] for index in indices])


def frames_in_order(path: str | os.PathLike, *, short_side: int | None = None) -> Iterator[np.ndarray]:
    """All frames of a video, uint8 [H, W, 3] each, upright RGB; one at a time, so that any length fits in memory.

    They are what `decode` gives, and so is the meaning of `short_side`.

    Raises:
      VideoError: the file cannot be read, or is damaged after the frames already given.
    """
    image = _image_of(short_side)
    with _opened(path) as (container, stream):
        for count, frame in enumerate(container.decode(stream)):
            if count == 0:
                first = frame
            _check_size(path, frame, first, count)
            yield image(frame)


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
        for frame in container.decode(stream):
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
    path: str | os.PathLike, wanted: list[int], count: int, image: Callable[[av.VideoFrame], np.ndarray]
) -> dict[int, np.ndarray] | None:
    """Decodes from the keyframe before each wanted frame; None where that cannot be shown to give the same frames."""
    images = {}
    try:
        # A decoder hides damage behind what it decoded before, so after a seek it would hide it differently: explode.
        with _opened(path, err_detect="explode") as (container, stream):
            packets = _index_of(path).read(container, stream)
            if packets is None or not len(packets.times) == count > wanted[-1]:
                return None
            position = None  # Index of the frame decoded last.
            for index in wanted:
                before = np.searchsorted(packets.keyframes, index, side="right") - 1
                if before < 0:
                    return None
                keyframe = int(packets.keyframes[before])
                if position is None or keyframe > position + 1:
                    position = keyframe - 1
                    decoder = _decode_from(container, stream, int(packets.times[keyframe]), packets)
                while position < index:
                    position += 1
                    frame = next(decoder, None)
                    if frame is None or frame.pts != packets.times[position]:
                        return None
                images[index] = image(frame)
    except VideoError:
        return None  # Decoding in order meets the same fault, if it matters, and knows where.
    return images


def _decode_from(
    container: av.container.InputContainer, stream: av.VideoStream, time: int, packets: "_Packets"
) -> Iterator[av.VideoFrame]:
    """The frames from the keyframe at `time` on; ends early where packets are not at their places.

    An AVI file's timestamps come from its index, and after a seek from another part of it, which may disagree.
    """
    container.seek(time, stream=stream)
    for packet in container.demux(stream):
        if packet.size > 0 and not packets.holds(packet):
            return
        for frame in packet.decode():
            # Frames shown before the keyframe belong to an open group of pictures whose first half was not decoded.
            if frame.pts is None or frame.pts >= time:
                yield frame


@dataclasses.dataclass(frozen=True)
class _Packets:
    """The packets of a video stream in presentation order, one for each frame; without their data."""

    times: np.ndarray  # [P] int64, ascending
    places: np.ndarray  # [P, 2] int64: position in the file, size
    keyframes: np.ndarray  # ascending indices into the P packets

    def holds(self, packet: av.Packet) -> bool:
        if packet.pts is None:
            return False
        index = min(np.searchsorted(self.times, packet.pts), len(self.times) - 1)
        return (self.times[index], *self.places[index]) == (packet.pts, *_place(packet))


class _Index:
    """The packets of one file, read once, when its first clip is: a clip of a long video costs only its own frames."""

    def __init__(self):
        self._lock = threading.Lock()  # Grain reads in several threads.
        self._known = False
        self._packets = None

    def read(self, container: av.container.InputContainer, stream: av.VideoStream) -> _Packets | None:
        """The packets; None where timestamps do not put them in order."""
        with self._lock:
            if not self._known:
                self._packets = _read_packets(container, stream)
                self._known = True
            return self._packets


def _index_of(path: str | os.PathLike) -> _Index:
    status = os.stat(path)
    with _INDICES:
        return _known_index(os.path.abspath(path), status.st_size, status.st_mtime_ns)


_INDICES = threading.Lock()


@functools.lru_cache(maxsize=4)  # Of the files read last: two hours of video have an index of 5 MB.
def _known_index(path: str, size: int, modified: int) -> _Index:
    return _Index()


_MISSING = np.iinfo(np.int64).min  # For a timestamp or position that a packet does not have.
_PACKET = np.dtype([("time", np.int64), ("place", np.int64, 2), ("keyframe", np.bool_)])


def _read_packets(container: av.container.InputContainer, stream: av.VideoStream) -> _Packets | None:
    rows = (
        (_MISSING if packet.pts is None else packet.pts, _place(packet), packet.is_keyframe)
        for packet in container.demux(stream)
        if packet.size > 0 and not packet.is_discard
    )
    packets = np.fromiter(rows, _PACKET)
    packets = packets[np.argsort(packets["time"])]
    times = packets["time"].copy()  # Each in one piece of memory, for a search to be quick.
    if _MISSING in times[:1] or not np.all(np.diff(times)):
        return None
    return _Packets(times, packets["place"].copy(), np.flatnonzero(packets["keyframe"]))


def _place(packet: av.Packet) -> tuple[int, int]:
    return _MISSING if packet.pos is None else packet.pos, packet.size


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
            f"file:{os.fspath(path)}", metadata_errors="ignore", options={"protocol_whitelist": "file"}
        ) as container:
            stream = container.streams.best("video")
            if stream is None:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
                raise VideoError(path, f"no video stream (streams found: {kinds})")
            if stream.codec_context is None:
                raise VideoError(path, "its video codec is unknown")
            stream.codec_context.thread_count = 1  # Parallel over videos: more threads here would fight over cores.
            stream.codec_context.options = decoder_options
            yield container, stream
    except av.FFmpegError as error:
        raise VideoError(path, f"not a readable video ({error.strerror})") from error
    except (OSError, MemoryError) as error:
        raise VideoError(path, f"cannot be read ({error})") from error


def _rgb(frame: av.VideoFrame, reformatter: av.video.reformatter.VideoReformatter) -> np.ndarray:
    """Any pixel format to upright RGB, uint8 [H, W, 3]."""
    image = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return np.rot90(image, round(frame.rotation / 90))  # Both counter-clockwise.


def _check_size(path: str | os.PathLike, frame: av.VideoFrame, first: av.VideoFrame, index: int) -> None:
    if (frame.width, frame.height) != (first.width, first.height):
        raise VideoError(
            path,
            f"frames change size from {first.width}x{first.height} to {frame.width}x{frame.height} at frame {index}",
        )
