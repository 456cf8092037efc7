"""Archives of scores as they are published: an .npz of `scores` [N, K], `labels` [N] and `names` [N].

Classes are numbers there: `labels` has them, and they are the columns of `scores`. Names of videos are mostly paths.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

ARRAYS = ("scores", "labels", "names")


def told(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether the arrays of an .npz are such an archive. Otherwise they are rows [K] under the names of videos, one of
    which may be called "scores"."""
    names, scores = (np.asarray(arrays.get(name, 0.0)) for name in ("names", "scores"))
    return names.dtype.kind in "US" or ("scores" in arrays and scores.ndim != 1)


def read(arrays: Mapping[str, np.ndarray]) -> tuple[tuple[str, ...], dict[str, np.ndarray], dict[str, str]]:
    """The classes, {video: its scores [K]} and {video: its class}.

    Classes have the names of the videos' folders where each class has a folder of its own; otherwise their names are
    their numbers, from "0" on.

    Raises:
      ValueError: the archive is malformed; the message says how.
    """
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise ValueError(f"{missing[0]} is missing among {', '.join(arrays)}; expected {', '.join(ARRAYS)}")
    scores, labels, names = (np.asarray(arrays[name]) for name in ARRAYS)
    expected = "expected scores [N, K], a row for each video, labels [N] and names [N]"
    if scores.ndim != 2 or not scores.shape[1]:
        raise ValueError(f"scores are {list(scores.shape)}; {expected}")
    videos, classes = scores.shape
    for name, array in (("labels", labels), ("names", names)):
        if array.shape != (videos,):
            raise ValueError(f"{name} are {list(array.shape)} beside scores of {list(scores.shape)}; {expected}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels are of type {labels.dtype}; expected whole numbers, one for each video")
    if names.dtype.kind not in "US":
        raise ValueError(f"names are of type {names.dtype}; expected text (dtype=str)")
    if len(strange := np.flatnonzero((labels < 0) | (labels >= classes))):
        raise ValueError(
            f"labels[{strange[0]}] is {labels[strange[0]]}; expected 0 to {classes - 1}, as scores have it"
        )
    rows = numbers("scores", scores)
    found: dict[str, tuple[np.ndarray, int]] = {}
    for place, (name, row, label) in enumerate(zip(map(_text, names.tolist()), rows, labels.tolist(), strict=True)):
        if not name:
            raise ValueError(f"names[{place}] is empty")
        before, of = found.setdefault(name, (row, label))
        if of != label or not np.array_equal(before, row, equal_nan=True):
            raise ValueError(f"{name} is in it twice, with other scores or another label; expected each video once")
    called = _called([*found], [label for _, label in found.values()], classes)
    return (
        called,
        {name: row for name, (row, _) in found.items()},
        {name: called[label] for name, (_, label) in found.items()},
    )


def numbers(name: str, array: np.ndarray) -> np.ndarray:
    """An array as float64. Raises ValueError where it holds anything but real numbers."""
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: an array of type {array.dtype}; expected numbers")
    with np.errstate(over="ignore"):  # longer floats may become infinite, which is refused later
        return array.astype(np.float64)


def _text(name: str | bytes) -> str:
    name = os.fsdecode(name)
    name.encode(errors="surrogateescape")  # raises where it is half of a character, which no file can hold
    return name


def _called(names: Sequence[str], labels: Sequence[int], classes: int) -> tuple[str, ...]:
    """The names of the classes, from the names of all videos and the numbers of their classes."""
    pairs = {(label, pathlib.PurePosixPath(name).parent.name) for name, label in zip(names, labels, strict=True)}
    folders = {folder for _, folder in pairs} - {""}
    if 1 < classes == len(pairs) == len(folders) == len({label for label, _ in pairs}):
        return tuple(folder for _, folder in sorted(pairs))
    return tuple(map(str, range(classes)))
