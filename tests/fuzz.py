"""Mutated copies of videos, and what becomes of each of many files in a process that nothing protects."""

import contextlib
import multiprocessing
import pathlib
import re
import resource
import signal
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

GIB = 2**30
# Of parts of MP4, AVI and Matroska files, beside which stand sizes and counts.
_TAGS = (
    *b"moov mvhd trak tkhd elst mdia mdhd stbl stsd avc1 stts ctts stss stsc stsz stco mdat".split(),
    *b"RIFF LIST avih strl strh strf movi idx1 00dc 01wb".split(),
    *map(bytes.fromhex, ("1a45dfa3", "18538067", "1549a966", "1654ae6b", "1f43b675", "1c53bb6b", "114d9b74")),
)
_INDICES = (b"moov", b"idx1", bytes.fromhex("1c53bb6b"))  # Where they say what lies where.
_CODEC_HEADERS = (b"avcC", b"strf", bytes.fromhex("00000120"), bytes.fromhex("63a2"))
_EXTREMES = (0, 1, 2**8 - 1, 2**15 - 1, 2**16 - 1, 2**24, 2**28, 2**31 - 1, 2**31, 2**32 - 1)
_HEADER = 4096


def mutants(files: Mapping[str, bytes], count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(a name that says what was done, the content) of mutated copies of the files, which have names with suffixes."""
    names = sorted(files)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        mutation = MUTATIONS[number % len(MUTATIONS)]
        name, other = rng.choice(names, 2).tolist()
        mutant = mutation(rng, bytearray(files[name]), bytearray(files[other]))
        yield f"{number:04d}-{mutation.__name__.strip('_')}{pathlib.Path(name).suffix}", bytes(mutant)


def _flip(rng: np.random.Generator, data: bytearray, start: int, end: int, count: int) -> bytearray:
    for place in rng.integers(start, max(start + 1, min(end, len(data))), count).tolist():
        data[place] ^= 1 << int(rng.integers(8))
    return data


def _one_bit(rng, data, other):
    return _flip(rng, data, 0, len(data), 1)


def _some_bits(rng, data, other):
    return _flip(rng, data, 0, len(data), int(rng.integers(2, 50)))


def _many_bits(rng, data, other):
    return _flip(rng, data, 0, len(data), len(data) // int(rng.integers(20, 1000)))


def _header_bits(rng, data, other):
    return _flip(rng, data, 0, _HEADER, int(rng.integers(1, 30)))


def _index_bits(rng, data, other):
    start = max(map(data.find, _INDICES), default=0)
    return _flip(rng, data, max(0, start), max(0, start) + _HEADER, int(rng.integers(1, 30)))


def _codec_bits(rng, data, other):
    start = _place(rng, data, _CODEC_HEADERS)
    return _flip(rng, data, start, start + 64, int(rng.integers(1, 8)))


def _truncated(rng, data, other):
    return data[: rng.integers(1, len(data))]


def _zeroed(rng, data, other):
    start, size = _block(rng, data)
    data[start : start + size] = bytes(len(data[start : start + size]))
    return data


def _shuffled(rng, data, other):
    size = int(2 ** rng.uniform(4, 14))
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    one, two = rng.integers(0, len(blocks), 2).tolist()
    blocks[one], blocks[two] = blocks[two], blocks[one]
    return b"".join(blocks)


def _cut_out(rng, data, other):
    start, size = _block(rng, data)
    return data[:start] + data[start + size :]


def _other_header(rng, data, other):
    """Often of another container."""
    size = int(rng.choice([16, 64, 512, _HEADER, 16384]))
    return other[:size] + data[size:]


def _extreme_sizes(rng, data, other):
    for _ in range(rng.integers(1, 4)):
        _put(rng, data, _place(rng, data, _TAGS) + int(rng.choice([-4, 4, 8, 12, 16])), int(rng.choice(_EXTREMES)))
    return data


def _extreme_numbers(rng, data, other):
    """Wherever a header has a small number that may be a width, a height or a count of frames."""
    short = str(rng.choice(["<H", ">H"]))
    places = [
        place for place in range(min(len(data), _HEADER) - 2) if 16 <= struct.unpack_from(short, data, place)[0] <= 512
    ]
    for place in rng.choice(places or [0], rng.integers(1, 4)).tolist():
        struct.pack_into(short, data, place, int(rng.choice(_EXTREMES)) & 0xFFFF)
    return data


def _trailing(rng, data, other):
    return data + rng.choice([rng.bytes(5000), bytes(5000), bytes(other)])


def _place(rng: np.random.Generator, data: bytearray, tags: Iterable[bytes]) -> int:
    """Where one of the tags that the data has stands."""
    found = [tag for tag in tags if tag in data]
    if not found:
        return 0
    tag = found[rng.integers(len(found))]
    places = [match.start() for match in re.finditer(re.escape(tag), data)]
    return places[rng.integers(len(places))]


def _block(rng: np.random.Generator, data: bytearray) -> tuple[int, int]:
    """Start and size of a block; as often in the header as behind it."""
    end = len(data) if rng.random() < 0.5 else min(_HEADER, len(data))
    return int(rng.integers(end)), int(2 ** rng.uniform(2, 14))


def _put(rng: np.random.Generator, data: bytearray, place: int, number: int) -> None:
    if 0 <= place <= len(data) - 4:
        struct.pack_into(str(rng.choice(["<I", ">I"])), data, place, number)


MUTATIONS = (
    _one_bit,
    _some_bits,
    _many_bits,
    _header_bits,
    _index_bits,
    _codec_bits,
    _truncated,
    _zeroed,
    _shuffled,
    _cut_out,
    _other_header,
    _extreme_sizes,
    _extreme_numbers,
    _trailing,
)


class Outcome(NamedTuple):
    """Of a task."""

    result: Any  # What the function returned; what was raised, or how the process ended, in words.
    failed: bool  # Something was raised, or the process ended.
    seconds: float
    memory: int  # Bytes beyond those that the process had before its first task.


class Task(NamedTuple):
    """What is done in another process."""

    function: Callable  # Of a module.
    arguments: tuple


def outcomes(tasks: Iterable[Task], *, seconds: float) -> Iterator[Outcome]:
    """Does one task after the other in a process of its own, replaced if it ends, or takes longer than so long."""
    context = multiprocessing.get_context("spawn")
    process = None
    for task in tasks:
        if process is None:
            connection, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,))
            process.start()
            theirs.close()
        connection.send(task)
        if not connection.poll(seconds):
            process.kill()
        try:
            yield connection.recv()
        except (EOFError, ConnectionError):
            process.join()
            code = process.exitcode
            yield Outcome(f"the process ends: {signal.Signals(-code).name if code < 0 else code}", True, seconds, 0)
            process = None
    if process is not None:
        connection.close()
        process.join()


def _work(connection: Connection) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (8 * GIB, most))  # A failure here is not to take the machine with it.
    before = 0
    with contextlib.suppress(EOFError):
        while True:
            function, arguments = connection.recv()
            before = before or _memory("VmRSS")  # All is imported now.
            with contextlib.suppress(OSError):
                pathlib.Path("/proc/self/clear_refs").write_text("5")  # From here on counts the peak.
            start = time.perf_counter()
            try:
                result, failed = function(*arguments), False
            except Exception as error:
                result, failed = repr(error), True
            connection.send(Outcome(result, failed, time.perf_counter() - start, _memory("VmHWM") - before))


def _memory(name: str) -> int:
    """Bytes of this process; 0 where the system does not say."""
    status = pathlib.Path("/proc/self/status")
    found = re.search(rf"^{name}:\s+(\d+) kB$", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found[1]) * 1024 if found else 0
