"""The reader of an exported folder gives the frames that the library reads, or refuses what the library refuses."""

import fractions
import itertools
import pathlib
import struct
import zlib
from collections.abc import Callable

import av
import cv2
import numpy as np
import pytest

from jax_video.data.decoding import probing, video
from jax_video.errors import VideoError
from jax_video.exporting import classify

SHORT_SIDE = 24
PATTERN = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def pictures(count: int, height: int = 40, width: int = 56) -> list[np.ndarray]:
    """uint8 [H, W, 3]: smooth colours that no turn or mirroring leaves as they are, another part of them each time."""
    large = cv2.resize(PATTERN, (width + 2 * count, height), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(large[:, 2 * place : 2 * place + width]) for place in range(count)]


def check(path: pathlib.Path, *, most: int = 0) -> np.ndarray:
    """The frames of the reader, which differ by `most` levels from those that `Run.classify` cuts its clips from."""
    info = probing.probe(path, seekable=False)  # as jax_video/data/isolated.py does
    expected = np.stack(list(video.frames_in_order(path, index=info.index, short_side=SHORT_SIDE)))
    found, rate = classify.frames(path, SHORT_SIDE)
    assert found.dtype == np.uint8 and found.shape == expected.shape and rate == pytest.approx(info.fps)
    assert np.abs(found.astype(int) - expected).max() <= most
    return found


def check_refused(path: pathlib.Path, by_library: str, by_reader: str) -> None:
    """Both refuse it, each with its words."""
    with pytest.raises(VideoError, match=by_library):
        probing.probe(path, seekable=False)
    with pytest.raises(ValueError, match=by_reader):
        classify.frames(path, SHORT_SIDE)


def write(
    path: pathlib.Path,
    *streams: list[np.ndarray],
    codec: str = "mpeg4",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    best: int = 0,
) -> pathlib.Path:
    """A file of one or several video streams, 25 frames a second."""
    with av.open(str(path), "w", options=muxing or {}) as container:
        written = []
        for images in streams:
            stream = container.add_stream(codec, rate=25, options={"threads": "1", "g": "10"} | (options or {}))
            stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], pix_fmt
            written.append(stream)
        written[best].disposition = av.stream.Disposition.default.value  # PyAV 15 takes no enum
        for place in range(max(map(len, streams))):
            for stream, images in zip(written, streams, strict=True):
                if place < len(images):
                    frame = av.VideoFrame.from_ndarray(images[place], format="rgb24").reformat(format=pix_fmt)
                    frame.pts, frame.time_base = place, fractions.Fraction(1, 25)
                    container.mux(stream.encode(frame))
        for stream in written:
            container.mux(stream.encode())
    return path


def store(folder: pathlib.Path, *names: str, images: list[np.ndarray] | None = None) -> pathlib.Path:
    """A folder of pictures; OpenCV writes BGR."""
    folder.mkdir(exist_ok=True)
    for name, image in zip(names, images or pictures(len(names)), strict=True):
        assert cv2.imwrite(str(folder / name), image[..., ::-1])
    return folder


def turned(data: bytes, orientation: int) -> bytes:
    """A JPEG or PNG with an orientation in its EXIF."""
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    if data.startswith(b"\x89PNG"):
        chunk = b"eXIf" + exif
        return data[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif + data[2:]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_pictures_are_turned_and_mirrored_as_their_exif_says(suffix, tmp_path):
    """JPEG pictures differ by the rounding of another inverse cosine transform."""
    upright = check(store(tmp_path / "upright", f"1.{suffix}"), most=3)
    seen = [upright]
    for orientation in range(2, 9):
        path = store(tmp_path / f"{orientation}", f"1.{suffix}") / f"1.{suffix}"
        path.write_bytes(turned(path.read_bytes(), orientation))
        seen.append(check(path.parent, most=0 if suffix == "png" else 3))
        assert seen[-1].shape[1:3] == upright.shape[1:3][:: 1 if orientation < 5 else -1]
    for one, other in itertools.combinations(seen, 2):
        assert one.shape != other.shape or np.abs(one.astype(int) - other).mean() > 10


@pytest.mark.parametrize("sampling", ["444", "422", "440", "420", "411"])
def test_colours_of_jpegs_are_those_of_opencv(sampling, tmp_path):
    """Where FFmpeg's filter would leave tens of levels; sides are odd."""
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    noise = np.random.default_rng(0).integers(0, 256, (41, 57, 3), np.uint8)
    image = 4 * cv2.GaussianBlur(noise, (0, 0), 2).astype(int) - 384
    data = cv2.imencode(".jpg", np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])[1]
    (tmp_path / "1.jpg").write_bytes(data.tobytes())
    check(tmp_path, most=3)


def test_pictures_of_other_kinds(tmp_path):
    """Gray, transparent, and deep ones; stored flow, hidden files and other files are no frames."""
    image = pictures(1)[0]
    cv2.imwrite(str(tmp_path / "x_1_0.png"), image[..., 0])
    cv2.imwrite(str(tmp_path / "x_1_1.png"), np.dstack([image, image[..., 0]]))
    (tmp_path / "x_1_2.png").write_bytes((tmp_path / "x_1_1.png").read_bytes() + b"more")
    for name in ("flow_x_00001.jpg", "y_00001.jpg", ".x_1_6.png", "x_1_.png", "notes.txt"):
        (tmp_path / name).touch()
    deep = np.random.default_rng(0).integers(0, 65536, (*image.shape[:2], 4)).astype(np.uint16)
    for place, channels in ((3, 0), (4, slice(3)), (5, slice(4))):
        cv2.imwrite(str(tmp_path / f"x_1_{place}.png"), deep[..., channels])
    assert len(check(tmp_path)) == 6


def cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def damage(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


FOLDERS: dict[str, tuple[list[str], Callable[[pathlib.Path], None], str, str]] = {
    "a gap": (["a_1.png", "a_3.png"], lambda _: None, "gap in the numbering", "a_3.png is where 2 is expected"),
    "the first is missing": (["2.png"], lambda _: None, "gap in the numbering", "2.png is where 1 is expected"),
    "a number twice": (["1.png", "01.png"], lambda _: None, "the same number", "a number twice"),
    "two videos": (["a_001.png", "b_001.png"], lambda _: None, "several videos", "several videos.*'a_', 'b_'"),
    "flow alone": (["flow_x_1.png"], lambda _: None, "no numbered pictures", "no numbered pictures"),
    "cut": (["1.png"], lambda folder: cut(folder / "1.png"), "1.png .truncated", "1.png .truncated"),
    "cut, a JPEG": (["1.jpg"], lambda folder: cut(folder / "1.jpg"), "1.jpg .truncated", "1.jpg .truncated"),
    "damaged": (["1.png"], lambda folder: damage(folder / "1.png"), "unreadable picture: 1", "unreadable picture: 1"),
    "empty": (["1.png"], lambda folder: (folder / "1.png").write_bytes(b""), "empty file", "empty file"),
    "no picture": (["1.png"], lambda folder: (folder / "1.png").write_bytes(b"GIF89a"), "not a JPEG", "not a JPEG"),
    "another size": (
        ["1.png"],
        lambda folder: store(folder, "2.png", images=pictures(1, 80, 112)),
        "change size",
        "change size: from 56x40 at frame 1",
    ),
    "long": (
        ["3.png"],
        lambda folder: [store(folder, "1.png", images=pictures(1, 2, 90)), (folder / "3.png").unlink()],
        "strange size",
        "strange size: frames of 90x2",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_are_refused(name, tmp_path):
    names, change, *reasons = FOLDERS[name]
    change(store(tmp_path / "a", *names))
    check_refused(tmp_path / "a", *reasons)


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0), (0, 1, -1, 0)])
def test_videos_are_turned_and_mirrored_as_their_header_says(matrix, tmp_path):
    path = write(tmp_path / "a.mp4", pictures(3))
    stored = check(path)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # after version, flags, times, ids and volume
    a, b, c, d = (struct.pack(">i", value << 16) for value in matrix)
    data[start : start + 36] = a + b + bytes(4) + c + d + bytes(8) + bytes(4) + struct.pack(">I", 1 << 30)
    path.write_bytes(data)
    found = check(path)
    assert found.shape != stored.shape or np.abs(found.astype(int) - stored).mean() > 10


def test_the_best_of_several_streams(tmp_path):
    """Here the second one, which the file itself prefers."""
    small, large = pictures(6, 20, 28), pictures(6, 80, 112)
    path = write(tmp_path / "a.mkv", small, large, best=1)
    with av.open(str(path)) as container:
        assert container.streams.best("video").index == 1
    np.testing.assert_array_equal(check(path), check(write(tmp_path / "b.mkv", large)))


CUT = {
    "a.mkv": "the header promises 4.0 s, the frames end at ",
    "a.avi": "the header promises 100 frames, the file holds ",
    "a.mp4": "the header promises 100 frames, the file holds ",
    "a.flv": "the file ends within a frame, the last of ",
}


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_was_cut(name, tmp_path):
    codec = "flv" if name.endswith("flv") else "mpeg4"
    path = write(tmp_path / name, pictures(100), codec=codec, muxing={"movflags": "faststart"})
    assert len(check(path)) == 100
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    check_refused(path, f"truncated: {CUT[name]}", f"^truncated: {CUT[name]}")


def test_a_video_is_used_until_a_twentieth_of_it_is_lost(tmp_path):
    whole, some, many = (tmp_path / f"{name}.avi" for name in ("whole", "some", "many"))
    write(whole, pictures(60), codec="mjpeg", pix_fmt="yuvj420p")
    for path, lost in ((some, {31}), (many, {10, 20, 30, 40, 50})):
        with av.open(str(whole)) as old, av.open(str(path), "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for place, packet in enumerate(old.demux(video=0)):
                if packet.size:
                    copy = av.Packet(bytes(packet.size) if place in lost else bytes(packet))
                    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                    copy.stream, copy.is_keyframe = stream, True
                    new.mux(copy)
    assert len(check(some)) == 59
    check_refused(many, "damaged: .*5 of 60 frames lost", "damaged: 5 of 60 frames do not decode")


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "options"),
    [
        ("yuv420p", "libx264", {"flags": "+ildct+ilme", "x264-params": "tff=1"}),
        ("yuv420p10le", "ffv1", {}),
        ("gray", "ffv1", {}),
        ("bgr0", "ffv1", {}),
    ],
    ids=["fields", "deep", "gray", "RGB"],
)
def test_colours_of_interlaced_videos_and_of_other_formats(pix_fmt, codec, options, tmp_path):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    check(write(tmp_path / "a.mkv", pictures(4, 64, 96), codec=codec, pix_fmt=pix_fmt, options=options))


def test_names_are_no_patterns_and_texts_name_no_files(tmp_path):
    """FFmpeg would take %d for numbers, and would open what a playlist names; titles may be in any encoding."""
    path = write(tmp_path / "a%d.avi", pictures(3))
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"\xe9\xe8vf"))
    assert len(check(path)) == 3
    write(tmp_path / "a.ts", pictures(30), codec="mpeg2video")
    for name, text in {
        "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n",
        "a.ffconcat": "ffconcat version 1.0\nfile a.ts\n",
        "a.ans": "\x1b[31mhello\x1b[0m\r\n" * 400,
        "empty.mp4": "",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(VideoError):
            probing.probe(tmp_path / name)
        with pytest.raises((ValueError, OSError, av.FFmpegError)):
            classify.frames(tmp_path / name, SHORT_SIDE)
