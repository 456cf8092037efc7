"""Files of class names, as people have them: a name in each line, tables with numbers, JSON."""

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax_video.data import remote
from jax_video.data.sources import text
from jax_video.errors import UserError

_NUMBERS = frozenset(
    "class_id class_idx class_index class_number id idx index label_id label_index no num number".split()
)
_NAMES = frozenset(
    "action actions action_name categories category category_name class class_name class_names classes classname "
    "display_name label label_name label_names labels name names".split()
)
_PARTS = ("id2label", "label2id", "class_to_idx", "idx_to_class", "label_map")  # keys of the classes in larger objects
_COMMENTS = ("#", "//")
_NUMBER = re.compile(r"[0-9]{1,9}")
_LONE_KEY = re.compile(r"(?:names|nc|classes|labels)\s*:.*")  # of YAML, among other lines
# Lines with a class's number and its name: the number first, or last.
_FIRST = re.compile(r"(?P<number>[0-9]{1,9})(?:[\s,;:=]+|[.)]\s+)(?P<name>.+)")
_LAST = re.compile(r"(?P<name>.+?)(?P<between>[\s,;:=]+)(?P<number>[0-9]{1,9})")


class Classes(NamedTuple):
    """What a file says of the classes."""

    names: tuple[str, ...]  # in the order of their numbers
    first: int | None = None  # the number that the file gives the first of them, 0 or 1; None: it gives no numbers
    notes: tuple[str, ...] = ()  # what the user should know of how the file was read
    blank: int | None = None  # number of the first blank line between names, which may have been a class


class _Entry(NamedTuple):
    """A class in a file."""

    line: int  # its number, from 1
    name: str
    number: int | None
    text: str  # as it stands in the file


def read(path: remote.Path) -> Classes:
    """Read class names in the order of their labels.

    The file has a name in each line, alone or with its number before or after it; or it is a table with a header, with
    a column of numbers; or JSON: a list of names, {name: number}, {number: name}, or [{"id": number, "name": name}].

    Raises:
      UserError: the file cannot be read or understood, names no class or one twice, or its numbers do not follow each
        other from 0 or 1; says in which line.
    """
    content = text.read_text(path)
    notes: list[str] = []
    entries = _from_json(path, content)
    is_json = entries is not None
    if entries is None:
        entries = _from_lines(path, content, notes)
    if not entries:
        raise UserError(f"{path} names no class; expected one name a line")
    first, blank = None, None if is_json else _blank_line(entries)
    if entries[0].number is not None:
        first = _check_numbers(path, entries)
        entries = sorted(entries, key=lambda entry: entry.number or 0)
    seen: set[str] = set()
    for entry in entries:
        if not entry.name:
            raise UserError(f"{path}:{entry.line}: a class without a name, got {text.short(entry.text)}")
        separated = "begins or ends with a separator" * (entry.name[0] in ",;" or entry.name[-1] in ",;")
        if wrong := text.defect(entry.name) or separated:
            raise UserError(f"{path}:{entry.line}: no name of a class, as it {wrong}: got {text.short(entry.text)}")
        if entry.name in seen:
            raise UserError(
                f"{path}:{entry.line}: the class {text.short(entry.name)} is named twice, got {text.short(entry.text)}"
            )
        seen.add(entry.name)
    return Classes(tuple(entry.name for entry in entries), first, tuple(notes), blank)


def _check_numbers(path: remote.Path, entries: Sequence[_Entry]) -> int:
    """The smallest of the numbers. Raises UserError unless they are all numbers from 0 or 1 on, each once."""
    numbers = [entry.number or 0 for entry in entries]
    for first in (0, 1):
        if sorted(numbers) == [*range(first, first + len(numbers))]:
            return first
    seen: set[int] = set()
    for entry in entries:
        number = entry.number or 0
        if number in seen or number >= len(numbers):
            break
        seen.add(number)
    raise UserError(
        f"{path}:{entry.line}: expected indices from 0 to {len(numbers) - 1}, each once, got {text.short(entry.text)}; "
        f"from 1 to {len(numbers)} will do, too, and a class without videos needs its line"
    )


def _from_lines(path: remote.Path, content: str, notes: list[str]) -> list[_Entry]:
    """The classes of a text file."""
    lines = [(number, line.strip()) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    comments = list(itertools.takewhile(lambda row: row[1].startswith(_COMMENTS), lines))
    if not any(line.startswith(_COMMENTS) for _, line in lines[len(comments) :]) and len(comments) < len(lines):
        notes += [f"{path}:{number}: taken for a comment: {text.short(line)}" for number, line in comments]
        lines = lines[len(comments) :]
    if lines and lines[0][1] == "---":  # of YAML, like what follows
        lines = lines[1:]
    if lines and lines[0][1].endswith(":") and _word(lines[0][1][:-1]) in _NAMES:  # of YAML
        lines = lines[1:]
    if len(lines) > 1 and all(line.startswith("- ") for _, line in lines):
        lines = [(number, line[2:].strip()) for number, line in lines]
    table = _from_table(path, lines, notes)
    if table is not None:
        return table
    words = {_word(word) for word in lines[0][1].split()} if len(lines) > 1 else set()
    numbered = len(words) == 2 and any(pattern.fullmatch(lines[1][1]) for pattern in (_FIRST, _LAST))
    if numbered and words & _NUMBERS and words & _NAMES:
        notes.append(f"{path}:{lines[0][0]}: taken for a header: {text.short(lines[0][1])}")
        lines = lines[1:]
    for pattern in (_FIRST, _LAST):
        matches = [pattern.fullmatch(line) for _, line in lines]
        count = sum(match is not None for match in matches)
        certain = pattern is _FIRST or all(match is None or match["between"].strip() for match in matches)
        if lines and count == len(lines):
            entries = [
                _Entry(number, text.unquote(match["name"]), int(match["number"]), line)
                for (number, line), match in zip(lines, matches, strict=True)
                if match
            ]
            numbers = sorted(entry.number or 0 for entry in entries)
            if certain or numbers in ([*range(len(lines))], [*range(1, len(lines) + 1)]):
                return entries
        elif certain and 2 * count > len(lines) and count > 1:
            number, line = next(row for row, match in zip(lines, matches, strict=True) if match is None)
            raise UserError(
                f"{path}:{number}: expected a name and its number, as in most lines, got {text.short(line)}; a header "
                "is known by words such as id,name"
            )
    if odd := next((row for row in lines if row[1] in ("{", "}", "[", "]") or _LONE_KEY.fullmatch(row[1])), None):
        raise UserError(
            f"{path}:{odd[0]}: no name of a class, got {odd[1]!r}; expected one name a line, a table or JSON"
        )
    if len(lines) > 1 and _word(lines[0][1]) in _NAMES:
        number, line = lines[0]
        notes.append(
            f"{path}:{number}: taken for a header, not for a class: {text.short(line)}; if it is one, write the "
            "number of each class before it"
        )
        lines = lines[1:]
    return [_Entry(number, text.unquote(line), None, line) for number, line in lines]


def _blank_line(entries: Sequence[_Entry]) -> int | None:
    """The first blank line between names; None if all names are equally far apart, or have numbers."""
    apart = [after.line - before.line for before, after in itertools.pairwise(entries)]
    if entries[0].number is not None or len(set(apart)) < 2:
        return None
    place = next(i for i, lines in enumerate(apart) if lines > min(apart))
    return entries[place].line + max(1, min(apart))


def _from_table(path: remote.Path, lines: list[tuple[int, str]], notes: list[str]) -> list[_Entry] | None:
    """The classes of a table with a header. Raises UserError for a wide table without one; None for other files."""
    delimiter = next((d for d in "\t;," if lines and all(d in line for _, line in lines)), None)
    if delimiter is None:
        return None
    rows = [(number, text.split_cells(line, delimiter), line) for number, line in lines]
    _, header, line = rows[0]
    width = len(header)
    words = [_word(cell) for cell in header]
    of_numbers = [
        column
        for column in range(width)
        if 2 * sum(len(cells) > column and bool(_NUMBER.fullmatch(cells[column])) for _, cells, _ in rows[1:])
        >= len(rows)
    ]
    known = [word in _NUMBERS | _NAMES for word in words]
    is_header = not any(map(_NUMBER.fullmatch, header)) and (all(known) or (any(known) and bool(of_numbers)))
    if not is_header:
        if width > 2 and of_numbers and all(len(cells) == width for _, cells, _ in rows):
            raise UserError(
                f"{path}:{rows[0][0]}: {width} columns without a header, got {text.short(line)}; expected a name "
                "and its number, or a first line that says which columns these are, such as id,name"
            )
        return None
    number_column = next((i for i in of_numbers if words[i] in _NUMBERS), of_numbers[0] if of_numbers else None)
    name_columns = [i for i in range(width) if i != number_column]
    name_column = next((i for i in name_columns if words[i] in _NAMES), name_columns[0])
    entries = []
    for number, cells, line in rows[1:]:
        if len(cells) > width and name_column == width - 1:  # commas in a name
            cells = [*cells[: width - 1], f"{delimiter} ".join(cells[width - 1 :])]
        index = cells[number_column] if number_column is not None and number_column < len(cells) else ""
        if len(cells) != width or (number_column is not None and not _NUMBER.fullmatch(index)):
            raise UserError(f"{path}:{number}: expected {', '.join(header)}, got {text.short(line)}")
        if number_column is None and any(words[i] in _NUMBERS for i in range(width)):
            raise UserError(f"{path}:{number}: expected {', '.join(header)}, with a number, got {text.short(line)}")
        entries.append(_Entry(number, text.unquote(cells[name_column]), int(index) if index else None, line))
    notes.append(
        f"{path}:{rows[0][0]}: taken for a header: the name of a class is {text.short(header[name_column])}, "
        "its number " + (text.short(header[number_column]) if number_column is not None else "the place of its line")
    )
    return entries


def _word(cell: str) -> str:
    """A cell of a header as `_NAMES` and `_NUMBERS` have it."""
    return re.sub(r"[\s\-]+", "_", cell.strip().strip("\"'#").strip().lower())


def _from_json(path: remote.Path, content: str) -> list[_Entry] | None:
    """The classes of a JSON file; None where it is none."""
    stripped = content.strip()
    if not stripped.startswith(("{", "[")):
        return None
    try:
        # Keys may repeat, which a dict would hide: objects are read as tuples of pairs.
        value = json.loads(stripped, object_pairs_hook=tuple)
    except (json.JSONDecodeError, RecursionError) as error:
        lines = stripped.split("\n")
        try:
            value = [json.loads(line, object_pairs_hook=tuple) for line in lines if line.strip()]
        except (json.JSONDecodeError, RecursionError):
            if re.match(r"\[[^\"\[\],\n]*\][^\n,\]]", stripped):
                return None  # names that begin with a word in brackets
            if isinstance(error, RecursionError):
                raise UserError(f"{path}: too deep to be JSON with class names") from error
            line = error.lineno + content[: content.index(stripped[0])].count("\n")
            raise UserError(f"{path}:{line}: begins as JSON and is none ({error.msg})") from error
    entries = [
        _Entry(_line_of(content, name), text.unquote(name), number, f"{name}: {number}" if number is not None else name)
        for name, number in _json_pairs(path, value)
    ]
    if len({entry.number is None for entry in entries}) > 1:
        raise UserError(f"{path}: some of its classes have a number and others none")
    return entries


def _json_pairs(path: remote.Path, value: Any, *, inside: bool = False) -> list[tuple[str, int | None]]:
    """(name, number or None) of each class in JSON whose objects are tuples of pairs.

    The classes may be a part of an object, unless that is itself `inside` of one.
    """
    if isinstance(value, tuple):
        inner = {key: part for key, part in value if isinstance(part, tuple | list)}
        for key in (*_PARTS, *sorted(inner)):
            if not inside and key in inner and (key in _PARTS or _word(key) in _NAMES or len(value) == 1):
                return _json_pairs(path, inner[key], inside=True)
        if inner:
            raise _unknown(path, f"an object with {text.some([key for key, _ in value])}")
        keys = [key for key, _ in value]
        values = [part for _, part in value]
        if all(_is_number(part) for part in values) and not (
            all(map(_is_number, keys)) and any(isinstance(part, str) for part in values)
        ):
            return [(key, int(part)) for key, part in value]
        if all(map(_is_number, keys)) and all(isinstance(part, str) and not _is_number(part) for part in values):
            return [(part, int(key)) for key, part in value]
        odd = next((f"{key!r}: {part!r}" for key, part in value if not _is_number(part)), f"{keys[:1]}: {values[:1]}")
        raise _unknown(path, f"an object with {odd[:80]}")
    if all(isinstance(part, str) for part in value):
        return [(part, None) for part in value]
    if all(isinstance(part, list) and len(part) == 2 for part in value):
        return _json_pairs(path, tuple((str(key), other) for key, other in value), inside=True)
    if value and all(isinstance(part, tuple) for part in value):
        return [_json_record(path, dict(part)) for part in value]
    strange = next(part for part in value if not isinstance(part, str))
    raise _unknown(path, f"a list with {json.dumps(strange)[:80]}")


def _json_record(path: remote.Path, record: dict[str, Any]) -> tuple[str, int | None]:
    """The name and the number of {"id": 0, "name": "walk"}, or of {"walk": 0}."""
    numbers = [part for key, part in record.items() if _word(key) in _NUMBERS and _is_number(part)]
    names = [part for key, part in record.items() if _word(key) in _NAMES and isinstance(part, str)]
    if not names and len(record) == 1:
        return _json_pairs(path, tuple(record.items()), inside=True)[0]
    if not names:
        raise _unknown(path, f"a list with {json.dumps(record)[:80]}")
    return names[0], int(numbers[0]) if numbers else None


def _is_number(part: Any) -> bool:
    """Whether a part of JSON is a class's number, as a number or as text."""
    return (isinstance(part, int) and not isinstance(part, bool) and part >= 0) or (
        isinstance(part, str) and _NUMBER.fullmatch(part.strip()) is not None
    )


def _unknown(path: remote.Path, found: str) -> UserError:
    return UserError(
        f"{path}: JSON of a kind that is not known: {found}; expected a list of names, {{name: number}}, "
        '{number: name} or a list of {"id": number, "name": name}'
    )


def _line_of(content: str, name: str) -> int:
    """The number of the first line that has a name."""
    place = max(content.find(json.dumps(name, ensure_ascii=False)), content.find(json.dumps(name)), 0)
    return content.count("\n", 0, place) + 1
