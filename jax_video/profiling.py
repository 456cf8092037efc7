"""Where the time of a training step goes, on the devices and on the host, for xprof and TensorBoard."""

import contextlib
import os
import sys
from collections.abc import Iterator

import jax

from jax_video.errors import UserError

_WARM = 3  # steps before the traced ones: the first one compiles


class Profile:
    """A trace of some of a run's steps.

    Args:
      folder: gets `plugins/profile/TIME/`, which TensorBoard's profile tab and `xprof --logdir` show.
      steps: how many, after the first three of this start; 0 traces none.

    Raises:
      UserError: a number of steps below zero.
    """

    def __init__(self, folder: str | os.PathLike, steps: int):
        if steps < 0:
            raise UserError(f"--profile={steps}: expected how many steps to trace.")
        self._folder, self._steps = os.fspath(folder), steps
        self._launched = 0  # steps of this start
        self._tracing = self._traced = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Wrap the launch of a step; starts the trace before the first one to trace, and stops it after the last."""
        end = _WARM + self._steps
        if _WARM <= self._launched < end and not self._tracing:
            jax.profiler.start_trace(self._folder)
            self._tracing = self._traced = True
        if self._launched > end:  # not at once: the last one has only been launched then
            self._stop()
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        self._launched += 1

    def close(self) -> None:
        """Write what has been traced."""
        self._stop()
        if self._steps and not self._traced:
            print(f"--profile: no step was traced; {_WARM} go before, to warm up.", file=sys.stderr)

    def _stop(self) -> None:
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
