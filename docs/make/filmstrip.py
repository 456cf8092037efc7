"""README's picture: frames of a video, and below them what a run says of it, second by second.

    python docs/make/filmstrip.py runs/stc docs/filmstrip.png

The video is made of test videos of the embedded set `motions`, one class after the other; the run has learnt that set.
"""

import pathlib
import sys
import tempfile

import matplotlib.pyplot as plt
import numpy as np

import jax_video
from jax_video.data.decoding import video
from jax_video.data.sources import motions

CLASSES = ("left", "growing", "clockwise", "up")
SHOWN = 12  # frames


def main(checkpoint: str, out: str) -> None:
    run, manifest = jax_video.load(checkpoint), motions.read()
    test = [entry for _, entry in manifest.select("test")]
    entries = [next(entry for entry in test if manifest.classes[entry.label] == name) for name in CLASSES]
    parts = [video.decode(pathlib.Path(manifest.root, entry.path), range(entry.frames)) for entry in entries]
    frames = np.concatenate([np.concatenate([part] * 2) for part in parts])
    fps = entries[0].fps
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "video.mp4")
        motions.encode(path, frames)
        timeline = run.timeline(path, window=len(parts[0]) / fps, hop=len(parts[0]) / fps / 8)
    seconds = len(frames) / fps
    figure, (strip, chart) = plt.subplots(2, 1, figsize=(10, 2.6), height_ratios=(1, 1.3), layout="constrained")
    shown = frames[np.linspace(0, len(frames) - 1, SHOWN).astype(int)]
    strip.imshow(np.concatenate(shown, axis=1), extent=(0, seconds, 0, 1), aspect="auto")
    strip.set(yticks=[], xticks=[], xlim=(0, seconds))
    middles = (timeline.starts + timeline.ends) / 2
    for name, color in zip(CLASSES, ("#0b6e99", "#c7522a", "#5b8c5a", "#7a4f9a"), strict=True):
        chart.plot(middles, timeline.probabilities[:, timeline.classes.index(name)], color=color, linewidth=2)
    for segment in timeline.segments:
        if segment.name in CLASSES:
            chart.text((segment.start + segment.end) / 2, 1.09, segment.name, ha="center", fontsize=9)
    chart.set(xlim=(0, seconds), ylim=(0, 1.3), yticks=(0, 1), xlabel="seconds", ylabel="probability")
    chart.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
