"""What a network looks at in a video, written as a video and as a filmstrip."""

import pathlib
import sys

from absl import flags

from jax_video.data import encoding
from jax_video.errors import UserError, shown
from jax_video.predicting import labels
from jax_video.run import Run
from jax_video.testing import heatmaps


def check(paths: list[str], given: flags.FlagValues) -> None:
    """Raise UserError if --explain does not go with the other flags, or its file cannot be written."""
    if given.explain is None:
        if given.explain_label is not None or given.explain_layer is not None:
            raise UserError("--explain_label and --explain_layer are of --explain=OUT.mp4: give that too")
        return
    if given.window is not None:
        raise UserError("--explain: not with --window; cut the part out of the video that you want to have explained")
    if given.out is not None:
        raise UserError("--explain and --out: one file for one video, and one for many; give one of them")
    if len(paths) > 1:
        raise UserError(f"--explain: one file cannot hold {len(paths)} videos; name one")
    encoding.check_name(given.explain)


def strip(video: str) -> pathlib.Path:
    """The file of the filmstrip that belongs to the video of --explain."""
    return pathlib.Path(video).with_suffix(".png")


def show(trained: Run, paths: list[str], given: flags.FlagValues) -> int:
    """Print the best classes of the one video, write what the network looks at where it sees one of them, and return
    how many videos cannot be read."""
    options = {"layer": given.explain_layer, "fps": given.fps, "timeout": given.timeout or None}
    chosen = given.explain_label
    clips = None if chosen is None else trained.explain_clips(paths[0], label=chosen, **options)  # or there is no such
    [(path, scores)] = labels.classified(trained, paths, given)
    if isinstance(scores, str):
        return 1
    labels.show_one(trained, path, scores, given)
    if clips is None:
        clips = trained.explain_clips(path, label=trained.classes[scores.argmax()], **options)
    picture = strip(given.explain)
    found = heatmaps.write(given.explain, clips, strip=picture, sound_of=path)
    for line in filter(None, [heatmaps.describe(found), found.note, f"{given.explain} and {picture}"]):
        print(shown(line), file=sys.stderr)
    return 0
