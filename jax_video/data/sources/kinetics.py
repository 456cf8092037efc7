"""Kinetics-400, 600 and 700."""

import collections
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from jax_video.data import remote
from jax_video.data.manifest import MISSING
from jax_video.data.sources import class_files, listing, official, splits, text
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError


class _Row(NamedTuple):
    """A row of a Kinetics list."""

    where: str  # file:line
    label: str | None
    id: str  # of the YouTube video
    start: float  # seconds
    end: float
    split: str  # "train", "val" or "test", as the list calls it

    @property
    def file(self) -> str:
        return f"{self.id}_{int(self.start):06d}_{int(self.end):06d}.mp4"


def find(name: str, videos: remote.Path, *, annotations: remote.Path | None = None, seed: int = 0) -> Listing:
    """Kinetics by its official lists (train.csv, validate.csv or val.csv, test.csv); `name` is e.g. "kinetics400".

    The papers' results are on the validation list: it is for test here. 5 % of the training list, whole YouTube videos
    drawn by `seed`, are for validation. The official test list counts only if there is no validation list.

    A file is <id>_<start>_<end> or <id>_<start>, cut already, with or without zeros before the times; or it is <id>, a
    whole video, of which several rows may be parts and `Video.span` says what counts. Files below a folder whose name
    begins with "replacement", as Kinetics' host has it, replace others of the same name.

    Classes are in the order of label_map.txt if it lies with the lists, otherwise the sorted names in the lists.

    Args:
      annotations: the folder of the lists, or one list; by default they are looked for beside the videos.

    Raises:
      UserError: no lists, or none of their videos is there; a row not understood, or whose label is no class.
    """
    lists, ignored = _find_kinetics(videos, annotations)
    listed = [row for path, split in lists.items() for row in _read_kinetics(path, split)]
    if not listed:
        raise UserError(f"no videos in {' and '.join(map(str, lists))}: expected rows of {', '.join(_COLUMNS)}")
    listed, notes = _choose_kinetics(listed)
    notes += ignored
    map_file = next(iter(lists)).parent / "label_map.txt"
    if map_file.is_file():
        classes = class_files.read(map_file).names
    else:
        classes = tuple(sorted({row.label for row in listed if row.label is not None}))
        expected = int(name.removeprefix("kinetics"))
        if len(classes) != expected:
            notes.append(
                f"warning: the lists name {len(classes)} classes, not {expected}: labels count these alone; "
                f"with a part of the lists a label_map.txt beside them, {expected} names in order, says all"
            )
    index = {label: i for i, label in enumerate(classes)}
    rows, cuts = [], {}
    for row in listed:
        if row.label is not None and row.label not in index:
            raise UserError(
                f"{row.where}: the label {row.label!r} is without a class: {map_file} has {len(classes)} names, "
                "and not this one"
            )
        label = None if row.label is None else index[row.label]
        rows.append(listing.unopened(row.file, label, "train" if row.split == "train" else "test", row.id, MISSING))
        cuts[row.file] = official.Cut(row.id, row.start, row.end)
    return official.place(name, classes, videos, rows, seed, notes, cuts)


def _find_kinetics(
    videos: remote.Path, annotations: remote.Path | None
) -> tuple[dict[remote.Path, str | None], list[str]]:
    """(the lists with the splits that their names tell, what the user should know of others that are there)."""
    if annotations is not None and annotations.is_file():
        return {annotations: _split_of(annotations.stem)}, []
    places = [videos, remote.absolute(videos).parent] if annotations is None else [annotations]
    places += [place / "annotations" for place in places]
    for place in places:
        lists, notes = _lists_in(place)
        if lists:
            return dict(sorted(lists.items(), key=lambda item: ("train", "val", "test").index(item[1]))), notes
    raise UserError(
        f"no official lists (train.csv, validate.csv or val.csv, test.csv) in {' or '.join(map(str, places))}; "
        "say where they are with --annotations=DIR or --annotations=FILE"
    )


def _lists_in(place: remote.Path) -> tuple[dict[remote.Path, str], list[str]]:
    """The lists in a folder with their splits, one for each, and notes on the others.

    Kinetics-600 has a second list of test videos, its "holdout", beside the first, and lists that end in .txt.
    """
    named = {path: split for path in _files(place, ".csv") if (split := _split_of(path.stem)) is not None}
    holdout = [path for path in named if "holdout" in path.stem.lower()]
    if {"val", "test"} & {split for path, split in named.items() if path not in holdout}:
        lists = {path: split for path, split in named.items() if path not in holdout}
    else:
        lists = dict(named)
    repeated = [split for split, count in collections.Counter(lists.values()).items() if count > 1]
    if repeated:
        names = ", ".join(path.name for path, split in lists.items() if split == repeated[0])
        raise UserError(f"{place} has several lists for {repeated[0]}: {names}; give one with --annotations=FILE")
    left_out, others = [path.name for path in named if path not in lists], []
    for path in _files(place, ".txt"):
        split = _split_of(path.stem)
        if split is None:
            continue
        if split in lists.values():
            left_out.append(path.name)
        elif _is_list(path):
            lists[path] = split
        elif lists and split == "val":  # without it, the test list would be for test
            raise UserError(
                f"{path} is no list of Kinetics, which begins with {', '.join(_COLUMNS)}, and there is no other for "
                f"{split}: get {split}.csv, or name one list alone with --annotations=FILE"
            )
        else:
            others.append(path.name)
    notes = [f"ignored, as other lists for the same splits: {', '.join(left_out)}"] if left_out else []
    notes += [f"ignored, as no lists of Kinetics: {', '.join(others)}"] if others else []
    return lists, notes


def _files(place: remote.Path, extension: str) -> list[remote.Path]:
    """The sorted files of a folder, if it is one, with an extension."""
    return sorted(path for path in place.glob("*") if path.suffix.lower() == extension) if place.is_dir() else []


def _split_of(name: str) -> str | None:
    """The split that a name tells, such as train, kinetics_train or kinetics-600_val; None if it tells none."""
    return splits.of(re.split(r"[_\-. ]", name.lower())[-1])


_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_NEEDED = frozenset(("youtube_id", "time_start", "time_end"))


def _is_list(path: remote.Path) -> bool:
    """Whether a file is a list of Kinetics by its first line: a header, or a row without one."""
    _, cells = next(text.read_csv(path), (1, []))
    return set(_header(cells)) >= _NEEDED


def _header(cells: list[str]) -> list[str]:
    """The names of a header's columns in the spelling of `_COLUMNS`; for a first row that is no header, these."""
    names = [name.lower().replace(" ", "_") for name in cells]
    without = not _NEEDED <= set(names) and 4 <= len(cells) <= 5 and _seconds(*cells[2:4]) is not None
    return list(_COLUMNS[: len(cells)]) if without else names


def _seconds(start: str, end: str) -> tuple[float, float] | None:
    """(start, end) in seconds; None if they are not times."""
    try:
        times = float(start), float(end)
    except ValueError:
        return None
    return times if 0 <= times[0] < times[1] < 1e6 else None


def _read_kinetics(path: remote.Path, split_of_file: str | None) -> Iterator[_Row]:
    table = text.read_csv(path)
    number, first = next(table, (1, []))
    header = _header(first)
    if first and _seconds(*first[2:4] if len(first) > 3 else ("", "")) is not None:
        table = itertools.chain([(number, first)], table)  # it has no header
    needed = _NEEDED | ({"split"} if split_of_file is None else set())
    if not needed <= set(header):
        raise UserError(
            f"{path}:{number}: expected a header with {', '.join(_COLUMNS)}, found {', '.join(header) or 'nothing'}"
        )
    places = [header.index(name) if name in header else None for name in _COLUMNS]
    for number, cells in table:
        if len(cells) < len(header):
            cells = cells + [""] * (len(header) - len(cells))
        label, name, time_start, time_end, split = ("" if place is None else cells[place] for place in places)
        kind = _split_of(split) if split else split_of_file
        times = _seconds(time_start, time_end)
        if not name or "/" in name or kind is None or times is None or (not label and kind != "test"):
            raise UserError(
                f"{path}:{number}: expected {', '.join(header)}, with times in seconds and a split of train, validate "
                f"or test, got {','.join(cells)!r}"
            )
        yield _Row(f"{path}:{number}", label or None, name, *times, kind)


def _choose_kinetics(rows: list[_Row]) -> tuple[list[_Row], list[str]]:
    """(the rows that count, what to say of the others)."""
    splits = {row.split for row in rows}
    if "val" in splits:
        kept = [row for row in rows if row.split != "test"]
        reason = (
            "left out: {} videos of the official test list; the papers test on the validation list, and so does this"
        )
    elif any(row.label is not None for row in rows):
        kept = [row for row in rows if row.label is not None]
        reason = "left out: {} videos of the official test list that have no labels"
    else:
        return rows, ["there are no labels: only the official test list is here"]
    return kept, [reason.format(len(rows) - len(kept))] if len(kept) < len(rows) else []
