"""Videos that move in a small round window alone: `motions` there, a still picture everywhere else."""

import pathlib

import numpy as np

from jax_video.data.manifest import Manifest, Video
from jax_video.data.sources import motions

CLASSES = motions.CLASSES[:4]  # left, right, up, down
RADIUS = 11  # of the window, in pixels
FRAMES, WIDTH, HEIGHT = 32, 80, 64


def center(rng: np.random.Generator) -> tuple[int, int]:
    """Of a window that lies in the middle of the frames, (y, x)."""
    margin = RADIUS + 5
    return int(rng.integers(margin, HEIGHT - margin)), int(rng.integers(margin + 8, WIDTH - margin - 8))


def window(center: tuple[int, int]) -> np.ndarray:
    """Where it is: bool [HEIGHT, WIDTH]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (y - center[0]) ** 2 + (x - center[1]) ** 2 <= RADIUS**2


def render(number: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The video of a number, whose class is its remainder, and the window's centre: (uint8 [T, H, W, 3], (y, x))."""
    rng = np.random.default_rng(number)
    place = center(rng)
    still = motions.render(motions.draw(rng), "left", frames=1, width=WIDTH, height=HEIGHT)
    motion = CLASSES[number % len(CLASSES)]
    moving = motions.render(motions.draw(rng), motion, frames=FRAMES, width=WIDTH, height=HEIGHT)
    return np.where(window(place)[..., None], moving, still), place


def make(folder: pathlib.Path, *, train: int, val: int, test: int) -> None:
    """Writes a set: FOLDER/manifest.jsonl, and files whose names are their numbers."""
    videos = []
    for number, split in enumerate(["train"] * train + ["val"] * val + ["test"] * test):
        path = f"{split}/{number:04}.mp4"
        (folder / split).mkdir(parents=True, exist_ok=True)
        motions.encode(folder / path, render(number)[0])
        label = number % len(CLASSES)
        videos.append(Video(path, label, split, FRAMES, float(motions.FPS), WIDTH, HEIGHT, None, path))
    Manifest("windows", CLASSES, str(folder), tuple(videos), flip=False).write(folder / "manifest.jsonl")
