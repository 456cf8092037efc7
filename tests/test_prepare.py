import csv
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from absl.testing import flagsaver

from jax_video import prepare
from jax_video.data import flow, motions, video
from jax_video.data.manifest import MISSING, Manifest
from jax_video.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


def run(*arguments, expected=0) -> subprocess.CompletedProcess:
    """Runs the command as a user does; from another folder, so that nothing rests on the current one."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "jax_video.prepare", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == expected, done.stderr
    return done


def table(stdout: str) -> dict[str, list[int]]:
    """The rows of the printed table: found, missing, broken."""
    rows = re.findall(r"^(train|val|test|all) +([\d,]+) +([\d,]+) +([\d,]+)$", stdout, re.MULTILINE)
    return {name: [int(number.replace(",", "")) for number in numbers] for name, *numbers in rows}


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
    assert table(done.stdout) == {"train": [8, 0, 3], "val": [0, 0, 0], "test": [2, 0, 0], "all": [10, 0, 3]}
    assert "2 classes" in done.stdout
    assert "broken: 1 empty file" in done.stdout
    assert f"python -m jax_video.main '--config=configs/stc.py:data={out}'" in done.stdout
    assert "13/13" in done.stderr  # The progress bar; nothing else, no warning.
    assert not re.search("warn|error", done.stderr, re.IGNORECASE)

    manifest = Manifest.read(out / "manifest.jsonl")
    assert manifest.classes == ("jump high", "run")
    assert {v.frames for v in manifest.videos if v.error is None} == {6}
    assert all((v.width, v.height, v.fps) == (48, 32, 25.0) for v in manifest.videos if v.error is None)
    broken = {v.path: v.error for v in manifest.videos if v.error is not None}
    assert broken.keys() == {"run/anna_text.mp4", "run/anna_empty.avi", "run/anna_cut.mp4"}
    with open(out / "broken.csv", newline="") as file:
        assert dict(list(csv.reader(file))[1:]) == broken


def test_the_number_of_workers_changes_nothing(clips, tmp_path):
    for workers in (1, 3):
        run("folder", f"--videos={clips}", f"--workers={workers}", f"--out={tmp_path / str(workers)}")
    assert (tmp_path / "1/manifest.jsonl").read_bytes() == (tmp_path / "3/manifest.jsonl").read_bytes()


def test_ucf101_with_three_of_its_files(test_data, tmp_path):
    done = run("ucf101", f"--videos={test_data / 'ucf101' / 'videos'}", f"--out={tmp_path}")
    rows = table(done.stdout)
    assert rows["all"] == [3, 13317, 0]
    assert sum(rows["train"] + rows["val"]) == 9537 and sum(rows["test"]) == 3783
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
    assert table(done.stdout)["all"] == [2, 5098, 0]
    manifest = Manifest.read(tmp_path / "manifest.jsonl")
    assert sorted(v.frames for v in manifest.videos if v.error is None) == [72, 74]
    assert len(manifest.classes) == 51


def test_weizmann_by_person(test_data, tmp_path):
    flags = ("--group=^([a-z]+)_", "--test_groups=ira,lena", "--val_groups=eli")
    done = run("folder", f"--videos={test_data / 'weizmann'}", *flags, f"--out={tmp_path}")
    rows = table(done.stdout)
    assert rows["all"] == [63, 0, 0] and rows["test"][0] > 20 and rows["val"][0] >= 10
    assert min(v.frames for v in Manifest.read(tmp_path / "manifest.jsonl").videos) == 28


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected one source of folder, .*ucf101, hmdb51, .*manifest, motions, got none"),
        (["imagenet", "--videos=x", "--out=y"], "expected one source of folder, .*motions, got imagenet"),
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
        (["manifest", "--out={empty}"], "nothing to do for a set that is prepared: --flow=METHOD"),
        (["motions", "--out={out}", "--videos={clips}"], "--videos: not for motions, whose videos are known"),
        (["motions", "--out={out}", "--seed=3"], "--seed: not for motions"),
        (["motions", "--out={out}", "--flow=farneback"], "value should be one of <tvl1|dis>"),
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


def test_flow_is_stored_for_all_that_can_be_read_and_goes_on_where_it_was(with_flow):
    arguments = ("manifest", f"--out={with_flow}", "--flow=dis", "--flow_side=32")
    before = Manifest.read(with_flow / "manifest.jsonl")
    done = run(*arguments)
    assert "flow: 9 of 10 videos in " in done.stdout and "10/10" in done.stderr
    assert "no flow: run/boris_0.mp4: only 4 of 6 frames decode" in done.stdout
    with open(with_flow / "broken_flow.csv", newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["path", "run/boris_0.mp4"]
    manifest = Manifest.read(with_flow / "manifest.jsonl")
    assert manifest == dataclasses.replace(before, flow=str(with_flow / "flow"))
    with pytest.raises(UserError, match="1 of the 10 videos of 'videos' have no flow in .*, e.g. run/boris_0.mp4"):
        flow.check_stored(manifest)

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
    done = run("folder", f"--videos={with_flow.parent / 'videos'}", "--seed=1", f"--out={with_flow}")
    assert Manifest.read(with_flow / "manifest.jsonl").flow == manifest.flow  # it is kept without being asked for


def test_the_embedded_set_can_be_written(tmp_path, monkeypatch):
    made = motions.make(tmp_path / "cache", train=8, val=0, test=0, frames=2, width=16, height=16)
    monkeypatch.setattr(motions, "make", lambda: made)
    with flagsaver.flagsaver(out=str(tmp_path / "out")):
        prepare.main(["motions"])
    assert Manifest.read(tmp_path / "out" / "manifest.jsonl") == Manifest.read(made)


def test_videos_without_labels_are_for_knowledge_transfer(clips, tmp_path):
    done = run("unlabelled", f"--videos={clips}", f"--out={tmp_path}", "--workers=1")
    assert f"--config=configs/transfer.py:weights=resnet50.pth,data={tmp_path}" in done.stdout
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


def test_help_is_short_and_has_examples():
    done = run("--help")
    assert "python -m jax_video.prepare folder --videos=clips" in done.stdout
    assert len(done.stdout.splitlines()) < 60


def test_it_starts_without_jax():
    code = "import sys, jax_video.prepare; assert not {'jax', 'flax', 'grain', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_decoder_that_crashes_or_hangs_costs_one_file():
    """Built-in functions stand for decoders: what they are given decides how they end."""
    assert list(prepare.check([0.0, 60.0, 0.0], workers=1, timeout=2, probe=time.sleep)) == [
        (0, None),
        (1, "not done after 2 s"),
        (2, None),
    ]
    crashes = dict(prepare.check([signal.SIGSEGV, signal.SIGABRT], workers=2, timeout=60, probe=signal.raise_signal))
    assert crashes == {0: "the decoder crashes (SIGSEGV)", 1: "the decoder crashes (SIGABRT)"}
    assert dict(prepare.check([3], workers=4, timeout=60, probe=os._exit)) == {0: "the decoder crashes (exit code 3)"}
    assert list(prepare.check([], workers=4, timeout=60)) == []
    slow = prepare.check([0.0, 60.0], workers=2, timeout=lambda seconds: 60 - seconds, probe=time.sleep)
    assert sorted(slow) == [(0, None), (1, "not done after 0 s")]


def test_what_is_no_fault_of_a_file_stops_it():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(prepare.check(["/nowhere/at/all"], workers=1, timeout=60, probe=os.mkdir))


def test_check_gives_what_probe_says(clips):
    paths = [str(clips / "run" / "anna_0.mp4"), str(clips / "run" / "anna_empty.avi")]
    assert dict(prepare.check(paths, workers=2, timeout=60)) == {0: video.VideoInfo(6, 25.0, 48, 32), 1: "empty file"}


def running(group: int) -> list[str]:
    """The processes of a group that have not ended."""
    lines = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in lines.splitlines()]
    return [args[0] for pgid, stat, *args in rows if int(pgid) == group and not stat.startswith("Z")]


@pytest.mark.parametrize("killed", [False, True])
def test_ctrl_c_ends_with_one_line_and_no_manifest_and_no_process_outlives_it(killed, test_data, tmp_path):
    source = test_data / "kinetics400" / "val" / "R6llTwEh07w_000000_000010.mp4"
    (tmp_path / "videos" / "a").mkdir(parents=True)
    for i in range(300):
        (tmp_path / "videos" / "a" / f"{i}.mp4").symlink_to(source)
    arguments = ["folder", f"--videos={tmp_path / 'videos'}", f"--out={tmp_path / 'out'}", "--workers=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jax_video.prepare", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started = ""
    while "| 1/300" not in started and "| 2/300" not in started:  # Until it is in the middle of its work.
        started += process.stderr.read(1)
    if killed:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if killed else 130)
    assert stdout == "" and "Traceback" not in stderr
    assert killed or stderr.splitlines()[-1] == "stopped"
    assert os.listdir(tmp_path / "out") == []
    deadline = time.monotonic() + 10
    while running(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running(process.pid)
