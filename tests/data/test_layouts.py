"""Folders as people lay them out: what is a class, what a split, what neither; and videos that are there twice."""

import collections
import pathlib

import hypothesis
import pytest
from hypothesis import strategies

from jax_video.data.sources import folder, lists, splits, unlabelled
from jax_video.errors import UserError


def touch(root: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def in_splits(*folders: str, before: str = "", classes: str = "ab") -> list[str]:
    return [f"{before}{split}/{name}/{split}{i}.mp4" for split in folders for name in classes for i in range(3)]


def counts(listing) -> dict[str, int]:
    return dict(collections.Counter(video.split for video in listing.videos))


JUNK = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "#recycle", ".ipynb_checkpoints", ".Trash-1000", "@EADIR")


@pytest.mark.parametrize("beside", [*JUNK, "annotations", "Annotations", "metadata"])
def test_what_lies_beside_splits_and_classes_is_no_class_and_is_named(tmp_path, beside):
    """With and without videos in it; at the top, and beside the classes."""
    for number, places in enumerate(([""], ["", "train/", "val/"], ["train/a/"] if beside in JUNK else ["train/"])):
        root = touch(tmp_path / str(number), *in_splits("train", "val"))
        touch(root, *(f"{place}{beside}/{name}" for place in places for name in ("x.mp4", "a/y.mp4", "notes.txt")))
        listing = folder.find(root)
        assert listing.classes == ("a", "b") and counts(listing) == {"train": 6, "val": 6}
        assert any(note.startswith("ignored") and beside in note for note in listing.notes), listing.notes
    root = touch(tmp_path / "classes", *(f"{name}/{i}.mp4" for name in "ab" for i in range(3)), f"{beside}/x.mp4")
    assert folder.find(root).classes == ("a", "b")
    bare = touch(tmp_path / "empty", *in_splits("train", "val"), f"{beside}/notes.txt")
    assert folder.find(bare).classes == ("a", "b")
    assert len(unlabelled.find(root).videos) == (6 if beside in JUNK else 7)  # of no labels nothing is an annotation


@pytest.mark.parametrize(
    "names",
    [
        {"train": "train", "dev": "val"},
        {"train": "train", "eval": "test"},
        {"train": "train", "eval": "val", "test": "test"},
        {"train": "train", "dev": "val", "eval": "test"},
        {"train_256": "train", "val_256": "val"},
        {"train_256": "train", "val_320x240": "val"},
        {"videos_train": "train", "videos_val": "val", "videos_test": "test"},
        {"training_set": "train", "validation-set": "val", "test videos": "test"},
        {"TrainSet": "train", "TestSet": "test"},
        {"trainset": "train", "testset": "test"},
        {"01_Training": "train", "02_Validation": "val"},
        {"ucf_train": "train", "ucf_test": "test"},
        {"train_part1": "train", "train_part2": "train", "val": "val"},
        {"trainval": "train", "test": "test"},
    ],
)
@pytest.mark.parametrize("before", ["", "kinetics/", "data/k400/"])
def test_folders_of_splits_in_usual_spellings(tmp_path, names, before):
    listing = folder.find(touch(tmp_path, *in_splits(*names, before=before)))
    assert listing.classes == ("a", "b")
    said = "\n".join(listing.notes)
    assert all(f"{name} for {split}" in said for name, split in names.items()) and (before.rstrip("/") in said)
    for video in listing.videos:
        expected = names[video.path.removeprefix(before).split("/")[0]]
        assert video.split == expected or (expected, video.split) == ("train", "val") and "val" not in names.values()


def test_a_folder_around_all_others_is_seen_through_and_named(tmp_path):
    names = [f"{name}/{i}.mp4" for name in "abc" for i in range(3)]
    for before in ("UCF-101/", "UCF-101/UCF-101/"):
        root = touch(tmp_path / before.replace("/", "_"), *(f"{before}{name}" for name in names), "demo.mp4")
        listing = folder.find(root)
        assert listing.classes == ("a", "b", "c")
        assert f"seen through, as a folder around all others: {before.rstrip('/')}" in listing.notes
    inside = touch(tmp_path / "inside", *(f"{split}/videos/{name}" for split in ("train", "val") for name in names))
    assert (folder.find(inside).classes, counts(folder.find(inside))) == (("a", "b", "c"), {"train": 9, "val": 9})
    stray = touch(tmp_path / "stray", *in_splits("train", "val", before="kinetics/"), "demo.mp4", "kinetics/demo.mp4")
    assert counts(folder.find(stray)) == {"train": 6, "val": 6}
    one = touch(tmp_path / "one", "walk/1.mp4", "walk/2.mp4", "walk/more/3.mp4")
    assert folder.find(one).classes == ("walk",)


def test_splits_in_class_folders(tmp_path):
    names = [f"{name}/{split}/{i}.mp4" for name in ("walk", "run") for split in ("train", "test") for i in range(3)]
    listing = folder.find(touch(tmp_path, *names))
    assert listing.classes == ("run", "walk")
    assert all(("test" in video.path) == (video.split == "test") for video in listing.videos)


REFUSED = {
    "extras beside splits": [*in_splits("train", "test"), "extras/a/1.mp4"],
    "flat extras beside splits": [*in_splits("train", "test"), "extras/1.mp4"],
    "test beside classes": ["a/1.mp4", "b/1.mp4", "test/a/2.mp4", "test/b/2.mp4"],
    "a split inside of a class": ["a/1.mp4", "b/1.mp4", "a/test/2.mp4"],
    "a class inside of a class": ["a/1.mp4", "b/1.mp4", "a/b/2.mp4"],
    "groups in classes": [f"{name}/g{group}/{i}.mp4" for name in "ab" for group in "12" for i in range(2)],
    "groups in classes in splits": [f"{s}/{name}/g1/{i}.mp4" for s in ("train", "val") for name in "ab" for i in "12"],
    "frames of frames": [f"{name}/v{i}/frames/{k}.jpg" for name in "ab" for i in range(2) for k in range(2)],
    "two sets": [*in_splits("train", "val", before="ucf/"), *in_splits("train", "val", before="hmdb/")],
    "classes like splits": in_splits("train_station", "test_tube"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_classes_that_hold_folders_of_videos_are_refused_with_what_was_found(tmp_path, kind):
    root = touch(tmp_path, *REFUSED[kind])
    with pytest.raises(UserError) as raised:
        folder.find(root)
    said = str(raised.value)
    for expected in ("holds folders of videos", "Found ", REFUSED[kind][-1].split("/")[0], "<class>/<video>", "train/"):
        assert expected in said
    assert "--class_depth=1" in said
    depth = 3 if kind in ("two sets", "groups in classes in splits") else 1
    listing = folder.find(root, class_depth=depth)
    assert {video.path.split("/")[depth - 1] for video in listing.videos} == set(listing.classes)


def test_the_user_says_how_deep_class_folders_are(tmp_path):
    root = touch(tmp_path, *(f"{who}/{name}/{i}.mp4" for who in ("anna", "boris") for name in "ab" for i in range(3)))
    with pytest.raises(UserError, match="anna has a, b; boris has a, b"):
        folder.find(root)
    assert folder.find(root, class_depth=1).classes == ("anna", "boris")
    assert folder.find(root, class_depth=2).classes == ("a", "b")
    for depth in (0, 3):
        with pytest.raises(
            UserError, match=f"--class_depth={depth}: no video in .*; found anna/a/0.mp4, boris/a/0.mp4"
        ):
            folder.find(root, class_depth=depth)
    split = touch(tmp_path / "split", *in_splits("train", "val"))
    assert counts(folder.find(split, class_depth=2)) == {"train": 6, "val": 6}
    assert folder.find(split, class_depth=1).classes == ("train", "val")
    names = [f"{name}/{split}/{split}{i}.mp4" for name in "ab" for split in ("train", "test") for i in range(3)]
    inside = touch(tmp_path / "inside", *names)
    assert counts(folder.find(inside, class_depth=1)) == {"train": 4, "val": 2, "test": 6}


def test_splits_that_a_given_depth_loses_are_named(tmp_path):
    root = touch(tmp_path, *in_splits("train", "test", "extra"))
    with pytest.raises(UserError, match="--class_depth=1 for the one in --videos, 2"):
        folder.find(root)
    listing = folder.find(root, class_depth=2)
    assert listing.classes == ("a", "b") and len(listing.videos) == 18
    assert any("warning: test, train are named as splits, and extra beside them not" in note for note in listing.notes)


def test_classes_that_are_called_like_splits_stay_classes(tmp_path):
    vehicles = touch(tmp_path / "vehicles", "train/1.mp4", "bus/1.mp4", "Test/1.mp4")
    assert folder.find(vehicles).classes == ("Test", "bus", "train")
    things = touch(tmp_path / "things", "train_station/1.mp4", "test_tube/1.mp4")
    assert folder.find(things).classes == ("test_tube", "train_station")
    flat = touch(tmp_path / "flat", "train_256/1.mp4", "val_256/1.mp4")
    with pytest.raises(
        UserError, match="no videos in class folders .*if train_256, val_256 are classes.*--class_depth"
    ):
        folder.find(flat)
    assert folder.find(flat, class_depth=1).classes == ("train_256", "val_256")


@hypothesis.given(strategies.lists(strategies.text(min_size=1, max_size=12), min_size=1, max_size=4, unique=True))
@hypothesis.settings(max_examples=50)
def test_any_names_are_splits_or_not_and_all_together(names):
    found = splits.of_folders(names)
    assert found == {} or (set(found) == set(names) and set(found.values()) <= {"train", "val", "test"})
    assert all(splits.of(name) in (None, "train", "val", "test") for name in names)


TWINS = {
    "a.mp4 and a.webm": (["a.mp4", "a.webm"], 1),
    "three": (["a.avi", "a.mp4", "a.MKV"], 1),
    "pictures": (["a.mp4", "a/img_1.jpg", "a/img_2.jpg"], 1),
    "pictures of a name with dots": (["a.b.avi", "a.b/1.jpg", "a.b/2.jpg"], 1),
    "pictures in a folder with an extension": (["a.mp4/1.jpg", "a.mp4/2.jpg", "a.avi"], 1),
    "like names": (["a.mp4", "a.b.mp4", "a.b/1.jpg", "a.b/2.jpg", "A.mp4", "a1.mp4", "a_1.mp4", "a 1.mp4"], 6),
    "other folders": (["a.mp4", "more/a.mp4"], 2),
}


@pytest.mark.parametrize("kind", TWINS)
def test_the_same_video_in_two_forms_is_taken_once_and_named(tmp_path, kind):
    names, expected = TWINS[kind]
    root = touch(tmp_path, *(f"run/{name}" for name in names), *(f"walk/{i}.mp4" for i in range(9)))
    listing = folder.find(root, fraction=0.4)
    taken = [video.path for video in listing.videos if video.path.startswith("run/")]
    assert len(taken) == expected == len(unlabelled.find(root).videos) - 9
    notes = [note for note in listing.notes if note.startswith("the same video in several forms")]
    assert bool(notes) == (kind != "other folders")
    if notes:
        assert f"beside {taken[0]}" in notes[0] or kind == "like names"
        assert (root / taken[0]).is_file()


def test_pictures_in_a_folder_of_the_split_beside_the_files(tmp_path):
    names = [f"{split}/{name}/{i}" for split in ("train", "val") for name in "ab" for i in range(3)]
    root = touch(tmp_path, *(f"videos_{name}.mp4" for name in names))
    touch(root, *(f"rawframes_{name}/{i}.jpg" for name in names for i in (1, 2)), "rawframes_train/a/more/1.jpg")
    touch(root, "rawframes_train/a/more/2.jpg")
    listing = folder.find(root)
    assert counts(listing) == {"train": 7, "val": 6}
    assert any("pictures of videos that are there as files, left out: 12, e.g. rawframes_" in n for n in listing.notes)


def test_of_two_forms_the_one_that_is_there_counts(tmp_path):
    root = touch(tmp_path, "run/a.webm", "run/b.mp4", "walk/c.mp4")
    (root / "run" / "a.mp4").touch()
    (root / "run" / "b.avi").symlink_to("nowhere.avi")
    assert [video.path for video in folder.find(root).videos] == ["run/a.webm", "run/b.mp4", "walk/c.mp4"]


def test_two_forms_in_lists_are_on_one_side(tmp_path):
    root = touch(tmp_path / "videos", "a.mp4", "a.webm", "b.mp4", "b/1.jpg", "b/2.jpg", "c.mp4", "c.avi")
    (tmp_path / "train.txt").write_text("a.mp4 0\nb 1\nc.mp4 0\n")
    (tmp_path / "test.txt").write_text("a.webm 0\nb.mp4 1\nc.avi 1\n")
    listing = lists.find(root, train_list=tmp_path / "train.txt", test_list=tmp_path / "test.txt")
    assert {video.path: video.split for video in listing.videos} == {
        "a.webm": "test", "b.mp4": "test", "c.mp4": "train", "c.avi": "test"
    }  # fmt: skip
    (note,) = [note for note in listing.notes if note.startswith("listed in two forms")]
    assert "a.mp4 beside a.webm (test), b beside b.mp4 (test)" in note
