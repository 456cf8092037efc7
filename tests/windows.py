"""Videos that move in a small round window alone: `motions` there, a still picture everywhere else.

python tests/windows.py FOLDER      # writes a set, to train on: FOLDER/manifest.jsonl
"""

import pathlib
import sys

import numpy as np

from jax_video.data.manifest import Manifest, Video
from jax_video.data.sources import motions

RADIUS = 11  # of the window, in pixels
FRAMES, WIDTH, HEIGHT = 32, 80, 64


def place(rng: np.random.Generator) -> tuple[int, int]:
    """A window's centre, (y, x), all of which is in the middle of the frames."""
    margin = RADIUS + 5
    return int(rng.integers(margin, HEIGHT - margin)), int(rng.integers(margin + 8, WIDTH - margin - 8))


def window(center: tuple[int, int]) -> np.ndarray:
    """Where it is: bool [HEIGHT, WIDTH]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (y - center[0]) ** 2 + (x - center[1]) ** 2 <= RADIUS**2


def render(rng: np.random.Generator, motion: str, center: tuple[int, int]) -> np.ndarray:
    """uint8 [FRAMES, HEIGHT, WIDTH, 3]."""
    still = motions.render(motions.draw(rng), "left", frames=1, width=WIDTH, height=HEIGHT)
    moving = motions.render(motions.draw(rng), motion, frames=FRAMES, width=WIDTH, height=HEIGHT)
    return np.where(window(center)[..., None], moving, still)


def make(folder: pathlib.Path, *, train: int = 640, val: int = 64, test: int = 64) -> None:
    """Writes a set of MP4 files."""
    videos = []
    for number, split in enumerate(["train"] * train + ["val"] * val + ["test"] * test):
        rng = np.random.default_rng(number)
        label = number % len(motions.CLASSES)
        path = f"{split}/{number:04}.mp4"
        (folder / split).mkdir(parents=True, exist_ok=True)
        center = place(rng)
        motions.encode(folder / path, render(rng, motions.CLASSES[label], center))
        videos.append(Video(path, label, split, FRAMES, float(motions.FPS), WIDTH, HEIGHT, None, path))
    Manifest("windows", motions.CLASSES, str(folder), tuple(videos), flip=False).write(folder / "manifest.jsonl")


if __name__ == "__main__":
    make(pathlib.Path(sys.argv[1]).absolute())
