"""Data sets as they lie on disk: which videos there should be, their labels and their splits.

A source is a function from a folder of videos (and, where a data set has them, its lists) to a `Listing`; it opens no
video. Its keyword arguments are the flags of `python -m jax_video.prepare` that apply to it.

In this room are the sources that take videos as their owner has them (class folders, any folder, list files) and what
all sources share: to find videos, to read lists, to hold some out. The data sets with official lists, and the table of
all sources, are in `official`.
"""

import collections
import dataclasses
import errno
import os
import pathlib
import posixpath
import re
import stat
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jax_video.data.decoding import pictures
from jax_video.data.manifest import MISSING, Video
from jax_video.errors import UserError

EXTENSIONS = frozenset(
    ".3gp .asf .avi .divx .f4v .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)
_LOOKED_FOR = f"{' '.join(sorted(EXTENSIONS))} and folders of numbered pictures"
SPLIT_FOLDERS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validate": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_SYSTEM = frozenset(("lost+found", "System Volume Information", "$RECYCLE.BIN"))  # Of a disk, which one may not read.
_VALIDATION = 0.05  # Of the training videos, where a data set has no validation list.
_MOST_CLASSES = 100_000  # A label above is no number of a class.


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a source says: `videos` not yet opened (frames 0; error None where there is a file, MISSING where not)."""

    name: str
    classes: tuple[str, ...]
    root: pathlib.Path
    videos: tuple[Video, ...]
    notes: tuple[str, ...]  # What the user should know: what was ignored, how a split was made.


def unopened(path: str, label: int | None, split: str, source: str, error: str | None = None) -> Video:
    """A row about a video of which only the name is known."""
    return Video(path, label, split, 0, 0.0, 0, 0, error, source)


def folder(
    videos: pathlib.Path,
    *,
    fraction: float = 0.1,
    seed: int = 0,
    group: str | None = None,
    test_groups: Sequence[str] = (),
    val_groups: Sequence[str] = (),
) -> Listing:
    """A folder of class folders, or of train/, val/ and test/ with class folders in each.

    Classes are in the order of their sorted names. Class folders are split by one of two rules:
      * fraction: of every class with at least three videos, this part is for test and as much for validation, at least
        one video each, drawn by `seed`;
      * group: a regular expression searched in each file's name, whose first group says e.g. who is seen. Videos of
        `test_groups` are for test, of `val_groups` for validation, all others for training.
    Where there is train/ without val/, the fraction of its videos is for validation.

    Raises:
      UserError: no class folders with videos in them, or a rule that does not fit them; in val/ or test/ a class that
        train/ does not have.
    """
    _check_folder(videos)
    _check_fraction(fraction)
    found, ignored, faults = find_videos(videos)
    folders = _folders(videos)
    with_splits = bool(folders) and all(name.lower() in SPLIT_FOLDERS for name in folders)
    depth = 2 if with_splits else 1  # Of the files in a class folder.
    inside = [path for path in found if path.count("/") >= depth]
    if not inside:
        raise UserError(
            f"no videos in class folders in {videos}: found {len(found)} video files elsewhere, folders "
            f"{folders[:5]}; expected {videos}/<class>/<video>, or train/, val/ and test/ with such folders in them; "
            f"looked for {_LOOKED_FOR}"
        )
    class_of = {path: compose(path.split("/")[depth - 1]) for path in inside}
    classes = tuple(sorted(set(class_of.values())))
    label = {name: i for i, name in enumerate(classes)}
    rows = [unopened(path, label[class_of[path]], "train", stem(path), faults.get(path)) for path in inside]

    notes = ignored_note(ignored)
    if len(inside) < len(found):
        notes.append(f"ignored, as outside of class folders: {len(found) - len(inside)} videos")
    parents = [videos / name for name in folders] if with_splits else [videos]
    known = {compose(name) for parent in parents for name in _folders(parent)}
    empty = sorted(known - set(classes))
    if empty:
        notes.append(f"warning: no videos in these class folders, which make no class: {', '.join(empty)}")

    if with_splits and group is not None:
        raise UserError(f"{videos} is split by its folders {', '.join(folders)}: leave out --group")
    if with_splits:
        rows = [dataclasses.replace(row, split=SPLIT_FOLDERS[row.path.split("/")[0].lower()]) for row in rows]
        present = {row.split for row in rows}
        notes.extend(_compare_classes(videos, rows, classes))
        if present == {"train"} or present == {"train", "test"}:
            rows = _split_by_fraction(rows, fraction, seed, ("val",))
            notes.append(f"no val/: {fraction:.0%} of every class in train/ is for validation (seed {seed})")
        notes.extend(f"no {split}/" for split in ("train", "test") if split not in present)
    elif group is not None:
        rows = _split_by_group(rows, group, tuple(test_groups), tuple(val_groups))
        notes.append(f"split by {group!r}: test {', '.join(test_groups)}; val {', '.join(val_groups) or '(none)'}")
    elif test_groups or val_groups:
        raise UserError("--test_groups and --val_groups need --group, the regular expression that finds the groups")
    else:
        rows = _split_by_fraction(rows, fraction, seed, ("test", "val"))
        notes.append(f"of every class {fraction:.0%} is for test and as much for validation (seed {seed})")
    return Listing(videos.absolute().name, classes, videos, tuple(rows), tuple(notes))


def unlabelled(videos: pathlib.Path, *, fraction: float = 0.1, seed: int = 0) -> Listing:
    """Any folder of videos, at any depth, for knowledge transfer: no labels are read, and there are no classes.

    The fraction is for test, and as much for validation, drawn by `seed`.

    Raises:
      UserError: no videos, or a fraction that cannot be.
    """
    _check_fraction(fraction)
    found, ignored, faults = find_videos(videos)
    if not found:
        raise UserError(f"no videos in {videos}: looked for {_LOOKED_FOR} in it and below")
    rows = [unopened(path, None, "train", stem(path), faults.get(path)) for path in found]
    rows = _split_by_fraction(rows, fraction, seed, ("test", "val"))
    notes = [*ignored_note(ignored), f"{fraction:.0%} is for test and as much for validation (seed {seed})"]
    return Listing(videos.absolute().name, (), videos, tuple(rows), tuple(notes))


def listed(
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
    lists = {"train": train_list, "val": val_list, "test": test_list}
    lists = {split: path for split, path in lists.items() if path is not None}
    if not lists:
        raise UserError(
            "expected --train_list=FILE, --val_list=FILE or --test_list=FILE, with `path label` in each line"
        )
    names = () if class_names is None else read_classes(class_names)
    found, ignored, faults = find_videos(videos)
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
        rows.append(unopened(place or path, label, entry.split, _without_extension(path), error))
    check_found("the lists", videos, rows, found)
    rows, notes = once(rows)
    if "val" not in lists and "train" in lists:
        rows, note = hold_out(rows, seed)
        notes.append(note)
    notes.extend(f"no --{split}_list" for split in ("train", "test") if split not in lists)
    unlisted = len(found) - sum(row.error != MISSING for row in rows)
    if unlisted:
        notes.append(f"ignored, as in no list: {unlisted} of the videos in {videos}")
    return Listing(videos.absolute().name, classes, videos, tuple(rows), (*notes, *ignored_note(ignored)))


class _Entry(NamedTuple):
    """A line of a list file."""

    where: str  # file:line
    split: str
    path: str
    label: str


_EXTENSION = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(EXTENSIONS)))})(?=[\"'\s,]|$)", re.IGNORECASE)
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_WITH_NUMBER = re.compile(r"(.+?)[\s,]+[0-9]+")


def _read_list(path: pathlib.Path, split: str, names: frozenset[str], places: "_Places") -> list[_Entry]:
    entries = []
    for number, line in read_lines(path):
        parts = _split_line(line, names)
        if parts is None or not all(parts):
            raise UserError(f"{path}:{number}: expected a video's path, a blank or comma, and its label, got {line!r}")
        entries.append(_Entry(f"{path}:{number}", split, *parts))
    # A number at the end of every path is a part of it, or how many frames the folder has: what is there decides.
    matches = [_WITH_NUMBER.fullmatch(entry.path) for entry in entries]
    if all(matches):
        folders = [entry._replace(path=match[1]) for entry, match in zip(entries, matches, strict=True)]

        def plausible(reading: list[_Entry]) -> tuple[int, int]:
            return sum(bool(places.candidates(entry.path)) for entry in reading), len({entry.path for entry in reading})

        entries = max(folders, entries, key=plausible)
    return entries


def _split_line(line: str, names: frozenset[str]) -> tuple[str, str] | None:
    """The path and the label of a line; what may be read in several ways is read by the surest sign in it."""
    quoted = re.fullmatch(r"""(?P<path>"(?:[^"]|"")*"|'(?:[^']|'')*')[\s,]+(?P<label>.+)""", line)
    if quoted and not _EXTENSION.search(quoted["label"]):
        return _unquote(quoted["path"]), _unquote(quoted["label"])
    ends = [match.end() for match in _EXTENSION.finditer(line)]
    if ends:
        return line[: ends[-1]], _unquote(line[ends[-1] :].lstrip("\"' \t,"))
    if "\t" not in line:
        for match in re.finditer(r"[\s,]+", line):
            if _unquote(line[match.end() :]) in names:
                return line[: match.start()], _unquote(line[match.end() :])
    number = re.fullmatch(rf"(.+?)[\s,]+({_NUMBER.pattern})", line)
    if number:
        return number[1], number[2]
    separator = next((separator for separator in "\t, " if separator in line), None)
    if separator is None:
        return None
    before, _, after = line.rpartition(separator)
    return before.strip(), _unquote(after)


def _number_labels(
    entries: list[_Entry], names: tuple[str, ...], file: pathlib.Path | None
) -> tuple[tuple[str, ...], list[int]]:
    """The classes, and each entry's index into them.

    Where not all labels are `names`, those that look like numbers are: with names any, without names if most are.
    """
    labels = [entry.label for entry in entries]
    numbers = [int(label) for label in labels if _NUMBER.fullmatch(label)]
    if not set(labels) <= set(names) and (names or 2 * len(numbers) > len(labels)):
        labels = [int(label) if _NUMBER.fullmatch(label) else label for label in labels]
        if not names:
            largest = max(numbers)
            if largest >= _MOST_CLASSES:
                where = entries[labels.index(largest)].where
                raise UserError(
                    f"{where}: the label is {largest}, expected the number of a class below {_MOST_CLASSES}"
                )
            names = tuple(map(str, range(max(largest, 0) + 1)))
    elif not names:
        names = tuple(sorted({label for label in labels if not _NUMBER.fullmatch(label)}))
    index = {name: i for i, name in enumerate(names)} | {i: i for i in range(len(names))}
    for entry, label in zip(entries, labels, strict=True):
        if label not in index:
            expected = f"0 to {len(names) - 1}" if isinstance(label, int) else _some(names)
            raise UserError(
                f"{entry.where}: the label {entry.label!r} is without a class; expected one of the {len(names)} of "
                f"{file or 'the lists'}: {expected}"
            )
    return names, [index[label] for label in labels]


class _Places:
    """Where the videos that were found lie, for paths written by others: by all of a path, or as far as it goes."""

    def __init__(self, root: pathlib.Path, found: Sequence[str]):
        self._roots = tuple({os.path.abspath(root), os.path.realpath(root)})
        self._whole = collections.defaultdict(list)
        self._ends = collections.defaultdict(list)  # by the last part and by the last two
        for path in found:
            key = fold(_without_extension(path))
            self._whole[key].append(path)
            for count in {1, min(2, key.count("/") + 1)}:
                self._ends["/".join(key.split("/")[-count:])].append(path)

    def relative(self, path: str) -> str:
        """A listed path without what leads to the folder of the videos, as far as that can be told."""
        if "/" not in path:
            path = path.replace("\\", "/")  # Written under Windows.
        for root in self._roots:
            if path.startswith(root + "/"):
                path = path[len(root) :]
        return "/".join(part for part in posixpath.normpath(path).split("/") if part not in ("", ".."))

    def candidates(self, path: str) -> list[str]:
        """The videos that a listed path may mean."""
        key = fold(_without_extension(self.relative(path)))
        if key in self._whole:
            return self._whole[key]
        ends = self._ends.get("/".join(key.split("/")[-2:]), []) + self._whole.get(key.split("/")[-1], [])
        return [path for path in dict.fromkeys(ends) if _ends_alike(key, fold(_without_extension(path)))]

    def find(self, entry: _Entry) -> str | None:
        """The video that an entry means; None where there is none. Raises UserError where it may be one of several."""
        candidates = self.candidates(entry.path)
        if len(candidates) < 2:
            return candidates[0] if candidates else None

        listed = compose(self.relative(entry.path))

        def likeness(path: str) -> tuple[bool, bool, bool]:
            return (
                compose(path) == listed,
                SPLIT_FOLDERS.get(path.split("/")[0].lower()) == entry.split,
                os.path.splitext(path)[1].lower() == os.path.splitext(listed)[1].lower(),
            )

        best = max(map(likeness, candidates))
        candidates = [path for path in candidates if likeness(path) == best]
        if len({fold(posixpath.dirname(path)) for path in candidates}) > 1:
            raise UserError(
                f"{entry.where}: {entry.path!r} may be any of {_some(candidates)}; "
                "write its path as it is below --videos"
            )
        return candidates[0]


def _ends_alike(one: str, other: str) -> bool:
    """Whether one path is all of the end of the other."""
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def check_found(name: str, root: pathlib.Path, rows: Sequence[Video], found: Sequence[str]) -> None:
    """Raises UserError where the folder has none of the videos that lists name."""
    if all(row.error == MISSING for row in rows):
        others = f"{len(found)} other videos, e.g. {found[0]}" if found else "no videos at all"
        raise UserError(
            f"no videos found: {root} has none of the {len(rows)} videos of {name}, e.g. {rows[0].path}, in it or "
            f"below, whatever their extension; it has {others}. --videos names the folder that holds them"
        )


def once(rows: list[Video]) -> tuple[list[Video], list[str]]:
    """Rows without repetition of a path, and what to say of those left out.

    Of several the first counts; but a video that is for test anywhere is for nothing else.
    """
    first, repeated, relabelled, moved = {}, 0, [], []
    for row in sorted(rows, key=lambda row: ("test", "val", "train").index(row.split)):
        kept = first.setdefault(compose(row.path), row)
        if kept is not row:
            repeated += 1
            if kept.label != row.label:
                relabelled.append(row.path)
            elif kept.split != row.split:
                moved.append(f"{row.path} ({row.split} and {kept.split})")
    notes = []
    if repeated:
        notes.append(f"listed again, taken once: {repeated} videos")
    if relabelled:
        notes.append(f"listed with two labels, of which the first is taken: {len(relabelled)}, e.g. {relabelled[0]}")
    if moved:
        notes.append(f"listed for two splits, of which the second is taken: {len(moved)}, e.g. {moved[0]}")
    return [row for row in rows if first[compose(row.path)] is row], notes


def hold_out(rows: list[Video], seed: int) -> tuple[list[Video], str]:
    """Moves whole sources of the training list to validation, 5 % of its videos; and what to say of it."""
    held_out = _hold_out_sources([row for row in rows if row.split == "train"], seed)
    rows = [
        dataclasses.replace(row, split="val") if row.split == "train" and row.source in held_out else row
        for row in rows
    ]
    count = sum(row.split == "val" for row in rows)
    return rows, f"{count} of the training list's videos, whole sources, are for validation (seed {seed})"


def _hold_out_sources(rows: list[Video], seed: int) -> set[str]:
    """Whole sources of a training list that make up 5 % of it, drawn by seed; few classes get a second one.

    The list decides, not which files are there: with a part of a data set the split is the same.
    """
    sources = collections.defaultdict(list)
    for row in rows:
        sources[row.source].append(row)
    names = sorted(sources)
    turns = []  # (how many sources of the same class came before, name)
    seen = collections.Counter()
    for i in np.random.default_rng(seed).permutation(len(names)):
        label = sources[names[i]][0].label
        turns.append((seen[label], names[i]))
        seen[label] += 1
    turns.sort(key=lambda turn: turn[0])  # Stable: the draw decides among equals.

    room = round(_VALIDATION * len(rows))
    held_out = set()
    for _, name in turns:
        if len(sources[name]) <= room:
            held_out.add(name)
            room -= len(sources[name])
    return held_out


def _compare_classes(videos: pathlib.Path, rows: list[Video], classes: tuple[str, ...]) -> list[str]:
    """The classes that lie only in train/, as notes; those that are not in it are an error."""
    names = collections.defaultdict(set)
    for row in rows:
        names[row.split].add(classes[row.label])
    if "train" not in names:
        return []
    for split in names.keys() - {"train"}:
        unknown = sorted(names[split] - names["train"])
        if unknown:
            only = sorted(names["train"] - names[split])
            raise UserError(
                f"{len(unknown)} class folders in {videos} have videos for {split} and none in train/: "
                f"{_some(unknown)}; expected the folders of train/, of which these are not for {split}: "
                f"{_some(only) or '(none)'}"
            )
    return [
        f"classes in train/ that have no videos for {split}: {_some(sorted(names['train'] - names[split]))}"
        for split in ("val", "test")
        if split in names and names["train"] - names[split]
    ]


def _some(names: Sequence[str]) -> str:
    """At most ten of them."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _split_by_fraction(rows: list[Video], fraction: float, seed: int, splits: tuple[str, ...]) -> list[Video]:
    """Moves a fraction of every class's training videos into each of `splits`."""
    by_class = collections.defaultdict(list)
    for i, row in enumerate(rows):
        if row.split == "train":
            by_class[row.label].append(i)
    rows = list(rows)
    for label, members in by_class.items():
        count = min(max(1, round(fraction * len(members))), (len(members) - 1) // len(splits))
        order = np.random.default_rng([seed, label or 0]).permutation(members)  # a label of None: all are one class
        for part, split in enumerate(splits):
            for i in order[part * count : (part + 1) * count]:
                rows[i] = dataclasses.replace(rows[i], split=split)
    return rows


def _split_by_group(rows: list[Video], pattern: str, test: tuple[str, ...], val: tuple[str, ...]) -> list[Video]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--group={pattern!r} is not a regular expression: {error}") from error
    if expression.groups < 1:
        raise UserError(f"--group={pattern!r} has no group in parentheses, as in '^([a-z]+)_'")
    matches = [expression.search(pathlib.PurePosixPath(row.path).name) for row in rows]
    unmatched = [row.path for row, match in zip(rows, matches, strict=True) if match is None or match[1] is None]
    if unmatched:
        raise UserError(f"--group={pattern!r} finds nothing in the names of {len(unmatched)} videos: {unmatched[:5]}")

    groups = sorted({match[1] for match in matches}, key=_natural)
    unknown = [name for name in (*test, *val) if name not in groups]
    if unknown or not test or set(test) & set(val):
        raise UserError(
            f"--test_groups={','.join(test)} --val_groups={','.join(val)}: expected at least one group for test and "
            f"none for both; --group={pattern!r} finds {', '.join(groups)}"
        )
    split = dict.fromkeys(test, "test") | dict.fromkeys(val, "val")
    return [
        dataclasses.replace(row, split=split.get(match[1], "train"), source=match[1])
        for row, match in zip(rows, matches, strict=True)
    ]


class Found(NamedTuple):
    """What is below a folder."""

    videos: list[str]  # Relative to it, in natural order.
    ignored: collections.Counter  # How many other files there are, by extension; of what is no file, by path\0reason.
    faults: dict[str, str]  # Of the videos that are no file: why not.


def find_videos(root: pathlib.Path) -> Found:
    """All videos below root.

    A video is a file with a video's extension, or a folder of numbered pictures without such files or other folders.
    Symbolic links are followed, each folder once. Hidden files and folders are not looked at.

    Raises:
      UserError: a folder cannot be listed, so that its videos would be missed.
    """
    _check_folder(root)
    found = Found([], collections.Counter(), {})
    _walk(os.fspath(root), "", found, set())
    return found


def fault(path: str | os.PathLike) -> str | None:
    """Why what a path names is neither a file nor a folder, such as MISSING; None where it is one."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return MISSING if isinstance(error, FileNotFoundError) else _reason(error)
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else _NO_FILE


_FILE, _FOLDER = "file", "folder"
_NO_FILE = "not a file: a pipe, a socket or a device"


def _reason(error: OSError) -> str:
    """Why an entry of a folder cannot be used."""
    if error.errno == errno.ELOOP:
        return "not a file: a symbolic link that leads in a circle"
    return f"cannot be read ({error.strerror or error})"


def _walk(folder: str, inside: str, found: Found, visited: set[tuple]) -> None:
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            return
        visited.add((status.st_dev, status.st_ino))
        entries = sorted(_entries(folder), key=lambda entry: _natural(entry[0]))
    except FileNotFoundError as error:
        if not inside:
            raise _cannot_list(folder, error) from error
        found.ignored["removed meanwhile"] += 1
        return
    except OSError as error:
        raise _cannot_list(folder, error) from error

    extensions = [None if kind == _FOLDER else os.path.splitext(name)[1].lower() for name, kind in entries]
    if inside and None not in extensions and EXTENSIONS.isdisjoint(extensions):
        if pictures.is_video(name for name, _ in entries):
            found.videos.append(inside)
            return
    for (name, kind), extension in zip(entries, extensions, strict=True):
        path = f"{inside}/{name}" if inside else name
        if kind == _FOLDER:
            _walk(f"{folder}/{name}", path, found, visited)
        elif extension in EXTENSIONS:
            found.videos.append(path)
            if kind != _FILE:
                found.faults[path] = kind
        else:
            found.ignored[(extension or "no extension") if kind == _FILE else f"{path}\0{kind}"] += 1


def _entries(folder: str) -> list[tuple[str, str]]:
    """(name, _FILE, _FOLDER or why it is neither) of what is in a folder, without what is hidden or the system's."""
    with os.scandir(folder) as entries:
        return [
            (entry.name, _kind(folder, entry))
            for entry in entries
            if not entry.name.startswith(".") and entry.name not in _SYSTEM
        ]


def _kind(folder: str, entry: os.DirEntry) -> str:
    """One bad entry is one fault: what else is in the folder counts."""
    try:
        if entry.is_dir():
            return _FOLDER
        if entry.is_file():
            return _FILE
        return "not a file: a symbolic link to nothing" if entry.is_symlink() else _NO_FILE
    except OSError as error:
        if error.errno != errno.ELOOP and not os.path.splitext(entry.name)[1]:  # A folder, as far as can be told.
            raise _cannot_list(f"{folder}/{entry.name}", error) from error
        return _reason(error)


def _cannot_list(folder: str, error: OSError) -> UserError:
    return UserError(
        f"cannot list the folder {folder} ({error.strerror or error}), so that its videos would be missed: make it "
        "readable, mount it again or move it elsewhere, and run the same command again"
    )


def _folders(path: pathlib.Path) -> list[str]:
    """The sorted names of the folders in one."""
    try:
        return sorted(name for name, kind in _entries(os.fspath(path)) if kind == _FOLDER)
    except OSError as error:
        raise _cannot_list(os.fspath(path), error) from error


def read_text(path: pathlib.Path) -> str:
    """A text file as people have it: UTF-8 or UTF-16, with or without byte order mark, lines ended in any way."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})") from error
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        # Names of files need not be valid Unicode: surrogateescape carries any bytes through.
        text = data.decode("utf-16") if wide else data.decode("utf-8-sig", errors="surrogateescape")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} begins as UTF-16 text and is none ({error.reason}); save it as UTF-8") from error
    if "\0" in text:
        raise UserError(f"{path} is no text: it has zero bytes; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: pathlib.Path) -> list[tuple[int, str]]:
    """The lines that say something, with their numbers, without blanks at the ends."""
    return [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]


def read_classes(path: pathlib.Path) -> tuple[str, ...]:
    """Class names in the order of their labels: one a line, or with their indices as `name,index` or `index name`.

    Raises:
      UserError: the file cannot be read, names none or one twice, or its indices do not follow each other from 0 or 1.
    """
    lines = read_lines(path)
    if not lines:
        raise UserError(f"{path} names no class; expected one name a line")
    names = [_unquote(line) for _, line in lines]
    for pattern in (r"(?P<index>[0-9]+)[\s,]+(?P<name>.+)", r"(?P<name>.+?)[\s,]+(?P<index>[0-9]+)"):
        matches = [re.fullmatch(pattern, line) for _, line in lines]
        if not all(matches):
            continue
        indices = [int(match["index"]) for match in matches]
        if sorted(indices) in ([*range(len(lines))], [*range(1, len(lines) + 1)]):
            order = np.argsort(indices)
            lines = [lines[i] for i in order]
            names = [_unquote(matches[i]["name"]) for i in order]
            break
        if pattern.startswith("(?P<index>") or all("," in line for _, line in lines):
            number, line = next(
                line
                for line, index in zip(lines, indices, strict=True)
                if indices.count(index) > 1 or index >= len(lines)
            )
            raise UserError(f"{path}:{number}: expected indices from 0 to {len(lines) - 1}, each once, got {line!r}")
    seen = set()
    for (number, line), name in zip(lines, names, strict=True):
        if name in seen:
            raise UserError(f"{path}:{number}: the class {name!r} is named twice, got {line!r}")
        seen.add(name)
    return tuple(names)


def _unquote(text: str) -> str:
    """A name without the blanks and quotes around it, composed."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].replace(2 * text[0], text[0]).strip()
    return compose(text)


def compose(text: str) -> str:
    """One spelling of letters with accents: a name as macOS stores it, decomposed, equals the one in a list."""
    return unicodedata.normalize("NFC", text)


def fold(text: str) -> str:
    """A spelling that is equal for names that differ in case only."""
    return compose(text).casefold()


def _without_extension(path: str) -> str:
    """A path without a video's extension; the name of a folder of pictures may have dots and is whole."""
    base, extension = posixpath.splitext(path)
    return base if extension.lower() in EXTENSIONS else path


def stem(path: str) -> str:
    """The last part of a path, without a video's extension."""
    return posixpath.basename(_without_extension(path))


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 0.5:
        raise UserError(f"the fraction for test, and again for validation, must be between 0 and 0.5, got {fraction}")


def _check_folder(path: pathlib.Path) -> None:
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; --videos names the folder with the videos")


def ignored_note(ignored: collections.Counter) -> list[str]:
    """What is said of what is no video: how many files there are of each extension, and which entries are no files."""
    if not ignored:
        return []
    counts, strange = collections.Counter(), []
    for key, count in ignored.items():
        path, _, kind = key.rpartition("\0")
        counts[kind.split(":")[0]] += count
        strange += [f"{path} ({kind})"] if path else []
    kinds = ", ".join(f"{kind} {count}" for kind, count in counts.most_common(5))
    notes = [f"ignored, as no videos: {ignored.total()} files ({kinds})"]
    if strange:
        notes.append(f"warning: were these folders, their videos are missed: {_some(strange)}")
    return notes


def _natural(name: str) -> tuple:
    """A sort key that puts clip 2 before clip 10."""
    return [int(part) if part.isdecimal() else part.casefold() for part in re.split(r"(\d+)", name)], name
