import dataclasses
import json
import os
import pathlib
import pickle
import re

import numpy as np
import pytest

from jax_video.data.manifest import MISSING, FrameIndex, Manifest, Packed, Video
from jax_video.errors import UserError, shown

VIDEOS = (
    Video("run/a 1.mp4", 0, "train", 30, 25.0, 64, 48, None, "anna"),
    Video("run/é中\u2028.mp4", 0, "val", 31, 29.97, 64, 48, None, "boris"),
    Video("jump/c.mp4", 1, "test", 0, 0.0, 0, 0, MISSING, "carla"),
    Video("jump/\udcff.mp4", 1, "test", 0, 0.0, 0, 0, "empty file", "carla"),  # A name that is not Unicode.
    Video("jump/e.mp4", 1, "test", 2, 0.0, 64, 48, None, "carla"),
    Video("loose.mp4", None, "train", 9, 25.0, 64, 48, None, "loose"),
    Video(
        "part.mp4",
        0,
        "val",
        9,
        25.0,
        64,
        48,
        None,
        "long",
        (1.2, 1.6),
        30,
        FrameIndex(99, 512, 1024, (0, 12, 60), 12345),
    ),
)


@pytest.fixture
def manifest(tmp_path):
    return Manifest("people", ("run", "jump"), str(tmp_path / "videos"), VIDEOS)


def test_round_trip(manifest, tmp_path):
    manifest.write(tmp_path / "lists" / "manifest.jsonl")
    read = Manifest.read(tmp_path / "lists" / "manifest.jsonl")
    assert read == manifest
    assert read.hash == manifest.hash
    assert os.listdir(tmp_path / "lists") == ["manifest.jsonl"]  # No temporary file is left.


def test_a_root_below_the_manifest_moves_with_it(manifest, tmp_path):
    (tmp_path / "set").mkdir()
    inside = dataclasses.replace(manifest, root=str(tmp_path / "set" / "videos"))
    inside.write(tmp_path / "set" / "manifest.jsonl")
    (tmp_path / "set").rename(tmp_path / "moved")
    moved = Manifest.read(tmp_path / "moved" / "manifest.jsonl")
    assert moved.root == str(tmp_path / "moved" / "videos")
    assert moved.hash == inside.hash


WAYS = {  # from data/mine: the videos' folder and the manifest's, where the first is, and how it is stored if relative
    "elsewhere": ("../../videos", ".", "videos", None),
    "below": ("../mine/videos", ".", "data/mine/videos", "videos"),
    "below a manifest elsewhere": ("videos", "../../data/mine", "data/mine/videos", "videos"),
    "a name that begins with dots": ("..videos", ".", "data/mine/..videos", "..videos"),
    "behind a link": ("../link/../videos", ".", "other/videos", None),
    "below a manifest behind a link": ("../../other/videos", "../link/..", "other/videos", "videos"),
    "a link itself": ("linked", ".", "other/deep", "linked"),
}


@pytest.mark.parametrize("way", WAYS)
def test_any_way_to_the_videos_is_found_again(way, manifest, tmp_path, monkeypatch):
    root, folder, place, stored = WAYS[way]
    for each in ("videos", "data/mine/videos", "data/mine/..videos", "other/videos", "other/deep"):
        (tmp_path / each).mkdir(parents=True)
    (tmp_path / "data" / "link").symlink_to(tmp_path / "other" / "deep")
    (tmp_path / "data" / "mine" / "linked").symlink_to(tmp_path / "other" / "deep")
    monkeypatch.chdir(tmp_path / "data" / "mine")
    dataclasses.replace(manifest, root=root, flow=root).write(os.path.join(folder, "manifest.jsonl"))
    header = json.loads(pathlib.Path(folder, "manifest.jsonl").read_text(errors="surrogateescape").splitlines()[0])
    read = Manifest.read(os.path.join(folder, "manifest.jsonl"))
    for found, written in ((read.root, header["root"]), (read.flow, header["flow"])):
        assert os.path.samefile(found, tmp_path / place) and ".." not in pathlib.Path(found).parts
        assert written == (stored or os.path.realpath(tmp_path / place))


def test_where_keyframes_are_does_not_change_what_the_data_is(manifest, tmp_path):
    plain = dataclasses.replace(
        manifest, videos=tuple(dataclasses.replace(video, index=None) for video in manifest.videos)
    )
    assert plain.hash == manifest.hash
    shifted = dataclasses.replace(manifest.videos[-1], first=31)
    assert dataclasses.replace(manifest, videos=(*manifest.videos[:-1], shifted)).hash != manifest.hash
    plain.write(tmp_path / "manifest.jsonl")
    assert "index" not in (tmp_path / "manifest.jsonl").read_text(errors="surrogateescape")
    assert Manifest.read(tmp_path / "manifest.jsonl") == plain


def test_a_packed_set_says_how_it_lies(manifest, tmp_path):
    packed = dataclasses.replace(manifest, packed=Packed("frames", 8, 256, 90))
    packed.write(tmp_path / "manifest.jsonl")
    assert Manifest.read(tmp_path / "manifest.jsonl") == packed


def test_flow_is_stored_like_the_root_and_may_be_left_out(manifest, tmp_path):
    path = tmp_path / "set" / "manifest.jsonl"
    for folder in (tmp_path / "set" / "flow", tmp_path / "elsewhere"):
        with_flow = dataclasses.replace(manifest, flow=str(folder))
        with_flow.write(path)
        assert Manifest.read(path) == with_flow
        assert with_flow.hash == manifest.hash
    dataclasses.replace(manifest, flow=str(tmp_path / "set" / "flow")).write(path)
    (tmp_path / "set").rename(tmp_path / "moved")
    path = tmp_path / "moved" / "manifest.jsonl"
    assert Manifest.read(path).flow == str(tmp_path / "moved" / "flow")

    header, *rows = path.read_text(encoding="utf-8", errors="surrogateescape").removesuffix("\n").split("\n")
    old = json.dumps({key: value for key, value in json.loads(header).items() if key != "flow"})
    path.write_text("\n".join([old, *rows]) + "\n", encoding="utf-8", errors="surrogateescape")
    assert Manifest.read(path) == manifest


def test_the_hash_is_of_the_content_but_not_of_the_place(manifest):
    assert dataclasses.replace(manifest, root="/elsewhere").hash == manifest.hash
    others = [
        dataclasses.replace(manifest, name="others"),
        dataclasses.replace(manifest, classes=("jump", "run")),
        dataclasses.replace(manifest, videos=VIDEOS[::-1]),
        *(
            dataclasses.replace(manifest, videos=(dataclasses.replace(VIDEOS[0], **change), *VIDEOS[1:]))
            for change in (
                {"path": "b"},
                {"label": 1},
                {"split": "val"},
                {"frames": 31},
                {"fps": 24.0},
                {"source": "x"},
            )
        ),
    ]
    assert len({manifest.hash, *(other.hash for other in others)}) == len(others) + 1


WRONG_LABELS = [-1, 2, 400, True, 1.0, float("nan"), "run", np.int64(1), (0,)]


@pytest.mark.parametrize("label", WRONG_LABELS)
@pytest.mark.parametrize("error", [None, MISSING])
def test_a_label_that_is_of_no_class_is_refused_however_the_set_is_made(label, error, manifest):
    wrong = dataclasses.replace(VIDEOS[1], label=label, error=error)
    videos = (*VIDEOS[2:], wrong, *VIDEOS[:1])
    expected = re.escape(f"the label of {shown(wrong.path)} of 'people' is {label!r}: expected a number from 0 to 1")
    with pytest.raises(UserError, match=expected):
        Manifest("people", ("run", "jump"), "/videos", videos)
    with pytest.raises(UserError, match=expected):
        dataclasses.replace(manifest, videos=videos)


@pytest.mark.parametrize("split", ["validation", "Test", ""])
def test_a_split_that_there_is_not_is_refused_however_the_set_is_made(split, manifest):
    """Its videos would be in none."""
    videos = (dataclasses.replace(manifest.videos[0], split=split), *manifest.videos[1:])
    with pytest.raises(
        UserError, match=rf"the split of {manifest.videos[0].path} .* is '{split}': expected train, val"
    ):
        dataclasses.replace(manifest, videos=videos)


def test_classes_that_are_too_few_are_refused(manifest):
    with pytest.raises(UserError, match="the label of jump/c.mp4 of 'people' is 1: expected a number from 0 to 0"):
        dataclasses.replace(manifest, classes=("run",))
    with pytest.raises(UserError, match="the label of run/a 1.mp4 of 'people' is 0: expected None, without classes"):
        dataclasses.replace(manifest, classes=())


def test_splits_may_need_labels(manifest):
    manifest.check_labels("val", "test")
    with pytest.raises(UserError, match="1 of the 7 videos of 'people' have no label, loose.mp4 first"):
        manifest.check_labels("train")


def test_a_worker_does_not_look_at_labels_again(manifest, monkeypatch):
    data = pickle.dumps(manifest)
    monkeypatch.setattr(Manifest, "check_labels", None)
    assert pickle.loads(data) == manifest


def test_select_gives_the_readable_videos_of_a_split_and_their_indices(manifest):
    assert manifest.select("train") == [(0, VIDEOS[0]), (5, VIDEOS[5])]
    assert manifest.select("test") == [(4, VIDEOS[4])]
    with pytest.raises(UserError, match="unknown split 'dev'; known: train, val, test"):
        manifest.select("dev")


def test_an_interrupted_write_leaves_the_old_file(manifest, tmp_path, monkeypatch):
    path = tmp_path / "manifest.jsonl"
    manifest.write(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        dataclasses.replace(manifest, name="new").write(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["manifest.jsonl"]


def edit(line: int, **changes):
    """A change to one line: keys to set, or to delete where the value is ..."""

    def apply(lines):
        row = json.loads(lines[line]) | changes
        lines[line] = json.dumps({key: value for key, value in row.items() if value is not ...})
        return lines

    return apply


@pytest.mark.parametrize(
    "change, message",
    [
        (edit(0, format=3), r":1: not a manifest of format 1 or 2 \(found format 3\)"),
        (edit(0, format=2), r":1: format 2 does not fit the labels"),
        (lambda lines: ["hello"], r":1: not JSON \(Expecting value at column 1\)"),
        (lambda lines: ["[1, 2]"], ":1: it is a list, expected an object"),
        (edit(0, classes=["run", "run"]), ":1: class names must be different"),
        (edit(0, root=...), ":1: 'root' is missing"),
        (edit(0, flow=3), ":1: 'flow' is 3, expected str or null"),
        (lambda lines: lines[:-1], "the header promises 7 videos, 6 follow"),
        (lambda lines: [*lines[:-1], lines[-1][:30]], r":8: not JSON"),
        (edit(3, split="dev"), ":4: split is 'dev', expected one of train, val, test"),
        (edit(1, label=2), ":2: label is 2, but there are 2 classes"),
        (edit(1, label="run"), ":2: 'label' is 'run', expected int"),
        (edit(1, label=True), ":2: 'label' is True"),
        (edit(1, frames=0), ":2: a readable video has frames, width and height of at least 1"),
        (edit(1, frames="9"), ":2: 'frames' is '9', expected int;"),
        (edit(1, fps=...), ":2: 'fps' is missing"),
        (edit(1, stars=5), r":2: unknown keys \['stars'\]"),
        (edit(2, path="run/a 1.mp4"), "1 videos are listed more than once, e.g. 'run/a 1.mp4'"),
        (edit(1, frames=29), "does not match its hash"),
    ],
)
def test_a_damaged_manifest_is_refused_with_the_line(change, message, manifest, tmp_path):
    path = tmp_path / "manifest.jsonl"
    manifest.write(path)
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").removesuffix("\n").split("\n")
    path.write_text("\n".join(change(lines)) + "\n", encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=message) as caught:
        Manifest.read(path)
    assert str(path) in str(caught.value)


def test_a_missing_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match=r"No such file.*python -m jax_video.prepare"):
        Manifest.read(tmp_path / "manifest.jsonl")
    with pytest.raises(UserError, match="Is a directory"):
        Manifest.read(tmp_path)
