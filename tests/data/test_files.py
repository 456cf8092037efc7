"""Single videos as they are named on a command line."""

import concurrent.futures
import os

import av
import numpy as np
import pytest

from jax_video.data import reader
from jax_video.data.decoding import workers
from jax_video.data.manifest import Manifest
from jax_video.data.sources import files, motions, prepared
from jax_video.errors import UserError


def test_those_that_can_be_read_and_why_not_the_others(tmp_path, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), np.uint8)
    good = [tmp_path / name for name in ("b.mp4", "a.mp4")]
    for number, path in enumerate(good):
        motions.encode(path, frames[number:])
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")  # to open it would take for ever
    monkeypatch.chdir(tmp_path)
    paths = [str(good[0]), "text.mp4", "none.mp4", "circle.mp4", "pipe.mp4", "a.mp4"]
    found, broken = files.find(paths, ("run", "walk"))
    assert found.classes == ("run", "walk") and [(v.path, v.frames, v.split, v.label) for v in found.videos] == [
        (str(good[0]), 5, "test", None),
        (str(good[1]), 4, "test", None),
    ]
    assert list(broken) == paths[1:5] and broken["none.mp4"] == "no such file"
    assert broken["text.mp4"].startswith("not a readable video") and "in a circle" in broken["circle.mp4"]
    assert broken["pipe.mp4"] == "not a file: a pipe, a socket or a device"
    monkeypatch.chdir("/")  # paths are absolute
    assert reader.decode(found, found.videos[1], np.array([3]), short_side=None).shape == (1, 32, 48, 3)


def test_folders_in_folders_without_end_are_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(450):
        os.mkdir("a")
        os.chdir("a")
    with pytest.raises(UserError, match="is in more than 400 folders below"):
        files.named([str(tmp_path)])


def test_a_file_that_never_ends_costs_only_its_time(tmp_path):
    """Also where a thread asks, which may not say how signals are handled."""
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), np.uint8)
    motions.encode(tmp_path / "good.mp4", frames)
    with av.open(str(tmp_path / "good.mp4")) as good, av.open(str(tmp_path / "endless.mkv"), "w") as target:
        stream = target.add_stream_from_template(good.streams.video[0])
        for packet in good.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    os.truncate(tmp_path / "endless.mkv", 2**40)  # the reader looks for the next element in a terabyte of zeros
    paths = [str(tmp_path / name) for name in ("endless.mkv", "good.mp4")]
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        assert thread.submit(files.find, paths[:1], timeout=0.5).result()[1] == {paths[0]: "not done after 0.5 s"}
    found, broken = files.find(paths[1:])
    here, _ = files.find(paths[1:], timeout=None)
    assert found == here and [row.frames for row in found.videos] == [5] and not broken


def test_a_glob_of_folders_that_lead_in_a_circle_ends(tmp_path, monkeypatch):
    for name in ("a/b/x.mp4", "a/y.mp4", "a/.hidden/z.mp4", "w.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for place in ("a/one", "a/two", "a/b/three"):
        (tmp_path / place).symlink_to(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert files.named(["**/*.mp4"]) == ["a/b/x.mp4", "a/y.mp4", "w.mp4"]
    assert files.named(["**"]) == ["a/b/x.mp4", "a/y.mp4", "w.mp4"]
    assert files.named(["a/**/x.mp4", "**/b/**/*.mp4"]) == ["a/b/x.mp4", "a/b/three/y.mp4"]
    assert files.named([f"{tmp_path}/*/**/y*"]) == [f"{tmp_path}/a/y.mp4"]


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "5"])
def test_a_timeout_is_a_number_of_seconds(timeout):
    with pytest.raises(UserError, match="timeout is .*: expected seconds"):
        files.find(["a.mp4"], timeout=timeout)


def test_files_folders_and_globs(tmp_path, monkeypatch):
    for name in ("a/x.mp4", "a/b/y.avi", "a/notes.txt", "p/1.jpg", "p/2.jpg", "[1].mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert files.named(["a", "p", "[1].mp4", "*/*.mp4", "a/notes.txt"]) == [
        "a/b/y.avi",
        "a/x.mp4",
        "p",
        "[1].mp4",
        "a/notes.txt",
    ]
    for arguments, message in (
        ([], "no video given"),
        (["a", "c*"], r"c\*: no such file, or no video in that folder"),
    ):
        with pytest.raises(UserError, match=message):
            files.named(arguments)


def test_a_prepared_set_is_read_by_name_manifest_or_folder(tmp_path, monkeypatch):
    path = motions.make(tmp_path / "cache", train=8, val=0, test=0, frames=2, width=16, height=16)
    manifest = Manifest.read(path)
    assert prepared.read(path) == prepared.read(str(path.parent)) == manifest
    monkeypatch.setattr(motions, "make", lambda *_: path)
    assert prepared.read("motions") == manifest


def test_a_file_that_goes_on_is_never_late(tmp_path, monkeypatch):
    """However long it is: its time counts from the last packet."""
    motions.encode(tmp_path / "a.mp4", np.zeros((40, 32, 32, 3), np.uint8))
    calls = []
    monkeypatch.setattr(workers, "go_on", lambda: calls.append(None))
    found, _ = files.find([str(tmp_path / "a.mp4")], timeout=None)
    assert found.videos[0].frames == 40 and len(calls) >= 40
