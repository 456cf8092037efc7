"""Classifies videos with a trained network; a run's folder is all it needs.

  python -m jax_video.predict video.mp4 --checkpoint=runs/stc
  python -m jax_video.predict videos/ 'more/*.avi' --checkpoint=runs/stc --top=3
  python -m jax_video.predict video.mp4 --checkpoint=runs/stc --json > classes.jsonl
  python -m jax_video.predict video.mp4 --checkpoint=runs/stc --explain=looked_at.mp4
  python -m jax_video.predict long.mp4 --checkpoint=runs/stc --window=2 --hop=.5 --srt=long.srt --video=labelled.mp4
  python -m jax_video.predict --live=rtsp://camera/stream --checkpoint=runs/stc

Clips, crops and the average over clips are those of the run's own test. With --window a video is classified window by
window, by one clip in the middle of each: labels with times. With --explain the best answer is explained by Grad-CAM:
a video of what the network looks at, and beside it a filmstrip, a .png of the same name. With --live the newest window
of a stream is classified over and over, until Ctrl-C.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import sys

import numpy as np
from absl import flags

from jax_video import command, run, sharding, state
from jax_video.data import encoding
from jax_video.data.decoding import live
from jax_video.data.sources import files
from jax_video.errors import UserError, shown
from jax_video.stopping import StopSignals
from jax_video.testing import heatmaps, overlay


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
    flags.DEFINE_multi_string(
        "live",
        None,
        "A stream: a camera (0, /dev/video0), an address (rtsp://, udp://, tcp://, http://), or a pipe (- or its path)",
    )
    flags.DEFINE_string("video", None, "With --window: the file to write, the video with its labels; sound is kept.")
    flags.DEFINE_string("explain", None, "The file to write, a video of what the network looks at (Grad-CAM).")
    flags.DEFINE_string("explain_label", None, "With --explain: the class to explain; default: the best one.")
    flags.DEFINE_string(
        "explain_layer", None, "With --explain: the stage to look at; default: the last of at least 4x7x7 places."
    )


def main(arguments: list[str]) -> None:
    given = flags.FLAGS
    if given.checkpoint is None:
        raise UserError("--checkpoint is missing: the folder of a run, for example --checkpoint=runs/stc")
    if given.live is not None:
        label_stream(arguments)
        return
    paths = files.named(arguments)
    check_explain(paths)
    outputs = [f"--{name}" for name in ("csv", "srt", "video") if given[name].value is not None]
    if given.window is None and (outputs or given.hop is not None or given.fps and given.explain is None):
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
    sharding.announce(trained.mesh, state.describe(trained.config, trained.weights["params"]), videos)
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
        if given.explain is not None:
            explain(trained, paths[place], trained.classes[best[0]])
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


def check_explain(paths: list[str]) -> None:
    """Raises UserError where --explain cannot be."""
    given = flags.FLAGS
    if given.explain is None:
        if given.explain_label is not None or given.explain_layer is not None:
            raise UserError("--explain_label and --explain_layer are of --explain=OUT.mp4: give that too")
        return
    if given.window is not None:
        raise UserError("--explain: not with --window; cut the part out of the video that you want to have explained")
    if len(paths) > 1:
        raise UserError(f"--explain: one file cannot hold {len(paths)} videos; name one")
    encoding.check_name(given.explain)
    if os.path.exists(given.explain) and os.path.samefile(given.explain, paths[0]):
        raise UserError(f"--explain: {given.explain} is the video itself; name another file")


def explain(trained: run.Run, path: str, best: str) -> None:
    """Writes what the network looks at in a video of which one class is the best, and says what was explained."""
    given = flags.FLAGS
    label = best if given.explain_label is None else given.explain_label
    clips = trained.explain_clips(path, label=label, layer=given.explain_layer, fps=given.fps)
    strip = pathlib.Path(given.explain).with_suffix(".png")
    found = heatmaps.write(given.explain, clips, strip=strip, sound_of=path)
    for line in filter(None, [heatmaps.describe(found), found.note, f"{given.explain} and {strip}"]):
        print(shown(line), file=sys.stderr)


def label_stream(arguments: list[str]) -> None:
    """Shows the label of a stream as it changes, until it ends or is stopped; then what was seen."""
    given, label = flags.FLAGS, ""
    wrong = [f"--{name}" for name in ("csv", "srt", "video", "timeout", "explain") if given[name].present]
    if arguments or len(given.live) > 1:
        raise UserError(
            f"{' '.join([*arguments, *given.live])}: --live watches one stream; classify files without --live"
        )
    if wrong:
        raise UserError(f"{' '.join(wrong)}: of files, and not of a stream; leave it out")
    source = live.find(given.live[0])
    trained = run.load(given.checkpoint)
    sharding.announce(trained.mesh, state.describe(trained.config, trained.weights["params"]), str(source))
    with StopSignals("stopped at once") as signals:
        options = {"window": given.window, "hop": given.hop, "fps": given.fps}
        with trained.watch(given.live[0], **options, interrupted=lambda: signals.requested, say=note) as watch:
            for moment in watch:
                if given.json:
                    print(json.dumps(moment.json(given.top), ensure_ascii=False, allow_nan=False), flush=True)
                elif sys.stdout.isatty():
                    print(f"\r{fitted(moment.status())}", end="", flush=True)
                elif moment.label != label:
                    print(moment.line(), flush=True)
                label = moment.label
        if given.json:
            print(json.dumps({"summary": dataclasses.asdict(watch.summary)}, ensure_ascii=False, allow_nan=False))
        else:
            print(f"\n{watch.summary.table()}" if sys.stdout.isatty() else watch.summary.table())


def note(text: str) -> None:
    """Prints on stderr, in place of the line that a terminal shows."""
    print(f"\r{fitted(text)}" if sys.stdout.isatty() else text, file=sys.stderr)


def fitted(text: str) -> str:
    """Text as one whole line of the terminal, so that it can be printed over another."""
    width = shutil.get_terminal_size().columns - 1
    return text[:width].ljust(width)


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
