"""Videos that are read in processes of their own: the clips of a test in one pass, and frames with their times."""

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import time

import av
import cv2
import numpy as np
import pytest

from jax_video.data import encoding, isolated, pipeline, reader
from jax_video.data.decoding import pictures, probing, video, workers
from jax_video.data.manifest import Manifest, Video
from jax_video.data.samples import Protocol, Sampling
from jax_video.data.sources import motions
from jax_video.errors import UserError, VideoError

SAMPLING = Sampling(frames=4, stride=2, short_side=24, size=16)
FLOW = dataclasses.replace(SAMPLING, streams=("rgb", "flow"), flow_method="dis", size=24)
KINDS = {
    "one after the other": (SAMPLING, Protocol("nonoverlap")),
    "overlapping, three crops, mirrored": (SAMPLING, Protocol("uniform", 5, crop="three", flip=None)),
    "one of few frames": (SAMPLING, Protocol("spread", 3, crop="full")),
    "several at once": (dataclasses.replace(SAMPLING, segments=3), Protocol("segments")),
    "with flow": (FLOW, Protocol("uniform", 2, flip=True)),
}


@pytest.fixture(scope="module")
def moving() -> np.ndarray:
    """Smooth enough for flow to be found in it: uint8 [27, 32, 48, 3]."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (70, 110, 3), np.uint8), (0, 0), 2)
    return np.stack([texture[i : i + 32, 2 * i : 2 * i + 48] for i in range(27)])


@pytest.fixture(scope="module")
def paths(moving, tmp_path_factory) -> list[str]:
    """Files whose promise is right; one shorter than a clip's span; pictures; and two that promise another number."""
    folder = tmp_path_factory.mktemp("videos")
    motions.encode(folder / "whole.mp4", moving)
    motions.encode(folder / "short.mp4", moving[:3])
    (folder / "pictures").mkdir()
    for place, image in enumerate(moving[:12]):
        cv2.imwrite(str(folder / "pictures" / f"img_{place:05d}.png"), image)
    times = np.cumsum([0.04] * 14 + [0.4] * 13)
    encoding.write(folder / "uneven.mkv", zip(times, moving, strict=True))
    with av.open(str(folder / "whole.mp4")) as whole, av.open(str(folder / "silent.ts"), "w") as target:
        stream = target.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return [str(folder / name) for name in ("whole.mp4", "short.mp4", "pictures", "uneven.mkv", "silent.ts")]


class Promise(pictures.Watcher):
    def begin(self, frames: int) -> None:
        self.frames = frames


def expected(path: str, sampling: Sampling, protocol: Protocol) -> list[pipeline.Batch]:
    """The clips as a test of a prepared set sees them, each in a batch of its own."""
    info = probing.probe(path)
    entry = Video(path, None, "test", error=None, source=path, **vars(info))
    manifest = Manifest("set", (), "", (entry,))
    cropped = pipeline.cropped_clips(manifest, "test", sampling, protocol)
    return list(pipeline.test_batches(manifest, sampling, cropped, batch=1))


def collected(paths: list[str], sampling: Sampling, protocol: Protocol, **limits) -> dict[int, list]:
    """What comes of each video in the end."""
    found: dict[int, list] = {place: [] for place in range(len(paths))}
    for place, what in isolated.clips(dict(enumerate(paths)), sampling, protocol, **limits):
        assert None not in found[place], "nothing follows the end"
        if isinstance(what, isolated.Again):
            found[place].clear()
        else:
            found[place].append(what)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_clips_are_those_of_the_test(paths, kind):
    """Also where the promise is wrong, which `test_promises_are_wrong` sees."""
    sampling, protocol = KINDS[kind]
    here = collected(paths, sampling, protocol, timeout=None)
    there = collected(paths, sampling, protocol)
    for place, path in enumerate(paths):
        wanted = expected(path, sampling, protocol)
        for found in (here[place], there[place]):
            assert len(found) == len(wanted) + 1 and found[-1] is None
            for clip, batch in zip(found, wanted, strict=False):
                assert clip.keys() == set(sampling.streams)
                for name, frames in clip.items():
                    np.testing.assert_array_equal(frames, batch[name][0], strict=True)


def test_promises_are_wrong(paths):
    """Or else the test above would see only the easy case."""
    for path in paths:
        promise = Promise()
        found = probing.probe(path, watcher=promise).frames
        assert (promise.frames == found) == (not path.endswith((".mkv", ".ts"))), path


def test_a_file_that_keeps_its_promise_is_decoded_once(paths, monkeypatch):
    """And its keyframes are not tried. Only one that does not is decoded anew."""
    opened = []
    original = video.packets.opened

    @contextlib.contextmanager
    def count(path, **options):
        opened.append(os.path.basename(path))
        with original(path, **options) as given:
            yield given

    monkeypatch.setattr(video.packets, "opened", count)
    collected(paths[:2] + paths[3:], SAMPLING, Protocol("uniform", 3), timeout=None)
    assert opened == ["whole.mp4", "short.mp4", *["uneven.mkv"] * 2, *["silent.ts"] * 2]


def test_clips_of_frames_in_memory_are_those_of_pictures_of_them(moving, tmp_path):
    for place, image in enumerate(moving):
        cv2.imwrite(str(tmp_path / f"{place}.png"), image[..., ::-1])
    for sampling, protocol in KINDS.values():
        there = collected([str(tmp_path)], sampling, protocol, timeout=None)[0]
        here = [*isolated.clips_of_frames(moving, sampling, protocol), None]
        assert len(here) == len(there)
        for one, other in zip(here[:-1], there, strict=False):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])


def test_a_long_video_waits_until_its_clips_are_taken(tmp_path, monkeypatch):
    """Or else two hours of it would be in memory."""
    motions.encode(tmp_path / "long.mp4", np.zeros((600, 32, 32, 3), np.uint8))
    steps = []
    monkeypatch.setattr(workers, "go_on", lambda: steps.append(None))
    found = isolated.clips({0: str(tmp_path / "long.mp4")}, SAMPLING, Protocol("nonoverlap"), timeout=None)
    with contextlib.closing(found):
        next(found)
        time.sleep(0.3)
        assert len(steps) < 100
        assert sum(1 for _ in found) == 600 // 8 and len(steps) >= 600


def test_those_that_cannot_be_read_say_why(paths, tmp_path, monkeypatch):
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")  # to open it would take for ever
    (tmp_path / "cut.mkv").write_bytes(pathlib.Path(paths[3]).read_bytes()[:-700])
    monkeypatch.chdir(tmp_path)
    names = ["text.mp4", "none.mp4", "circle.mp4", "pipe.mp4", "cut.mkv", paths[0]]
    for limits in ({"timeout": None}, {}):
        found = collected(names, SAMPLING, Protocol("uniform"), **limits)
        reasons = [found[place][-1] for place in range(5)]
        assert reasons[0].startswith("not a readable video") and reasons[1] == "no such file"
        assert "in a circle" in reasons[2] and reasons[3] == "not a file: a pipe, a socket or a device"
        assert "truncated" in reasons[4]
        assert len(found[5]) == 2 and found[5][-1] is None


@pytest.fixture(scope="module")
def endless(paths, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("endless") / "endless.mkv"
    with av.open(paths[0]) as good, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(good.streams.video[0])
        for packet in good.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    os.truncate(path, 2**40)  # the reader looks for the next element in a terabyte of zeros
    return str(path)


def test_a_file_that_never_ends_costs_only_its_time(paths, endless):
    """Also where a thread asks, which may not say how signals are handled; and where frames are asked for."""
    files = [endless, paths[0]]
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        found = thread.submit(collected, files, SAMPLING, Protocol("uniform"), timeout=3.0).result()
    assert found[0][-1] == "not done after 3 s" and found[1][-1] is None

    with pytest.raises(VideoError, match=r"endless.mkv: not done after 1 s"):
        list(isolated.timed(endless, short_side=None, timeout=1.0)[0])


@pytest.mark.parametrize("place", range(5))
def test_frames_with_their_times_are_those_that_are_read_here(paths, place):
    path = paths[place]
    fps = 10.0 if path.endswith("pictures") else 0.0
    frames, seconds = isolated.timed(path, short_side=24, fps=fps)
    expected_frames, expected_seconds = reader.timed(path, short_side=24, fps=fps)
    assert seconds == expected_seconds
    for (time_, image), (wanted_time, wanted) in zip(frames, expected_frames, strict=True):
        assert time_ == wanted_time
        np.testing.assert_array_equal(image, wanted, strict=True)


def test_frames_that_cannot_be_read_say_why(paths, tmp_path):
    with pytest.raises(VideoError, match=r"none.mp4: no such file"):
        isolated.timed(tmp_path / "none.mp4", short_side=None)
    with pytest.raises(VideoError, match=r"pictures: pictures have no times"):
        list(isolated.timed(paths[2], short_side=None)[0])


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "5"])
def test_a_timeout_is_a_number_of_seconds(timeout):
    with pytest.raises(UserError, match="timeout is .*: expected seconds"):
        next(isolated.clips({0: "a.mp4"}, SAMPLING, Protocol("uniform"), timeout=timeout))
    with pytest.raises(UserError, match="timeout is .*: expected seconds"):
        isolated.timed("a.mp4", short_side=None, timeout=timeout)
