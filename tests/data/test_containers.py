"""Every frame of every container and codec that PyAV can write here, however it is asked for; each has its number."""

import dataclasses
import fractions
import itertools
import pathlib
import re
import shutil
from typing import NamedTuple

import av
import numpy as np
import pytest

from jax_video.data import manifest, reader
from jax_video.data.decoding import flow, packed, probing, video
from jax_video.data.preparing import checks, packing, storing
from jax_video.errors import VideoError

FRAMES, SIDE, BITS = 40, 64, 6
SIZE = (SIDE, BITS * 16)  # height and width


class Format(NamedTuple):
    """How a file is written."""

    file: str
    codec: str
    options: dict = {}
    pix_fmt: str = "yuv420p"
    sought: bool | None = True  # whether frames are found by seeking; None: as the build's own muxer has it


B = {"bf": "2", "g": "10"}
X264 = "cpu-independent=1"  # or else x264 may write another file each time
FORMATS = {
    "h264 avi": Format("a.avi", "libx264", {"bf": "0", "g": "10"}),
    "h264 avi, B-frames": Format("a.avi", "libx264", B, sought=None),
    "h264 mkv, B-frames": Format("a.mkv", "libx264", B),
    "h264 mp4, B-frames": Format("a.mp4", "libx264", B),
    "h264 mp4, one group": Format("a.mp4", "libx264", {"g": "250"}),
    "h264 mp4, short groups": Format("a.mp4", "libx264", {"g": "3"}),
    "h264 mp4, all keyframes": Format("a.mp4", "libx264", {"g": "1"}),
    "h264 mp4, references far back": Format("a.mp4", "libx264", {"g": "20", "bf": "3", "refs": "8"}),
    "h264 mov, B-frames": Format("a.mov", "libx264", B),
    "h264 flv, B-frames": Format("a.flv", "libx264", B),
    "h264 ts, B-frames": Format("a.ts", "libx264", B, sought=None),
    "h264 ts, no B-frames": Format("a.ts", "libx264", {"bf": "0", "g": "10"}, sought=None),
    "h264 mp4, fragments": Format("a.mp4", "libx264", B | {"movflags": "frag_keyframe+empty_moov"}, sought=None),
    "h264 mkv, open groups": Format("a.mkv", "libx264", B | {"x264-params": "open-gop=1"}, sought=None),
    "h264 mp4, open groups": Format("a.mp4", "libx264", B | {"x264-params": "open-gop=1"}, sought=None),
    "h264 ts, open groups": Format("a.ts", "libx264", B | {"x264-params": "open-gop=1"}, sought=None),
    "h264 mp4, intra-refresh": Format("a.mp4", "libx264", {"g": "10", "x264-params": "intra-refresh=1"}, sought=None),
    "h264 ts, intra-refresh": Format("a.ts", "libx264", {"g": "10", "x264-params": "intra-refresh=1"}, sought=None),
    "h264 mkv, intra-refresh": Format("a.mkv", "libx264", {"g": "10", "x264-params": "intra-refresh=1"}, sought=None),
    "h264 mp4, fields": Format("a.mp4", "libx264", B | {"flags": "+ildct+ilme", "x264-params": "tff=1"}, sought=None),
    "h264 without container": Format("a.h264", "libx264", B, sought=False),
    "hevc mp4": Format("a.mp4", "libx265", {"g": "10", "x265-params": "log-level=none"}, sought=None),
    "hevc mkv, closed groups": Format("a.mkv", "libx265", {"x265-params": "keyint=10:open-gop=0:log-level=none"}),
    "hevc ts": Format("a.ts", "libx265", {"g": "10", "x265-params": "log-level=none"}, sought=None),
    "av1 mp4": Format("a.mp4", "libsvtav1", {"g": "10", "preset": "12"}, sought=None),
    "av1 mkv": Format("a.mkv", "libsvtav1", {"g": "10", "preset": "12"}, sought=None),
    "vp8 webm": Format("a.webm", "libvpx", {"g": "10", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "12"}),
    "vp9 webm": Format("a.webm", "libvpx-vp9", {"g": "10", "cpu-used": "8", "auto-alt-ref": "1"}, sought=None),
    "mpeg4 avi": Format("a.avi", "mpeg4", {"g": "10"}),
    "mpeg4 avi, B-frames": Format("a.avi", "mpeg4", B, sought=None),
    "mpeg4 avi, packed B-frames": Format("packed.avi", "mpeg4", B, sought=False),
    "mpeg4 mp4, B-frames": Format("a.mp4", "mpeg4", B),
    "mpeg4 mkv, B-frames": Format("a.mkv", "mpeg4", B),
    "mpeg4 mov, short groups": Format("a.mov", "mpeg4", {"g": "4", "bf": "1"}),
    "mpeg1 mpg": Format("a.mpg", "mpeg1video", B, sought=None),
    "mpeg2 mpg": Format("a.mpg", "mpeg2video", B, sought=None),
    "mpeg2 vob": Format("a.vob", "mpeg2video", B, sought=None),
    "mpeg2 ts": Format("a.ts", "mpeg2video", B, sought=None),
    "mpeg2 mkv": Format("a.mkv", "mpeg2video", B, sought=None),
    "mpeg2 avi": Format("a.avi", "mpeg2video", B, sought=None),
    "wmv1 wmv": Format("a.wmv", "wmv1", {"g": "10"}, sought=None),
    "wmv2 wmv": Format("a.wmv", "wmv2", {"g": "10"}, sought=None),
    "flv1 flv": Format("a.flv", "flv", {"g": "10"}),
    "mjpeg avi": Format("a.avi", "mjpeg", {}, "yuvj420p"),
    "mjpeg mov": Format("a.mov", "mjpeg", {}, "yuvj420p"),
    "prores mov": Format("a.mov", "prores_ks", {}, "yuv422p10le"),
    "ffv1 mkv": Format("a.mkv", "ffv1", {"g": "10"}),
}
FORMATS = {
    name: form._replace(options=form.options | {"x264-params": f"{X264}:{form.options.get('x264-params', '')}"})
    if form.codec == "libx264"
    else form
    for name, form in FORMATS.items()
    if form.codec in av.codecs_available
}


def numbered(count: int = FRAMES) -> np.ndarray:
    """uint8 [count, H, W, 3]: the bits of a frame's number as squares, below them a pattern that moves."""
    t, y, x = np.mgrid[:count, : SIZE[0], : SIZE[1]]
    bits = (t >> (x // 16)) & 1
    pattern = 128 + 60 * np.sin(2 * np.pi * ((x + y) / 32 - t / 20))
    return np.repeat(np.where(y < SIDE // 2, 30 + 195 * bits, pattern)[..., None], 3, axis=-1).astype(np.uint8)


def numbers(frames: np.ndarray) -> list[int]:
    """The inverse, of uint8 [N, H, W, 3]."""
    squares = frames[:, 4 : SIDE // 2 - 4].reshape(len(frames), -1, BITS, 16, 3)[:, :, :, 4:12]
    bits = squares.mean((1, 3, 4)) > 128  # [N, BITS]
    return (bits << np.arange(BITS)).sum(1).tolist()


def write(path: pathlib.Path, form: Format, frames: np.ndarray) -> pathlib.Path:
    """Encodes uint8 [T, H, W, 3] at 25 frames a second."""
    muxing = {"movflags": form.options["movflags"]} if "movflags" in form.options else {}
    with av.open(str(path), "w", options=muxing) as container:
        options = {key: value for key, value in form.options.items() if key != "movflags"}
        stream = container.add_stream(form.codec, rate=25, options=options | {"threads": "1"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], form.pix_fmt
        stream.bit_rate = 2_000_000
        stream.codec_context.time_base = fractions.Fraction(1, 25)
        for time, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=form.pix_fmt)
            picture.pts, picture.time_base = time, fractions.Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def pack_b_frames(source: pathlib.Path, target: pathlib.Path) -> None:
    """As DivX and XviD write AVI files: a B-frame in the packet of the frame that it needs, then an empty packet."""
    vop, user_data = b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p"
    with av.open(str(source)) as container, av.open(str(target), "w", format="avi") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        copy.time_base = fractions.Fraction(1, 25)
        data = [bytes(packet) for packet in container.demux(stream) if packet.size]
        kinds = ["IPBS"[chunk[chunk.index(vop) + 4] >> 6] for chunk in data]
        packets = []
        while data:
            chunk, kind = data.pop(0), kinds.pop(0)
            following = [data.pop(0) for _ in itertools.takewhile(lambda kind: kind == "B", list(kinds))]
            del kinds[: len(following)]
            if kind == "I":
                place = chunk.index(vop)
                chunk = chunk[:place] + user_data + chunk[place:]
            # One B-frame fits beside the frame that it needs; the second one stands in the next packet.
            packets += [chunk + b"".join(following[:1]), *following[1:], *[vop + b"\x52\x40\x7f"] * bool(following)]
        for time, chunk in enumerate(packets):
            packet = av.Packet(chunk)
            packet.stream, packet.pts, packet.dts = copy, time, time
            packet.time_base = fractions.Fraction(1, 25)
            packet.is_keyframe = user_data in chunk
            out.mux(packet)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, pathlib.Path]:
    """All formats, each written once."""
    folder = tmp_path_factory.mktemp("formats")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVT_LOG", "-1")  # Its encoder prints a page.
        for number, (name, form) in enumerate(FORMATS.items()):
            path = folder / f"{number:02d}{pathlib.Path(form.file).suffix}"
            found[name] = write(path, form, numbered())
            if form.file == "packed.avi":
                found[name] = folder / f"{number:02d}-packed.avi"
                pack_b_frames(path, found[name])
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_frames_at_random_are_those_in_order(name, files):
    path = files[name]
    info, fast = probing.probe(path), probing.probe(path, full=False)
    in_order = video.decode(path, range(info.frames))
    assert numbers(in_order) == list(range(FRAMES)) and fast.frames == info.frames
    sought = info.index is not None and len(info.index.keyframes) > 0
    assert sought == FORMATS[name].sought or FORMATS[name].sought is None
    for known, places in ((info.index, range(FRAMES)), (fast.index, (0, 7, 22, FRAMES - 1))):
        for place in places:
            np.testing.assert_array_equal(video.decode(path, [place], index=known)[0], in_order[place])
        for wanted in ([3, 17, 30], range(8, 24), range(1, FRAMES, 7), [39, 0, 20, 20]):
            np.testing.assert_array_equal(video.decode(path, list(wanted), index=known), in_order[list(wanted)])
        for first in places:
            rest = np.stack(list(video.frames_in_order(path, first=first, index=known)))
            np.testing.assert_array_equal(rest, in_order[first:])


def checked(files: dict[str, pathlib.Path], out: pathlib.Path, level: str, **changes) -> manifest.Manifest:
    """The files as a set that prepare has looked at."""
    root = next(iter(files.values())).parent
    rows = [manifest.Video(path.name, 0, "train", 0, 0.0, 0, 0, None, name) for name, path in files.items()]
    rows = [dataclasses.replace(row, **changes) for row in rows]
    out.mkdir()
    found, _ = checks.check(manifest.Manifest("formats", ("a",), str(root), tuple(rows)), out, level=level, processes=2)
    return found


@pytest.fixture(scope="module")
def sets(files, tmp_path_factory) -> dict[str, manifest.Manifest]:
    """All files as a set, by how they were looked at."""
    folder = tmp_path_factory.mktemp("sets")
    return {level: checked(files, folder / level, level) for level in checks.LEVELS}


@pytest.mark.parametrize("level", checks.LEVELS)
def test_clips_and_packed_frames_are_those_of_the_file(level, files, sets, tmp_path):
    whole = sets[level]
    assert [(row.source, row.error, row.frames) for row in whole.videos] == [(name, None, FRAMES) for name in files]
    settings = manifest.Packed("frames", packed.RECORD_FRAMES, SIDE, 90)
    builder = packing.open_folder(tmp_path / "packed", whole, settings)
    for shard in packing.shards(whole, builder.data_dir, settings):
        packing.write_shard(shard)
    tight = packing.finish(whole, builder, tmp_path / "packed")
    for entry, small in zip(whole.videos, tight.videos, strict=True):
        for wanted in (np.arange(9, 25), np.array([30, 2, 17, 2]), np.arange(0, FRAMES, 3)):
            assert numbers(reader.decode(whole, entry, wanted, short_side=SIDE)) == wanted.tolist(), entry.source
            assert numbers(reader.decode(tight, small, wanted, short_side=SIDE)) == wanted.tolist(), entry.source


@pytest.mark.parametrize("level", checks.LEVELS)
def test_parts_are_those_of_the_file(level, files, tmp_path):
    parts = checked(files, tmp_path / "out", level, span=(0.4, 1.2))
    for entry in parts.videos:
        if entry.source == "h264 without container":
            assert entry.error == "has no timestamps: which frames are from 0.4 to 1.2 s cannot be told"
            continue
        late = entry.path.endswith(".avi")  # where the muxer may let the first frame be shown after 0.04 s
        assert entry.frames == 20 and entry.first in ((9, 10) if late else (10,)), entry
        for wanted in (np.arange(20), np.array([13, 2, 2])):
            found = numbers(reader.decode(parts, entry, wanted, short_side=SIDE))
            assert found == (entry.first + wanted).tolist(), entry.source


@pytest.mark.parametrize(
    "name", [name for name in FORMATS if FORMATS[name].sought is not True and FORMATS[name].file != "a.mp4"]
)
def test_flow_is_that_of_the_frames_in_order(name, files, sets, tmp_path):
    settings = flow.Settings("dis", SIDE)
    in_order = video.decode(files[name], range(FRAMES))
    expected = np.stack(list(flow.compute(in_order, "dis")))  # [FRAMES - 1, H, W, 2]
    for level, found in sets.items():
        (entry,) = (row for row in found.videos if row.source == name)
        stacked = reader.flow_stacks(found, entry, np.array([20]), short_side=SIDE, method="dis")[0]  # [H, W, 20]
        np.testing.assert_array_equal(stacked.reshape(*SIZE, 10, 2).swapaxes(0, 2).swapaxes(1, 2), expected[15:25])
        target = tmp_path / level / "stored.flow"
        storing.store(files[name], target, entry, settings)
        plain = tmp_path / level / "plain.flow"
        storing.store(files[name], plain, dataclasses.replace(entry, index=None), settings)
        assert target.read_bytes() == plain.read_bytes()


def test_an_index_of_an_earlier_version_is_verified_once(files, tmp_path, monkeypatch):
    """Before, a fast check wrote one as well, and nobody had tried its keyframes."""
    names = [name for name in ("h264 avi, B-frames", "h264 mp4, intra-refresh", "h264 mp4, B-frames") if name in files]
    copies = {name: pathlib.Path(shutil.copy(files[name], tmp_path)) for name in names}
    whole = checked(copies, tmp_path / "out", "full")
    old = video.FrameIndex(FRAMES, 0, 512, keyframes=tuple(range(0, FRAMES, 10)))
    whole = dataclasses.replace(whole, videos=tuple(dataclasses.replace(row, index=old) for row in whole.videos))
    path = tmp_path / "manifest.jsonl"
    whole.write(path)
    text = path.read_text()
    assert text.count(', "verified": false') == len(names)
    path.write_text(re.sub(r', "crc32": \d+', "", text.replace(', "verified": false', "")))
    found = manifest.Manifest.read(path)
    assert found == whole and found.hash == whole.hash
    probed = []
    original = probing.examine
    monkeypatch.setattr(probing, "examine", lambda *args, **options: probed.append(args) or original(*args, **options))
    for wanted in (np.arange(3, 19), np.array([33, 12]), np.arange(20, 40, 2)):
        for entry in found.videos:
            assert numbers(reader.decode(found, entry, wanted, short_side=SIDE)) == wanted.tolist(), entry.source
    assert len(probed) == len(names)


def test_a_count_of_packets_that_are_no_frames_is_noted_and_not_trained_on(tmp_path):
    """As where a file ends in packets that the decoder makes nothing of."""
    path = write(tmp_path / "a.mp4", FORMATS["h264 mp4, short groups"], numbered())
    whole = probing.probe(path)
    entry = manifest.Video(path.name, 0, "train", FRAMES + 2, 25.0, 96, 64, None, "a", index=video.FrameIndex(42))
    found = manifest.Manifest("mine", ("a",), str(tmp_path), (entry,))
    for _ in range(2):
        with pytest.raises(
            VideoError, match="miscounted: 40 frames decode from frame 0 on, but a fast check counted 42"
        ):
            reader.decode(found, entry, np.array([3]), short_side=SIDE)
    right = dataclasses.replace(entry, frames=FRAMES)
    assert numbers(reader.decode(found, right, np.array([3]), short_side=SIDE)) == [3]
    assert whole.frames == FRAMES


@pytest.mark.parametrize("lost", [10, 13, 21])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".flv", ".ts"])
def test_what_a_decoder_makes_up_for_a_lost_packet_is_the_same_after_a_seek(suffix, lost, tmp_path):
    """It takes what it has decoded before; so nothing may be left out on the way there."""
    whole = write(tmp_path / f"whole{suffix}", Format("", "libx264", {"bf": "3", "g": "10", "refs": "4"}), numbered())
    path = tmp_path / f"lost{suffix}"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for place, packet in enumerate(source.demux(video=0)):
            if packet.size and place != lost:
                packet.stream = stream
                target.mux(packet)
    try:
        info = probing.probe(path)
    except VideoError as error:
        assert error.reason.startswith("damaged: only ")
        return
    in_order = video.decode(path, range(info.frames))
    for place in range(info.frames):
        np.testing.assert_array_equal(video.decode(path, [place], index=info.index)[0], in_order[place])
