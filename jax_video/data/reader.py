"""The frames of a data set's videos, wherever they lie: in video files, in folders of pictures, or packed."""

import os

import numpy as np

from jax_video.data import packed, video
from jax_video.data.manifest import Manifest, Video


def decode(manifest: Manifest, entry: Video, indices: np.ndarray, *, short_side: int) -> np.ndarray:
    """Frames of a video, counted from its own first one: int64 [N], ascending or not -> uint8 [N, H, W, 3], RGB.

    Raises:
      VideoError: the video cannot be read, or has no such frame.
    """
    if manifest.packed is not None:
        return packed.decode(manifest, entry, indices, short_side=short_side)
    path = os.path.join(manifest.root, entry.path)
    index = entry.index or video.FrameIndex(entry.frames)
    return video.decode(path, entry.first + indices, index=index, short_side=short_side)
