"""Processes in which a decoder may crash, hang or ask for all the memory: it costs one file, not the whole work."""

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
import types
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import cv2
import numpy as np

from jax_video.data import processes
from jax_video.errors import UnavailableError, UserError, VideoError, listed, shown

if sys.platform != "win32":
    import resource

LATE = "not done after"  # so many seconds, it is said of a file that takes longer
_SILENT = 0.1  # seconds between two of a worker's words that it goes on
_START = 60.0  # seconds in which a process must have begun with a task, beside the task's own
_AHEAD = 2**22  # bytes that a worker gives before they are taken
_MEMORY = 2**30  # bytes that one process may have
_LIMIT = f"{_MEMORY / 2**30:g} GiB of memory"
_OUT_OF_MEMORY = errno.ENOMEM  # exit code of a process that had one: what is left of its memory is in pieces
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGBUS, signal.SIGTRAP)


class NoVerdict(str):
    """Why a file could not be looked at, where the system or this library is to blame and not the file.

    `traceback` is for what no one has foreseen, or else empty.
    """

    traceback: str

    def __new__(cls, reason: str, traceback: str = ""):
        self = super().__new__(cls, reason)
        self.traceback = traceback
        return self

    def __reduce__(self):
        return type(self), (str(self), self.traceback)


def stop_at(strange: Mapping[str, str]) -> None:
    """Raises UserError where something else than files or videos is to blame, so that nothing is stored of it.

    Args:
      strange: path -> what stood in the way; the traceback of a NoVerdict is printed on stderr.
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
    """What a function has handed over on its way, by `give`."""

    value: Any
    arrays: dict[str, np.ndarray]


def run(
    tasks: Iterable, function: Callable[[Any], Any], *, workers: int, timeout: float | Callable[[Any], float]
) -> Generator[tuple[int, Any], None, None]:
    """Calls a function with each task in processes of their own, and yields what becomes of them as they finish.

    A decoder that crashes, never ends or (on Linux) needs more than 1 GiB of memory costs its process, which is
    replaced, and its file, which is broken.

    Args:
      tasks: what `function` gets, for example paths; each is taken from here only when a process is free for it.
      function: a function of a module (not of the main one), that may raise VideoError.
      workers: number of processes.
      timeout: seconds that one may take; or a function from a task to them. Where the function calls `go_on` or `give`,
        they count from its last call.

    Yields:
      (index in tasks, what `function` returns, or in plain words why the file is broken, or a NoVerdict); before that
      each Piece that the function gives. It waits with the next one until this is taken.

    Raises:
      OSError: what `function` raised, for example of a full disk: it is not one file's fault.
    """
    with contextlib.closing(Pool(function)) as pool:
        yield from pool.run(tasks, workers=workers, timeout=timeout)


class Pool:
    """Processes that call one function, and stay for the next tasks until they are closed or this process ends."""

    def __init__(self, function: Callable[[Any], Any]):
        self._function = function
        self._idle: list[tuple[BaseProcess, Connection]] = []
        self._busy: list[dict[Connection, tuple[BaseProcess, int, float, float]]] = []  # of each `run`
        self._owner = os.getpid()

    def start(self) -> None:
        """Starts a process, which takes most of a second, so that it is ready when the first task comes."""
        self._idle.append(_start(self._function))

    def run(
        self, tasks: Iterable, *, workers: int, timeout: float | Callable[[Any], float]
    ) -> Generator[tuple[int, Any], None, None]:
        """Does what `run` says."""
        seconds = timeout if callable(timeout) else lambda _: timeout
        waiting = enumerate(tasks)
        busy: dict[Connection, tuple[BaseProcess, int, float, float]] = {}  # with index in tasks, seconds, deadline
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
                    if deadline <= time.monotonic() and not connection.poll():  # or else it waits for us
                        del busy[connection]
                        _stop(process, connection)
                        yield index, late(limit)
        finally:
            for connection, (process, *_) in busy.items():
                _stop(process, connection)
            self._busy = [other for other in self._busy if other is not busy]

    def kill(self) -> None:
        """Ends, from any thread, the processes that work; `run` says so of their tasks."""
        for busy in self._busy:
            for process, *_ in list(busy.values()):
                process.kill()

    def close(self, *, keep: int = 0) -> None:
        """Ends the processes that wait, but for so many."""
        while len(self._idle) > keep:
            _stop(*self._idle.pop())

    def _take(self) -> tuple[BaseProcess, Connection]:
        """A process that waits, or a new one."""
        if self._owner != os.getpid():  # this process is a fork, and they are its parent's
            self._owner, self._idle = os.getpid(), []
        while self._idle:
            process, connection = self._idle.pop()
            if process.is_alive():
                return process, connection
            connection.close()
        return _start(self._function)


def late(seconds: float) -> str:
    """What `run` says of a file that took longer."""
    return f"{LATE} {seconds:g} s"


class _GoesOn:
    """What a process sends of a file with which it goes on."""


class _Given(NamedTuple):
    """What a process sends before the bytes of a piece's arrays: these are not pickled."""

    value: Any
    arrays: dict[str, tuple[tuple[int, ...], str]]  # shape and type of each

    def received(self, connection: Connection) -> Piece:
        arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in self.arrays.items()}
        for array in arrays.values():
            _receive(connection, array.reshape(-1).view(np.uint8).data)
        return Piece(self.value, arrays)


_owner: Connection | None = None  # in a worker: leads to the one that waits for it
_told = 0.0  # when something was sent there


def go_on() -> None:
    """Says in a worker that it goes on with its file, so that its time counts anew; anywhere else nothing."""
    if _owner is not None and time.monotonic() > _told + _SILENT:
        _say_that_it_goes_on()


def _say_that_it_goes_on() -> None:
    global _told
    assert _owner is not None
    _told = time.monotonic()
    _owner.send(_GoesOn())


def give(value: Any, **arrays: np.ndarray | list[np.ndarray]) -> None:
    """Hands something over, in a worker, before its function is done; waits where it is not taken.

    Args:
      value: is pickled.
      arrays: are not; a list of arrays of one shape becomes one, as by np.stack.
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
    """Sends bytes whose number the other end knows, with fewer copies than a connection makes of them."""
    if sys.platform == "win32":
        connection.send_bytes(data)
        return
    while data:
        data = data[os.write(connection.fileno(), data) :]


def _receive(connection: Connection, data: memoryview) -> None:
    """Fills `data` with what `_send` sends."""
    if sys.platform == "win32":
        connection.recv_bytes_into(data)
        return
    while data:
        count = os.readv(connection.fileno(), [data])
        if not count:
            raise EOFError
        data = data[count:]


_STARTING = threading.Lock()


def _start(function: Callable) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")  # forking a process that has threads (the progress bar) can hang
    connection, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, function), daemon=True)
    with _STARTING, processes.keeping_from_children(signal.SIGINT), _hidden_main():  # Ctrl-C is for the parent
        process.start()
    theirs.close()  # so that the end of the process is the end of the connection
    return process, connection


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Or a new process would import the main module again: all of a command, with JAX, or run a user's script anew."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(connection: Connection, function: Callable) -> None:
    """Runs in a worker: receives tasks and sends what `function` returns, until the other end is closed."""
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
    """Lets a worker go on although what it gives is not taken yet, as far as the system allows."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AHEAD)


def _said(error: Exception) -> str | OSError:
    """The reason that an error gives for a file, or the error itself where the file is not to blame."""
    if isinstance(error, UnavailableError):
        return NoVerdict(error.reason)
    if isinstance(error, VideoError):
        return error.reason + _doubt()
    if isinstance(error, OSError):
        return error
    return NoVerdict(f"{type(error).__name__}: {error}", traceback.format_exc())


def _limit_memory() -> None:
    """Lets the process grow to 1 GiB; where the system does not say how large it is, there is no limit."""
    sizes = _sizes()
    if sys.platform == "win32" or not sizes:
        return
    # Much of the data, such as room for numpy's threads, is only reserved. What is resident counts.
    limit = sizes["VmData"] + max(0, _MEMORY - sizes["VmRSS"])
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or limit < most:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _sizes() -> dict[str, int]:
    """How large this process is, in bytes; only Linux says."""
    status = pathlib.Path("/proc/self/status")
    text = status.read_text() if status.exists() else ""
    return {name: int(size) * 1024 for name, size in re.findall(r"^(Vm\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def _doubt() -> str:
    """What to add to a reason where much memory was used: some decoders take a failed allocation for damage."""
    return f"; or it needs more than {_LIMIT}" if _sizes().get("VmHWM", 0) > _MEMORY / 2 else ""


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is a failed allocation of Python or OpenCV."""
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "code", 0) == cv2.Error.StsNoMem:
            return True
        error = error.__cause__ or error.__context__
    return False


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone: the flow of a video may take hours."""
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
        return f"needs more than {_LIMIT}"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code == 1 or (code < 0 and -code not in _CRASHES):  # Python's own, as it could not start; or a kill
        return NoVerdict(f"the process that looked at it was ended ({how})")
    return f"the decoder crashes ({how})"
