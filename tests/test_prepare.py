import csv
import dataclasses
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import commands
import cv2
import numpy as np
import pytest
from preparing import contents, interrupt, run, run_beside

from jax_video import config_flag, lock
from jax_video.data import pipeline, reader
from jax_video.data.decoding import flow
from jax_video.data.manifest import MISSING, Manifest
from jax_video.data.preparing import storing
from jax_video.data.preparing.machines import Machines
from jax_video.data.preparing.preparation import Preparation, prepare
from jax_video.data.sources import motions
from jax_video.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


def table(stdout: str) -> dict[str, list[int]]:
    """The rows of the printed table: what becomes of how many videos for training, validation and test, and of all."""
    rows = re.findall(r"^ *([a-z ]+?) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+)$", stdout, re.MULTILINE)
    return {name: [int(number.replace(",", "")) for number in numbers] for name, *numbers in rows}


def read_csv(path: pathlib.Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> pathlib.Path:
    """Class folders with good and broken files."""
    root = tmp_path_factory.mktemp("clips")
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), np.uint8)
    for name in ("run", "jump high"):
        (root / name).mkdir()
        for i in range(4):
            motions.encode(root / name / f"anna_{i}.mp4", frames)
        motions.encode(root / name / "boris_0.mp4", frames)
    (root / "run" / "anna_text.mp4").write_text("not a video\n" * 50)
    (root / "run" / "anna_empty.avi").touch()
    whole = (root / "run" / "anna_0.mp4").read_bytes()
    (root / "run" / "anna_cut.mp4").write_bytes(whole[: len(whole) // 2])
    return root


def test_folder_ends_with_a_table_the_broken_files_and_the_next_command(clips, tmp_path):
    out = tmp_path / "my data"
    done = run("folder", f"--videos={clips}", "--group=^([a-z]+)_", "--test_groups=boris", f"--out={out}")
    assert table(done.stdout) == {
        "readable": [8, 0, 2, 10],
        "duplicate of a test video": [8, 0, 0, 8],  # The fixture copies one video everywhere.
        "not a readable video": [2, 0, 0, 2],
        "empty file": [1, 0, 0, 1],
        "all": [11, 0, 2, 13],
    }
    assert "2 classes" in done.stdout
    command = "  python -m jax_video.main '--config=configs/"
    tuned = f"Train on it, from public weights:\n{command}finetune.py:weights=torchvision:r2plus1d_18,data={out}'"
    small = f"Or from scratch, and small, for a CPU:\n{command}stc.py:recipe=small,epochs=800,data={out}'"
    assert tuned in done.stdout
    assert small in done.stdout
    assert "13/13" in done.stderr  # The progress bar; nothing else, no warning.
    assert not re.search("warn|error", done.stderr, re.IGNORECASE)

    manifest = Manifest.read(out / "manifest.jsonl")
    assert manifest.classes == ("jump high", "run")
    assert {v.frames for v in manifest.videos if v.error is None} == {6}
    assert all((v.width, v.height, v.fps) == (48, 32, 25.0) for v in manifest.videos if v.error is None)
    broken = {v.path: v.error for v in manifest.videos if v.error is not None}
    assert broken.keys() == {"run/anna_text.mp4", "run/anna_empty.avi", "run/anna_cut.mp4"}
    header, *rows = read_csv(out / "broken.csv")
    assert header == ["split", "path", "reason"]
    assert {path: reason for _, path, reason in rows if not reason.startswith("duplicate")} == broken
    assert {split for split, *_ in rows} == {"train"} and len(rows) == 3 + 8


def test_an_entry_that_is_no_file_is_one_fault_and_is_never_opened(clips, tmp_path):
    """To open a pipe would take until the timeout."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(clips, videos)
    (videos / "run" / "circle.mp4").symlink_to("circle.mp4")
    (videos / "run" / "gone.mp4").symlink_to("nothing")
    os.mkfifo(videos / "run" / "pipe.mp4")
    expected = {
        "run/circle.mp4": "not a file: a symbolic link that leads in a circle",
        "run/gone.mp4": "not a file: a symbolic link to nothing",
        "run/pipe.mp4": "not a file: a pipe, a socket or a device",
    }
    done = run("folder", f"--videos={videos}", f"--out={out}", "--check=fast", "--timeout=1000")
    assert table(done.stdout)["not a file"][3] == 3 and table(done.stdout)["readable"][3] >= 10
    broken = {path: reason for _, path, reason in read_csv(out / "broken.csv")[1:]}
    assert {path: broken[path] for path in expected} == expected
    found = {row.path: row.error for row in Manifest.read(out / "manifest.jsonl").videos}
    assert {path: found[path] for path in expected} == expected
    run("manifest", f"--out={out}", "--check=fast", "--timeout=1000")
    found = {row.path: row.error for row in Manifest.read(out / "manifest.jsonl").videos}
    assert {path: found[path] for path in expected} == expected | {"run/gone.mp4": MISSING}


def test_two_at_once_into_one_folder(clips, tmp_path):
    """The second one is refused before it removes what it would take for the first one's leftovers."""
    out = tmp_path / "out"
    with lock.hold(out):
        (out / ".manifest.jsonl.being written").write_text("{}")
        before = contents(out)
        done = run("folder", f"--videos={clips}", f"--out={out}", expected=2)
        assert f"error: {out} is in use by process {os.getpid()} on" in done.stderr
        assert contents(out) == before
    assert run("folder", f"--videos={clips}", f"--out={out}", "--check=fast").code == 0
    assert {path.name for path in out.iterdir()} == {"manifest.jsonl", "broken.csv", "checked.jsonl"}


def test_the_number_of_workers_changes_nothing(clips, tmp_path):
    for workers in (1, 3):
        run("folder", f"--videos={clips}", f"--workers={workers}", f"--out={tmp_path / str(workers)}")
    assert (tmp_path / "1/manifest.jsonl").read_bytes() == (tmp_path / "3/manifest.jsonl").read_bytes()


def test_ucf101_with_three_of_its_files(test_data, tmp_path):
    done = run("ucf101", f"--videos={test_data / 'ucf101' / 'videos'}", f"--out={tmp_path}")
    rows = table(done.stdout)
    train, val, test, _ = rows["all"]
    assert (train + val, test) == (9537, 3783) and rows["readable"][-1] == 3 and rows["missing"][-1] == 13317
    assert "101 classes" in done.stdout
    manifest = Manifest.read(tmp_path / "manifest.jsonl")
    assert len(manifest.videos) == 13320
    found = {v.path: v.frames for v in manifest.videos if v.error is None}
    assert found == {
        "Basketball/v_Basketball_g01_c01.avi": 141,
        "SoccerJuggling/v_SoccerJuggling_g23_c01.avi": 240,
        "SoccerJuggling/v_SoccerJuggling_g24_c01.avi": 251,
    }
    assert {v.error for v in manifest.videos} == {None, MISSING}


def test_hmdb51_counts_the_frames_that_decode(test_data, tmp_path):
    videos, lists = test_data / "hmdb51" / "videos", test_data / "hmdb51" / "testTrainMulti_7030_splits"
    done = run("hmdb51", f"--videos={videos}", f"--annotations={lists}", "--split=3", f"--out={tmp_path}")
    rows = table(done.stdout)
    assert (rows["readable"][-1], rows["missing"][-1], rows["all"][-1]) == (2, 5098, 5100)
    manifest = Manifest.read(tmp_path / "manifest.jsonl")
    assert sorted(v.frames for v in manifest.videos if v.error is None) == [72, 74]
    assert len(manifest.classes) == 51


def test_weizmann_by_person(test_data, tmp_path):
    flags = ("--group=^([a-z]+)_", "--test_groups=ira,lena", "--val_groups=eli")
    done = run("folder", f"--videos={test_data / 'weizmann'}", *flags, f"--out={tmp_path}")
    _, val, test, everything = table(done.stdout)["readable"]
    assert everything == 63 and test > 20 and val >= 10
    assert min(v.frames for v in Manifest.read(tmp_path / "manifest.jsonl").videos) == 28


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected one source of folder, .*ucf101, hmdb51, .*manifest, motions, tfds:NAME, got none"),
        (["imagenet", "--videos=x", "--out=y"], "expected one source of folder, .*motions, tfds:NAME, got imagenet"),
        (["folder", "extra", "--videos=x", "--out=y"], "got folder extra"),
        (["folder", "--videos=x"], "expected --videos=DIR, .* and --out=DIR"),
        (["folder", "--videos={none}", "--out={out}"], "is not a folder; --videos names the folder"),
        (["folder", "--videos={empty}", "--out={out}"], "no videos in class folders"),
        (["folder", "--videos={clips}", "--split=2", "--out={out}"], "--split: not for folder, which knows --fraction"),
        (["ucf101", "--videos={clips}", "--out={out}"], "no official lists"),
        (["folder", "--videos={clips}", "--workers=0", "--out={out}"], "workers"),
        (["folder", "--video={clips}", "--out={out}"], "Unknown command line flag 'video'"),
        (["folder", "--videos={clips}", "--out={file}"], "cannot write to .*File exists"),
        (
            ["folder", "--videos={clips}", "--out={clips}", "--flow=dis"],
            "is the folder of the videos, among which flow",
        ),
        (["manifest", "--out={empty}", "--flow=dis"], "cannot read the manifest .*python -m jax_video.prepare"),
        (["manifest", "--out={empty}"], r"nothing to do .*: --flow=METHOD .* --check=fast\|full .* --videos=DIR"),
        (["motions", "--out={out}", "--videos={clips}"], "--videos: not for motions, whose videos are known"),
        (["motions", "--out={out}", "--check=fast"], "--check: not for motions"),
        (["manifest", "--out={out}", "--min_frames=9"], "--min_frames: manifest is looked at only with --check=fast"),
        (["folder", "--videos={clips}", "--out={out}", "--check=half"], r"value should be one of <fast\|full>"),
        (["motions", "--out={out}", "--seed=3"], "--seed: not for motions"),
        (["motions", "--out={out}", "--min_frames=40"], "--min_frames: not for motions"),
        (
            ["folder", "--videos={clips}", "--out={out}", "--group=^([a-z]+)_", "--test_groups=boris", "--fraction=.4"],
            "--fraction: nothing is drawn where --group",
        ),
        (["folder", "--videos={clips}", "--out={out}", "--batch=4"], "--batch: nothing to do without --benchmark"),
        (["--benchmark=motions", "--out={out}", "--pack"], "--out --pack: nothing to do with --benchmark"),
        (["folder", "--videos={clips}", "--out=motions"], "--out=motions: in a config this is the embedded set"),
        (["folder", "--videos={clips}", "--out={out}", "--timeout=0"], "--timeout=0: expected more than 0 seconds"),
        (["folder", "--videos={clips}", "--out={out}", "--test_groups=a"], "--val_groups need --group"),
        (["motions", "--out={out}", "--flow=farneback"], r"value should be one of <tvl1\|dis>"),
    ],
)
def test_a_user_error_is_one_message_and_exit_code_2(arguments, message, clips, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    places = {name: tmp_path / name for name in ("none", "empty", "out", "file")} | {"clips": clips}
    done = run(*(argument.format(**places) for argument in arguments), expected=2)
    assert re.search(message, done.stderr)
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.fixture(scope="module")
def with_flow(clips, tmp_path_factory) -> pathlib.Path:
    """The folder of a prepared set, one of whose videos has changed since, and then got its flow."""
    root = tmp_path_factory.mktemp("with flow")
    shutil.copytree(clips, root / "videos")
    out = root / "out"
    run("folder", f"--videos={root / 'videos'}", "--seed=1", f"--out={out}")
    frames = np.random.default_rng(0).integers(0, 255, (4, 32, 48, 3), np.uint8)
    motions.encode(root / "videos" / "run" / "boris_0.mp4", frames)
    return out


def test_flow_is_stored_for_all_that_can_be_read_and_goes_on_where_it_was(with_flow, capsys):
    arguments = ("manifest", f"--out={with_flow}", "--flow=dis", "--flow_side=32")
    before = Manifest.read(with_flow / "manifest.jsonl")
    done = run(*arguments)
    assert "flow: 9 of 10 videos in " in done.stdout and "10/10" in done.stderr
    assert re.search("no flow: run/boris_0.mp4: changed: [0-9,]+ bytes, where prepare saw [0-9,]+; run", done.stdout)
    assert [path for _, path, _ in read_csv(with_flow / "broken_flow.csv")] == ["path", "run/boris_0.mp4"]
    manifest = Manifest.read(with_flow / "manifest.jsonl")
    assert manifest == dataclasses.replace(before, flow=str(with_flow / "flow"))
    offered = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("  python -m jax_video.main")]
    assert len(offered) == 2  # from weights for pictures, and small
    for words in offered:
        config = config_flag.load(words[3].removeprefix("--config="))
        for key, value in re.findall(r"--config\.clip\.(\w+)=(\S+)", " ".join(words)):
            config.clip[key] = type(config.clip[key])(value)
        sampling = pipeline.Sampling(**config.clip)
        assert (sampling.short_side, sampling.size) == (32, 32), "clips are of the flow as it is stored"
        pipeline.check_stored(manifest, sampling)
    # It was known before, so that it stops no training; another one would.
    assert flow.check_stored(manifest) == {"run/boris_0.mp4"} == flow.given_up(manifest)
    said = capsys.readouterr().err
    assert re.search("1 of the 10 videos of 'videos' have no flow in .*, e.g. run/boris_0.mp4", said)
    assert f"{with_flow / 'broken_flow.csv'} says why" in said

    # As a stop leaves it: one is missing, one is half written, under another name.
    files = {path: path.stat().st_mtime_ns for path in (with_flow / "flow").rglob("*.flow")}
    first = next(iter(files))
    content = first.read_bytes()
    first.rename(first.with_name(".abc.part"))
    run(*arguments)
    after = {path: path.stat().st_mtime_ns for path in (with_flow / "flow").rglob("*.flow")}
    assert {path for path in files if after[path] != files[path]} == {first} and len(after) == len(files) == 9
    assert first.read_bytes() == content and not list((with_flow / "flow").rglob(".*"))

    done = run(*arguments[:2], "--flow=tvl1", "--flow_side=32", expected=2)
    assert re.search("holds flow of method dis.*asked for was method tvl1.*: remove .* or choose another", done.stderr)
    # It is kept without being asked for; what is of a file that was replaced by a like one is named, and made anew.
    frames = np.random.default_rng(7).integers(0, 255, (6, 32, 48, 3), np.uint8)
    motions.encode(with_flow.parent / "videos" / "run" / "anna_1.mp4", frames)
    again = ("folder", f"--videos={with_flow.parent / 'videos'}", "--seed=1", f"--out={with_flow}")
    done = run(*again)
    assert "warning: flow of files that were replaced since: 1, e.g. run/anna_1.mp4: prepare with --flow" in done.stdout
    assert Manifest.read(with_flow / "manifest.jsonl").flow == manifest.flow
    done = run(*again, *arguments[2:])
    assert "warning: flow" not in done.stdout and "flow: 10 of 10 videos in " in done.stdout
    made = {path: path.stat().st_mtime_ns for path in (with_flow / "flow").rglob("*.flow")}
    assert {path.name for path in made if made[path] != after.get(path)} == {"anna_1.mp4.flow", "boris_0.mp4.flow"}


def test_broken_flow_is_computed_anew(with_flow):
    """What is seen at the beginning, at the end or from the size of a file at once, all else with --recheck."""
    arguments = ("manifest", f"--out={with_flow}", "--flow=dis", "--flow_side=32")
    run(*arguments)
    files = sorted((with_flow / "flow").rglob("*.flow"))
    sound = {path: path.read_bytes() for path in files}
    small = with_flow / "small.flow"
    entry = next(row for row in Manifest.read(with_flow / "manifest.jsonl").videos if row.path == "run/anna_0.mp4")
    storing.store(with_flow.parent / "videos" / entry.path, small, entry, flow.Settings("dis", 16))
    whole = sound[files[0]]
    index = len(whole) - int(np.frombuffer(whole[128:136], np.int64)[0])  # bytes behind it
    damages = [
        b"",
        b"\0" * len(whole),
        whole[: len(whole) // 2],
        whole[:-2] + b"\0\0",
        b"PK" + whole[2:],
        small.read_bytes(),
        whole[:-index] + b"\0" * 50 + whole[50 - index :],
        whole.replace(b"'<i8'", b"'<f8'"),
    ]
    small.unlink()
    for path, damage in zip(files, damages, strict=False):
        path.write_bytes(damage)
    files[8].unlink()
    run(*arguments)
    assert {path: path.read_bytes() for path in files} == sound

    third = np.frombuffer(whole[128:152], np.int64)[2]
    files[0].write_bytes(whole[:third] + b"\0" * 50 + whole[third + 50 :])
    run(*arguments)
    assert files[0].read_bytes() != whole
    run(*arguments, "--recheck")
    assert files[0].read_bytes() == whole


def test_the_embedded_set_can_be_written(tmp_path, monkeypatch):
    made = motions.make(tmp_path / "cache", train=8, val=0, test=0, frames=2, width=16, height=16)
    monkeypatch.setattr(motions, "make", lambda *_: made)
    result = prepare(Preparation("motions", tmp_path / "out"))
    assert result.manifest == Manifest.read(tmp_path / "out" / "manifest.jsonl") == Manifest.read(made)
    assert not result.manifest.flip


def test_it_is_called_from_python_with_parameters(clips, tmp_path, capsys):
    """It reads no flags, prints nothing on stdout, and says what the command prints."""
    said = []
    task = Preparation(
        "folder",
        tmp_path / "out",
        videos=clips,
        parameters={"group": "^([a-z]+)_", "test_groups": ["boris"]},
        check="fast",
        flow=flow.Settings("dis", 32),
        machines=Machines(workers=1),
    )
    result = prepare(task, say=said.append)
    assert capsys.readouterr().out == ""
    assert result.report == "\n".join(said) and table(result.report)["readable"][-1] == 10
    assert "flow: 10 of 10 videos in" in result.report
    assert result.folder == tmp_path / "out" and result.manifest == Manifest.read(tmp_path / "out" / "manifest.jsonl")
    with pytest.raises(UserError, match="--split: not for folder, which knows --fraction --seed --group"):
        Preparation("folder", tmp_path / "out", videos=clips, parameters={"split": 2})
    with lock.hold(tmp_path / "out"), ThreadPoolExecutor(1) as other, pytest.raises(UserError, match="is in use"):
        other.submit(prepare, task).result()


def test_files_of_the_user_are_not_written_over(clips, tmp_path):
    """Nor what is read: a table that is called as ours, among the videos."""
    table = "path,label\nrun/anna_0.mp4,run\n"
    for name in ("manifest.jsonl", "columns.csv", "broken.csv"):
        out = tmp_path / name
        out.mkdir()
        (out / name).write_text(table)
        (out / ".download.part").write_text("theirs")
        with pytest.raises(UserError, match=f"--table=.*{name} is a file that is written into --out"):
            Preparation("table", out, videos=clips, parameters={"table": [str(out / name)]})
        with pytest.raises(UserError, match=f"{name} is there, and is not as prepare writes it: move it"):
            prepare(Preparation("folder", out, videos=clips, check="fast"))
        assert (out / name).read_text() == table and (out / ".download.part").exists()
        assert sorted(path.name for path in out.iterdir()) == [".download.part", name]
    out = tmp_path / "own"
    prepare(Preparation("folder", out, videos=clips, check="fast"))
    (out / ".broken.csv.swp").write_text("an editor's")
    (out / "broken.csv").write_bytes(b"\xef\xbb\xbf" + (out / "broken.csv").read_bytes().replace(b",", b";"))
    prepare(Preparation("folder", out, videos=clips, check="fast"))
    assert (out / ".broken.csv.swp").exists() and b";" not in (out / "broken.csv").read_bytes().split(b"\n")[0]


def test_videos_without_labels_are_for_knowledge_transfer(clips, tmp_path):
    done = run("unlabelled", f"--videos={clips}", f"--out={tmp_path}", "--workers=1")
    assert f"--config=configs/transfer.py:weights=torchvision:resnet50,data={tmp_path}" in done.stdout
    found = Manifest.read(tmp_path / "manifest.jsonl")
    assert found.classes == () and found.select("train") and all(video.label is None for video in found.videos)


def test_a_folder_is_indexed_and_gets_its_flow_at_once(clips, tmp_path):
    run("folder", f"--videos={clips}", f"--out={tmp_path}", "--flow=tvl1", "--flow_side=16")
    manifest = Manifest.read(tmp_path / "manifest.jsonl")
    flow.check_stored(manifest)
    assert flow.read_settings(manifest.flow) == flow.Settings("tvl1", 16)


def test_no_videos_of_a_list_is_a_user_error(test_data, tmp_path):
    lists = test_data / "ucf101" / "ucfTrainTestlist"
    done = run("ucf101", f"--videos={tmp_path}", f"--annotations={lists}", f"--out={tmp_path / 'out'}", expected=2)
    assert "no videos found" in done.stderr and "none of the 13320 videos" in done.stderr
    assert not (tmp_path / "out").exists()


def test_only_broken_videos_is_a_user_error_that_names_the_list(tmp_path):
    (tmp_path / "videos" / "a").mkdir(parents=True)
    (tmp_path / "videos" / "a" / "x.mp4").write_text("text")
    done = run("folder", f"--videos={tmp_path / 'videos'}", f"--out={tmp_path}", expected=2)
    assert "none of the 1 videos can be read; the reasons are in" in done.stderr
    assert "not a readable video" in (tmp_path / "broken.csv").read_text()


def test_it_starts_without_jax():
    code = "import sys, jax_video.prepare; assert not {'jax', 'flax', 'grain', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[pathlib.Path, tuple, dict[str, bytes]]:
    """A set whose check and flow take a while: a folder, the arguments but for --out, and what they write.

    12 videos come first, then as many files that are none.
    """
    root = tmp_path_factory.mktemp("undisturbed")
    (root / "videos" / "a").mkdir(parents=True)
    frames = np.random.default_rng(0).integers(0, 255, (200, 96, 128, 3), np.uint8)
    motions.encode(root / "video.mp4", frames)
    for i in range(12):
        (root / "videos" / "a" / f"{i}.mp4").symlink_to(root / "video.mp4")
        (root / "videos" / "a" / f"broken {i}.mp4").write_text("not a video\n" * i)
    arguments = ("folder", f"--videos={root / 'videos'}", "--workers=2", "--flow=dis", "--flow_side=32")
    run(*arguments, f"--out={root / 'out'}")
    return root, arguments, contents(root / "out")


# Nobody comes to the end of this video from when a file is there: the signal always finds its step unfinished.
ENDLESS = """
import os, time
from jax_video.data.decoding import regular
opened = regular.opened
def endless(path):
    if os.path.basename(path) == "9.mp4" and os.path.exists({since!r}):
        time.sleep(600)
    return opened(path)
regular.opened = endless
"""


@pytest.mark.parametrize(
    "how, step",
    [
        (signal.SIGINT, "checking"),
        pytest.param(signal.SIGKILL, "checking", marks=[pytest.mark.slow, pytest.mark.ci]),
        (signal.SIGKILL, "flow"),
    ],
)
def test_what_was_stopped_or_killed_goes_on_where_it_was(how, step, undisturbed, tmp_path):
    _, arguments, expected = undisturbed
    out, modules = tmp_path / "out", tmp_path / "modules"
    modules.mkdir()
    since = out / "manifest.jsonl" if step == "flow" else modules  # the manifest is written between the steps
    (modules / "sitecustomize.py").write_text(ENDLESS.format(since=str(since)))
    seen = rf"{step}: .*\| ([2-9]|\d\d)/"
    code, stdout, stderr = interrupt(how, seen, *arguments, f"--out={out}", modules=modules)
    if how == signal.SIGINT:
        assert code == 130 and stderr.splitlines()[-1] == "stopped: the same command goes on where it was"
        assert "Traceback" not in stderr and "error" not in stderr
    else:
        assert code == -signal.SIGKILL
    assert (stdout == "") == (step == "checking") == (not (out / "manifest.jsonl").exists())
    before = contents(out)
    known = sum(name.endswith(".flow") for name in before) if step == "flow" else before["checked.jsonl"].count(b"\n")
    assert known >= 2

    done = run(*arguments, f"--out={out}")
    assert re.search(rf"{step}: +\d+%\|[^|]*\| {known}/", done.stderr)  # So many are not done again.
    assert contents(out) == expected


@pytest.mark.slow
def test_many_kills_change_nothing(undisturbed, tmp_path):
    _, arguments, expected = undisturbed
    out = tmp_path / "out"
    for step, total, counts in (("checking", 24, (1, 3, 5, 7)), ("flow", 12, (1, 3, 5, 7))):
        for count in counts:
            reached = "|".join(map(str, range(count, 12)))  # What can be decoded comes first.
            interrupt(signal.SIGKILL, rf"{step}: .*\| ({reached})/{total}", *arguments, f"--out={out}")
    run(*arguments, f"--out={out}")
    assert contents(out) == expected


def test_a_set_is_checked_again(clips, tmp_path):
    """Files that have appeared, gone or broken since."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(clips, videos)
    away = videos / "run" / "anna_0.mp4"
    whole = away.read_bytes()
    options = ("--group=^([a-z]+)_", "--test_groups=boris")
    run("folder", f"--videos={videos}", *options, f"--out={out}")
    first = contents(out)

    away.unlink()
    (videos / "run" / "anna_1.mp4").write_bytes(b"")
    done = run("manifest", f"--out={out}", "--check=fast")
    rows = table(done.stdout)
    assert (rows["readable"][-1], rows["missing"][-1], rows["empty file"][-1]) == (8, 1, 2)
    assert "run/anna_0.mp4" not in {path for _, path, _ in read_csv(out / "broken.csv")}

    away.write_bytes(whole)
    (videos / "run" / "anna_1.mp4").write_bytes(whole)
    for name in (".manifest.jsonl.abc", ".checked.jsonl.part"):  # As a kill leaves them.
        (out / name).write_text("half")
    run("manifest", f"--out={out}", "--check=full")
    assert contents(out) | {"checked.jsonl": b""} == first | {"checked.jsonl": b""}  # But for the files' times.
    done = run("folder", f"--videos={videos}", *options, f"--out={out}", "--min_frames=7", expected=2)
    assert table(done.stdout)["too short"][-1] == 10 and "13/13" in done.stderr


def test_a_broken_decoder_breaks_no_videos(clips, tmp_path):
    """As PyAV 19 did, which does not take a keyword that those before took."""
    (tmp_path / "modules").mkdir()
    strange = "import av\nold = av.open\nav.open = lambda *args, **options: old(*args, no_such_keyword=1, **options)\n"
    (tmp_path / "modules" / "sitecustomize.py").write_text(strange)
    arguments = ("folder", f"--videos={clips}", f"--out={tmp_path / 'out'}")
    done = run_beside(tmp_path / "modules", *arguments, expected=2)
    assert "no_such_keyword" in done.stdout + done.stderr and "Traceback" in done.stderr
    assert "error: stopped at 12 of the files, by no fault of theirs:\n  " in done.stderr
    assert done.stderr.count(": not looked at: TypeError: ") == 10 and "and 2 more" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"checked.jsonl"}
    mended = run(*arguments)
    assert table(mended.stdout)["readable"] == [6, 2, 2, 10]
    again = run("manifest", f"--out={tmp_path / 'out'}", "--recheck")
    assert table(again.stdout) == table(mended.stdout)


def test_a_library_that_lacks_a_part_breaks_no_flow(clips, tmp_path):
    """As OpenCV without its contributed modules, which has no TV-L1."""
    out = tmp_path / "out"
    run("folder", f"--videos={clips}", f"--out={out}", "--check=fast")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "sitecustomize.py").write_text("import cv2\ndel cv2.optflow\n")
    done = run_beside(tmp_path / "modules", "manifest", f"--out={out}", "--flow=tvl1", "--flow_side=32", expected=2)
    assert "Traceback" in done.stderr and "by no fault of theirs" in done.stderr and "'optflow'" in done.stderr
    assert not (out / "broken_flow.csv").exists()
    mended = run("manifest", f"--out={out}", "--flow=dis", "--flow_side=32", expected=2)
    assert "holds flow of method tvl1" in mended.stderr
    assert "flow: 10 of 10 videos" in run("manifest", f"--out={out}", "--flow=tvl1", "--flow_side=32").stdout


def test_a_set_whose_files_have_moved(clips, tmp_path):
    shutil.copytree(clips, tmp_path / "before")
    out = tmp_path / "out"
    run("folder", f"--videos={tmp_path / 'before'}", f"--out={out}")
    found = Manifest.read(out / "manifest.jsonl")
    text = (out / "manifest.jsonl").read_bytes()
    (tmp_path / "before").rename(tmp_path / "after")
    hidden = tmp_path / "after" / "run" / "anna_2.mp4"
    hidden.rename(tmp_path / "hidden.mp4")

    done = run("manifest", f"--out={out}", f"--videos={tmp_path / 'after'}", expected=2)
    assert f"9 of the 10 readable videos of before are below {tmp_path / 'after'}; run/anna_2.mp4 is not" in done.stderr
    assert f"looked for {hidden}" in done.stderr
    done = run("manifest", f"--out={out}", "--check=fast", expected=2)
    assert f"no videos found: {tmp_path / 'before'} has none of the 13 videos" in done.stderr
    assert "--videos names the folder" in done.stderr
    assert (out / "manifest.jsonl").read_bytes() == text

    (tmp_path / "hidden.mp4").rename(hidden)
    done = run("manifest", f"--out={out}", f"--videos={tmp_path / 'after'}")
    assert table(done.stdout)["readable"][-1] == 10 and "checking" not in done.stderr
    assert Manifest.read(out / "manifest.jsonl") == dataclasses.replace(found, root=str(tmp_path / "after"))


def test_a_full_disk_costs_nothing_that_was_there(clips, tmp_path):
    shutil.copytree(clips, tmp_path / "videos")
    out = tmp_path / "out"
    arguments = ("jax_video.prepare", "folder", f"--videos={tmp_path / 'videos'}", f"--out={out}", "--workers=1")
    assert commands.run(*arguments).code == 0
    before = contents(out)
    for path in (tmp_path / "videos").rglob("*.mp4"):
        os.utime(path, ns=(10**18, 10**18))

    full = len(before["checked.jsonl"]) + 1000
    finished = commands.run(*arguments, largest_file=full)
    commands.check_user_error(finished, f"cannot write to {out} (", "the same command goes on where it was")
    after = contents(out)
    assert after.keys() == before.keys() and after["manifest.jsonl"] == before["manifest.jsonl"]
    assert after["checked.jsonl"].startswith(before["checked.jsonl"])
    assert commands.run(*arguments).code == 0
    assert contents(out) | {"checked.jsonl": b""} == before | {"checked.jsonl": b""}  # But for the files' times.


def test_a_full_disk_at_the_manifest(test_data, tmp_path):
    """It is longer than what is remembered of the few videos that are there."""
    lists = test_data / "ucf101" / "videos"
    finished = commands.run("jax_video.prepare", "ucf101", f"--videos={lists}", f"--out={tmp_path}", largest_file=9999)
    commands.check_user_error(finished, f"cannot write to {tmp_path} (", "the same command goes on where it was")
    assert sorted(os.listdir(tmp_path)) == ["broken.csv", "checked.jsonl"]


def test_lists_of_folders_of_pictures(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), np.uint8)
    for number in range(4):
        folder = tmp_path / "videos" / f"clip {number}"
        folder.mkdir(parents=True)
        for frame, image in enumerate(images, 1):
            cv2.imwrite(str(folder / f"img_{frame:05d}.png"), image)
    (tmp_path / "train.txt").write_text("clip 0 5 1\r\nclip 1 5 0\r\n")
    (tmp_path / "val.txt").write_text('"clip 2" 1\n')
    (tmp_path / "test.txt").write_text("clip 3,walk\nclip 4,run\n")
    (tmp_path / "names.txt").write_text("run\nwalk\n")
    lists = [f"--{split}_list={tmp_path / split}.txt" for split in ("train", "val", "test")]
    names = f"--class_names={tmp_path / 'names.txt'}"
    run("list", f"--videos={tmp_path / 'videos'}", *lists, names, f"--out={tmp_path / 'out'}")
    manifest = Manifest.read(tmp_path / "out" / "manifest.jsonl")
    assert manifest.classes == ("run", "walk")
    assert [(v.path, v.label, v.split, v.frames, v.error) for v in manifest.videos] == [
        ("clip 0", 1, "train", 5, None),
        ("clip 1", 0, "train", 5, None),
        ("clip 2", 1, "val", 5, None),
        ("clip 3", 1, "test", 5, None),
        ("clip 4", 0, "test", 0, MISSING),
    ]


def test_parts_of_one_long_video_are_rows_of_their_own(tmp_path):
    """Checked, checked again, with their flow and packed, each with its own frames."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    texture = np.random.default_rng(0).integers(0, 60, (32, 48, 3))
    long = np.stack([np.roll(texture, frame, 1) + 3 * frame for frame in range(50)]).astype(np.uint8)
    motions.encode(videos / "whole.mp4", long)
    rows = ("run,whole,0,0.4,train", "walk,whole,1,1.4,train", "run,whole,1.6,2,val", "run,whole,9,19,train")
    (videos / "train.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]))
    done = run("kinetics700", f"--videos={videos}", f"--out={out}", "--flow=dis", "--flow_side=32", "--pack")
    assert table(done.stdout) == {
        "readable": [2, 0, 1, 3],
        "too short": [1, 0, 0, 1],
        "all": [3, 0, 1, 4],
    }
    names = ["whole.mp4#t=0,0.4", "whole.mp4#t=1,1.4", "whole.mp4#t=1.6,2", "whole.mp4#t=9,19"]
    assert read_csv(out / "broken.csv")[1][:2] == ["train", names[3]]
    found, packed = (Manifest.read(folder / "manifest.jsonl") for folder in (out, out / "packed"))
    for manifest in (found, packed):
        assert [video.name for video in manifest.videos] == names
        assert {video.path for video in manifest.videos} == {"whole.mp4"}
        for video, first in zip(manifest.videos[:3], (0, 25, 40), strict=True):
            frames = reader.decode(manifest, video, np.arange(10), short_side=None)
            assert (
                np.abs(frames.mean((1, 2, 3)) - long[first : first + 10].mean((1, 2, 3))).max() < 1.5
            )  # a frame is 3 brighter than the last
            moved = reader.flow_stacks(manifest, video, np.array([5]), short_side=32)
            assert moved.shape == (1, 32, 48, 20)
    assert sorted(path.name for path in (out / "flow").glob("*.flow")) == [f"{name}.flow" for name in names[:3]]
    again = run("kinetics700", f"--videos={videos}", f"--out={out}")
    assert "4/4" in again.stderr and Manifest.read(out / "manifest.jsonl") == found
    assert len((out / "checked.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(("unit", "asked"), [(1, False), (25, True)])
def test_times_in_another_unit_are_asked_about(unit, asked, tmp_path):
    (tmp_path / "videos").mkdir()
    motions.encode(tmp_path / "videos" / "a.mp4", np.zeros((100, 32, 48, 3), np.uint8))  # 4 s
    rows = [f"a.mp4,{'xy'[second % 2]},{second * unit},{(second + 1) * unit}" for second in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,start,end", *rows]))
    task = Preparation(
        "table",
        tmp_path / "out",
        videos=tmp_path / "videos",
        parameters={"table": [str(tmp_path / "t.csv")]},
        check="fast",
        machines=Machines(workers=1),
    )
    report = prepare(task).report
    assert ("warning: 4 of the 4 parts reach beyond their files, a.mp4#t=0," in report) == asked
    assert ("are they frames, or milliseconds?" in report) == asked


def test_what_is_taught_and_what_is_used_again_is_said(tmp_path):
    for number, name in enumerate(["run/anna_1", "run/anna_2", "fly/boris_1"]):
        path = tmp_path / "videos" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        motions.encode(path, np.random.default_rng(number).integers(0, 255, (3 + 3 * number, 32, 48, 3), np.uint8))
    group = {"group": "^([a-z]+)_", "test_groups": ("boris",)}
    task = Preparation(
        "folder",
        tmp_path / "out",
        videos=tmp_path / "videos",
        parameters=group,
        min_frames=4,
        machines=Machines(workers=1),
    )
    report = prepare(task).report
    assert "warning: classes without a readable video to train on, which are tested all the same: fly" in report
    again = prepare(Preparation("manifest", tmp_path / "out", check="full", machines=Machines(workers=1)))
    assert (
        "warning: used now, and not before: run/anna_1.mp4; if the files are the same, say the rules again"
        in again.report
    )
    same = Preparation("manifest", tmp_path / "out", check="full", min_frames=4, machines=Machines(workers=1))
    assert "used now" not in prepare(same).report


def test_pictures_that_only_seconds_tell_apart_are_broken_and_say_so(tmp_path):
    for folder in ("wholewhole1", "cutcutcut11_5_15"):
        (tmp_path / "videos" / folder).mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(str(tmp_path / "videos" / folder / f"img_{number}.png"), np.zeros((32, 48, 3), np.uint8))
    rows = ("run,wholewhole1,5,15,val", "run,cutcutcut11,5,15,val")
    (tmp_path / "val.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]))
    run("kinetics700", f"--videos={tmp_path / 'videos'}", f"--out={tmp_path / 'out'}")
    for arguments in ((), ("--check=fast", "--recheck")):
        if arguments:
            run("manifest", f"--out={tmp_path / 'out'}", *arguments)
        whole, cut = Manifest.read(tmp_path / "out" / "manifest.jsonl").videos
        assert (whole.error or "").startswith("pictures without times: which of them are from 5 to 15 s cannot be told")
        assert (cut.path, cut.frames, cut.error) == ("cutcutcut11_5_15", 3, None)


@pytest.mark.parametrize(
    "source, layout, arguments, said",
    [
        ("folder", ["train/a/1.mp4", "val/a/1.mp4", "extras/a/1.mp4"], (), "extras beside them not.*--class_depth=1"),
        ("folder", ["a/g1/1.mp4", "b/g1/1.mp4"], (), "a has g1; b has g1"),
        ("list", ["a.mp4"], ("--test_list={root}/list",), "list:1: more than a path and a label.*--columns="),
        ("list", ["a.mp4"], ("--test_list={root}/list", "--columns=x,y"), "--columns=x,y: expected `path` and `label`"),
        ("list", ["a.mp4"], ("--test_list={root}/list", "--class_names={root}/json"), "json:2: begins as JSON"),
        ("ucf101", ["a.mp4"], ("--columns=path,label",), "--columns: not for ucf101"),
    ],
)
def test_layouts_that_are_not_understood_end_with_one_message(source, layout, arguments, said, tmp_path):
    for name in layout:
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    (tmp_path / "list").write_text("a.mp4 40 0\n")
    (tmp_path / "json").write_text('{"walk": 0\n"run": 1}')
    arguments = [argument.format(root=tmp_path) for argument in arguments]
    finished = run(source, f"--videos={tmp_path / 'videos'}", f"--out={tmp_path / 'out'}", *arguments, expected=2)
    assert re.search(f"^error: .*{said}", finished.stderr, re.DOTALL) and "Traceback" not in finished.stderr
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
