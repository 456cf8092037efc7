"""Clips at a rate of their own (`clip.fps`): which frames of a video they are made of, whatever the video's rate."""

import dataclasses
import itertools
import pathlib
import shutil
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_video.data import clips, encoding, isolated, pipeline, samples
from jax_video.data.decoding import probing
from jax_video.data.manifest import Manifest, Video, in_memory
from jax_video.data.preparing.machines import Machines
from jax_video.data.preparing.preparation import Preparation, prepare
from jax_video.errors import UserError, VideoError

SAMPLING = pipeline.Sampling(frames=4, stride=2, short_side=24, size=16, fps=15.0)
FLOW = dataclasses.replace(SAMPLING, streams=("rgb", "flow"), flow_method="dis", size=24)
NTSC = Fraction(30000, 1001)
RATES = [Fraction(10), Fraction(15), Fraction(25), NTSC, Fraction(30), Fraction(60)]
MIDDLE = pipeline.Protocol("uniform", 1)
PROTOCOLS = {
    "one after the other": (SAMPLING, pipeline.Protocol("nonoverlap")),
    "evenly spread": (SAMPLING, pipeline.Protocol("uniform", 5)),
    "from end to end": (SAMPLING, pipeline.Protocol("spread", 6)),
    "segments": (dataclasses.replace(SAMPLING, segments=3), pipeline.Protocol("segments")),
    "flow": (FLOW, pipeline.Protocol("uniform", 2)),
}
rates = st.sampled_from([*RATES, NTSC * 2, Fraction(24000, 1001), Fraction(12), Fraction(25, 2), Fraction(240)])


def entry(frames: int, rate: float, path: str = "a.mp4", split: str = "test") -> Video:
    return Video(path, 0, split, frames, float(rate), 32, 32, None, path)


def found(frames: int, rate, fps) -> list[int]:
    """All that a video at another rate consists of."""
    given = clips.Frames(0, frames, clips.step(float(rate), float(fps)))
    return given.places(np.arange(given.count)).tolist()


@given(rates, rates, st.integers(1, 400))
@settings(max_examples=40)
def test_each_frame_is_the_nearest_in_time(rate, fps, frames):
    """Of exact times; of two that are as near, the later one."""
    places = found(frames, rate, fps)
    assert places == sorted(places) and places[0] == 0 and places[-1] < frames
    assert abs(len(places) / fps - frames / rate) <= max(1 / fps / 2, 1 / fps if len(places) == 1 else 0)
    for i, place in enumerate(places):
        near = range(max(0, place - 1), min(frames, place + 2))
        assert place == min(near, key=lambda k: (abs(k / rate - i / fps), -k))


def test_rates_of_broadcasting_are_exact_over_hours():
    frames = clips.Frames(0, 10**6, clips.step(30000 / 1001, 15.0))
    for i in (*range(2000), 250_249, 499_999):
        assert frames.places(np.array(i)) == (2 * i * 2000 + 1001) // 2002


@pytest.mark.parametrize("rate", RATES)
def test_the_number_of_frames_is_that_of_ffmpegs_filter(rate):
    """And none of its frames is nearer in time than ours."""
    for frames in (1, 2, 7, 31, 60):
        graph = av.filter.Graph()
        source = graph.add_buffer(width=16, height=16, format="gray", time_base=1 / rate)
        shown, sink = graph.add("fps", "15"), graph.add("buffersink")
        source.link_to(shown)
        shown.link_to(sink)
        graph.configure()
        for place in range(frames):
            image = av.VideoFrame.from_ndarray(np.full((16, 16), place, np.uint8), format="gray")
            image.pts, image.time_base = place, 1 / rate
            image.duration = 1
            source.push(image)
        source.push(None)
        theirs = []
        while True:
            try:
                theirs.append(int(sink.pull().to_ndarray()[0, 0]))
            except (av.BlockingIOError, EOFError):
                break
        ours = found(frames, rate, 15)
        assert len(ours) == max(1, len(theirs)), frames
        for i, (place, other) in enumerate(zip(ours, theirs, strict=False)):
            assert abs(place / rate - Fraction(i, 15)) <= abs(other / rate - Fraction(i, 15))


def test_without_a_rate_and_at_the_videos_own_nothing_changes():
    plain = dataclasses.replace(SAMPLING, fps=None)
    for frames, first in ((1, 0), (5, 0), (40, 0), (40, 5)):
        for sampling in (plain, dataclasses.replace(SAMPLING, fps=float(NTSC))):
            usable = sampling.frames_of(frames, float(NTSC), first=first)
            assert usable.count == frames
            np.testing.assert_array_equal(usable.places(np.arange(frames)), first + np.arange(frames))
    assert samples.random_clips(entry(40, 0), plain, np.random.default_rng(3)).tolist() == (
        clips.random_clip(40, 4, 2, np.random.default_rng(3)).tolist()
    ), "also where the video's is not known"


@pytest.mark.parametrize("rate", RATES)
def test_clips_show_the_same_moments_at_every_rate(rate):
    """Of the same motion, of 4 s: to half a frame of the video."""
    manifest = Manifest("set", ("a",), "", (entry(round(4 * rate), rate), entry(round(4 * rate), rate, "b", "train")))
    for name in ("one after the other", "evenly spread"):
        cropped = pipeline.cropped_clips(manifest, "test", *PROTOCOLS[name])
        reference = clips.test_clips(60, 4, 2, clips=PROTOCOLS[name][1].clips, number=5)
        assert len(cropped) == len(reference)
        for clip, wanted in zip(cropped, reference, strict=True):
            assert np.abs(clip.frames / float(rate) - wanted / 15).max() <= 0.5 / float(rate) + 1e-9
    drawn = samples.random_clips(manifest.videos[1], SAMPLING, np.random.default_rng(7))
    wanted = clips.random_clip(60, 4, 2, np.random.default_rng(7))
    assert np.abs(drawn / float(rate) - wanted / 15).max() <= 0.5 / float(rate) + 1e-9


def test_short_videos_are_looped_or_reflected_at_the_clips_rate():
    short = Manifest("set", ("a",), "", (entry(6, 30),))  # 3 frames at 15
    [looped] = pipeline.cropped_clips(short, "test", dataclasses.replace(SAMPLING, stride=1), MIDDLE)
    assert looped.frames.tolist() == [0, 2, 4, 0]
    varying = dataclasses.replace(SAMPLING, strides=(1, 3))
    [reflected] = pipeline.cropped_clips(short, "test", varying, MIDDLE)
    assert reflected.frames.tolist() == [0, 2, 4, 4]
    slow = Manifest("set", ("a",), "", (entry(4, 5),))  # frames repeat
    [repeated] = pipeline.cropped_clips(slow, "test", dataclasses.replace(SAMPLING, stride=1, frames=12), MIDDLE)
    assert repeated.frames.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3]


def test_flow_leads_between_neighbours_of_the_file():
    manifest = Manifest("set", ("a",), "", (entry(60, 30),))
    [clip] = pipeline.cropped_clips(manifest, "test", FLOW, MIDDLE)
    assert np.diff(clip.frames).tolist() == [4, 4, 4] and clip.frames[0] >= 5
    needed = samples.needed(clip, 60, ("flow",))
    assert set(needed.tolist()) == {k for place in clip.frames for k in range(place - 5, place + 6)}


@pytest.mark.parametrize("value", [0, -1, 0.0, float("nan"), float("inf"), "15", True, (15,), 2000])
def test_what_is_no_rate_is_refused(value):
    with pytest.raises(UserError, match="clip.fps is .*expected frames per second, from 0.01 to 1000, or None"):
        dataclasses.replace(SAMPLING, fps=value)


def test_training_needs_rates_and_names_the_videos_that_lack_them():
    videos = [entry(9, rate, f"{number}.mp4", "train") for number, rate in enumerate((25, 0, 90_000, 30))]
    manifest = Manifest("set", ("a",), "", (*videos, entry(1, 0, "one.png")))
    with pytest.raises(UserError, match=r"of 2 of the 4 readable videos of 'set'.* 1.mp4 \(0\), 2.mp4 \(90000\)"):
        pipeline.check_stored(manifest, SAMPLING)
    pipeline.check_stored(manifest, dataclasses.replace(SAMPLING, fps=None))
    with pytest.raises(VideoError, match="1.mp4: its frame rate is not known, and clips have 15: say how many"):
        samples.random_clips(videos[1], SAMPLING, np.random.default_rng(0))


def draw(count: int) -> np.ndarray:
    """Smooth enough for flow to be found in it: uint8 [count, 32, 48, 3]."""
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (140, 160, 3), np.uint8), (0, 0), 2)
    return np.stack([texture[i : i + 32, i : i + 48] for i in range(count)])


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Of an even rate, of one of broadcasting, of a variable one; a folder of pictures."""
    folder = tmp_path_factory.mktemp("rates")
    times = {
        "even.mp4": np.arange(50) / 25,
        "broadcast.mp4": np.arange(50) * 1001 / 30000,
        "uneven.mp4": np.cumsum([0.04] * 30 + [0.1] * 20),
        "uneven.mkv": np.cumsum([0.04] * 30 + [0.1] * 20),  # whose header tells another rate, and no number
        "short.mp4": np.arange(12) / 25,  # another rate, and the right number: how long the last frame lasts is unknown
    }
    for name, seconds in times.items():
        encoding.write(folder / name, zip(seconds, draw(len(seconds)), strict=True))
    (folder / "pictures").mkdir()
    for place, image in enumerate(draw(30)):
        cv2.imwrite(str(folder / "pictures" / f"img_{place:05d}.png"), image[..., ::-1])
    return {name: str(folder / name) for name in (*times, "pictures")}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_single_files_give_the_clips_of_a_prepared_set(files, name):
    """Also of a variable rate, whose mean both take; the pictures' is given."""
    sampling, protocol = PROTOCOLS[name]
    places = dict(enumerate(files.values()))
    for timeout in (None, 100.0) if name == "evenly spread" else (None,):
        seen: dict[int, list] = {place: [] for place in places}
        for place, what in isolated.clips(places, sampling, protocol, fps=20.0, timeout=timeout):
            if isinstance(what, isolated.Again):
                seen[place].clear()
            else:
                seen[place].append(what)
        for place, path in places.items():
            info = dataclasses.asdict(probing.probe(path)) | {"index": None}
            info["fps"] = info["fps"] or 20.0
            manifest = Manifest("set", (), "", (Video(path, None, "test", error=None, source=path, **info),))
            wanted = pipeline.cropped_clips(manifest, "test", sampling, protocol)
            *shown, end = seen[place]
            assert end is None and len(shown) == len(wanted), path
            for clip, cropped in zip(shown, wanted, strict=True):
                expected = samples.cut(manifest, cropped, sampling)
                for stream in sampling.streams:
                    np.testing.assert_array_equal(clip[stream], expected[stream])


def timed(path: pathlib.Path, seconds: np.ndarray, claimed: Fraction | int) -> pathlib.Path:
    """A file with a frame at each of these seconds, whose header claims so many a second as far as it can."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx" if path.suffix == ".webm" else "libx264", rate=claimed)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        for second, image in zip(seconds, draw(len(seconds)), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(second * 90_000), Fraction(1, 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("ending", ["mkv", "webm", "ts", "flv", "mp4", "mov"])
def test_the_rate_is_that_at_which_frames_come_whatever_the_header_claims(ending, full, tmp_path):
    for name, steps in (("slower", [0.1] * 40), ("faster", [0.02] * 40), ("uneven", [0.03] * 20 + [0.2] * 20)):
        seconds = np.cumsum(steps)
        path = timed(tmp_path / f"{name}.{ending}", seconds, 30)
        expected = 39 / (seconds[-1] - seconds[0])
        assert probing.probe(path, full=full).fps == pytest.approx(expected, rel=0.051), name
        if full and name == "uneven":  # of a part its own frames count
            assert probing.probe(path, span=(0.0, 0.3)).fps == pytest.approx(1 / 0.03, rel=0.1)
    even = timed(tmp_path / f"even.{ending}", np.arange(41) * 1001 / 30000, NTSC)
    rounded = 1e-3 if ending == "flv" else 1e-9 if ending in ("mkv", "webm", "ts") else 0.03  # by the header itself
    assert probing.probe(even, full=full).fps == pytest.approx(float(NTSC), rel=rounded)


def test_times_that_tell_no_rate_leave_it_to_the_header(tmp_path):
    pause = timed(tmp_path / "pause.mkv", np.append(np.arange(20) / 25, 500), 25)
    mean = timed(tmp_path / "pause.mp4", np.append(np.arange(20) / 25, 500), 25)  # whose header tells the mean rate
    again = timed(tmp_path / "again.ts", np.arange(50) / 25, 25)
    again.write_bytes(2 * again.read_bytes())  # as `cat` joins files: the times begin anew
    alone = timed(tmp_path / "alone.mkv", np.zeros(1), 25)
    for path, frames in ((pause, 21), (mean, 21), (again, 100), (alone, 1)):
        for full in (True, False):
            found = probing.probe(path, full=full)
            assert (found.frames, found.fps) == (frames, pytest.approx(25, rel=0.01)), path


@pytest.mark.parametrize(("suffix", "codec"), [("h264", "libx264"), ("hevc", "libx265"), ("mjpeg", "mjpeg")])
def test_streams_without_a_container_have_the_rate_that_they_tell(suffix, codec, tmp_path):
    """And not that of 25, which FFmpeg takes where nothing tells it."""
    with av.open(str(tmp_path / f"a.{suffix}"), "w") as container:
        stream = container.add_stream(codec, rate=60, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for image in draw(12):
            shown = cv2.resize(image, (64, 48))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    for full in (True, False):
        assert probing.probe(tmp_path / f"a.{suffix}", full=full).fps == (0 if codec == "mjpeg" else 60)


def test_pictures_and_frames_need_a_rate(files):
    protocol = pipeline.Protocol("nonoverlap")
    [(place, reason)] = isolated.clips({3: files["pictures"]}, SAMPLING, protocol, timeout=None)
    assert place == 3 and reason.startswith("its frame rate is not known, and clips have 15: say how many frames")
    with pytest.raises(VideoError, match="its frame rate is not known"):
        isolated.clips_of_frames(draw(9), SAMPLING, protocol)
    of_frames = [*isolated.clips_of_frames(draw(30), SAMPLING, protocol, fps=30)]
    of_files = [*isolated.clips({0: files["pictures"]}, SAMPLING, protocol, fps=30, timeout=None)]
    for one, other in zip(of_frames, [seen.what for seen in of_files[:-1]], strict=True):
        np.testing.assert_array_equal(one["rgb"], other["rgb"])


def test_batches_of_training_go_on_where_they_stopped():
    manifest = in_memory({name: draw(40) for name in "abcd"}, fps=30, classes=("a",))
    videos = tuple(dataclasses.replace(video, split="train", label=0) for video in manifest.videos)
    manifest = dataclasses.replace(manifest, videos=videos)
    options = {"batch": 2, "seed": 5}
    whole = [*itertools.islice(pipeline.train_batches(manifest, SAMPLING, **options), 6)]
    rest = [*itertools.islice(pipeline.train_batches(manifest, SAMPLING, first_step=3, **options), 3)]
    as_stored = next(pipeline.train_batches(manifest, dataclasses.replace(SAMPLING, fps=None), **options))
    for one, other in zip(whole[3:], rest, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    assert not np.array_equal(whole[0]["rgb"], as_stored["rgb"])


def test_prepare_is_told_the_rate_of_pictures(files, tmp_path):
    for number in range(3):
        shutil.copytree(files["pictures"], tmp_path / "videos" / "class" / f"p{number}")
    shutil.copy(files["broadcast.mp4"], tmp_path / "videos" / "class")
    folder, out = tmp_path / "videos", tmp_path / "out"
    first = prepare(Preparation("folder", out, videos=folder, machines=Machines(workers=1))).manifest
    *unknown, own = sorted(video.fps for video in first.videos)
    assert unknown == [0, 0, 0] and own == pytest.approx(30, abs=0.2)
    again = prepare(Preparation("manifest", out, fps=12)).manifest
    assert sorted(video.fps for video in again.videos) == [12, 12, 12, own]
    assert sorted(video.fps for video in Manifest.read(out / "manifest.jsonl").videos) == [12, 12, 12, own]
    again = prepare(Preparation("manifest", out, check="full")).manifest  # as it is stored what was found, without 12
    assert sorted(video.fps for video in again.videos) == [12, 12, 12, own]
    pipeline.check_stored(again, SAMPLING)
    again = prepare(Preparation("manifest", out, fps=24)).manifest  # what was wrong is corrected
    assert sorted(video.fps for video in again.videos) == [24, 24, 24, own]
    alone = tmp_path / "alone"
    prepare(Preparation("folder", alone, videos=folder, check="fast", machines=Machines(workers=1)))
    only = Manifest.read(alone / "manifest.jsonl")
    dataclasses.replace(only, videos=only.videos[:1]).write(alone / "manifest.jsonl")
    assert "warning: --fps=24 is for none of them" in prepare(Preparation("manifest", alone, fps=24)).report
    with pytest.raises(UserError, match="--fps=0: expected frames per second"):
        Preparation("folder", out, videos=folder, fps=0.0)
