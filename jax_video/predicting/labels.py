"""Labels of whole videos, printed or written as they come."""

import contextlib
import sys
from collections.abc import Iterator

import numpy as np
from absl import flags
from tqdm import tqdm

from jax_video import recipe
from jax_video.data.decoding import workers
from jax_video.errors import Stopped, UserError, shown
from jax_video.run import Run
from jax_video.testing import predictions


def number_of_classes(text: str) -> int | None:
    """What --top says; None: all."""
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise UserError(f"--top={text}: expected a positive number of classes, or all")
    return int(text)


def show(trained: Run, paths: list[str], given: flags.FlagValues) -> int:
    """Print the best classes of each video; return how many videos cannot be read."""
    broken = 0
    for path, scores in classified(trained, paths, given):
        if isinstance(scores, str):
            broken += 1
        else:
            show_one(trained, path, scores, given)
    return broken


def show_one(trained: Run, path: str, scores: np.ndarray, given: flags.FlagValues) -> None:
    """Print the best classes of a video, from the probabilities of all."""
    top, thresholds = number_of_classes(given.top), trained.thresholds
    found = predictions.of(path, scores, trained.classes, top, thresholds)
    if given.json:
        text = predictions.line(found)
    else:
        if thresholds is not None:
            recipe.note("* holds: at or above the threshold of its class")
        marks = {True: "*", False: "" if thresholds is None else " "}
        rows = [
            f"\n  {row['score']:8.4f} {marks[row.get('holds', False)]} {shown(row['name'])}" for row in found["classes"]
        ]
        text = shown(path) + "".join(rows)
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def write(trained: Run, paths: list[str], given: flags.FlagValues) -> int:
    """Add the best classes of each video to the file that --out names, unless they are in it; return how many
    cannot be read."""
    top, stamps = number_of_classes(given.top), {path: predictions.stamp(path) for path in paths}
    with predictions.File(given.out, trained, clips=given.clips, top=top, fps=given.fps) as out:

        def known(path: str) -> str | None:
            """What `out.found` says; None also if it is about other limits of time or memory than these."""
            fault = out.found(path, stamps[path])
            return None if workers.is_of_other_limits(fault, given.timeout) else fault

        found = {path: known(path) for path in stamps}
        waiting = [path for path, fault in found.items() if fault is None]
        if len(waiting) < len(paths):
            print(f"{len(paths) - len(waiting):,} of them are in {shown(out.path)} already", file=sys.stderr)
        for path, fault in found.items():
            if fault:
                print(f"{shown(path)}: {fault}", file=sys.stderr)
        try:
            for path, scores in classified(trained, waiting, given, done=len(paths) - len(waiting)):
                if not isinstance(scores, workers.NoVerdict):  # no fault of the file's: it is tried again
                    out.write(predictions.of(path, scores, trained.classes, top, trained.thresholds), stamps[path])
        except KeyboardInterrupt:
            out.look_again(trained)
            done = sum(known(path) is not None for path in stamps)
            raise Stopped(
                f"stopped: {out.path} has {done:,} of {len(paths):,} videos; the same command goes on from there"
            ) from None
        return sum(out.found(*each) != "" for each in stamps.items())


def classified(
    trained: Run, paths: list[str], given: flags.FlagValues, *, done: int = 0
) -> Iterator[tuple[str, np.ndarray | str]]:
    """(path, probabilities of the classes, or why it cannot be read, which is printed) of videos as they come.

    `done`: how many others the progress bar counts as done.
    """
    total = len(paths) + done
    progress = tqdm(total=total, initial=done, unit="video", leave=False, disable=True if total < 2 else None)
    limits = {"timeout": given.timeout or None, "batch": given.batch}
    found = trained.iter_scores(paths, fps=given.fps, clips=given.clips, **limits)
    with progress, contextlib.closing(found):
        for place, scores in predictions.nearly_in_order(found):
            if isinstance(scores, str):
                tqdm.write(f"{shown(paths[place])}: {scores}", file=sys.stderr)
            yield paths[place], scores
            progress.update()
