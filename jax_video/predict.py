"""Classifies videos with a trained network; a run's folder is all it needs.

  python -m jax_video.predict video.mp4 --checkpoint=runs/stc
  python -m jax_video.predict videos/ 'more/*.avi' --checkpoint=runs/stc --top=3
  python -m jax_video.predict video.mp4 --checkpoint=runs/stc --json > classes.jsonl

Clips, crops and the average over clips are those of the run's own test.
"""

import json
import sys

import numpy as np
from absl import flags

from jax_video import command, run, sharding, state
from jax_video.data.sources import files
from jax_video.errors import UserError, shown


def define_flags() -> None:
    flags.DEFINE_string("checkpoint", None, "The folder of a run of jax_video.main.")
    flags.DEFINE_integer("top", 5, "How many classes to show for each video.", lower_bound=1)
    flags.DEFINE_float(
        "timeout",
        files.TIMEOUT,
        "Seconds after which a file that still decodes is broken; 0: none, and no limit of its memory either.",
        lower_bound=0,
    )
    flags.DEFINE_boolean("json", False, "Print one JSON object per video instead of a table.")


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if given.checkpoint is None:
        raise UserError("--checkpoint is missing: the folder of a run, for example --checkpoint=runs/stc")
    paths = files.named(arguments)
    if given.timeout:
        files.start_reader()
    trained = run.load(given.checkpoint)
    videos = f"{len(paths):,} video{'s' * (len(paths) != 1)}"
    sharding.announce(trained.mesh, state.describe(trained.config, len(trained.classes)), videos)
    scores, faults = trained.scores(paths, timeout=given.timeout or None)
    for place, row in scores.items():
        best = np.argsort(-row, kind="stable")[: given.top]
        show(paths[place], [(trained.classes[k], float(row[k])) for k in best])
    for place, reason in faults.items():
        print(f"{shown(paths[place])}: {reason}", file=sys.stderr)
    if faults:
        raise UserError(f"{len(faults)} of {len(paths)} files could not be classified.")


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
