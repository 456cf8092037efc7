"""The same work as `workers`, as an Apache Beam pipeline, for sets that take many machines.

Every machine must see the videos and the folder that is written to at the same paths, and have jax_video installed.
"""

import functools
import json
import pathlib
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jax_video.errors import UserError, VideoError


def run(
    tasks: Iterable, function: Callable[[Any], None], *, options: str, folder: pathlib.Path
) -> Iterator[tuple[int, str | None]]:
    """Runs a pipeline to its end, then yields what became of each task.

    Args:
      tasks: what `function` gets.
      function: of a module; may raise VideoError. Run again on a task, it must do the same.
      options: of the pipeline, as on a command line: "--runner=DataflowRunner --project=..."; "" runs it here.
      folder: where results are collected.

    Yields:
      (index in tasks, None or in plain words why the video is broken).

    Raises:
      UserError: Apache Beam is not installed.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(f"--beam needs Apache Beam: pip install 'apache-beam>=2.70' ({error})") from error
    for left in folder.glob(".beam-*"):
        left.unlink()
    with apache_beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipeline:
        (
            pipeline
            | apache_beam.Create(list(enumerate(tasks)))
            | apache_beam.Reshuffle()
            | apache_beam.Map(functools.partial(_attempt, function))
            | apache_beam.Map(json.dumps)
            | apache_beam.io.WriteToText(str(folder / ".beam"))
        )
    for path in sorted(folder.glob(".beam-*")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield tuple(json.loads(line))
        path.unlink()


def _attempt(function: Callable[[Any], None], task: tuple[int, Any]) -> tuple[int, str | None]:
    index, given = task
    try:
        function(given)
    except VideoError as error:
        return index, error.reason
    return index, None
