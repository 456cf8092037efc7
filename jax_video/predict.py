"""Classifies videos with a trained network; a run's folder is all it needs.

  python -m jax_video.predict video.mp4 --checkpoint=runs/stc
  python -m jax_video.predict videos/ 'more/*.avi' --checkpoint=runs/stc --top=3
  python -m jax_video.predict video.mp4 --checkpoint=runs/stc --json > classes.jsonl
  python -m jax_video.predict videos/ --checkpoint=runs/stc --out=predictions.jsonl --top=all
  python -m jax_video.predict long.mp4 --checkpoint=runs/stc --window=2 --hop=.5 --srt=long.srt --video=labelled.mp4

Clips, crops and the average over clips are those of the run's own test. Results come as soon as they are known. A file
of --out has one line of JSON for each video, also for one that cannot be read; started again, the same command goes on
where it was stopped. With --window a video is classified window by window, by one clip in the middle of each: labels
with times.
"""

import contextlib
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
from absl import flags
from tqdm import tqdm

from jax_video import command, run, sharding, state
from jax_video.data import encoding, isolated
from jax_video.data.decoding import workers
from jax_video.data.sources import files
from jax_video.errors import Stopped, UserError, shown
from jax_video.testing import overlay, predictions


def define_flags() -> None:
    flags.DEFINE_string("checkpoint", None, "The folder of a run of jax_video.main.")
    flags.DEFINE_string("top", "5", "How many classes to show for each video, or all.")
    flags.DEFINE_string("out", None, "The file to write, a line of JSON for each video; goes on where it was stopped.")
    flags.DEFINE_integer("batch", None, "Clips, or windows, at once; default: those of the run's test.", lower_bound=1)
    flags.DEFINE_integer("clips", None, "Clips of a video, evenly spread; default: those of its test.", lower_bound=1)
    flags.DEFINE_float(
        "timeout",
        isolated.TIMEOUT,
        "Seconds in which a file must go on; 0: none, and no limit of its memory either.",
        lower_bound=0,
    )
    flags.DEFINE_boolean("json", False, "Print one JSON object per video instead of a table.")
    flags.DEFINE_float("window", None, "Seconds of a window, for labels with times.")
    flags.DEFINE_float("hop", None, "Seconds from one window to the next; default: a quarter of --window.")
    flags.DEFINE_float("fps", 0.0, "Frames per second, for pictures and files without times.", lower_bound=0)
    flags.DEFINE_string("csv", None, "With --window: the file to write, a row for each window.")
    flags.DEFINE_string("srt", None, "With --window: the file to write, subtitles.")
    flags.DEFINE_string("video", None, "With --window: the file to write, the video with its labels; sound is kept.")


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if given.checkpoint is None:
        raise UserError("--checkpoint is missing: the folder of a run, for example --checkpoint=runs/stc")
    top = number_of_classes(given.top)
    paths = files.named(arguments)
    check_flags(paths)
    if given.timeout:
        isolated.start_reader()
    trained = run.load(given.checkpoint)
    number = f"{len(paths):,} video{'s' * (len(paths) != 1)}"
    sharding.announce(trained.mesh, state.describe(trained.config, len(trained.classes)), number)
    if given.window is not None:
        broken = label_windows(trained, paths)
    elif given.out is not None:
        broken = write_labels(trained, paths, top)
    else:
        broken = print_labels(trained, paths, top)
    if broken:
        raise UserError(f"{broken} of {len(paths)} files could not be classified.")


def number_of_classes(text: str) -> int | None:
    """What --top says; None: all."""
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise UserError(f"--top={text}: expected a positive number of classes, or all")
    return int(text)


def check_flags(paths: list[str]) -> None:
    """Raises UserError for flags that do not go together."""
    given = flags.FLAGS
    outputs = [f"--{name}" for name in ("csv", "srt", "video") if given[name].value is not None]
    if given.window is None and (outputs or given.hop is not None or given.fps):
        raise UserError("--hop, --fps, --csv, --srt and --video are of labels with times: give --window=SECONDS too")
    if given.window is not None and (given.out is not None or given.clips is not None):
        raise UserError("--out and --clips are of whole videos: not with --window, which has --csv, --srt and --json")
    if outputs and len(paths) > 1:
        raise UserError(f"{' '.join(outputs)}: one file cannot hold {len(paths)} videos; name one")
    if given.video is not None:
        encoding.check_name(given.video)


def print_labels(trained: run.Run, paths: list[str], top: int | None) -> int:
    """Prints the best classes of each video; returns how many videos cannot be read."""
    broken = 0
    for path, scores in classified(trained, paths, progress_of(len(paths))):
        if isinstance(scores, str):
            broken += 1
            continue
        found = predictions.of(path, scores, trained.classes, top)
        if flags.FLAGS.json:
            text = predictions.line(found)
        else:
            rows = [f"\n  {row['score']:8.4f}  {shown(row['name'])}" for row in found["classes"]]
            text = shown(path) + "".join(rows)
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
    return broken


def write_labels(trained: run.Run, paths: list[str], top: int | None) -> int:
    """Adds the best classes of each video to the file that --out names, unless they are in it; returns as above."""
    given = flags.FLAGS
    with predictions.File(given.out, trained, clips=given.clips, top=top) as out:
        waiting = [path for path in paths if path not in out.done]
        if len(waiting) < len(paths):
            print(f"{len(paths) - len(waiting):,} of them are in {shown(out.path)} already", file=sys.stderr)
        try:
            for path, scores in classified(trained, waiting, progress_of(len(paths), len(paths) - len(waiting))):
                if not isinstance(scores, workers.NoVerdict):  # no fault of the file's: it is tried again
                    out.write(predictions.of(path, scores, trained.classes, top))
        except KeyboardInterrupt:
            done = sum(path in out.done for path in paths)
            raise Stopped(
                f"stopped: {out.path} has {done:,} of {len(paths):,} videos; the same command goes on from there"
            ) from None
        return sum(out.done.get(path, "not read") != "" for path in paths)


def progress_of(videos: int, done: int = 0) -> tqdm:
    return tqdm(total=videos, initial=done, unit="video", leave=False, disable=True if videos < 2 else None)


def classified(trained: run.Run, paths: list[str], progress: tqdm) -> Iterator[tuple[str, np.ndarray | str]]:
    """(path, probabilities of the classes, or why it cannot be read, which is printed) of videos as they come."""
    given = flags.FLAGS
    found = trained.iter_scores(paths, timeout=given.timeout or None, batch=given.batch, clips=given.clips)
    with progress, contextlib.closing(found):
        for place, scores in predictions.nearly_in_order(found):
            if isinstance(scores, str):
                tqdm.write(f"{shown(paths[place])}: {scores}", file=sys.stderr)
            yield paths[place], scores
            progress.update()


def label_windows(trained: run.Run, paths: list[str]) -> int:
    """Prints each video's labels with times, and writes them; returns how many videos cannot be read."""
    given, broken = flags.FLAGS, 0
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
            pathlib.Path(given.csv).write_text(found.csv(), encoding="utf-8", errors="surrogateescape")
        if given.srt is not None:
            pathlib.Path(given.srt).write_text(found.srt(), encoding="utf-8", errors="surrogateescape")
        if given.video is not None:
            overlay.write(given.video, path, found, fps=given.fps)
    return broken


if __name__ == "__main__":
    command.run(main, define_flags)
