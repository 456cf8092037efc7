"""Labels of videos: one class for each, or several.

The label of a video is the index of its class. In a multi-label set it is a tuple of the indices of all classes that
apply to the video, ascending; the empty tuple, that none applies, is a label too. None: the video is not labelled.
"""

import collections
import itertools
import types
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Label = int | tuple[int, ...] | None


def are_several(labels: Iterable[Label]) -> bool:
    """Whether these are labels of a multi-label set: all are of one kind, so the first that is not None tells it."""
    return isinstance(next((label for label in labels if label is not None), None), tuple)


def all_of(label: Label) -> set[int | None]:
    """The classes of a video; of one without labels {None}."""
    return set(label) if isinstance(label, tuple) else {label}


def wrong(labels: Sequence[Any], classes: int) -> tuple[int, str] | None:
    """(the place of the first invalid label, what was expected in its place); None if all are valid."""
    kind = tuple if are_several(labels) else int

    def fits(label: Any) -> bool:
        several = label if isinstance(label, tuple) else [label]
        return label is None or (type(label) is kind and are_classes(several, classes))

    # Types first, since values of other types may be unhashable; then each label once: 300,000 videos have few.
    if set(map(type, labels)) <= {kind, types.NoneType} and all(map(fits, set(labels))):
        return None
    expected = f"a number from 0 to {classes - 1}" if classes else "None, without classes"
    if kind is tuple:
        expected = f"different numbers from 0 to {classes - 1}, ascending, in a tuple as other videos have it"
    place = next(place for place, label in enumerate(labels) if not fits(label))
    return place, f"{expected}{', as int' if kind is int else ''}: there are {classes} classes"


def are_classes(labels: Sequence[Any], classes: int) -> bool:
    """Whether these are indices of different classes, below `classes` and ascending."""
    known = all(type(label) is int and 0 <= label < classes for label in labels)
    return known and all(one < other for one, other in itertools.pairwise(labels))


def target(label: Label, classes: int, several: bool) -> np.ndarray:
    """A label as batches have it: int32 [], -1 if there is none. With `several` float32 [K]: 1 for each class that
    applies and 0 for all others, or -1 for all classes if the video is not labelled."""
    if not several:
        return np.array(-1 if label is None else label, np.int32)
    if label is None:
        return np.full(classes, -1, np.float32)
    found = np.zeros(classes, np.float32)
    found[list(label)] = 1  # type: ignore[arg-type]  # it is a tuple
    return found


def strata(labels: Sequence[Label]) -> list[int | None]:
    """The class that each label counts for when videos are drawn class by class; of several labels the rarest.

    So rare classes, which would be missed first, get their share. None: no class.
    """
    count = collections.Counter(itertools.chain.from_iterable(each for each in labels if isinstance(each, tuple)))

    def rarest(label: Label) -> int | None:
        if not isinstance(label, tuple):
            return label
        return min(label, key=lambda each: (count[each], each), default=None)

    return list(map(rarest, labels))
