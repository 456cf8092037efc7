"""What can become of a file that a program has written and will read again: by an accident, or by somebody's hand."""

import copy
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

DEEP = 100_000
_NESTED = ("[" * DEEP + "]" * DEEP).encode()
_OTHERS: dict[str, bytes] = {
    "a list": b"[]",
    "an object": b"{}",
    "null": b"null",
    "a number": b"3",
    "a string": b'"text"',
    "NaN": b"NaN",
    "a number that is infinite": b"1e999",
    "a number of 5,000 digits": b"9" * 5000,
    "nested lists": _NESTED,
    "nested objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a byte that is no Unicode": b'{"a": "\xff\xfe"}',
    "half of a surrogate pair": b'{"a": "\\ud800"}',
}
_VALUES: dict[str, Any] = {
    "null": None,
    "a string": "text",
    "an empty string": "",
    "-1": -1,
    "10^30": 10**30,
    "1.5": 1.5,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "a list": [],
    "a list of a list": [[]],
    "an object": {},
    "true": True,
}


class Mutation(NamedTuple):
    """Something that happens to the file at a path."""

    name: str
    do: Callable[[pathlib.Path], None]


def of_place() -> Iterator[Mutation]:
    """The file is gone, or something else is in its place."""

    def gone(path: pathlib.Path) -> None:
        path.unlink()

    def folder(path: pathlib.Path) -> None:
        path.unlink()
        path.mkdir()

    def dangling(path: pathlib.Path) -> None:
        path.unlink()
        path.symlink_to(path.with_name("nothing"))

    def loop(path: pathlib.Path) -> None:
        path.unlink()
        path.symlink_to(path)

    def unreadable(path: pathlib.Path) -> None:
        if os.geteuid():
            path.chmod(0)
        else:  # root may read all; this gives it an input/output error
            path.unlink()
            path.symlink_to("/proc/self/mem")

    for do in (gone, folder, dangling, loop, unreadable):
        yield Mutation(do.__name__, do)


def of_bytes(data: bytes, *, flips: int = 8, seed: int = 0) -> Iterator[Mutation]:
    """A disk or a power loss did it."""
    rng = np.random.default_rng(seed)
    middle = len(data) // 2
    found = {
        "empty": b"",
        "cut in the middle": data[:middle],
        "cut by one byte": data[:-1],
        "NUL bytes at the end": data + bytes(40),
        "NUL bytes in the middle": data[:middle] + bytes(40) + data[middle:],
        "NUL bytes in place of the middle": data[:middle] + bytes(40) + data[middle + 40 :],
        "nothing but NUL bytes": bytes(len(data)),
        "blank lines at the end": data + b"\n\n",
        "a byte order mark": b"\xef\xbb\xbf" + data,
        "lines of Windows": data.replace(b"\n", b"\r\n"),
        "a byte that is no Unicode in the middle": data[:middle] + b"\xff" + data[middle + 1 :],
        "twice": data + data,
    } | {f"now {name}": other + b"\n" for name, other in _OTHERS.items()}
    for place in rng.choice(len(data), min(flips, len(data)), replace=False).tolist():
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(7))
        found[f"a flipped bit at byte {place}"] = bytes(flipped)
    for name, content in found.items():
        yield Mutation(name, _write(content))


def of_lines(data: bytes, *, seed: int = 0) -> Iterator[Mutation]:
    """Lines are lost, doubled or torn, or are something else."""
    lines = data.splitlines(keepends=True)
    rng = np.random.default_rng(seed)
    for which in sorted({0, len(lines) - 1, int(rng.integers(len(lines)))}):
        line, before, after = lines[which], lines[:which], lines[which + 1 :]
        found = {
            "lost": (),
            "doubled": (line, line),
            "torn": (line[: len(line) // 2],),
            "torn and ended": (line[: len(line) // 2], b"\n"),
            "behind a blank one": (b"\n", line),
            "behind one of NUL bytes": (bytes(40), b"\n", line),
            "behind NUL bytes": (bytes(40), line),
        } | {f"now {name}": (other, b"\n") for name, other in _OTHERS.items()}
        for name, instead in found.items():
            yield Mutation(f"line {which + 1} {name}", _write(b"".join([*before, *instead, *after])))
    yield Mutation("lines in another order", _write(b"".join(lines[::-1])))


def of_json(
    data: bytes, *, seal: Callable[[Any], None] = lambda value: None, depth: int = 3, indent: int | None = None
) -> Iterator[Mutation]:
    """Parts of a JSON document are missing, or of another type; `seal` puts its checksums right again."""
    content = json.loads(data)
    for keys in _places(content, depth):
        for name, value in {"missing": ..., **_VALUES}.items():
            changed = copy.deepcopy(content)
            node = changed
            for key in keys[:-1]:
                node = node[key]
            if value is ...:
                del node[keys[-1]]
            else:
                node[keys[-1]] = copy.deepcopy(value)
            seal(changed)
            text = json.dumps(changed, ensure_ascii=False, indent=indent)
            yield Mutation(f"{'.'.join(map(str, keys))} {name}", _write(text.encode(errors="surrogateescape")))


def of_json_lines(
    data: bytes, which: int, *, seal: Callable[[bytes], bytes] = lambda data: data, depth: int = 3
) -> Iterator[Mutation]:
    """The same of one line of a file; `seal` puts the checksums of the file right again."""
    lines = data.splitlines(keepends=True)

    def within(mutation: Mutation) -> Callable[[pathlib.Path], None]:
        def do(path: pathlib.Path) -> None:
            mutation.do(path)
            changed = [*lines[:which], path.read_bytes() + b"\n", *lines[which + 1 :]]
            path.write_bytes(seal(b"".join(changed)))

        return do

    for mutation in of_json(lines[which], depth=depth):
        yield Mutation(f"line {which + 1}: {mutation.name}", within(mutation))


def _write(content: bytes) -> Callable[[pathlib.Path], None]:
    def write(path: pathlib.Path) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        path.write_bytes(content)

    return write


def _places(content: Any, depth: int) -> Iterator[tuple]:
    """Keys of the parts of a document, the outer ones first; of a list, its first."""
    if depth == 0 or not isinstance(content, dict | list):
        return
    for key in list(content) if isinstance(content, dict) else range(min(1, len(content))):
        yield (key,)
        for inner in _places(content[key], depth - 1):
            yield (key, *inner)
