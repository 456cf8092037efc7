"""`python -m jax_video.prepare` on videos in a store: the same set as from a disk, without a copy of it."""

import csv
import dataclasses
import os
import pathlib
import re
import signal

import numpy as np
import pytest
from preparing import contents, interrupt, run_beside

from jax_video.data import reader
from jax_video.data.decoding import packed, probing
from jax_video.data.manifest import Manifest, Packed
from jax_video.data.preparing import packing
from jax_video.data.preparing.preparation import Preparation, prepare
from jax_video.data.sources import motions
from jax_video.errors import UserError

GCSFS = '''"""What reaches gs:// in this process and its workers."""

import os
import sys

sys.path.insert(0, {tests!r})
import stores


class GCSFileSystem(stores.FolderStore):
    path, copied = os.environ["STORE"], []

    def open(self, path, mode="rb", **kwargs):
        if path.endswith(".mp4"):
            with open(os.environ["STORE"] + ".log", "a") as log:
                log.write(f"{{path}}\\n")
        return super().open(path, mode, **kwargs)
'''
VIDEOS = 8


@pytest.fixture
def modules(tmp_path, monkeypatch) -> pathlib.Path:
    """A folder of modules with one that reaches the store `tmp_path/store`, with videos in its bucket."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "gcsfs.py").write_text(GCSFS.format(tests=os.path.dirname(__file__)))
    monkeypatch.setenv("STORE", str(tmp_path / "store"))
    monkeypatch.setenv("JAX_VIDEO_CACHE", str(tmp_path / "cache"))
    pictures = np.random.default_rng(0).integers(0, 255, (VIDEOS, 6, 32, 48, 3)).astype(np.uint8)
    for number, frames in enumerate(pictures):
        path = tmp_path / "store" / "bucket" / "clips" / "ab"[number % 2] / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        motions.encode(path, frames)
    (tmp_path / "store" / "bucket" / "clips" / "a" / "broken.mp4").write_bytes(b"no video")
    return tmp_path / "modules"


def fetched(folder: pathlib.Path) -> list[str]:
    """The files that were fetched, one after the other."""
    return pathlib.Path(f"{folder / 'store'}.log").read_text().splitlines()


def test_a_set_in_a_store_is_prepared_as_one_on_a_disk(modules, tmp_path):
    bucket, out = tmp_path / "store" / "bucket", tmp_path / "out"
    rows = [f"{'ab'[number % 2]}/{number}.mp4,c{number},{'ab'[number % 2]},,," for number in range(1, VIDEOS)]
    parts = ['a/0.mp4,left,a,0,.12,"one, two"', "a/0.mp4,right,b,.12,.24,", "a/broken.mp4,left,a,,,"]
    (bucket / "t.csv").write_text("\n".join(["path,camera,label,start,end,said", *parts, *rows]))
    where = ("--videos=gs://bucket/clips", "--table=gs://bucket/t.csv", f"--out={out}", "--workers=1")
    done = run_beside(modules, "table", *where, "--fraction=.2", "--pack", "--pack_side=32")
    assert (
        re.search("not a readable video .* 1\n", done.stdout)
        and "finetune.py:weights=torchvision:r2plus1d_18,data=" in done.stdout
    )
    manifest = Manifest.read(out / "manifest.jsonl")
    assert manifest.root == "gs://bucket/clips"
    assert [video.frames for video in manifest.videos] == [3, 3, 0, *[6] * (VIDEOS - 1)]
    for video in manifest.videos:
        if video.error is None:
            assert probing.probe(bucket / "clips" / video.path, span=video.span).index == video.index
    with pytest.raises(UserError, match="video files are read from local disks only: copy them, or pack the set"):
        reader.check(manifest)

    # The frames are those that are packed from a disk, and nothing of the files is left.
    here = dataclasses.replace(manifest, root=str(bucket / "clips"))
    builder = packing.open_folder(tmp_path / "here", here, Packed("frames", packed.RECORD_FRAMES, 32, 90))
    for shard in packing.shards(here, builder.data_dir, builder.settings):
        packing.write_shard(shard)
    ours, theirs = contents(out / "packed"), contents(tmp_path / "here")
    assert (shards := [name for name in theirs if "array_record" in name])
    assert [name for name in shards if ours[name] != theirs[name]] == []
    assert list((tmp_path / "cache" / "fetched").iterdir()) == []
    assert len(fetched(tmp_path)) <= 3 * VIDEOS + 1  # to be checked, measured and packed

    # What else the table says is beside both manifests.
    expected = [{"video": "a/0.mp4#t=0,0.12", "camera": "left", "said": "one, two"}]
    expected += [{"video": "a/0.mp4#t=0.12,0.24", "camera": "right", "said": ""}]
    for folder in (out, out / "packed"):
        with open(folder / "columns.csv", newline="") as file:
            found = list(csv.DictReader(file))
        assert found[:2] == expected
        assert [row["video"] for row in found] == [
            video.name for video in Manifest.read(folder / "manifest.jsonl").videos
        ]

    # Later only what has changed is fetched.
    before = len(fetched(tmp_path))
    (bucket / "clips" / "a" / "2.mp4").touch()
    (bucket / "clips" / "b" / "1.mp4").unlink()
    again = run_beside(modules, "manifest", f"--out={out}", "--check=full", "--workers=1")
    assert fetched(tmp_path)[before:] == ["bucket/clips/a/2.mp4"]
    assert re.search("missing .* 1\n", again.stdout)
    assert "Videos in a store are not trained on" in again.stdout and "prepare manifest --out=" in again.stdout


def test_columns_of_an_earlier_table_do_not_stay(modules, tmp_path):
    clips, table = tmp_path / "store" / "bucket" / "clips", tmp_path / "t.csv"
    for rows, left in (("path,label,camera\na/0.mp4,a,left\n", True), ("path,label\na/0.mp4,a\n", False)):
        table.write_text(rows)
        task = Preparation("table", tmp_path / "out", videos=clips, parameters={"table": table}, check="fast")
        report = prepare(task).report
        assert (tmp_path / "out" / "columns.csv").exists() == ("columns.csv" in report) == left


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_while_it_fetches_it_leaves_nothing_and_goes_on(how, modules, tmp_path):
    videos = tmp_path / "store" / "bucket" / "clips"
    for number in range(60):
        empty = b"\0\0\0\x08free" * (number + 1)  # atoms of MP4, by which no two files are the same
        (videos / "a" / f"more{number}.mp4").write_bytes((videos / "a" / "0.mp4").read_bytes() + empty)
    arguments = ("folder", "--videos=gs://bucket/clips", f"--out={tmp_path / 'out'}", "--workers=2")
    code, _, said = interrupt(how, r" [1-9]\d*/69", *arguments, modules=modules)
    assert code == (130 if how == signal.SIGINT else -how), said
    assert list((tmp_path / "cache" / "fetched").iterdir()) == []
    before = len(fetched(tmp_path))
    assert 0 < before < 69
    run_beside(modules, *arguments)
    assert len(fetched(tmp_path)) <= 69 + 2  # those that were looked at when it was stopped, once more
    assert list((tmp_path / "cache" / "fetched").iterdir()) == []
