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

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jax_video import command, evaluate, objectives, sharding, state
from jax_video.checkpoint import read_network
from jax_video.data import frames, pipeline, remote, sources, video
from jax_video.data.manifest import MISSING, Manifest, Video
from jax_video.errors import UserError, VideoError

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The folder of a run of jax_video.main.")
TOP = flags.DEFINE_integer("top", 5, "How many classes to show for each video.", lower_bound=1)
JSON = flags.DEFINE_boolean("json", False, "Print one JSON object per video instead of a table.")


def classify(paths: list[str], workdir: str | remote.Path) -> tuple[tuple[str, ...], dict[str, np.ndarray], dict]:
    """Classifies video files with the best checkpoint of a run.

    Returns:
      The class names [K]; {path: probabilities of the classes [K], from the video's clips as in the run's own test};
      {path: why it cannot be read}.

    Raises:
      UserError: the folder holds no sound checkpoint, or its network gives scores that are no numbers.
    """
    mesh = sharding.make_mesh()
    definition, network, meta = read_network(workdir, mesh)
    config, classes = ConfigDict(meta["config"]), tuple(meta["classes"])
    objective = objectives.of(config)
    if not isinstance(objective, objectives.Classification):
        raise UserError(
            f"{workdir} is a run of knowledge transfer, which knows no classes: fine-tune it on labels first"
        )

    videos, broken = [], {}
    for path in paths:
        try:
            if (reason := sources.fault(path)) not in (None, MISSING):
                raise VideoError(path, reason)
            info = video.probe(path)
        except VideoError as error:
            broken[path] = error.reason
            continue
        absolute = os.path.abspath(path)
        videos.append(Video(absolute, None, "test", error=None, source=absolute, **vars(info)))
    if not videos:
        return classes, {}, broken

    manifest = Manifest("files", classes, "", tuple(videos))  # absolute paths under no root
    command.announce(
        sharding.describe(mesh),
        state.describe(config, len(classes)),
        f"{len(videos):,} video{'s' * (len(videos) != 1)}",
    )
    scores = evaluate.score_videos(
        evaluate.make_eval_step(definition, mesh, objective),
        (network["params"], network["batch_stats"]),
        manifest,
        "test",
        pipeline.Sampling(**config.clip),
        mesh,
        protocol=evaluate.protocol_of(config),
        batch=config.test.batch,
    )
    objectives.check_finite(scores.scores, [manifest.videos[index].path for index in scores.video])
    rows = scores.scores if config.test.average_clips == "probability" else np.asarray(jax.nn.softmax(scores.scores))
    readable = [path for path in paths if path not in broken]
    broken |= {readable[index]: "unreadable when its clips were decoded" for index in scores.failed}
    return classes, {readable[index]: row for index, row in zip(scores.video, rows, strict=True)}, broken


def main(arguments: list[str]) -> None:
    if CHECKPOINT.value is None:
        raise UserError("--checkpoint is missing: the folder of a run, for example --checkpoint=runs/stc")
    paths = find(arguments)
    classes, scores, broken = classify(paths, CHECKPOINT.value)
    for path in paths:
        if path in scores:
            best = np.argsort(-scores[path], kind="stable")[: TOP.value]
            show(path, [(classes[k], float(scores[path][k])) for k in best])
    for path, reason in broken.items():
        print(f"{path}: {reason}", file=sys.stderr)
    if broken:
        raise UserError(f"{len(broken)} of {len(paths)} files could not be classified.")


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
    if JSON.value:
        line = {"video": path, "classes": [{"name": name, "score": score} for name, score in best]}
        print(json.dumps(line, ensure_ascii=False, allow_nan=False))
    else:
        print(path)
        for name, score in best:
            print(f"  {score:8.4f}  {name}")


if __name__ == "__main__":
    command.run(main)
