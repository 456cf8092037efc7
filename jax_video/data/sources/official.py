"""The data sets with official lists: UCF101, HMDB51, Kinetics and Moments in Time; and `SOURCES`, the table of all.

The lists decide which videos there are, and their files are found by name wherever they lie below the folder: in class
folders or not, in folders of the splits or not, converted to another format, or as folders of pictures. What all
sources share, and the sources without official lists, is in `sources`.
"""

import collections
import csv
import functools
import io
import itertools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from jax_video.data import sources
from jax_video.data.manifest import MISSING, Video
from jax_video.data.sources import Listing
from jax_video.errors import UserError


def ucf101(videos: pathlib.Path, *, annotations: pathlib.Path | None = None, split: int = 1, seed: int = 0) -> Listing:
    """UCF101 by its official lists (classInd.txt, trainlist0N.txt, testlist0N.txt in ucfTrainTestlist).

    Validation videos are whole groups (gXX in the name: one original video) of the training list.
    """
    _check_split(split)
    lists = _find_folder(videos, annotations, "ucfTrainTestlist", "classInd.txt")
    classes = sources.read_classes(lists / "classInd.txt")  # "37 HandstandPushups"
    if len(classes) != 101:
        raise UserError(f"{lists / 'classInd.txt'} names {len(classes)} classes, expected 101")
    label = {name: i for i, name in enumerate(classes)}

    rows = []
    for part in ("train", "test"):
        path = lists / f"{part}list{split:02d}.txt"
        for number, line in sources.read_lines(path):
            name = line.split()[0]  # Class/v_Class_g08_c01.avi, and the class's number in a training list.
            class_name, _, file = name.partition("/")
            if class_name not in label or not file:
                raise UserError(f"{path}:{number}: expected <class of classInd.txt>/<file>, got {line!r}")
            group = re.sub(r"_c\d+$", "", sources.stem(file))
            rows.append(sources.unopened(name, label[class_name], part, group, MISSING))
    return _place(f"ucf101-split{split}", classes, videos, rows, seed, [])


def hmdb51(videos: pathlib.Path, *, annotations: pathlib.Path | None = None, split: int = 1, seed: int = 0) -> Listing:
    """HMDB51 by its official lists (<class>_test_splitN.txt in testTrainMulti_7030_splits; 0 there means not used).

    Validation videos are whole sources (what stands before the class in the name: a film or an Internet video) of the
    training list.
    """
    _check_split(split)
    lists = _find_folder(videos, annotations, "testTrainMulti_7030_splits", f"wave_test_split{split}.txt")
    paths = sorted(lists.glob(f"*_test_split{split}.txt"))
    classes = tuple(path.name.removesuffix(f"_test_split{split}.txt") for path in paths)
    if len(classes) != 51:
        raise UserError(f"{lists} has {len(classes)} lists *_test_split{split}.txt, expected 51, one for each class")

    rows = []
    unused = 0
    for label, (class_name, path) in enumerate(zip(classes, paths, strict=True)):
        for number, line in sources.read_lines(path):
            file, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2"):
                raise UserError(f"{path}:{number}: expected <file> and 0, 1 or 2, got {line!r}")
            if use == "0":
                unused += 1
                continue
            # <source>_<class>_<body part>_<camera motion>_np<people>_<view>_<quality>_<number>
            source = re.sub(rf"_{class_name}_[a-z]_[a-z]+_np\d+_[a-z]+_[a-z]+_\d+$", "", sources.stem(file.strip()))
            part = "train" if use == "1" else "test"
            rows.append(sources.unopened(f"{class_name}/{file.strip()}", label, part, source, MISSING))
    notes = [f"not used in split {split}: {unused} of the videos in the lists"]
    return _place(f"hmdb51-split{split}", classes, videos, rows, seed, notes)


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


def kinetics(name: str, videos: pathlib.Path, *, annotations: pathlib.Path | None = None, seed: int = 0) -> Listing:
    """Kinetics by its official lists (train.csv, validate.csv or val.csv, test.csv); `name` is e.g. "kinetics400".

    The papers' results are on the validation list: it is for test here, and of the training list 5 % of the YouTube
    videos, drawn by `seed`, are for validation. The official test list counts only where there is no validation list.

    Files are <id>_<start>_<end>, cut already, or <id>, whole, of which `Video.span` says what counts. One row of the
    lists has one file: where several rows share a whole video, the others must have been cut.

    Classes are in the order of label_map.txt where one lies with the lists, otherwise the sorted names in the lists.

    Args:
      annotations: the folder of the lists, or one list; by default they are looked for beside the videos.

    Raises:
      UserError: no lists, or no video of them; a row that cannot be understood, or whose label is no class.
    """
    lists = _find_kinetics(videos, annotations)
    listed = [row for path, split in lists.items() for row in _read_kinetics(path, split)]
    if not listed:
        raise UserError(f"no videos in {' and '.join(map(str, lists))}: expected rows of {', '.join(_COLUMNS)}")
    listed, notes = _choose_kinetics(listed)
    map_file = next(iter(lists)).parent / "label_map.txt"
    if map_file.is_file():
        classes = sources.read_classes(map_file)
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
        rows.append(sources.unopened(row.file, label, "train" if row.split == "train" else "test", row.id, MISSING))
        cuts[row.file] = row.id, (row.start, row.end)
    return _place(name, classes, videos, rows, seed, notes, cuts)


def _find_kinetics(videos: pathlib.Path, annotations: pathlib.Path | None) -> dict[pathlib.Path, str | None]:
    """The lists, and of which split they are by name."""
    if annotations is not None and annotations.is_file():
        return {annotations: _split_of(annotations)}
    places = [videos, videos.absolute().parent] if annotations is None else [annotations]
    places += [place / "annotations" for place in places]
    for place in places:
        paths = sorted(place.glob("*.[cC][sS][vV]")) if place.is_dir() else []
        lists = {path: split for path in paths if (split := _split_of(path)) is not None}
        repeated = [split for split, count in collections.Counter(lists.values()).items() if count > 1]
        if repeated:
            names = ", ".join(path.name for path, split in lists.items() if split == repeated[0])
            raise UserError(f"{place} has several lists for {repeated[0]}: {names}; give one with --annotations=FILE")
        if lists:
            return dict(sorted(lists.items(), key=lambda item: ("train", "val", "test").index(item[1])))
    raise UserError(
        f"no official lists (train.csv, validate.csv or val.csv, test.csv) in {' or '.join(map(str, places))}; "
        "say where they are with --annotations=DIR or --annotations=FILE"
    )


def _split_of(path: pathlib.Path) -> str | None:
    """train.csv, kinetics_train.csv, kinetics-600_val.csv, ..."""
    return sources.SPLIT_FOLDERS.get(re.split(r"[_\-. ]", path.stem.lower())[-1])


_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")


def _read_kinetics(path: pathlib.Path, split_of_file: str | None) -> Iterator[_Row]:
    table = _read_csv(path)
    number, header = next(table, (1, []))
    header = [name.lower().replace(" ", "_") for name in header]
    needed = {"youtube_id", "time_start", "time_end"} | ({"split"} if split_of_file is None else set())
    if not needed <= set(header):
        raise UserError(
            f"{path}:{number}: expected a header with {', '.join(_COLUMNS)}, found {', '.join(header) or 'nothing'}"
        )
    places = [header.index(name) if name in header else None for name in _COLUMNS]
    for number, cells in table:
        if len(cells) < len(header):
            cells = cells + [""] * (len(header) - len(cells))
        label, name, start, end, split = ("" if place is None else cells[place] for place in places)
        kind = sources.SPLIT_FOLDERS.get(split.lower()) if split else split_of_file
        try:
            start, end = float(start), float(end)
        except ValueError:
            start = end = -1.0
        if not name or "/" in name or kind is None or not 0 <= start < end < 1e6 or (not label and kind != "test"):
            raise UserError(
                f"{path}:{number}: expected {', '.join(header)}, with times in seconds and a split of train, validate "
                f"or test, got {','.join(cells)!r}"
            )
        yield _Row(f"{path}:{number}", label or None, name, start, end, kind)


def _choose_kinetics(rows: list[_Row]) -> tuple[list[_Row], list[str]]:
    """The rows that count, and what to say of the others."""
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


def moments(videos: pathlib.Path, *, annotations: pathlib.Path | None = None, seed: int = 0) -> Listing:
    """Moments in Time by its official lists (moments_categories.txt, trainingSet.csv, validationSet.csv).

    The papers' results are on the validation list: it is for test here, and of the training list 5 %, whole original
    videos drawn by `seed`, are for validation.

    Raises:
      UserError: no lists, or no video of them; a row that cannot be understood, or whose label is no category.
    """
    lists = _find_folder(videos, annotations, "annotations", "moments_categories.txt")
    categories = lists / "moments_categories.txt"
    classes = sources.read_classes(categories)
    label = {name: i for i, name in enumerate(classes)}
    rows, notes = [], []
    for file, split in (("trainingSet.csv", "train"), ("validationSet.csv", "test")):
        path = lists / file
        if not path.is_file():
            notes.append(f"no {path}: nothing is for {split}")
            continue
        for number, cells in _read_csv(path):
            if len(cells) < 2 or not re.fullmatch(r"[^/]+/[^/]+", cells[0]):
                form = "<category>/<file>,<category>,<agree>,<disagree>"
                raise UserError(f"{path}:{number}: expected {form}, got {','.join(cells)!r}")
            if cells[1] not in label:
                raise UserError(
                    f"{path}:{number}: the label {cells[1]!r} is without a class: {categories} has {len(classes)} "
                    "names, and not this one"
                )
            source = re.sub(r"_\d+$", "", sources.stem(cells[0]))  # yt-<id>_<second>: from one video come several.
            rows.append(sources.unopened(cells[0], label[cells[1]], split, source, MISSING))
    if not rows:
        raise UserError(f"no videos in {lists / 'trainingSet.csv'} and validationSet.csv; one of them must be there")
    return _place("moments", classes, videos, rows, seed, notes)


SOURCES = {
    "folder": sources.folder,
    "unlabelled": sources.unlabelled,
    "list": sources.listed,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "kinetics400": functools.partial(kinetics, "kinetics400"),
    "kinetics600": functools.partial(kinetics, "kinetics600"),
    "kinetics700": functools.partial(kinetics, "kinetics700"),
    "moments": moments,
}


def _place(
    name: str,
    classes: tuple[str, ...],
    root: pathlib.Path,
    rows: list[Video],
    seed: int,
    notes: list[str],
    cuts: Mapping[str, tuple[str, tuple[float, float]]] | None = None,
) -> Listing:
    """Finds the files of official lists and takes validation videos out of the training list.

    Args:
      rows: their paths end in the names of their files.
      cuts: path of a row -> (the name of the whole video from which it may be cut, from and to in seconds).
    """
    rows, repeated = sources.once(rows)
    notes = [*notes, *repeated]
    if any(row.split == "train" for row in rows):
        # The list decides, not which files are there: with a part of a data set the split is the same.
        rows, note = sources.hold_out(rows, seed)
        notes.insert(0, note)
    found, ignored, faults = sources.find_videos(root)
    files = _match(rows, [sources.stem(row.path) for row in rows], found, classes)
    if cuts:
        whole = _match(rows, [cuts[row.path][0] for row in rows], found, classes, files)
        rows = [replace(row, span=cuts[row.path][1]) if i in whole else row for i, row in enumerate(rows)]
        taken = {rows[i].source for i in whole}
        shared = sum(row.source in taken for i, row in enumerate(rows) if i not in files and i not in whole)
        if whole:
            notes.append(f"whole videos, of which a part counts: {len(whole)}")
        if shared:
            notes.append(f"missing, as their whole video is another's: {shared}; cut them into <id>_<start>_<end>.mp4")
        files |= whole
    rows = [
        replace(row, path=files[i], error=faults.get(files[i])) if i in files else row for i, row in enumerate(rows)
    ]
    sources.check_found(name, root, rows, found)
    notes.extend(sources.ignored_note(ignored))
    if len(files) < len(found):
        notes.append(
            f"ignored, as in no list of {name} or there twice: {len(found) - len(files)} of the videos in {root}"
        )
    return Listing(name, classes, root, tuple(rows), tuple(notes))


def _match(
    rows: Sequence[Video],
    stems: Sequence[str],
    found: Sequence[str],
    classes: tuple[str, ...],
    matched: Mapping[int, str] | None = None,
) -> dict[int, str]:
    """Which file has which row's stem: index of the row -> path; no file twice.

    Where a stem has several files or rows, the best fit counts: in the class's folder, in one of the split, of the same
    name to the letter. What is `matched` already takes no part.
    """
    matched = matched or {}
    taken = set(matched.values())
    files = collections.defaultdict(list)
    for path in found:
        if path not in taken:
            files[sources.fold(sources.stem(path))].append(path)
    waiting = collections.defaultdict(list)
    for i, name in enumerate(stems):
        if i not in matched and (key := sources.fold(name)) in files:
            waiting[key].append(i)

    def fit(pair: tuple[int, str]) -> tuple[bool, bool, bool]:
        row = rows[pair[0]]
        *folders, name = (sources.fold(part).replace(" ", "_") for part in pair[1].split("/"))
        splits = {sources.SPLIT_FOLDERS[folder] for folder in folders if folder in sources.SPLIT_FOLDERS}
        in_class = row.label is not None and sources.fold(classes[row.label]).replace(" ", "_") in folders
        # The official validation list is for test, and some training videos are for validation.
        in_split = bool(splits & ({"train"} if row.split != "test" else {"val", "test"}))
        exact = sources.stem(sources.compose(pair[1])) == sources.compose(stems[pair[0]])
        return in_class, in_split, exact

    result = {}
    for key, indices in waiting.items():
        pairs = list(itertools.product(indices, files[key]))
        if len(pairs) > 1:
            pairs.sort(key=fit, reverse=True)
        used = set()
        for i, path in pairs:
            if i not in result and path not in used:
                result[i] = path
                used.add(path)
    return result


def _check_split(split: int) -> None:
    if split not in (1, 2, 3):
        raise UserError(f"there are official splits 1, 2 and 3, got --split={split}")


def _find_folder(videos: pathlib.Path, annotations: pathlib.Path | None, folder_name: str, file: str) -> pathlib.Path:
    """The folder with a file of official lists: one of this name, the given one, or that of the videos."""
    places = [videos, videos.absolute().parent] if annotations is None else [annotations]
    for place in places:
        for path in (place / folder_name, place):
            if (path / file).is_file():
                return path
    raise UserError(
        f"no official lists ({folder_name}/{file}) in {' or '.join(map(str, places))}; "
        f"say where they are with --annotations=DIR/{folder_name}"
    )


def _read_csv(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that say something, with their first lines' numbers; cells composed, without blanks around them."""
    text = sources.read_text(path)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)  # Spreadsheets write the other two.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    number = 1
    try:
        for row in reader:
            if any("\n" in cell for cell in row):
                raise UserError(f"{path}:{number}: a quote that is not closed in its line")
            cells = [sources.compose(cell.strip()) for cell in row]
            if any(cells):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{number}: not a table of comma-separated values ({error})") from error
