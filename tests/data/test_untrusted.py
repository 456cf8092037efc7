"""Files from strangers: what has others opened, never ends, or swells."""

import os
import pathlib
import socket
import time

import av
import cv2
import numpy as np
import pytest

from jax_video.data.decoding import pictures, probing, video
from jax_video.data.preparing.preparation import Preparation, prepare
from jax_video.data.sources import motions
from jax_video.errors import UserError, VideoError

FRAMES = np.random.default_rng(0).integers(0, 255, (4, 32, 48, 3), np.uint8)
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:0.2,\n{}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile {}\nduration 0.2\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT0.2S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
    "<SegmentBase/></Representation></AdaptationSet></Period></MPD>"
)
SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)
NAMING = {"hls": HLS, "concat": CONCAT, "concat after a mark": f"\ufeff{CONCAT}", "dash": DASH, "sdp": SDP}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """With a video in MP4 and in MPEG-TS, one picture, and a pipe, which to open takes for ever."""
    folder = tmp_path_factory.mktemp("untrusted")
    motions.encode(folder / "good.mp4", FRAMES)
    with av.open(str(folder / "good.mp4")) as source, av.open(str(folder / "good.ts"), "w", format="mpegts") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    cv2.imwrite(str(folder / "good.jpg"), FRAMES[0])
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize("name", ["a.m3u8", "a.mp4", "a.avi", "a.mkv", "a.ts", "a.h264", "a", "a%d.jpg"])
@pytest.mark.parametrize("kind", NAMING)
def test_what_names_other_files_is_not_opened_whatever_it_is_called(folder, kind, name):
    for other in ("good.mp4", "good.ts", "pipe", str(folder / "good.ts"), f"file:{folder / 'good.mp4'}", name, "fd:"):
        path = folder / name
        path.write_text(NAMING[kind].format(other), encoding="utf-8")
        try:
            with pytest.raises(VideoError, match="not a readable video"):
                probing.probe(path)
        finally:
            path.unlink()


def test_a_picture_is_one_whatever_its_name_would_mean(folder):
    """`%d` and `*` in a name ask FFmpeg for the other pictures beside it, a colon for a protocol."""
    for name in ("a1.jpg", "a2.jpg", "a%d.jpg", "a*.jpg", "concat:a1.jpg|a2.jpg", "a.mp4"):
        (folder / name).write_bytes((folder / "good.jpg").read_bytes())
    for name in ("a%d.jpg", "a*.jpg", "concat:a1.jpg|a2.jpg", "a.mp4"):
        assert probing.probe(folder / name).frames == 1
    cv2.imwrite(str(folder / "a1.jpg"), np.zeros((16, 16, 3), np.uint8))
    assert video.decode(folder / "a%d.jpg", [0]).shape == (1, 32, 48, 3)


def test_a_format_without_pictures_of_its_own_is_said_to_be_one(folder):
    (folder / "titles.mp4").write_text(";FFMETADATA1\ntitle=x\n")
    with pytest.raises(VideoError, match="a format that does not hold its own pictures"):
        probing.probe(folder / "titles.mp4")


def test_a_header_with_the_size_of_no_picture_is_the_files_fault(tmp_path):
    """FFmpeg calls it "busy", as a system may be; prepare does not stop at it."""
    for name in ("a/good.mp4", "b/good.mp4"):
        (tmp_path / name).parent.mkdir()
        motions.encode(tmp_path / name, FRAMES)
    (tmp_path / "a/vast.y4m").write_bytes(b"YUV4MPEG2 W100000 H100000 F25:1 C420\nFRAME\n" + bytes(1000))
    found = prepare(Preparation(source="folder", videos=str(tmp_path), out=str(tmp_path / "out"))).manifest
    broken = {row.path: row.error for row in found.videos if row.error is not None}
    assert broken.keys() == {"a/vast.y4m"} and broken["a/vast.y4m"].startswith("not a readable video")


def test_what_is_no_file_is_not_waited_for(folder, tmp_path):
    place = tmp_path / "socket.mp4"
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(place))
        (tmp_path / "zero.mp4").symlink_to("/dev/zero")
        for path in (folder / "pipe", place, tmp_path / "zero.mp4"):
            with pytest.raises(VideoError, match="not a file"):
                probing.probe(path)
    (tmp_path / "walk").mkdir()
    for number in (1, 2):
        (tmp_path / "walk" / f"{number}.jpg").write_bytes((folder / "good.jpg").read_bytes())
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        make(tmp_path / "walk" / "3.jpg")
        with pytest.raises(VideoError, match=r"unreadable picture: 3.jpg \(not a file\)"):
            pictures.probe(tmp_path / "walk")
        (tmp_path / "walk" / "3.jpg").unlink()
    with open(tmp_path / "walk" / "3.jpg", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(VideoError, match=r"unreadable picture: 3.jpg \(1,099,511,627,776 bytes\)"):
        pictures.probe(tmp_path / "walk")


BLANKS = " " * 20_000
LONG = {
    "blanks": f"a.mp4{BLANKS}x y",
    "commas": "a.mp4" + "," * 9000 + "x y",
    "one line": "a.mp4 0 " * 2_000_000,
    "a hundred lines of blanks": f"a{BLANKS[:5000]}b c\n" * 100,
    "zeros": "\0" * 100,
    "a table's row": "a,b," * 3000,
}


@pytest.mark.parametrize("source", ["list", "kinetics400"])
@pytest.mark.parametrize("kind", LONG)
def test_a_line_of_any_length_is_refused_at_once(folder, tmp_path, source, kind):
    """Regular expressions that look for a label behind blanks would take the square of their number."""
    (tmp_path / "train.csv").write_text(LONG[kind])
    parameters = {"annotations": tmp_path} if source == "kinetics400" else {"train_list": tmp_path / "train.csv"}
    began = time.process_time()  # of this process alone, however busy the machine is
    with pytest.raises(UserError, match="train.csv:1: expected a line of text, got |train.csv is no text"):
        prepare(Preparation(source, tmp_path / "out", videos=folder, parameters=parameters))
    assert time.process_time() - began < 5


@pytest.mark.parametrize("line", [BLANKS, "," * 9000, "a, " * 500_000])
def test_a_line_of_a_class_file_is_bounded_too(folder, tmp_path, line):
    (tmp_path / "names.txt").write_text(f"run{line}1 x")
    (tmp_path / "list.txt").write_text("good.mp4 0\n")
    parameters = {"train_list": tmp_path / "list.txt", "class_names": tmp_path / "names.txt"}
    with pytest.raises(UserError, match="names.txt:1: expected a line of text, got "):
        prepare(Preparation("list", tmp_path / "out", videos=folder, parameters=parameters))


def test_a_list_that_never_ends_is_none(folder, tmp_path):
    for path in ("/dev/zero", tmp_path / "holes.txt"):
        if path != "/dev/zero":
            path.touch()
            os.truncate(path, 2**40)
        parameters = {"train_list": pathlib.Path(path)}
        with pytest.raises(UserError, match="is no text: it has zero bytes"):
            prepare(Preparation("list", tmp_path / "out", videos=folder, parameters=parameters))
