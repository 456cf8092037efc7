"""Videos that are folders of numbered pictures: image_00001.jpg, img_00001.jpg, frame000001.png, ...

A frame's index is its place in the numbering, which starts at 0 or 1 and has no gaps. `decode` and `frames_in_order`
give the same as the functions of these names in `video`.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from jax_video.data import transforms
from jax_video.data.decoding import regular
from jax_video.errors import VideoError, unreadable

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png"))
DECODER = f"OpenCV {cv2.__version__}"  # as `video.DECODER`
_PICTURE = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]+)\.(?:jpe?g|png)", re.IGNORECASE)
_FLOW = re.compile(r"(?:flow_)?[xy]_", re.IGNORECASE)  # prefixes of optical flow, stored beside by other tools
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"  # how they begin
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # after coded data
MOST_PIXELS = 2**25  # as many as 8K video has; a damaged header can claim any number
_MOST_BYTES = 2**28  # of a picture's file: more than all its pixels take
_MOST_STRETCH = 32  # ratio of the sides; longer frames would be huge once their short side is resized


class Watcher:
    """An observer, called by a probe as it proceeds; this base class does nothing."""

    def at_rate(self, fps: float) -> None:
        """Called first, with the file's frames per second; 0 if it does not say."""

    def begin(self, frames: int) -> None:
        """Called next, with the number of frames that the file promises; 0 if it does not say."""

    def see(self, frame: Any) -> None:
        """Called with each frame, an `av.VideoFrame` or a picture, uint8 [H, W, 3]."""

    def go_on(self) -> None:
        """Called when the probe comes to another packet or picture, or tries another keyframe."""


class Facts(NamedTuple):
    """What `probe` found: how many frames there are, frames per second (0 if unknown), upright size in pixels."""

    frames: int
    fps: float
    width: int
    height: int


def check_shape(path: str | os.PathLike, width: int, height: int) -> None:
    """Raise VideoError for frames so large, or with one side so much longer, that they would fill the memory.

    A side of 0 means unknown, and passes.
    """
    if width * height > MOST_PIXELS or 0 < _MOST_STRETCH * min(width, height) < max(width, height):
        raise VideoError(
            path,
            f"strange size: frames of {width}x{height}; expected at most {MOST_PIXELS:,} pixels, and no side more than "
            f"{_MOST_STRETCH} times as long as the other",
        )


def is_video(names: Iterable[str]) -> bool:
    """Whether the files of a folder make it a video: at least two numbered pictures, all of one prefix."""
    prefixes = [match["prefix"] for match in _numbered(names)]
    return len(prefixes) > 1 and len(set(prefixes)) == 1


def probe(
    path: str | os.PathLike,
    *,
    full: bool = True,
    watcher: Watcher = Watcher(),  # noqa: B008, without a state
) -> Facts:
    """Read every picture, or without `full` only the first. Pictures do not tell their rate.

    Raises:
      VideoError: no numbered pictures, a gap in their numbers, one that cannot be read or has another size.
    """
    names = files(path)
    watcher.at_rate(0.0)
    watcher.begin(len(names))
    for name in names if full else names[:1]:
        watcher.go_on()
        image = _read(path, name)
        if name == names[0]:
            height, width, _ = image.shape
        _check_size(path, name, image.shape, (height, width, 3))
        watcher.see(image)
    return Facts(len(names), 0.0, width, height)


def decode(path: str | os.PathLike, indices: Sequence[int], *, short_side: int | None = None) -> np.ndarray:
    """The frames at `indices`, which may repeat and come in any order; no other picture is read.

    Returns:
      uint8 [len(indices), H, W, 3], RGB, upright; with `short_side` resized to it.

    Raises:
      VideoError: as `probe`, for the pictures that are read; or there is no frame at an index.
    """
    wanted = sorted({int(index) for index in indices})
    if not wanted or wanted[0] < 0:
        raise ValueError(f"frame indices must be at least one and not negative, got {list(indices)}")
    names = files(path)
    if wanted[-1] >= len(names):
        missing = next(index for index in wanted if index >= len(names))
        raise VideoError(path, f"no frame {missing}: there are only {len(names)} pictures")
    images = dict(zip(wanted, _images(path, [names[index] for index in wanted], short_side), strict=True))
    return np.stack([images[int(index)] for index in indices])


def frames_in_order(path: str | os.PathLike, *, short_side: int | None = None) -> Iterator[np.ndarray]:
    """All frames, uint8 [H, W, 3] each, upright RGB; one at a time. Raises as `decode` does."""
    return _images(path, files(path), short_side)


def _numbered(names: Iterable[str]) -> list[re.Match]:
    """The names that are numbered pictures, without hidden files and stored flow."""
    matches = (_PICTURE.fullmatch(name) for name in names if not name.startswith("."))
    return [match for match in matches if match and not _FLOW.fullmatch(match["prefix"])]


def files(path: str | os.PathLike) -> list[str]:
    """The names of a video's pictures, in order."""
    try:
        matches = _numbered(os.listdir(path))
    except FileNotFoundError as error:
        raise VideoError(path, "no such file") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not matches:
        raise VideoError(path, "no frames: the folder has no numbered pictures, as image_00001.jpg")
    prefixes = sorted({match["prefix"] for match in matches})
    if len(prefixes) > 1:
        raise VideoError(path, f"pictures of several videos: {prefixes[0]}* and {prefixes[1]}* are in one folder")
    matches.sort(key=lambda match: int(match["number"]))
    expected = min(int(matches[0]["number"]), 1)
    for match in matches:
        if int(match["number"]) < expected:
            raise VideoError(path, f"pictures with the same number: {match[0]} is the second one")
        if int(match["number"]) > expected:
            width = len(match["number"]) if match["number"].startswith("0") else len(matches[0]["number"])
            raise VideoError(path, f"gap in the numbering: picture {match['prefix']}{expected:0{width}d} is missing")
        expected += 1
    return [match[0] for match in matches]


def _images(path: str | os.PathLike, names: list[str], short_side: int | None) -> Iterator[np.ndarray]:
    shape = None
    for name in names:
        image = _read(path, name)
        shape = shape or image.shape
        _check_size(path, name, image.shape, shape)
        yield image if short_side is None else transforms.resize_short(image[None], short_side)[0]


def _read(path: str | os.PathLike, name: str) -> np.ndarray:
    """One picture, uint8 [H, W, 3], RGB, turned as its EXIF says."""
    try:
        with regular.opened(os.path.join(path, name)) as file:
            if (size := os.fstat(file.fileno()).st_size) > _MOST_BYTES:
                raise VideoError(path, f"{size:,} bytes")
            data = file.read()
    except VideoError as error:
        raise VideoError(path, f"unreadable picture: {name} ({error.reason})") from error
    except FileNotFoundError as error:
        raise VideoError(path, f"unreadable picture: {name} ({error.strerror})") from error
    except OSError as error:
        raise unreadable(path, error, f"unreadable picture: {name}") from error
    if not data.startswith((_JPEG, _PNG)):
        raise VideoError(path, f"unreadable picture: {name} ({'not a JPEG or PNG' if data else 'empty file'})")
    if not _is_whole(data):  # OpenCV makes up the rest of a truncated one
        raise VideoError(path, f"unreadable picture: {name} (truncated)")
    height, width = picture_size(data)
    check_shape(path, width, height)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError):
        image = None
    if image is None:
        raise VideoError(path, f"unreadable picture: {name} (it does not decode)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _is_whole(data: bytes) -> bool:
    """Whether a JPEG has its end marker, after which some cameras add data, or a PNG all of its chunks."""
    if data.startswith(_JPEG):
        return b"\xff\xd9" in data[-1024:] or _has_end(data)
    place = len(_PNG)
    while place + 12 <= len(data) and data[place + 4 : place + 8] != b"IEND":
        place += 12 + int.from_bytes(data[place : place + 4])  # OpenCV trusts any length, and allocates that much
    return place + 12 <= len(data)


def _has_end(data: bytes) -> bool:
    """Whether a JPEG has the end marker of its picture, not only that of a small one within it."""
    place = 2
    while place + 2 <= len(data):
        marker = data[place + 1]
        if data[place] != 0xFF or marker in (0x00, 0xFF):
            place += 1
        elif marker == 0xD9:
            return True
        elif 0xD0 <= marker <= 0xD8 or marker == 0x01:
            place += 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4])
            if marker == 0xDA:  # what follows is coded, up to the next marker
                found = _MARKER.search(data, place)
                place = found.start() if found else len(data)
    return False


def picture_size(data: bytes) -> tuple[int, int]:
    """Height and width from the header of a JPEG or PNG; 0, 0 if it has none."""
    if data.startswith(_PNG):
        return int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
    place = 2
    while place + 9 <= len(data):
        marker = data[place + 1]
        if data[place] != 0xFF or marker in (0x00, 0xFF):  # not at a segment: readers look for the next one
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame's header
            return int.from_bytes(data[place + 5 : place + 7]), int.from_bytes(data[place + 7 : place + 9])
        elif 0xD0 <= marker <= 0xD9 or marker == 0x01:  # a marker without content
            place += 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return 0, 0


def _check_size(path: str | os.PathLike, name: str, shape: tuple[int, ...], first: tuple[int, ...]) -> None:
    if shape != first:
        raise VideoError(
            path, f"frames change size: from {first[1]}x{first[0]} to {shape[1]}x{shape[0]} at picture {name}"
        )
