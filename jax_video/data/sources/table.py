"""Tables with a header: a video's path and its label in each row, and what else is known of it."""

import collections
import dataclasses
import os
import re
from collections.abc import Sequence

from jax_video.data import remote
from jax_video.data.labels import Label
from jax_video.data.manifest import MISSING, Video
from jax_video.data.sources import class_files, finding, listing, lists, records, splits, text
from jax_video.data.sources.class_files import Classes
from jax_video.data.sources.columns import LABELS, PATHS, SPLITS, Entry, word
from jax_video.data.sources.listing import Listing
from jax_video.data.sources.places import Places
from jax_video.errors import UserError

# Names of the columns of each kind; if several are there, the first one here counts.
_ROLES = {
    "path": PATHS,
    "label": LABELS,
    "split": SPLITS,
    "start": (
        "start start_time time_start t_start start_sec start_secs start_second start_seconds start_s start_timestamp "
        "begin"
    ).split(),
    "end": (
        "end end_time time_end t_end end_sec end_secs end_second end_seconds end_s end_timestamp stop stop_time "
        "stop_timestamp"
    ).split(),
    "group": "group group_id subject subject_id participant_id person_id".split(),
}
_FRAMES = "start_frame end_frame stop_frame frame_start frame_end".split()
_LONGEST = 1e6  # seconds
_PARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # between the words of startTime
_SECONDS = re.compile(r"(?<=.)\s*[(\[](?:s|sec|secs|seconds?)[)\]]$", re.IGNORECASE)  # start (s)
_SEVERAL = "where a video may have several labels, --label_separator=';' takes all of them"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table that was read; its entry's split is the word for it, and empty if there is none."""

    entry: Entry
    others: dict[str, str]  # the cells of the columns that say nothing about training

    def of_split(self, split: str) -> "Row":
        """The same row, for a split."""
        return dataclasses.replace(self, entry=self.entry._replace(split=split))


def find(
    videos: remote.Path,
    *,
    table: Sequence[str | os.PathLike] = (),
    columns: Sequence[str] = (),
    label_separator: str | None = None,
    class_names: remote.Path | None = None,
    fraction: float | None = None,
    seed: int | None = None,
) -> Listing:
    """Tables with a header: CSV, TSV, JSON, JSON lines or Parquet, their columns in any order.

    Two columns are needed, the path of a video and its label (the name of a class, or its number). Others are
      * start and end, in seconds or as 1:02:03.5: the part of the file that counts; a file may have several parts;
      * split: train, val or test, or words like these. Without it, each of several tables says it by its name, or by
        that of its folder;
      * group: who is seen, or what the videos were cut from; a split that we draw has all of a group on one side.
    All other columns are kept, in `Listing.columns`. Paths, labels and classes are as in `lists.find`.

    Without splits, `fraction` (.1) of every class is for test and as much for validation, drawn by `seed`; files that
    are in several rows, and groups, stay whole. If there is a training but no validation split, that gets `fraction`
    (.05) of training.

    With a `label_separator` a video may have several labels: those that it separates in a cell, those in a list, and
    those of all rows of the same video, or of the same part of one. An empty cell says that no class applies.

    Args:
      columns: which columns count, as ("path=clip", "label=verb"), before their usual names; ("start=", "end=") takes
        whole videos.
      label_separator: such as ";" for walk;wave; None: a video has one label.

    Raises:
      UserError: no table, or none of its videos is there; a table whose name has words for several splits; or, with
        the row: no label, a label without a class, impossible times, a path that means several files.
    """
    if not table:
        raise UserError("expected --table=FILE, a CSV, TSV, JSON or Parquet file whose header has path and label")
    check_separator(label_separator)
    paths = [remote.path(each) for each in ([table] if isinstance(table, str | os.PathLike) else table)]
    named, unclear = _splits_by_name(paths) if len(paths) > 1 else ({}, set())
    rows: list[Row] = []
    notes: list[str] = []
    for path in paths:
        found, said = read(path, asked=columns, split=named.get(path, ""), label_separator=label_separator)
        if path in unclear and any(not row.entry.split for row in found):
            raise UserError(
                f"{path}: its name has words for several splits, and no column says for which its rows are: expected "
                "a column split of train, val or test, or a name with one of these words"
            )
        rows += found
        notes += said
    if named:
        notes.append(f"tables of the splits: {text.some([f'{path.name} for {of}' for path, of in named.items()])}")
    what = f"the rows of {text.some([path.name for path in paths])}"
    return place(what, videos, rows, notes, class_names, fraction, seed, label_separator)


def _splits_by_name(paths: Sequence[remote.Path]) -> tuple[dict[remote.Path, str], set[remote.Path]]:
    """(the splits of tables by their names, or else by those of their folders; tables with words for several)."""
    named, unclear = splits.of_files([path.stem for path in paths])
    if named or unclear:
        of = {path: named[path.stem] for path in paths if path.stem in named}
        return of, {path for path in paths if path.stem in unclear}
    folders = splits.of_folders([path.parent.name for path in paths])
    return ({path: folders[path.parent.name] for path in paths} if len(set(folders.values())) > 1 else {}), set()


def check_separator(separator: str | None) -> None:
    """Raise UserError for what cannot stand between labels."""
    if separator is not None and (not separator.strip() or separator.isalnum()):
        raise UserError(f"--label_separator={separator}: expected what stands between the labels of a video, as ; or |")


def read(
    path: remote.Path,
    *,
    asked: Sequence[str] = (),
    split: str = "",
    below: str = "",
    label_separator: str | None = None,
) -> tuple[list[Row], list[str]]:
    """The rows of a table, and what the user should know of how they were read.

    Args:
      asked: which columns count, as ("path=clip", "label=verb"); others are known by their names.
      split: of its videos, where no column says it: a word for one; empty: unknown.
      below: the folder at which its paths begin.
      label_separator: between several labels; None: there is one.

    Raises:
      UserError: it cannot be read, or it is not clear which columns count; a row that cannot be understood.
    """
    found = records.read(path, joined_by=label_separator or "")
    roles = _roles(path, found, asked)
    others = [name for name in found.columns if name and name not in roles.values()]
    taken = ", ".join(f"{role} is {text.short(name)}" for role, name in roles.items())
    notes = [f"{path}: {taken}{f'; kept: {text.some(others)}' if others else ''}"]
    if found.nested:
        notes.append(f"{path}: left out, as lists, objects or bytes: {text.some(found.nested)}")
    rows = []
    for where, cells in found.records:
        cell = {role: cells[name] for role, name in roles.items()}
        if not cell["path"] or (not cell["label"] and label_separator is None):
            got = f"{text.short(cell['path'])} and {text.short(cell['label'])}"
            raise UserError(f"{where}: expected the path of a video and its label, got {got}")
        if any("\n" in each for each in cell.values()):
            raise UserError(f"{where}: a quote that is not closed in its line: {text.short(' '.join(cell.values()))}")
        if "split" in cell and splits.of(cell["split"]) is None:
            raise UserError(f"{where}: expected a split of train, val or test, got {text.short(cell['split'])}")
        of = cell.get("split", split)
        span = _span(where, cell["start"], cell["end"]) if "start" in cell else None
        inside = cell["path"] if "/" in cell["path"] else cell["path"].replace("\\", "/")  # written under Windows
        entry = Entry(where, of, os.path.join(below, inside), cell["label"], span, cell.get("group", ""))
        rows.append(Row(entry, {name: cells[name] for name in others}))
    return rows, notes


def place(
    what: str,
    videos: remote.Path,
    rows: Sequence[Row],
    notes: Sequence[str],
    class_names: remote.Path | None,
    fraction: float | None,
    seed: int | None,
    label_separator: str | None = None,
) -> Listing:
    """Make the listing of rows: find their files, number their classes, and draw a split if they have none.

    Args:
      what: what messages call the rows.
      class_names: a file of the classes (see `class_files`); None: the labels name them.
      label_separator: between several labels; None: there is one.

    Raises:
      UserError: as `find`.
    """
    listing.check_fraction(listing.DRAWN if fraction is None else fraction)
    if not rows:
        raise UserError(f"no videos in {what}: there are none")
    without = [row.entry for row in rows if not row.entry.split]
    if without and len(without) < len(rows):
        raise UserError(
            f"{without[0].where}: nothing says for which split {text.short(without[0].path)} is, and for others a "
            "column, a folder or the name of the table does: say it of all"
        )
    meant = splits.of_all(dict.fromkeys(row.entry.split for row in rows if row.entry.split))
    known = Classes(()) if class_names is None else class_files.read(class_names)
    there = finding.find_videos(videos)
    entries = [row.entry._replace(split=meant.get(row.entry.split, "")) for row in rows]
    labels: Sequence[Label]
    if label_separator is None:
        classes, labels, said = lists.number_labels(entries, known, class_names, True)
        said += _may_be_several(classes)
    else:
        classes, labels, said = _number_several(entries, label_separator, known, class_names)
    made, found = lists.rows_of(entries, labels, Places(videos, there.videos), there)
    made = [dataclasses.replace(video, split=video.split or "train") for video in made]
    listing.check_found(what, videos, made, there.videos)
    if label_separator is not None:
        made = _united(made)
    columns: dict[str, dict[str, str]] = {name: {} for row in rows for name in row.others}
    for video, row in reversed([*zip(made, rows, strict=True)]):  # of several rows the first counts, as below
        for name, cell in row.others.items():
            columns[name][video.name] = cell
    times = _may_be_times(made, rows)
    made, repeated = listing.once(made)
    repeated += times
    if any(note.startswith(listing.RELABELLED) for note in repeated):
        repeated.append(_SEVERAL)
    repeated += listing.strange_names(made)
    made, drawn = _draw(made, fraction or listing.DRAWN, seed or 0) if without else _complete(made, fraction, seed)
    notes = [*notes, *splits.of_eval(meant), *known.notes, *said, *found, *repeated, *drawn]
    unlisted = len(there.videos) - len({video.path for video in made if video.error != MISSING})
    if unlisted:
        notes.append(f"ignored, as in none of {what}: {unlisted} of the videos in {videos}")
    name = remote.absolute(videos).name
    return Listing(name, classes, videos, tuple(made), (*notes, *finding.ignored_note(there)), columns=columns)


def _may_be_several(classes: Sequence[str]) -> list[str]:
    """A warning of classes that other classes make up, such as walk;wave beside walk and wave."""
    names = {*classes}
    for name in classes:
        for separator in ";|,+&/":
            parts = [part.strip() for part in name.split(separator)]
            if len(parts) > 1 and names.intersection(parts) and all(parts):
                return [f"warning: the class {text.short(name)} has others in it; {_SEVERAL.replace(';', separator)}"]
    return []


def _may_be_times(made: Sequence[Video], rows: Sequence[Row]) -> list[str]:
    """A warning of columns of numbers in which rows of one whole video differ: they may tell its parts."""
    cells: dict[str, dict[str, set[str]]] = collections.defaultdict(lambda: collections.defaultdict(set))
    for video, row in zip(made, rows, strict=True):
        if video.span is None:
            for name, cell in row.others.items():
                cells[name][video.path].add(cell)
    differ = [
        name
        for name, of in cells.items()
        if any(len(each) > 1 for each in of.values())
        and all(seconds(cell) is not None for cell in set().union(*of.values()))
    ]
    if len(differ) < 2:
        return []
    return [
        f"warning: rows of one video differ in {text.some(differ)}, and whole videos are taken; if two tell its "
        "parts, in seconds: --columns=start=NAME,end=NAME"
    ]


def _number_several(
    entries: Sequence[Entry], separator: str, known: Classes, file: remote.Path | None
) -> tuple[tuple[str, ...], list[tuple[int, ...]], list[str]]:
    """(the classes, the indices of each entry's labels, ascending, what the user should know of it)."""
    parts = [[part for each in entry.label.split(separator) if (part := each.strip())] for entry in entries]
    single = [entry._replace(label=part) for entry, some in zip(entries, parts, strict=True) for part in some]
    if not single:
        raise UserError(f"{entries[0].where}: no label, nor in any other row: expected some, as walk{separator}wave")
    classes, numbers, said = lists.number_labels(single, known, file, True)
    following = iter(numbers)
    return classes, [tuple(sorted({next(following) for _ in some})) for some in parts], said


def _united(rows: list[Video]) -> list[Video]:
    """The rows, each with the labels of all rows of the same video, or of the same part of one."""
    labels: dict[tuple, set[int]] = collections.defaultdict(set)
    for row in rows:
        labels[text.compose(row.path), row.span].update(row.label)  # type: ignore[arg-type]  # a tuple
    return [dataclasses.replace(row, label=tuple(sorted(labels[text.compose(row.path), row.span]))) for row in rows]


def _roles(path: remote.Path, found: records.Table, asked: Sequence[str]) -> dict[str, str]:
    """The columns that count: what each is for -> its name. Those that are `asked` for come before the usual names."""
    words = {word(name): name for name in reversed(found.columns)}
    for name in found.columns:  # where that is no known name: startTime, Start (s)
        words.setdefault(word(_PARTS.sub("_", name)), name)
        without_unit = word(_PARTS.sub("_", _SECONDS.sub("", name.strip())))
        if without_unit in (*_ROLES["start"], *_ROLES["end"]):
            words.setdefault(without_unit, name)
    roles = {}
    for role, known in _ROLES.items():
        if there := [words[each] for each in known if each in words]:
            roles[role] = there[0]
    ending = [name for each, name in words.items() if each.endswith("_file_name")]  # Hugging Face's name_file_name
    if "path" not in roles and len(ending) == 1:
        roles["path"] = ending[0]
    told = [each.partition("=")[0] for each in asked]
    for each, role in zip(asked, told, strict=True):
        _, equals, name = each.partition("=")
        if not equals or role not in _ROLES or told.count(role) > 1 or (name and name not in found.columns):
            raise UserError(
                f"--columns={','.join(asked)}: expected some of {', '.join(f'{role}=NAME' for role in _ROLES)}, each "
                f"once, with columns of {path}: {text.some(found.columns)}; got {text.short(each)}"
            )
        roles.pop(role, None)
        if name:
            roles[role] = name
    for role in ("path", "label"):
        if role in roles:
            continue
        several = [name for name in found.nested if word(name) in _ROLES[role]]
        if several:
            many = f"; {_SEVERAL}" if role == "label" else ""
            raise UserError(
                f"{path}: {several[0]} has several values in a row: expected one {role} for each video{many}"
            )
        raise UserError(
            f"{path}: none of the columns {text.some([*found.columns, *found.nested])} is known as the {role}: say "
            f"which is, --columns={role}=NAME; a list without a header is read by python -m jax_video.prepare list"
        )
    frames = [words[each] for each in _FRAMES if each in words and not {"start", "end"} & {*told}]
    if ("start" in roles) != ("end" in roles) or (frames and "start" not in roles):
        names = [roles[role] for role in ("start", "end") if role in roles] or frames
        raise UserError(
            f"{path}: {text.some(names)} would be a part of a video, which two columns of seconds tell, start and end: "
            "say which these are, --columns=start=NAME,end=NAME, or take whole videos: --columns=start=,end="
        )
    return roles


def _span(where: str, start: str, end: str) -> tuple[float, float] | None:
    """(start, end) of a row, in seconds; None if it has none."""
    if not start and not end:
        return None
    times = seconds(start), seconds(end)
    if times[0] is None or times[1] is None or not 0 <= times[0] < times[1] < _LONGEST:
        raise UserError(
            f"{where}: expected a start and an end after it, in seconds or as 1:02:03.5, got {text.short(start)} and "
            f"{text.short(end)}"
        )
    return times[0], times[1]


def seconds(cell: str) -> float | None:
    """The seconds of a time such as 83.5 or 1:23.5; None if it is not one."""
    if not re.fullmatch(r"(?:[0-9]{1,3}:){0,2}[0-9.]{1,20}(?:e[+-]?[0-9]{1,2})?", cell, re.IGNORECASE):
        return None
    total = 0.0
    try:
        for part in cell.split(":"):
            total = 60 * total + float(part)
    except ValueError:
        return None
    return round(total, 6)


def _complete(rows: list[Video], fraction: float | None, seed: int | None) -> tuple[list[Video], list[str]]:
    """(rows that have splits, some of training moved to validation if that has none; notes on these splits)."""
    present = {row.split for row in rows}
    notes = [f"no videos for {split}" for split in ("train", "test") if split not in present]
    notes += _on_both_sides(rows)
    if "train" in present and "val" not in present:
        rows, note = listing.hold_out(rows, seed or 0, part=listing.HELD_OUT if fraction is None else fraction)
        notes.append(note)
    else:
        listing.check_none_drawn({"fraction": fraction, "seed": seed}, "all rows say for which split they are")
    return rows, notes


def _on_both_sides(rows: Sequence[Video]) -> list[str]:
    """A warning of files with parts for test and others, if there are any."""
    files = collections.defaultdict(set)
    for row in rows:
        files[row.path].add(row.split)
    both = [path for path, of in files.items() if "test" in of and len(of) > 1]
    return [f"warning: files with parts for test and for training: {len(both)}, e.g. {both[0]}"] if both else []


def _draw(rows: list[Video], fraction: float, seed: int) -> tuple[list[Video], list[str]]:
    """(rows that were all for training, some of them moved to test and to validation; notes on how they were drawn)."""
    if len({row.source for row in rows}) == len(rows):
        rows = listing.split_by_fraction(rows, fraction, seed, ("test", "val"))
        counts = "; of a video's labels the rarest counts" if isinstance(rows[0].label, tuple) else ""
        drawn = f"of every class {fraction:.0%} is for test and as much for validation (seed {seed}){counts}"
        return rows, [drawn, *_on_both_sides(rows)]
    rows, test = listing.hold_out(rows, seed, split="test", part=fraction)
    rows, val = listing.hold_out(rows, seed, part=fraction / (1 - fraction))
    notes = [test, val, *_on_both_sides(rows)]
    if not any(row.split == "test" for row in rows):
        notes.append(
            f"warning: nothing is for test, as each file or group has more than {fraction:.0%} of the rows, or is all "
            "that there is of a class: say which are for test, in a column split, or give a larger --fraction"
        )
    return rows, notes
