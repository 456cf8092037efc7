"""A set that TFDS has prepared in its folder, each video a sequence of encoded pictures in one record."""

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import tqdm
from google.protobuf import message

from jax_video.data import remote
from jax_video.data.decoding import packed
from jax_video.data.manifest import Manifest, Packed, Video
from jax_video.errors import UserError

if TYPE_CHECKING:  # importing it takes a while, and most sets are video files
    import tensorflow_datasets as tfds

_SPLITS = {"train": "train", "validation": "val", "val": "val", "valid": "val", "test": "test"}  # TFDS's names and ours


def find(name: str, videos: str | os.PathLike, *, columns: Sequence[str] = ()) -> Manifest:
    """The manifest of a set of TFDS, from what TFDS knows of it and the first picture of every video.

    Args:
      name: as TFDS calls it: set, set/config or set/config:version.
      videos: TFDS's folder.
      columns: which features count, as ("label=verb",), where several may be the video or the label, and none of them
        is called so.

    Raises:
      UserError: there is no such set; it needs TensorFlow to be described, or read; it has no videos; it is not clear
        which features count.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=videos)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{name} in {videos} has a feature that TFDS describes with TensorFlow only, as its Video: pip install "
            f"tensorflow, for this command alone ({error})"
        ) from error
    except (tfds.core.DatasetNotFoundError, ValueError) as error:  # the second for an impossible name
        there = sorted(path.parent.parent.name for path in pathlib.Path(videos).glob("*/*/dataset_info.json"))
        raise UserError(
            f"no set {name} in {videos}: TFDS finds {', '.join(there) or 'none'} there; --videos names its folder, "
            "in which tfds build or download_and_prepare has put the set"
        ) from error
    except Exception as error:  # whatever TFDS raises for damaged files of its own
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise UserError(f"what TFDS says of {name} in {videos} cannot be read ({reason}): prepare it again") from error
    info = builder.info
    if info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{name} is stored as {info.file_format.value}, which only TensorFlow reads; this library reads "
            f"array_record. Where TensorFlow is: python -m tensorflow_datasets.scripts.convert_format "
            f"--dataset_dir={builder.data_dir} --out_file_format=array_record --out_path=DIR"
        )
    asked = dict(each.partition("=")[::2] for each in columns)
    if not asked.keys() <= {"video", "label"}:
        raise UserError(f"--columns={','.join(columns)}: expected video=NAME or label=NAME, features of {name}")
    feature = _feature(name, "video", _videos(name, info.features), asked.get("video"))
    labels = [key for key, value in info.features.items() if isinstance(value, tfds.features.ClassLabel)]
    label_feature = _feature(name, "label", labels, asked.get("label")) if labels or "label" in asked else None
    classes = tuple(info.features[label_feature].names) if label_feature else ()
    folder = os.fspath(remote.absolute(builder.data_dir))
    rows = []
    if others := [f"{split} ({about.num_examples:,})" for split, about in info.splits.items() if split not in _SPLITS]:
        tqdm.tqdm.write(f"warning: splits of {name} that are left out: {', '.join(others)}", file=sys.stderr)
    for split, about in info.splits.items():
        if split not in _SPLITS:
            continue
        for number in tqdm.trange(about.num_examples, desc=f"reading {split}", unit=" videos"):
            try:
                example = packed.read_record(folder, split, number)
                label = example[label_feature].int64_list.value[0] if label_feature else -1  # so has TFDS for none
                rows.append(_row(split, number, example[feature].bytes_list.value, None if label == -1 else label))
            except (OSError, ValueError, RuntimeError, IndexError, message.DecodeError) as error:
                raise UserError(f"record {number} of {split} of {name} cannot be read ({error})") from error
    if not rows:
        raise UserError(f"{name} has the splits {', '.join(info.splits)}: expected train, validation or test")
    return Manifest(name, classes, folder, tuple(rows), packed=Packed(feature))


def _feature(name: str, role: str, found: Sequence[str], asked: str | None) -> str:
    """The one of the features that may be the "video", or the "label", that counts: which was asked for, if any."""
    if asked is not None and asked not in found:
        raise UserError(f"--columns={role}={asked}: the {role} of {name} may be {', '.join(found) or 'no feature'}")
    if asked is None and len(found) > 1 and role not in found:
        raise UserError(
            f"{name} has {len(found)} features that may be the {role}: {', '.join(found)}; say which counts, as in "
            f"--columns={role}={found[0]}"
        )
    return asked or (role if role in found else found[0])


def _videos(name: str, described: "tfds.features.FeaturesDict") -> list[str]:
    """The features that are videos."""
    import tensorflow_datasets as tfds

    found = [
        key
        for key, value in described.items()
        if isinstance(value, tfds.features.Sequence) and isinstance(value.feature, tfds.features.Image)
    ]
    if not found:
        raise UserError(f"{name} has no feature that is a sequence of pictures; it has {', '.join(described)}")
    return found


def _row(split: str, number: int, pictures: Sequence[bytes], label: int | None) -> Video:
    path = f"{split}/{number}"
    image = cv2.imdecode(np.frombuffer(pictures[0], np.uint8), cv2.IMREAD_COLOR) if pictures else None
    if image is None:
        return Video(path, label, _SPLITS[split], 0, 0.0, 0, 0, "no readable frame", path)
    height, width, _ = image.shape
    return Video(path, label, _SPLITS[split], len(pictures), 0.0, width, height, None, path, first=number)
