"""The files of official lists, wherever they lie: what UCF101, HMDB51, Kinetics and Moments in Time share.

The lists decide which videos there are. Their files are found by name anywhere below the folder: in class folders or
not, in folders of the splits or not, converted to another format, or as folders of pictures.
"""

import collections
import itertools
import re
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from jax_video.data import remote
from jax_video.data.manifest import Video
from jax_video.data.sources import finding, listing, splits, text
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError


class Cut(NamedTuple):
    """The part of a longer video that a row of a list stands for."""

    whole: str  # name of that video's file, without its extension
    start: float  # seconds
    end: float


def place(
    name: str,
    classes: tuple[str, ...],
    root: remote.Path,
    rows: list[Video],
    seed: int,
    notes: list[str],
    cuts: Mapping[str, Cut] | None = None,
) -> Listing:
    """Find the files of official lists, and take validation videos out of the training list. Raises UserError.

    Args:
      rows: their paths end in the names of their files.
      cuts: path of a row -> the part of a longer video that it is. Its file may be the whole video, which several rows
        may share, or a part whose name has the times in another form.
    """
    rows, repeated = listing.once(rows)
    notes = [*notes, *repeated]
    if {row.split for row in rows} & {"train", "val"} == {"train"}:
        # The list decides, not which files are there: with a part of a data set the split is the same.
        rows, note = listing.hold_out(rows, seed)
        notes.insert(0, note)
    else:
        listing.check_none_drawn({"seed": seed or None}, "the lists say for which split each video is")
    there = finding.find_videos(root)
    found, faults = there.videos, there.faults
    fit = _fits(root, rows, classes, faults)
    stems = [finding.stem(row.path) for row in rows]
    files = _match([text.fold(stem) for stem in stems], stems, found, _stem_key, fit, {})
    if cuts:
        parts = [cuts[row.path] for row in rows]
        ids = [part.whole for part in parts]
        with_end: list[Hashable] = [(text.fold(part.whole), int(part.start), int(part.end)) for part in parts]
        files |= _match(with_end, ids, found, _times_key, fit, files)
        with_start: list[Hashable] = [(text.fold(part.whole), int(part.start)) for part in parts]
        files |= _match(with_start, ids, found, _start_key, fit, files)
        whole = _match_whole(ids, found, fit, files)
        rows = [replace(row, span=cuts[row.path][1:]) if i in whole else row for i, row in enumerate(rows)]
        if whole:
            notes.append(f"parts of whole videos: {len(whole)}, of {len(set(whole.values()))} files")
        files |= whole
    rows = [
        replace(row, path=files[i], error=faults.get(files[i])) if i in files else row for i, row in enumerate(rows)
    ]
    listing.check_found(name, root, rows, found)
    notes.extend(finding.ignored_note(there))
    replaced = [row.path for row in rows if _is_replacement(row.path.split("/")[:-1])]
    if replaced:
        notes.append(f"taken from folders of replacements, before files elsewhere: {len(replaced)}, e.g. {replaced[0]}")
    unused = len(found) - len(set(files.values()))
    if unused:
        notes.append(f"ignored, as in no list of {name} or there twice: {unused} of the videos in {root}")
    return Listing(name, classes, root, tuple(rows), tuple(notes))


_Fit = Callable[[int, str, str], tuple[bool, ...]]  # from the index of a row, what its name begins with, and a path


def _fits(root: remote.Path, rows: Sequence[Video], classes: tuple[str, ...], faults: Collection[str]) -> _Fit:
    """The function for how well a file fits a row: it gives what to compare by, the most important first."""

    def fit(index: int, name: str, path: str) -> tuple[bool, ...]:
        row = rows[index]
        *folders, _ = (text.fold(part).replace(" ", "_") for part in path.split("/"))
        of = {splits.of(folder) for folder in folders}
        in_class = isinstance(row.label, int) and text.fold(classes[row.label]).replace(" ", "_") in folders
        # The official validation list is for test, and some training videos are for validation.
        in_split = bool(of & ({"train"} if row.split != "test" else {"val", "test"}))
        exact = finding.stem(text.compose(path)).startswith(text.compose(name))
        return exact, path not in faults and finding.size(root / path) > 0, _is_replacement(folders), in_class, in_split

    return fit


def _is_replacement(folders: Sequence[str]) -> bool:
    """Whether a file lies in a folder with replacements for damaged files, as Kinetics' host has them."""
    return any(folder.casefold().startswith("replacement") for folder in folders)


_TIME = r"_([0-9]{1,9})(?:\.[0-9]+)?"


def _stem_key(stem: str) -> Hashable:
    return text.fold(stem)


def _times_key(stem: str) -> Hashable | None:
    """(id, start, end) of <id>_<start>_<end>, with or without zeros before the numbers."""
    match = re.fullmatch(rf"(.+){_TIME}{_TIME}", stem)
    return match and (text.fold(match[1]), int(match[2]), int(match[3]))


def _start_key(stem: str) -> Hashable | None:
    """(id, start) of <id>_<start>."""
    match = re.fullmatch(rf"(.+){_TIME}", stem)
    return match and (text.fold(match[1]), int(match[2]))


def _match(
    keys: Sequence[Hashable],
    names: Sequence[str],
    found: Sequence[str],
    key_of: Callable[[str], Hashable | None],
    fit: _Fit,
    matched: Mapping[int, str],
) -> dict[int, str]:
    """Find the file of each row by the key of its stem: index of the row -> path; no file twice.

    If a key has several files or rows, the best fit counts. Rows and files that are `matched` already take no part.

    Args:
      keys: of the rows.
      names: what the rows' files are called, or begin with, to the letter.
    """
    files = _by_key(found, key_of, matched)
    waiting = collections.defaultdict(list)
    for i, key in enumerate(keys):
        if i not in matched and key in files:
            waiting[key].append(i)
    result = {}
    for key, indices in waiting.items():
        pairs = list(itertools.product(indices, files[key]))
        if len(pairs) > 1:
            pairs.sort(key=lambda pair: fit(pair[0], names[pair[0]], pair[1]), reverse=True)
        used = set()
        for i, path in pairs:
            if i not in result and path not in used:
                result[i] = path
                used.add(path)
    return result


def _match_whole(ids: Sequence[str], found: Sequence[str], fit: _Fit, matched: Mapping[int, str]) -> dict[int, str]:
    """Find the whole videos of the rows that have no file of their own: index of the row -> path; several rows may
    share one. A name that differs in case will do, unless it is that of another row's video."""
    files = _by_key(found, _stem_key, matched)
    waiting = [i for i in range(len(ids)) if i not in matched]
    exact = {ids[i] for i in waiting}
    result = {}
    for i in waiting:
        paths = [
            path
            for path in files.get(text.fold(ids[i]), ())
            if finding.stem(path) == ids[i] or finding.stem(path) not in exact
        ]
        if paths:
            result[i] = max(paths, key=lambda path: fit(i, ids[i], path))
    return result


def _by_key(
    found: Sequence[str], key_of: Callable[[str], Hashable | None], matched: Mapping[int, str]
) -> dict[Hashable, list[str]]:
    """The videos that are not matched yet, by the key of their stems."""
    taken = set(matched.values())
    files = collections.defaultdict(list)
    for path in found:
        if path not in taken and (key := key_of(finding.stem(path))) is not None:
            files[key].append(path)
    return files


def check_split(split: int) -> None:
    if split not in (1, 2, 3):
        raise UserError(f"there are official splits 1, 2 and 3, got --split={split}")


def find_folder(videos: remote.Path, annotations: remote.Path | None, folder_name: str, *files: str) -> remote.Path:
    """The folder with one of these files: `annotations`, the videos' folder or its parent, or `folder_name` there."""
    places = [videos, remote.absolute(videos).parent] if annotations is None else [annotations]
    for place in places:
        for path in (place / folder_name, place):
            with remote.reaching(path):
                if any((path / file).is_file() for file in files):
                    return path
    raise UserError(
        f"no official lists ({folder_name}/{files[0]}) in {' or '.join(map(str, places))}; "
        f"say where they are with --annotations=DIR/{folder_name}"
    )
