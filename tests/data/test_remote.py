"""Sets in an object store: manifests are read in place, packed shards through copies, and nothing else is."""

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import stat
import sys
import threading

import numpy as np
import pytest
from stores import FolderStore

from jax_video.data import pipeline, reader, remote
from jax_video.data.decoding import packed
from jax_video.data.manifest import Manifest, Packed
from jax_video.data.preparing import packing
from jax_video.data.sources import motions, prepared
from jax_video.errors import UserError

SAMPLING = pipeline.Sampling(frames=4, stride=1, short_side=16, size=16)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "remote"


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Manifest:
    folder = tmp_path_factory.getbasetemp()
    return Manifest.read(motions.make(folder, train=16, val=8, test=8, frames=8, width=32, height=16))


@pytest.fixture
def in_store(videos, store) -> tuple[Manifest, Manifest]:
    """A packed set, on disk and in the store, from which the manifest was read."""
    folder = store / "bucket" / "set"
    settings = Packed("frames", packed.RECORD_FRAMES, short_side=16, quality=90)
    builder = packing.open_folder(folder, videos, settings)
    for shard in packing.shards(videos, builder.data_dir, settings):
        packing.write_shard(shard)
    packing.finish(videos, builder, folder)
    return Manifest.read(folder / "manifest.jsonl"), prepared.read("gs://bucket/set")


def take(number: int, manifest: Manifest) -> list[pipeline.Batch]:
    batches = pipeline.train_batches(manifest, SAMPLING, batch=4, seed=0)
    with contextlib.closing(batches):
        return [next(batches) for _ in range(number)]


def test_a_manifest_in_a_store_is_the_same_file(videos, store, tmp_path):
    odd = dataclasses.replace(videos.videos[0], path="odd\udcff.mp4")  # a name of a file need not be Unicode
    there = dataclasses.replace(
        videos, root="gs://bucket/set/videos", flow="gs://other/flow", videos=(odd, *videos.videos[1:])
    )
    there.write("gs://bucket/set/manifest.jsonl")
    assert Manifest.read("gs://bucket/set/manifest.jsonl") == there
    assert prepared.read("gs://bucket/set") == there

    here = dataclasses.replace(there, root=str(tmp_path / "here" / "videos"), flow="gs://other/flow")
    here.write(tmp_path / "here" / "manifest.jsonl")
    written = (store / "bucket" / "set" / "manifest.jsonl").read_bytes()
    assert (tmp_path / "here" / "manifest.jsonl").read_bytes() == written

    videos.write("gs://bucket/elsewhere.jsonl")  # of videos on this disk
    assert Manifest.read("gs://bucket/elsewhere.jsonl") == videos


def test_a_packed_set_is_read_through_copies_made_once(in_store, cache, capsys):
    on_disk, in_store = in_store
    assert in_store.root.startswith("gs://bucket/set/") and in_store.hash == on_disk.hash
    reader.check(in_store)
    assert f"is copied to {cache} as it is read" in capsys.readouterr().err
    for found, expected in zip(take(5, in_store), take(5, on_disk), strict=True):
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], strict=True)
    assert len(FolderStore.copied) == 1  # one split of one shard


def test_a_file_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("named"), replace(*paths)))
    remote.write_whole(tmp_path / "file", [b"one", b"two"])
    assert (tmp_path / "file").read_bytes() == b"onetwo" and os.listdir(tmp_path) == ["file"]
    assert done == [done[0], "named", str(tmp_path)] and done[0].startswith(f"{tmp_path}/.file.")


def test_pipes_and_devices_are_written_into(tmp_path):
    """As --csv=/dev/stdout; a file in their place would be the system's loss."""
    os.mkfifo(tmp_path / "pipe")
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        read = other.submit((tmp_path / "pipe").read_bytes)
        remote.write_whole(tmp_path / "pipe", [b"a", b"b"])
        assert read.result() == b"ab" and stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
    with open(tmp_path / "out", "wb") as out:
        remote.write_whole(f"/proc/self/fd/{out.fileno()}", [b"told"])
    assert (tmp_path / "out").read_bytes() == b"told"
    if os.path.isdir("/dev/shm"):  # which is a disk like others: a file there stays until the new one is whole
        kept = pathlib.Path(f"/dev/shm/jax_video-test-{os.getpid()}")
        try:
            kept.write_bytes(b"before")
            remote.write_whole(kept, (part for part in [kept.read_bytes(), b" and after"]))
            assert kept.read_bytes() == b"before and after"
        finally:
            kept.unlink()
    with pytest.raises(IsADirectoryError):
        remote.write_whole(tmp_path, [b"a"])


def test_a_copy_is_whole_or_not_there(store, cache):
    file = store / "bucket" / "shard"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"first")
    copy = pathlib.Path(remote.local("gs://bucket/shard"))
    assert copy.read_bytes() == b"first" and copy.is_relative_to(cache)
    assert remote.local("gs://bucket/shard") == str(copy) and len(FolderStore.copied) == 1

    copy.unlink()
    copy.with_name(f"{copy.name}.part").write_bytes(b"of a process that was killed, and longer")
    threads = [threading.Thread(target=remote.local, args=("gs://bucket/shard",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert copy.read_bytes() == b"first" and len(FolderStore.copied) == 2

    file.write_bytes(b"second")  # another file of the same name
    assert pathlib.Path(remote.local("gs://bucket/shard")).read_bytes() == b"second"
    assert remote.local("/on/disk") == "/on/disk"


def test_video_files_and_flow_are_not_read_from_a_store(videos, store):
    there = dataclasses.replace(videos, root="gs://bucket/videos", flow="gs://bucket/flow")
    with pytest.raises(UserError, match="'motions' are in gs://bucket/videos, .* copy them, or pack the set .*--pack"):
        reader.check(there)
    with pytest.raises(UserError, match="flow of 'motions' is in gs://bucket/flow, .* copy the set"):
        pipeline.check_stored(there, pipeline.Sampling(4, 1, 32, 32, streams=("flow",)))


def test_what_cannot_be_reached_is_said(videos, store, monkeypatch):
    with pytest.raises(UserError, match=r"the manifest gs://bucket/none \(No such file or directory\)"):
        prepared.read("gs://bucket/none")
    with pytest.raises(UserError, match="cannot reach gs://bucket/unreachable: RuntimeError: no route to the store"):
        prepared.read("gs://bucket/unreachable")
    with pytest.raises(UserError, match="ftp://host/set: expected a local path or one of gs://, s3://, az://, hf://"):
        prepared.read("ftp://host/set")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match="s3://bucket/set: what reaches s3:// is not installed: pip install s3fs"):
        prepared.read("s3://bucket/set")
