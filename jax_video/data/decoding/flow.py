"""Optical flow (ST-ResNet §4): computed between frames, or read where it is stored; and the ten fields around a frame.

Field i leads from frame i to frame i + 1 and holds, in pixels, how far to the right (x) and down (y) each point moves.
It is stored as uint8, clipped to 20 pixels either way: the input of a motion stream.

A video's stored fields (`preparing/storing.py`) are one file below the manifest's folder `flow`: an index of the places
of the fields, one fewer than frames, a digest of the video, then the fields, one JPEG each. Neighbouring fields are
read at once.
"""

import contextlib
import csv
import itertools
import os
import pathlib
import re
import shlex
import sys
import tokenize
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

from jax_video.data import documents, transforms
from jax_video.data.decoding import pictures
from jax_video.data.manifest import Manifest, Video
from jax_video.errors import UserError, VideoError

BOUND = 20.0  # pixels: a faster motion is clipped
FIELDS = 10  # around a frame: five before it and five after it
OFFSETS = np.arange(-FIELDS // 2, FIELDS // 2)  # -5 to 4, from the frame
CHANNELS = 2 * FIELDS  # x and y of each field in turn
LEAST_SIDE = 16  # pixels that the methods need, at least
ZERO, _SCALE = 128, 127 / BOUND  # the value for no motion, and steps per pixel
SETTINGS_FILE = "flow.json"  # says how the flow in its folder was made
_MOST_HEADER = 2**16  # bytes of a JPEG beside its pixels, at most
REASONS_FILE = "broken_flow.csv"  # beside that folder: split, path and reason of videos whose flow cannot be computed
BLOCK = 8  # side in pixels of a block of a JPEG
_HEADER = 100  # bytes at the beginning of a field's JPEG: the quality and the size, the same for all fields of a file
_START, _END = b"\xff\xd8", b"\xff\xd9"  # of a JPEG
DIGITS = 16  # of the digest of the video behind an index
_TOLERATED = 0.01  # part of a set's videos whose flow may be missing


class Settings(NamedTuple):
    """How a folder's flow was made."""

    method: str  # one of METHODS
    short_side: int  # of the frames, in pixels
    bound: float = BOUND  # in pixels
    quality: int = 95  # of the JPEGs


def encode(field: np.ndarray) -> np.ndarray:
    """Convert flow in pixels (float, of any shape) to its stored form (uint8)."""
    return np.rint(ZERO + np.clip(field, -BOUND, BOUND) * _SCALE).astype(np.uint8)


def decode_values(values: np.ndarray) -> np.ndarray:
    """Convert stored flow (uint8, of any shape) to pixels (float32): the inverse of `encode`."""
    return (values.astype(np.float32) - ZERO) / np.float32(_SCALE)


def flip(fields: np.ndarray) -> np.ndarray:
    """Mirror left and right, where x changes its sign: uint8 [T, H, W, C], x in the even channels."""
    mirrored = transforms.flip(fields).copy()
    mirrored[..., ::2] = 255 - np.maximum(mirrored[..., ::2], 1) + 1  # 256 - x in 8 bits; only a JPEG has a 0
    return mirrored


def usable(frames: int) -> tuple[int, int]:
    """(the first, how many) of a video's frames whose ten fields all exist; all frames if the video is too short."""
    count = frames - FIELDS
    return (FIELDS // 2, count) if count > 0 else (0, frames)


def around(indices: np.ndarray, frames: int) -> np.ndarray:
    """The ten fields around each frame: int64 [N] -> [N, 10]; beyond a video's ends its outermost field is repeated."""
    return np.clip(indices[:, None] + OFFSETS, 0, max(0, frames - 2))


def _tvl1():
    """TV-L1 with the values of Zach et al. (2007): five levels, each half of the one before.

    OpenCV's default of 1.25 takes twice as long, and loses fast motions: 20 pixels are still 8 at its coarsest level.
    """
    return cv2.optflow.DualTVL1OpticalFlow.create(
        tau=0.25, lambda_=0.15, theta=0.3, nscales=5, warps=5, epsilon=0.01, scaleStep=0.5
    )


def _dis():
    """Dense inverse search (Kroeger et al. 2016) with variational refinement, 15 to 50 times as fast as TV-L1."""
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


METHODS = {"tvl1": _tvl1, "dis": _dis}


def compute(images: Iterable[np.ndarray], method: str) -> Iterator[np.ndarray]:
    """The field from each frame to the next: frames uint8 [H, W, 3] -> fields uint8 [H, W, 2], one fewer."""
    calculator = METHODS[method]()
    before = None
    for image in images:
        after = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if before is not None:
            yield encode(calculator.calc(before, after, None))
        before = after


def read(path: str, runs: list[list[int]], frames: int, size: tuple[int, int]) -> np.ndarray:
    """Read some of a video's stored fields.

    Args:
      path: the file, as `stored_path` names it.
      runs: the places of the wanted fields, in runs of neighbours, each of which is read at once.
      frames: how many the video has.
      size: height and width of the fields.

    Returns:
      uint8 [number of fields, H, W, 2].

    Raises:
      VideoError: there is no such file, or it is damaged, or of another video.
    """
    fields = []
    try:
        places = _places_of(path, frames)
        with open(path, "rb") as file:
            for run in runs:
                ends = places[run[0] : run[-1] + 2].tolist()
                if ends[-1] - ends[0] > len(run) * (4 * size[0] * size[1] + _MOST_HEADER):  # as a sparse file can claim
                    raise ValueError("its index is damaged")
                file.seek(ends[0])
                data = file.read(ends[-1] - ends[0])
                for start, end in itertools.pairwise(ends):
                    fields.append(_from_jpeg(data[start - ends[0] : end - ends[0]], size))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return np.stack(fields)


def check_file(path: str, frames: int, size: tuple[int, int] | None, *, thorough: bool) -> None:
    """Check a stored file without decoding it: its index, the first field and the last one.

    Args:
      path, frames, size: as in `read`; size None: it is not checked.
      thorough: whether every field is checked: that it is complete, and as large as the first one.

    Raises:
      VideoError: as `read`.
    """
    try:
        places = _places_of(path, frames)
        if frames == 1:
            return
        if not thorough:  # all that lies between the first and the last field is taken for one field
            places = places[np.unique([0, 1, frames - 2, frames - 1])]
        header, whole = _look(path, places)
        if not whole.all():
            raise ValueError("a field is damaged")
        if size is not None:
            _check_size(header, size)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def source_of(path: str, frames: int) -> str | None:
    """The digest of the video that a stored file was computed from (16 digits); None if it does not say, or is none.

    It stands between the index and the first field, where earlier versions have nothing, and look for nothing.
    """
    with contextlib.suppress(OSError), open(path, "rb") as file:
        start = file.read(10)  # of the index: NumPy's mark, and the length of what follows before its numbers
        file.seek(10 + int.from_bytes(start[8:], "little") + 8 * frames)
        found = file.read(DIGITS)
        return found.decode() if re.fullmatch(rb"[0-9a-f]{%d}" % DIGITS, found) else None
    return None


def count_whole(path: str | os.PathLike, places: np.ndarray) -> int:
    """How many fields are complete, up to the first that is damaged; `places` in the file: int64 [fields + 1]."""
    if len(places) < 2 or np.any(np.diff(places) <= 0) or places[-1] > os.path.getsize(path):
        return 0
    whole = _look(path, places)[1]
    return len(whole) if whole.all() else int(np.argmin(whole))


def _look(path: str | os.PathLike, places: np.ndarray) -> tuple[bytes, np.ndarray]:
    """(the first field's header; whether each field has the same header and is complete: bool [fields])."""
    data = np.memmap(path, np.uint8, mode="r")
    starts, ends = places[:-1], places[1:]
    windows = np.lib.stride_tricks.sliding_window_view(data, _HEADER)
    headers = windows[np.minimum(starts, len(windows) - 1)]  # [fields, _HEADER]
    same = (headers == headers[0]).all(axis=1) & (ends - starts > _HEADER)
    whole = (data[starts] == _START[0]) & (data[ends - 2] == _END[0]) & (data[ends - 1] == _END[1])
    return headers[0].tobytes(), same & whole


def stored_path(folder: str | os.PathLike, entry: Video) -> str:
    """Where a video's flow is stored.

    Raises:
      VideoError: its path leads out of the folder, as in a manifest that someone wrote by hand.
    """
    if os.path.isabs(entry.path) or os.pardir in pathlib.PurePath(entry.path).parts or "\0" in entry.path:
        raise VideoError(entry.path, f"this path leads out of the set's folder, so that no flow is kept in {folder}")
    return os.path.join(folder, f"{entry.name}.flow")


def _damaged(path: str, error: OSError | ValueError) -> VideoError:
    if isinstance(error, FileNotFoundError):
        return VideoError(path, f"there is no flow of it: prepare with --flow makes {path}")
    what = error.strerror if isinstance(error, OSError) else error
    return VideoError(path, f"its flow is broken ({what}): remove {path}, and prepare with --flow makes it anew")


def _places_of(path: str, frames: int) -> np.ndarray:
    """Where the fields in a stored file begin, and the last one ends, in bytes: int64 [frames], ascending.

    Raises:
      OSError, ValueError: there is no such file, or it is another video's, or incomplete.
    """
    places = read_places(path)
    if len(places) != frames:
        raise ValueError(f"the flow of {len(places)} frames, but the video has {frames}")
    if places[0] <= 0 or np.any(np.diff(places) <= 0):
        raise ValueError("its index is damaged")
    size = os.path.getsize(path)
    if places[-1] != size:
        raise ValueError(f"{size:,} bytes, but it should have {places[-1]:,}")
    return places


def read_places(path: str | os.PathLike) -> np.ndarray:
    """The index at the beginning of a stored file, not checked: int64 [frames], mapped from the disk.

    Raises:
      OSError, ValueError: there is no such file, or it does not begin with an index.
    """
    try:
        places = np.lib.format.open_memmap(path, mode="r")  # np.load would accept an archive or a pickle, too
    except (ValueError, EOFError, OverflowError, MemoryError, SyntaxError, TypeError, tokenize.TokenError) as error:
        # NumPy parses the header as Python, and trusts any size.
        empty = os.path.getsize(path) == 0
        raise ValueError("an empty file" if empty else "its index is damaged") from error
    if places.dtype != np.int64 or places.ndim != 1 or not len(places):
        raise ValueError(f"its index is {places.dtype} {list(places.shape)}")
    return places


def _from_jpeg(jpeg: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decode one field: uint8 [H, W, 2]. Raises ValueError if it is damaged, or of another size."""
    height = _check_size(jpeg, size)
    whole = jpeg.endswith(_END)  # OpenCV makes up the rest of a truncated one
    both = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE) if whole else None
    if both is None or both.shape != (2 * height, size[1]):
        raise ValueError("a field is damaged")
    return both.reshape(2, height, size[1])[:, : size[0]].transpose(1, 2, 0)


def _check_size(jpeg: bytes, size: tuple[int, int]) -> int:
    """The padded height of a field in its JPEG; only the header is read. Raises ValueError for another size."""
    height = size[0] + -size[0] % BLOCK
    claimed = pictures.picture_size(jpeg)  # any size, if the header is damaged
    if claimed != (2 * height, size[1]):
        found = "no picture" if claimed == (0, 0) else f"{claimed[1]}x{claimed[0] // 2}"
        raise ValueError(f"{found} for a field of {size[1]}x{height}")
    return height


def read_settings(folder: str | os.PathLike) -> Settings:
    """How the flow in a folder was made.

    Raises:
      UserError: the folder does not say it.
    """
    path = pathlib.Path(folder, SETTINGS_FILE)
    try:
        return Settings(**documents.read(path, {"method": str, "short_side": int, "bound?": float, "quality?": int}))
    except (OSError, documents.Damaged, TypeError) as error:
        raise UserError(
            f"{path} does not say how the flow in its folder was made ({error}): remove this file if it is there, and "
            "run prepare with the --flow and --flow_side that it was made with. If they are not known, remove "
            f"{path.parent}, and all is computed anew"
        ) from error


def given_up(manifest: Manifest) -> set[str]:
    """The names of the videos without flow that broken_flow.csv lists: prepare could not compute it."""
    if manifest.flow is None:
        return set()
    try:
        with open(_reasons(manifest.flow), encoding="utf-8", errors="surrogateescape", newline="") as file:
            named = {row[1] for row in csv.reader(file) if len(row) == 3}
    except (OSError, csv.Error):
        return set()
    return {
        entry.name
        for entry in manifest.videos
        if entry.name in named and entry.error is None and not os.path.exists(stored_path(manifest.flow, entry))
    }


def _reasons(folder: str) -> pathlib.Path:
    return pathlib.Path(folder).parent / REASONS_FILE


def check_stored(manifest: Manifest) -> set[str]:
    """The names of a manifest's readable videos whose stored flow is missing; says on stderr what to do about it.

    Raises:
      UserError: it is missing for all, or for more than 1 %, not counting those that prepare could not compute.
    """
    if manifest.flow is None:
        return set()
    readable = [entry for entry in manifest.videos if entry.error is None]
    missing = [entry.name for entry in readable if not os.path.exists(stored_path(manifest.flow, entry))]
    if not missing:
        return set()
    method, side, *_ = read_settings(manifest.flow)
    out = pathlib.Path(manifest.flow).parent
    said = (
        f"{len(missing)} of the {len(readable)} videos of {manifest.name!r} have no flow in {manifest.flow}, e.g. "
        f"{', '.join(missing[:3])}. "
    )
    command = (
        f"  python -m jax_video.prepare manifest --out={shlex.quote(str(out))} --flow={method} --flow_side={side}\n"
    )
    without = set(missing) - given_up(manifest)
    if len(missing) == len(readable) or len(without) > _TOLERATED * len(readable):
        raise UserError(f"{said}Go on with what was begun:\n{command}")
    where = f"{_reasons(manifest.flow)} says why" if len(without) < len(missing) else "prepare makes it"
    print(
        f"{said}Others stand in for them in training, and a test leaves them out; {where}:\n{command}",
        end="",
        file=sys.stderr,
    )
    return set(missing)


def check_made(folder: str, method: str, short_side: int) -> None:
    """Raise UserError if a folder's flow was computed by another method, or from frames of another short side."""
    found = read_settings(folder)
    if (found.method, found.short_side) != (method, short_side):
        raise UserError(
            f"the flow in {folder} is {found.method} of frames with a short side of {found.short_side} pixels, "
            f"the clips ask for {method} of {short_side}: set --config.clip.flow_method={found.method} "
            f"--config.clip.short_side={found.short_side}, or remove that folder and store flow with prepare's "
            f"--flow={method} --flow_side={short_side}"
        )
