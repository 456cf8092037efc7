"""Optical flow (ST-ResNet §4): computed between frames, or read where it is stored; and the ten fields about a frame.

Field i leads from frame i to frame i + 1 and holds, in pixels, how far to the right (x) and down (y) each point moves.
It is kept as uint8, clipped to 20 pixels either way: the input of a motion stream.

A video's stored fields (`preparing/storing.py`) are one file below the manifest's folder `flow`: an index of the places
of its frames - 1 fields, then the fields, one JPEG each. Neighbours are read at once.
"""

import itertools
import os
import pathlib
import shlex
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
FIELDS = 10  # of a frame, on average before and after it:
OFFSETS = np.arange(-FIELDS // 2, FIELDS // 2)  # -5 to 4, from the frame
CHANNELS = 2 * FIELDS  # x and y of each field in turn
LEAST_SIDE = 16  # pixels; the methods need some
ZERO, _SCALE = 128, 127 / BOUND  # what stands for no motion, and steps per pixel
SETTINGS_FILE = "flow.json"  # says how the flow in its folder was made
BLOCK = 8  # pixels of a JPEG that are coded together, along each side


class Settings(NamedTuple):
    """How a folder's flow was made."""

    method: str  # one of METHODS
    short_side: int  # of the frames, in pixels
    bound: float = BOUND  # in pixels
    quality: int = 95  # of the JPEGs


def encode(field: np.ndarray) -> np.ndarray:
    """Flow in pixels (float, of any shape) as it is stored (uint8)."""
    return np.rint(ZERO + np.clip(field, -BOUND, BOUND) * _SCALE).astype(np.uint8)


def decode_values(values: np.ndarray) -> np.ndarray:
    """Stored flow (uint8, of any shape) in pixels (float32): the inverse of `encode`."""
    return (values.astype(np.float32) - ZERO) / np.float32(_SCALE)


def flip(fields: np.ndarray) -> np.ndarray:
    """Mirrors left and right, where x changes its sign: uint8 [T, H, W, C], x in the even channels."""
    mirrored = transforms.flip(fields).copy()
    mirrored[..., ::2] = 255 - np.maximum(mirrored[..., ::2], 1) + 1  # 256 - x in 8 bits; only a JPEG has a 0
    return mirrored


def usable(frames: int) -> tuple[int, int]:
    """(the first frame, how many) of a video whose ten fields exist; all, where the video is too short for any."""
    count = frames - FIELDS
    return (FIELDS // 2, count) if count > 0 else (0, frames)


def around(indices: np.ndarray, frames: int) -> np.ndarray:
    """The ten fields about each of some frames: int64 [N] -> [N, 10]; a short video's border fields are repeated."""
    return np.clip(indices[:, None] + OFFSETS, 0, max(0, frames - 2))


def _tvl1():
    """TV-L1 with the values of Zach et al. (2007): five levels, each half of the one before.

    OpenCV's own step of 1.25 takes twice as long, and loses fast motions: 20 pixels are still 8 at its coarsest level.
    """
    return cv2.optflow.DualTVL1OpticalFlow.create(
        tau=0.25, lambda_=0.15, theta=0.3, nscales=5, warps=5, epsilon=0.01, scaleStep=0.5
    )


def _dis():
    """Dense inverse search (Kroeger et al. 2016), 15 to 40 times as fast, with variational refinement."""
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
    """Reads fields of a video that are stored.

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
        places = read_places(path)
        if len(places) != frames:
            raise VideoError(path, f"the flow of {len(places)} frames, but the video has {frames}")
        with open(path, "rb") as file:
            for run in runs:
                ends = places[run[0] : run[-1] + 2].tolist()
                if ends != sorted(ends) or ends[0] < 0 or ends[-1] > os.path.getsize(path):
                    raise ValueError("its index is damaged")
                file.seek(ends[0])
                data = file.read(ends[-1] - ends[0])
                for start, end in itertools.pairwise(ends):
                    jpeg = np.frombuffer(data, np.uint8, end - start, start - ends[0])
                    fields.append(_from_jpeg(path, jpeg, size))
    except (OSError, ValueError) as error:
        raise VideoError(path, f"not a readable flow file ({error})") from error
    return np.stack(fields)


def stored_path(folder: str | os.PathLike, entry: Video) -> str:
    """Where a video's flow is stored."""
    return os.path.join(folder, f"{entry.path}.flow")


def read_places(path: str) -> np.ndarray:
    """Where the fields of a stored file begin, and the last one ends: int64 [frames], mapped from the file.

    Raises:
      OSError, ValueError: there is no such file, or it is another one.
    """
    try:
        places = np.load(path, mmap_mode="r")
    except EOFError as error:
        raise ValueError("empty") from error
    except (SyntaxError, tokenize.TokenError) as error:  # NumPy takes the header for Python
        raise ValueError("its index is damaged") from error
    if places.dtype != np.int64 or places.ndim != 1:
        raise ValueError(f"its index is {places.dtype} {list(places.shape)}")
    return places


def _from_jpeg(path: str, jpeg: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One field, uint8 [H, W, 2]."""
    height = size[0] + -size[0] % BLOCK
    shape = (2 * height, size[1])
    claimed = pictures.picture_size(jpeg.tobytes())  # if it is damaged, of any size
    both = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE) if claimed == shape else None
    if both is None:
        found = "no picture" if claimed in (shape, (0, 0)) else f"{claimed[1]}x{claimed[0] // 2}"
        raise VideoError(path, f"its flow is damaged: {found} for a field of {size[1]}x{height}")
    return both.reshape(2, height, size[1])[:, : size[0]].transpose(1, 2, 0)


def read_settings(folder: str | os.PathLike) -> Settings:
    """How the flow in a folder was made.

    Raises:
      UserError: it does not say.
    """
    path = pathlib.Path(folder, SETTINGS_FILE)
    try:
        return Settings(**documents.read(path, {"method": str, "short_side": int, "bound?": float, "quality?": int}))
    except (OSError, documents.Damaged, TypeError) as error:
        raise UserError(
            f"{path} does not say how the flow in its folder was made ({error}): remove {path.parent}, and run "
            "prepare with --flow again"
        ) from error


def check_stored(manifest: Manifest) -> None:
    """Raises UserError where a manifest's flow is stored, but not that of all readable videos."""
    if manifest.flow is None:
        return
    readable = [entry for entry in manifest.videos if entry.error is None]
    missing = [entry.path for entry in readable if not os.path.exists(stored_path(manifest.flow, entry))]
    if missing:
        method, side, *_ = read_settings(manifest.flow)
        out = pathlib.Path(manifest.flow).parent
        raise UserError(
            f"{len(missing)} of the {len(readable)} videos of {manifest.name!r} have no flow in {manifest.flow}, e.g. "
            f"{', '.join(missing[:3])}. Go on with what was begun:\n  python -m jax_video.prepare manifest "
            f"--out={shlex.quote(str(out))} --flow={method} --flow_side={side}\n"
            f"Videos that it names in {out / 'broken_flow.csv'} have none: take them away and prepare the set again."
        )


def check_made(folder: str, method: str, short_side: int) -> None:
    """Raises UserError where a folder's flow was stored by another method, or for frames of another short side."""
    found = read_settings(folder)
    if (found.method, found.short_side) != (method, short_side):
        raise UserError(
            f"the flow in {folder} is {found.method} of frames with a short side of {found.short_side} pixels, "
            f"the clips ask for {method} of {short_side}: set --config.clip.flow_method={found.method} "
            f"--config.clip.short_side={found.short_side}, or remove that folder and store flow with prepare's "
            f"--flow={method} --flow_side={short_side}"
        )
