"""Videos that a player shows although their headers seem to promise more, and those that are truly cut or damaged."""

import csv
import dataclasses
import fractions
import json
import pathlib
import shlex
import shutil
import struct
from collections.abc import Callable

import av
import numpy as np
import preparing
import pytest

from jax_video.data import manifest, reader
from jax_video.data.decoding import packets, probing, video
from jax_video.data.preparing import checks, preparation
from jax_video.data.preparing.machines import Machines
from jax_video.data.sources import finding
from jax_video.errors import UserError, VideoError

FRAMES, HEIGHT, WIDTH, BITS = 60, 64, 96, 6
X264 = {"g": "10", "bf": "2", "x264-params": "cpu-independent=1"}
VP9 = {"g": "10", "cpu-used": "8"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


def numbered(count: int) -> np.ndarray:
    """uint8 [count, H, W, 3]: stripes, light where a bit of the frame's number is set."""
    bits = np.arange(count)[:, None] >> (np.arange(WIDTH) // (WIDTH // BITS)) & 1  # [count, W]
    return np.broadcast_to(30 + 195 * bits[:, None, :, None], (count, HEIGHT, WIDTH, 3)).astype(np.uint8)


def numbers(frames: np.ndarray) -> list[int]:
    """The inverse, of uint8 [N, H, W, 3]."""
    bits = frames[:, 16:48].reshape(len(frames), -1, BITS, WIDTH // BITS, 3)[:, :, :, 4:12].mean((1, 3, 4)) > 128
    return (bits << np.arange(BITS)).sum(1).tolist()


def write(
    path: pathlib.Path,
    codec: str = "libx264",
    *,
    options: dict[str, str] = X264,
    frames: int = FRAMES,
    sound: str | None = None,
    seconds: float = 0.0,
    times: list[int] | None = None,
    pix_fmt: str = "yuv420p",
    muxing: dict[str, str] | None = None,
    images: np.ndarray | None = None,
) -> pathlib.Path:
    """A video of numbered frames, 25 a second or at `times` in 1/25 s, with so many seconds of silence."""
    with av.open(str(path), "w", options=muxing or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options | {"threads": "1"})
        images = numbered(frames) if images is None else images
        stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], pix_fmt
        stream.codec_context.time_base = fractions.Fraction(1, 25)
        parts: list[tuple[float, av.VideoFrame | av.AudioFrame]] = []
        for number, image in enumerate(images):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
            picture.pts, picture.time_base = times[number] if times else number, fractions.Fraction(1, 25)
            parts.append((number / 25, picture))
        heard = None
        if sound is not None:
            heard = container.add_stream(sound, rate=48000, options={"b": "64k"} if sound == "wmav2" else {})
            heard.layout = "mono"
            kind = heard.codec_context.format.name
            for start in range(0, int(48000 * seconds), 960):
                silence = np.zeros((1, 960), {"fltp": np.float32, "flt": np.float32}.get(kind, np.int16))
                samples = av.AudioFrame.from_ndarray(silence, format=kind, layout="mono")
                samples.sample_rate, samples.pts, samples.time_base = 48000, start, fractions.Fraction(1, 48000)
                parts.append((start / 48000, samples))
        for _, part in sorted(parts, key=lambda part: part[0]):
            container.mux((stream if isinstance(part, av.VideoFrame) else heard).encode(part))
        container.mux(stream.encode())
        if heard is not None:
            container.mux(heard.encode())
    return path


def remuxed(
    source: pathlib.Path, target: pathlib.Path, change: Callable[[int, bytes], bytes | None], **options
) -> pathlib.Path:
    """A copy whose packets, in the order of the file, are changed, or left out where they become None."""
    with av.open(str(source)) as old, av.open(str(target), "w", **options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            data = change(number, bytes(packet))
            if data is None:
                continue
            copy = av.Packet(data)
            copy.pts, copy.dts, copy.time_base, copy.duration = (
                packet.pts,
                packet.dts,
                packet.time_base,
                packet.duration,
            )
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            new.mux(copy)
    return target


def assert_frames(path: pathlib.Path, expected: list[int], known: probing.VideoInfo | None = None) -> None:
    """The file has these frames, however they are asked for."""
    info = known or probing.probe(path)
    in_order = video.decode(path, range(info.frames), index=info.index)
    assert numbers(in_order) == expected
    for place in range(0, info.frames, 3):
        np.testing.assert_array_equal(video.decode(path, [place], index=info.index)[0], in_order[place])
    rest = np.stack(list(video.frames_in_order(path, first=7, index=info.index)))
    np.testing.assert_array_equal(rest, in_order[7:])


SOUND = {
    "a.mkv": ("libx264", X264, "aac"),
    "a.webm": ("libvpx-vp9", VP9, "libopus"),
    "a.flv": ("libx264", X264, "aac"),
    "a.nut": ("libx264", X264, "aac"),
    "a.wmv": ("wmv2", {"g": "10"}, "wmav2"),
    "a.mpg": ("mpeg2video", {"g": "10", "bf": "2"}, "mp2"),
    "a.ts": ("libx264", X264, "aac"),
    "fragments.mp4": ("libx264", X264, "aac"),
}


def with_sound(path: pathlib.Path) -> pathlib.Path:
    codec, options, sound = SOUND[path.name]
    muxing = FRAGMENTS if path.name == "fragments.mp4" else {}
    return write(path, codec, options=options, frames=30, sound=sound, seconds=6, muxing=muxing)


@pytest.mark.parametrize("name", [*SOUND, "a.ogv"])
def test_sound_that_lasts_longer_than_the_pictures_is_no_truncation(name, tmp_path):
    if name == "a.ogv":
        path = write(tmp_path / "a.webm", "libvpx", options=VP9, frames=30, sound="libopus", seconds=6)
        with av.open(str(path)) as old, av.open(str(tmp_path / name), "w", format="ogg") as new:
            streams = [new.add_stream_from_template(stream) for stream in old.streams]
            for packet in old.demux():
                if packet.size:
                    packet.stream = streams[packet.stream.index]
                    new.mux(packet)
        path = tmp_path / name
    else:
        path = with_sound(tmp_path / name)
    assert probing.probe(path, full=False).frames == 30
    assert_frames(path, list(range(30)))


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.flv", "fragments.mp4"])
def test_a_cut_among_the_pictures_is_one_although_sound_was_to_last_longer(name, tmp_path):
    path = with_sound(tmp_path / name)
    data = path.read_bytes()
    with av.open(str(path)) as container:
        last = [packet.pos for packet in container.demux(video=0) if packet.size][-4]
    for end in (last // 2, last):
        path.write_bytes(data[:end])
        with pytest.raises(VideoError, match="truncated|no frames"):
            probing.probe(path)


def test_pictures_that_are_all_there_are_used_although_the_sound_is_cut(tmp_path):
    path = with_sound(tmp_path / "a.mkv")  # which says how long the pictures last
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 95 // 100])
    assert_frames(path, list(range(30)))


CUT = {
    "front.mp4": ("libx264", X264, {"movflags": "faststart"}),
    "fragments.mp4": ("libx264", X264, FRAGMENTS),
    "a.avi": ("mpeg4", {"g": "10"}, {}),
    "a.mkv": ("libx264", X264, {}),
    "a.flv": ("libx264", X264, {}),
    "a.mxf": ("mpeg2video", {"g": "10"}, {}),
}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("percent", [30, 60])
def test_a_file_that_was_cut_is_truncated(name, percent, tmp_path):
    codec, options, muxing = CUT[name]
    images = np.random.default_rng(0).integers(0, 255, (100, HEIGHT, WIDTH, 3), np.uint8)
    path = write(tmp_path / name, codec, options=options, muxing=muxing, images=images)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * percent // 100])
    with pytest.raises(VideoError, match="truncated"):
        probing.probe(path)


def with_edits(source: pathlib.Path, target: pathlib.Path, segments: list[tuple[int | None, int]]) -> pathlib.Path:
    """A copy of an MP4 whose edit list shows so many frames from a first one on, part by part; None: nothing."""
    data = bytearray(source.read_bytes())
    place = data.index(b"elst")
    size, shift = struct.unpack_from(">I", data, place - 4)[0], struct.unpack_from(">i", data, place + 16)[0]
    with av.open(str(source)) as container:
        ticks = int(1 / container.streams.video[0].time_base) // 25
    entries = [
        struct.pack(">IiI", 40 * count, -1 if first is None else shift + first * ticks, 1 << 16)
        for first, count in segments
    ]
    content = bytes(data[place : place + 8]) + struct.pack(">I", len(entries)) + b"".join(entries)
    data[place - 4 : place - 4 + size] = struct.pack(">I", 4 + len(content)) + content
    for box in (b"edts", b"trak", b"moov"):
        start = data.rindex(box, 0, place) - 4
        struct.pack_into(">I", data, start, struct.unpack_from(">I", data, start)[0] + 4 + len(content) - size)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize(
    "segments", [[(0, 20)], [(13, 20)], [(13, FRAMES - 13)], [(None, 50), (13, 20)], [(5, 10), (31, 10)]]
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_what_an_edit_list_shows_is_the_video(suffix, segments, tmp_path):
    path = with_edits(write(tmp_path / f"whole{suffix}"), tmp_path / f"a{suffix}", segments)
    expected = [first + place for first, count in segments if first is not None for place in range(count)]
    assert probing.probe(path, full=False).frames == len(expected)
    assert_frames(path, expected)


@pytest.mark.parametrize("first, count", [(0, 30), (13, 30)])
def test_a_cut_among_what_an_edit_list_shows_is_one(first, count, tmp_path):
    source = write(tmp_path / "whole.mp4")
    data = with_edits(source, tmp_path / "a.mp4", [(first, count)]).read_bytes()
    header = data.index(b"moov") - 4
    front = tmp_path / "front.mp4"  # its pictures behind the header, as `movflags=faststart` has it
    start = data.index(b"mdat") - 4
    moved = bytearray(data[:start] + data[header:] + data[start:header])
    place = moved.index(b"stco") + 12
    for entry in range(place, place + 4 * struct.unpack_from(">I", moved, place - 4)[0], 4):
        struct.pack_into(">I", moved, entry, struct.unpack_from(">I", moved, entry)[0] + len(data) - header)
    front.write_bytes(moved)
    assert_frames(front, list(range(first, first + count)))
    with av.open(str(front)) as container:
        shown = [packet.pos for packet in container.demux(video=0) if packet.size and not packet.is_discard]
    front.write_bytes(moved[: shown[-8]])
    with pytest.raises(VideoError, match="truncated"):
        probing.probe(front)


@pytest.mark.parametrize("codec, options", [("mpeg4", {"g": "10"}), ("libx264", X264 | {"bf": "0"})])
def test_dropped_frames_of_an_avi_are_not_missed(codec, options, tmp_path):
    times = [*range(20), *range(40, 80)]  # between them the muxer writes chunks without content
    path = write(tmp_path / "a.avi", codec, options=options, times=times)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > FRAMES
    assert probing.probe(path, full=False).frames == FRAMES
    assert_frames(path, list(range(FRAMES)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(VideoError, match="truncated|not a readable"):
        probing.probe(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "hevc.mp4"])
def test_a_file_that_begins_between_keyframes_has_the_frames_that_decode(name, tmp_path):
    if name.startswith("hevc") and packets.PYAV < 16:
        pytest.skip("the FFmpeg of this PyAV shows frames before the first keyframe")
    suffix = pathlib.Path(name).suffix
    if name == "hevc.mp4":
        options = {"x265-params": "keyint=10:min-keyint=10:open-gop=0:log-level=none"}
        source = write(tmp_path / f"whole{suffix}", "libx265", options=options)
    elif suffix == ".webm":
        source = write(tmp_path / f"whole{suffix}", "libvpx-vp9", options=VP9)
    else:
        source = write(tmp_path / f"whole{suffix}")
    path = remuxed(source, tmp_path / name, lambda number, data: data if number >= 4 else None)
    info = probing.probe(path)
    assert probing.probe(path, full=False).frames == info.frames >= 50
    assert_frames(path, list(range(FRAMES - info.frames, FRAMES)))


DAMAGED = {
    "a.mp4": ("libx264", X264),
    "a.mkv": ("libx264", X264),
    "a.flv": ("libx264", X264),
    "a.avi": ("mpeg4", {"g": "10"}),
    "a.webm": ("libvpx-vp9", VP9),
}


def damaged(path: pathlib.Path, which: set[int] = frozenset({31})) -> pathlib.Path:
    """A file of which some packets do not decode."""
    codec, options = DAMAGED[path.name]
    whole = write(path.with_name(f"whole-{path.name}"), codec, options=options)
    return remuxed(whole, path, lambda number, data: b"\xff" * len(data) if number in which else data)


@pytest.mark.parametrize("name", DAMAGED)
def test_one_packet_that_does_not_decode_costs_its_frame(name, tmp_path):
    path = damaged(tmp_path / name)
    found = probing.examine(path)
    assert (found.loss.lost, found.loss.frames, found.fault) == (1, FRAMES, None)
    assert found.loss.reason.startswith("damaged: undecodable from frame ")
    assert found.loss.reason.endswith("; 1 of 60 frames lost")
    info = probing.probe(path)
    assert info == found.info and info.frames == FRAMES - 1 and info.index.undecodable == 1
    in_order = video.decode(path, range(info.frames), index=info.index)
    for place in range(info.frames):
        np.testing.assert_array_equal(video.decode(path, [place], index=info.index)[0], in_order[place])
    np.testing.assert_array_equal(
        np.stack(list(video.frames_in_order(path, first=25, index=info.index))), in_order[25:]
    )
    assert numbers(in_order[:20]) == list(range(20)) and numbers(in_order[-19:]) == list(range(41, FRAMES))
    with pytest.raises(VideoError, match="undecodable"):
        probing.probe(path, max_damage=0.0)
    with pytest.raises(VideoError):  # nobody has looked at it, and more may be lost than is known
        video.decode(path, [50])


@pytest.mark.parametrize(
    "name, codec, pix_fmt", [("a.avi", "mjpeg", "yuvj420p"), ("a.mov", "prores_ks", "yuv422p10le")]
)
def test_what_a_decoder_leaves_of_a_damaged_frame_is_the_same_each_time(name, codec, pix_fmt, tmp_path):
    """It may be what the frame's memory held before, so all ways must use the memory of frames alike."""
    images = np.random.default_rng(0).integers(0, 255, (20, HEIGHT, WIDTH, 3), np.uint8)
    whole = write(tmp_path / f"whole-{name}", codec, options={}, images=images, pix_fmt=pix_fmt)

    def change(number: int, data: bytes) -> bytes:
        return data[: len(data) // 2] + bytes(len(data) // 4) + data[-(len(data) // 4) :] if number % 5 == 3 else data

    path = remuxed(whole, tmp_path / name, change)
    info = probing.examine(path).info
    in_order = video.decode(path, range(info.frames), index=info.index)
    for place in range(info.frames):
        np.testing.assert_array_equal(video.decode(path, [place], index=info.index)[0], in_order[place], str(place))


def test_a_part_of_a_damaged_file_loses_only_its_own(tmp_path):
    path = damaged(tmp_path / "a.mp4")
    early = probing.examine(path, span=(0.0, 0.4))
    assert early.loss is None and (early.info.first, early.info.frames) == (0, 10)
    late = probing.examine(path, span=(2.0, 2.4))
    assert late.loss.lost == 1 and late.info.frames == 10
    found = video.decode(path, range(late.info.first, late.info.first + 10), index=late.info.index)
    assert numbers(found) == list(range(50, 60))


def test_a_cover_picture_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=25)
        cover.height, cover.width, cover.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        container.mux(sound.encode(samples))
        container.mux(sound.encode())
        picture = av.VideoFrame.from_ndarray(numbered(1)[0], format="rgb24").reformat(format="yuvj420p")
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
    for full in (True, False):
        with pytest.raises(VideoError, match="no video stream .streams found: audio, a cover picture"):
            probing.probe(path, full=full)


@pytest.mark.parametrize(
    "begin, kind",
    [(b"PK\x03\x04..", "an archive"), (b"Rar!...", "an archive"), (b"\n<!DOCTYPE html><html>", "a web page")],
)
def test_what_is_taken_for_a_video_is_called_what_it_is(begin, kind, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(begin + bytes(100))
    with pytest.raises(VideoError, match=f"not a readable video .{kind}"):
        probing.probe(path)


def filtered(path: pathlib.Path, place: int) -> np.ndarray:
    """A frame as `ffmpeg -pix_fmt rgb24` converts it."""
    with av.open(str(path)) as container:
        frame = list(container.decode(video=0))[place]
    graph = av.filter.Graph()
    size = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/25"
    chain = [graph.add("buffer", size), graph.add("format", "rgb24"), graph.add("buffersink")]
    for one, other in zip(chain, chain[1:], strict=False):
        one.link_to(other)
    graph.configure()
    graph.push(frame)
    return graph.pull().to_ndarray()


FIELDS = {"flags": "+ildct+ilme"}


@pytest.mark.parametrize(
    "name, codec, pix_fmt, options",
    [
        ("fields.mp4", "libx264", "yuv420p", FIELDS | {"x264-params": "tff=1:cpu-independent=1"}),
        ("fields.mpg", "mpeg2video", "yuv420p", FIELDS),
        ("10.mp4", "libx264", "yuv420p10le", {}),
        ("422.mp4", "libx264", "yuv422p10le", {}),
        ("8.mp4", "libx264", "yuv420p", {}),
        ("411.mkv", "ffv1", "yuv411p", {}),
    ],
)
def test_frames_are_converted_as_ffmpeg_converts_them(name, codec, pix_fmt, options, tmp_path):
    t, y, x = np.mgrid[:4, :64, :96]  # colours that differ from line to line, and from pixel to pixel
    images = np.stack([(x * 16 + t) % 256, (y * 28) % 256, ((x // 3 + y // 2) % 2) * 200], axis=-1).astype(np.uint8)
    path = write(
        tmp_path / name,
        codec,
        options={"qp": "5"} | options if codec != "ffv1" else options,
        images=images,
        pix_fmt=pix_fmt,
    )
    np.testing.assert_array_equal(video.decode(path, [2])[0], filtered(path, 2))


# What becomes of them in a set.


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> pathlib.Path:
    """A folder with sound, damaged and truncated videos."""
    root = tmp_path_factory.mktemp("clips")
    (root / "a").mkdir()
    for name, which in (("one.mp4", {31}), ("many.mp4", {31, 33, 34, 36, 37, 41})):
        shutil.move(damaged(root / "a.mp4", which), root / "a" / name)
    (root / "whole-a.mp4").unlink()
    write(root / "a" / "sound.mp4")
    data = write(root / "a" / "cut.mkv", frames=100).read_bytes()
    (root / "a" / "cut.mkv").write_bytes(data[: len(data) // 2])
    return root


def looked_at(clips: pathlib.Path, out: pathlib.Path, **options) -> tuple[manifest.Manifest, dict[str, str]]:
    rows = [
        manifest.Video(f"a/{path.name}", 0, "train", 0, 0.0, 0, 0, None, path.stem)
        for path in sorted(clips.glob("a/*"))
    ]
    out.mkdir(exist_ok=True)
    return checks.check(manifest.Manifest("clips", ("a",), str(clips), tuple(rows)), out, **options)


def used(found: manifest.Manifest) -> set[str]:
    return {row.source for row in found.videos if row.error is None}


def test_what_is_allowed_is_judged_anew_without_another_look(clips, tmp_path, monkeypatch):
    found, remarks = looked_at(clips, tmp_path / "out")
    assert used(found) == {"one", "sound"}
    assert list(remarks) == ["a/one.mp4"] and remarks["a/one.mp4"].startswith("some frames lost: damaged: undecodable")
    assert "  some frames lost         1" in checks.table(found, remarks)
    monkeypatch.setattr(checks, "_examine", None)  # which cannot be called
    assert used(looked_at(clips, tmp_path / "out", max_damage=0.0)[0]) == {"sound"}
    assert used(looked_at(clips, tmp_path / "out", max_damage=0.3)[0]) == {"one", "many", "sound"}
    for accept in (["a/cut.mkv"], ["*.mkv"], [str(clips / "a" / "cut.mkv")]):
        found, remarks = looked_at(clips, tmp_path / "out", accept=accept)
        assert used(found) == {"one", "sound", "cut"} and remarks["a/cut.mkv"].startswith("accepted: truncated: ")
    found, remarks = looked_at(clips, tmp_path / "out", accept=["a/"])
    assert used(found) == {"one", "many", "sound", "cut"}
    path = tmp_path / "manifest.jsonl"
    found.write(path)
    assert manifest.Manifest.read(path) == found
    for entry in found.videos:
        frames = reader.decode(found, entry, np.arange(entry.frames), short_side=HEIGHT)
        assert numbers(frames[:20]) == list(range(20))
    with pytest.raises(UserError, match="--accept=b names none of the 4 videos: expected the path of one, such as a/"):
        looked_at(clips, tmp_path / "out", accept=["b"])


def test_what_a_fast_check_accepted_is_read(clips, tmp_path):
    found, _ = looked_at(clips, tmp_path / "out", level="fast", accept=["a/cut.mkv"])
    (cut,) = (row for row in found.videos if row.source == "cut")
    assert numbers(reader.decode(found, cut, np.array([30, 7]), short_side=HEIGHT)) == [30, 7]


def test_what_an_earlier_version_called_truncated_is_looked_at_again(clips, tmp_path):
    found, _ = looked_at(clips, tmp_path / "out")
    memory = tmp_path / "out" / "checked.jsonl"
    records = [json.loads(line) for line in memory.read_text().splitlines()]
    for record in records:
        del record["loss"], record["fault"]
        if "sound" in record["path"]:
            record |= {"video": None, "reason": "truncated: the header promises 20.0 s, the frames end at 2.4 s"}
        if record["video"] is not None and record["video"]["index"] is not None:
            del record["video"]["index"]["undecodable"]
    memory.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    assert "sound" in used(looked_at(clips, tmp_path / "out")[0])


def test_the_index_of_a_sound_video_is_written_as_before(clips, tmp_path):
    found, _ = looked_at(clips, tmp_path / "out")
    found.write(tmp_path / "manifest.jsonl")
    lines = {json.loads(line).get("source"): line for line in (tmp_path / "manifest.jsonl").read_text().splitlines()}
    assert "undecodable" not in lines["sound"] and '"undecodable": 1' in lines["one"]


def test_prepare_says_what_is_lost_and_uses_what_it_is_told_to(clips, tmp_path):
    out = tmp_path / "out"
    task = preparation.Preparation("folder", out, videos=clips, machines=Machines(workers=1))
    report = preparation.prepare(task).report
    assert "  some frames lost" in report
    assert f"truncated or damaged: 2 (see {out}/broken.csv); --accept=a/" in report
    with open(out / "broken.csv", newline="") as file:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons.keys() == {"a/one.mp4", "a/many.mp4", "a/cut.mkv"}
    assert "; 1 of 60 frames lost" in reasons["a/one.mp4"]
    done = preparing.run("folder", f"--videos={clips}", f"--out={out}", "--max_damage=0.3", "--accept=*.mkv")
    assert "  accepted" in done.stdout and "--accept=" not in done.stdout
    with pytest.raises(UserError, match="--accept=none.mp4 names none of the 4 videos"):
        preparation.prepare(dataclasses.replace(task, accept=("none.mp4",)))


@pytest.mark.parametrize("name", ["cut[1].mkv", "x,[1] 'y'.mkv"])
def test_what_a_report_advises_can_be_done(clips, tmp_path, name):
    videos = tmp_path / "clips"
    (videos / "a").mkdir(parents=True)
    shutil.copy(clips / "a" / "sound.mp4", videos / "a")
    shutil.copy(clips / "a" / "cut.mkv", videos / "a" / name)
    task = preparation.Preparation("folder", tmp_path / "out", videos=videos, machines=Machines(workers=1))
    report = preparation.prepare(task).report
    (line,) = (line for line in report.splitlines() if line.startswith("truncated or damaged: 1"))
    assert "--max_damage" not in line  # which is of packets that do not decode
    (accept,) = (word for word in shlex.split(line.partition("; ")[2]) if word.startswith("--accept="))
    assert "," not in accept
    done = preparation.prepare(dataclasses.replace(task, accept=(accept.removeprefix("--accept="),)))
    assert all(row.error is None for row in done.manifest.videos)


def test_what_is_not_looked_at_takes_no_verdicts(tmp_path):
    for source in ("motions", "manifest"):
        for option in ({"max_damage": 0.1}, {"accept": ("a",)}):
            with pytest.raises(UserError, match="--(max_damage|accept)"):
                preparation.Preparation(source, tmp_path, **option)


def test_animated_pictures_are_videos_and_archives_and_single_pictures_are_called_what_they_are(tmp_path):
    for name in ("a/one.gif", "a/two.MXF", "a/x.zip", "a/cover.jpg", "b.rar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("1.jpg", "2.jpg", "preview.gif"):
        (tmp_path / "a" / "pictures").mkdir(exist_ok=True)
        (tmp_path / "a" / "pictures" / name).touch()
    found = finding.find_videos(tmp_path)
    assert found.videos == ["a/one.gif", "a/pictures", "a/two.MXF"]
    notes = finding.ignored_note(found)
    assert notes[1] == "warning: archives are not looked into; unpack them (found: .zip 1, .rar 1)"
    assert notes[2].startswith("warning: a picture is no video; a folder of numbered ones is")
    for name in ("one.gif", "two.MXF"):
        (tmp_path / "a" / name).unlink()
    shutil.rmtree(tmp_path / "a" / "pictures")
    for source in ("folder", "unlabelled"):
        task = preparation.Preparation(source, tmp_path / "out", videos=tmp_path)
        with pytest.raises(UserError, match="no videos in .*; archives are not looked into; unpack them"):
            task.find()


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mp4"])
def test_packets_that_are_lost_in_a_stream_are_missed(suffix, tmp_path):
    """Decoders of HEVC leave out what needs them, whether the container counts its frames or not."""
    whole = write(tmp_path / "whole.mp4", "libx265", options={"g": "30", "x265-params": "log-level=none:bframes=0"})
    path = remuxed(whole, tmp_path / f"a{suffix}", lambda number, data: None if number == 3 else data)
    with pytest.raises(VideoError, match=r"damaged: only \d\d frames decode of 59"):
        probing.probe(path)


@pytest.mark.parametrize("matrix", [None, 90])
def test_frames_that_change_orientation_are_an_error(matrix, tmp_path, monkeypatch):
    """As with a message for it in the first frame of H.264 alone."""
    path = write(tmp_path / "a.mp4", frames=6)
    turned = np.array([[0, 65536, 0], [-65536, 0, 0], [0, 0, 2**30]], np.int32).tobytes()
    monkeypatch.setattr(video, "orientation", lambda frame: turned if frame.pts == 0 or matrix is None else None)
    if matrix is None:
        assert video.decode(path, [0, 5]).shape == (2, WIDTH, HEIGHT, 3), "all alike"
        return
    for read in (probing.probe, lambda path: video.decode(path, [0, 5])):
        with pytest.raises(VideoError, match="frames change orientation at frame"):
            read(path)


def test_times_that_run_back_tell_no_parts(tmp_path):
    """As in joined recordings: their second half would be lost, or shown at another time."""
    part = write(tmp_path / "part.ts")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(2 * part.read_bytes())
    assert numbers(video.decode(joined, [FRAMES - 1, FRAMES])) == [FRAMES - 1, 0]
    for read in (
        lambda: probing.probe(joined, span=(1.0, 2.0)),
        lambda: probing.probe(joined, span=(1.0, 2.0), full=False),
        lambda: [*video.timed_frames(joined)],
    ):
        with pytest.raises(VideoError, match=f"its times run back at frame {FRAMES}"):
            read()
    assert len([*video.timed_frames(joined, fps=25)]) == 2 * FRAMES


def test_the_frames_of_a_damaged_file_have_times_where_it_is_used(tmp_path):
    path = damaged(tmp_path / "a.mp4")
    assert len([*video.timed_frames(path)]) == probing.probe(path).frames == FRAMES - 1
    assert len([*video.timed_frames(path, fps=25)]) == FRAMES - 1
    slow = write(tmp_path / "slow.avi", times=[25 * place for place in range(FRAMES)])  # B-frames, one a second
    assert len([*video.timed_frames(slow)]) == FRAMES and probing.probe(slow, span=(10.0, 20.0)).frames == 10
    with pytest.raises(VideoError, match="damaged: 20 packets do not decode"):
        list(video.timed_frames(damaged(tmp_path / "a.mkv", set(range(31, 51)))))
