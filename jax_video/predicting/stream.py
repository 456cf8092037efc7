"""The label of a stream as it changes."""

import dataclasses
import json
import shutil
import sys

from absl import flags

from jax_video import run as run_lib
from jax_video import sharding, state
from jax_video.data.decoding import live
from jax_video.errors import UserError
from jax_video.predicting import labels
from jax_video.stopping import StopSignals

_OF_FILES = ("out", "batch", "clips", "timeout", "csv", "srt", "video", "explain", "explain_label", "explain_layer")


def show(arguments: list[str], given: flags.FlagValues) -> None:
    """Show the label as it changes, until the stream ends or is stopped; then what was seen."""
    if arguments or len(given.live) > 1:
        raise UserError(
            f"{' '.join([*arguments, *given.live])}: --live watches one stream; classify files without --live"
        )
    if wrong := [f"--{name}" for name in _OF_FILES if given[name].present]:
        raise UserError(f"{' '.join(wrong)}: of files, and not of a stream; leave it out")
    if given["top"].present and not given.json:
        raise UserError("--top: without --json a stream's best class alone is shown; leave it out, or add --json")
    top, source, label = labels.number_of_classes(given.top), live.find(given.live[0]), ""
    trained = run_lib.load(given.checkpoint)
    sharding.announce(trained.mesh, state.describe(trained.config, trained.weights["params"]), str(source))
    options = {"window": given.window, "hop": given.hop, "fps": given.fps}
    with StopSignals("stopped at once") as signals:
        with trained.watch(given.live[0], **options, interrupted=lambda: signals.requested, say=_note) as watch:
            for moment in watch:
                if given.json:
                    line = moment.json(len(trained.classes) if top is None else top)
                    print(json.dumps(line, ensure_ascii=False, allow_nan=False), flush=True)
                elif sys.stdout.isatty():
                    print(f"\r{_fitted(moment.status())}", end="", flush=True)
                elif moment.label != label:
                    print(moment.line(), flush=True)
                label = moment.label
        if given.json:
            print(json.dumps({"summary": dataclasses.asdict(watch.summary)}, ensure_ascii=False, allow_nan=False))
        else:
            print(f"\n{watch.summary.table()}" if sys.stdout.isatty() else watch.summary.table())


def _note(text: str) -> None:
    """Print on stderr, in place of the line that a terminal shows."""
    print(f"\r{_fitted(text)}" if sys.stdout.isatty() else text, file=sys.stderr)


def _fitted(text: str) -> str:
    """Text as one whole line of the terminal, so that it can be printed over another."""
    width = shutil.get_terminal_size().columns - 1
    return text[:width].ljust(width)
