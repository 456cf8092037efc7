"""prepare --pack, tfds:NAME and --benchmark, through the command."""

import os
import pathlib
import re
import shutil
import signal

import commands
import numpy as np
import pytest
import tensorflow_datasets as tfds
from preparing import contents, interrupt, run, run_beside

from jax_video.data import reader
from jax_video.data.decoding import packed
from jax_video.data.manifest import Manifest, Packed
from jax_video.data.preparing import beam
from jax_video.data.preparing.machines import Machines
from jax_video.data.preparing.preparation import Preparation, prepare
from jax_video.data.sources import motions
from jax_video.errors import UserError, VideoError

SMALL_SHARDS = "small_shards"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes of six videos each, 40 frames long, and one file that is none."""
    root = tmp_path_factory.mktemp("videos")
    frames = np.random.default_rng(0).integers(0, 255, (40, 96, 128, 3), np.uint8)
    for name in ("a", "b"):
        (root / name).mkdir()
        for number in range(6):
            motions.encode(root / name / f"{number}.mp4", frames)
    (root / "a" / "text.mp4").write_text("not a video\n")
    return root


@pytest.fixture(scope="module")
def undisturbed(videos, tmp_path_factory):
    """The arguments but for --out, and what they write."""
    out = tmp_path_factory.mktemp("undisturbed")
    arguments = ("folder", f"--videos={videos}", "--workers=2", "--pack", "--pack_side=48", "--pack_quality=80")
    done = run(*arguments, f"--out={out}", module=SMALL_SHARDS)
    return arguments, out, done, contents(out)


def test_a_set_is_packed_and_says_how_to_train_on_it(undisturbed):
    _, out, done, files = undisturbed
    assert re.search(
        r"packing 480 frames into .*: about 0.00 GB, of [\d,]+ GB that are free, in 0:00:0\d on", done.stdout
    )
    assert "in 9 shards" in done.stdout and f"data={out / 'packed'}" in done.stdout
    plain, small = Manifest.read(out / "manifest.jsonl"), Manifest.read(out / "packed" / "manifest.jsonl")
    assert [row.path for row in small.videos] == [row.path for row in plain.videos]
    assert (small.packed.short_side, small.packed.quality) == (48, 80)
    entry = small.select("train")[3][1]
    assert reader.decode(small, entry, np.array([39, 0]), short_side=48).shape == (2, 48, 64, 3)
    assert not [name for name in files if name.endswith((".part", ".failed"))]


def test_packing_again_does_nothing_and_other_settings_are_refused(undisturbed, tmp_path):
    _, out, _, files = undisturbed
    shutil.copytree(out, tmp_path / "set")
    again = ("manifest", f"--out={tmp_path / 'set'}", "--pack", "--pack_side=48")
    done = run(*again, "--pack_quality=80", module=SMALL_SHARDS)
    assert "packing 480 frames" not in done.stdout and "in 9 shards" in done.stdout
    assert contents(tmp_path / "set" / "packed") == contents(out / "packed")
    done = run(*again, "--pack_quality=70", module=SMALL_SHARDS, expected=2)
    assert "packed with quality 80 (asked for: 70): remove that folder" in done.stderr
    done = run("manifest", f"--out={out / 'packed'}", "--check=fast", expected=2)
    assert "is a packed set, whose videos are no files" in done.stderr


def test_a_packed_set_that_is_left_behind_is_named(undisturbed, videos, tmp_path):
    """Where labels or splits changed, or files were replaced by like ones, and the set is prepared again without it."""
    _, out, _, _ = undisturbed
    copied, set_ = tmp_path / videos.name, tmp_path / "set"
    shutil.copytree(videos, copied)
    shutil.copytree(out, set_)

    def report(**given) -> str:
        return prepare(Preparation("folder", set_, videos=copied, machines=Machines(workers=1), **given)).report

    assert "warning" not in report()
    changed = f"warning: the set has changed since {set_ / 'packed'} was packed from it"
    assert changed in report(parameters={"seed": 5})
    motions.encode(copied / "b" / "2.mp4", np.random.default_rng(9).integers(0, 255, (40, 96, 128, 3), np.uint8))
    replaced = f"videos of the set have been replaced since {set_ / 'packed'} was packed from it"
    assert f"warning: {replaced}" in report()
    with pytest.raises(UserError, match=f"{re.escape(replaced)}: remove that folder to pack anew"):
        report(pack=Packed("frames", packed.RECORD_FRAMES, 48, 80))


def kill_and_go_on(undisturbed, out, counts) -> None:
    arguments, _, _, expected = undisturbed
    for count in counts:
        interrupt(signal.SIGKILL, rf"packing: .*\| ({count})/480", *arguments, f"--out={out}", module=SMALL_SHARDS)
        there = sum(re.search(r"-of-\d{5}$", name) is not None for name in contents(out))
        assert there
    done = run(*arguments, f"--out={out}", module=SMALL_SHARDS)
    assert re.search(r"packing: +\d+%\|[^|]*\| [1-9]\d*/480", done.stderr)  # So many are not done again.
    assert contents(out) == expected


def test_what_was_killed_goes_on_with_the_next_shard(undisturbed, tmp_path):
    kill_and_go_on(undisturbed, tmp_path / "out", [r"\d{2,3}"])


@pytest.mark.slow
def test_many_kills_change_nothing(undisturbed, tmp_path):
    kill_and_go_on(undisturbed, tmp_path / "out", [r"[1-4]?\d{2}", r"[1-4]\d{2}", r"[2-4]\d{2}", r"[34]\d{2}"])


def test_a_full_disk_while_packing(undisturbed, tmp_path):
    _, out, _, _ = undisturbed
    shutil.copytree(out, tmp_path / "set", ignore=shutil.ignore_patterns("packed"))
    arguments = ("jax_video.prepare", "manifest", f"--out={tmp_path / 'set'}", "--pack", "--workers=1")
    finished = commands.run(*arguments, largest_file=200_000)
    commands.check_user_error(finished, "cannot write to", "File too large", "the same command goes on where it was")
    left = contents(tmp_path / "set" / "packed")
    assert sorted(left) == ["packed.json"]
    assert commands.run(*arguments).code == 0


def test_packing_leaves_nothing_among_temporary_files(undisturbed, tmp_path):
    """Where it is killed, either: TFDS had made a folder there."""
    _, out, _, _ = undisturbed
    shutil.copytree(out, tmp_path / "set", ignore=shutil.ignore_patterns("packed"))
    (tmp_path / "temporary").mkdir()
    arguments = ("jax_video.prepare", "manifest", f"--out={tmp_path / 'set'}", "--pack", "--workers=1")
    assert commands.run(*arguments, env={"TMPDIR": str(tmp_path / "temporary")}).code == 0
    assert not list((tmp_path / "temporary").iterdir())


def test_a_video_that_has_changed_since_is_named(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "videos")
    out = tmp_path / "out"
    run("folder", f"--videos={tmp_path / 'videos'}", f"--out={out}")
    changed = tmp_path / "videos" / "b" / "2.mp4"
    changed.write_bytes(b"no video any more")
    done = run("manifest", f"--out={out}", "--pack")
    assert "not packed: b/2.mp4: changed: 17 bytes, where prepare saw" in done.stdout
    row = next(row for row in Manifest.read(out / "packed" / "manifest.jsonl").videos if row.path == "b/2.mp4")
    assert row.error.startswith("changed: 17 bytes")
    assert "b/2.mp4" in (out / "packed" / "broken.csv").read_text()
    assert f"not packed: 1 in all, in {out / 'packed' / 'broken.csv'}" in done.stdout


def test_apache_beam_packs_the_same_and_stores_flow(undisturbed, tmp_path):
    pytest.importorskip("apache_beam")
    arguments, out, _, expected = undisturbed
    shutil.copytree(out, tmp_path / "set", ignore=shutil.ignore_patterns("packed"))
    again = ("--pack", "--pack_side=48", "--pack_quality=80", "--flow=dis", "--flow_side=32", "--beam=")
    finished = commands.run("jax_video.prepare", "manifest", f"--out={tmp_path / 'set'}", *again)
    assert finished.code == 0, finished.stderr
    packed_again = Manifest.read(tmp_path / "set" / "packed" / "manifest.jsonl")
    plain = Manifest.read(out / "packed" / "manifest.jsonl")
    for entry, other in zip(plain.videos, packed_again.videos, strict=True):
        if entry.error is None:
            places = np.arange(entry.frames)
            np.testing.assert_array_equal(
                packed.decode(plain, entry, places, short_side=48),
                packed.decode(packed_again, other, places, short_side=48),
            )
            assert os.path.exists(os.path.join(packed_again.flow, f"{entry.path}.flow"))
    assert not list((tmp_path / "set").rglob("*beam*"))
    wrong = ("--flow=dis", "--flow_side=32", "--beam=--runner=No")
    commands.check_user_error(
        commands.run("jax_video.prepare", "manifest", f"--out={tmp_path / 'set'}", *wrong), "--beam="
    )


def _is_done_twice(task: str) -> None:
    """Leaves another result of the first task, as if it had been run again; the second task is broken."""
    folder, name = os.path.split(task)
    if name == "broken":
        raise VideoError(name, "damaged")
    pathlib.Path(folder, ".beam").mkdir(exist_ok=True)
    pathlib.Path(folder, ".beam", "result-again").write_text('[0, "slow"]\n')


def test_beam_may_run_a_task_twice_and_must_not_lose_one(tmp_path, monkeypatch):
    apache_beam = pytest.importorskip("apache_beam")
    tasks = [str(tmp_path / name) for name in ("good", "broken")]
    assert list(beam.run(tasks, _is_done_twice, options="", folder=tmp_path)) == [(0, None), (1, "damaged")]
    assert os.listdir(tmp_path) == []
    write = apache_beam.io.WriteToText
    monkeypatch.setattr(apache_beam.io, "WriteToText", lambda _: write(str(tmp_path / "elsewhere" / "result")))
    with pytest.raises(UserError, match="of 2 pieces of work 1 left no result in .*do all machines see it"):
        list(beam.run(tasks, _is_done_twice, options="", folder=tmp_path))


def test_beam_that_is_not_installed_says_how(undisturbed, tmp_path):
    (tmp_path / "apache_beam.py").write_text("raise ModuleNotFoundError(name='apache_beam')")
    arguments = ("manifest", f"--out={undisturbed[1]}", "--flow=dis", "--flow_side=32", "--beam=")
    done = run_beside(tmp_path, *arguments, expected=2)
    assert "--beam needs Apache Beam: pip install" in done.stderr


def test_a_set_of_tfds(undisturbed, tmp_path):
    """The packed set is one, each of whose records is a video to whom does not know better."""
    _, out, _, _ = undisturbed
    folder = out / "packed"
    done = run("tfds:nothing", f"--videos={folder}", f"--out={tmp_path}", expected=2)
    assert "no set nothing in" in done.stderr and "packed_videos" in done.stderr
    done = run("tfds:packed_videos", f"--videos={folder}", f"--out={tmp_path}", expected=2)
    assert "has no feature that is a sequence of pictures" in done.stderr
    done = run("tfds:packed_videos", f"--videos={folder}", f"--out={tmp_path}", "--flow=dis", expected=2)
    assert "--flow: not for tfds:packed_videos" in done.stderr
    for name in ("tfds:", "tfds:a b"):
        assert "error: no set" in run(name, f"--videos={folder}", f"--out={tmp_path}", expected=2).stderr
    assert tfds.builder_from_directory(Manifest.read(folder / "manifest.jsonl").root).info.splits["train"].num_examples


def test_benchmark_says_how_fast_and_what_to_change(undisturbed):
    _, out, _, _ = undisturbed
    clip = ("--clip=4,2,48,32", "--batch=2", "--workers=1", "--benchmark_seconds=0.3")
    done = run("--benchmark", out, *clip)
    for stage in ("read", "decode", "resize", "collate", "transfer"):
        assert re.search(rf"^  {stage} +\d+\.\d\d ms +\d+\.\d%$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^  0 \(two threads\) +[\d.]+ clips/s$", done.stdout, re.MULTILINE)
    assert re.search(r"^- --config.data.workers=[01] is the fastest", done.stdout, re.MULTILINE)
    assert "decode" in run("--benchmark", out / "packed" / "manifest.jsonl", *clip).stdout
    for wrong, message in (
        (("--benchmark", out, "--clip=4,2"), "expected frames, stride, short side and crop"),
        (("--benchmark", out / "nowhere"), "cannot read the manifest"),
        (("folder", "--benchmark", out), "takes a prepared set, and no source"),
        (("manifest", f"--out={out}", "--flow=dis", "--pack_side=9"), "--pack_side: nothing to do without --pack"),
        (("manifest", f"--out={out}", "--check=fast", "--beam="), "--beam: nothing to do without --flow or --pack"),
        (("folder", "--videos=a", "--out=gs://a/b"), "--out=gs://a/b: prepare writes to a local folder"),
    ):
        assert message in run(*wrong, expected=2).stderr
