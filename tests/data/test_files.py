"""Single videos as they are named on a command line."""

import os

import pytest

from jax_video.data.manifest import Manifest
from jax_video.data.sources import files, motions, prepared
from jax_video.errors import UserError


def test_folders_in_folders_without_end_are_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(450):
        os.mkdir("a")
        os.chdir("a")
    with pytest.raises(UserError, match="is in more than 400 folders below"):
        files.named([str(tmp_path)])


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


def test_pictures_beside_videos_are_previews(tmp_path, monkeypatch):
    for name in (
        "a/x.mp4",
        "a/thumb_1.jpg",
        "a/thumb_2.jpg",
        "b/sub/y.mp4",
        "b/1.jpg",
        "b/2.jpg",
        "c/1.jpg",
        "c/2.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert files.named(["a", "b", "c"]) == ["a/x.mp4", "b/sub/y.mp4", "c"]


def test_a_prepared_set_is_read_by_name_manifest_or_folder(tmp_path, monkeypatch):
    path = motions.make(tmp_path / "cache", train=8, val=0, test=0, frames=2, width=16, height=16)
    manifest = Manifest.read(path)
    assert prepared.read(path) == prepared.read(str(path.parent)) == manifest
    monkeypatch.setattr(motions, "make", lambda *_: path)
    assert prepared.read("motions") == manifest
