"""Files of records whose fields have names: CSV and TSV with a header, JSON, JSON lines, Parquet."""

import datetime
import decimal
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from jax_video.data import documents, remote
from jax_video.data.sources import text
from jax_video.errors import UserError

_SCALARS = (str, int, float, decimal.Decimal, datetime.date, datetime.time)


class Record(NamedTuple):
    """A row of a table."""

    where: str  # file:line, or file and the number of the row
    cells: dict[str, str]  # by the names of the columns; empty where there is nothing


class Table(NamedTuple):
    """A file of records."""

    columns: list[str]  # those that hold text, numbers or dates, in their order
    nested: list[str]  # those of lists, objects or bytes, which are not read
    records: list[Record]


def read(path: remote.Path, joined_by: str = "") -> Table:
    """Read a table; the file's extension says of what kind it is.

    Args:
      joined_by: what is put between the elements of a list of texts or numbers, so that it becomes a cell; empty: lists
        are not read.

    Raises:
      UserError: it cannot be read, is not what its name says, or has a row that does not fit its header; says which.
    """
    kind = path.suffix.lower()
    if kind in (".jsonl", ".ndjson", ".json"):
        in_lines = kind != ".json" or _is_in_lines(text.read_text(path, text.MOST_BYTES))
        return _from_objects(_json_lines(path) if in_lines else _json_list(path), joined_by)
    if kind in (".parquet", ".pq"):
        return _from_parquet(path, joined_by)
    return _from_csv(path)


def read_json(path: remote.Path, shape: Any) -> Any:
    """Read a JSON file. Raises UserError if it cannot be read or has another shape (see `documents`)."""
    try:
        return documents.parse(text.read_text(path, text.MOST_BYTES), shape)
    except documents.Damaged as error:
        raise UserError(f"{path}: {error}") from error


def _from_csv(path: remote.Path) -> Table:
    rows = text.read_csv(path, prose=True)
    number, header = next(rows, (1, []))
    while len(header) > 1 and not any(header[-2:]):  # spreadsheets may write delimiters at the ends of all lines
        header.pop()
    _check_header(f"{path}:{number}", header)
    records = []
    for number, cells in rows:
        while len(cells) > len(header) and not cells[-1]:  # a delimiter at the end of the line
            cells.pop()
        if len(cells) != len(header):
            raise UserError(
                f"{path}:{number}: expected {len(header)} cells ({text.some(header)}), got {len(cells)}: "
                f"{text.short(','.join(cells))}"
            )
        if cells == header:
            raise UserError(f"{path}:{number}: the header again: where two tables were joined, remove the line")
        records.append(Record(f"{path}:{number}", dict(zip(header, cells, strict=True))))
    return Table(header, [], records)


def _check_header(where: str, header: list[str]) -> None:
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{where}: the header has two columns called {text.short(repeated)}: rename one")


def _is_in_lines(content: str) -> bool:
    """Whether JSON has an object in each line, as a file that should be called .jsonl."""
    lines = [line.strip() for line in content.split("\n", 9) if line.strip()]
    return len(lines) > 1 and all(line.startswith("{") and line.endswith("}") for line in lines[:2])


def _json_lines(path: remote.Path) -> Iterator[tuple[str, dict]]:
    for number, line in enumerate(text.read_text(path).split("\n"), 1):
        if line.strip():
            try:
                yield f"{path}:{number}", documents.parse(line, dict)
            except documents.Damaged as error:
                raise UserError(f"{path}:{number}: {error}; expected an object in each line") from error


def _json_list(path: remote.Path) -> Iterator[tuple[str, dict]]:
    return ((f"{path}, row {number}", row) for number, row in enumerate(read_json(path, [dict]), 1))


def _from_objects(objects: Iterable[tuple[str, dict]], joined_by: str) -> Table:
    """A table of objects, of which each may lack some of the columns."""
    rows = list(objects)
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    nested = {name for _, row in rows for name, value in row.items() if _is_nested(value, joined_by)}
    flat = [name for name in columns if name not in nested]
    records = [Record(where, {name: _cell(row.get(name), where, joined_by) for name in flat}) for where, row in rows]
    return Table(flat, [name for name in columns if name in nested], records)


def _is_nested(value: Any, joined_by: str) -> bool:
    """Whether a value cannot be a cell."""
    if isinstance(value, list) and joined_by:
        return any(isinstance(each, list | dict | bytes) for each in value)
    return isinstance(value, list | dict | bytes)


def _from_parquet(path: remote.Path, joined_by: str) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"{path}: what reads Parquet is not installed: pip install pyarrow, or save it as CSV"
        ) from error
    try:
        with remote.reaching(path), path.open("rb") as file, parquet.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            _check_header(str(path), schema.names)
            kinds = pyarrow.types
            inner = {field.name: field.type for field in schema}
            for name, kind in inner.items():
                if joined_by and (kinds.is_list(kind) or kinds.is_large_list(kind)):
                    inner[name] = kind.value_type
            nested = [
                name
                for name, kind in inner.items()
                if kinds.is_nested(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind)
            ]
            flat = [name for name in schema.names if name not in nested]
            rows = [row for batch in opened.iter_batches(columns=flat) for row in batch.to_pylist()]
    except (OSError, pyarrow.ArrowException) as error:  # only some of the second are OSErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot read {path} as Parquet ({reason[:200]})") from error
    places = [(f"{path}, row {number}", row) for number, row in enumerate(rows, 1)]
    records = [Record(where, {name: _cell(row[name], where, joined_by) for name in flat}) for where, row in places]
    return Table(flat, nested, records)


def _cell(value: Any, where: str, joined_by: str) -> str:
    """A value as a table's cell has it."""
    if isinstance(value, list):
        cells = [_cell(each, where, "") for each in value]
        if held := next((cell for cell in cells if joined_by in cell), None):
            raise UserError(
                f"{where}: {text.short(held)} in a list has {joined_by!r}, by which others are told apart: choose "
                "another --label_separator"
            )
        return joined_by.join(cells)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return json.dumps(value)
    return text.compose(str(value).strip()) if isinstance(value, _SCALARS) else str(value)
