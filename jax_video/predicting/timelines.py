"""Labels with times, printed and written."""

import pathlib
import sys

from absl import flags

from jax_video.data import remote
from jax_video.errors import UserError, shown
from jax_video.run import Run
from jax_video.testing import overlay, predictions


def show(trained: Run, paths: list[str], given: flags.FlagValues) -> int:
    """Print each video's labels with times, and write them; return how many videos cannot be read."""
    broken = 0
    hop = given.window / 4 if given.hop is None else given.hop
    limits = {"timeout": given.timeout or None, "batch": given.batch}
    for path in paths:
        try:
            found = trained.timeline(path, window=given.window, hop=hop, fps=given.fps, **limits)
        except UserError as error:
            broken += 1
            print(f"{shown(path)}: {str(error).removeprefix(f'{shown(path)}: ')}", file=sys.stderr)
            continue
        if found.note:
            print(f"{shown(path)}: {found.note}", file=sys.stderr)
        if given.json:
            print(predictions.line({"video": path, **found.json()}))
        else:
            print(f"{shown(path)}\n{found.table()}")
        if given.csv is not None:
            _write(given.csv, found.csv())
        if given.srt is not None:
            _write(given.srt, found.srt())
        if given.video is not None:
            overlay.write(given.video, path, found, fps=given.fps)
    return broken


def _write(path: str, text: str) -> None:
    remote.write_whole(pathlib.Path(path), [text.encode("utf-8", errors="surrogateescape")])
