"""Classifies videos with a trained network; a run's folder is all it needs.

  python -m jax_video.predict video.mp4 --checkpoint=runs/stc
  python -m jax_video.predict videos/ 'more/*.avi' --checkpoint=runs/stc --top=3
  python -m jax_video.predict video.mp4 --checkpoint=runs/stc --json > classes.jsonl

Clips, crops and the average over clips are those of the run's own test.
"""

import glob
import json
import os
import pathlib
import sys

import numpy as np
from absl import flags

from jax_video import command, run, sharding, state
from jax_video.data import frames, sources
from jax_video.errors import UserError


def define_flags() -> None:
    flags.DEFINE_string("checkpoint", None, "The folder of a run of jax_video.main.")
    flags.DEFINE_integer("top", 5, "How many classes to show for each video.", lower_bound=1)
    flags.DEFINE_boolean("json", False, "Print one JSON object per video instead of a table.")


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if given.checkpoint is None:
        raise UserError("--checkpoint is missing: the folder of a run, for example --checkpoint=runs/stc")
    paths = find(arguments)
    trained = run.load(given.checkpoint)
    videos = f"{len(paths):,} video{'s' * (len(paths) != 1)}"
    sharding.announce(trained.mesh, state.describe(trained.config, len(trained.classes)), videos)
    scores, faults = trained.scores(paths)
    for place, row in scores.items():
        best = np.argsort(-row, kind="stable")[: given.top]
        show(paths[place], [(trained.classes[k], float(row[k])) for k in best])
    for place, reason in faults.items():
        print(f"{paths[place]}: {reason}", file=sys.stderr)
    if faults:
        raise UserError(f"{len(faults)} of {len(paths)} files could not be classified.")


def find(arguments: list[str]) -> list[str]:
    """The videos that files, folders and globs name, without repetition; a folder of numbered pictures is one."""
    paths = []
    for argument in arguments:
        found = []
        for path in [argument] if os.path.exists(argument) else sorted(glob.glob(argument, recursive=True)):
            is_folder = os.path.isdir(path) and not frames.is_video(os.listdir(path))
            found += (
                [os.path.join(path, video) for video in sources.find_videos(pathlib.Path(path))[0]]
                if is_folder
                else [path]
            )
        if not found:
            raise UserError(f"{argument}: no such file, or no video in that folder or glob.")
        paths.extend(found)
    if not paths:
        raise UserError("no video given: name files, folders or globs; see --help.")
    return list(dict.fromkeys(paths))


def show(path: str, best: list[tuple[str, float]]) -> None:
    if flags.FLAGS.json:
        line = {"video": path, "classes": [{"name": name, "score": score} for name, score in best]}
        print(json.dumps(line, ensure_ascii=False, allow_nan=False))
    else:
        print(path)
        for name, score in best:
            print(f"  {score:8.4f}  {name}")


if __name__ == "__main__":
    command.run(main, define_flags)
