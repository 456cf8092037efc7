"""Video files in, upright RGB frames out: exactly the frames asked for, and a reason when a file cannot give them.

A frame's index is its place in the order in which the decoder hands frames out, which is presentation order. Timestamps
never enter a result, so a variable frame rate needs no special case.

Pixels become RGB as in `ffmpeg -i VIDEO -pix_fmt rgb24`, to the bit: chroma of more than 8 bits is interpolated by
FFmpeg's bicubic filter, and an interlaced frame is converted as the one picture that it is stored as. Its two fields
are not taken apart.
"""

import bisect
import contextlib
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer

from jax_video.data import transforms
from jax_video.data.decoding import packets, pictures, times
from jax_video.data.decoding.packets import Packets
from jax_video.data.manifest import FrameIndex
from jax_video.errors import VideoError

NO_TIMES = "have no times: say how many there are to a second, fps=25 or --fps=25"
# Other versions may give other frames, or other verdicts.
DECODER = f"PyAV {av.__version__}, " + ", ".join(
    f"{name} {'.'.join(map(str, version))}"
    for name, version in sorted(av.library_versions.items())
    if name in ("libavcodec", "libavformat")
)


def decode(
    path: str | os.PathLike,
    indices: Sequence[int],
    *,
    index: FrameIndex | None = None,
    short_side: int | None = None,
) -> np.ndarray:
    """Decode the frames at `indices`, which may repeat and come in any order.

    Args:
      path: a video file, or a folder of picture files (`pictures.py`).
      indices: places in presentation order, counted from 0; at least one.
      index: what `probe` found. With a verified index only frames between a keyframe and a wanted frame are decoded,
        and of these only those that a wanted frame may refer to. Without, everything before the last wanted frame is
        decoded. The result is the same to the bit (except for what a decoder makes up in a damaged stream). Packets
        that do not decode are skipped if the index counts them, and are an error without an index.
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
    image = image_of(short_side)
    images = _decode_by_seeking(path, wanted, index, image) if index and index.verified else None
    if images is None:
        images = _decode_in_order(path, wanted, image, _undecodable(index))
    return np.stack([images[int(place)] for place in indices])


def frames_in_order(
    path: str | os.PathLike, *, first: int = 0, index: FrameIndex | None = None, short_side: int | None = None
) -> Iterator[np.ndarray]:
    """The frames of a video from the `first` on, one at a time, so that any length fits in memory.

    Each is uint8 [H, W, 3], upright RGB, as `decode` gives it; `index` and `short_side` mean the same as there.

    Raises:
      VideoError: the file cannot be read, or is damaged after the frames already given.
    """
    if os.path.isdir(path):
        yield from itertools.islice(pictures.frames_in_order(path, short_side=short_side), first, None)
        return
    _check_same(path, index)
    image = image_of(short_side)
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
    last = index.frames if index and index.verified and not index.keyframes else None  # damage may follow
    with packets.opened(path) as (container, stream):
        decoded = _of_one_size(path, packets.decode_all(container, stream, _undecodable(index)))
        yield from map(image, itertools.islice(decoded, first, last))


def _undecodable(index: FrameIndex | None) -> int:
    return index.undecodable if index and index.verified else 0


def timed_frames(
    path: str | os.PathLike, *, fps: float = 0.0, own: bool = False, short_side: int | None = None
) -> Generator[tuple[float, np.ndarray], None, None]:
    """The frames of a video with the seconds at which a player shows them, counted from the file's start.

    Args:
      path, short_side: as in `frames_in_order`.
      fps: frames per second, for times that are not the file's own; needed for a folder of pictures, which has none.
      own: whether a file's own times count before `fps`.

    Raises:
      VideoError: as `frames_in_order`, or frames have no times, or times that run back; after the last frame, if more
        than a few packets do not decode.
    """
    if os.path.isdir(path):
        if not fps:
            raise VideoError(path, f"pictures {NO_TIMES}")
        yield from ((place / fps, image) for place, image in enumerate(frames_in_order(path, short_side=short_side)))
        return
    image, latest, count, counted = image_of(short_side), 0.0, 0, False
    skipped: list[av.FFmpegError] = []
    with packets.opened(path) as (container, stream):
        start, is_raw = (container.start_time or 0) / av.time_base, container.format.name in packets.RAW
        for place, frame in enumerate(_of_one_size(path, packets.decode_all(container, stream, skipped=skipped))):
            has_time = frame.time is not None and not is_raw
            if place == 0:
                skipped.clear()  # what comes before the first keyframe needs what is not there
                counted = bool(fps) and not (own and has_time)
            if not has_time and not counted:
                raise VideoError(path, f"its frames {NO_TIMES}")
            time = place / fps if counted else max(0.0, frame.time - start)
            times.check_forward(path, place, time, latest)
            latest, count = max(latest, time), place + 1
            yield time, image(frame)
        if len(skipped) > packets.MAX_DAMAGE * (count + len(skipped)):
            raise VideoError(path, f"damaged: {len(skipped)} packets do not decode ({skipped[0].strerror})")


def duration(path: str | os.PathLike) -> float:
    """The duration that a file claims, in seconds; 0 if it does not say, and for a folder of pictures."""
    if os.path.isdir(path):
        return 0.0
    with packets.opened(path) as (container, _):
        return (container.duration or 0) / av.time_base


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
    """The same frames; raises VideoError at the first one of another size."""
    first = None
    for count, frame in enumerate(decoded):
        first = first or frame
        check_size(path, frame, first, count)
        yield frame


def _check_same(path: str | os.PathLike, index: FrameIndex | None) -> None:
    """Raise VideoError if a file has another size than when it was probed: its frames would be others."""
    if index is None or not index.size:
        return
    with contextlib.suppress(FileNotFoundError):  # opening the file reports it better
        size = os.path.getsize(path)
        if size != index.size:
            raise VideoError(path, f"changed: {size:,} bytes, where prepare saw {index.size:,}; run prepare again")


def image_of(short_side: int | None) -> Callable[[av.VideoFrame], np.ndarray]:
    """The function from a decoded frame to the image that users get."""
    reformatter = av.video.reformatter.VideoReformatter()  # keeps its tables from frame to frame

    def image(frame: av.VideoFrame) -> np.ndarray:
        whole = rgb(frame, reformatter)
        return whole if short_side is None else transforms.resize_short(whole[None], short_side)[0]

    return image


def _decode_in_order(
    path: str | os.PathLike, wanted: list[int], image: Callable[[av.VideoFrame], np.ndarray], undecodable: int
) -> dict[int, np.ndarray]:
    """Decode from the start up to the last wanted frame; defines what `_decode_by_seeking` must give."""
    images: dict[int, np.ndarray] = {}
    count = 0
    with packets.opened(path) as (container, stream):
        decoded = packets.decode_all(container, stream, undecodable)
        for count, frame in enumerate(_of_one_size(path, decoded), start=1):
            if count - 1 == wanted[len(images)]:
                images[count - 1] = image(frame)
                if len(images) == len(wanted):
                    return images
    raise VideoError(path, f"no frame {wanted[len(images)]}: only {count} frames decode")


def _decode_by_seeking(
    path: str | os.PathLike, wanted: list[int], index: FrameIndex, image: Callable[[av.VideoFrame], np.ndarray]
) -> dict[int, np.ndarray] | None:
    """Decode from the keyframe before each wanted frame; None where that cannot be shown to give the same frames."""
    if wanted[-1] >= index.frames or not index.keyframes or wanted[0] < index.keyframes[0]:
        return None  # the last case: a file that was cut between two keyframes
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
                    check_size(path, frame, first, 0)
                    if frame.is_corrupt:
                        return None
                    if frame.pts in missing:
                        images[missing.pop(frame.pts)] = image(frame)
                if missing:
                    return None
    except VideoError:
        return None  # decoding in order meets the same fault, if it matters, and knows where
    return images


def _runs(wanted: list[int], keyframes: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Group wanted frames, ascending, by the keyframe to seek: (keyframe, its wanted frames).

    There is no seek to a keyframe that decoding reaches anyway, on from the wanted frame before.
    """
    runs: list[tuple[int, list[int]]] = []
    for place in wanted:
        keyframe = keyframes[bisect.bisect_right(keyframes, place) - 1]
        if runs and keyframe <= runs[-1][1][-1] + 1:
            runs[-1][1].append(place)
        else:
            runs.append((keyframe, [place]))
    return runs


_side_data: Any = SideDataContainer  # its type stub has no arguments


def rgb(frame: av.VideoFrame, reformatter: av.video.reformatter.VideoReformatter) -> np.ndarray:
    """Convert a frame of any pixel format to upright RGB, uint8 [H, W, 3]."""
    plain = _pixels(frame) if frame.interlaced_frame or frame.format.name not in _DIRECT else frame
    image = reformatter.reformat(plain, format="rgb24", interpolation="BICUBIC", threads=1).to_ndarray()
    matrix = orientation(frame)
    return image if matrix is None else _displayed(image, np.frombuffer(matrix, np.int32).reshape(3, 3))


def orientation(frame: av.VideoFrame) -> bytes | None:
    """The display matrix of a frame, int32 [3, 3]; None: it is shown as it is stored."""
    # Not `frame.side_data`: it keeps the frame, and so its memory, until garbage is collected. The decoder would get
    # other memory each time, and what it finds there stays visible in damaged frames.
    matrix: Any = _side_data(frame).get("DISPLAYMATRIX")  # a buffer
    return None if matrix is None else bytes(matrix)


# FFmpeg converts these without regard to the location of their chroma samples.
_DIRECT = frozenset(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"))


def _pixels(frame: av.VideoFrame) -> av.VideoFrame:
    """A frame without its marks for interlacing and chroma location, which PyAV heeds and `ffmpeg` does not."""
    if not frame.format.is_planar or frame.format.is_rgb:
        return frame
    copy = av.VideoFrame(frame.width, frame.height, frame.format.name)
    copy.colorspace, copy.color_range = frame.colorspace, frame.color_range
    for source, target in zip(frame.planes, copy.planes, strict=True):
        lines = min(source.line_size, target.line_size)
        lines_of(target)[:, :lines] = lines_of(source)[:, :lines]
    return copy


def lines_of(plane: av.video.plane.VideoPlane) -> np.ndarray:
    """The lines of a plane, uint8 [height, bytes of a line], as a view of its memory."""
    whole = np.frombuffer(memoryview(plane), np.uint8)
    return whole[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)


def _displayed(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Rotate an image [H, W, 3] by quarter turns and mirror it, as its display matrix [3, 3] (fixed point) says.

    (x, y), y down, goes to (a x + c y, b x + d y), where a b are in the first row and c d in the second.
    """
    (a, b), (c, d) = matrix[:2, :2].astype(np.int64).tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def check_size(path: str | os.PathLike, frame: av.VideoFrame, first: av.VideoFrame, index: int) -> None:
    """Raise VideoError for a frame of another size or orientation than the first of its file, or of a strange size."""
    if frame is first:
        pictures.check_shape(path, frame.width, frame.height)
    if (frame.width, frame.height) != (first.width, first.height):
        raise VideoError(
            path,
            f"frames change size: from {first.width}x{first.height} to {frame.width}x{frame.height} at frame {index}",
        )
    # A message for it comes with the first frame, or with keyframes: others need no look.
    if frame is not first and (index < 2 or frame.key_frame) and orientation(frame) != orientation(first):
        raise VideoError(path, f"frames change orientation at frame {index}: convert it")
