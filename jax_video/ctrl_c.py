"""Ctrl-C, SIGTERM or SIGHUP at any moment of a command: one line on stderr and exit code 130.

While modules are loaded there is nothing to clean up, and an exception would print a traceback from within an import;
so the process ends at once. In `main`, Ctrl-C raises KeyboardInterrupt, as everywhere in Python. The process again ends
at once at a second Ctrl-C, at one that Python cannot notice because XLA compiles, and at one after `main`.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from typing import NoReturn

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_EXIT_CODE = 130
_PATIENCE = 1.0  # seconds that Python may need to notice Ctrl-C
_noticed = 0.0  # when Python noticed it last, by time.monotonic(); 0: never
_said = False  # whether the one line is printed


def end_at_once() -> None:
    """Make these signals end the process from now on, unless they are ignored or somebody else handles them."""
    _handle(_end)


def interrupt_main() -> None:
    """Make these signals raise KeyboardInterrupt from now on, unless they are ignored or somebody else handles them."""
    if not _handle(_interrupt):
        return
    noticed, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(noticed, wakes), name="watches for Ctrl-C", daemon=True).start()


def was_pressed() -> bool:
    """Whether `main` was interrupted."""
    return _noticed > 0


def stop(message: str) -> NoReturn:
    """End the process as a command ends, but without the interpreter's own shutdown: XLA may still compile, in threads
    of its own, what nobody waits for any more, and the process would crash."""
    global _said
    with contextlib.suppress(OSError):  # a terminal that was closed
        print(f"\n{message}", file=sys.stderr)
    _said = True
    atexit._run_exitfuncs()  # children, semaphores, temporary folders
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(_EXIT_CODE)


def end() -> NoReturn:
    """End the process at once, from any thread."""
    if not _said:
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopped\n")
    os._exit(_EXIT_CODE)


def _handle(handler) -> bool:
    """Set a handler of the signals that nobody else handles; return whether there are any."""
    if threading.current_thread() is not threading.main_thread():
        return False
    free = (signal.default_int_handler, signal.SIG_DFL, _end, _interrupt)
    numbers = [number for number in _SIGNALS if signal.getsignal(number) in free]
    for number in numbers:
        signal.signal(number, handler)
    return bool(numbers)


def _end(number: int, frame: object) -> None:
    end()


def _interrupt(number: int, frame: object) -> None:
    global _noticed
    if was_pressed():
        end()
    _noticed = time.monotonic()
    raise KeyboardInterrupt


def _watch(noticed: socket.socket, wakes: socket.socket) -> None:
    """End the process at a signal that Python does not notice. Keeps `wakes` open."""
    while data := noticed.recv(1):  # the number of a signal, which the system has just delivered
        pressed = time.monotonic()
        if data[0] not in _SIGNALS or signal.getsignal(data[0]) is not _interrupt:  # or it is somebody else's
            continue
        time.sleep(_PATIENCE)
        if signal.getsignal(data[0]) is _interrupt and _noticed < pressed - _PATIENCE:
            end()
