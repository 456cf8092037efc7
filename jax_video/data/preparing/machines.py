"""Where the work on a set's videos is done: in processes of this machine, or on the machines of Apache Beam."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jax_video.data.decoding import workers
from jax_video.data.preparing import beam


@dataclasses.dataclass(frozen=True)
class Machines:
    """How many processes work, and how long a piece of work may take."""

    workers: int = os.cpu_count() or 1  # processes of this machine
    timeout: float = 300.0  # seconds that a usual piece of work may take
    beam: str | None = None  # options of an Apache Beam pipeline that stores flow and packs; None: processes here

    def __str__(self) -> str:
        return f"{self.workers} process{'es' * (self.workers != 1)}" if self.beam is None else "Apache Beam"

    def run(
        self,
        tasks: Iterable[Any],
        function: Callable[[Any], None],
        share: Callable[[Any], float],
        folder: pathlib.Path,
    ) -> Iterator[tuple[int, str | None]]:
        """Call a function of a module with each task.

        Args:
          tasks: what the function gets.
          function: what is to be done; may raise VideoError.
          share: from a task to how many times as long as a usual one it may take; less than 1 counts as 1.
          folder: where Apache Beam collects its results.

        Yields:
          (index in tasks, None or why it cannot be done), as they are done.
        """
        if self.beam is not None:
            return beam.run(tasks, function, options=self.beam, folder=folder)
        return workers.run(
            tasks, function, workers=self.workers, timeout=lambda task: self.timeout * max(1.0, share(task))
        )
