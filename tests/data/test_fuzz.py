"""Mutated copies of real and of rendered videos: each is read, or listed with a reason, by `prepare` and the loader.

None may crash a process, take ten seconds or a gibibyte of memory. Two thousand are tried with `-m slow`.
"""

import collections
import csv
import dataclasses
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys

import av
import fuzz
import numpy as np
import pytest
from conftest import ROOT

from jax_video.data import clips, pipeline, reader
from jax_video.data.decoding import flow, video
from jax_video.data.manifest import Manifest, Video
from jax_video.data.sources import motions
from jax_video.errors import VideoError

SAMPLING = pipeline.Sampling(frames=8, stride=4, short_side=64, size=56, flow_method="dis")
MOST_SECONDS, MOST_MEMORY = 10, fuzz.GIB
SMALL = 300_000  # Bytes of a real video that a quick test can work on.


def rendered(folder: pathlib.Path) -> dict[str, bytes]:
    """Small videos in all containers that data sets come in."""
    files = {
        "h264.mp4": ("libx264", {"g": "12", "bf": "2", "x264-params": "cpu-independent=1"}),
        "mpeg4.avi": ("mpeg4", {"g": "12", "bf": "2"}),
        "h264.mkv": ("libx264", {"g": "12", "x264-params": "cpu-independent=1"}),
        "vp9.webm": ("libvpx-vp9", {"g": "12", "cpu-used": "8"}),
    }
    scene = motions.draw(np.random.default_rng(0))
    frames = motions.render(scene, "growing", frames=40, width=80, height=64)
    return {
        name: write(
            folder / name,
            frames,
            codec,
            options | {"threads": "1"},
            sound_codec="libopus" if name.endswith(".webm") else "aac",
        )
        for name, (codec, options) in files.items()
    }


# Container and codec, pixel format, options, codec of the sound.
PAIRS = {
    "h264.mp4": ("libx264", "yuv420p", {"g": "12", "bf": "2", "x264-params": "cpu-independent=1"}, "aac"),
    "h264.mov": ("libx264", "yuv420p", {"g": "12", "bf": "2", "flags": "+ildct+ilme"}, "aac"),
    "h264.mkv": ("libx264", "yuv420p10le", {"g": "12", "bf": "2"}, "aac"),
    "h264.flv": ("libx264", "yuv420p", {"g": "12", "bf": "2"}, "aac"),
    "h264.ts": ("libx264", "yuv420p", {"g": "12", "bf": "2"}, "aac"),
    "h264.h264": ("libx264", "yuv420p", {"g": "12", "bf": "2"}, None),
    "hevc.mp4": ("libx265", "yuv420p", {"x265-params": "keyint=12:log-level=none"}, "aac"),
    "av1.mkv": ("libsvtav1", "yuv420p", {"g": "12", "preset": "12"}, "aac"),
    "vp8.webm": ("libvpx", "yuv420p", {"g": "12", "cpu-used": "8"}, "libopus"),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"g": "12", "cpu-used": "8"}, "libopus"),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"g": "12", "bf": "2"}, "aac"),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}, None),
    "wmv2.wmv": ("wmv2", "yuv420p", {"g": "12"}, None),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {"g": "12", "bf": "2"}, None),
    "mpeg2.mxf": ("mpeg2video", "yuv420p", {"g": "12", "bf": "2"}, None),
    "prores.mov": ("prores_ks", "yuv422p10le", {}, None),
    "gif.gif": ("gif", "rgb8", {}, None),
}


def write(
    path: pathlib.Path,
    frames: np.ndarray,
    codec: str,
    options: dict[str, str],
    pix_fmt: str = "yuv420p",
    sound_codec: str | None = "aac",
) -> bytes:
    """The bytes of a file with picture and, with a codec for it, sound."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        sound = sound_codec and container.add_stream(sound_codec, rate=48000)
        for index, frame in enumerate(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)))
            if sound:
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 48000, 1920 * index
                container.mux(sound.encode(samples))
        container.mux(stream.encode())
        if sound:
            container.mux(sound.encode())
    return path.read_bytes()


def pairs(folder: pathlib.Path) -> dict[str, bytes]:
    """A small video of each of PAIRS."""
    frames = motions.render(motions.draw(np.random.default_rng(1)), "growing", frames=40, width=80, height=64)
    return {
        name: write(folder / name, frames, codec, options | {"threads": "1"}, pix_fmt, sound)
        for name, (codec, pix_fmt, options, sound) in PAIRS.items()
        if codec in av.codecs_available
    }


def real(folder: pathlib.Path) -> dict[str, bytes]:
    """H.264 with and without sound, and Xvid."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".avi"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def prepare(videos: pathlib.Path, out: pathlib.Path, *flags: str) -> Manifest:
    """The command as a user calls it; what it does not call readable must be listed."""
    arguments = ("folder", f"--videos={videos}", f"--out={out}", "--workers=2", f"--timeout={MOST_SECONDS}", *flags)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "jax_video.prepare", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    manifest = Manifest.read(out / "manifest.jsonl")
    assert {row.path for row in manifest.videos} == {str(path.relative_to(videos)) for path in videos.rglob("*.*")}
    with open(out / "broken.csv", newline="") as file:
        listed = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert {row.path: row.error for row in manifest.videos if row.error}.items() <= listed.items()
    return manifest


def clip(entry: Video, seed: int) -> np.ndarray:
    """Indices of a random clip, int64 [T]."""
    return clips.random_clip(entry.frames, SAMPLING.frames, SAMPLING.stride, np.random.default_rng(seed))


def read(manifest: Manifest, entry: Video, seed: int) -> str:
    """In a process of its own: a random clip, as the loader reads it."""
    try:
        frames = reader.decode(manifest, entry, clip(entry, seed), short_side=SAMPLING.short_side)
    except VideoError:
        return "reason"
    assert frames.dtype == np.uint8 and frames.shape[::3] == (SAMPLING.frames, 3), frames.shape
    assert min(frames.shape[1:3]) == SAMPLING.short_side, frames.shape
    return "frames"


def compare(manifest: Manifest, entry: Video, seed: int) -> str:
    """In a process of its own: a clip found by seeking, and by decoding in order."""
    path, indices = os.path.join(manifest.root, entry.path), clip(entry, seed)
    unsought = entry.index and dataclasses.replace(entry.index, keyframes=())
    try:
        in_order = video.decode(path, indices, index=unsought)
        found = video.decode(path, indices, index=entry.index)
    except VideoError:
        return "reason"
    return "same" if np.array_equal(found, in_order) else "different"


def train(manifest: Manifest, workers: int) -> str:
    """In a process of its own: an epoch of the loader, in which others stand in for videos that cannot be read."""
    count, batch = len(manifest.select("train")), 4
    batches = pipeline.train_batches(manifest, SAMPLING, batch=batch, seed=0, workers=workers)
    shown = 0
    for rows in itertools.islice(batches, -(-count // batch)):
        assert rows["rgb"].shape == (batch, SAMPLING.frames, SAMPLING.size, SAMPLING.size, 3)
        shown += int((rows["failed"] == 0).sum())
    batches.close()
    return f"an epoch with {shown} of {count} or more"


def survey(
    files: dict[str, bytes], count: int, folder: pathlib.Path, *, workers: int, looks: int, seed: int = 0
) -> None:
    """Lets so many mutants through everything, of which each video is looked at so often; prints what happened."""
    for number, (name, data) in enumerate(fuzz.mutants(files, count, seed)):
        path = folder / "videos" / "ab"[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    tasks, labels = [], []
    for level in ("fast", "full"):
        manifest = prepare(folder / "videos", folder / "out", f"--check={level}")
        reasons = collections.Counter(re.split("[:(]", row.error or "readable")[0] for row in manifest.videos)
        print(f"\n{level}: {dict(reasons.most_common())}")
        readable = [dataclasses.replace(row, split="train") for row in manifest.videos if row.error is None]
        one, everything = (dataclasses.replace(manifest, videos=rows) for rows in ((), tuple(readable)))
        for function in (read, compare):
            tasks += [fuzz.Task(function, (one, entry, seed)) for entry in readable for seed in range(looks)]
        tasks.append(fuzz.Task(train, (everything, workers)))
        labels += [level] * (len(tasks) - len(labels))
    check(tasks, labels)


def check(tasks: list[fuzz.Task], labels: list[str]) -> None:
    """Does all; fails where a process ends, something is raised, or takes too much time or memory."""
    results, faults = collections.defaultdict(list), []
    for label, task, outcome in zip(labels, tasks, fuzz.outcomes(tasks, seconds=600), strict=True):
        results[label, task.function.__name__].append(outcome)
        late = outcome.seconds > MOST_SECONDS and task.function not in (compare, train)  # Of those, more is asked.
        if outcome.failed or late or outcome.memory > MOST_MEMORY:
            faults.append((label, task.function.__name__, task.arguments[1], outcome))
    for (label, name), column in results.items():
        print(f"{label} {name}: {dict(collections.Counter(outcome.result for outcome in column))}, at most")
        print(f"  {max(o.seconds for o in column):.2f} s, {max(o.memory for o in column) / 2**20:.0f} MiB")
    assert not faults, "\n".join(map(str, faults))


def read_flow(manifest: Manifest, entry: Video) -> str:
    """In a process of its own: the flow about some frames."""
    try:
        fields = reader.flow_stacks(manifest, entry, np.array([5, 6, 30]), short_side=SAMPLING.short_side)
    except VideoError:
        return "reason"
    assert fields.shape == (3, 64, 80, flow.CHANNELS)
    return "flow"


def read_packed(manifest: Manifest, entry: Video, expected: np.ndarray) -> str:
    """In a process of its own: all frames."""
    try:
        frames = reader.decode(manifest, entry, np.arange(entry.frames), short_side=SAMPLING.short_side)
    except VideoError:
        return "reason"
    np.testing.assert_array_equal(frames, expected)
    return "frames"


# Of rendered files, CI damages forty; where there are no real ones, as on GitHub, they are all that there is.
@pytest.mark.parametrize("kind", [pytest.param("rendered", marks=[pytest.mark.slow, pytest.mark.ci]), "real"])
def test_forty_damaged_videos(kind, tmp_path, request):
    if kind == "rendered":
        files = rendered(tmp_path)
    else:
        files = {name: data for name, data in real(request.getfixturevalue("test_data")).items() if len(data) < SMALL}
    survey(files, 42, tmp_path / "mutants", workers=0, looks=1)


@pytest.mark.parametrize("count", [40, pytest.param(300, marks=pytest.mark.slow)])
def test_damaged_flow_gives_flow_or_a_reason_and_a_damaged_shard_its_very_frames_or_a_reason(count, tmp_path):
    scene = motions.draw(np.random.default_rng(0))
    for name in ("left", "right"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        frames = motions.render(scene, name, frames=32, width=80, height=64)
        for number in range(2):
            motions.encode(tmp_path / "videos" / name / f"{number}.mp4", frames)
    flags = ("--flow=dis", f"--flow_side={SAMPLING.short_side}", "--pack")
    manifest = prepare(tmp_path / "videos", tmp_path / "out", *flags)
    packed = Manifest.read(tmp_path / "out" / "packed" / "manifest.jsonl")
    (index, entry), *_ = manifest.select("train")

    tasks = []
    whole = pathlib.Path(flow.stored_path(manifest.flow, entry)).read_bytes()
    one = dataclasses.replace(manifest, videos=())
    for name, data in fuzz.mutants({"a.mp4": whole}, count):
        mutant = dataclasses.replace(entry, path=name)
        pathlib.Path(flow.stored_path(manifest.flow, mutant)).write_bytes(data)
        tasks.append(fuzz.Task(read_flow, (one, mutant)))

    entry = packed.videos[index]
    frames = reader.decode(packed, entry, np.arange(entry.frames), short_side=SAMPLING.short_side)
    (shard,) = pathlib.Path(packed.root).glob("*train.array_record*")
    for name, data in fuzz.mutants({"a.shard": shard.read_bytes()}, count):
        folder = tmp_path / "shards" / name
        shutil.copytree(packed.root, folder)
        (folder / shard.name).write_bytes(data)
        one = dataclasses.replace(packed, root=str(folder), videos=())
        tasks.append(fuzz.Task(read_packed, (one, entry, frames)))
    check(tasks, [""] * len(tasks))


@pytest.mark.slow
def test_two_thousand_damaged_videos(test_data, tmp_path):
    survey(real(test_data) | rendered(tmp_path), 2000, tmp_path / "mutants", workers=2, looks=3)


@pytest.mark.slow
def test_fifteen_hundred_damaged_videos_of_seventeen_kinds(tmp_path):
    survey(pairs(tmp_path), 1500, tmp_path / "mutants", workers=2, looks=2, seed=1511)
