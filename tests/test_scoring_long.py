"""A long video is tested in the memory of one batch, and its packets are read once.

As a script it tests one file in a process of its own: `python tests/test_evaluate_long.py VIDEO FRAMES` prints the
number of clips, seconds from the second batch on, the largest memory and the scores as JSON.
"""

import dataclasses
import fractions
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_video import scoring, sharding
from jax_video.data import pipeline
from jax_video.data.decoding import packets, probing, video
from jax_video.data.manifest import Manifest, Video

FPS, LOOP = 25, 32  # frames of the file that is repeated
WIDTH, HEIGHT = 64, 48
SAMPLING = pipeline.Sampling(frames=16, stride=2, short_side=32, size=32)  # one clip is one loop


def write_loop(path: pathlib.Path, loops: int) -> pathlib.Path:
    """An MP4 of a moving pattern that is encoded once, with frames predicted from both sides, and repeated."""
    t, y, x = np.mgrid[:LOOP, :HEIGHT, :WIDTH]
    pattern = 128 + 100 * np.sin(2 * np.pi * (x / WIDTH + y / HEIGHT - t / LOOP))
    options = {"g": "16", "bf": "2", "x264-params": "cpu-independent=1"}
    once = path.with_name(f"once {path.name}")
    with av.open(str(once), "w") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p", options=options
        )
        for frame in np.repeat(pattern[..., None], 3, axis=-1).astype(np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(once)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        ticks = int(fractions.Fraction(LOOP, FPS) / source.streams.video[0].time_base)
        for loop in range(loops):
            source.seek(0)
            for packet in source.demux(video=0):
                if packet.size:
                    packet.pts, packet.dts = packet.pts + loop * ticks, packet.dts + loop * ticks
                    packet.stream = stream
                    container.mux(packet)
    return path


def score(path: pathlib.Path, frames: int) -> tuple[np.ndarray, list[float]]:
    """Scores of a video, from pixels at random, and the time at every batch."""
    index = dataclasses.replace(probing.probe(path).index, step=0)  # as of a variable frame rate: the packets are read
    entry = Video(path.name, 0, "test", frames, FPS, WIDTH, HEIGHT, None, path.name, index=index)
    kernel = 0.01 * jax.random.normal(jax.random.key(0), (16 * 32 * 32 * 3, 8))
    times = []

    @jax.jit
    def step(kernel, batch_stats, batch):
        rgb = batch["rgb"].astype(jnp.float32) / 255 - 0.5
        return {"values": rgb.reshape(len(rgb), -1) @ kernel, "failed": batch["failed"]}

    def timed_step(*arguments):
        times.append(time.monotonic())
        return step(*arguments)

    found = scoring.mean_over_clips(
        timed_step,
        (kernel, {}),
        Manifest("long", tuple("abcdefgh"), str(path.parent), (entry,)),
        "test",
        SAMPLING,
        sharding.make_mesh(),
        protocol=pipeline.Protocol("nonoverlap"),
        batch=8,
    )
    assert not found.failed
    return found.values[0], times


def test_packets_are_read_once_for_all_clips(tmp_path, monkeypatch):
    """A minute and more: every clip is the same, so a video scores as each of them."""
    read, decoded = [], []
    listed, rgb = packets.Packets.sorted, video.rgb
    monkeypatch.setattr(packets.Packets, "sorted", lambda *given: read.append(1) or listed(*given))
    monkeypatch.setattr(video, "rgb", lambda *given: decoded.append(1) or rgb(*given))
    expected, _ = score(write_loop(tmp_path / "short.mp4", 1), LOOP)
    assert (len(read), len(decoded)) == (2, 1 + 16)  # one of each by the probe
    path = write_loop(tmp_path / "long.mp4", 63)
    assert probing.probe(path).frames == 63 * LOOP
    read.clear(), decoded.clear()
    scores, times = score(path, 63 * LOOP)
    assert (len(read), len(decoded), len(times)) == (2, 1 + 63 * 16, 8)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_hours_take_the_memory_of_two_minutes(tmp_path):
    results = {}
    for name, seconds in {"two minutes": 2 * 60, "two hours": 2 * 60 * 60}.items():
        loops = seconds * FPS // LOOP
        path = write_loop(tmp_path / f"{name}.mp4", loops)
        environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
        command = [sys.executable, __file__, str(path), str(loops * LOOP)]
        finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert finished.returncode == 0, finished.stderr
        results[name] = json.loads(finished.stdout)
        print(name, results[name])
        assert results[name]["clips"] == loops
    short, long = results["two minutes"], results["two hours"]
    np.testing.assert_allclose(long["scores"], short["scores"], atol=1e-5)
    assert long["peak_mb"] - short["peak_mb"] < 100, "its frames alone, at 32², would take 550 MB"


if __name__ == "__main__":
    found, moments = score(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
    peak = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    clips = int(sys.argv[2]) // LOOP
    result = {"clips": clips, "seconds": moments[-1] - moments[1], "peak_mb": int(peak[1]) / 1024}
    print(json.dumps(result | {"scores": found.tolist()}))
