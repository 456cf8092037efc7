"""Classifies videos with a trained network; a run's folder is all it needs.

  python -m jax_video.predict video.mp4 --checkpoint=runs/stc
  python -m jax_video.predict videos/ 'more/*.avi' --checkpoint=runs/stc --top=3
  python -m jax_video.predict video.mp4 --checkpoint=runs/stc --json > classes.jsonl
  python -m jax_video.predict videos/ --checkpoint=runs/stc --out=predictions.jsonl --top=all
  python -m jax_video.predict video.mp4 --checkpoint=runs/stc --explain=looked_at.mp4
  python -m jax_video.predict long.mp4 --checkpoint=runs/stc --window=2 --hop=.5 --srt=long.srt --video=labelled.mp4
  python -m jax_video.predict --live=rtsp://camera/stream --checkpoint=runs/stc

Clips, crops and the average over clips are those of the run's own test. Results come as soon as they are known. A file
of --out has one line of JSON for each video, also for one that cannot be read; started again, the same command goes on
where it was stopped. With --explain the best answer is explained by Grad-CAM: a video of what the network looks at, and
beside it a filmstrip, a .png of the same name. With --window a video is classified window by window, by one clip in the
middle of each: labels with times. With --live the newest window of a stream is classified over and over, until Ctrl-C.
"""

import math
import os
import pathlib

from absl import flags

from jax_video import command, run, sharding, state
from jax_video.data import encoding, isolated, remote
from jax_video.data.sources import files
from jax_video.errors import UserError
from jax_video.predicting import explanations, labels, stream, timelines


def define_flags() -> None:
    flags.DEFINE_string("checkpoint", None, "The folder of a run, or of an export; also s3://, hf://, https://, …")
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
    flags.DEFINE_string("explain", None, "The file to write, a video of what the network looks at (Grad-CAM).")
    flags.DEFINE_string("explain_label", None, "With --explain: the class to explain; default: the best one.")
    flags.DEFINE_string(
        "explain_layer", None, "With --explain: the stage to look at; default: the last of at least 4x7x7 places."
    )
    flags.DEFINE_float("window", None, "Seconds of a window, for labels with times.")
    flags.DEFINE_float("hop", None, "Seconds from one window to the next; default: a quarter of --window.")
    flags.DEFINE_float(
        "fps", 0.0, "Frames per second, for pictures and files without times; --window: for all.", lower_bound=0
    )
    flags.DEFINE_string("csv", None, "With --window: the file to write, a row for each window.")
    flags.DEFINE_string("srt", None, "With --window: the file to write, subtitles.")
    flags.DEFINE_string("video", None, "With --window: the file to write, the video with its labels; sound is kept.")
    flags.DEFINE_multi_string(
        "live",
        None,
        "A stream: a camera (0, /dev/video0), an address (rtsp://, udp://, tcp://, http://), or a pipe (- or its path)",
    )


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if given.checkpoint is None:
        raise UserError("--checkpoint is missing: the folder of a run, for example --checkpoint=runs/stc")
    labels.number_of_classes(given.top)  # raises if it is no number
    if given.live is not None:
        return stream.show(arguments, given)
    paths = files.named(arguments)
    check(paths, given)
    if given.timeout:
        isolated.start_reader()
    trained = run.load(given.checkpoint)
    if given.fps and given.window is None and given.explain is None and trained.sampling.fps is None:
        raise UserError(
            "--fps: clips of this run count frames, whatever their rate (clip.fps is None); it is of labels with times "
            "and of explanations: give --window=SECONDS or --explain=OUT.mp4 too"
        )
    number = f"{len(paths):,} video{'s' * (len(paths) != 1)}"
    sharding.announce(trained.mesh, state.describe(trained.config, trained.weights["params"]), number)
    if given.window is not None:
        broken = timelines.show(trained, paths, given)
    elif given.explain is not None:
        broken = explanations.show(trained, paths, given)
    elif given.out is not None:
        broken = labels.write(trained, paths, given)
    else:
        broken = labels.show(trained, paths, given)
    if broken:
        raise UserError(f"{broken} of {len(paths)} files could not be classified.")


def check(paths: list[str], given: flags.FlagValues) -> None:
    """Raise UserError for flags that do not go together."""
    for name in (given.out, given.csv, given.srt, given.video, given.explain):
        if name is not None:
            remote.check_local(name)
    explanations.check(paths, given)
    outputs = [f"--{name}" for name in ("csv", "srt", "video") if given[name].value is not None]
    if given.window is None and (outputs or given.hop is not None):
        raise UserError("--hop, --csv, --srt and --video are of labels with times: give --window=SECONDS too")
    if given.window is not None and (given.out is not None or given.clips is not None):
        raise UserError("--out and --clips are of whole videos: not with --window, which has --csv, --srt and --json")
    if outputs and len(paths) > 1:
        raise UserError(f"{' '.join(outputs)}: one file cannot hold {len(paths)} videos; name one")
    for name in ("window", "hop"):
        if (seconds := given[name].value) is not None and not 0 < seconds < math.inf:
            raise UserError(f"--{name} is {seconds}: expected seconds, more than 0")
    if given.video is not None:
        encoding.check_name(given.video)
    if given.json and given.out is not None:
        raise UserError("--out and --json: the file has JSON in it; give one of them")
    if given.window is not None and given["top"].present:
        raise UserError("--top is of whole videos: with --window the best is shown, and --json and --csv have all")
    written = [str(given[name].value) for name in ("csv", "srt", "video", "explain") if given[name].value]
    written += [str(explanations.strip(given.explain))] if given.explain else []
    if len({os.path.abspath(name) for name in written}) < len(written):
        raise UserError(f"{written[0]}: two files of this name are asked for; give each its own")
    for name in written:
        if any(os.path.exists(name) and os.path.exists(path) and os.path.samefile(name, path) for path in paths):
            raise UserError(f"{name} is the video itself; name another file")
        if os.path.isdir(name):
            raise UserError(f"{name} is a folder; name a file in it, or another one")
        if not pathlib.Path(name).parent.is_dir():
            raise UserError(f"{name}: there is no folder {pathlib.Path(name).parent}; make it, or name another")


if __name__ == "__main__":
    command.run(main, define_flags)
