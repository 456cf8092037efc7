"""Data sets as they lie on disk: which videos there should be, their labels and their splits.

A source is a function from a folder of videos (and, where a data set has them, its official lists) to a `Listing`; it
opens no video. Its keyword arguments are the flags of `python -m jax_video.prepare` that apply to it.
"""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from jax_video.data.manifest import MISSING, Video
from jax_video.errors import UserError

EXTENSIONS = frozenset(
    ".3gp .asf .avi .divx .f4v .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)
_SPLIT_FOLDERS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_VALIDATION = 0.05  # Of the training videos, where a data set has no validation list.


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a source says: `videos` not yet opened (frames 0; error None where there is a file, MISSING where not)."""

    name: str
    classes: tuple[str, ...]
    root: pathlib.Path
    videos: tuple[Video, ...]
    notes: tuple[str, ...]  # What the user should know: what was ignored, how a split was made.


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
      UserError: no class folders with videos in them, or a rule that does not fit them.
    """
    _check_folder(videos)
    _check_fraction(fraction)
    found, ignored = find_videos(videos)
    folders = sorted(path.name for path in videos.iterdir() if path.is_dir() and not path.name.startswith("."))
    with_splits = bool(folders) and all(name.lower() in _SPLIT_FOLDERS for name in folders)
    depth = 2 if with_splits else 1  # Of the files in a class folder.
    inside = [path for path in found if len(path.parts) > depth]
    if not inside:
        raise UserError(
            f"no videos in class folders in {videos}: found {len(found)} video files elsewhere, folders "
            f"{folders[:5]}; expected {videos}/<class>/<video>, or train/, val/ and test/ with such folders in them"
        )
    classes = tuple(sorted({path.parts[depth - 1] for path in inside}))
    label = {name: i for i, name in enumerate(classes)}
    rows = [Video(p.as_posix(), label[p.parts[depth - 1]], "train", 0, 0.0, 0, 0, None, p.stem) for p in inside]

    notes = _ignored_note(ignored)
    if len(inside) < len(found):
        notes.append(f"ignored, as outside of class folders: {len(found) - len(inside)} videos")
    parents = [videos / name for name in folders] if with_splits else [videos]
    known = {path.name for parent in parents for path in parent.iterdir() if path.is_dir()}
    empty = sorted(name for name in known - set(classes) if not name.startswith("."))
    if empty:
        notes.append(f"warning: no videos in these class folders, which make no class: {', '.join(empty)}")

    if with_splits and group is not None:
        raise UserError(f"{videos} is split by its folders {', '.join(folders)}: leave out --group")
    if with_splits:
        rows = [dataclasses.replace(row, split=_SPLIT_FOLDERS[row.path.split("/")[0].lower()]) for row in rows]
        present = {row.split for row in rows}
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
    found, ignored = find_videos(videos)
    if not found:
        raise UserError(f"no videos in {videos}: looked for {' '.join(sorted(EXTENSIONS))} in it and below")
    rows = [Video(path.as_posix(), None, "train", 0, 0.0, 0, 0, None, path.stem) for path in found]
    rows = _split_by_fraction(rows, fraction, seed, ("test", "val"))
    notes = [*_ignored_note(ignored), f"{fraction:.0%} is for test and as much for validation (seed {seed})"]
    return Listing(videos.absolute().name, (), videos, tuple(rows), tuple(notes))


def ucf101(videos: pathlib.Path, *, annotations: pathlib.Path | None = None, split: int = 1, seed: int = 0) -> Listing:
    """UCF101 by its official lists (classInd.txt, trainlist0N.txt, testlist0N.txt in ucfTrainTestlist).

    Validation videos are whole groups (gXX in the name: one original video) of the training list. The files may lie in
    class folders or all together, and may have been converted to another format: their stems count.
    """
    lists = _find_lists(videos, annotations, "ucfTrainTestlist", "classInd.txt", split)
    classes = tuple(line.split()[-1] for _, line in _lines(lists / "classInd.txt"))  # "37 HandstandPushups"
    if len(set(classes)) != 101:
        raise UserError(f"{lists / 'classInd.txt'} names {len(set(classes))} classes, expected 101")
    label = {name: i for i, name in enumerate(classes)}

    rows = []
    for part in ("train", "test"):
        path = lists / f"{part}list{split:02d}.txt"
        for number, line in _lines(path):
            name = line.split()[0]  # Class/v_Class_g08_c01.avi, and the class's number in a training list.
            class_name, _, file = name.partition("/")
            if class_name not in label or not file:
                raise UserError(f"{path}:{number}: expected <class of classInd.txt>/<file>, got {line!r}")
            group = re.sub(r"_c\d+$", "", pathlib.PurePosixPath(file).stem)
            rows.append(Video(name, label[class_name], part, 0, 0.0, 0, 0, MISSING, group))
    return _official("ucf101", split, classes, videos, rows, seed, [])


def hmdb51(videos: pathlib.Path, *, annotations: pathlib.Path | None = None, split: int = 1, seed: int = 0) -> Listing:
    """HMDB51 by its official lists (<class>_test_splitN.txt in testTrainMulti_7030_splits; 0 there means not used).

    Validation videos are whole sources (what stands before the class in the name: a film or an Internet video) of the
    training list. The files may lie in class folders or all together; their stems count.
    """
    lists = _find_lists(videos, annotations, "testTrainMulti_7030_splits", f"wave_test_split{split}.txt", split)
    paths = sorted(lists.glob(f"*_test_split{split}.txt"))
    classes = tuple(path.name.removesuffix(f"_test_split{split}.txt") for path in paths)
    if len(classes) != 51:
        raise UserError(f"{lists} has {len(classes)} lists *_test_split{split}.txt, expected 51, one for each class")

    rows = []
    unused = 0
    for label, (class_name, path) in enumerate(zip(classes, paths, strict=True)):
        for number, line in _lines(path):
            file, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2"):
                raise UserError(f"{path}:{number}: expected <file> and 0, 1 or 2, got {line!r}")
            if use == "0":
                unused += 1
                continue
            # <source>_<class>_<body part>_<camera motion>_np<people>_<view>_<quality>_<number>
            source = re.sub(rf"_{class_name}_[a-z]_[a-z]+_np\d+_[a-z]+_[a-z]+_\d+$", "", pathlib.PurePath(file).stem)
            part = "train" if use == "1" else "test"
            rows.append(Video(f"{class_name}/{file.strip()}", label, part, 0, 0.0, 0, 0, MISSING, source))
    return _official(
        "hmdb51",
        split,
        classes,
        videos,
        rows,
        seed,
        [f"not used in split {split}: {unused} of the videos in the lists"],
    )


SOURCES = {"folder": folder, "unlabelled": unlabelled, "ucf101": ucf101, "hmdb51": hmdb51}


def _official(
    name: str,
    split: int,
    classes: tuple[str, ...],
    root: pathlib.Path,
    rows: list[Video],
    seed: int,
    notes: list[str],
) -> Listing:
    """Finds the files of official lists and takes validation videos out of the training list."""
    found, ignored = find_videos(root)
    by_stem = collections.defaultdict(list)
    for path in found:
        by_stem[path.stem.casefold()].append(path)

    placed = []
    for row in rows:
        listed = pathlib.PurePosixPath(row.path)
        candidates = by_stem.pop(listed.stem.casefold(), [])
        if candidates:
            path = next((path for path in candidates if path.parent.name == listed.parent.name), candidates[0])
            row = dataclasses.replace(row, path=path.as_posix(), error=None)
        placed.append(row)
    held_out = _hold_out_sources([row for row in rows if row.split == "train"], seed)
    placed = [dataclasses.replace(r, split="val") if r.split == "train" and r.source in held_out else r for r in placed]

    count = sum(row.split == "val" for row in placed)
    notes = [
        f"{count} of the training list's videos, whole sources, are for validation (seed {seed})",
        *notes,
        *_ignored_note(ignored),
    ]
    if by_stem:
        notes.append(f"ignored, as in no list of split {split}: {len(by_stem)} of the videos in {root}")
    return Listing(f"{name}-split{split}", classes, root, tuple(placed), tuple(notes))


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


def find_videos(root: pathlib.Path) -> tuple[list[pathlib.Path], collections.Counter]:
    """All video files below root, relative to it, in natural order; and how many others there are, by extension.

    Symbolic links are followed, each folder once. Hidden files and folders are not looked at.
    """
    _check_folder(root)
    found, ignored, visited = [], collections.Counter(), set()
    for where, folders, files in os.walk(root, followlinks=True):
        if os.path.realpath(where) in visited:
            folders.clear()
            continue
        visited.add(os.path.realpath(where))
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=_natural)
        for name in files:
            extension = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if extension in EXTENSIONS:
                found.append(pathlib.Path(where, name).relative_to(root))
            else:
                ignored[extension or "no extension"] += 1
    return sorted(found, key=lambda path: [_natural(part) for part in path.parts]), ignored


def _find_lists(
    videos: pathlib.Path, annotations: pathlib.Path | None, folder_name: str, file: str, split: int
) -> pathlib.Path:
    if split not in (1, 2, 3):
        raise UserError(f"there are official splits 1, 2 and 3, got --split={split}")
    places = [videos, videos.absolute().parent] if annotations is None else [annotations]
    for place in places:
        for path in (place / folder_name, place):
            if (path / file).is_file():
                return path
    raise UserError(
        f"no official lists ({folder_name}/{file}) in {' or '.join(map(str, places))}; "
        f"say where they are with --annotations=DIR/{folder_name}"
    )


def _lines(path: pathlib.Path) -> list[tuple[int, str]]:
    """The lines of a list that say something, with their numbers, without blanks and carriage returns at the ends."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})") from error
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 0.5:
        raise UserError(f"the fraction for test, and again for validation, must be between 0 and 0.5, got {fraction}")


def _check_folder(path: pathlib.Path) -> None:
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; --videos names the folder with the videos")


def _ignored_note(ignored: collections.Counter) -> list[str]:
    if not ignored:
        return []
    kinds = ", ".join(f"{extension} {count}" for extension, count in ignored.most_common(5))
    return [f"ignored, as without a video's extension: {ignored.total()} files ({kinds})"]


def _natural(name: str) -> tuple:
    """A sort key that puts clip 2 before clip 10."""
    return [int(part) if part.isdecimal() else part.casefold() for part in re.split(r"(\d+)", name)], name
