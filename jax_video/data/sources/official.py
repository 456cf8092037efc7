"""The files of official lists, wherever they lie: what UCF101, HMDB51, Kinetics and Moments in Time share.

The lists decide which videos there are. Their files are found by name anywhere below the folder: in class folders or
not, in folders of the splits or not, converted to another format, or as folders of pictures.
"""

import collections
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from jax_video.data.manifest import Video
from jax_video.data.sources import finding, listing, text
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError


def place(
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
    rows, repeated = listing.once(rows)
    notes = [*notes, *repeated]
    if any(row.split == "train" for row in rows):
        # The list decides, not which files are there: with a part of a data set the split is the same.
        rows, note = listing.hold_out(rows, seed)
        notes.insert(0, note)
    there = finding.find_videos(root)
    found, faults = there.videos, there.faults
    files = _match(rows, [finding.stem(row.path) for row in rows], found, classes)
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
    listing.check_found(name, root, rows, found)
    notes.extend(finding.ignored_note(there))
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
    """Finds the file of each row by its stem: index of the row -> path; no file twice.

    Where a stem has several files or rows, the best fit counts: in the class's folder, in one of the split, of the same
    name to the letter. What is `matched` already takes no part.
    """
    matched = matched or {}
    taken = set(matched.values())
    files = collections.defaultdict(list)
    for path in found:
        if path not in taken:
            files[text.fold(finding.stem(path))].append(path)
    waiting = collections.defaultdict(list)
    for i, name in enumerate(stems):
        if i not in matched and (key := text.fold(name)) in files:
            waiting[key].append(i)

    def fit(pair: tuple[int, str]) -> tuple[bool, bool, bool]:
        row = rows[pair[0]]
        *folders, name = (text.fold(part).replace(" ", "_") for part in pair[1].split("/"))
        splits = {listing.SPLIT_FOLDERS[folder] for folder in folders if folder in listing.SPLIT_FOLDERS}
        in_class = row.label is not None and text.fold(classes[row.label]).replace(" ", "_") in folders
        # The official validation list is for test, and some training videos are for validation.
        in_split = bool(splits & ({"train"} if row.split != "test" else {"val", "test"}))
        exact = finding.stem(text.compose(pair[1])) == text.compose(stems[pair[0]])
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


def check_split(split: int) -> None:
    if split not in (1, 2, 3):
        raise UserError(f"there are official splits 1, 2 and 3, got --split={split}")


def find_folder(videos: pathlib.Path, annotations: pathlib.Path | None, folder_name: str, file: str) -> pathlib.Path:
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
