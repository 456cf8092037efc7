"""Text files as people have them, and one spelling of names: what sources share."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence

from jax_video.data import remote
from jax_video.errors import UserError

# A file of another kind than expected may have lines of any length; to search a line for a label takes time that grows
# with the square of its length, or of its runs of blanks.
_LONGEST_LINE = 2**13  # characters of a line with a path and a label: a path has at most 4096
LONGEST = 2**20  # characters of any other line, such as JSON in one line
MOST_BYTES = 2**30  # of a file: lists of a million videos have a tenth of it
_LONGEST_RUN = 2**8  # of blanks and commas one after the other
_NO_TEXT = {  # how files begin that are often taken for text, and what to do
    b"PK\3\4": "an Excel file or another archive: save its table as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel file: save its table as CSV",
    b"PAR1\x15": "a Parquet file: name it .parquet",
    b"\x1f\x8b": "compressed: unpack it",
    b"version https://git-lfs": "the pointer that Git LFS leaves in its place: git lfs pull brings it",
}


def read_text(path: remote.Path, longest: int = LONGEST) -> str:
    """A text file as people have it: UTF-8 or UTF-16, with or without byte order mark, lines ended in any way.

    Raises:
      UserError: it cannot be read, is no such text, or has a line of more than `longest` characters.
    """
    try:
        with remote.reaching(path), path.open("rb") as file:
            parts = [file.read(2**16)]
            if b"\0" not in parts[0] or parts[0].startswith((b"\xff\xfe", b"\xfe\xff")):  # a device never ends
                while parts[-1] and sum(map(len, parts)) <= MOST_BYTES:
                    parts.append(file.read(2**24))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from error
    data = b"".join(parts)
    if len(data) > MOST_BYTES:
        raise UserError(f"{path} has more than {MOST_BYTES:,} bytes, more than any list of videos: is it one?")
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        # Names of files need not be valid Unicode: surrogateescape carries any bytes through.
        text = data.decode("utf-16") if wide else data.decode("utf-8-sig", errors="surrogateescape")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} begins as UTF-16 text and is none ({error.reason}); save it as UTF-8") from error
    for signature, advice in _NO_TEXT.items():
        if data.startswith(signature):
            raise UserError(f"{path} is no text, but {advice}")
    if "\0" in text:
        raise UserError(f"{path} is no text: it has zero bytes; save it as UTF-8")
    text = re.sub("^\ufeff", "", text.replace("\r\n", "\n").replace("\r", "\n"), flags=re.MULTILINE)  # joined files
    _check_lines(path, text, longest)
    return text


def _check_lines(path: remote.Path, text: str, longest: int) -> None:
    start, number = 0, 1
    while start <= len(text):  # without a copy of all lines
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if end - start > _LONGEST_RUN:
            where = f"{path}:{number}: expected a line of text"
            if end - start > longest:
                raise UserError(f"{where}, got one of {end - start:,} characters: {text[start : start + 60]!r}…")
            line = text[start:end].strip()
            if (run := max(map(len, re.findall(r"[\s,;:=|]+", line)), default=0)) > _LONGEST_RUN:
                raise UserError(f"{where}, got {run:,} blanks or commas in a row after {line[:60]!r}…")
        start, number = end + 1, number + 1


def read_lines(path: remote.Path) -> list[tuple[int, str]]:
    """(number from 1, line without blanks at its ends) of the lines that are not blank. Raises as `read_text`."""
    lines = read_text(path, _LONGEST_LINE).split("\n")
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def unquote(text: str) -> str:
    """A name without the blanks and quotes around it, composed."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].replace(2 * text[0], text[0]).strip()
    return compose(text)


def compose(text: str) -> str:
    """One spelling of letters with accents (NFC): so a name as macOS stores it, decomposed, equals that in a list."""
    return unicodedata.normalize("NFC", text)


def is_unicode(text: str) -> bool:
    """Whether it holds no bytes that are not UTF-8 (`read_text` carries them through)."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def defect(name: str) -> str:
    """Why a text can be no name of a class; empty if it can."""
    if not is_unicode(name):
        return "is no UTF-8"
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        return "has a tab, a line break or another control character"
    return ""


def fold(text: str) -> str:
    """A spelling that is equal for names that differ in case only."""
    return compose(text).casefold()


def read_csv(path: remote.Path, *, prose: bool = False) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of the rows that are not blank; cells are composed, without blanks around them.

    `prose` allows long cells and cells of several lines, such as descriptions; a quote that is not closed then takes
    all up to the next one into its cell, or is noticed at the end of the file.
    """
    text = read_text(path, LONGEST if prose else _LONGEST_LINE)
    delimiter = max(",;\t", key=text.lstrip("\n").partition("\n")[0].count)  # spreadsheets write the other two
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=prose)
    number = 1
    try:
        for row in reader:
            if not prose and any("\n" in cell for cell in row):
                raise UserError(f"{path}:{number}: a quote that is not closed in its line")
            cells = [compose(cell.strip()) for cell in row]
            if any(cells):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{number}: not a table of comma-separated values ({error})") from error


def split_cells(line: str, delimiter: str) -> list[str]:
    """The cells of a line, composed, without the blanks and quotes around them."""
    try:
        (cells,) = csv.reader([line], delimiter=delimiter, skipinitialspace=True)
    except csv.Error:  # a cell that is longer than any should be
        cells = line.split(delimiter)
    return [compose(cell.strip()) for cell in cells]


def short(line: str) -> str:
    """A line, or a part of one, as a message shows it."""
    return repr(line if len(line) <= 200 else f"{line[:200]}…")


def some(names: Sequence[str]) -> str:
    """The names in one line, at most ten of them."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
