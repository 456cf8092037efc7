"""Charades."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jax_video.data import remote
from jax_video.data.manifest import MISSING, Video
from jax_video.data.sources import listing, official, records, table, text
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError

_NAME = "Charades_v1"
_CLASSES = f"{_NAME}_classes.txt"


class _Segment(NamedTuple):
    """An action that is done in a part of a video."""

    id: str  # of the video
    person: str
    label: int
    start: float  # seconds
    end: float

    def overlaps(self, other: "_Segment") -> bool:
        """Whether another segment is of another class and shows some of the same seconds."""
        return self.label != other.label and self.start < other.end and other.start < self.end


def find(
    videos: remote.Path, *, annotations: remote.Path | None = None, segments: bool = False, seed: int = 0
) -> Listing:
    """Charades by its official lists: Charades_v1_train.csv, Charades_v1_test.csv and Charades_v1_classes.txt.

    A video has the labels of all actions in it. Videos without any are left out, as in the official evaluation.

    5 % of the training list, drawn by `seed`, are for validation; all videos of a person stay together.

    Args:
      segments: whether each labelled segment is a video of its own instead, with its one label. If two of different
        classes overlap, each shows the action of both and has the label of one: a note says how many do.

    Raises:
      UserError: no lists, or none of their videos is there; a row that cannot be understood, or a class that is not in
        the file of classes.
    """
    lists = official.find_folder(videos, annotations, "Charades", _CLASSES)
    classes = _classes(lists / _CLASSES)
    rows: list[Video] = []
    notes: list[str] = []
    cuts: dict[str, official.Cut] = {}
    for split in ("train", "test"):
        path = lists / f"{_NAME}_{split}.csv"
        if not path.is_file():
            notes.append(f"no {path}: nothing is for {split}")
            continue
        actions = list(_actions(path, list(classes)))
        if not segments:
            rows += _whole(path, split, actions, notes)
            continue
        for segment in _segments(path, actions, notes):
            name = f"{segment.id}_{segment.start:g}_{segment.end:g}_{segment.label}"
            rows.append(listing.unopened(name, segment.label, split, segment.person, MISSING))
            cuts[name] = official.Cut(segment.id, segment.start, segment.end)
    if not rows:
        raise UserError(f"no labelled segments in {lists}: expected {_NAME}_train.csv and {_NAME}_test.csv")
    name = "charades-segments" if segments else "charades"
    found = official.place(name, tuple(classes.values()), videos, rows, seed, notes, cuts)
    kept, repeated = listing.once([_of_file(row, cuts.get(row.path)) for row in found.videos])
    return dataclasses.replace(found, videos=tuple(kept), notes=(*found.notes, *repeated))


def _whole(path: remote.Path, split: str, actions: list[list[_Segment]], notes: list[str]) -> list[Video]:
    """The videos of a list, with the labels of all their actions."""
    labels = [tuple(sorted({action.label for action in found})) for found in actions]
    rows = [
        listing.unopened(found[0].id, several, split, found[0].person, MISSING)
        for found, several in zip(actions, labels, strict=True)
        if found
    ]
    notes.append(f"{path}: {len(rows)} videos with {sum(map(len, labels))} labels")
    if bare := len(actions) - len(rows):
        notes.append(f"{path}: left out, without an action: {bare} videos")
    return rows


def _of_file(row: Video, cut: official.Cut | None) -> Video:
    """A row as a part of its file, even if that is missing."""
    return row if cut is None else dataclasses.replace(row, path=f"{cut.whole}.mp4", span=(cut.start, cut.end))


def _classes(path: remote.Path) -> dict[str, str]:
    """The classes in their order: "c000" -> "Holding some clothes"."""
    classes: dict[str, str] = {}
    for number, line in text.read_lines(path):
        code, _, name = line.partition(" ")
        if not re.fullmatch(r"c[0-9]{3}", code) or not name or code in classes or name in classes.values():
            raise UserError(f"{path}:{number}: expected a class as c000 and its name, once, got {text.short(line)}")
        classes[code] = text.compose(name.strip())
    return classes


def _actions(path: remote.Path, codes: Sequence[str]) -> Iterator[list[_Segment]]:
    """The actions of each video of a list."""
    for where, cells in _rows(path):
        found = []
        for action in filter(None, cells["actions"].split(";")):
            code, *times = action.split()
            start, end = (table.seconds(time) for time in times) if len(times) == 2 else (None, None)
            if code not in codes or start is None or end is None:
                raise UserError(
                    f"{where}: expected <class> <start> <end>, as in c092 11.90 21.20;c147 0.00 12.60, with classes of "
                    f"{_CLASSES}, got {text.short(action)}"
                )
            person = cells.get("subject") or cells["id"]
            found.append(_Segment(cells["id"], person, codes.index(code), start, end))
        yield found


def _segments(path: remote.Path, actions: list[list[_Segment]], notes: list[str]) -> list[_Segment]:
    """The actions of a list that take some time; adds notes on those left out, and on those that overlap."""
    videos = [[action for action in found if action.start < action.end] for found in actions]
    segments = [segment for found in videos for segment in found]
    bare = sum(not found for found in videos)
    empty = sum(map(len, actions)) - len(segments)
    mixed = sum(any(one.overlaps(other) for other in found) for found in videos for one in found)
    notes.append(f"{path}: {len(segments)} labelled segments in {len(videos) - bare} videos")
    if bare:
        notes.append(f"{path}: left out, without a labelled segment: {bare} videos")
    if empty:
        notes.append(f"{path}: left out, as they end where they begin, or before: {empty} segments")
    if mixed:
        notes.append(
            f"warning: {path}: segments that overlap one of another class, which they show, too: {mixed} "
            f"({mixed / len(segments):.0%}); accuracy on these counts one of their labels alone"
        )
    return segments


def _rows(path: remote.Path) -> Iterator[tuple[str, dict[str, str]]]:
    found = records.read(path)
    if not {"id", "actions"} <= set(found.columns):
        raise UserError(f"{path}: expected columns id and actions, found {text.some(found.columns)}")
    for where, cells in found.records:
        if not re.fullmatch(r"[^/\0]+", cells["id"]):
            raise UserError(f"{where}: expected the id of a video, got {text.short(cells['id'])}")
        yield where, cells
