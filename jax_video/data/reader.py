"""The frames and the flow of a data set's videos, wherever they lie: in files, in records of TFDS, or in memory."""

import itertools
import os
import shutil
import sys
from collections.abc import Generator, Sequence

import numpy as np

from jax_video.data import remote, transforms
from jax_video.data.decoding import flow, packed, verified, video
from jax_video.data.manifest import Manifest, Video
from jax_video.errors import UserError, VideoError

_FIELDS = 64  # of stored flow that are read at once


def check(manifest: Manifest) -> None:
    """Raise UserError if the frames are in a store but not packed, or the description of a packed set is damaged.

    Also say on stderr how much of a packed set in a store will be copied.
    """
    if manifest.packed is not None:
        packed.check(manifest.root)
    if not remote.is_remote(manifest.root):
        return
    if manifest.packed is None:
        raise UserError(
            f"the videos of {manifest.name!r} are in {manifest.root}, but video files are read from local disks only: "
            "copy them, or pack the set (python -m jax_video.prepare --pack) and copy the packed folder there."
        )
    cache = remote.local_folder()
    cache.mkdir(parents=True, exist_ok=True)
    print(
        f"The packed set in {manifest.root} ({remote.size(manifest.root) / 1e9:.1f} GB) is copied to {cache} as it is "
        f"read ({shutil.disk_usage(cache).free / 1e9:.1f} GB are free there).",
        file=sys.stderr,
    )


def fault(manifest: Manifest, entry: Video, streams: Sequence[str] = ("rgb",)) -> str:
    """Why a video, or its stored flow if that is among the streams, cannot be read to its end; empty if it can."""
    try:
        if "rgb" in streams or manifest.flow is None:
            decode(manifest, entry, np.array([entry.frames - 1]), short_side=None)
        if "flow" in streams and manifest.flow is not None:
            size = transforms.resized(entry.height, entry.width, flow.read_settings(manifest.flow).short_side)
            for first in range(0, entry.frames - 1, _FIELDS):
                run = list(range(first, min(first + _FIELDS, entry.frames - 1)))
                flow.read(flow.stored_path(manifest.flow, entry), [run], entry.frames, size)
    except UserError as error:
        return error.reason if isinstance(error, VideoError) else str(error)
    return ""


def decode(manifest: Manifest, entry: Video, indices: np.ndarray, *, short_side: int | None) -> np.ndarray:
    """Decode frames of a video, counted from its own first one: int64 [N] in any order -> uint8 [N, H, W, 3], RGB.

    `short_side` None leaves them as large as they are stored.

    Raises:
      VideoError: the video cannot be read, has no such frame, or other frames than a fast check has counted.
    """
    if manifest.memory is not None:
        return _from_memory(entry.path, manifest.memory[entry.path], entry.first + indices, short_side)
    if manifest.packed is not None:
        return packed.decode(manifest, entry, indices, short_side=short_side)
    path = os.path.join(manifest.root, entry.path)
    return video.decode(
        path, (entry.first + indices).tolist(), index=verified.index(path, entry), short_side=short_side
    )


def timed(
    video_: str | os.PathLike | np.ndarray, *, short_side: int | None, fps: float = 0.0, own: bool = False
) -> tuple[Generator[tuple[float, np.ndarray], None, None], float]:
    """The frames of one video in order, each with its seconds from the video's start, and the video's duration.

    Args:
      video_: a file, a folder of numbered pictures, or frames, uint8 [T, H, W, 3], RGB.
      short_side: of the frames that are given, in pixels; None leaves them as they are.
      fps: frames per second; needed for pictures and for frames in memory, and for a file in place of its own times.
      own: whether a file's own times count before `fps`.

    Returns:
      ((seconds, uint8 [H, W, 3]) of one frame after the other, the duration in seconds or 0 if it is unknown).

    Raises:
      UserError: frames in memory without `fps`.
      VideoError: the file cannot be read, or its frames have no times.
    """
    if not isinstance(video_, np.ndarray):
        return video.timed_frames(video_, fps=fps, own=own, short_side=short_side), video.duration(video_)
    if not fps:
        raise UserError("frames have no times: say how many there are to a second, fps=25")
    images = (image if short_side is None else transforms.resize_short(image[None], short_side)[0] for image in video_)
    return ((place / fps, image) for place, image in enumerate(images)), len(video_) / fps


def _from_memory(name: str, frames: np.ndarray, indices: np.ndarray, short_side: int | None) -> np.ndarray:
    if indices.max() >= len(frames):
        raise VideoError(name, f"no frame {indices.max()}: there are only {len(frames)}")
    chosen = frames[indices]
    return chosen if short_side is None else transforms.resize_short(chosen, short_side)


def flow_stacks(
    manifest: Manifest, entry: Video, indices: np.ndarray, *, short_side: int, method: str = "tvl1"
) -> np.ndarray:
    """The ten fields of flow around frames of a video: read if the manifest's flow is stored, else computed.

    Args:
      manifest: knows where the videos are, and their flow.
      entry: the video.
      indices: int64 [N], of frames.
      short_side: of the frames, in pixels.
      method: one of flow.METHODS, if flow is computed.

    Returns:
      uint8 [N, H, W, 20].

    Raises:
      VideoError: the video, or its flow, cannot be read.
    """
    size = transforms.resized(entry.height, entry.width, short_side)
    if entry.frames == 1:
        return np.full((len(indices), *size, flow.CHANNELS), flow.ZERO, np.uint8)
    wanted, which = np.unique(flow.around(indices, entry.frames), return_inverse=True)
    runs = [run.tolist() for run in np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)]  # of neighbours
    if manifest.flow is None:
        fields = _compute_runs(manifest, entry, runs, short_side, method)
    else:
        fields = flow.read(flow.stored_path(manifest.flow, entry), runs, entry.frames, size)
    moved = np.moveaxis(fields[which.reshape(-1, flow.FIELDS)], 1, 3)  # [N, H, W, 10, 2]: x and y in turn
    return moved.reshape(*moved.shape[:3], flow.CHANNELS)


def _compute_runs(
    manifest: Manifest, entry: Video, runs: list[list[int]], short_side: int, method: str
) -> np.ndarray:  # [number of fields, H, W, 2]
    between = [range(run[0], run[-1] + 2) for run in runs]  # the frames that each run of fields leads through
    images = iter(decode(manifest, entry, np.concatenate(between), short_side=short_side))
    fields = [field for run in between for field in flow.compute(itertools.islice(images, len(run)), method)]
    return np.stack(fields)
