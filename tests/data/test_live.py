"""Streams: what is a source, and that their frames come with ascending times through breaks, jumps and silence."""

import contextlib
import functools
import http.server
import itertools
import os
import sys
import threading
import time

import av
import cv2
import numpy as np
import pytest
import streams

from jax_video.data.decoding import live
from jax_video.errors import UserError, VideoError


def reading(source: str | os.PathLike, **options) -> live.Stream:
    options = {"short_side": None, "fps": 0.0, "say": lambda note: None, **options}
    stream = live.Stream(live.find(source), **options)
    stream.begin()
    return stream


def frames(source: str | os.PathLike, count: int | None = None, **options) -> tuple[list[live.Frame], list[str]]:
    """The first `count` frames, or all, and what was said on the way."""
    notes: list[str] = []
    stream = reading(source, say=notes.append, **options)
    late = threading.Timer(30, stream.stop)
    late.start()
    with contextlib.closing(stream.frames()) as found, contextlib.ExitStack() as stack:
        stack.callback(late.cancel)
        return [*itertools.islice(found, count)], notes


@pytest.fixture(scope="module")
def part() -> bytes:
    """25 frames in half a second."""
    return streams.mpegts(streams.pictures(25), fps=50)


@pytest.fixture
def impatient(monkeypatch):
    """For tests of silence alone: a busy machine may be silent for as long."""
    monkeypatch.setattr(live, "_PAUSE", 0.05)
    monkeypatch.setattr(live, "_SILENCE", 0.7)


def levels(found: list[live.Frame]) -> np.ndarray:
    return np.array([frame.image.mean() for frame in found])


@pytest.mark.parametrize("http", [False, True], ids=["tcp", "http"])
def test_a_stream_that_stops_and_returns(part, monkeypatch, http):
    """Its timestamps begin anew, the seconds of its frames go on."""
    monkeypatch.setattr(live, "_PAUSE", 0.5)  # as long as the part, which plays faster where it was slow to open
    with streams.serving([part, part[: len(part) // 2], part], http=http) as address:
        found, notes = frames(address, 60)
    seconds = np.array([frame.seconds for frame in found])
    breaks = [place for place, frame in enumerate(found) if not frame.follows]
    assert len(breaks) == 3 and breaks[:2] == [0, 25] and 30 < breaks[2] < 40
    assert np.all(np.diff(seconds) > 0) and seconds[24] == pytest.approx(0.48) and seconds[25] > 0.49
    assert np.allclose(np.delete(np.diff(seconds), np.array(breaks[1:]) - 1), 0.02)
    np.testing.assert_allclose(levels(found)[:20], levels(found)[breaks[2] :][:20], atol=1)
    assert [note.partition(": ")[2].partition(" (")[0] for note in notes] == [
        "it has broken off" if http else "it has ended; opened again in 0.5 s",  # without a length of the whole
        "open again",
    ] * 2
    assert found[0].rate == 50


@pytest.mark.slow
def test_a_stream_over_udp_may_begin_later(impatient):
    """And until then nothing is said twice."""
    whole = streams.mpegts(streams.pictures(50), fps=50)
    with streams.sending([b"", whole], seconds=(0, 1), pause=2.5) as address:
        found, notes = frames(address, 20)
    assert len(found) == 20
    assert notes == [f"{address}: nothing has come for 0.7 s; opened again in 0.05 s", f"{address}: open now"]


def test_a_camera_over_rtsp(part, monkeypatch):
    monkeypatch.setattr(live, "_PAUSE", 0.05)
    with streams.playing([part, part]) as address:
        found, notes = frames(address, 30)
    first, again = (place for place, frame in enumerate(found) if not frame.follows)
    assert notes[-1] == f"{address}: open again" and (first, len(found)) == (0, 30) and 20 < again <= 25
    np.testing.assert_allclose(levels(found)[:5], levels(found)[again : again + 5], atol=1)


def test_a_stream_over_udp_that_stops_and_returns(impatient):
    """It is joined anywhere; what does not decode before the first keyframe is passed over."""
    first, second = (streams.mpegts(streams.pictures(count), fps=50) for count in (50, 100))
    with streams.sending([first[188 * 40 :], second], seconds=(1, 2), pause=1) as address:
        found, notes = frames(address, 60)
    seconds = np.array([frame.seconds for frame in found])
    assert np.all(np.diff(seconds) > 0) and 1 < seconds[-1] < 5
    assert f"{address}: nothing has come for 0.7 s; opened again in 0.05 s" in notes and notes[-1].endswith(
        "open again"
    )


@pytest.mark.parametrize(
    ("first_start", "second_start", "breaks"),
    [(30.0, 0.0, 2), (30.0, 60.0, 2), (95_443.5, 0.3, 1)],
    ids=["back", "on", "over the end of their 33 bits"],
)
def test_timestamps_may_jump(tmp_path, first_start, second_start, breaks):
    """As where a sender starts anew, or its clock overflows after 26.5 hours."""
    path = tmp_path / "jumps.ts"
    images = streams.pictures(25)
    parts = streams.mpegts(images, fps=50, start=first_start), streams.mpegts(images, fps=50, start=second_start)
    path.write_bytes(b"".join(parts))
    found, notes = frames(path)
    seconds = np.array([frame.seconds for frame in found])
    assert len(found) == 50 and not notes
    assert np.all(np.diff(seconds) >= 0) and seconds[-1] < 2
    assert sum(not frame.follows for frame in found) == breaks


def test_a_file_is_played_at_its_own_speed(tmp_path, part):
    path = tmp_path / "a.ts"
    path.write_bytes(part)
    begin = time.monotonic()
    found, _ = frames(path, short_side=16)
    assert 0.45 < time.monotonic() - begin < 10 and len(found) == 25
    assert {frame.image.shape for frame in found} == {(16, 20, 3)}
    arrived = np.array([frame.arrived for frame in found])
    assert np.median(np.diff(arrived)) < 0.1, "of 0.02; a busy machine may be late now and then"
    found, _ = frames(path, fps=100.0)
    assert [frame.seconds for frame in found] == pytest.approx(np.arange(25) / 100) and found[0].rate == 100


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_waited_for_and_ends(tmp_path, part):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    threading.Timer(0.3, path.write_bytes, [part]).start()
    found, notes = frames(path)
    assert len(found) == 25 and not notes


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_who_waits_for_a_pipe_can_be_stopped(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    stream = reading(tmp_path / "pipe")
    threading.Timer(0.2, stream.stop).start()
    begin = time.monotonic()
    with contextlib.suppress(VideoError):
        assert not [*stream.frames()]
    assert time.monotonic() - begin < 5


@pytest.fixture
def served(tmp_path, part):
    """The address of a folder over HTTP, and the folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (tmp_path / "a.ts").write_bytes(part)
        yield f"http://127.0.0.1:{server.server_port}", tmp_path
        server.shutdown()


PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("name", ["a.ts", "list.m3u8"])
def test_a_recording_over_http_ends(served, name):
    address, folder = served
    (folder / "list.m3u8").write_text(PLAYLIST.format("a.ts"))
    found, notes = frames(f"{address}/{name}")
    assert len(found) == 25 and not notes


def test_a_playlist_opens_no_file(served):
    """What the network names stays on the network."""
    address, folder = served
    (folder / "list.m3u8").write_text(PLAYLIST.format(f"file://{folder}/a.ts"))
    with pytest.raises(VideoError):
        frames(f"{address}/list.m3u8")


def test_a_server_that_says_nothing(impatient):
    with streams.serving([b""], silent=True) as address, pytest.raises(VideoError, match="nothing has come for 0.7 s"):
        frames(address)


def test_a_stream_that_falls_silent(part, impatient):
    notes: list[str] = []

    def say(note: str) -> None:
        notes.append(note)
        stream.stop()

    with streams.serving([part, part], silent=True) as address:
        stream = reading(address, say=say)
        assert 24 <= len([*stream.frames()]) <= 25
    assert notes == [f"{address}: nothing has come for 0.7 s; opened again in 0.05 s"]


def test_a_file_without_times_needs_a_rate(tmp_path):
    """Its frames come as fast as they decode, which is no time of the stream's."""
    with av.open(str(tmp_path / "a.h264"), "w") as container:
        stream = container.add_stream("libx264", rate=50)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in streams.pictures(10, (48, 64)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    with pytest.raises(UserError, match="a.h264: its frames have no times: say how many there are to a second"):
        frames(tmp_path / "a.h264")
    found, _ = frames(tmp_path / "a.h264", fps=100)
    assert [frame.seconds for frame in found] == pytest.approx([place / 100 for place in range(10)])


def test_what_is_no_stream(tmp_path, served):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "a.txt").write_text("no video\n" * 100)
    (tmp_path / "list.m3u8").write_text(PLAYLIST.format("a.ts"))
    for source, message in {
        tmp_path / "a.png": "a.png: a single picture: expected a video that goes on",
        f"{served[0]}/a.png": "a.png: a single picture: expected a video that goes on",
        tmp_path / "a.txt": "a.txt: not a readable video",
        tmp_path / "list.m3u8": "not a readable video .text that may name others",
        f"{served[0]}/a.mp4": r"a.mp4: cannot be opened .Server returned 404 Not Found.*: is a stream sent there",
        "tcp://127.0.0.1:9": "tcp://127.0.0.1:9: cannot be opened .Connection refused.: is a stream sent there",
        "rtsp://me:secret@127.0.0.1:9/a": r"rtsp://me:\*\*\*@127.0.0.1:9/a: cannot be opened",
    }.items():
        with pytest.raises(VideoError, match=message):
            frames(source)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch.mp4", "nosuch.mp4: No such file or directory; expected a camera"),
        ("ftp://host/a.mp4", "ftp://host/a.mp4: not an address of a stream; expected a camera"),
        ("file:///etc/passwd", "not an address of a stream"),
        ("rtsp://", "rtsp://: not an address of a stream"),
        ("/", "/: a folder; expected a camera"),
        ("", "nothing.*; expected a camera"),
        (None, "got NoneType: expected a camera"),
        pytest.param(99, "/dev/video99: no such camera; those here: ",
                     marks=pytest.mark.skipif(sys.platform != "linux", reason="cameras are files on Linux")),
    ],
)  # fmt: skip
def test_what_is_no_source(name, message):
    with pytest.raises(UserError, match=message):
        live.find(name)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_a_device_that_is_no_camera():
    with pytest.raises(VideoError, match="/dev/zero: cannot be opened .*: is it a camera?"):
        frames("/dev/zero")
