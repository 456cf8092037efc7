"""The same work as in `workers`, as an Apache Beam pipeline, for sets that need many machines.

Every machine must see the videos and the output folder at the same paths, and have jax_video installed.
"""

import contextlib
import functools
import json
import pathlib
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jax_video.errors import UnavailableError, UserError, VideoError


def run(
    tasks: Iterable, function: Callable[[Any], None], *, options: str, folder: pathlib.Path
) -> Iterator[tuple[int, str | None]]:
    """Run a pipeline to its end, then yield what became of each task.

    Args:
      tasks: what `function` gets.
      function: of a module; may raise VideoError. Beam may run it again on a task, even while the first run lasts: what
        it writes must be the same each time, and appear whole.
      options: of the pipeline, as on a command line: "--runner=DataflowRunner --project=..."; "" runs it here.
      folder: where results are collected.

    Yields:
      (index in tasks, None or, in plain words, why the video is broken).

    Raises:
      UserError: Apache Beam is not installed, does not take the options, or has lost results.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(
            f"--beam needs Apache Beam: pip install 'apache-beam>=2.70' (the extra `beam`; {error})"
        ) from error
    results = folder / ".beam"
    shutil.rmtree(results, ignore_errors=True)  # of a run that was killed
    try:
        pipeline = apache_beam.Pipeline(options=PipelineOptions(shlex.split(options)))
    except ValueError as error:
        raise UserError(f"--beam={options!r}: {error}") from error
    numbered = list(enumerate(tasks))
    results.mkdir(parents=True)
    with _temporary_files_in(results), pipeline:
        (
            pipeline
            | apache_beam.Create(numbered)
            | apache_beam.Reshuffle()
            | apache_beam.Map(functools.partial(_attempt, function))
            | apache_beam.Map(json.dumps)
            | apache_beam.io.WriteToText(str(results / "result"))
        )
    found: dict[int, str | None] = {}
    for path in sorted(results.glob("result-*")):
        for index, reason in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            found[index] = reason if found.get(index, reason) is not None else None  # done once is done
    if len(found) < len(numbered):
        raise UserError(
            f"--beam={options!r}: of {len(numbered):,} pieces of work {len(numbered) - len(found):,} left no result in "
            f"{results}: do all machines see it there? The same command goes on where it was"
        )
    shutil.rmtree(results)
    yield from sorted(found.items())


@contextlib.contextmanager
def _temporary_files_in(folder: pathlib.Path) -> Iterator[None]:
    """Put temporary files into a folder, since Beam's runner leaves temporary folders behind."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _attempt(function: Callable[[Any], None], task: tuple[int, Any]) -> tuple[int, str | None]:
    index, given = task
    try:
        function(given)
    except UnavailableError:  # the pipeline tries again, or ends with it
        raise
    except VideoError as error:
        return index, error.reason
    return index, None
