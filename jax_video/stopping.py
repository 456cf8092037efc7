"""Signals that ask a training to stop: it saves first."""

import os
import signal

import jax


class StopSignals:
    """SIGTERM and the first Ctrl-C ask for a stop after the step at hand; a second Ctrl-C stops at once.

    Among several processes SIGTERM stays with JAX's own handler, by which all of them agree on the step to stop after;
    Ctrl-C is passed on to it.
    """

    def __enter__(self):
        self.requested = False
        self._alone = jax.process_count() == 1
        numbers = (signal.SIGINT, signal.SIGTERM) if self._alone else (signal.SIGINT,)
        self._before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def _ask(self, number, frame):
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
