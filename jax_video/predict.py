"""Classifies videos with a trained network; a run's folder is all it needs.

  python -m jax_video.predict video.mp4 --checkpoint=runs/stc
  python -m jax_video.predict videos/ 'more/*.avi' --checkpoint=runs/stc --top=3
  python -m jax_video.predict video.mp4 --checkpoint=runs/stc --json > classes.jsonl
  python -m jax_video.predict long.mp4 --checkpoint=runs/stc --window=2 --hop=.5 --srt=long.srt --video=labelled.mp4

Clips, crops and the average over clips are those of the run's own test. With --window a video is classified window by
window, by one clip in the middle of each: labels with times.
"""

import json
import pathlib
import sys

import numpy as np
from absl import flags

from jax_video import command, run, sharding, state
from jax_video.data import encoding
from jax_video.data.sources import files
from jax_video.errors import UserError, shown
from jax_video.testing import overlay


def define_flags() -> None:
    flags.DEFINE_string("checkpoint", None, "The folder of a run, or of an export; also s3://, hf://, https://, …")
    flags.DEFINE_integer("top", 5, "How many classes to show for each video.", lower_bound=1)
    flags.DEFINE_float(
        "timeout",
        files.TIMEOUT,
        "Seconds in which a file must go on; 0: none, and no limit of its memory either. Not with --window.",
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
    paths = files.named(arguments)
    outputs = [f"--{name}" for name in ("csv", "srt", "video") if given[name].value is not None]
    if given.window is None and (outputs or given.hop is not None or given.fps):
        raise UserError("--hop, --fps, --csv, --srt and --video are of labels with times: give --window=SECONDS too")
    if given.window is not None and given["timeout"].present:
        raise UserError("--timeout: not with --window, which reads a video once, here, with no limit")
    if outputs and len(paths) > 1:
        raise UserError(f"{' '.join(outputs)}: one file cannot hold {len(paths)} videos; name one")
    if given.video is not None:
        encoding.check_name(given.video)
    if given.timeout and given.window is None:
        files.start_reader()
    trained = run.load(given.checkpoint)
    videos = f"{len(paths):,} video{'s' * (len(paths) != 1)}"
    sharding.announce(trained.mesh, state.describe(trained.config, len(trained.classes)), videos)
    if given.window is not None:
        faults = label_windows(trained, paths)
    else:
        faults = label_videos(trained, paths)
    for place, reason in faults.items():
        print(f"{shown(paths[place])}: {reason}", file=sys.stderr)
    if faults:
        raise UserError(f"{len(faults)} of {len(paths)} files could not be classified.")


def label_videos(trained: run.Run, paths: list[str]) -> dict[int, str]:
    """Prints the best classes of each video; returns why which cannot be read."""
    given = flags.FLAGS
    scores, faults = trained.scores(paths, timeout=given.timeout or None)
    for place, row in scores.items():
        best = np.argsort(-row, kind="stable")[: given.top]
        show(paths[place], [(trained.classes[k], float(row[k])) for k in best])
    return faults


def label_windows(trained: run.Run, paths: list[str]) -> dict[int, str]:
    """Prints each video's labels with times, and writes them; returns why which cannot be read."""
    given, faults = flags.FLAGS, {}
    hop = given.window / 4 if given.hop is None else given.hop
    for place, path in enumerate(paths):
        try:
            found = trained.timeline(path, window=given.window, hop=hop, fps=given.fps)
        except UserError as error:
            faults[place] = str(error).removeprefix(f"{path}: ")
            continue
        if found.note:
            print(f"{shown(path)}: {found.note}", file=sys.stderr)
        if given.json:
            print(json.dumps({"video": path, **found.json()}, ensure_ascii=False, allow_nan=False))
        else:
            print(f"{shown(path)}\n{found.table()}")
        if given.csv is not None:
            pathlib.Path(given.csv).write_text(found.csv(), encoding="utf-8", errors="surrogateescape")
        if given.srt is not None:
            pathlib.Path(given.srt).write_text(found.srt(), encoding="utf-8", errors="surrogateescape")
        if given.video is not None:
            overlay.write(given.video, path, found, fps=given.fps)
    return faults


def show(path: str, best: list[tuple[str, float]]) -> None:
    if flags.FLAGS.json:
        line = {"video": path, "classes": [{"name": name, "score": score} for name, score in best]}
        print(json.dumps(line, ensure_ascii=False, allow_nan=False))
    else:
        print(shown(path))
        for name, score in best:
            print(f"  {score:8.4f}  {shown(name)}")


if __name__ == "__main__":
    command.run(main, define_flags)
