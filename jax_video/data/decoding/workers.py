"""Worker processes, in which a decoder may crash, hang or use up memory: that costs one file, not the whole work."""

import contextlib
import errno
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import cv2
import numpy as np

from jax_video.data import processes
from jax_video.errors import UnavailableError, UserError, VideoError, listed, shown

if sys.platform != "win32":
    import resource

LATE = "not done after"  # begins the reason of a file that takes longer than its timeout
_SILENT = 0.1  # seconds between two of a worker's messages that it goes on, at least
_START = 60.0  # seconds for a process to start, besides the task's own
_AHEAD = 2**22  # bytes that a worker may send before they are received
_MEMORY = 2**30  # bytes that one process may have
_LIMIT = f"{_MEMORY / 2**30:g} GiB of memory"
_TOO_MUCH = f"needs more than {_LIMIT}"  # the reason of a file that needs more
_OUT_OF_MEMORY = errno.ENOMEM  # exit code after a failed allocation: what is left of the memory is fragmented
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGBUS, signal.SIGTRAP)


class NoVerdict(str):
    """Why a file could not be looked at, if the system or this library is to blame and not the file.

    `traceback` is that of an unexpected exception, otherwise empty.
    """

    traceback: str

    def __new__(cls, reason: str, traceback: str = ""):
        self = super().__new__(cls, reason)
        self.traceback = traceback
        return self

    def __reduce__(self):
        return type(self), (str(self), self.traceback)


def stop_at(strange: Mapping[str, str]) -> None:
    """Raise UserError if files could not be looked at for a reason that is not theirs; nothing is stored about them.

    Args:
      strange: name of a file or a shard -> the reason; the traceback of a NoVerdict is printed on stderr.
    """
    for trace in filter(None, {getattr(reason, "traceback", ""): None for reason in strange.values()}):
        print(trace, file=sys.stderr)
    if strange:
        raise UserError(
            f"stopped at {len(strange):,} of the files, by no fault of theirs:\n"
            + listed([f"{shown(path)}: {reason}" for path, reason in strange.items()])
            + "\nNothing was stored of it. Mend it, or move these files away; the same command goes on where it was"
        )


class Piece(NamedTuple):
    """An intermediate result, which a function in a worker has sent with `give`."""

    value: Any
    arrays: dict[str, np.ndarray]


def run(
    tasks: Iterable, function: Callable[[Any], Any], *, workers: int, timeout: float | Callable[[Any], float]
) -> Generator[tuple[int, Any], None, None]:
    """Call a function with each task in worker processes, and yield the results as they finish.

    A decoder that crashes, never ends or (on Linux) needs more than 1 GiB of memory costs its process, which is
    replaced, and its file, which counts as broken.

    Args:
      tasks: what `function` gets, for example paths; each is taken from here only when a process is free for it.
      function: a function of a module (not of the main one), that may raise VideoError.
      workers: number of processes.
      timeout: seconds that a task may take; or a function from a task to its seconds. They count from the function's
        last call of `go_on` or `give`, if it calls these.

    Yields:
      (index in tasks, what `function` returns; or a str, why the file is broken; or a NoVerdict). Before that, each
      Piece that the function gives; it waits with further ones while too much is not taken.

    Raises:
      OSError: what `function` raised, for example for a full disk: it is not one file's fault.
    """
    with contextlib.closing(Pool(function)) as pool:
        yield from pool.run(tasks, workers=workers, timeout=timeout)


class Pool:
    """Worker processes that call one function, and stay for further tasks until `close` or this process's end."""

    def __init__(self, function: Callable[[Any], Any]):
        self._function = function
        self._idle: list[tuple[BaseProcess, Connection]] = []
        self._busy: list[dict[Connection, tuple[BaseProcess, int, float, float]]] = []  # of each `run`
        self._owner = os.getpid()

    def start(self) -> None:
        """Start a process, which takes most of a second, so that it is ready when the first task comes."""
        self._idle.append(_start(self._function))

    def run(
        self, tasks: Iterable, *, workers: int, timeout: float | Callable[[Any], float]
    ) -> Generator[tuple[int, Any], None, None]:
        """Run tasks as the function `run` does."""
        seconds = timeout if callable(timeout) else lambda _: timeout
        waiting = enumerate(tasks)
        busy: dict[Connection, tuple[BaseProcess, int, float, float]] = {}  # process, index, timeout, deadline
        self._busy.append(busy)
        try:
            while True:
                while len(busy) < workers and (following := next(waiting, None)) is not None:
                    index, task = following
                    process, connection = self._take()
                    limit = seconds(task)
                    busy[connection] = process, index, limit, time.monotonic() + limit + _START
                    connection.send(task)
                if not busy:
                    return

                soonest = min(deadline for *_, deadline in busy.values())
                ready = multiprocessing.connection.wait(list(busy), timeout=max(0, soonest - time.monotonic()))
                for connection in [connection for connection in busy if connection in ready]:
                    process, index, limit, _ = busy.pop(connection)
                    try:
                        result = connection.recv()
                        if isinstance(result, _Given):
                            result = result.received(connection)
                        if isinstance(result, _GoesOn | Piece):
                            busy[connection] = process, index, limit, time.monotonic() + limit
                        else:
                            self._idle.append((process, connection))
                    except (EOFError, OSError):
                        process.join()
                        connection.close()
                        result = _ending(process)
                    if isinstance(result, OSError):
                        raise result
                    if not isinstance(result, _GoesOn):
                        yield index, result
                for connection, (process, index, limit, deadline) in list(busy.items()):
                    if deadline <= time.monotonic() and not connection.poll():  # else its result waits for us
                        del busy[connection]
                        _stop(process, connection)
                        yield index, late(limit)
        finally:
            for connection, (process, *_) in busy.items():
                _stop(process, connection)
            self._busy = [other for other in self._busy if other is not busy]

    def kill(self) -> None:
        """Kill the processes that work, from any thread; `run` reports it for their tasks."""
        for busy in self._busy:
            for process, *_ in list(busy.values()):
                process.kill()

    def close(self, *, keep: int = 0) -> None:
        """End the idle processes, except for `keep` of them."""
        while len(self._idle) > keep:
            _stop(*self._idle.pop())

    def _take(self) -> tuple[BaseProcess, Connection]:
        """An idle process, or a new one."""
        if self._owner != os.getpid():  # this process is a fork, and the idle ones are its parent's
            self._owner, self._idle = os.getpid(), []
        while self._idle:
            process, connection = self._idle.pop()
            if process.is_alive():
                return process, connection
            connection.close()
        return _start(self._function)


def late(seconds: float) -> str:
    """The reason that `run` gives for a file that took longer than its timeout."""
    return f"{LATE} {seconds:g} s"


def is_of_other_limits(reason: str | None, seconds: float) -> bool:
    """Whether `run` gave this reason for another timeout than this one, or for memory where nothing is limited (0)."""
    lacked = reason is not None and reason.startswith(_TOO_MUCH)
    late_before = reason is not None and reason.startswith(LATE)
    return (late_before and reason != late(seconds)) or (lacked and not seconds)


class _GoesOn:
    """What a worker sends to say that it goes on with its file."""


class _Given(NamedTuple):
    """What a worker sends before the bytes of a Piece's arrays, which are not pickled."""

    value: Any
    arrays: dict[str, tuple[tuple[int, ...], str]]  # shape and type of each

    def received(self, connection: Connection) -> Piece:
        arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in self.arrays.items()}
        for array in arrays.values():
            _receive(connection, array.reshape(-1).view(np.uint8).data)
        return Piece(self.value, arrays)


_owner: Connection | None = None  # in a worker: leads to the process that waits for it
_told = 0.0  # when something was last sent there


def go_on() -> None:
    """Report from a worker that it goes on with its file, so that its timeout starts anew; elsewhere do nothing."""
    if _owner is not None and time.monotonic() > _told + _SILENT:
        _say_that_it_goes_on()


def _say_that_it_goes_on() -> None:
    global _told
    assert _owner is not None
    _told = time.monotonic()
    _owner.send(_GoesOn())


def give(value: Any, **arrays: np.ndarray | list[np.ndarray]) -> None:
    """Send an intermediate result (a Piece) from a worker; waits while too much is not taken.

    Args:
      value: is pickled.
      arrays: are not pickled; a list of arrays of one shape becomes one, as by np.stack.
    """
    global _told
    assert _owner is not None
    kinds = {}
    for name, array in arrays.items():
        first = array[0] if isinstance(array, list) else array
        kinds[name] = (len(array), *first.shape) if isinstance(array, list) else first.shape, first.dtype.str
    _owner.send(_Given(value, kinds))
    for array in arrays.values():
        for part in array if isinstance(array, list) else [array]:
            _send(_owner, np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    _told = time.monotonic()


def _send(connection: Connection, data: memoryview) -> None:
    """Send bytes whose number the receiver knows, with fewer copies than `Connection.send_bytes` makes."""
    if sys.platform == "win32":
        connection.send_bytes(data)
        return
    while data:
        data = data[os.write(connection.fileno(), data) :]


def _receive(connection: Connection, data: memoryview) -> None:
    """Fill `data` with what `_send` sends."""
    if sys.platform == "win32":
        connection.recv_bytes_into(data)
        return
    while data:
        count = os.readv(connection.fileno(), [data])
        if not count:
            raise EOFError
        data = data[count:]


def _start(function: Callable) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")  # forking a process that has threads (the progress bar) can hang
    connection, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, function), name=processes.WORKER, daemon=True)
    processes.keep_main_to_itself()
    with processes.keeping_from_children(signal.SIGINT):  # Ctrl-C is for the parent
        process.start()
    theirs.close()  # so that the end of the process is the end of the connection
    return process, connection


def _work(connection: Connection, function: Callable) -> None:
    """Run in a worker: receive tasks and send what `function` returns, until the other end is closed."""
    global _owner
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _owner = connection
    _run_ahead(connection)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit_memory()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            task = connection.recv()
            _say_that_it_goes_on()  # its own start may have taken a while
            _forget_peak()
            try:
                result = function(task)
            except Exception as error:
                if _lacks_memory(error):
                    os._exit(_OUT_OF_MEMORY)
                result = _said(error)
            connection.send(result)


def _run_ahead(connection: Connection) -> None:
    """Let a worker run ahead of what is taken, by up to _AHEAD bytes if the system allows it."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AHEAD)


def _said(error: Exception) -> str | OSError:
    """The reason that an error gives for a file; if the file is not to blame, a NoVerdict, or an OSError itself."""
    if isinstance(error, UnavailableError):
        return NoVerdict(error.reason)
    if isinstance(error, VideoError):
        return error.reason + _doubt()
    if isinstance(error, OSError):
        return error
    return NoVerdict(f"{type(error).__name__}: {error}", traceback.format_exc())


def _limit_memory() -> None:
    """Limit the process to 1 GiB of memory; no limit where the system does not say how large it is."""
    sizes = _sizes()
    if sys.platform == "win32" or not sizes:
        return
    # Much of the data, such as room for numpy's threads, is only reserved. What is resident counts.
    limit = sizes["VmData"] + max(0, _MEMORY - sizes["VmRSS"])
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or limit < most:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _sizes() -> dict[str, int]:
    """The memory that this process uses, in bytes, by the names in /proc/self/status; empty except on Linux."""
    status = pathlib.Path("/proc/self/status")
    text = status.read_text() if status.exists() else ""
    return {name: int(size) * 1024 for name, size in re.findall(r"^(Vm\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def _doubt() -> str:
    """What to add to a reason if much memory was used: some decoders take a failed allocation for damage."""
    return f"; or it needs more than {_LIMIT}" if _sizes().get("VmHWM", 0) > _MEMORY / 2 else ""


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is a failed allocation of Python or OpenCV."""
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "code", 0) == cv2.Error.StsNoMem:
            return True
        error = error.__cause__ or error.__context__
    return False


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: the flow of a video may take hours."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _stop(process: BaseProcess, connection: Connection) -> None:
    process.kill()
    process.join()
    connection.close()


def _ending(process: BaseProcess) -> str:
    """Why a process has ended by itself, or was ended."""
    code = process.exitcode
    assert code is not None  # it was waited for
    if code == _OUT_OF_MEMORY:
        return _TOO_MUCH
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code == 1 or (code < 0 and -code not in _CRASHES):  # Python could not start; or the process was killed
        return NoVerdict(f"the process that looked at it was ended ({how})")
    return f"the decoder crashes ({how})"
