import collections
import dataclasses
import os
import pathlib
import re

import numpy as np
import pytest

from jax_video.data.decoding import probing, video
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions, prepared
from jax_video.errors import UserError

PAIRS = list(zip(motions.CLASSES[::2], motions.CLASSES[1::2], strict=True))
SMALL = {"train": 16, "val": 8, "test": 8, "frames": 8, "width": 32, "height": 24}


def render(seed: int, motion: str, frames: int = 32) -> np.ndarray:
    scene = motions.draw(np.random.default_rng(seed))
    return motions.render(scene, motion, frames=frames, width=80, height=64)


@pytest.mark.parametrize("motion, opposite", PAIRS)
def test_the_opposite_motion_is_the_same_video_in_reverse(motion, opposite):
    for seed in range(3):
        np.testing.assert_array_equal(render(seed, motion), render(seed, opposite)[::-1])


@pytest.mark.parametrize("motion", motions.CLASSES)
def test_reversing_survives_the_file(motion, tmp_path):
    frames = render(1, motion)
    motions.encode(tmp_path / "forward.mp4", frames)
    motions.encode(tmp_path / "backward.mp4", frames[::-1])
    forward, backward = (video.decode(tmp_path / f"{name}ward.mp4", range(32)) for name in ("for", "back"))
    np.testing.assert_array_equal(forward, backward[::-1])
    assert np.abs(forward.astype(int) - frames).mean() < 12


def displacement(video: np.ndarray, motion: str) -> float:
    """How far the pattern moves per frame along what the class is named after, by brute force over warps."""
    height, width = video.shape[1:3]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    direction = {
        "left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0), "clockwise": (x / 25, -y / 25),
        "counterclockwise": (-x / 25, y / 25), "growing": (y / 25, x / 25), "shrinking": (-y / 25, -x / 25),
    }[motion]  # fmt: skip
    gray = video.mean(-1)
    dy, dx = np.gradient(gray[15])
    along = dy * direction[0] + dx * direction[1]
    # Brightness constancy: I_t = -v · grad I; least squares for the speed along the field.
    inside = np.s_[10:-10, 10:-10]
    change = (gray[16] - gray[14]) / 2
    return -(along * change)[inside].sum() / (along**2)[inside].sum()


@pytest.mark.parametrize("motion", motions.CLASSES)
def test_each_class_moves_as_it_is_called(motion):
    for seed in range(5):
        speed = motions.draw(np.random.default_rng(seed)).speed
        assert 1 <= speed <= 2
        assert displacement(render(seed, motion), motion) == pytest.approx(speed, rel=0.35)


def test_every_frame_of_every_class_has_the_same_distribution():
    """Statistics of single frames: the same for first, middle and last frame, for all classes, within their errors."""
    statistics = {}
    for motion in motions.CLASSES:
        videos = np.stack(
            [render(seed + 1000 * motions.CLASSES.index(motion), motion)[[0, 16, 31]] for seed in range(25)]
        )
        gray = videos.mean(-1)  # [N, 3, H, W]
        coarse = np.abs(np.diff(gray, axis=3)).mean((2, 3)) / gray.std((2, 3))  # Fineness of the pattern.
        tilt = np.abs(np.diff(gray, axis=2)).mean((2, 3)) / np.abs(np.diff(gray, axis=3)).mean((2, 3))
        center = np.abs(gray[:, :, 24:40, 30:50] - gray.mean((2, 3), keepdims=True)).mean((2, 3)) / gray.std((2, 3))
        for i, place in enumerate(("first", "middle", "last")):
            statistics[motion, place] = np.stack([coarse[:, i], tilt[:, i], center[:, i]])  # [3, N]
    everything = np.concatenate(list(statistics.values()), axis=1)
    for key, values in statistics.items():
        error = everything.std(1) / np.sqrt(values.shape[1])
        assert (np.abs(values.mean(1) - everything.mean(1)) < 4 * error).all(), key


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> pathlib.Path:
    return motions.make(tmp_path_factory.mktemp("cache"), **SMALL)


def test_its_manifest_forbids_flipping_and_is_otherwise_as_ever(small):
    """Runs that were trained on it before go on: the hash is of the version that did not know of flipping."""
    manifest = Manifest.read(small)
    assert not manifest.flip
    assert manifest.hash == "258367db42016726120c4722886df759e43992d980ded2ee5fed379fc373cb8f"


def test_a_set_that_an_older_version_rendered_is_not_flipped_either(tmp_path):
    path = motions.make(tmp_path, **SMALL)
    path.write_text(re.sub(', "flip": false, "crc32": [0-9]+', "", path.read_text(), count=1))
    assert Manifest.read(path).flip
    read = motions.read(tmp_path, **SMALL)
    assert not read.flip and read == dataclasses.replace(Manifest.read(path), flip=False)
    assert prepared.read(path) == prepared.read(path.parent) == read, "by its place, as --config.data.manifest names it"


def test_the_set_is_balanced_and_its_files_are_what_the_manifest_says(small):
    manifest = Manifest.read(small)
    assert (manifest.name, manifest.classes) == ("motions", motions.CLASSES)
    counts = collections.Counter((video.split, video.label) for video in manifest.videos)
    assert counts == {(split, label): SMALL[split] // 8 for split in ("train", "val", "test") for label in range(8)}
    for entry in manifest.videos:
        found = probing.probe(f"{manifest.root}/{entry.path}")
        assert (found.frames, found.fps, found.width, found.height) == (
            entry.frames,
            entry.fps,
            entry.width,
            entry.height,
        )
        assert entry.path.split("/")[:2] == [entry.split, motions.CLASSES[entry.label]]


def test_twins_share_their_frames_and_splits_share_no_scene(small):
    manifest = Manifest.read(small)
    by_source = collections.defaultdict(list)
    for entry in manifest.videos:
        by_source[entry.source].append(entry)
    assert len(by_source) == len(manifest.videos) // 2
    middles = []
    for twins in by_source.values():
        assert twins[0].split == twins[1].split and (twins[0].label ^ 1) == twins[1].label
        frames, reverse = (video.decode(f"{manifest.root}/{twin.path}", range(8)) for twin in twins)
        np.testing.assert_array_equal(frames, reverse[::-1])
        middles.append(frames[4].tobytes())
    assert len(set(middles)) == len(middles)


def test_the_same_seed_gives_the_same_files(small, tmp_path):
    again = motions.make(tmp_path / "again", **SMALL)
    assert Manifest.read(again).hash == Manifest.read(small).hash
    for entry in Manifest.read(small).videos[::7]:
        assert (again.parent / entry.path).read_bytes() == (small.parent / entry.path).read_bytes()
    other = motions.make(tmp_path / "other", **SMALL, seed=1)
    path = Manifest.read(small).videos[0].path
    assert (other.parent / path).read_bytes() != (small.parent / path).read_bytes()


def test_it_is_rendered_once_and_another_recipe_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path))
    first = motions.make(**SMALL)
    assert first.is_relative_to(tmp_path)
    other = motions.make(**SMALL | {"train": 8})
    assert other != first and first.exists()
    monkeypatch.setattr(motions, "render", None)  # Rendering again would fail.
    assert motions.make(**SMALL) == first


def test_a_stop_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    calls = []
    original = motions.encode

    def encode(path, frames):
        calls.append(path)
        if len(calls) == 5:
            raise KeyboardInterrupt
        original(path, frames)

    monkeypatch.setattr(motions, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        motions.make(tmp_path, **SMALL)
    assert os.listdir(tmp_path) == []


def test_of_two_that_start_together_one_wins(tmp_path, monkeypatch):
    original = motions.encode

    def encode(path, frames):
        monkeypatch.setattr(motions, "encode", original)
        motions.make(tmp_path, **SMALL)  # Someone else is faster.
        original(path, frames)

    monkeypatch.setattr(motions, "encode", encode)
    manifest = motions.make(tmp_path, **SMALL)
    assert Manifest.read(manifest).videos
    assert os.listdir(tmp_path) == [manifest.parent.name]


def test_errors(tmp_path):
    with pytest.raises(UserError, match="multiples of 8, got .*'train': 12"):
        motions.make(tmp_path, train=12)
    with pytest.raises(UserError, match="1 to 32 frames of even size, got 33 of 80x64"):
        motions.make(tmp_path, frames=33)
    with pytest.raises(UserError, match="got 8 of 31x24"):
        motions.make(tmp_path, **SMALL | {"width": 31})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to .*set JAX_VIDEO_CACHE"):
        motions.make(tmp_path / "file", **SMALL)


def test_a_set_whose_manifest_is_damaged_is_rendered_again(tmp_path, capsys):
    expected = motions.read(tmp_path, **SMALL)
    path = motions.make(tmp_path, **SMALL)
    path.write_bytes(path.read_bytes()[:1000])
    assert motions.read(tmp_path, **SMALL) == expected
    assert "It is rendered again." in capsys.readouterr().err
