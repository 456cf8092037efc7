"""List files: a video's path and its label in each line."""

import collections
import dataclasses
import re
from collections.abc import Sequence

from jax_video.data import remote
from jax_video.data.labels import Label
from jax_video.data.manifest import MISSING, Video
from jax_video.data.sources import class_files, finding, listing, text
from jax_video.data.sources.class_files import Classes
from jax_video.data.sources.columns import FEW_FRAMES, Entry, check, number, read
from jax_video.data.sources.listing import Listing
from jax_video.data.sources.places import Places
from jax_video.errors import UserError

_MOST_CLASSES = 100_000  # a larger label is not the number of a class
# From so many videos on, it is an error if more than half of the labels differ and they are large numbers, which may be
# numbers of frames; or if they are names.
_MANY_NUMBERS, _MANY_NAMES = 10, 20


def find(
    videos: remote.Path,
    *,
    train_list: remote.Path | None = None,
    val_list: remote.Path | None = None,
    test_list: remote.Path | None = None,
    class_names: remote.Path | None = None,
    columns: Sequence[str] = (),
    seed: int = 0,
) -> Listing:
    """List files with `path label` in each line, as mmaction2 and SlowFast have them.

    Blanks, tabs or a comma separate the two; either may be quoted. mmaction2's `folder frames label` is understood if
    the folders are there. A header, or `columns`, says what other columns there are. Paths are below `videos`, or end
    or begin as they do below it (lists made for another folder); they may lack their extensions or have others. Labels
    are names or numbers, from 0 or 1, of the classes in `class_names` (see `class_files`) if it is given. Otherwise the
    classes are the numbers from 0 to the largest label, or the sorted names.

    A video that is in several lists is taken for test rather than for validation, and for these rather than for
    training. Without a validation list, 5 % of the training list, drawn by `seed`, are for validation.

    Args:
      columns: what stands in each line, such as ("path", "frames", "label"): all but the path, the label and `split`
        are left out.

    Raises:
      UserError: no list, or none of its videos is there; or, with the line's number: no label, a label without a class,
        more than a path and a label, a path that means several files.
    """
    given = {"train": train_list, "val": val_list, "test": test_list}
    lists = {split: path for split, path in given.items() if path is not None}
    if not lists:
        raise UserError(
            "expected --train_list=FILE, --val_list=FILE or --test_list=FILE, with `path label` in each line"
        )
    check(columns)
    known = Classes(()) if class_names is None else class_files.read(class_names)
    there = finding.find_videos(videos)
    found = there.videos
    places = Places(videos, found)
    entries: list[Entry] = []
    notes, told = [*known.notes], False
    for split, file in lists.items():
        read_now, said, told_now = read(
            file,
            split,
            names=frozenset(known.names),
            is_there=lambda listed: bool(places.candidates(listed)),
            columns=columns,
        )
        entries += read_now
        notes += said
        told |= told_now
    if not entries:
        raise UserError(f"no videos in {' or '.join(map(str, lists.values()))}: expected `path label` in each line")
    classes, labels, said = number_labels(entries, known, class_names, told)
    notes += said

    rows, said = rows_of(entries, labels, places, there)
    notes += said
    listing.check_found("the lists", videos, rows, found)
    if class_names is None and not told:
        _check_lines(entries, rows)
    rows, said = listing.once(rows)
    notes += [*said, *listing.strange_names(rows)]
    if {row.split for row in rows} in ({"train"}, {"train", "test"}):
        rows, note = listing.hold_out(rows, seed)
        notes.append(note)
    else:
        listing.check_none_drawn({"seed": seed or None}, "the lists say for which split each video is")
    notes.extend(f"no --{split}_list" for split in ("train", "test") if split not in lists)
    unlisted = len(found) - sum(row.error != MISSING for row in rows)
    if unlisted:
        notes.append(f"ignored, as in no list: {unlisted} of the videos in {videos}")
    return Listing(remote.absolute(videos).name, classes, videos, tuple(rows), (*notes, *finding.ignored_note(there)))


def rows_of(
    entries: Sequence[Entry], labels: Sequence[Label], places: Places, there: finding.Found
) -> tuple[list[Video], list[str]]:
    """(the rows that entries and their labels make, each with the file that is there, or MISSING; notes on these).

    Entries of the same file have the same source, however they write its path: as the first of them does, so that a
    split that is drawn does not depend on which files are there.
    """
    rows = []
    sources: dict[str, str] = {}
    found, notes = places.find_all(entries, labels)
    for entry, label, place in zip(entries, labels, found, strict=True):
        path = places.relative(entry.path)
        error = MISSING if place is None else there.faults.get(place)
        source = entry.source or sources.setdefault(place or path, finding.without_extension(path))
        row = listing.unopened(place or path, label, entry.split, source, error)
        rows.append(dataclasses.replace(row, span=entry.span))
    return rows, notes


def number_labels(
    entries: list[Entry], known: Classes, file: remote.Path | None, told: bool
) -> tuple[tuple[str, ...], list[int], list[str]]:
    """(the classes, each entry's index into them, what the user should know of it). Raises UserError.

    Unless it was `told` which column the label is, labels that look like something else are an error.

    A label is the name of a class, or its number as in "3". All labels are names if all are among the `known` names. If
    there are no known names, the labels are names unless most of them look like numbers. If some of the known names
    look like numbers, the labels are names if most of them are among the known ones.
    """
    names = known.names
    for entry in entries:
        if not text.is_unicode(entry.label):
            shown = entry.label.encode("utf-8", "surrogateescape")
            raise UserError(f"{entry.where}: the label {shown!r} is no UTF-8: save the file as UTF-8")
    written = [entry.label for entry in entries]
    numbers = [number(label) for label in written]
    numbered = [value for value in numbers if value is not None]
    notes: list[str] = []
    by_name = set(written) <= set(names)
    if any(number(name) is not None for name in names):
        by_name = 2 * sum(label in names for label in written) > len(written)
    if not names:
        by_name = 2 * len(numbered) <= len(written)
    if not names and not told:
        _check_column(entries, numbered, by_name)
    labels: list[str | int] = [
        label if by_name or value is None else value for label, value in zip(written, numbers, strict=True)
    ]
    first = 0
    if names and not by_name and numbered:
        first, note = _first_number(entries, numbers, known, file)
        notes += note
        if len({entry.where for entry in entries}) == len(entries):  # or else a video may have several labels
            notes += _compare_folders(entries, numbers, names, first, file)
    elif not names and not by_name:
        largest = max(numbered)
        if largest >= _MOST_CLASSES:
            where = entries[numbers.index(largest)].where
            raise UserError(f"{where}: the label is {largest}, expected the number of a class below {_MOST_CLASSES}")
        names = tuple(map(str, range(max(largest, 0) + 1)))
        if 0 < min(numbered):
            notes.append(f"no video has the label 0: the classes are 0 to {largest}; --class_names=FILE gives names")
    elif not names:
        names = tuple(sorted({label for label, value in zip(written, numbers, strict=True) if value is None}))
    index: dict[str | int, int] = {name: i for i, name in enumerate(names)}
    index |= {i + first: i for i in range(len(names))}
    for entry, label in zip(entries, labels, strict=True):
        if label not in index:
            expected = f"{first} to {len(names) - 1 + first}" if isinstance(label, int) else text.some(names)
            raise UserError(
                f"{entry.where}: the label {text.short(entry.label)} is without a class; expected one of the "
                f"{len(names)} of {file or 'the lists'}: {expected}"
            )
    return names, [index[label] for label in labels], notes


def _check_lines(entries: list[Entry], rows: Sequence[Video]) -> None:
    """Raise UserError for a line that would make a class but is not about a video, such as a header or a comment.

    Such a line names no video that is there, has no video's extension, and no other line has its label. Besides, most
    lines do have an extension, or it is the first line of a list and most videos are there.
    """
    named = [finding.without_extension(entry.path) != entry.path for entry in entries]
    missing = [row.error == MISSING for row in rows]
    usual = 2 * sum(named) > len(named)
    firsts = {entry.split: i for i, entry in reversed([*enumerate(entries)])}
    counts = collections.Counter(entry.label for entry in entries)
    for i, entry in enumerate(entries):
        unlike = usual or (i == firsts[entry.split] and 2 * sum(missing) < len(missing))
        if missing[i] and not named[i] and unlike and counts[entry.label] == 1 and number(entry.label) is None:
            raise UserError(
                f"{entry.where}: {text.short(entry.path)} is no video, and no other line has the label "
                f"{text.short(entry.label)}: if this is a header or a comment, remove the line or write a header of "
                "words such as path,label; if not, --columns=path,label says so"
            )


def _check_column(entries: list[Entry], numbered: list[int], by_name: bool) -> None:
    """Raise UserError if the labels of many videos look like something else."""
    different = len({entry.label for entry in entries})
    if 2 * different <= len(entries):
        return
    way = "if it is so, --columns=path,label says it; where it is another column, --columns=path,frames,label"
    if not by_name and len(entries) >= _MANY_NUMBERS and min(numbered) >= FEW_FRAMES:
        raise UserError(
            f"{entries[0].where}: the labels, {min(numbered)} to {max(numbered)}, {different} different ones of "
            f"{len(entries)} videos, look like numbers of frames; {way}, for example"
        )
    if by_name and len(entries) >= _MANY_NAMES:
        raise UserError(
            f"{entries[0].where}: {different} different labels for {len(entries)} videos, such as "
            f"{text.short(entries[0].label)}, look like no classes; {way}, for example"
        )


def _first_number(
    entries: list[Entry], numbers: list[int | None], known: Classes, file: remote.Path | None
) -> tuple[int, list[str]]:
    """(0 or 1, from which the labels in the lists count; notes if that is not plain).

    Raises UserError if neither fits, or if it cannot be told.
    """
    if known.blank is not None:
        raise UserError(
            f"{file}:{known.blank}: a blank line between the names: if it is a class, those below have other numbers; "
            "remove it, or write each class's number before it"
        )
    used = {value for value in numbers if value is not None}
    count, least, largest = len(known.names), min(used), max(used)
    from_zero, from_one = 0 <= least and largest < count, 1 <= least and largest <= count
    in_folders = _first_by_folders(entries, numbers, known.names)
    if from_zero and least == 0:
        note = f"{file} counts the classes from 1, the lists from 0: the label 0 is {known.names[0]!r}"
        return 0, [note] if known.first == 1 else []
    if from_zero and not (known.first == 0 and in_folders == 1):
        first = in_folders if in_folders is not None else known.first or 0
        why = "as the folders of the videos say" if in_folders is not None else f"as {file} does"
        note = f"the labels count from {first}, {why}: {least} is {known.names[least - first]!r}"
        if in_folders is None and known.first is None:
            note = (
                f"warning: no video has the label 0, from which labels count: {least} is {known.names[least]!r}; if "
                f"they count from 1, write each class's number before it in {file}"
            )
        return first, [note]
    certain = known.first == 1 or in_folders == 1 or (known.first is None and used == {*range(1, count + 1)})
    if from_one and certain and known.first != 0:
        return 1, [f"the labels count from 1, as the largest is {largest}: 1 is {known.names[0]!r}"]
    entry = next(
        (entry for entry, value in zip(entries, numbers, strict=True) if value is not None and not 0 <= value < count),
        entries[0],
    )
    if from_zero:
        raise UserError(
            f"{entry.where}: the label is {text.short(entry.label)}, but the folders of most videos have the names of "
            f"classes whose number in {file} is one less: if labels count from 1, let the numbers there do so, too"
        )
    hint = f"; if the labels count from 1, write each class's number before it in {file}, from 1" * from_one
    raise UserError(
        f"{entry.where}: the label {text.short(entry.label)} is without a class; expected one of the {count} of "
        f"{file}: 0 to {count - 1}{hint}"
    )


def _first_by_folders(entries: list[Entry], numbers: list[int | None], names: Sequence[str]) -> int | None:
    """The number, 0 or 1, from which labels count, if most videos lie in folders named as their classes; else None."""
    votes = collections.Counter(shift for shifts in _shifts(entries, numbers, names) for shift in shifts)
    shift, count = votes.most_common(1)[0] if votes else (None, 0)
    return shift if shift in (0, 1) and 10 * count > 9 * votes.total() and 2 * count > len(entries) else None


def _shifts(entries: list[Entry], numbers: list[int | None], names: Sequence[str]) -> list[set[int]]:
    """By how much each label differs from the numbers of the classes that its video's folders are named as."""
    index = {_folder_name(name): i for i, name in enumerate(names)}
    found = []
    for entry, value in zip(entries, numbers, strict=True):
        folders = entry.path.replace("\\", "/").split("/")[:-1]
        places = [place for folder in folders if (place := index.get(_folder_name(folder))) is not None]
        found.append(set() if value is None else {value - place for place in places})
    return found


def _compare_folders(
    entries: list[Entry], numbers: list[int | None], names: Sequence[str], first: int, file: remote.Path | None
) -> list[str]:
    """A warning of labels that are numbers of other classes than those that their videos' folders are named as.

    Raises UserError if most of the videos lie in such folders, and most of these have another label.
    """
    shifts = _shifts(entries, numbers, names)
    wrong = [i for i, found in enumerate(shifts) if found and first not in found]
    named = {
        value - shift for value, found in zip(numbers, shifts, strict=True) for shift in found if value is not None
    }
    if not wrong or len(named) < 2:  # of one folder, such as train, all are in it
        return []
    entry, value = entries[wrong[0]], numbers[wrong[0]] or 0
    said = f"{entry.where}: the label {value} is {names[value - first]!r}" if 0 <= value - first < len(names) else ""
    said = f"{said or entry.where}, but the video is {text.short(entry.path)}"
    if 2 * sum(map(bool, shifts)) > len(entries) and 2 * len(wrong) > sum(map(bool, shifts)):
        raise UserError(
            f"{said}; so are {len(wrong)} of {len(entries)}: are the classes in {file} in another order? If not, "
            "write labels as names"
        )
    return [f"warning: {said}; of {len(wrong)} videos the folder is named as another class than the label's"]


def _folder_name(name: str) -> str:
    """A class's name as a folder may have it: playing_guitar, PlayingGuitar."""
    return re.sub(r"[\W_]+", "", text.fold(name))
