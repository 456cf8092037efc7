"""The lines of list files: which part of each is a video's path, and which its label."""

import pathlib
import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from jax_video.data.manifest import EXTENSIONS
from jax_video.data.sources import splits, text
from jax_video.errors import UserError


class Entry(NamedTuple):
    """A line of a list file, or a row of a table."""

    where: str  # file:line
    split: str
    path: str
    label: str
    span: tuple[float, float] | None = None  # the part of the file, in seconds; None: all of it
    source: str = ""  # what it was cut from, or who is seen; empty: its path says it


# Names of columns in headers. If several columns may be the path, or the label, the one that comes first here counts.
PATHS = (
    "path video_path videopath filepath file_path filename file_name file video videos clip_path clip clip_name "
    "video_name videoname name video_file youtube_id video_id vid id"
).split()
LABELS = (
    "label labels class_id label_id class_index class_idx label_idx target y class classes category action "
    "action_label activity class_name label_name category_name action_name classname"
).split()
_FRAMES = "frames num_frames n_frames nframes total_frames frame_count framecount length num_frame".split()
SPLITS = "split subset usage partition set".split()
_TIMES = "start end time_start time_end start_time end_time start_frame end_frame t_start t_end".split()
_OTHERS = ("", "unnamed:_0", *"duration fps width height is_cc group source".split())  # pandas' index, without a name
_KNOWN = frozenset((*PATHS, *LABELS, *_FRAMES, *SPLITS, *_TIMES, *_OTHERS))

_SEPARATORS = " \t,;|"
_EXTENSION = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(EXTENSIONS)))})(?=[\"'\s,;|]|$)", re.IGNORECASE)
_NUMBER = re.compile(r"-?[0-9]{1,9}")
FEW_FRAMES = 8  # numbers from this one on may be numbers of frames
_MANY = 5  # lines, at least, for it to be suspicious that all have a number after a name


def word(name: str) -> str:
    """The name of a column in the spelling of `PATHS` and the other lists of names."""
    return re.sub(r"[\s\-]+", "_", name.strip().strip("\"'").lower())


def number(label: str) -> int | None:
    """The number that a label is written as: 3, or 3.0 as some tools write it; None where it is a name."""
    match = re.fullmatch(r"(-?[0-9]{1,9})(?:\.0+)?", label)
    return int(match[1]) if match else None


def check(columns: Sequence[str]) -> None:
    """Raise UserError if columns do not have path and label once each, or split more than once."""
    if columns and (columns.count("path") != 1 or columns.count("label") != 1 or columns.count("split") > 1):
        raise UserError(
            f"--columns={','.join(columns)}: expected `path` and `label` once each, and any other words for columns "
            "that are not needed, as in --columns=path,frames,label"
        )


def read(
    path: pathlib.Path,
    split: str,
    *,
    names: Collection[str],
    is_there: Callable[[str], bool],
    columns: Sequence[str] = (),
) -> tuple[list[Entry], list[str], bool]:
    """Read the lines of a list file.

    Args:
      path: the file.
      split: the split that it lists. If it has a column with splits, lines for other splits are left out.
      names: of the classes, as far as they are known.
      is_there: whether a path is that of a video.
      columns: what the columns are; empty: a header says so, or it is found out.

    Returns:
      (entries, what the user should know of how they were read, whether a header or `columns` said what columns are).

    Raises:
      UserError: a line without a path or a label, or with more than these, so that it is not clear which is which.
    """
    lines = text.read_lines(path)
    notes = []
    header = _header(path, *lines[0], told=bool(columns)) if lines else None
    if header is not None:
        head = lines[0][1]
        notes.append(f"{path}:{lines[0][0]}: taken for a header: {text.short(head)}")
        lines = lines[1:]
        columns = columns or header
    if not columns:
        return _guess(path, split, lines, names, is_there), notes, False
    delimiter = next((d for d in "\t,;|" if lines and all(d in line for _, line in lines)), "")
    if header is not None and (again := next((number for number, line in lines if line == head), None)):
        raise UserError(f"{path}:{again}: the header again: where two lists were joined, remove the line")
    entries = []
    for line_number, line in lines:
        where = f"{path}:{line_number}"
        cells = _by_columns(line, columns, delimiter, names)
        if cells is None or not (cells["path"] and cells["label"]):
            raise UserError(f"{where}: expected {', '.join(columns)}, got {text.short(line)}")
        of = cells.get("split", split)
        if splits.of(of) is None:
            raise UserError(f"{where}: expected a split of train, val or test, got {text.short(of)}")
        entries.append(Entry(where, of, cells["path"], cells["label"]))
    meant = splits.of_all(dict.fromkeys(entry.split for entry in entries))
    notes += [f"{path}: {said}" for said in splits.of_eval(meant)]
    entries = [entry._replace(split=split) for entry in entries if meant[entry.split] == split]
    if len(entries) < len(lines):
        notes.append(f"{path}: {len(lines) - len(entries)} of its videos are for other splits than {split}: left out")
    return entries, notes, True


def _header(path: pathlib.Path, line_number: int, line: str, *, told: bool) -> list[str] | None:
    """What the columns are called, if a line is a header; None if it is not.

    Raises UserError for a header that does not make clear which columns count, unless that is `told`.
    """
    line = line.removeprefix("#").strip()
    delimiter = next((d for d in "\t,;|" if d in line), None)
    cells = text.split_cells(line, delimiter) if delimiter else line.split()
    words = [word(cell) for cell in cells]
    if len(words) < 2 or not _KNOWN.issuperset(words):
        return None
    if told:
        return words
    if {"youtube_id", "time_start"} <= set(words):
        raise UserError(f"{path}:{line_number}: a list of Kinetics: python -m jax_video.prepare kinetics400 reads it")
    if times := [word for word in words if word in _TIMES]:
        raise UserError(
            f"{path}:{line_number}: columns with times ({', '.join(times)}), but lists are of whole videos: "
            "python -m jax_video.prepare table --table=FILE reads parts; or say which columns count, without these: "
            "--columns=path,x,x,label, for example"
        )
    roles = ["other"] * len(words)
    for role, known in (("label", LABELS), ("path", PATHS), ("split", SPLITS)):
        place = min(
            (i for i, word in enumerate(words) if word in known and roles[i] == "other"),
            key=lambda i: known.index(words[i]),
            default=None,
        )
        if place is None and role != "split":
            raise UserError(
                f"{path}:{line_number}: a header without a {role}: {text.short(line)}; say which columns there are: "
                "--columns=path,label"
            )
        if place is not None:
            roles[place] = role
    return roles


def _by_columns(line: str, columns: Sequence[str], delimiter: str, names: Collection[str]) -> dict[str, str] | None:
    """The path, the label and the split of a line; None if it has too few columns."""
    count = len(columns)
    ends = [match.end() for match in _EXTENSION.finditer(line)]
    quoted = re.match(r"""("(?:[^"]|"")*"|'(?:[^']|'')*')""", line)
    if columns[0] == "path" and (quoted or ends):
        end = quoted.end() if quoted else ends[-1]
        rest = line[end:].strip(_SEPARATORS)
        cells = [text.unquote(line[:end]), *(text.split_cells(rest, delimiter) if delimiter else rest.split())]
    elif delimiter:
        cells = text.split_cells(line, delimiter)
    elif columns[0] == "path":
        cells = line.rsplit(None, count - 1)
    elif columns[-1] == "path":
        cells = line.split(None, count - 1)
    else:
        cells = line.split()
    if len(cells) < count:
        return None
    if columns[-1] == "label" and len(cells) > count:  # the name of a class, or several labels
        whole = (f"{delimiter} " if delimiter else " ").join(cells[count - 1 :])
        if whole in names or any(number(cell) is None for cell in cells[count - 1 :]):
            cells[count - 1] = whole
    return {role: text.unquote(cell) for role, cell in zip(columns, cells, strict=False)}


def _guess(
    path: pathlib.Path,
    split: str,
    lines: Sequence[tuple[int, str]],
    names: Collection[str],
    is_there: Callable[[str], bool],
) -> list[Entry]:
    """The entries of lines that have a path and a label each, or a folder, its number of pictures and a label."""
    entries = []
    longest = max(map(len, names), default=0)
    for line_number, line in lines:
        where = f"{path}:{line_number}"
        parts = _split_line(line, names, longest)
        if parts is None or not all(parts):
            raise UserError(
                f"{where}: expected a video's path, a blank or comma, and its label, got {text.short(line)}"
            )
        label = text.unquote(parts[1])
        if label == parts[1] and label not in names and _has_several(label):
            raise _ask(where, line, _looks_like_frames(lines))
        entries.append(Entry(where, split, parts[0], label))
    unknown = [entry for entry in entries if entry.label not in names]
    if unknown and len(unknown) == len(entries) and _have_columns([entry.label for entry in entries], split):
        raise _ask(entries[0].where, lines[0][1], "", "if all of it is the name of a class, --columns=path,label")
    tails = [_tail(entry.label) for entry in unknown]
    if len(tails) == len(entries) >= _MANY and all(before and _NUMBER.fullmatch(last) for before, last in tails):
        if 2 * len({before for before, _ in tails}) < len(set(tails)):
            raise _ask(entries[0].where, lines[0][1], "the number behind the name of the class")
    return _without_frames(lines, entries, is_there)


def _split_line(line: str, names: Collection[str], longest: int) -> tuple[str, str] | None:
    """The path and the label of a line, or None.

    The first of these that is found tells them apart: quotes around the path, a video's extension, the name of a class
    (the longest one has `longest` characters), a number at the end, any tab, comma or blank.
    """
    quoted = re.fullmatch(r"""(?P<path>"(?:[^"]|"")*"|'(?:[^']|'')*')[\s,;|]+(?P<label>.+)""", line)
    if quoted and not _EXTENSION.search(quoted["label"]):
        return text.unquote(quoted["path"]), quoted["label"]
    ends = [match.end() for match in _EXTENSION.finditer(line)]
    if ends:
        behind = re.sub(r"""^["']?[\s,;|]*""", "", line[ends[-1] :])  # the quote is the path's
        return line[: ends[-1]], behind
    if "\t" not in line:
        start = max(0, len(line) - 2 * longest - 2)  # with quotes, and letters with accents as two characters
        for match in re.finditer(r"[\s,;|]+", line[start:]) if names else ():
            before, after = line[: start + match.start()], line[start + match.end() :]
            if text.unquote(after) in names:
                return before.rstrip(_SEPARATORS), after
    before, last = _tail(line)
    if before and _NUMBER.fullmatch(last):
        return before, last
    separator = next((separator for separator in "\t,; |" if separator in line), None)
    if separator is None:
        return None
    before, _, after = line.rpartition(separator)
    return before.strip(), after.strip()


def _tail(line: str) -> tuple[str, str]:
    """(what stands before the last separators of a line, what after them); no pattern does it in linear time."""
    end = max(map(line.rfind, _SEPARATORS)) + 1
    return line[:end].rstrip(_SEPARATORS), line[end:]


def _has_several(label: str) -> bool:
    """Whether what stands after a path is several columns: only numbers, or a number between commas."""
    numbers = [number(part) is not None for part in re.split(r"[\s,;|]+", label)]
    cells = [number(part.strip()) is not None for part in re.split(r"[\t,;|]", label)]
    return len(numbers) > 1 and (all(numbers) or (len(cells) > 1 and any(cells)))


def _have_columns(labels: Sequence[str], split: str) -> bool:
    """Whether what stands after the paths is, in all lines of the list of a split, several columns: cells, or a word
    for a split as the last one, for several of them or for this one."""
    counts = [{len(re.findall(separator, label)) for label in labels} for separator in ("\t", ";", r"\|", r",(?! )")]
    ends = [_tail(label) for label in labels]
    of = {splits.of(last) if before else None for before, last in ends}
    return any(len(found) == 1 and 0 not in found for found in counts) or (
        None not in of and (len(of) > 1 or of == {split})
    )


class _Reading(NamedTuple):
    """A path, as it stands in a line or without numbers at its end."""

    path: str
    numbers: int  # that were left out
    is_there: bool


def _without_frames(
    lines: Sequence[tuple[int, str]], entries: list[Entry], is_there: Callable[[str], bool]
) -> list[Entry]:
    """The entries, without a number at the end of paths if it is a folder's number of frames: existing files decide."""
    readings = [_reading(entry.path, is_there) for entry in entries]
    folders = [reading for reading in readings if reading.numbers]
    if not folders:
        return entries
    if not any(reading.is_there for reading in folders):
        # None of them is there, with or without its number: other lines may tell that numbers belong to names.
        if any(_NUMBER.fullmatch(_tail(reading.path)[1]) for reading in readings if reading.is_there) or (
            len({reading.path for reading in readings}) < len({entry.path for entry in entries})
        ):
            return entries
        return [entry._replace(path=reading.path) for entry, reading in zip(entries, readings, strict=True)]
    usual = 2 * len(folders) > len(entries)
    for (_, line), entry, reading in zip(lines, entries, readings, strict=True):
        if reading.numbers > 1 or (reading.numbers and reading.is_there and not usual):
            raise _ask(entry.where, line, _looks_like_frames(lines))
        if not reading.numbers and usual:
            raise UserError(
                f"{entry.where}: expected a folder, how many frames it has, and its label, as in other lines, got "
                f"{text.short(line)}"
            )
    column = _looks_like_frames(lines)
    if column.startswith("the last") or any((number(entry.label) or 0) < 0 for entry in entries):
        raise _ask(entries[0].where, lines[0][1], column)
    return [entry._replace(path=reading.path) for entry, reading in zip(entries, readings, strict=True)]


def _reading(path: str, is_there: Callable[[str], bool]) -> _Reading:
    """What a path means: its longest form that is there; if none is, the form without one number."""
    forms = [path]
    while len(forms) < 10 and (parts := _tail(forms[-1]))[0] and _NUMBER.fullmatch(parts[1]):
        forms.append(parts[0])
    for count, form in enumerate(forms if len(forms) > 1 else ()):
        if is_there(form):
            return _Reading(form, count, True)
    count = min(1, len(forms) - 1)
    return _Reading(forms[count], count, False)


def _looks_like_frames(lines: Sequence[tuple[int, str]]) -> str:
    """Words for the column, counted from the end, that looks most like numbers of frames; empty if none does."""
    rows = []
    for _, line in lines[:10_000]:
        values: list[int] = []
        rest = line
        while len(values) < 5 and (value := number((parts := _tail(rest))[1])) is not None and parts[0]:
            values.append(value)
            rest = parts[0]
        if len(values) > 1:
            rows.append(values)
    if len({len(values) for values in rows}) != 1:  # several labels, more for some videos
        return ""
    columns = list(zip(*rows, strict=True))  # the last one first
    best = max(columns, key=lambda column: (min(column), len(set(column))))
    if min(best) < FEW_FRAMES:
        return ""
    place = columns.index(best)
    which = "the last column" if place == 0 else f"column {place + 1} from the end"
    return f"{which}, {min(best)} to {max(best)}, looks like numbers of frames"


def _ask(where: str, line: str, frames: str, otherwise: str = "") -> UserError:
    return UserError(
        f"{where}: more than a path and a label, got {text.short(line)}{f'; {frames}' if frames else ''}. Say which "
        "columns there are: --columns=path,frames,label, for example; "
        + (otherwise or "with --columns=path,label the first label counts")
    )
