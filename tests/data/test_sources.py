import codecs
import collections
import contextlib
import errno
import os
import pathlib
import socket
import unicodedata

import hypothesis
import pytest
from hypothesis import strategies

from jax_video.data.manifest import MISSING
from jax_video.data.sources import finding, folder, listing, lists, unlabelled
from jax_video.data.sources.text import compose
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
    listing = folder.find(root)
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


def test_how_to_draw_is_refused_where_nothing_is_drawn(tmp_path):
    root = touch(tmp_path, *(f"{split}/a/{i}.mp4" for split in ("train", "val", "test") for i in range(4)))
    for given in ({"fraction": 0.3}, {"seed": 7}):
        with pytest.raises(
            UserError, match=rf"is split by its folders .*, so nothing is drawn: leave out --{[*given][0]}"
        ):
            folder.find(root, **given)
    with pytest.raises(UserError, match="--test_groups and --val_groups need --group"):
        folder.find(root, test_groups=("a",))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10, 31])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.49])
def test_a_fraction_leaves_something_for_training_and_is_fixed_by_the_seed(count, fraction, tmp_path):
    root = touch(tmp_path, *(f"{name}/{i}.mp4" for name in "ab" for i in range(count)))
    splits = by_split(folder.find(root, fraction=fraction))
    assert by_split(folder.find(root, fraction=fraction)) == splits
    expected = 0 if count < 3 else max(1, min(round(fraction * count), (count - 1) // 2))
    assert len(splits.get("test", [])) == len(splits.get("val", [])) == 2 * expected
    assert len(splits["train"]) == 2 * (count - 2 * expected) > 0
    if count == 31:
        assert by_split(folder.find(root, fraction=fraction, seed=1)) != splits


@pytest.mark.parametrize("val", ["val", "validation", "Valid"])
def test_folders_for_the_splits(val, tmp_path):
    root = touch(
        tmp_path,
        *(f"{split}/{name}/{split}{i}.mp4" for split in ("train", val, "test") for name in "ab" for i in (1, 2)),
    )
    listing = folder.find(touch(root, "train/only here/x.mp4"))
    assert listing.classes == ("a", "b", "only here")
    for split, paths in by_split(listing).items():
        assert all(path.startswith(val if split == "val" else split) for path in paths)
        assert len(paths) == {"train": 5, "val": 4, "test": 4}[split]
    assert [note for note in listing.notes if "only here" in note] == [
        f"classes in train/ that have no videos for {split}: only here" for split in ("val", "test")
    ]


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_training_does_not_have_is_an_error(split, tmp_path):
    touch(tmp_path, *(f"{where}/{name}/1.mp4" for where in ("train", split) for name in ("a", "b")))
    touch(tmp_path, f"{split}/Walk/1.mp4", f"{split}/c/1.mp4", "train/walk/1.mp4")
    with pytest.raises(
        UserError,
        match=f"2 class folders in .* have videos for {split} and none in train/: Walk, c; .*not for .*: walk",
    ):
        folder.find(tmp_path)
    touch(tmp_path, "train/c/1.mp4", "train/Walk/1.mp4")
    assert folder.find(tmp_path).classes == ("Walk", "a", "b", "c", "walk")


def test_accents_are_the_same_letter_however_they_are_stored(tmp_path):
    touch(tmp_path, *(unicodedata.normalize("NFC", f"train/trää/{i}.mp4") for i in range(3)))
    touch(tmp_path, unicodedata.normalize("NFD", "val/trää/1.mp4"))
    listing = folder.find(tmp_path)
    assert listing.classes == (unicodedata.normalize("NFC", "trää"),)
    assert all((tmp_path / video.path).exists() for video in listing.videos)


def test_folders_of_pictures_are_videos(tmp_path):
    root = touch(
        tmp_path,
        *(f"run/v_1.2/image_{i:05d}.jpg" for i in range(1, 4)),
        *(f"run/v_1.2/flow_{axis}_{i:05d}.jpg" for i in range(1, 3) for axis in "xy"),
        *(f"run/v_2/frame{i}.PNG" for i in range(12)),
        *(f"run/not/with/img_{i}.jpg" for i in range(2)),
        "run/not/img_1.jpg",
        "run/not/img_2.jpg",
        "run/one/img_1.jpg",
        "run/photos/cat1.jpg",
        "run/photos/dog1.jpg",
        "run/previews/a1.jpg",
        "run/previews/a2.jpg",
        "run/previews/a.mp4",
        "walk/v_3/1.jpeg",
        "walk/v_3/2.jpeg",
        "walk/v_3/.3.jpeg",
        "walk/v_4.avi",
    )
    listing = folder.find(root)
    found = ["run/not/with", "run/previews/a.mp4", "run/v_1.2", "run/v_2", "walk/v_3", "walk/v_4.avi"]
    assert [video.path for video in listing.videos] == found
    assert [video.source for video in listing.videos] == ["with", "a", "v_1.2", "v_2", "v_3", "v_4"]
    assert "7 files (.jpg 7)" in listing.notes[0]
    assert finding.find_videos(root / "run" / "v_2")[0] == []  # A video is below the folder of the videos.


def test_train_folder_without_val_holds_a_fraction_out(tmp_path):
    root = touch(tmp_path, *(f"{split}/a/{i}.mp4" for split in ("train", "test") for i in range(10)))
    listing = folder.find(root, fraction=0.2)
    counts = collections.Counter(video.split for video in listing.videos)
    assert counts == {"train": 8, "val": 2, "test": 10}
    assert any("no val/: 20% of every class in train/ is for validation" in note for note in listing.notes)


def test_a_class_called_train_is_a_class(tmp_path):
    assert folder.find(touch(tmp_path, "train/1.mp4", "bus/1.mp4")).classes == ("bus", "train")


def test_any_folder_of_videos_without_labels(tmp_path):
    root = touch(tmp_path, *(f"{place}{i}.mp4" for place in ("", "a/", "a/b/c/") for i in range(10)), "a/notes.txt")
    listing = unlabelled.find(root)
    assert (listing.classes, len(listing.videos)) == ((), 30)
    assert all(video.label is None and video.error is None for video in listing.videos)
    assert {split: len(found) for split, found in by_split(listing).items()} == {"train": 24, "val": 3, "test": 3}
    assert by_split(listing) == by_split(unlabelled.find(root)) != by_split(unlabelled.find(root, seed=1))
    assert "1 files (.txt 1)" in listing.notes[0]
    with pytest.raises(UserError, match="no videos in .*: looked for .*.mp4"):
        unlabelled.find(touch(tmp_path / "other", "x.txt"))
    with pytest.raises(UserError, match="must be between 0 and 0.5, got 0.5"):
        unlabelled.find(root, fraction=0.5)


def test_symbolic_links_are_followed_and_loops_end(tmp_path):
    touch(tmp_path / "store", "x.mp4", "more/y.mp4")
    root = touch(tmp_path / "set", "a/1.mp4")
    (root / "b").symlink_to(tmp_path / "store")
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "linked.mp4").symlink_to(tmp_path / "store" / "x.mp4")
    listing = folder.find(root)
    assert [v.path for v in listing.videos] == ["a/1.mp4", "a/linked.mp4", "b/more/y.mp4", "b/x.mp4"]


@pytest.mark.parametrize("link, to", [("val", "test"), ("test", "val")])
def test_a_split_that_is_a_link_to_another_is_said(link, to, tmp_path):
    root = touch(
        tmp_path / "set",
        *(f"train/{name}/{n}.mp4" for name in "ab" for n in range(10)),
        f"{to}/a/x.mp4",
        f"{to}/b/y.mp4",
    )
    (root / link).symlink_to(root / to)
    assert "warning: the same folders as others, by links, so taken once: val" in folder.find(root).notes


def test_classes_that_are_too_small_to_be_split_are_said(tmp_path):
    root = touch(tmp_path, *(f"{name}/{n}.mp4" for name, count in (("a", 3), ("b", 2), ("c", 9)) for n in range(count)))
    assert "warning: with less than three videos, all for training: b" in folder.find(root).notes


def test_groups_are_never_on_both_sides(test_data):
    listing = folder.find(test_data / "weizmann", group="^([a-z]+)_", test_groups=("ira", "lena"), val_groups=("eli",))
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
        folder.find(touch(tmp_path, *names), **arguments)


def test_folders_without_videos_say_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match="none is not a folder; --videos names"):
        folder.find(tmp_path / "none")
    touch(tmp_path, "a.mp4", "b/c.txt")
    with pytest.raises(UserError, match=r"found 1 video files elsewhere, folders \['b'\]; expected .*<class>/<video>"):
        folder.find(tmp_path)
    touch(tmp_path / "split", "train/a/1.mp4", "test/a/2.mp4")
    with pytest.raises(UserError, match="is split by its folders test, train: leave out --group"):
        folder.find(tmp_path / "split", group="(.)", test_groups=("1",))


class Entry:
    """One of a folder that raises when it is looked at, as on a disk or a network's file system that is at fault."""

    def __init__(self, entry: os.DirEntry, number: int):
        self._entry, self.name, self.path = entry, entry.name, entry.path
        self._error = OSError(number, os.strerror(number), entry.path)

    def is_dir(self):
        raise self._error

    is_file = stat = is_dir


@pytest.fixture
def at_fault(monkeypatch):
    """A function that makes names raise: entries when they are looked at, folders when they are listed."""
    entries, folders, scandir = {}, {}, os.scandir

    @contextlib.contextmanager
    def listing(path):
        if (name := os.path.basename(path)) in folders:
            raise OSError(folders[name], os.strerror(folders[name]), path)
        with scandir(path) as found:
            yield (Entry(entry, entries[entry.name]) if entry.name in entries else entry for entry in found)

    monkeypatch.setattr(finding.os, "scandir", listing)
    return lambda *, entry=None, folder=None, number: (folders if folder else entries).update({entry or folder: number})


def make_bad(path: pathlib.Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:  # its path must be short
            server.bind(path.name)
    else:
        path.symlink_to({"circle": path.name, "nothing": "gone.mp4"}[kind])


BAD = {
    "circle": "not a file: a symbolic link that leads in a circle",
    "nothing": "not a file: a symbolic link to nothing",
    "pipe": "not a file: a pipe, a socket or a device",
    "socket": "not a file: a pipe, a socket or a device",
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", ["bad.mp4", "bad"])
def test_one_bad_entry_is_one_fault_and_the_rest_stays(tmp_path, kind, name):
    root = touch(tmp_path, *(f"{label}/{i}.mp4" for label in "ab" for i in range(1, 5)), "a/pictures/1.jpg")
    make_bad(root / "a" / name, kind)
    make_bad(root / "a" / "pictures" / "2.jpg", kind)
    make_bad(root / name, kind)
    listing = folder.find(root)
    assert listing.classes == ("a", "b")
    errors = {video.path: video.error for video in listing.videos}
    assert all(errors[f"{label}/{i}.mp4"] is None for label in "ab" for i in range(1, 5))
    if name == "bad.mp4":
        assert errors["a/bad.mp4"] == BAD[kind]
    else:
        assert "a/bad" not in errors and any("not a file 2" in note for note in listing.notes), listing.notes
    assert finding.fault(root / "a" / name) == (MISSING if kind == "nothing" else BAD[kind])
    assert finding.fault(root / "a") is finding.fault(root / "a" / "1.mp4") is None


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ELOOP, errno.ETIMEDOUT])
def test_an_entry_that_cannot_be_looked_at_is_one_fault(tmp_path, number, at_fault):
    root = touch(tmp_path, *(f"{label}/{i}.mp4" for label in "ab" for i in range(1, 5)), "a/notes.txt")
    at_fault(entry="2.mp4", number=number)
    at_fault(entry="notes.txt", number=number)
    listing = folder.find(root)
    reason = BAD["circle"] if number == errno.ELOOP else f"cannot be read ({os.strerror(number)})"
    assert {video.path: video.error for video in listing.videos} == {
        f"{label}/{i}.mp4": reason if i == 2 else None for label in "ab" for i in range(1, 5)
    }
    assert "1 files" in listing.notes[0]

    loose = unlabelled.find(root)
    assert sorted(video.path for video in loose.videos if video.error == reason) == ["a/2.mp4", "b/2.mp4"]
    listed = lists.find(root, train_list=write(tmp_path / "list.txt", "a/1.mp4 0\na/2.mp4 0\nb/9.mp4 1\n"))
    assert [video.error for video in listed.videos] == [None, reason, MISSING]
    assert any("in no list: 6 of" in note for note in listed.notes)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ETIMEDOUT])
@pytest.mark.parametrize("what", ["entry", "folder"])
@pytest.mark.parametrize("source", [folder.find, unlabelled.find, finding.find_videos])
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, number, what, source, at_fault):
    """What may be a folder too: with it a whole class would go."""
    root = touch(tmp_path, *(f"{label}/{i}.mp4" for label in "ab" for i in range(1, 5)), "b/deep/9.mp4")
    for name in ("b", "deep"):
        at_fault(**{what: name}, number=number)
        with pytest.raises(UserError, match=rf"cannot list the folder .*/{name} \({os.strerror(number)}\).*again"):
            source(root)
        at_fault(**{what: name}, number=0)
        os.rename(root / name, root / "other") if name == "b" else None
    at_fault(folder=tmp_path.name, number=number)
    with pytest.raises(UserError, match="cannot list the folder"):
        source(root)


def test_what_goes_while_it_is_listed_is_counted(tmp_path, at_fault):
    root = touch(tmp_path, "a/1.mp4", "b/2.mp4", "lost+found/3.mp4")
    at_fault(folder="b", number=errno.ENOENT)
    at_fault(folder="lost+found", number=errno.EACCES)  # a disk's own
    assert finding.find_videos(root) == (["a/1.mp4"], {"removed meanwhile": 1}, {}, {"lost+found": 1}, [])


def write(path: pathlib.Path, text: str | bytes) -> pathlib.Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def labels(listing) -> dict[str, str]:
    return {video.path: listing.classes[video.label] for video in listing.videos}


def test_lists_of_numbers_with_names(tmp_path):
    root = touch(tmp_path / "videos", "run/a b.mp4", "run/c, d.avi", "walk/é.webm", "walk/z.mp4", "extra.mp4")
    train = write(
        tmp_path / "train.txt", '\ufeffrun/a b.mp4 0\r\n\r\n"run/c, d",0\r\nwalk/none.mp4\t1  \r\nrun/a b.mp4 0'
    )
    decomposed = unicodedata.normalize("NFD", "walk/é.mp4")
    test = write(tmp_path / "test.txt", f"{decomposed} 1\nWALK/Z.mp4, 1\n".encode("utf-16"))
    names = write(tmp_path / "names.txt", "run around\r\nwalk\r\n\r\n")
    listing = lists.find(root, train_list=train, test_list=test, class_names=names)
    assert (listing.name, listing.classes) == ("videos", ("run around", "walk"))
    assert by_split(listing) == {
        "train": ["run/a b.mp4", "run/c, d.avi", "walk/none.mp4"],
        "test": ["walk/é.webm", "walk/z.mp4"],
    }
    assert [video.error for video in listing.videos] == [None, None, MISSING, None, None]
    assert labels(listing)["walk/z.mp4"] == "walk"
    assert [note for note in listing.notes if "list" in note] == [
        "listed again, taken once: 1 videos",
        "0 of the training list's videos, whole sources, are for validation (seed 0)",
        f"ignored, as in no list: 1 of the videos in {root}",
    ]


@pytest.mark.parametrize(
    "text",
    ["playing guitar,1\nrun,0\n", "1 playing guitar\n0 run\n", "run\nplaying guitar\n", "run,1\n'playing guitar',2"],
)
def test_lists_of_names(text, tmp_path):
    root = touch(tmp_path / "videos", "1.mp4", "2.mp4", "frames 3/img_1.jpg", "frames 3/img_2.jpg")
    names = write(tmp_path / "names.txt", text)
    listed = write(tmp_path / "list.txt", "1.mp4 playing guitar\n2,run\nframes 3 playing guitar")
    listing = lists.find(root, val_list=listed, class_names=names)
    assert listing.classes == ("run", "playing guitar")
    assert labels(listing) == {"1.mp4": "playing guitar", "2.mp4": "run", "frames 3": "playing guitar"}
    assert by_split(listing).keys() == {"val"}
    without = lists.find(root, test_list=write(tmp_path / "some.txt", "1.mp4 playing guitar\n2\trun\n"))
    assert without.classes == ("playing guitar", "run")


def test_lists_of_numbers_alone(tmp_path):
    root = touch(tmp_path, *(f"{i}.mp4" for i in range(60)))
    train = write(tmp_path / "train.txt", "".join(f"{i}.mp4 {i % 3 * 2}\n" for i in range(60)))
    listing = lists.find(root, train_list=train)
    assert listing.classes == ("0", "1", "2", "3", "4")
    assert {split: len(paths) for split, paths in by_split(listing).items()} == {"train": 57, "val": 3}
    assert by_split(listing) == by_split(lists.find(root, train_list=train))
    assert by_split(listing) != by_split(lists.find(root, train_list=train, seed=1))


def test_lists_written_for_another_folder(tmp_path):
    root = touch(tmp_path / "kinetics", "train/run/x.mp4", "val/run/x.mp4", "y.mp4", "val/walk/w.mp4")
    train = write(tmp_path / "train.txt", f"run/x.mp4 0\n{root}/y.mp4 1\n")
    val = write(tmp_path / "val.txt", "/other/machine/val/run/x.mp4 0\nrun\\..\\walk\\w.mp4 1\n")
    listing = lists.find(root, train_list=train, val_list=val)
    assert by_split(listing) == {"train": ["train/run/x.mp4", "y.mp4"], "val": ["val/run/x.mp4", "val/walk/w.mp4"]}
    assert all(video.error is None for video in listing.videos)
    with pytest.raises(UserError, match="list.txt:2: 'x.mp4' may be any of train/run/x.mp4, val/run/x.mp4; write its"):
        lists.find(root, test_list=write(tmp_path / "list.txt", "y.mp4 0\nx.mp4 0\n"))


@pytest.mark.parametrize("there", [True, False])
def test_lists_of_folders_with_their_numbers_of_frames(there, tmp_path):
    (tmp_path / "videos").mkdir()
    folders = ["v_1", "v 2"] if there else ["v_1"]
    root = touch(tmp_path / "videos", *(f"{name}/img_{i}.jpg" for name in folders for i in range(2)))
    listing = lists.find(root, test_list=write(tmp_path / "list.txt", "v_1 120 3\nv 2 8 0\n"))
    assert labels(listing) == {"v_1": "3", "v 2": "0"}
    clips = touch(tmp_path / "clips", "clip 1.mp4", "clip 2.mp4")
    listing = lists.find(clips, test_list=write(tmp_path / "list.txt", "clip 1 3\nclip 2 0\n"))
    assert labels(listing) == {"clip 1.mp4": "3", "clip 2.mp4": "0"}


def test_what_is_listed_twice(tmp_path):
    root = touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    train = write(tmp_path / "train.txt", "a.mp4 run\nb.mp4 run\n./a.mp4 walk\nc.mp4 walk\n")
    test = write(tmp_path / "test.txt", "b.mp4 run\nb.mp4 run\n")
    listing = lists.find(root, train_list=train, test_list=test)
    assert by_split(listing) == {"train": ["a.mp4", "c.mp4"], "test": ["b.mp4"]}
    assert labels(listing)["a.mp4"] == "run"
    assert listing.notes[:3] == (
        "listed again, taken once: 3 videos",
        "listed with two labels, of which the first is taken: 1, e.g. a.mp4",
        "listed for two splits, of which the second is taken: 1, e.g. b.mp4 (train and test)",
    )


def test_one_list_for_validation_and_test_leaves_both(tmp_path):
    root = touch(tmp_path, *(f"{n}.mp4" for n in range(50)))
    train = write(tmp_path / "train.txt", "".join(f"{n}.mp4 {n % 2}\n" for n in range(40)))
    test = write(tmp_path / "test.txt", "".join(f"{n}.mp4 {n % 2}\n" for n in range(40, 50)))
    listing = lists.find(root, train_list=train, val_list=test, test_list=test)
    assert {split: len(paths) for split, paths in by_split(listing).items()} == {"train": 38, "val": 2, "test": 10}
    assert any("are for validation" in note for note in listing.notes)


@pytest.mark.parametrize(
    "lines, names, message",
    [
        ("a.mp4 0\nb.mp4 2\n", "run\nwalk", "list:2: the label '2' is without a class; .* of the 2 of .*names: 0 to 1"),
        ("a.mp4 -1\nb.mp4 -1\n", None, "list:1: the label '-1' is without a class; .* of the lists: 0 to 0"),
        ("a.mp4 0\nb.mp4 -1\n", None, "list:2: the label '-1' is without a class; .* of the lists: 0 to 0"),
        ("a.mp4 run\n\nb.mp4 jump\n", "run\nwalk", "list:3: the label 'jump' is without a class; .*names: run, walk"),
        (
            "a.mp4 0\nb.mp4 1\na run\n",
            None,
            "list:3: the label 'run' is without a class; .* of the 2 of the lists: 0, 1",
        ),
        (
            "a.mp4 run\nb.mp4 1\nc walk\n",
            None,
            "list:2: the label '1' is without a class; .* of the 2 of the lists: run, walk",
        ),
        ("a.mp4 0\nb.mp4\n", None, "list:2: expected a video's path, a blank or comma, and its label, got 'b.mp4'"),
        ("alone\n", None, "list:1: expected a video's path"),
        ("a.mp4 20240131\n", None, "list:1: the label is 20240131, expected the number of a class below 100000"),
        ("\n\n", None, "no videos in .*list: expected `path label`"),
        (
            "x.mp4 0\ny.mp4 0\n",
            None,
            "no videos found: .* has none of the 2 videos .*x.mp4.* has 1 other videos, e.g. a",
        ),
        ("a.mp4 0\n", "run\nwalk\nrun", "names:3: the class 'run' is named twice"),
        ("a.mp4 0\n", "run,0\nwalk,3", "names:2: expected indices from 0 to 1, each once, got 'walk,3'"),
        ("a.mp4 0\n", "", "names names no class"),
        (b"a.mp4 0\n\0\0", None, "list is no text"),
        (codecs.BOM_UTF16_LE + b"a", None, "list begins as UTF-16 text and is none"),
    ],
)
def test_lists_that_cannot_be_understood(lines, names, message, tmp_path):
    root = touch(tmp_path / "videos", "a.mp4")
    names = None if names is None else write(tmp_path / "names", names)
    with pytest.raises(UserError, match=message):
        lists.find(root, train_list=write(tmp_path / "list", lines), class_names=names)


def test_lists_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="expected --train_list=FILE, --val_list=FILE or --test_list=FILE"):
        lists.find(tmp_path)
    with pytest.raises(UserError, match="cannot read .*none.txt .No such file"):
        lists.find(tmp_path, test_list=tmp_path / "none.txt")


CHARACTERS = strategies.characters(categories=("L", "M", "Nd", "P", "S", "Zs"), include_characters="\t ,'\"")
NAMES = strategies.text(CHARACTERS.filter(lambda c: c not in "/\\\x00"), min_size=1, max_size=12)
PATHS = strategies.lists(NAMES.filter(lambda name: name.strip().strip(".").strip()), min_size=1, max_size=3).map(
    lambda parts: ("/".join(parts) + ".mp4").strip()
)


@hypothesis.given(
    rows=strategies.lists(
        strategies.tuples(
            PATHS,
            strategies.integers(0, 30),
            strategies.sampled_from([" ", "\t", ",", ", ", "  ", " , "]),
            strategies.sampled_from(["", '"', "'"]),
            strategies.integers(0, 2),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: unicodedata.normalize("NFC", row[0]),
    ),
    named=strategies.booleans(),
    mark=strategies.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    end=strategies.sampled_from(["\n", "\r\n", " \n", "\r"]),
)
@hypothesis.settings(max_examples=100)
def test_a_list_is_read_as_it_was_written(rows, named, mark, end, tmp_path_factory):
    folder = tmp_path_factory.mktemp("list")
    names = [f"class, the {i}th" for i in range(31)]
    text = ""
    for path, label, separator, quote, blank_lines in rows:
        written = f"{quote}{path.replace(quote, 2 * quote)}{quote}" if quote else path
        text += f"{written}{separator}{names[label] if named else label}{end}{end * blank_lines}"
    root = touch(folder / "videos", "found.mp4")
    text += f"found.mp4 {names[0] if named else 0}{end}"
    listing = lists.find(
        root,
        test_list=write(folder / "list.txt", text.encode(mark)),
        class_names=write(folder / "names.txt", "\n".join(names)),
    )
    expected = [*((path, label) for path, label, *_ in rows), ("found.mp4", 0)]
    assert [(compose(video.path), video.label) for video in listing.videos] == [
        (compose(path), label) for path, label in expected
    ]
    assert [video.error for video in listing.videos] == [MISSING] * len(rows) + [None]


def test_links_that_may_have_been_class_folders_are_named(tmp_path):
    """A link to nothing may be a disk that is not mounted: without it the set has a class less."""
    root = touch(tmp_path, *(f"{label}/{i}.mp4" for label in "ab" for i in range(1, 5)))
    (root / "c").symlink_to("c")
    (root / "d.e").symlink_to("/nowhere/disk2/d")
    listing = folder.find(root)
    assert listing.classes == ("a", "b")
    (note,) = [note for note in listing.notes if note.startswith("warning: ")]
    assert "c (not a file: a symbolic link that leads in a circle)" in note
    assert "d.e (not a file: a symbolic link to nothing)" in note


@pytest.mark.parametrize(
    ("there", "train", "test"),
    [
        (("train/0.mp4", "train/1.mp4"), "0.mp4 walk\n1.mp4 run", "0.mp4 run\n1.mp4 walk"),
        (("clip.mp4",), "clip.mp4 run", "Clip.mp4 walk"),
        (("1.mp4",), "1.mp4 run", "1.avi walk"),
        (("clip.mp4",), "clip.mp4 run", "/home/other/old/clip.mp4 walk"),
        (("train/0.mp4", "test/9.mp4"), "0.mp4 walk", "0.mp4 walk\n9.mp4 run"),
    ],
)
def test_a_video_that_is_missing_does_not_take_the_file_of_another(there, train, test, tmp_path):
    """As where the test videos are not downloaded yet, and are called as those for training."""
    root = touch(tmp_path / "videos", *there)
    given = {"train_list": write(tmp_path / "train.txt", train), "test_list": write(tmp_path / "test.txt", test)}
    found = lists.find(root, **given)
    rows = [(video.split, video.path, found.classes[video.label]) for video in found.videos if not video.error]
    assert [(path, name) for split, path, name in rows if split != "test"] == [
        (path, line.split()[1]) for path, line in zip(there, train.split("\n"), strict=False)
    ]
    assert [path for split, path, _ in rows if split == "test"] == [path for path in there if path.startswith("test/")]
    assert sum(video.error == MISSING for video in found.videos) == len(train.split("\n"))
    assert any(note.startswith("missing, though another line has what is like it: ") for note in found.notes)


@pytest.mark.parametrize("val", ["train/0.mp4", "0.mp4", "/home/other/train/0.mp4"])
def test_a_validation_list_may_be_drawn_from_the_training_folder(val, tmp_path):
    """And have videos that the training list has, too."""
    root = touch(tmp_path / "videos", "train/0.mp4", "train/1.mp4")
    for labels in ("walk", "run") if val == "train/0.mp4" else ("walk",):
        found = lists.find(
            root,
            train_list=write(tmp_path / "train.txt", "train/0.mp4 walk\ntrain/1.mp4 run"),
            val_list=write(tmp_path / "val.txt", f"{val} {labels}"),
        )
        assert by_split(found) == {"val": ["train/0.mp4"], "train": ["train/1.mp4"]}
        assert not [video for video in found.videos if video.error]


def test_a_path_that_is_there_in_another_folder_is_said(tmp_path):
    other, root = touch(tmp_path / "other", "walk/0.mp4"), touch(tmp_path / "videos", "walk/0.mp4")
    (tmp_path / "alias").symlink_to(root)
    for path, said in ((other, True), (tmp_path / "gone", False), (root, False), (tmp_path / "alias", False)):
        found = lists.find(root, test_list=write(tmp_path / "list.txt", f"{path}/walk/0.mp4 walk"))
        assert [video.path for video in found.videos] == ["walk/0.mp4"]
        assert any("are there, but not below --videos" in note for note in found.notes) == said


def test_numbers_of_classes_are_compared_with_the_folders(tmp_path):
    """A class file in another order gives every video another class."""
    names = ("jump", "run", "walk")
    root = touch(tmp_path / "videos", *(f"{name}/{i}.mp4" for name in names for i in range(3)))

    def found(order, wrong=()):
        lines = [f"{name}/{i}.mp4 {order.index(name)}" for name in names for i in range(3) if (name, i) not in wrong]
        lines += [f"{name}/{i}.mp4 {(order.index(name) + 1) % 3}" for name, i in wrong]
        given = {"class_names": write(tmp_path / "classes.txt", "\n".join(names))}
        return lists.find(root, test_list=write(tmp_path / "list.txt", "\n".join(lines)), **given)

    assert not [note for note in found(names).notes if "named as another class" in note]
    assert any("of 1 videos the folder is named as another class" in note for note in found(names, [("run", 0)]).notes)
    train = touch(tmp_path / "vehicles", *(f"train/{i}.mp4" for i in range(4)))
    given = {"class_names": write(tmp_path / "classes.txt", "bus\ncar\ntrain")}
    lines = "\n".join(f"train/{i}.mp4 {i % 3}" for i in range(4))
    assert len(lists.find(train, test_list=write(tmp_path / "list.txt", lines), **given).videos) == 4
    with pytest.raises(
        UserError, match=r"the label \d is '\w+', but the video is .*; so are 6 of 9: are the classes in"
    ):
        found(("walk", "run", "jump"))


@pytest.mark.parametrize(
    "line",
    ["{}.mp4,{},train", "{}.mp4\t{}\ttrain", "{}.mp4;{};a", "{}.mp4,{},person{}", "{}.mp4 {} test", "{}.mp4|{}|x y"],
)
def test_columns_of_words_are_no_part_of_the_class(line, tmp_path):
    root = touch(tmp_path / "videos", *(f"{i}.mp4" for i in range(6)))
    lines = "\n".join(line.format(i, ("walk", "run")[i % 2], i) for i in range(6))
    with pytest.raises(UserError, match="more than a path and a label.*--columns="):
        lists.find(root, test_list=write(tmp_path / "list.txt", lines))
    tests = "\n".join(f"{i}.mp4 {('walking', 'balance')[i % 2]} test" for i in range(6))
    given = {
        "train_list": write(tmp_path / "list.txt", tests),
        "val_list": write(tmp_path / "val.txt", "0.mp4 walking test"),
    }
    assert lists.find(root, **given).classes == ("balance test", "walking test")
    alone = "\n".join(f"{i}.mp4 eating, drinking" for i in range(3))
    assert lists.find(root, test_list=write(tmp_path / "list.txt", alone)).classes == ("eating, drinking",)
    assert len(lists.find(root, test_list=write(tmp_path / "list.txt", "PAR1_walk.mp4 walk\n0.mp4 run")).videos) == 2
    named = "\n".join(f"{i}.mp4 {('playing guitar', 'eating, drinking')[i % 2]}" for i in range(6))
    assert lists.find(root, test_list=write(tmp_path / "list.txt", named)).classes == (
        "eating, drinking",
        "playing guitar",
    )


def test_files_that_are_joined_or_of_another_kind(tmp_path):
    root = touch(tmp_path / "videos", "a.mp4", "b.mp4")
    for content, said in (
        ("path,label\na.mp4,run\npath,label\nb.mp4,walk", r"list.txt:3: the header again"),
        (b"PK\3\4\0\0", "is no text, but an Excel file"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "the pointer that Git LFS leaves"),
    ):
        with pytest.raises(UserError, match=said):
            lists.find(root, test_list=write(tmp_path / "list.txt", content))
    found = lists.find(root, test_list=write(tmp_path / "list.txt", "a.mp4 run\n\ufeffb.mp4 walk\n"))
    assert [video.error for video in found.videos] == [None, None]


def test_a_seed_is_refused_where_the_lists_say_all(tmp_path):
    root = touch(tmp_path / "videos", *(f"{i}.mp4" for i in range(3)))
    given = {f"{split}_list": write(tmp_path / split, f"{i}.mp4 a") for i, split in enumerate(("train", "val", "test"))}
    with pytest.raises(UserError, match="the lists say for which split each video is, so nothing is drawn: .* --seed"):
        lists.find(root, **given, seed=3)
    assert len(lists.find(root, **given).videos) == 3


def test_paths_of_windows_with_both_kinds_of_slashes(tmp_path):
    root = touch(tmp_path / "videos", "walk/0.mp4")
    found = lists.find(root, test_list=write(tmp_path / "list.txt", "D:/data\\walk\\0.mp4 walk"))
    assert [(video.path, video.error) for video in found.videos] == [("walk/0.mp4", None)]


def test_classes_that_look_alike_are_said_and_names_that_cannot_be_written_are_refused(tmp_path):
    assert (
        listing.alike(("Walk", "walk", "run", "ru\u200bn", "play_guitar", "play  guitar", "jump"))[0].count(", ") == 6
    )
    assert not listing.alike(("walk", "walking", "C++", "C"))
    root = touch(tmp_path / "videos", *(f"{name}/{i}.mp4" for name in ("a\nb", "c") for i in range(3)))
    with pytest.raises(UserError, match=r"the class 'a\\nb' has a tab, a line break"):
        folder.find(root)
