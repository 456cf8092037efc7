"""Signals that ask a training to stop: it saves first."""

import contextlib
import os
import signal
import stat
import threading

import jax

from jax_video.errors import Stopped

_HANGUP = getattr(signal, "SIGHUP", None)  # the terminal was closed, or its connection lost; there is none on Windows


class StopSignals:
    """SIGTERM, SIGHUP and the first Ctrl-C ask for a stop after the step at hand; a second Ctrl-C stops at once.

    SIGHUP stays ignored where it is, as under `nohup`. With several processes, JAX's own handler keeps SIGTERM: by it
    all of them agree on the step to stop after. The other signals are passed on to it. In a thread beside the main one,
    all signals stay as they are.

    Raises:
      Stopped: at the second Ctrl-C.
    """

    def __init__(self, at_once: str = "stopped at once; the same command goes on from the last checkpoint."):
        self._at_once = at_once

    def __enter__(self):
        self.requested = False
        self._alone = jax.process_count() == 1
        numbers = [signal.SIGINT, signal.SIGTERM] if self._alone else [signal.SIGINT]
        if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
            numbers = []
        elif _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
            numbers.append(_HANGUP)
        self._before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def _ask(self, number, frame):
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if number == _HANGUP:
            _leave_terminal()
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, kind, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is KeyboardInterrupt:
            raise Stopped(self._at_once) from None


def _leave_terminal() -> None:
    """Discard what is printed on a terminal that is gone: nobody reads it, and printing there would be an error."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # it is not open
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
