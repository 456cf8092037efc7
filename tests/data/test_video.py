import dataclasses
import fractions
import itertools
import os
import pathlib
import pickle
import warnings

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jax_video.data import transforms
from jax_video.data.decoding import packets, probing, video
from jax_video.data.manifest import FrameIndex
from jax_video.data.sources import motions
from jax_video.errors import VideoError

FRAMES, HEIGHT, WIDTH = 40, 48, 64


def moving_bars(count: int = FRAMES) -> np.ndarray:
    """uint8 [count, HEIGHT, WIDTH, 3]: smooth enough to survive a codec, every frame and every corner different."""
    t, y, x = np.mgrid[:count, :HEIGHT, :WIDTH].astype(np.float32)
    red = 128 + 100 * np.sin(2 * np.pi * (x / WIDTH - t / count))
    green = 128 + 100 * np.sin(2 * np.pi * (y / HEIGHT + 2 * t / count))
    return np.stack([red, green, np.minimum(x * 3, 255)], axis=-1).astype(np.uint8)


def write(path, frames, *, codec="libx264", pix_fmt="yuv420p", options=None, times=None, audio=False):
    """Encodes uint8 [T, H, W, 3]; `times` are timestamps in 1/25 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        stream.codec_context.time_base = fractions.Fraction(1, 25)
        sound = container.add_stream("aac", rate=16000) if audio else None
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)
            picture.pts = i if times is None else times[i]
            picture.time_base = fractions.Fraction(1, 25)
            container.mux(stream.encode(picture))
            if audio:
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.float32), format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 16000, 640 * i
                container.mux(sound.encode(samples))
        container.mux(stream.encode())
        if audio:
            container.mux(sound.encode())
    return path


def forbid_decoding_in_order(monkeypatch):
    def fail(*_):
        raise AssertionError("fell back to decoding in order")

    monkeypatch.setattr(video, "_decode_in_order", fail)


GOP = {"g": "12", "bf": "2", "x264-params": "cpu-independent=1"}  # Else x264 may write another file each time.
FORMATS = {
    # name: (file name, codec, pixel format, options, mean error allowed in grey levels, can be seeked)
    "h264 B-frames": ("a.mp4", "libx264", "yuv420p", GOP, 6, True),
    "h264 open groups of pictures": ("a.mkv", "libx264", "yuv420p", GOP | {"x264-params": "open-gop=1"}, 6, None),
    "h264 4:4:4": ("a.mp4", "libx264", "yuv444p", GOP, 6, True),
    "h264 10 bit": ("a.mp4", "libx264", "yuv420p10le", GOP, 6, True),
    "h264 full range": ("a.mp4", "libx264", "yuvj420p", GOP, 6, True),
    "h264 without container": ("a.h264", "libx264", "yuv420p", GOP, 6, False),
    "h264 in transport stream": ("a.ts", "libx264", "yuv420p", GOP, 6, None),
    "mpeg4 avi": ("a.avi", "mpeg4", "yuv420p", {"g": "12", "qmax": "3"}, 6, True),
    "mpeg4 avi B-frames": ("a.avi", "mpeg4", "yuv420p", GOP | {"qmax": "3"}, 6, None),
    "mjpeg": ("a.avi", "mjpeg", "yuvj422p", {"qmax": "3"}, 6, True),
    "vp9": ("a.webm", "libvpx-vp9", "yuv420p", {"g": "12", "cpu-used": "8"}, 6, True),
    "ffv1 16 bit": ("a.mkv", "ffv1", "yuv422p16le", {}, 6, True),
    "rle rgb": ("a.mov", "qtrle", "rgb24", {}, 0, True),
    "png rgba": ("a.mov", "png", "rgba", {}, 0, True),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_every_frame_in_order_and_at_random(name, tmp_path, monkeypatch):
    file, codec, pix_fmt, options, error, seekable = FORMATS[name]
    frames = moving_bars()
    path = write(tmp_path / file, frames, codec=codec, pix_fmt=pix_fmt, options=options)
    info = probing.probe(path)
    assert (info.frames, info.width, info.height) == (FRAMES, WIDTH, HEIGHT)
    assert info.fps == pytest.approx(25)

    in_order = video.decode(path, range(FRAMES))  # [T, H, W, 3]
    assert in_order.dtype == np.uint8
    distance = np.abs(in_order[:, None].astype(np.int16) - frames[None]).mean((2, 3, 4))  # [decoded, original]
    assert (distance.argmin(1) == np.arange(FRAMES)).all()
    assert np.diag(distance).max() <= error

    if seekable:
        forbid_decoding_in_order(monkeypatch)
    elif seekable is False:
        assert info.index is None
    shuffled = np.random.default_rng(0).integers(0, FRAMES, 30)
    for place in range(FRAMES):
        np.testing.assert_array_equal(video.decode(path, [place], index=info.index)[0], in_order[place])
    np.testing.assert_array_equal(video.decode(path, shuffled, index=info.index), in_order[shuffled])
    for first in (0, 7, FRAMES - 1):
        rest = np.stack(list(video.frames_in_order(path, first=first, index=info.index)))
        np.testing.assert_array_equal(rest, in_order[first:])


@pytest.mark.parametrize("pix_fmt", ["gray", "gray16le", "pal8", "monob"])
def test_formats_without_colour_or_with_a_palette(pix_fmt, tmp_path):
    codec, file = {"pal8": ("png", "a.mov"), "monob": ("png", "a.mov")}.get(pix_fmt, ("ffv1", "a.mkv"))
    with av.open(str(tmp_path / file), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        for i in range(5):
            frame = av.VideoFrame(WIDTH, HEIGHT, pix_fmt)
            for plane in frame.planes:
                plane.update(np.full(plane.buffer_size, 40 * i, np.uint8).tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert probing.probe(tmp_path / file).frames == 5
    decoded = video.decode(tmp_path / file, [4, 0], index=probing.probe(tmp_path / file).index)
    assert decoded.shape == (2, HEIGHT, WIDTH, 3)
    if pix_fmt.startswith("gray"):
        assert np.abs(decoded.mean((1, 2, 3)) - [160, 0]).max() < 2
        assert (decoded[..., 0] == decoded[..., 2]).all()


def real_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """All of the small sets, and of those that have more than a few some."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".mp4", ".avi")]
    sets = {path.relative_to(folder).parts[0] for path in files}
    members = [[path for path in files if path.relative_to(folder).parts[0] == name] for name in sorted(sets)]
    return [path for each in members for path in each[:: max(1, len(each) // 7)]]


def test_real_files_give_the_same_frames_by_seeking_as_in_order(test_data):
    rng = np.random.default_rng(0)
    for path in real_files(test_data):
        info = probing.probe(path)
        in_order = video.decode(path, range(info.frames))
        for _ in range(3):
            wanted = rng.integers(0, info.frames, 3)
            np.testing.assert_array_equal(video.decode(path, wanted, index=info.index), in_order[wanted], str(path))


@pytest.mark.slow
def test_every_single_frame_of_every_real_file_by_seeking(test_data):
    for path in [path for path in sorted(test_data.rglob("*")) if path.suffix in (".mp4", ".avi")]:
        info = probing.probe(path)
        in_order = video.decode(path, range(info.frames))
        for place in range(info.frames):
            np.testing.assert_array_equal(video.decode(path, [place], index=info.index)[0], in_order[place], str(path))


def test_counts_of_real_files(test_data):
    hmdb = test_data / "hmdb51" / "videos" / "wave"
    with av.open(str(hmdb / "RATRACE_wave_f_nm_np1_fr_goo_37.avi")) as container:
        assert container.streams.video[0].frames == 73  # What the header says; see the next line.
    assert probing.probe(hmdb / "RATRACE_wave_f_nm_np1_fr_goo_37.avi") == probing.VideoInfo(
        72, 30.0, 560, 240
    )  # no index
    ucf = test_data / "ucf101" / "videos" / "Basketball" / "v_Basketball_g01_c01.avi"
    index = FrameIndex(141, 0, 1, keyframes=tuple(range(0, 141, 12)), size=os.path.getsize(ucf), verified=True)
    assert probing.probe(ucf) == probing.VideoInfo(141, 30000 / 1001, 320, 240, 0, index)


def test_real_clips_are_cut_by_seeking_and_decode_little(test_data, monkeypatch):
    path = test_data / "ucf101" / "videos" / "SoccerJuggling" / "v_SoccerJuggling_g24_c01.avi"
    index = probing.probe(path).index
    forbid_decoding_in_order(monkeypatch)
    converted = []
    original = video.rgb
    monkeypatch.setattr(video, "rgb", lambda *args: converted.append(1) or original(*args))
    assert video.decode(path, range(200, 232, 2), index=index, short_side=122).shape == (16, 122, 163, 3)
    assert len(converted) == 16


# QuickTime's matrix maps (x, y), y down, to (a x + c y, b x + d y); what `ffmpeg` inserts for (a, b, c, d).
DISPLAYED = {
    (0, 1, -1, 0): "transpose=clock",
    (0, -1, 1, 0): "transpose=cclock",
    (-1, 0, 0, -1): "hflip,vflip",
    (-1, 0, 0, 1): "hflip",
    (1, 0, 0, -1): "vflip",
    (0, 1, 1, 0): "transpose=cclock_flip",
    (0, -1, -1, 0): "transpose=clock_flip",
    (1, 0, 0, 1): "null",
}


def filtered(frame: np.ndarray, filters: str) -> np.ndarray:
    """uint8 [H, W, 3] through filters of FFmpeg."""
    graph = av.filter.Graph()
    source = graph.add("buffer", f"video_size={frame.shape[1]}x{frame.shape[0]}:pix_fmt=rgb24:time_base=1/25")
    steps = [graph.add(*step.split("=")) for step in f"{filters},copy".split(",")]  # a copy's lines run downwards
    chain = [source, *steps, graph.add("buffersink")]
    for one, other in itertools.pairwise(chain):
        one.link_to(other)
    graph.configure()
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
    picture.time_base = fractions.Fraction(1, 25)
    graph.push(picture)
    return graph.pull().to_ndarray()


@pytest.mark.parametrize("matrix", DISPLAYED, ids=DISPLAYED.values())
def test_frames_are_turned_and_mirrored_as_the_track_header_says(matrix, tmp_path):
    path = write(tmp_path / "a.mp4", moving_bars(3), options={"qp": "10"})
    stored = video.decode(path, range(3))
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # After version, flags, times, ids and volume.
    a, b, c, d = ((value << 16).to_bytes(4, "big", signed=True) for value in matrix)
    data[start : start + 36] = a + b + bytes(4) + c + d + bytes(8) + bytes(4) + (1 << 30).to_bytes(4, "big")
    path.write_bytes(data)

    expected = np.stack([filtered(frame, DISPLAYED[matrix]) for frame in stored])
    info = probing.probe(path)
    assert (info.height, info.width) == expected.shape[1:3]
    np.testing.assert_array_equal(video.decode(path, [2, 0], index=info.index), expected[[2, 0]])


def test_variable_frame_rate_counts_frames_not_time(tmp_path, monkeypatch):
    times = np.cumsum(np.random.default_rng(0).integers(1, 9, FRAMES)).tolist()
    frames = moving_bars()
    path = write(tmp_path / "a.mp4", frames, options=GOP, times=times)
    known = probing.probe(path).index
    assert known.frames == FRAMES and known.step == 0
    in_order = video.decode(path, range(FRAMES))
    assert np.abs(in_order.astype(int) - frames).mean() < 6
    forbid_decoding_in_order(monkeypatch)
    for index in range(FRAMES):
        np.testing.assert_array_equal(video.decode(path, [index], index=known)[0], in_order[index])


def test_audio_track_is_ignored(tmp_path):
    path = write(tmp_path / "a.mp4", moving_bars(), options=GOP, audio=True)
    silent = write(tmp_path / "b.mp4", moving_bars(), options=GOP)
    with_sound, without = probing.probe(path), probing.probe(silent)
    assert dataclasses.replace(with_sound.index, size=0) == dataclasses.replace(without.index, size=0)
    assert dataclasses.replace(with_sound, index=None) == dataclasses.replace(without, index=None)
    np.testing.assert_array_equal(video.decode(path, [33, 7], index=with_sound.index), video.decode(silent, [33, 7]))


@pytest.mark.parametrize("step", [0, 512])
def test_a_count_that_does_not_fit_the_packets_still_gives_the_right_frames(step, tmp_path):
    path = write(tmp_path / "a.mp4", moving_bars(), options=GOP)
    other = dataclasses.replace(probing.probe(path).index, frames=FRAMES - 1, step=step)
    np.testing.assert_array_equal(video.decode(path, [30], index=other), video.decode(path, [30]))


def test_a_file_that_was_replaced_is_noticed(tmp_path):
    path = write(tmp_path / "a.mp4", moving_bars(), options=GOP)
    index = probing.probe(path).index
    write(path, moving_bars(), options=GOP | {"crf": "40"})
    for read in (
        lambda: video.decode(path, [3], index=index),
        lambda: next(video.frames_in_order(path, first=20, index=index)),
    ):
        with pytest.raises(VideoError, match="changed: [0-9,]+ bytes, where prepare saw [0-9,]+; run prepare again"):
            read()


def test_packets_are_read_once_for_all_clips_of_a_file(tmp_path, monkeypatch):
    """And again where another file has taken its place."""

    def uneven(frames: np.ndarray) -> tuple[pathlib.Path, FrameIndex]:
        path = write(tmp_path / "a.mp4", frames, options=GOP, times=[*range(FRAMES - 1), FRAMES])
        return path, probing.probe(path).index

    path, index = uneven(moving_bars())
    forbid_decoding_in_order(monkeypatch)
    read = []
    original = packets.Packets.sorted
    monkeypatch.setattr(packets.Packets, "sorted", lambda *args: read.append(1) or original(*args))
    before = [video.decode(path, [place], index=index) for place in (3, 30, 14, 3)]
    np.testing.assert_array_equal(before[0], before[3])
    assert len(read) == 1
    path, index = uneven(255 - moving_bars())
    assert len(read) == 2  # of the probe
    after = video.decode(path, [30], index=index)
    assert len(read) == 3
    assert np.abs(after.astype(int) - 255 + before[1]).mean() < 6


def test_frames_are_resized_as_they_are_decoded(tmp_path):
    path = write(tmp_path / "a.mp4", moving_bars(), options=GOP)
    expected = transforms.resize_short(video.decode(path, [5, 9]), 30)
    np.testing.assert_array_equal(video.decode(path, [5, 9], short_side=30), expected)
    assert expected.shape == (2, 30, 40, 3)


def test_all_frames_come_one_by_one_as_by_their_indices(tmp_path):
    path = write(tmp_path / "bars.mp4", moving_bars())
    for short_side in (None, 30):
        frames = np.stack(list(video.frames_in_order(path, short_side=short_side)))
        np.testing.assert_array_equal(frames, video.decode(path, range(FRAMES), short_side=short_side))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(VideoError):
        next(video.frames_in_order(path))


def test_odd_path_names(tmp_path):
    for name in ("with space.mp4", "ünï 中文.mp4", "a:b.mp4", "http:x.mp4", "%03d.mp4", "-i.mp4"):
        motions.encode(tmp_path / "plain.mp4", moving_bars(2))
        os.rename(tmp_path / "plain.mp4", tmp_path / name)
        assert probing.probe(tmp_path / name).frames == 2


@pytest.mark.parametrize("frames", [None, FRAMES, FRAMES + 60])
def test_a_frame_past_the_end_is_named(frames, tmp_path):
    path = write(tmp_path / "a.mp4", moving_bars(), options=GOP)
    with pytest.raises(VideoError, match=f"no frame 99: only {FRAMES} frames decode"):
        video.decode(path, [3, 99], index=frames and FrameIndex(frames))


@pytest.mark.parametrize("indices", [[], [3, -1]])
def test_indices_that_make_no_sense(indices, tmp_path):
    with pytest.raises(ValueError, match="at least one and not negative"):
        video.decode(tmp_path / "a.mp4", indices)


def broken_files(folder: pathlib.Path) -> dict[str, tuple[pathlib.Path, str]]:
    """name: (path, what the message must match)."""
    folder.mkdir(exist_ok=True)
    files = {"missing": (folder / "none.mp4", "no such file")}

    def add(name: str, content: bytes, reason: str) -> None:
        path = folder / f"{name}.mp4"
        path.write_bytes(content)
        files[name] = (path, reason)

    add("empty", b"", "empty file")
    add("text", b"This is not a video.\n" * 100, "not a readable video")
    add("playlist", b"#EXTM3U\n#EXTINF:1,\nhttp://localhost/x.ts\n#EXT-X-ENDLIST\n", "not a readable video|no video")
    add("zeros", bytes(5000), "not a readable video")
    (folder / "folder.mp4").mkdir(exist_ok=True)
    files["folder"] = (folder / "folder.mp4", "no frames: the folder has no numbered pictures")

    with av.open(str(folder / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())
    files["audio"] = (folder / "audio.mp4", r"no video stream \(streams found: audio\)")

    whole = write(folder / "whole.mp4", moving_bars(), options=GOP).read_bytes()
    add("header at the end, truncated", whole[: len(whole) // 2], "not a readable video")
    front = write(folder / "front.mov", moving_bars(), options=GOP)
    with av.open(str(front)) as source, av.open(str(folder / "f.mp4"), "w", options={"movflags": "faststart"}) as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    fast = (folder / "f.mp4").read_bytes()
    for percent in (40, 60, 80):
        add(f"header in front, cut at {percent} %", fast[: len(fast) * percent // 100], "truncated|damaged")
    avi = write(folder / "a.avi", moving_bars(), codec="mpeg4", options={"g": "12"}).read_bytes()
    for percent in (80, 90):
        add(f"avi cut at {percent} %", avi[: len(avi) * percent // 100], "truncated: the header promises 40|damaged")
    mkv = write(folder / "a.mkv", moving_bars(100), options=GOP).read_bytes()
    add(
        "mkv cut in the middle", mkv[: len(mkv) // 2], r"truncated: the header promises 4.0 s, the frames end at [12]\."
    )
    return files


def test_broken_files_say_what_is_wrong_and_leave_nothing_behind(tmp_path, capfd):
    files = broken_files(tmp_path / "broken")
    capfd.readouterr()
    handles = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for name, (path, reason) in files.items():
        with pytest.raises(VideoError, match=reason) as caught:
            probing.probe(path)
        assert caught.value.path == str(path), name
        assert str(caught.value) == f"{path}: {caught.value.reason}", name
        with pytest.raises(VideoError):
            video.decode(path, [99], index=FrameIndex(100))
        with pytest.raises(VideoError):
            video.decode(path, [99])
    if handles is not None:
        assert len(os.listdir("/proc/self/fd")) == handles
    assert capfd.readouterr() == ("", "")


def test_frames_that_change_size_are_an_error(tmp_path):
    parts = [write(tmp_path / "1.h264", moving_bars(4)), write(tmp_path / "2.h264", moving_bars(4)[:, :32, :32])]
    path = tmp_path / "a.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoError, match="change size: from 64x48 to 32x32 at frame 4"):
        probing.probe(path)


def test_frames_that_change_size_are_not_one_clip(tmp_path):
    """Nor where a file was looked at fast, which does not come to the change."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for part, frames in enumerate((moving_bars(12), moving_bars(12)[:, :32, :32])):
            encoder = av.CodecContext.create("libx264", "w")
            encoder.height, encoder.width, encoder.pix_fmt = *frames.shape[1:3], "yuv420p"
            encoder.time_base, encoder.options = fractions.Fraction(1, 25), {"bf": "0"}
            pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]
            for time, picture in enumerate(pictures, start=12 * part):
                picture.pts, picture.time_base = time, fractions.Fraction(1, 25)
            for packet in (packet for picture in [*pictures, None] for packet in encoder.encode(picture)):
                packet.stream = stream
                container.mux(packet)
    with pytest.raises(VideoError, match="frames change size: from 64x48 to 32x32 at frame 12"):
        probing.probe(path)
    index = probing.probe(path, full=False).index
    for known in (index, dataclasses.replace(index, keyframes=(0, 12), verified=True)):
        assert video.decode(path, [11, 3], index=known).shape == (2, 48, 64, 3)
        with pytest.raises(VideoError, match="frames change size: from 64x48 to 32x32 at frame 12"):
            video.decode(path, [11, 12], index=known, short_side=16)


@pytest.mark.parametrize("width, height, reason", [(6000, 6000, "damaged|not a readable"), (16, 1024, "strange size")])
def test_frames_that_would_take_memory_without_measure_are_an_error(width, height, reason, tmp_path):
    path = write(tmp_path / "a.mkv", np.zeros((1, height, width, 3), np.uint8), codec="ffv1", pix_fmt="gray")
    for call in (probing.probe, lambda path: video.decode(path, [0], short_side=16)):
        with pytest.raises(VideoError, match=reason):
            call(path)


def test_a_file_without_keyframes_is_decoded_in_order(tmp_path):
    path = write(tmp_path / "a.mp4", moving_bars(), options=GOP)
    expected = video.decode(path, [3, 30])
    data = bytearray(path.read_bytes())
    place = data.index(b"stss") + 8  # How many keyframes are listed.
    data[place : place + 4] = bytes(4)
    path.write_bytes(data)
    np.testing.assert_array_equal(video.decode(path, [3, 30], index=probing.probe(path).index), expected)


def test_the_exception_survives_pickling():
    error = pickle.loads(pickle.dumps(VideoError("a/b.mp4", "empty file")))
    assert (error.path, error.reason, str(error)) == ("a/b.mp4", "empty file", "a/b.mp4: empty file")


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("originals")
    return [
        write(folder / "a.mp4", moving_bars(12), options=GOP).read_bytes(),
        write(folder / "a.avi", moving_bars(12), codec="mpeg4", options={"g": "4"}).read_bytes(),
        write(folder / "a.mkv", moving_bars(12), options=GOP).read_bytes(),
    ]


@settings(max_examples=60, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 2), seed=st.integers(0, 10**6), flips=st.sampled_from([0, 1, 5, 50]), cut=st.booleans())
def test_damaged_bytes_give_frames_or_a_video_error(which, seed, flips, cut, originals, tmp_path):
    rng = np.random.default_rng(seed)
    data = bytearray(originals[which])
    for place in rng.integers(0, len(data), flips):
        data[place] = rng.integers(256)
    if cut:
        del data[rng.integers(len(data)) :]
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            info = probing.probe(path)
            decoded = video.decode(path, [info.frames - 1, 0], index=FrameIndex(info.frames))
        except VideoError as error:
            assert error.reason
        else:
            assert decoded.shape == (2, info.height, info.width, 3)


def test_a_fast_look_sees_what_decoding_finds(test_data):
    """But for where the frames are: that is not known of a file that nobody has decoded."""
    for path in real_files(test_data):
        fast, full = probing.probe(path, full=False), probing.probe(path)
        assert dataclasses.replace(fast, index=full.index) == full, path
        assert fast == full or fast.index == FrameIndex(full.frames, size=os.path.getsize(path)), path


def test_a_part_of_a_file_by_seconds(tmp_path):
    path = write(tmp_path / "a.mp4", moving_bars(), options=GOP)
    whole = probing.probe(path)
    for full in (True, False):
        part = probing.probe(path, span=(0.4, 1.0), full=full)  # at 25 frames a second
        assert (part.first, part.frames) == (10, 15)
        assert part.index == (whole.index if full else FrameIndex(FRAMES, size=whole.index.size))
        rest = probing.probe(path, span=(1.2, 99.0), full=full)
        assert (rest.first, rest.frames) == (30, FRAMES - 30)
        with pytest.raises(VideoError, match=r"too short: no frame from 10 to 20 s, the last is at 1\.\d s"):
            probing.probe(path, span=(10.0, 20.0), full=full)


def test_what_comes_after_a_part_need_not_decode(tmp_path):
    path = write(tmp_path / "a.mp4", moving_bars(), options=GOP)
    part = probing.probe(path, span=(0.0, 0.4))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        last = [packet for packet in container.demux(video=0) if packet.size][-1]
        data[last.pos : last.pos + last.size] = bytes(last.size)
    path.write_bytes(data)
    assert probing.probe(path, span=(0.0, 0.4)) == part


def test_packets_before_a_cut_are_no_frames(tmp_path):
    """Cut without encoding it anew, an MP4 keeps what is needed from the keyframe on, and says that it is not shown."""
    path = write(tmp_path / "a.mp4", moving_bars(), options=GOP)
    with av.open(str(path)) as source, av.open(str(tmp_path / "cut.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.pts is not None:
                shift = int(0.28 / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = stream
                target.mux(packet)
    info = probing.probe(tmp_path / "cut.mp4")
    assert info.frames == FRAMES - 7 and probing.probe(tmp_path / "cut.mp4", full=False).frames == info.frames
    expected = video.decode(path, range(7, FRAMES))
    for place in (0, 3, 20, info.frames - 1):
        np.testing.assert_array_equal(video.decode(tmp_path / "cut.mp4", [place], index=info.index)[0], expected[place])
