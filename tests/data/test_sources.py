import collections
import pathlib

import pytest

from jax_video.data import sources
from jax_video.data.manifest import MISSING
from jax_video.errors import UserError


def touch(root: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def by_split(listing):
    splits = collections.defaultdict(list)
    for video in listing.videos:
        splits[video.split].append(video.path)
    return dict(splits)


def test_folder_of_class_folders(tmp_path):
    root = touch(
        tmp_path / "my set",
        *(f"{name}/clip{i}.mp4" for name in ("b walk", "a rün", "Z") for i in range(1, 13)),
        "a rün/deep/er/x.AVI",
        "a rün/notes.txt",
        "a rün/.hidden.mp4",
        ".cache/x.mp4",
        "stray.mp4",
    )
    (root / "empty").mkdir()
    listing = sources.folder(root)
    assert listing.name == "my set"
    assert listing.classes == ("Z", "a rün", "b walk")
    assert [v.path for v in listing.videos][:14] == [
        *(f"a rün/clip{i}.mp4" for i in range(1, 13)),
        "a rün/deep/er/x.AVI",
        "b walk/clip1.mp4",
    ]
    assert all(listing.classes[v.label] == v.path.split("/")[0] for v in listing.videos)
    assert all(v.error is None for v in listing.videos)
    counts = collections.Counter((v.split, v.label) for v in listing.videos)
    assert [counts["test", i] for i in range(3)] == [counts["val", i] for i in range(3)] == [1, 1, 1]
    notes = "\n".join(listing.notes)
    assert "1 files (.txt 1)" in notes
    assert "outside of class folders: 1 videos" in notes
    assert "no videos in these class folders, which make no class: empty" in notes


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10, 31])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.49])
def test_a_fraction_leaves_something_for_training_and_is_fixed_by_the_seed(count, fraction, tmp_path):
    root = touch(tmp_path, *(f"{name}/{i}.mp4" for name in "ab" for i in range(count)))
    splits = by_split(sources.folder(root, fraction=fraction))
    assert by_split(sources.folder(root, fraction=fraction)) == splits
    expected = 0 if count < 3 else max(1, min(round(fraction * count), (count - 1) // 2))
    assert len(splits.get("test", [])) == len(splits.get("val", [])) == 2 * expected
    assert len(splits["train"]) == 2 * (count - 2 * expected) > 0
    if count == 31:
        assert by_split(sources.folder(root, fraction=fraction, seed=1)) != splits


@pytest.mark.parametrize("val", ["val", "validation", "Valid"])
def test_folders_for_the_splits(val, tmp_path):
    root = touch(
        tmp_path,
        *(f"{split}/{name}/{split}{i}.mp4" for split in ("train", val, "test") for name in "ab" for i in (1, 2)),
    )
    touch(root, "test/c/x.mp4")
    listing = sources.folder(root)
    assert listing.classes == ("a", "b", "c")
    for split, paths in by_split(listing).items():
        assert all(path.startswith(val if split == "val" else split) for path in paths)
        assert len(paths) == {"train": 4, "val": 4, "test": 5}[split]


def test_train_folder_without_val_holds_a_fraction_out(tmp_path):
    root = touch(tmp_path, *(f"{split}/a/{i}.mp4" for split in ("train", "test") for i in range(10)))
    listing = sources.folder(root, fraction=0.2)
    counts = collections.Counter(video.split for video in listing.videos)
    assert counts == {"train": 8, "val": 2, "test": 10}
    assert any("no val/: 20% of every class in train/ is for validation" in note for note in listing.notes)


def test_a_class_called_train_is_a_class(tmp_path):
    assert sources.folder(touch(tmp_path, "train/1.mp4", "bus/1.mp4")).classes == ("bus", "train")


def test_any_folder_of_videos_without_labels(tmp_path):
    root = touch(tmp_path, *(f"{place}{i}.mp4" for place in ("", "a/", "a/b/c/") for i in range(10)), "a/notes.txt")
    listing = sources.unlabelled(root)
    assert (listing.classes, len(listing.videos)) == ((), 30)
    assert all(video.label is None and video.error is None for video in listing.videos)
    assert {split: len(found) for split, found in by_split(listing).items()} == {"train": 24, "val": 3, "test": 3}
    assert by_split(listing) == by_split(sources.unlabelled(root)) != by_split(sources.unlabelled(root, seed=1))
    assert "1 files (.txt 1)" in listing.notes[0]
    with pytest.raises(UserError, match="no videos in .*: looked for .*.mp4"):
        sources.unlabelled(touch(tmp_path / "other", "x.txt"))
    with pytest.raises(UserError, match="must be between 0 and 0.5, got 0.5"):
        sources.unlabelled(root, fraction=0.5)


def test_symbolic_links_are_followed_and_loops_end(tmp_path):
    touch(tmp_path / "store", "x.mp4", "more/y.mp4")
    root = touch(tmp_path / "set", "a/1.mp4")
    (root / "b").symlink_to(tmp_path / "store")
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "linked.mp4").symlink_to(tmp_path / "store" / "x.mp4")
    listing = sources.folder(root)
    assert [v.path for v in listing.videos] == ["a/1.mp4", "a/linked.mp4", "b/more/y.mp4", "b/x.mp4"]


def test_groups_are_never_on_both_sides(test_data):
    listing = sources.folder(
        test_data / "weizmann", group="^([a-z]+)_", test_groups=("ira", "lena"), val_groups=("eli",)
    )
    assert len(listing.classes) == 10 and len(listing.videos) == 63
    for video in listing.videos:
        person = pathlib.PurePath(video.path).name.split("_")[0]
        assert video.source == person
        assert video.split == {"ira": "test", "lena": "test", "eli": "val"}.get(person, "train")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"group": "("}, "not a regular expression"),
        ({"group": "^[a-z]+_", "test_groups": ("anna",)}, "no group in parentheses"),
        ({"group": "^([a-z]+)_"}, "at least one group for test.*finds anna, boris, person2, person10"),
        ({"group": "^([a-z]+)_", "test_groups": ("clara",)}, "finds anna, boris"),
        ({"group": "^([a-z]+)_", "test_groups": ("anna",), "val_groups": ("anna",)}, "none for both"),
        ({"group": "^(x.+)_", "test_groups": ("anna",)}, r"finds nothing in the names of 4 videos: \['run/anna_"),
        ({"test_groups": ("anna",)}, "need --group"),
        ({"fraction": 0.5}, "between 0 and 0.5, got 0.5"),
    ],
)
def test_rules_that_do_not_fit(arguments, message, tmp_path):
    names = ["run/anna_1.mp4", "run/boris_1.mp4"] + [f"run/person{n}_1.mp4" for n in (10, 2)]
    arguments = {
        key: value.replace("[a-z]+", "[a-z]+[0-9]*") if key == "group" else value for key, value in arguments.items()
    }
    with pytest.raises(UserError, match=message):
        sources.folder(touch(tmp_path, *names), **arguments)


def test_folders_without_videos_say_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match="none is not a folder; --videos names"):
        sources.folder(tmp_path / "none")
    touch(tmp_path, "a.mp4", "b/c.txt")
    with pytest.raises(UserError, match=r"found 1 video files elsewhere, folders \['b'\]; expected .*<class>/<video>"):
        sources.folder(tmp_path)
    touch(tmp_path / "split", "train/a/1.mp4", "test/a/2.mp4")
    with pytest.raises(UserError, match="is split by its folders test, train: leave out --group"):
        sources.folder(tmp_path / "split", group="(.)", test_groups=("1",))


@pytest.mark.parametrize("split", [1, 2, 3])
@pytest.mark.parametrize("name, classes, listed", [("ucf101", 101, 13320), ("hmdb51", 51, 5100)])
def test_official_lists(name, classes, listed, split, test_data):
    listing = sources.SOURCES[name](test_data / name / "videos", split=split)
    assert len(listing.classes) == classes
    assert len(listing.videos) == listed == len({video.path for video in listing.videos})
    groups = collections.defaultdict(set)
    counts = collections.Counter()
    for video in listing.videos:
        groups[video.split].add(video.source)
        counts[video.split] += 1
        assert listing.classes[video.label] == video.path.split("/")[0]
        assert (test_data / name / "videos" / video.path).exists() == (video.error is None)
    assert not groups["train"] & groups["val"]
    training = counts["train"] + counts["val"]
    assert counts["val"] == pytest.approx(0.05 * training, abs=5)
    assert len({video.label for video in listing.videos if video.split == "val"}) > 0.85 * classes
    if name == "ucf101":
        assert (training, counts["test"]) == {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}[split]
        assert listing.classes[0] == "ApplyEyeMakeup" and listing.classes[100] == "YoYo"
        assert not groups["test"] & (groups["train"] | groups["val"])
    else:
        assert (training, counts["test"]) == (3570, 1530)
        assert listing.classes[0] == "brush_hair" and listing.classes[50] == "wave"
        assert not any("_np" in group for names in groups.values() for group in names)


def test_validation_videos_depend_on_the_lists_and_the_seed_alone(test_data, tmp_path):
    lists = test_data / "ucf101" / "ucfTrainTestlist"
    here = sources.ucf101(test_data / "ucf101" / "videos")
    nowhere = sources.ucf101(tmp_path, annotations=lists)
    assert [v.split for v in here.videos] == [v.split for v in nowhere.videos]
    assert [v.split for v in here.videos] != [
        v.split for v in sources.ucf101(tmp_path, annotations=lists, seed=1).videos
    ]
    assert all(v.error == MISSING for v in nowhere.videos)


def test_official_videos_are_found_flat_or_converted(test_data, tmp_path):
    lists = test_data / "ucf101" / "ucfTrainTestlist"
    root = touch(
        tmp_path, "v_Archery_g01_c01.mp4", "other/v_Archery_g01_c02.AVI", "v_archery_g01_c03.webm", "extra.mp4"
    )
    listing = sources.ucf101(root, annotations=lists.parent)
    assert {v.path for v in listing.videos if v.error is None} == {
        "v_Archery_g01_c01.mp4",
        "other/v_Archery_g01_c02.AVI",
        "v_archery_g01_c03.webm",
    }
    assert any("in no list of split 1: 1 of the videos" in note for note in listing.notes)


def test_official_lists_that_are_not_there_or_damaged(test_data, tmp_path):
    with pytest.raises(UserError, match="no official lists .*--annotations=DIR/ucfTrainTestlist"):
        sources.ucf101(tmp_path)
    with pytest.raises(UserError, match="splits 1, 2 and 3, got --split=4"):
        sources.hmdb51(tmp_path, split=4)
    lists = tmp_path / "testTrainMulti_7030_splits"
    touch(lists, "wave_test_split1.txt")
    with pytest.raises(UserError, match="has 1 lists .*expected 51"):
        sources.hmdb51(tmp_path)
    for path in (test_data / "hmdb51" / "testTrainMulti_7030_splits").glob("*_split1.txt"):
        (lists / path.name).write_bytes(path.read_bytes())
    (lists / "wave_test_split1.txt").write_text("a.avi 1 \r\n\r\nb.avi 3\r\n")
    with pytest.raises(UserError, match="wave_test_split1.txt:3: expected <file> and 0, 1 or 2, got 'b.avi 3'"):
        sources.hmdb51(tmp_path)
    ucf = tmp_path / "ucfTrainTestlist"
    ucf.mkdir()
    for path in (test_data / "ucf101" / "ucfTrainTestlist").iterdir():
        (ucf / path.name).write_bytes(path.read_bytes())
    (ucf / "testlist01.txt").write_text("Archery/v_1.avi\nFlying/v_2.avi\n")
    with pytest.raises(
        UserError, match="testlist01.txt:2: expected <class of classInd.txt>/<file>, got 'Flying/v_2.avi'"
    ):
        sources.ucf101(tmp_path)
    (ucf / "classInd.txt").write_text("1 Archery\n")
    with pytest.raises(UserError, match="names 1 classes, expected 101"):
        sources.ucf101(tmp_path)
