"""A set of 300,000 videos: how long training takes to start, in how much memory, and whether an epoch has each once.

    python benchmarks/large_set.py

The videos are one small file under many names. Linux only.
"""

import collections
import contextlib
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from jax_video.data import pipeline, reader  # noqa: E402
from jax_video.data.decoding import probing  # noqa: E402
from jax_video.data.manifest import Manifest, Video  # noqa: E402
from jax_video.data.sources import motions  # noqa: E402

ROWS = flags.DEFINE_integer("rows", 300_000, "Videos in the set.", lower_bound=1000)
WORKERS = flags.DEFINE_integer("workers", 2, "Worker processes of the second start.", lower_bound=1)

SAMPLING = pipeline.Sampling(frames=4, stride=1, short_side=32, size=32, crop="center")


def resident(process: int | str = "self") -> int:
    """Megabytes."""
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{process}/status").read_text())[1]) // 1024


def children() -> list[int]:
    tasks = pathlib.Path("/proc/self/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@contextlib.contextmanager
def timed(what: str):
    start = time.perf_counter()
    yield
    print(f"{what:42} {time.perf_counter() - start:7.2f} s, {resident():,} MB")


def make(folder: pathlib.Path) -> pathlib.Path:
    motions.encode(folder / "video.mp4", np.zeros((8, 32, 32, 3), np.uint8))
    info = probing.probe(folder / "video.mp4")
    rows = []
    for number in range(ROWS.value):
        path = f"class {number % 400:03d}/video_{number:06d}_000010_000020.mp4"
        if number < 400:  # A file may not have 300,000 names.
            (folder / path).parent.mkdir()
            shutil.copyfile(folder / "video.mp4", folder / path)
        else:
            os.link(folder / rows[number % 400].path, folder / path)
        rows.append(Video(path, number % 400, "train", error=None, source=path, **vars(info)))
    classes = tuple(f"class {number:03d}" for number in range(400))
    Manifest("large", classes, str(folder), tuple(rows)).write(folder / "manifest.jsonl")
    return folder / "manifest.jsonl"


def main(_):
    with tempfile.TemporaryDirectory() as folder:
        path = make(pathlib.Path(folder))
        print(f"{ROWS.value:,} videos, a manifest of {path.stat().st_size / 1e6:.0f} MB; {resident():,} MB before")
        with timed("the manifest is read"):
            manifest = Manifest.read(path)
        with timed("the first batch, in threads"):
            batches = pipeline.train_batches(manifest, SAMPLING, batch=32, seed=0)
            next(batches)
        batches.close()
        with timed(f"the first batch, from {WORKERS.value} processes"):
            batches = pipeline.train_batches(manifest, SAMPLING, batch=32, seed=0, workers=WORKERS.value)
            next(batches)
        print(f"{'':42} the processes: {[resident(child) for child in children()]} MB")
        batches.close()
        with timed("the first batch of step 1,000,000"):
            batches = pipeline.train_batches(manifest, SAMPLING, batch=32, seed=0, first_step=1_000_000)
            next(batches)
        batches.close()

        still = np.zeros((4, 32, 32, 3), np.uint8)
        reader.decode = lambda *_, **__: still  # What is left is the order of the videos.
        for epoch in range(2):
            batch = 500
            steps = ROWS.value // batch
            with timed(f"epoch {epoch}, without decoding"):
                first = epoch * steps
                batches = pipeline.train_batches(manifest, SAMPLING, batch=batch, seed=0, first_step=first)
                seen = collections.Counter()
                for _ in range(steps):
                    seen.update(next(batches)["video"].tolist())
                batches.close()
            print(f"{'':42} {len(seen):,} of {steps * batch:,} videos, each {set(seen.values())} times")


if __name__ == "__main__":
    app.run(main)
