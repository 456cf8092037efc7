"""JSON that this library writes and reads back: whole documents, and files with one value in each line.

A file may no longer be as it was written: a kill has cut it off, a power loss has left NUL bytes, a person has edited
it. So everything is read here, and compared with the shape that it must have, before it is used. `Damaged` says what is
wrong. The caller decides what follows: what can be computed again is, with a message; anything else is an error.

A shape is a type, a union of types, `[shape]` for a list, or `{key: shape}` for an object, which may have more keys; a
tuple allows each of its shapes. A key that ends with "?" may be missing, and the key "*" stands for all keys. `float`
is any finite number, and `int` one that fits into 64 bits.
"""

import json
import math
import os
import re
import types
import typing
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jax_video.data import remote
from jax_video.errors import shown

CHECKSUM = "crc32"  # the key of a sealed document's checksum
UNFINISHED = "unfinished"  # the message for a last line that is cut off
_MOST = 2**63


class Damaged(ValueError):
    """JSON that is not as it was written; the message says what is wrong."""


def parse(text: str | bytes, shape: Any = object) -> Any:
    """Parse JSON. File names in it may be any bytes (surrogateescape).

    Raises:
      Damaged: it is not JSON, or has another shape.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8", errors="surrogateescape")
        value = json.loads(text)
    except json.JSONDecodeError as error:
        found = "NUL bytes" if "\0" in text else f"{error.msg} at column {error.colno}"
        place = f" of line {error.lineno}" if error.lineno > 1 and "\0" not in text else ""
        raise Damaged(f"not JSON ({found}{place})" if text else "empty") from error
    except (ValueError, RecursionError) as error:  # a number with thousands of digits; thousands of brackets
        raise Damaged(f"not JSON of ours ({str(error).partition(';')[0]})") from error
    if re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")
        except (UnicodeError, RecursionError) as error:
            raise Damaged("it has half of a character") from error
    if wrong := defect(value, shape):
        raise Damaged(wrong)
    return value


def read(path: remote.Path, shape: Any = object) -> Any:
    """Read a document, without its checksum.

    Raises:
      Damaged: it cannot be read, or is not as it was written.
      FileNotFoundError: there is no such file.
    """
    return unsealed(parse(content(path), shape))


def write(
    path: str | os.PathLike, document: Mapping[str, Any], *, indent: int | None = None, seal: bool = True
) -> None:
    """Write a document, whole or not at all; with `seal` it gets a checksum, by which `read` notices later changes.

    Raises:
      OSError: it cannot be written.
    """
    text = json.dumps(sealed(document) if seal else document, ensure_ascii=False, allow_nan=False, indent=indent) + "\n"
    remote.write_whole(path, [text.encode(errors="surrogateescape")])


def line(value: Any) -> bytes:
    """A value as one line of JSON in UTF-8, with its newline, for `lines` to read.

    Other characters that end a line for some programs, or that control a terminal, are escaped; so are the bytes of a
    file name that are not UTF-8 (surrogateescape).
    """
    return (shown(json.dumps(value, ensure_ascii=False, allow_nan=False)) + "\n").encode(errors="backslashreplace")


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document with its checksum."""
    return {**document, CHECKSUM: checksum(document)}


def unsealed(value: Any) -> Any:
    """A value without its checksum; earlier versions wrote none. Raises Damaged if the checksum does not match."""
    try:
        if isinstance(value, dict) and CHECKSUM in value and value.pop(CHECKSUM) != checksum(value):
            raise Damaged(f"changed since it was written: it does not have its checksum, {CHECKSUM!r}")
    except RecursionError as error:  # it was just shallow enough to be read
        raise Damaged("not JSON of ours (nested too deep)") from error
    return value


def checksum(value: Any) -> int:
    """CRC-32 of a value as JSON with sorted keys."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def lines(data: bytes | Iterable[bytes], shape: Any = object) -> Iterator[tuple[int, Any]]:
    """The lines of a file as (number from 1, value); for a damaged line the value is a `Damaged`.

    Blank lines are skipped. A damaged last line without a newline was cut off by a kill: its message is UNFINISHED.
    """
    rows = data.splitlines(keepends=True) if isinstance(data, bytes) else data
    for number, line in enumerate(rows, 1):
        if not line.strip():
            continue
        try:
            yield number, parse(line, shape)
        except Damaged as error:
            yield number, error if line.endswith(b"\n") or b"\0" in line else Damaged(UNFINISHED)


def read_lines(path: remote.Path, shape: Any = object) -> list[tuple[int, Any]]:
    """`lines` of a file. Raises as `read` does."""
    return list(lines(content(path), shape))


def defect(value: Any, shape: Any, name: str = "it") -> str:
    """Describe how a value differs from a shape; empty if it fits."""
    if isinstance(shape, tuple):
        reasons = [defect(value, each, name) for each in shape]
        return "" if "" in reasons else reasons[-1]
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return f"{name} is {_shown(value)}, expected an object"
        for key, inner in (dict.fromkeys(value, shape["*"]) if "*" in shape else shape).items():
            known = key if key in value else key.removesuffix("?")
            if known in value:
                if wrong := defect(value[known], inner, repr(known)):
                    return wrong
            elif known == key:
                return f"{key!r} is missing"
        return ""
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{name} is {_shown(value)}, expected a list"
        if shape == [float] and set(map(type, value)) <= {float} and all(map(math.isfinite, value)):
            return ""  # a shortcut: a test's scores are millions of numbers
        found = (defect(each, shape[0], f"number {place} of {name}") for place, each in enumerate(value))
        return next(filter(None, found), "")
    kinds = typing.get_args(shape) or (shape,)
    if any(_is(value, kind) for kind in kinds):
        return ""
    return f"{name} is {_shown(value)}, expected {' or '.join(_NAMES.get(kind, kind.__name__) for kind in kinds)}"


_NAMES = {types.NoneType: "null", dict: "an object", list: "a list", float: "a number"}


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float):  # bool is an int
        return abs(value) < _MOST if type(value) is int else type(value) is kind and math.isfinite(value)
    return isinstance(value, kind)


def _shown(value: Any) -> str:
    """A value as a message shows it: at most 80 characters."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value) if type(value) is not int or abs(value) < _MOST else "a very large number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def content(path: remote.Path) -> bytes:
    """The bytes of a file. Raises as `read` does."""
    try:
        with remote.reaching(path):
            return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError("there is no such file") from error
    except OSError as error:
        raise Damaged(f"it cannot be read: {error.strerror or error}") from error
