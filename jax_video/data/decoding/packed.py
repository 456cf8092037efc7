"""The frames of a packed set, and of a set of TFDS: ArrayRecord files, read without TensorFlow.

A packed set (`preparing/packing.py`) has `RECORD_FRAMES` frames of one video in each record, as JPEGs; a set that TFDS
has prepared itself (`sources/tfds.py`) has each video in one record.
"""

import bisect
import functools
import itertools
import os
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from google.protobuf import message

from jax_video.data import remote, transforms
from jax_video.data.manifest import Manifest, Video
from jax_video.errors import UserError, VideoError

if TYPE_CHECKING:  # importing it takes a while, and most sets are video files
    from array_record.python.array_record_module import ArrayRecordReader

RECORD_FRAMES = 8  # frames of one video in a record, at most


def decode(manifest: Manifest, entry: Video, indices: np.ndarray, *, short_side: int | None) -> np.ndarray:
    """Frames of a packed video: int64 [N] -> uint8 [N, H, W, 3], RGB; only these are decoded.

    `short_side` None leaves them in the size in which they are packed.

    Raises:
      VideoError: its records cannot be read, or are another video's.
    """
    shape = None if short_side is None else transforms.resized(entry.height, entry.width, short_side)
    images = {}
    for place, picture in pictures(manifest, entry, indices).items():
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise VideoError(entry.path, f"its packed frame {place} is no picture")
        images[place] = image if shape is None else transforms.resize(image[None], shape)[0]
    return np.stack([images[place] for place in indices.tolist()])


def pictures(manifest: Manifest, entry: Video, indices: np.ndarray) -> dict[int, bytes]:
    """The encoded frames of a packed video at these places. Raises as `decode` does."""
    if manifest.packed is None:
        raise ValueError(f"the set {manifest.name!r} is not packed")
    size = manifest.packed.record_frames
    split = entry.split if size else entry.path.partition("/")[0]
    found: dict[int, bytes] = {}
    read = None  # the number of the record that was read last
    try:
        for place in np.unique(indices).tolist():
            number, within = divmod(entry.first + place, size) if size else (entry.first, place)
            if number != read:
                read, example = number, read_record(manifest.root, split, number)
                # Earlier versions, in which no file could have several parts, stored the path alone.
                known = (encoded(entry.name), encoded(entry.path))
                if size and example["video"].bytes_list.value[0] not in known:
                    raise ValueError(f"record {number} of {split} is another video's: pack the set again")
            found[place] = example[manifest.packed.feature].bytes_list.value[within]
    except (OSError, ValueError, RuntimeError, IndexError, message.DecodeError) as error:
        raise VideoError(entry.path, f"its packed frames cannot be read ({error})") from error
    return found


def read_record(folder: str, split: str, number: int) -> Any:
    """The features of an example by name, as protobuf messages: a picture is copied out only when it is asked for.

    Raises:
      IndexError: the split has no such record.
      OSError, ValueError, RuntimeError, DecodeError: it cannot be read.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    files, ends = _files(folder, split)
    which = bisect.bisect_right(ends, number)
    if which == len(files):
        raise IndexError(f"there is no record {number} of {split}")
    reader = _reader(files[which])
    (record,) = reader.read([number - (ends[which - 1] if which else 0)])
    return tf_example_pb2.Example.FromString(record).features.feature


def check(folder: str | os.PathLike) -> None:
    """Raise UserError if a set cannot be read because TFDS's description of it is damaged."""
    try:
        _splits(folder)
    except ValueError as error:
        raise UserError(
            f"{error}. Pack the set again (prepare manifest --out=DIR --pack), which writes only that anew; if TFDS "
            "has prepared the set itself, let it do so again"
        ) from error


def _splits(folder: str | os.PathLike) -> Any:
    """TFDS's description of a set's splits. Raises ValueError if it cannot be read."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(folder).info.splits
    except Exception as error:  # whatever TFDS raises for damaged files
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise ValueError(f"what TFDS says of the set in {folder} cannot be read ({reason})") from error


@functools.lru_cache(maxsize=16)
def _files(folder: str, split: str) -> tuple[list[str], list[int]]:
    """The shards of a split, and the number of records up to the end of each."""
    splits = _splits(folder)
    if split not in splits:
        raise ValueError(f"TFDS says of no split {split} in {folder}")
    info = splits[split]
    return [os.fspath(path) for path in info.filepaths], list(itertools.accumulate(info.shard_lengths))


@functools.lru_cache(maxsize=128)  # a process may not keep all the shards of a large set open
def _reader(path: str) -> "ArrayRecordReader":
    from array_record.python import array_record_module

    return array_record_module.ArrayRecordReader(remote.local(path), "readahead_buffer_size:0,max_parallelism:0")


def encoded(path: str) -> bytes:
    """A path as records store it: as bytes, which need not be the valid Unicode that TFDS expects of a str."""
    return path.encode("utf-8", errors="surrogateescape")
