"""How fast the clips of a set load, where the time goes, and what to change: `prepare --benchmark`."""

import collections
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import cv2
import numpy as np

from jax_video.data import pipeline, reader, transforms
from jax_video.data.decoding import packed
from jax_video.data.manifest import Manifest, Video
from jax_video.errors import UserError, VideoError

STAGES = ("read", "decode", "resize", "collate", "transfer")


class Speed(NamedTuple):
    """What was measured."""

    stages: Mapping[str, float]  # seconds of each of STAGES for a clip, in one thread
    jpegs: float  # seconds to decode the frames of a clip, at its short side, from JPEGs in memory
    rates: Mapping[int, float]  # clips per second of the whole pipeline, by its number of worker processes
    unreadable: tuple[str, ...]  # videos that were tried and cannot be read
    without_index: int  # training videos that are decoded from their first frame on


def measure(
    manifest: Manifest,
    sampling: pipeline.Sampling,
    *,
    batch: int,
    transfer: Callable[[np.ndarray], None],
    workers: tuple[int, ...],
    seconds: float = 6.0,
) -> Speed:
    """Measure how fast random training clips load.

    Args:
      manifest: the set; its training videos are read.
      sampling: how clips are cut; the stages are measured of RGB alone.
      batch: clips in a batch.
      transfer: brings a batch to the device, and waits for it.
      workers: the numbers of worker processes to try.
      seconds: about how long each measurement takes.

    Raises:
      UserError: there is no training video, or the first ones tried cannot be read.
    """
    videos = [entry for _, entry in manifest.select("train")]
    if not videos:
        raise UserError(f"manifest {manifest.name!r} has no readable training video: look at prepare's table.")
    rng = np.random.default_rng(0)
    spent: dict[str, list[float]] = collections.defaultdict(list)
    rows, unreadable = [], {}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        entry = videos[rng.integers(len(videos))]
        try:
            rows.append(_timed_clip(manifest, entry, sampling, rng, spent))
            rows = rows[-batch:]
        except VideoError as error:
            unreadable[entry.path] = error.reason
            if not rows and len(unreadable) == min(8, len(videos)):
                raise UserError(f"no training video can be read, e.g. {error}: has {manifest.root} moved?") from error
    rows = [rows[i % len(rows)] for i in range(batch)]
    for _ in range(4):
        with _timed(spent, "collate"):
            together = np.stack(rows)
        with _timed(spent, "transfer"):
            transfer(together)
    stages = {stage: float(np.median(spent[stage])) for stage in STAGES}
    stages |= {stage: stages[stage] / batch for stage in ("collate", "transfer")}
    rates = {number: _rate(manifest, sampling, batch, number, seconds) for number in workers}
    files = () if manifest.packed else (entry for entry in videos if os.path.splitext(entry.path)[1])
    without = sum(entry.index is None or (entry.index.verified and not entry.index.keyframes) for entry in files)
    return Speed(stages, float(np.median(spent["jpegs"])), rates, tuple(unreadable), without)


def _timed_clip(
    manifest: Manifest, entry: Video, sampling: pipeline.Sampling, rng: np.random.Generator, spent: dict[str, list]
) -> np.ndarray:
    """Time the loading of one clip, and return it as a batch has it: uint8 [T, size, size, 3]."""
    start = rng.integers(max(1, entry.frames - sampling.span + 1))
    places = (start + sampling.stride * np.arange(sampling.frames)) % entry.frames
    with _timed(spent, "read"):
        _read(manifest, entry, places)
    with _timed(spent, "decode"):
        frames = reader.decode(manifest, entry, places, short_side=None)
    with _timed(spent, "resize"):
        frames = transforms.resize_short(frames, sampling.short_side)
        box = transforms.draw_box(frames.shape[1], frames.shape[2], sampling.size, "center")
        clip = np.ascontiguousarray(transforms.crop(frames, box))
    jpegs = [cv2.imencode(".jpg", frame, (cv2.IMWRITE_JPEG_QUALITY, 90))[1] for frame in frames]
    with _timed(spent, "jpegs"):
        for jpeg in jpegs:
            cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB)
    return clip


def _read(manifest: Manifest, entry: Video, places: np.ndarray) -> None:
    """Read what a clip is decoded from: its records, or its whole file."""
    if manifest.packed is not None:
        packed.pictures(manifest, entry, places)
        return
    path = os.path.join(manifest.root, entry.path)
    if os.path.isfile(path):
        with open(path, "rb") as file:
            while file.read(2**20):
                pass


@contextlib.contextmanager
def _timed(spent: dict[str, list], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[stage].append(time.perf_counter() - start)


def _rate(manifest: Manifest, sampling: pipeline.Sampling, batch: int, workers: int, seconds: float) -> float:
    """Clips per second of `train_batches`, not counting those that it reads ahead at the start."""
    batches = pipeline.train_batches(manifest, sampling, batch=batch, seed=0, workers=workers)
    with contextlib.closing(batches):
        for _ in range(2 + 2 * workers):
            next(batches)
        start = time.perf_counter()
        count = 0
        while time.perf_counter() < start + seconds:
            next(batches)
            count += batch
        return count / (time.perf_counter() - start)


def report(manifest: Manifest, sampling: pipeline.Sampling, speed: Speed) -> str:
    """The measurement in words, and what would be faster."""
    total = sum(speed.stages.values())
    lines = [
        f"{manifest.name}: clips of {sampling.frames} frames, stride {sampling.stride}, crops of {sampling.size} "
        f"pixels from a short side of {sampling.short_side}",
        f"\none clip, in one thread  {1000 * total:8.2f} ms",
    ]
    lines += [f"  {stage:22} {1000 * each:8.2f} ms {each / total:6.1%}" for stage, each in speed.stages.items()]
    lines.append("\nthe pipeline, by --config.data.workers")
    lines += [f"  {number or '0 (two threads)':<22} {rate:8.1f} clips/s" for number, rate in speed.rates.items()]
    return "\n".join([*lines, "", *(f"- {line}" for line in _advice(manifest, sampling, speed, total))])


def _advice(manifest: Manifest, sampling: pipeline.Sampling, speed: Speed, total: float) -> Iterator[str]:
    best = max(speed.rates, key=lambda number: speed.rates[number])
    yield f"--config.data.workers={best} is the fastest of these here: {speed.rates[best]:.0f} clips/s"
    again = "prepare manifest --out=OUT"
    if speed.unreadable:
        tried = f"{len(speed.unreadable)} videos that were tried cannot be read, e.g. {speed.unreadable[0]}"
        yield f"{tried}: {again} --check=full"
    if speed.without_index:
        yield f"{speed.without_index:,} videos are decoded from their first frame on: {again} --check=full may mend it"
    others = total - speed.stages["decode"] - speed.stages["resize"]
    gain = total / (others + 1.25 * speed.jpegs)  # JPEGs take a quarter more than their decoding (RESULTS.md)
    if manifest.packed is None and gain > 1.5:
        packing = f"{again} --pack --pack_side={sampling.short_side}"
        yield f"packed frames would load about {gain:.0f} times as fast: {packing}"
    if manifest.packed is not None and manifest.packed.short_side > 1.5 * sampling.short_side:
        yield f"frames are packed larger than needed: --pack_side={sampling.short_side} decodes faster"
    if speed.stages["read"] > 0.3 * total:
        yield "reading takes much of the time: a local disk, or smaller files (--pack), would help"
    if speed.stages["transfer"] > 0.3 * total:
        yield "the way to the device takes much of the time: smaller clips, or more hosts, would help"
