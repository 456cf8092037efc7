"""Video files in a store: found, fetched one at a time, and nothing of them left."""

import errno
import io
import os
import pathlib
from collections.abc import Iterator

import pytest
from stores import FolderStore

from jax_video.data.decoding import fetching
from jax_video.data.manifest import MISSING
from jax_video.data.preparing.preparation import Preparation
from jax_video.data.sources import diving48, finding, folder, huggingface, lists, table, unlabelled
from jax_video.data.sources.official import find_folder
from jax_video.errors import UnavailableError, UserError, VideoError


@pytest.fixture
def bucket(store, tmp_path, monkeypatch) -> Iterator[pathlib.Path]:
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path / "cache"))
    (store / "bucket").mkdir(parents=True)
    yield store / "bucket"
    fetching.forget()


def put(root: pathlib.Path, *names: str, content: str = "x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def on_disk(tmp_path: pathlib.Path) -> int:
    """Bytes of the copies that are open, with a name or without one."""
    folder = os.fspath(tmp_path / "cache" / "fetched")
    handles = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return sum(
        os.stat(path).st_size for path in handles if os.path.exists(path) and os.readlink(path).startswith(folder)
    )


@pytest.mark.parametrize("has_proc", [True, False])
def test_copies_are_the_files_and_at_most_two_are_kept(has_proc, bucket, tmp_path, monkeypatch):
    if not has_proc:
        monkeypatch.setattr(fetching, "_HANDLE", str(tmp_path / "none" / "{}"))
    put(bucket, *(f"{number}.mp4" for number in range(9)), content="x" * 1000)
    for number in range(9):
        (bucket / f"{number}.mp4").write_text(str(number) * 1000)
        path = fetching.local(f"gs://bucket/{number}.mp4")
        assert pathlib.Path(path).read_text() == str(number) * 1000
        assert on_disk(tmp_path) <= 2000
        assert fetching.local(f"gs://bucket/{number}.mp4", pytest.fail) == path, "it was there"
    assert len(os.listdir(tmp_path / "cache" / "fetched")) == (0 if has_proc else 2)
    assert fetching.local("/on/disk.mp4") == "/on/disk.mp4"


def test_a_large_file_takes_little_memory_and_says_that_it_goes_on(bucket, monkeypatch):
    monkeypatch.setattr(fetching, "_PIECE", 1000)
    put(bucket, "a.mp4", content="x" * 9500)
    going = []
    path = fetching.local("gs://bucket/a.mp4", lambda: going.append(True))
    assert (os.path.getsize(path), len(going)) == (9500, 10)


def test_another_version_of_a_file_is_told_by_its_time(bucket):
    put(bucket, "a.mp4", content="one")
    stamp = fetching.stamp("gs://bucket/a.mp4")
    status = os.stat(fetching.local("gs://bucket/a.mp4"))
    assert stamp == (3, status.st_mtime_ns) == fetching.stamp("gs://bucket/a.mp4")
    os.utime(bucket / "a.mp4", (1, 1))
    assert fetching.stamp("gs://bucket/a.mp4") != stamp


def test_what_cannot_be_fetched(bucket, monkeypatch, tmp_path):
    with pytest.raises(VideoError, match="gs://bucket/none.mp4: no such file"):
        fetching.local("gs://bucket/none.mp4")
    put(bucket, "a.mp4")
    for error, kind, message in (
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), UnavailableError, r"cannot be fetched \(No space left"),
        (PermissionError(errno.EACCES, "Permission denied"), VideoError, r"cannot be fetched \(Permission denied\)"),
        (OSError("Forbidden: no rights"), UnavailableError, r"cannot be fetched \(Forbidden: no rights\)"),
        (RuntimeError("the line is cut"), UnavailableError, "cannot reach gs://bucket/a.mp4: RuntimeError: the line"),
    ):
        monkeypatch.setattr(FolderStore, "open", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        with pytest.raises(VideoError, match=message) as raised:
            fetching.local("gs://bucket/a.mp4")
        assert type(raised.value) is kind
    monkeypatch.setattr(FolderStore, "open", lambda *_, **__: io.BytesIO())  # ends before the file does
    with pytest.raises(UnavailableError, match=r"cannot be fetched \(got 0 of 1 bytes\)"):
        fetching.local("gs://bucket/a.mp4")
    assert os.listdir(tmp_path / "cache" / "fetched") == [] and on_disk(tmp_path) == 0


def test_videos_in_a_store_are_found_as_those_on_a_disk(bucket, tmp_path):
    names = [*(f"{split}/{name}/{i}.mp4" for split in ("train", "test") for name in ("a", "b c") for i in range(9))]
    names += ["train/a/notes.txt", "train/a/.hidden/x.mp4", "train/a/1.webm", "train/a/2.gif"]
    names += [f"train/a/pictures/image_{i}.jpg" for i in range(3)]
    for root in (bucket / "set", tmp_path / "set"):
        put(root, *names)
        (root / "train/a/1.mp4").write_text("")  # so that its twin counts
    path = finding.remote.path("gs://bucket/set")
    there, here = folder.find(path), folder.find(tmp_path / "set")
    assert (there.name, there.classes) == (here.name, here.classes) == ("set", ("a", "b c"))
    assert [video.path for video in there.videos] == [video.path for video in here.videos]
    assert [video.split for video in there.videos] == [video.split for video in here.videos]
    assert {video.path: video.error for video in there.videos if video.error} == {
        "train/a/pictures": "a folder of pictures in a store: copy it to a disk"
    }
    assert [note for note in there.notes if "hidden" not in note] == [n for n in here.notes if "hidden" not in n]
    listed = tmp_path / "list"
    listed.write_text("train/a/1.mp4 0\ntrain/a/2.gif 1\ntest/b c/3 1\n/elsewhere/set/test/a/0.mp4 0\nnone.mp4 1\n")
    for there, here in (
        (unlabelled.find(path), unlabelled.find(tmp_path / "set")),
        (lists.find(path, test_list=listed), lists.find(tmp_path / "set", test_list=listed)),
    ):
        assert [(video.path, video.split, video.label) for video in there.videos] == [
            (video.path, video.split, video.label) for video in here.videos
        ]
    with pytest.raises(UserError, match="gs://bucket/none is not a folder"):
        folder.find(finding.remote.path("gs://bucket/none"))


def test_lists_may_lie_in_the_store_as_well(bucket):
    put(bucket, "rgb/a_00000.mp4", "rgb/b_00000.mp4")
    put(bucket, "annotations/Diving48_vocab.json", content='[["Back", "FREE"]]')
    put(bucket, "annotations/Diving48_V2_test.json", content='[{"vid_name": "b_00000", "label": 0}]')
    videos = finding.remote.path("gs://bucket/rgb")
    assert [video.error for video in diving48.find(videos).videos] == [None]
    assert os.fspath(find_folder(videos, None, "annotations", "Diving48_vocab.json")) == "gs://bucket/annotations"
    put(bucket, "t.csv", content="path,label\ngs://bucket/rgb/a_00000.mp4,x\nb_00000,x\nc.mp4,x\n")
    listing = table.find(videos, table=["gs://bucket/t.csv"])
    assert [(video.path, video.error) for video in listing.videos] == [
        ("a_00000.mp4", None),
        ("b_00000.mp4", None),
        ("c.mp4", MISSING),
    ]
    put(bucket, "rgb/metadata.csv", content="file_name,label\na_00000.mp4,x\n")
    assert [video.path for video in huggingface.find(videos).videos] == ["a_00000.mp4"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"source": "folder", "out": "gs://bucket/out", "videos": "clips"},
            "--out=gs://bucket/out: prepare writes to a",
        ),
        (
            {"source": "tfds:x", "out": "out", "videos": "gs://bucket/v"},
            "--videos=gs://bucket/v: tfds:x is read",
        ),
        (
            {"source": "folder", "out": "out", "videos": "ftp://bucket/v"},
            "ftp://bucket/v: expected a local path or",
        ),
    ],
)
def test_what_is_not_done_in_a_store(arguments, message, bucket):
    with pytest.raises(UserError, match=message):
        Preparation(**arguments)


def test_wrong_use_with_a_store_is_one_message(bucket):
    put(bucket, "clips/1.mp4")
    for source, parameters, message in (
        ("charades", {}, "no official lists .Charades/Charades_v1_classes.txt. in gs://bucket/clips"),
        ("table", {"table": ["gs://bucket/none.csv"]}, "cannot read gs://bucket/none.csv .No such file"),
        ("diving48", {"annotations": "gs://bucket/none"}, "no official lists .* in gs://bucket/none; say where"),
    ):
        with pytest.raises(UserError, match=message):
            Preparation(source, "out", videos="gs://bucket/clips", parameters=parameters).find()


def test_a_store_that_cannot_be_reached_is_one_message(bucket):
    with pytest.raises(UserError, match="cannot reach gs://bucket/unreachable.*no route to the store"):
        Preparation("folder", "out", videos="gs://bucket/unreachable").find()
