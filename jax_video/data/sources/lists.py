"""List files: a video's path and its label in each line."""

import collections
import os
import pathlib
import posixpath
import re
from collections.abc import Sequence
from typing import NamedTuple

from jax_video.data.manifest import MISSING
from jax_video.data.sources import finding, listing, text
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError

_MOST_CLASSES = 100_000  # a label above is no number of a class


def find(
    videos: pathlib.Path,
    *,
    train_list: pathlib.Path | None = None,
    val_list: pathlib.Path | None = None,
    test_list: pathlib.Path | None = None,
    class_names: pathlib.Path | None = None,
    seed: int = 0,
) -> Listing:
    """List files with `path label` in each line, as of mmaction2 and SlowFast.

    Between the two stand blanks, tabs or a comma; either may be quoted. mmaction2's `folder frames label` is understood
    too. Paths are below `videos`, or end or begin as they do below it (lists made for another folder); they may lack
    their extensions or have others. Labels are numbers or names: of `class_names` (see `read_classes`) where it is
    given. Otherwise the classes are the numbers from 0 to the largest label, or the sorted names.

    A video that is in several lists is taken for test rather than for validation, and for these rather than for
    training. Without a list for validation 5 % of the training list are, drawn by `seed`.

    Raises:
      UserError: no list, no video of them; or, with the line's number, no label, one without a class, a path that
        means several files.
    """
    given = {"train": train_list, "val": val_list, "test": test_list}
    lists = {split: path for split, path in given.items() if path is not None}
    if not lists:
        raise UserError(
            "expected --train_list=FILE, --val_list=FILE or --test_list=FILE, with `path label` in each line"
        )
    names = () if class_names is None else text.read_classes(class_names)
    there = finding.find_videos(videos)
    found, faults = there.videos, there.faults
    places = _Places(videos, found)
    entries = [entry for split, path in lists.items() for entry in _read_list(path, split, frozenset(names), places)]
    if not entries:
        raise UserError(f"no videos in {' or '.join(map(str, lists.values()))}: expected `path label` in each line")
    classes, labels = _number_labels(entries, names, class_names)

    rows = []
    for entry, label in zip(entries, labels, strict=True):
        place = places.find(entry)
        path = places.relative(entry.path)
        error = MISSING if place is None else faults.get(place)
        rows.append(listing.unopened(place or path, label, entry.split, finding.without_extension(path), error))
    listing.check_found("the lists", videos, rows, found)
    rows, notes = listing.once(rows)
    if "val" not in lists and "train" in lists:
        rows, note = listing.hold_out(rows, seed)
        notes.append(note)
    notes.extend(f"no --{split}_list" for split in ("train", "test") if split not in lists)
    unlisted = len(found) - sum(row.error != MISSING for row in rows)
    if unlisted:
        notes.append(f"ignored, as in no list: {unlisted} of the videos in {videos}")
    return Listing(videos.absolute().name, classes, videos, tuple(rows), (*notes, *finding.ignored_note(there)))


class _Entry(NamedTuple):
    """A line of a list file."""

    where: str  # file:line
    split: str
    path: str
    label: str


_EXTENSION = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(finding.EXTENSIONS)))})(?=[\"'\s,]|$)", re.IGNORECASE)
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_WITH_NUMBER = re.compile(r"(.+?)[\s,]+[0-9]+")


def _read_list(path: pathlib.Path, split: str, names: frozenset[str], places: "_Places") -> list[_Entry]:
    entries = []
    for number, line in text.read_lines(path):
        parts = _split_line(line, names)
        if parts is None or not all(parts):
            raise UserError(f"{path}:{number}: expected a video's path, a blank or comma, and its label, got {line!r}")
        entries.append(_Entry(f"{path}:{number}", split, *parts))
    # A number at the end of every path is a part of it, or how many frames the folder has: what is there decides.
    matches = [match for entry in entries if (match := _WITH_NUMBER.fullmatch(entry.path))]
    if len(matches) == len(entries):
        folders = [entry._replace(path=match[1]) for entry, match in zip(entries, matches, strict=True)]

        def plausible(reading: list[_Entry]) -> tuple[int, int]:
            return sum(bool(places.candidates(entry.path)) for entry in reading), len({entry.path for entry in reading})

        entries = max(folders, entries, key=plausible)
    return entries


def _split_line(line: str, names: frozenset[str]) -> tuple[str, str] | None:
    """The path and the label of a line, or None.

    What tells them apart, in the order in which it is looked for: quotes around the path, a video's extension, the name
    of a class, a number at the end, any tab, comma or blank.
    """
    quoted = re.fullmatch(r"""(?P<path>"(?:[^"]|"")*"|'(?:[^']|'')*')[\s,]+(?P<label>.+)""", line)
    if quoted and not _EXTENSION.search(quoted["label"]):
        return text.unquote(quoted["path"]), text.unquote(quoted["label"])
    ends = [match.end() for match in _EXTENSION.finditer(line)]
    if ends:
        return line[: ends[-1]], text.unquote(line[ends[-1] :].lstrip("\"' \t,"))
    if "\t" not in line:
        for match in re.finditer(r"[\s,]+", line):
            if text.unquote(line[match.end() :]) in names:
                return line[: match.start()], text.unquote(line[match.end() :])
    number = re.fullmatch(rf"(.+?)[\s,]+({_NUMBER.pattern})", line)
    if number:
        return number[1], number[2]
    separator = next((separator for separator in "\t, " if separator in line), None)
    if separator is None:
        return None
    before, _, after = line.rpartition(separator)
    return before.strip(), text.unquote(after)


def _number_labels(
    entries: list[_Entry], names: tuple[str, ...], file: pathlib.Path | None
) -> tuple[tuple[str, ...], list[int]]:
    """The classes, and each entry's index into them.

    A label is the name of a class or its number. All labels are names if they are all among `names`. Otherwise a label
    such as "3" is a number; but without `names` only if most labels look like numbers, for then these name the classes.
    """
    written = [entry.label for entry in entries]
    labels: list[str | int] = [*written]
    numbers = [int(label) for label in written if _NUMBER.fullmatch(label)]
    if not set(written) <= set(names) and (names or 2 * len(numbers) > len(written)):
        labels = [int(label) if _NUMBER.fullmatch(label) else label for label in written]
        if not names:
            largest = max(numbers)
            if largest >= _MOST_CLASSES:
                where = entries[labels.index(largest)].where
                raise UserError(
                    f"{where}: the label is {largest}, expected the number of a class below {_MOST_CLASSES}"
                )
            names = tuple(map(str, range(max(largest, 0) + 1)))
    elif not names:
        names = tuple(sorted({label for label in written if not _NUMBER.fullmatch(label)}))
    index: dict[str | int, int] = {name: i for i, name in enumerate(names)} | {i: i for i in range(len(names))}
    for entry, label in zip(entries, labels, strict=True):
        if label not in index:
            expected = f"0 to {len(names) - 1}" if isinstance(label, int) else text.some(names)
            raise UserError(
                f"{entry.where}: the label {entry.label!r} is without a class; expected one of the {len(names)} of "
                f"{file or 'the lists'}: {expected}"
            )
    return names, [index[label] for label in labels]


class _Places:
    """Finds the video that a listed path means, where lists were written for another folder."""

    def __init__(self, root: pathlib.Path, found: Sequence[str]):
        self._roots = tuple({os.path.abspath(root), os.path.realpath(root)})
        self._whole = collections.defaultdict(list)
        self._ends = collections.defaultdict(list)  # by the last part and by the last two
        for path in found:
            key = text.fold(finding.without_extension(path))
            self._whole[key].append(path)
            for count in {1, min(2, key.count("/") + 1)}:
                self._ends["/".join(key.split("/")[-count:])].append(path)

    def relative(self, path: str) -> str:
        """A listed path relative to the folder of the videos, as far as that can be told."""
        if "/" not in path:
            path = path.replace("\\", "/")  # written under Windows
        for root in self._roots:
            if path.startswith(root + "/"):
                path = path[len(root) :]
        return "/".join(part for part in posixpath.normpath(path).split("/") if part not in ("", ".."))

    def candidates(self, path: str) -> list[str]:
        """The videos that a listed path may mean."""
        key = text.fold(finding.without_extension(self.relative(path)))
        if key in self._whole:
            return self._whole[key]
        ends = self._ends.get("/".join(key.split("/")[-2:]), []) + self._whole.get(key.split("/")[-1], [])
        return [path for path in dict.fromkeys(ends) if _ends_alike(key, text.fold(finding.without_extension(path)))]

    def find(self, entry: _Entry) -> str | None:
        """The video that an entry means; None where there is none. Raises UserError where it may be one of several."""
        candidates = self.candidates(entry.path)
        if len(candidates) < 2:
            return candidates[0] if candidates else None

        listed = text.compose(self.relative(entry.path))

        def likeness(path: str) -> tuple[bool, bool, bool]:
            return (
                text.compose(path) == listed,
                listing.SPLIT_FOLDERS.get(path.split("/")[0].lower()) == entry.split,
                os.path.splitext(path)[1].lower() == os.path.splitext(listed)[1].lower(),
            )

        best = max(map(likeness, candidates))
        candidates = [path for path in candidates if likeness(path) == best]
        if len({text.fold(posixpath.dirname(path)) for path in candidates}) > 1:
            raise UserError(
                f"{entry.where}: {entry.path!r} may be any of {text.some(candidates)}; "
                "write its path as it is below --videos"
            )
        return candidates[0]


def _ends_alike(one: str, other: str) -> bool:
    """Whether one path ends with all of the other."""
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")
